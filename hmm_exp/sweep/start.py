"""The start of a sweep: its parent run, opened before Hydra launches the cells."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlflow.entities import Run, RunStatus
from omegaconf import DictConfig

from hmm_exp import owner
from hmm_exp.config import Config, to_config
from hmm_exp.config.overrides import hydra_text
from hmm_exp.config.unlocked import unlocked
from hmm_exp.errors import TrackingError, redacted
from hmm_exp.experiment.cache import FOLDER as CACHE
from hmm_exp.parallel import cores
from hmm_exp.store.store import (
    Store,
    artifact_root,
    check_store,
    connect,
    git_sha,
    open_store,
    store_of,
)
from hmm_exp.sweep import child, progress
from hmm_exp.sweep.plan import CheckedData, SweepPlan, new_sweep_id, set_up_launcher
from hmm_exp.sweep.resume import changes
from hmm_exp.tracking import tags
from hmm_exp.tracking.bundle import PART, PENDING
from hmm_exp.tracking.provenance import ENVIRONMENT_FILE, command_line, environment
from hmm_exp.tracking.record import removed_on_error
from hmm_exp.tracking.runs import sweep_members, sweep_named, sweep_parent

LOCKS = "locks"  # in the sweep's folder, one for each cell of a search
_ENDS_WITHIN = 5.0  # seconds for processes of a killed sweep to see that they are alone


def open_sweep(
    config: DictConfig,
    plan: SweepPlan,
    data: CheckedData | Callable[[SweepPlan], CheckedData],
    sweep_id: str | None = None,
) -> tuple[Config, CheckedData]:
    """Open the sweep's parent run, and tell every cell about it.

    What cells must know is appended to the overrides from which Hydra composes them, so that it
    reaches workers anywhere. Raises HmmExpError before anything is written. Gives the settings, and
    the data with warnings about what has changed since the sweep began.

    Parameters
    ----------
    data
        The checked data, or what checks it once the store has answered.
    sweep_id
        Id of a new sweep that has been shown.
    """
    settings = to_config(config)
    if settings.sweep_id is not None:
        _check_known(settings)
    check_store(settings.tracking)
    data = data(plan) if callable(data) else data
    store = open_store(settings.tracking)
    close_orphans(store)
    if settings.sweep_id is None:
        parent, attempt = _opened(store, settings, plan, sweep_id or new_sweep_id()), 1
    else:
        parent = _reopened(store, settings.sweep_id)
        attempt = int(parent.data.tags.get(tags.ATTEMPT, "1")) + 1
        changed = changes(store.client, parent, data.digests)
        data = replace(data, warnings=data.warnings + changed)
        store.client.set_tag(parent.info.run_id, tags.ATTEMPT, str(attempt))
        for name, text in _size(plan, settings.sweep.objective).items():
            store.client.set_tag(parent.info.run_id, name, text)
    settings.sweep_id = parent.data.tags[tags.SWEEP_ID]
    settings.tracking.uri = redacted(store.uri)  # MLFLOW_TRACKING_URI has the login
    settings.sweep.parent_run = parent.info.run_id
    settings.sweep.n_cells, settings.sweep.attempt = plan.n_cells, attempt
    if plan.search:
        settings.sweep.search = plan.search.sweeper
        settings.sweep.n_possible = plan.search.n_possible
    settings.sweep.owner = owner.this_process()
    settings.sweep.folder = str(artifact_root(store) / "sweeps" / settings.sweep_id)
    settings.sweep.varied = plan.varied
    settings.compute.threads = settings.compute.threads or _threads(settings, plan.n_jobs)
    with unlocked(config):
        config.hydra.overrides.task += [*_words(settings), *plan.job_words]
    set_up_launcher(config, settings, plan.n_jobs)
    return settings, data


def watch(settings: Config) -> None:
    """Start the live lines of an open sweep on a terminal."""
    if progress.wanted(settings.quiet):
        unit = "trials" if settings.sweep.search else "cells"
        progress.start(Path(str(settings.sweep.folder)), settings.sweep.n_cells or 0, unit)


def earlier_cell(
    store: Store, sweep_id: str | None, fingerprint: str, attempt: int | None
) -> Run | None:
    """Run of a sweep with this fingerprint that finished, or failed in this attempt."""
    runs = store.client.search_runs(
        [store.experiment_id],
        filter_string=f"tags.{tags.SWEEP_ID} = '{sweep_id}' and tags.{tags.KIND} = 'cell' and "
        f"tags.{tags.FINGERPRINT} = '{fingerprint}'",
    )
    finished = [run for run in runs if run.info.status == "FINISHED"]
    failed = [
        run
        for run in runs
        if run.info.status == "FAILED" and run.data.tags.get(tags.ATTEMPT) == str(attempt)
    ]
    return next(iter(finished + failed), None)


def close_orphans(store: Store, also: str | None = None) -> None:
    """Close as KILLED the runs that dead processes of this machine left RUNNING, in any sweep.

    `also` is the owner tag of a process that lives and works on nothing any more.
    """
    running = store.client.search_runs(
        [store.experiment_id], filter_string="attributes.status = 'RUNNING'"
    )
    for run in running:
        at_work = run.data.tags.get(tags.OWNER)
        if tags.KIND in run.data.tags and (at_work == also or owner.is_dead(at_work)):
            store.client.set_terminated(run.info.run_id, "KILLED")


def abandon_sweep(settings: Config, interrupted: bool) -> None:
    """Close the parent of a sweep whose launcher broke; its finished cells stay as they are."""
    end_cells(settings)
    store = store_of(settings.tracking)
    close_orphans(store, also=owner.this_process())
    status = RunStatus.KILLED if interrupted else RunStatus.FAILED
    assert settings.sweep.parent_run is not None
    store.client.set_terminated(settings.sweep.parent_run, RunStatus.to_string(status))


def end_cells(settings: Config) -> None:
    """Remove what only cells need: live lines, child process, cache, locks, cut-off bundles."""
    progress.stop()
    child.dismiss()
    folder = Path(str(settings.sweep.folder))
    pending = folder / PENDING
    for place in (folder / CACHE, folder / LOCKS, *pending.glob(f"*{PART}")):
        shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):  # it holds bundles that the store has not taken yet
        pending.rmdir()


def _opened(store: Store, settings: Config, plan: SweepPlan, sweep_id: str) -> Run:
    identity = {
        tags.KIND: "sweep",
        tags.SWEEP_ID: sweep_id,
        tags.ATTEMPT: "1",
        tags.OWNER: owner.this_process(),
        tags.COMMAND: command_line(),
    }
    identity |= _size(plan, settings.sweep.objective)
    if sha := git_sha():
        identity[tags.GIT_SHA] = sha
    run = store.client.create_run(store.experiment_id, tags=identity, run_name=f"sweep {sweep_id}")
    with removed_on_error(store, run.info.run_id):
        store.client.log_text(run.info.run_id, environment(), ENVIRONMENT_FILE)
    return run


def _size(plan: SweepPlan, objective: str) -> dict[str, str]:
    """Tags on the number of cells, and on the search that chooses them."""
    if plan.search is None:
        return {tags.N_CELLS: str(plan.n_cells)}
    possible = str(plan.search.n_possible or "")
    return {tags.N_CELLS: str(plan.n_cells), tags.SEARCH: objective, tags.N_POSSIBLE: possible}


def _check_known(settings: Config) -> None:
    """Complete a shortened id of a sweep; refuse one of another store or experiment."""
    client = connect(settings.tracking.uri, "tracking.uri")
    settings.sweep_id = sweep_named(client, str(settings.sweep_id))
    parent = sweep_parent(client, settings.sweep_id)
    name = client.get_experiment(parent.info.experiment_id).name
    if name != settings.tracking.experiment:
        raise TrackingError(
            f"sweep {settings.sweep_id} is in another experiment: add tracking.experiment={name}"
        )


def _reopened(store: Store, sweep_id: str) -> Run:
    """Parent of an earlier sweep, once none of its processes is alive."""
    parent = sweep_parent(store.client, sweep_id)
    deadline = time.monotonic() + _ENDS_WITHIN
    while alive := _still_running(store, parent, sweep_id):
        if time.monotonic() > deadline:
            raise TrackingError(
                f"sweep {sweep_id} still runs: {alive}; wait for it or end it, and if it is gone "
                f"with its machine: hmm-sweeps close {sweep_id}"
            )
        time.sleep(0.25)
    close_orphans(store)
    store.client.update_run(parent.info.run_id, status="RUNNING")
    store.client.set_tag(parent.info.run_id, tags.OWNER, owner.this_process())
    return parent


def _still_running(store: Store, parent: Run, sweep_id: str) -> str:
    """Processes that still work on a sweep, in words; empty without any.

    Cells left by a main process that was killed end by themselves within a second.
    """
    running = sweep_members(store.client, sweep_id, "RUNNING")
    if parent.info.status == "RUNNING":
        running.append(parent)
    owners = {run.data.tags.get(tags.OWNER, "") for run in running}
    return ", ".join(sorted(owner.in_words(name) for name in owners if not owner.is_dead(name)))


def _words(settings: Config) -> list[str]:
    """Overrides that hold a cell's place in its sweep."""
    sweep = settings.sweep
    return [
        f"sweep_id={settings.sweep_id}",
        f"sweep.parent_run={sweep.parent_run}",
        f"sweep.n_cells={sweep.n_cells}",
        f"sweep.attempt={sweep.attempt}",
        f"sweep.owner={hydra_text(str(sweep.owner))}",
        f"sweep.folder={hydra_text(str(sweep.folder))}",
        f"sweep.varied=[{','.join(sweep.varied)}]",
        f"sweep.search={sweep.search or 'null'}",
        f"tracking.uri={hydra_text(str(settings.tracking.uri))}",
        f"compute.threads={settings.compute.threads or 'null'}",
    ]


def _threads(settings: Config, n_jobs: int) -> int | None:
    """Threads of a cell, so that concurrent cells share the cores; None for all of them."""
    if settings.compute.workers == 1:
        return None
    return max(1, cores() // min(settings.compute.workers or cores(), n_jobs))
