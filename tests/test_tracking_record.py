"""The record of a run that cannot be written whole: closed, or as if it had never begun."""

import sqlite3
from contextlib import closing

import pytest
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from hmm_exp.errors import TrackingError
from hmm_exp.tracking.record import fail_run, start_run, status_after
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
