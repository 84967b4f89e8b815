"""A run is named by the beginning of its id, wherever a command takes a run."""

import sqlite3
from contextlib import closing

import pandas as pd
import pytest

from hmm_exp.commands import promote, registry, sweeps
from hmm_exp.config import GateConfig
from hmm_exp.errors import ModelError, TrackingError
from hmm_exp.registry import promotion
from hmm_exp.registry.versions import Versions
from hmm_exp.report import __main__ as report
from hmm_exp.serving.load import find_detector, load_detector
from hmm_exp.serving.mlflow_model import sample_bars
from hmm_exp.store.run_ids import full_run_id
from hmm_exp.store.store import Store
from hmm_exp.tracking import tags
from hmm_exp.tracking.runs import sweep_named
from tests.small_detector import candidate, small_detector


@pytest.fixture(scope="module")
def run_id(store: Store) -> str:
    return candidate(store, small_detector())


@pytest.fixture(scope="module")
def twins(store: Store) -> list[str]:
    """Two runs whose ids begin alike."""
    ids = []
    for ending in ("1" * 24, "2" * 24):
        made = store.client.create_run(store.experiment_id).info.run_id
        with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as database, database:
            for table in ("runs", "tags"):
                database.execute(
                    f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?",
                    (f"abcdef01{ending}", made),
                )
        ids.append(f"abcdef01{ending}")
    return ids


@pytest.mark.parametrize("length", [6, 8, 31, 32])
def test_a_beginning_of_six_characters_or_more_names_a_run(store, run_id, length):
    assert full_run_id(store.client, run_id[:length]) == run_id
    assert full_run_id(store.client, run_id[:length].upper()) == run_id


def test_a_beginning_of_several_runs_is_one_line_that_lists_them(store, twins):
    with pytest.raises(TrackingError) as refused:
        full_run_id(store.client, "abcdef01")
    line = str(refused.value)
    assert line.startswith("2 runs begin with abcdef01: ")
    assert all(twin[:12] in line for twin in twins)
    assert full_run_id(store.client, twins[1][:9]) == twins[1]


@pytest.mark.parametrize(
    ("name", "says"),
    [("abcde", "at least 6 characters"), ("0" * 12, "no run 000000000000"), ("%%%%%%", None)],
)
def test_a_beginning_of_no_run_is_refused_and_another_text_is_left(store, name, says):
    if says is None:
        assert full_run_id(store.client, name) == name
    else:
        with pytest.raises(TrackingError, match=says):
            full_run_id(store.client, name)


def test_a_model_is_loaded_by_the_beginning_of_its_run(store, run_id, twins, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    bars = sample_bars(small_detector())
    expected = small_detector().filter(bars)
    short = run_id[:8]
    for load, name in [
        (find_detector, short),
        (find_detector, f"runs:/{short}/model"),
        (load_detector, f"runs:/{short}"),
        (load_detector, f"runs:/{run_id}/"),
    ]:
        pd.testing.assert_frame_equal(load(name).filter(bars), expected)
    with pytest.raises(ModelError, match="2 runs begin with abcdef01"):
        find_detector("abcdef01")
    (tmp_path / short).mkdir()
    small_detector(seed=5).save(tmp_path / short / "detector.json")
    assert find_detector(short).meta["fingerprint"] == "fp-synthetic-5"


def test_commands_take_the_beginning_of_a_run(store, run_id, twins, capsys):
    uri = ["--tracking-uri", store.uri]
    assert promote.main(["--run", run_id[:6], "--dry-run", *uri]) == 0
    assert "would be promoted" in capsys.readouterr().out
    for main, words in [
        (promote.main, ["--run", "abcdef0"]),
        (report.main, ["--run", "abcdef0"]),
    ]:
        assert main([*words, *uri]) == 2
        line = capsys.readouterr().err
        assert ": 2 runs begin with abcdef0: " in line
        assert line.count("\n") == 1


def test_a_version_is_named_by_the_beginning_of_its_run(store, run_id, capsys):
    promotion.promote(store.client, run_id, registry_name="short", gate=GateConfig())
    versions = Versions(store.client, "short")
    assert versions.get(run_id[:7]).version == versions.get("1").version
    words = ["--registry", "short", "--tracking-uri", store.uri]
    assert registry.main(["show", run_id[:7], *words]) == 0
    assert run_id in capsys.readouterr().out
    assert registry.main(["rollback", "--to", run_id[:7], *words]) == 0
    assert "nothing was rolled back" in capsys.readouterr().out
    assert registry.main(["show", "123456", *words]) == 2
    assert "no version 123456 of short: there are 1" in capsys.readouterr().err


def test_a_sweep_is_named_by_the_beginning_of_its_id(store, capsys):
    for sweep_id in ("20260102-030405-abcd", "20260102-040506-bcde"):
        known = {tags.KIND: "sweep", tags.SWEEP_ID: sweep_id}
        run = store.client.create_run(store.experiment_id, tags=known)
        store.client.set_terminated(run.info.run_id)
    assert sweep_named(store.client, "20260102-03") == "20260102-030405-abcd"
    assert sweep_named(store.client, "20260102-040506-bcde") == "20260102-040506-bcde"
    uri = ["--tracking-uri", store.uri]
    assert sweeps.main([*uri, "show", "20260102"]) == 2
    line = capsys.readouterr().err
    assert "2 sweeps begin with 20260102: 20260102-030405-abcd, 20260102-040506-bcde" in line
    for name in ("20270101", "x", "2026%", "20260102%"):
        with pytest.raises(TrackingError, match="no sweep"):
            sweep_named(store.client, name)
