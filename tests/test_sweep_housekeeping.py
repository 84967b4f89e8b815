"""What is shown, cleaned and closed of sweeps, on a store whose runs are made up."""

import subprocess

import pytest

from hmm_exp import owner
from hmm_exp.commands import sweeps
from hmm_exp.tracking import tags
from tests.small_detector import forget_store, store_in
from tests.test_train_cli import runs_of

SWEEP = "20260102-030405-abcd"


@pytest.fixture
def store(workdir):
    yield store_in(workdir)
    forget_store()


def gone() -> str:
    """Owner tag of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return " ".join([owner.this_process().split()[0], str(ended.pid), "1"])


def make(store, kind: str, owned: str, status: str | None = None, **known: str) -> str:
    """A run of the sweep; without a status it is RUNNING."""
    identity = {tags.SWEEP_ID: SWEEP, tags.KIND: kind, tags.CELL: "v1 K=2", tags.OWNER: owned}
    run = store.client.create_run(store.experiment_id, tags=identity | known)
    for name, value in {"selection.within": "bic", "split.kind": "ratio"}.items():
        store.client.log_param(run.info.run_id, name, value)
    if status:
        store.client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def said(capsys, *words: str) -> str:
    assert sweeps.main(list(words)) == 0
    return capsys.readouterr().out


def test_cells_of_a_sweep_that_runs_are_not_cleaned(store, capsys):
    mine = owner.this_process()
    parent = make(store, "sweep", mine)
    make(store, "cell", mine, "FAILED")
    place = ("--tracking-uri", store.uri)
    assert said(capsys, *place, "clean", "--yes") == (
        "0 runs, 0 caches\n1 runs are kept: their sweep is still running\n"
    )
    assert len(runs_of(store.client, "cell")) == 1
    store.client.set_tag(parent, tags.OWNER, gone())
    assert said(capsys, *place, "clean", "--yes").endswith("\n1 runs, 0 caches\n")
    assert not runs_of(store.client, "cell")


def test_a_sweep_that_was_killed_is_shown_as_killed_and_once_closed_leaves_nothing(store, capsys):
    make(store, "sweep", gone())
    make(store, "cell", gone())
    place = ("--tracking-uri", store.uri)
    shown = said(capsys, *place, "show", SWEEP)
    assert "RUNNING" not in shown
    (row,) = [line for line in shown.splitlines() if line.strip().startswith("v1 K=2")]
    assert "KILLED" in row
    assert "KILLED:" not in row  # no reason is known
    assert said(capsys, *place, "close", SWEEP).count("closed ") == 2
    assert said(capsys, *place, "close", SWEEP) == "no run was left running\n"
