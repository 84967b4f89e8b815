"""A store that was moved or copied: refused before anything is written, and put right."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from hmm_exp.commands import promote, registry, sweeps
from hmm_exp.config import GateConfig, TrackingConfig
from hmm_exp.errors import HmmExpError, TrackingError
from hmm_exp.registry.promotion import promote as put
from hmm_exp.report.__main__ import main as report
from hmm_exp.serving.load import load_detector
from hmm_exp.store.relocation import outdated_places, relocate
from hmm_exp.store.store import connect, open_store
from tests.small_detector import candidate, forget_store, small_detector, store_in

OFF = GateConfig(name="off")
PRODUCTION = "models:/hmm_regime/Production"


@pytest.fixture(scope="module")
def made(tmp_path_factory, empty_store) -> Path:
    """A store with a run and a model in Production, which stays where it is."""
    folder = tmp_path_factory.mktemp("made") / "w3 ü"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    store = store_in(folder)
    run_id = candidate(store, small_detector("BTC"))
    put(store.client, run_id, registry_name="hmm_regime", gate=OFF, force=True)
    close(folder)
    return folder


def close(folder: Path) -> None:
    """Let go of a store, all of it written into its file."""
    forget_store()
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture
def moved(made, tmp_path, monkeypatch) -> Path:
    """The store in another folder, where we stand; the old one is gone for as long."""
    folder = tmp_path / "mo ved"
    shutil.copytree(made, folder)
    away = made.with_name("away")
    made.rename(away)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield folder
    forget_store()
    shutil.rmtree(made, ignore_errors=True)
    away.rename(made)


def files(folder: Path) -> dict[str, int]:
    """Files of a folder and their sizes, without what SQLite keeps while it reads."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in found
        if not path.name.endswith(("-shm", "-wal"))
    }


def test_a_moved_store_is_refused_before_anything_is_written(moved, made, capsys):
    before = files(moved)
    refused = [
        (promote.main, ["--sweep", "latest"]),
        (report, ["--sweep", "latest"]),
        (registry.main, ["rollback"]),
        (sweeps.main, ["clean", "--yes"]),
    ]
    for main, words in refused:
        assert main(words) == 2
        line = capsys.readouterr().err
        assert line == (
            f"error: {moved}/mlflow.db was moved or copied: its artifacts are recorded in "
            f"{made}/mlruns; move it back, or switch to the artifacts in its own folder: "
            "hmm-sweeps relocate\n"
        )
    for action in (lambda: open_store(TrackingConfig()), lambda: load_detector(PRODUCTION)):
        with pytest.raises(HmmExpError, match="was moved or copied"):
            action()
    assert files(moved) == before
    assert not made.exists()


def test_what_needs_no_artifacts_works_in_a_moved_store(moved, capsys):
    assert sweeps.main(["list"]) == 0
    assert registry.main(["list"]) == 0
    assert "Production" in capsys.readouterr().out


def test_relocated_it_works_for_us_and_for_mlflow_and_stays_away_from_the_old_place(
    moved, made, capsys
):
    assert sweeps.main(["relocate"]) == 0
    line = f"artifact addresses from {made}/mlruns to {moved}/mlruns\n"
    assert capsys.readouterr().out.endswith(line)
    assert load_detector(PRODUCTION).labels == small_detector().labels
    store = open_store(TrackingConfig())
    candidate(store, small_detector("ETH"))
    forget_store()
    mlflow.set_tracking_uri(f"sqlite:///{moved}/mlflow.db")
    model = mlflow.pyfunc.load_model(PRODUCTION)
    assert model.get_raw_model().labels == small_detector().labels
    assert not made.exists()
    with closing(sqlite3.connect("mlflow.db")) as connection:
        for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
            places = [place for (place,) in connection.execute(f"SELECT {column} FROM {table}")]
            assert len(places) == 2
            assert all(place.startswith(moved.as_uri()) for place in places)
    assert sweeps.main(["relocate"]) == 0
    assert "neither moved nor copied" in capsys.readouterr().out


def test_from_another_folder_the_line_names_the_store(moved, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{moved}/mlflow.db"
    with pytest.raises(TrackingError) as caught:
        connect(uri)
    assert str(caught.value).endswith(f"hmm-sweeps --tracking-uri '{uri}' relocate")


def test_a_copy_does_not_write_into_the_store_it_was_copied_from(made, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    before = files(made)
    uri = f"sqlite:///{copy}/mlflow.db"
    with pytest.raises(TrackingError, match="was moved or copied"):
        open_store(TrackingConfig(uri=uri))
    assert outdated_places(made / "mlflow.db") == []
    relocate(copy / "mlflow.db")
    store = open_store(TrackingConfig(uri=uri))
    run = store.client.create_run(store.experiment_id)
    assert run.info.artifact_uri.startswith(copy.as_uri())
    forget_store()
    assert files(made) == before


def test_a_database_without_its_artifacts_is_not_relocated(made, tmp_path):
    shutil.copy(made / "mlflow.db", tmp_path / "mlflow.db")
    with pytest.raises(TrackingError, match=f"there is no {tmp_path}/mlruns: move or copy"):
        relocate(tmp_path / "mlflow.db")
    assert outdated_places(tmp_path / "mlflow.db") == [made / "mlruns"]


def test_a_store_that_was_moved_and_wrote_at_the_old_place_since_is_put_together(moved, made):
    """As an earlier version left it: newer artifacts lie where the store was."""
    newer = "0" * 32
    (made / "mlruns" / newer).mkdir(parents=True)
    with closing(sqlite3.connect("mlflow.db")) as connection, connection:
        connection.execute(
            "INSERT INTO runs (run_uuid, name, experiment_id, artifact_uri) VALUES (?, 'n', 1, ?)",
            (newer, f"{made.as_uri()}/mlruns/{newer}/artifacts"),
        )
    with pytest.raises(TrackingError, match="was moved or copied"):
        open_store(TrackingConfig())
    with pytest.raises(TrackingError, match=f"1 runs have their artifacts only in .* {newer}"):
        relocate(moved / "mlflow.db")
    assert outdated_places(moved / "mlflow.db") == [made / "mlruns"]
    shutil.copytree(made / "mlruns" / newer, moved / "mlruns" / newer)
    relocate(moved / "mlflow.db")
    assert outdated_places(moved / "mlflow.db") == []


def test_a_place_of_artifacts_that_was_chosen_stays(workdir, tmp_path):
    chosen = tmp_path / "disk" / "mlruns"
    chosen.mkdir(parents=True)
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    client.create_experiment("hmm_exp", artifact_location=chosen.as_uri())
    client.create_experiment("bucket", artifact_location="s3://bucket/mlruns")
    client.create_experiment("gone", artifact_location=(tmp_path / "no" / "runs").as_uri())
    assert outdated_places(workdir / "mlflow.db") == []
    store = store_in(workdir)
    run = store.client.create_run(store.experiment_id)
    assert run.info.artifact_uri.startswith(chosen.as_uri())
    forget_store()


def test_the_same_folder_by_another_name_is_no_move(made, tmp_path):
    (tmp_path / "link").symlink_to(made)
    assert outdated_places(tmp_path / "link" / "mlflow.db") == []


def test_a_server_is_not_relocated(capsys, monkeypatch):
    from hmm_exp.sweep.housekeeping import relocate_store

    client = MlflowClient("http://127.0.0.1:1")
    with pytest.raises(TrackingError, match="only a SQLite store can be moved"):
        relocate_store(client)
