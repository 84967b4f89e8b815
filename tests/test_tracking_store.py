"""The store: made whole or not at all, and one line when it cannot be used."""

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from hmm_exp.config import TrackingConfig
from hmm_exp.errors import TrackingError
from hmm_exp.tracking.store import connect, open_store
from tests.conftest import ROOT
from tests.small_detector import forget_store


def test_a_store_whose_making_was_killed_is_made_by_the_next_start(tmp_path):
    (tmp_path / "mlflow.db-wal").write_bytes(b"what a lost database left")
    command = [sys.executable, "-m", "tests.killed_making", str(tmp_path), "[1, 100000, 500000]"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert json.loads(done.stdout) == [-signal.SIGKILL] * 3 + [0], done.stderr
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        names = {name for (name,) in database.execute("SELECT name FROM experiments")}
    assert names == {"Default", "hmm_exp"}
    assert not list(tmp_path.glob("*.part*"))


def test_a_database_that_mlflow_cannot_use_is_one_line(tmp_path):
    half, junk = tmp_path / "half.db", tmp_path / "junk.db"
    with closing(sqlite3.connect(half)) as database:
        database.execute("CREATE TABLE spans (id INTEGER)")
    junk.write_text("no database " * 100)
    for place, reason in ((half, "table spans already exists"), (junk, "is not a database")):
        uri = f"sqlite:///{place}"
        for opening in (lambda uri: open_store(TrackingConfig(uri=uri)), connect):
            with pytest.raises(TrackingError) as caught:
                opening(uri)
            assert f"{place.name} cannot be used: (sqlite3." in str(caught.value)
            assert reason in str(caught.value)
            assert "\n" not in str(caught.value)
    forget_store()
