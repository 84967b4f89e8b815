"""A sweep: opened before Hydra launches its cells, judged after the last.

The end reads the store by `sweep_id`, so it sees cells that ran in other processes or on other
machines.
"""

import tempfile
from pathlib import Path

from mlflow.entities import Run, RunStatus
from mlflow.tracking import MlflowClient
from omegaconf import DictConfig, open_dict, read_write

from hmm_exp.config import Config, to_config
from hmm_exp.experiment import figures
from hmm_exp.tracking import registry, tags, terminal
from hmm_exp.tracking.leaderboard import (
    Choice,
    choose,
    criteria_by_states,
    leaderboard,
    sweep_cells,
    sweep_parent,
)
from hmm_exp.tracking.preflight import Plan, check_data
from hmm_exp.tracking.record import git_sha
from hmm_exp.tracking.store import Store, open_store

__all__ = ["choose", "close_sweep", "is_finished", "open_sweep"]


def open_sweep(config: DictConfig, plan: Plan) -> Config:
    """Check the data, open the sweep's parent run, and pass its id on to every cell.

    The id is appended to the overrides from which Hydra composes each cell, so that it reaches
    workers anywhere. Raises HmmExpError before anything is written.
    """
    check_data(plan)
    n_cells, settings = plan.n_cells, to_config(config)
    store = open_store(settings.tracking)
    resumed = settings.sweep_id is not None
    parent = _reopened(store, settings.sweep_id) if settings.sweep_id else _opened(store, n_cells)
    settings.sweep_id = parent.data.tags[tags.SWEEP_ID]
    settings.sweep.parent_run = parent.info.run_id
    with read_write(config), open_dict(config):
        config.hydra.overrides.task += [
            f"sweep_id={settings.sweep_id}",
            f"sweep.parent_run={parent.info.run_id}",
            f"sweep.n_cells={n_cells}",
            f"sweep.resumed={resumed}",
        ]
    cells = f"{n_cells} cell{'s' if n_cells > 1 else ''}"
    print(
        f"sweep {settings.sweep_id}: {cells}; if stopped, go on with sweep_id={settings.sweep_id}"
    )
    return settings


def is_finished(client: MlflowClient, settings: Config, fingerprint: str) -> bool:
    """Whether this sweep holds a finished cell of this fingerprint."""
    assert settings.sweep_id is not None
    return any(
        run.info.status == "FINISHED" and run.data.tags.get(tags.FINGERPRINT) == fingerprint
        for run in sweep_cells(client, settings.sweep_id)
    )


def close_sweep(settings: Config) -> bool:
    """Judge a sweep that ran to its end: leaderboard, winner, gate, registry, parent run.

    Returns
    -------
    bool
        True when every cell finished and one of them could be chosen. A winner that the gate
        refuses is a result, not a failure.
    """
    assert settings.sweep_id is not None
    store = open_store(settings.tracking)
    cells = sweep_cells(store.client, settings.sweep_id)
    parent = sweep_parent(store.client, settings.sweep_id)
    print(f"\n{terminal.leaderboard_table(leaderboard(cells))}\n")
    choice = choose(store.client, settings.sweep_id)
    for reason in choice.reasons:
        print(reason)
    succeeded = _all_finished(cells) and choice.run_id is not None
    _promote(store, settings, choice)
    _write_parent(store, parent, cells, choice)
    link = terminal.ui_link(store, sweep_id=settings.sweep_id)
    print(f"compare: {terminal.ui_command(store)}{link}")
    winner = next((run for run in cells if run.info.run_id == choice.run_id), None)
    if winner is not None:
        print(winner.data.tags.get(tags.REGIME_NOW, ""))
    return succeeded


def _opened(store: Store, n_cells: int) -> Run:
    sweep_id = terminal.new_sweep_id()
    identity = {tags.KIND: "sweep", tags.SWEEP_ID: sweep_id, tags.N_CELLS: str(n_cells)}
    if sha := git_sha():
        identity[tags.GIT_SHA] = sha
    return store.client.create_run(store.experiment_id, tags=identity, run_name=f"sweep {sweep_id}")


def _reopened(store: Store, sweep_id: str) -> Run:
    """Parent of an earlier sweep; its cells that a dead process left RUNNING become KILLED."""
    parent = sweep_parent(store.client, sweep_id)
    for run in sweep_cells(store.client, sweep_id):
        if run.info.status == "RUNNING":
            store.client.set_terminated(run.info.run_id, "KILLED")
    store.client.update_run(parent.info.run_id, status="RUNNING")
    return parent


def _promote(store: Store, settings: Config, choice: Choice) -> None:
    if choice.run_id is None:
        print("nothing to promote")
        return
    if settings.promote is False:
        print(f"winner: run {choice.run_id}; not promoted (promote=false)")
        return
    decision = registry.promote(
        store.client, choice.run_id, registry_name=settings.registry.name, gate=settings.gate
    )
    print(*decision.lines(settings.registry.name), sep="\n")


def _all_finished(cells: list[Run]) -> bool:
    latest = {run.data.tags.get(tags.FINGERPRINT, run.info.run_id): run for run in cells}
    failed = [run for run in latest.values() if run.info.status != "FINISHED"]
    for run in failed:
        reason = run.data.tags.get(tags.STATUS_REASON, "no reason recorded")
        print(f"{run.info.status}: {run.data.tags[tags.CELL]} (run {run.info.run_id}): {reason}")
    return not failed


def _write_parent(store: Store, parent: Run, cells: list[Run], choice: Choice) -> None:
    run_id = parent.info.run_id
    with tempfile.TemporaryDirectory() as folder:
        leaderboard(cells).to_csv(Path(folder) / "leaderboard.csv", index=False)
        criteria = criteria_by_states(cells)
        if not criteria.empty:
            (Path(folder) / "plots").mkdir()
            figures.save(figures.bic_by_space(criteria), Path(folder) / "plots" / "bic.png")
        store.client.log_artifacts(run_id, folder)
    verdict = "\n\n".join(choice.reasons)
    store.client.set_tag(run_id, tags.NOTE, verdict)
    if choice.run_id:
        store.client.set_tag(run_id, tags.WINNER, choice.run_id)
    status = RunStatus.FINISHED if _finished(cells) else RunStatus.FAILED
    store.client.set_terminated(run_id, RunStatus.to_string(status))


def _finished(cells: list[Run]) -> bool:
    return all(run.info.status == "FINISHED" for run in cells)
