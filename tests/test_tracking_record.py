"""The record of a run: whole, or when it cannot be, closed or as if it had never begun."""

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from hmm_exp.errors import TrackingError
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.tracking import tags
from hmm_exp.tracking.bundle import Bundle, data_identity
from hmm_exp.tracking.pack import write_bundle
from hmm_exp.tracking.record import RunRecord, fail_run, recorded, start_run, status_after
from hmm_exp.tracking.ui import HISTORY, history_key
from tests.small_detector import forget_store, store_in


@pytest.fixture
def store(workdir):
    yield store_in(workdir)
    forget_store()


def refuse(store, change: str, table: str) -> None:
    """Let the database refuse what would change a table, as if its disk were full."""
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as database:
        database.execute(
            f"CREATE TRIGGER full BEFORE {change} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )


def runs_in(store, view: int = ViewType.ACTIVE_ONLY) -> list:
    return store.client.search_runs([store.experiment_id], run_view_type=view)


def test_a_run_whose_params_are_refused_is_no_run(store, small_config):
    refuse(store, "INSERT", "params")
    with pytest.raises(MlflowException, match="disk is full"):
        start_run(store, small_config)
    assert not runs_in(store)
    assert [run.info.status for run in runs_in(store, ViewType.ALL)] == ["KILLED"]


def test_a_run_is_closed_even_where_its_reason_is_refused(store, small_config):
    run_id = start_run(store, small_config)
    refuse(store, "INSERT", "tags")
    with pytest.raises(MlflowException, match="disk is full"):
        fail_run(store, run_id, OSError(28, "No space left on device"))
    assert [run.info.status for run in runs_in(store)] == ["FAILED"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "KILLED"), (SystemExit(3), "FAILED"), (TrackingError("no"), "FAILED")],
)
def test_an_interrupt_is_no_failure(error, status):
    assert status_after(error) == status


class Interrupting(Bundle):
    """A bundle during whose recording the user presses Ctrl-C."""

    def remove(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        super().remove()


def test_an_interrupt_while_a_cell_is_recorded_leaves_it_finished(store, small_config, tmp_path):
    small_config.tracking.figures = False
    small_config.sweep.parent_run = start_run(store, small_config)
    prepared = prepare(small_config)
    record = RunRecord(store, small_config, tmp_path / "run.log")
    run_id = record.start(data_identity(prepared))
    bundle = Interrupting(**vars(write_bundle(run(prepared), tmp_path / "bundle")))
    with pytest.raises(KeyboardInterrupt), recorded(record):
        record.finish(bundle)
    assert store.client.get_run(run_id).info.status == "FINISHED"
    assert not bundle.folder.exists()


@pytest.fixture
def recorded_run(store, small_config, tmp_path):
    """A small run in the store."""
    small_config.tracking.figures = False
    prepared = prepare(small_config)
    record = RunRecord(store, small_config, tmp_path / "run.log")
    run_id = record.start(data_identity(prepared))
    record.finish(write_bundle(run(prepared), tmp_path / "bundle"))
    return store.client.get_run(run_id)


def test_a_run_has_its_page_its_data_and_the_settings_that_it_uses(store, recorded_run):
    about, metrics = recorded_run.data.tags, recorded_run.data.metrics
    page = about[tags.NOTE]
    assert page.startswith("**v1@1H diag K=3** on synthetic")
    assert f"{metrics['return_gain_test']:+.4f} ± " in page
    (found,) = recorded_run.inputs.dataset_inputs
    assert found.dataset.digest == about[tags.DATA_DIGEST]
    assert recorded_run.data.params["data.n_bars"] == "3000"
    assert "split.refit_every" not in recorded_run.data.params
    place = store.client.download_artifacts(recorded_run.info.run_id, "config.json")
    assert json.loads(Path(place).read_text())["split.refit_every"] == 720


def test_gains_are_readable_and_convergence_names_its_space(store, recorded_run):
    metrics, space = recorded_run.data.metrics, recorded_run.data.tags[tags.OBSERVATION_SPACE]
    for gain in ("return_gain_val", "ewma_gain_val", "range_ewma_hour_gain_val"):
        shown = metrics[f"{gain}_mnat"]
        assert shown == pytest.approx(1000 * metrics[gain], abs=0.0051)
        assert len(f"{shown:g}".partition(".")[2]) <= 2
    run_id = recorded_run.info.run_id
    history = store.client.get_metric_history(run_id, history_key(space))
    assert history[-1].step == metrics["n_iter"]
    assert not store.client.get_metric_history(run_id, HISTORY)


def test_a_run_that_fails_says_what_it_was_and_why(store, small_config):
    run_id = start_run(store, small_config)
    assert "v1@1H diag K=3" in store.client.get_run(run_id).data.tags[tags.NOTE]
    fail_run(store, run_id, TrackingError("a fault on purpose"))
    page = store.client.get_run(run_id).data.tags[tags.NOTE]
    assert "v1@1H diag K=3" in page
    assert "**FAILED**: a fault on purpose" in page
