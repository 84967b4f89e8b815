"""The store: made whole or not at all, one line when it is broken, patience when it is gone."""

import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient

from hmm_exp.config import TrackingConfig
from hmm_exp.errors import TrackingError
from hmm_exp.store import store
from hmm_exp.store.address import ARTIFACTS, sqlite_uri
from hmm_exp.store.store import analyse, artifact_root, connect, open_store, patiently
from hmm_exp.tracking.read import read_scores
from hmm_exp.tracking.ui import ui_command
from tests.conftest import ROOT
from tests.small_detector import forget_store, store_in

STATISTICS = "SELECT name FROM sqlite_master WHERE name = 'sqlite_stat1'"


def test_a_store_whose_making_was_killed_is_made_by_the_next_start(tmp_path, monkeypatch):
    # no blank database is kept, which would be copied at once
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
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


@pytest.mark.parametrize("name", ["sp ace", "wh?at", "50% off#ü", "q'u\"o"])
def test_a_store_is_made_in_a_folder_of_any_name_with_its_artifacts_next_to_it(tmp_path, name):
    uri = sqlite_uri(tmp_path / name / "mlflow.db")
    made = open_store(TrackingConfig(uri=uri))
    folder = tmp_path / name
    run = made.client.create_run(made.experiment_id)
    made.client.log_text(run.info.run_id, "any", "any.txt")
    assert (folder / ARTIFACTS / run.info.run_id / "artifacts" / "any.txt").read_text() == "any"
    assert artifact_root(made) == folder / ARTIFACTS
    analyse(made)
    assert connect(uri).get_run(run.info.run_id).info.run_id == run.info.run_id
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        places = {
            place for (place,) in database.execute("SELECT artifact_location FROM experiments")
        }
    assert places == {f"{folder.as_uri()}/mlruns", f"{folder.as_uri()}/mlruns/0"}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    forget_store()


def test_statistics_of_the_tables_wait_where_another_process_writes(tmp_path):
    made = open_store(TrackingConfig(uri=sqlite_uri(tmp_path / "mlflow.db")))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        analyse(made)
        writer.rollback()
        assert not writer.execute(STATISTICS).fetchall()
        analyse(made)
        assert writer.execute(STATISTICS).fetchall()
    forget_store()


def test_an_experiment_that_the_store_refuses_is_not_called_deleted(tmp_path):
    refused = TrackingConfig(uri=sqlite_uri(tmp_path / "mlflow.db"), experiment="e" * 600)
    with pytest.raises(TrackingError, match="exceeds the maximum length"):
        open_store(refused)
    forget_store()


def test_the_file_of_a_store_alone_holds_what_a_program_recorded(tmp_path):
    program = (
        "from hmm_exp.command_line import run_program\n"
        "from hmm_exp.config import TrackingConfig\n"
        "from hmm_exp.store.store import open_store\n"
        "def main():\n"
        "    store = open_store(TrackingConfig())\n"
        "    store.client.create_run(store.experiment_id, run_name='recorded')\n"
        "run_program(main)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)
    copy = tmp_path / "moved" / "copy.db"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "mlflow.db").read_bytes())
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT name FROM runs").fetchall() == [("recorded",)]


def test_the_command_for_the_ui_serves_the_store_that_was_used(workdir, monkeypatch):
    monkeypatch.chdir(workdir)
    here = store_in(workdir)
    assert ui_command(here) == "mlflow ui, then "
    elsewhere = replace(here, uri=f"sqlite:///{workdir}/an other/mlflow.db")
    option = f"--backend-store-uri 'sqlite:///{workdir}/an other/mlflow.db'"
    assert ui_command(elsewhere) == f"mlflow ui {option}, then "
    assert ui_command(replace(here, uri="http://127.0.0.1:5000")) == ""
    forget_store()


@pytest.fixture
def gone(monkeypatch):
    """Client of a server on a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(store, "_lost", False)
    mlflow.set_tracking_uri(uri)
    yield MlflowClient(uri)
    forget_store()


def tries_of(client: MlflowClient, patience: float) -> tuple[int, str]:
    """How often the store is tried until patience ends, and its last message."""
    tries = itertools.count()

    def action():
        next(tries)
        return client.get_run("any")

    with pytest.raises(TrackingError) as caught:
        patiently(action, patience)
    return next(tries), str(caught.value)


def test_patience_runs_out_once_and_comes_back_with_the_store(gone):
    assert tries_of(gone, 3.0)[0] > 1
    assert tries_of(gone, 600.0)[0] == 1
    assert tries_of(gone, 600.0)[0] == 1
    assert patiently(lambda: "an answer", 600.0) == "an answer"
    assert tries_of(gone, 3.0)[0] > 1


def test_a_server_that_is_gone_is_one_short_line(gone):
    _, line = tries_of(gone, 0.0)
    uri = gone.tracking_uri
    assert line == f"the tracking store {uri} does not answer: Connection refused"


def test_opening_a_store_can_be_tried_again(gone):
    tries = itertools.count()

    def opened():
        if next(tries) == 0:
            store.check_store(TrackingConfig(uri=gone.tracking_uri))
        return "open"

    assert patiently(opened, 10.0) == "open"


def test_a_store_that_is_gone_is_not_taken_for_a_run_without_the_file(gone, workdir):
    with pytest.raises(MlflowException, match="refused"):
        read_scores(gone, "any")
    there = store_in(workdir)
    run_id = there.client.create_run(there.experiment_id).info.run_id
    assert read_scores(there.client, run_id) is None
    assert read_scores(there.client, "0" * 32) is None


def test_an_error_of_the_store_is_shown_without_the_password(gone):
    mlflow.set_tracking_uri("http://me:secret@127.0.0.1:9")

    def action():
        raise MlflowException("database\n is locked")

    with pytest.raises(TrackingError) as caught:
        patiently(action, 0.0)
    line = "the tracking store http://127.0.0.1:9 does not answer: database is locked"
    assert str(caught.value) == line


def test_a_full_disk_is_not_waited_for(gone):
    tries = itertools.count()

    def action():
        next(tries)
        raise MlflowException(
            "(sqlite3.OperationalError) database or disk is full (Background on this error ...)",
            error_code=TEMPORARILY_UNAVAILABLE,
        )

    with pytest.raises(TrackingError) as caught:
        patiently(action, 600.0)
    assert str(caught.value).endswith("does not answer: database or disk is full")
    assert next(tries) == 1
    assert not store._lost


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_running_step(number):
    done = []

    def action():
        os.kill(os.getpid(), number)
        done.append("the step")

    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            patiently(action, 600.0)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert done == ["the step"]


def test_a_second_interrupt_does_not_wait():
    done = []

    def action():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done.append("the step")

    with pytest.raises(KeyboardInterrupt):
        patiently(action, 600.0)
    assert not done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_step_in_another_thread_handles_no_signals():
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(patiently, lambda: "an answer", 1.0).result() == "an answer"


def test_a_refusal_is_not_retried(gone):
    def action():
        raise MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)

    with pytest.raises(MlflowException, match="no such run"):
        patiently(action, 600.0)
    assert not store._lost
