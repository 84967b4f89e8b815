"""A sweep: opened before Hydra launches its cells, judged after the last.

The end reads the store by `sweep_id`, so it sees cells that ran in other processes or on other
machines.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlflow.entities import Run, RunStatus
from omegaconf import DictConfig, open_dict, read_write

from hmm_exp.config import Config, to_config
from hmm_exp.errors import TrackingError
from hmm_exp.experiment import figures
from hmm_exp.experiment.cache import FOLDER as CACHE
from hmm_exp.hmm.threads import cores
from hmm_exp.tracking import isolation, live, owner, registry, tags, terminal
from hmm_exp.tracking.bundle import LOG_FILE, LONGEST_TAG
from hmm_exp.tracking.launchers import set_up_launcher
from hmm_exp.tracking.leaderboard import (
    Choice,
    choose,
    criteria_by_states,
    current_cells,
    leaderboard,
    sweep_cells,
    sweep_parent,
    won_place,
)
from hmm_exp.tracking.multiplicity import weigh_choice, write_luck
from hmm_exp.tracking.pages import REPORT, sweep_page
from hmm_exp.tracking.preflight import Plan, check_data
from hmm_exp.tracking.provenance import ENVIRONMENT_FILE, command_line, environment
from hmm_exp.tracking.remarks import shortfalls
from hmm_exp.tracking.store import (
    Store,
    analyse,
    artifact_root,
    check_store,
    git_sha,
    open_store,
)
from hmm_exp.tracking.view import save_view

_ENDS_WITHIN = 5.0  # seconds for processes of a killed sweep to see that they are alone


def open_sweep(config: DictConfig, plan: Plan) -> Config:
    """Check the data, open the sweep's parent run, and tell every cell about it.

    What cells must know is appended to the overrides from which Hydra composes them, so that it
    reaches workers anywhere. Raises HmmExpError before anything is written.
    """
    settings = to_config(config)
    check_store(settings.tracking)
    check_data(plan)
    store = open_store(settings.tracking)
    close_orphans(store)
    if settings.sweep_id is None:
        parent, attempt = _opened(store, plan.n_cells), 1
    else:
        parent = _reopened(store, settings.sweep_id)
        attempt = int(parent.data.tags.get(tags.ATTEMPT, "1")) + 1
        store.client.set_tag(parent.info.run_id, tags.ATTEMPT, str(attempt))
    settings.sweep_id = parent.data.tags[tags.SWEEP_ID]
    settings.tracking.uri = store.uri
    settings.sweep.parent_run = parent.info.run_id
    settings.sweep.n_cells, settings.sweep.attempt = plan.n_cells, attempt
    settings.sweep.owner = owner.this_process()
    settings.sweep.folder = str(_folder(store, settings.sweep_id))
    settings.sweep.varied = plan.varied
    settings.compute.threads = settings.compute.threads or _threads(settings, plan.n_cells)
    with read_write(config), open_dict(config):
        config.hydra.overrides.task += _words(settings)
    set_up_launcher(config, settings, plan.n_cells)
    return settings


def announce(settings: Config) -> None:
    """Say what begins, and draw it where somebody watches."""
    sweep_id, n_cells = settings.sweep_id, settings.sweep.n_cells or 0
    if not settings.quiet:
        cells = f"{n_cells} cell{'s' if n_cells > 1 else ''}"
        print(f"sweep {sweep_id}: {cells}; if stopped, go on with sweep_id={sweep_id}", flush=True)
    if live.wanted(settings.quiet):
        live.start(Path(str(settings.sweep.folder)), n_cells)


def finished_cell(store: Store, sweep_id: str | None, fingerprint: str) -> bool:
    """Whether a sweep holds a finished cell of this fingerprint."""
    return bool(
        store.client.search_runs(
            [store.experiment_id],
            filter_string=f"tags.{tags.SWEEP_ID} = '{sweep_id}' and tags.{tags.KIND} = 'cell' and "
            f"tags.{tags.FINGERPRINT} = '{fingerprint}' and attributes.status = 'FINISHED'",
            max_results=1,
        )
    )


def close_orphans(store: Store) -> None:
    """Close as KILLED what dead processes of this machine left RUNNING, of whatever sweep."""
    running = store.client.search_runs(
        [store.experiment_id], filter_string="attributes.status = 'RUNNING'"
    )
    for run in running:
        if tags.KIND in run.data.tags and owner.is_dead(run.data.tags.get(tags.OWNER)):
            store.client.set_terminated(run.info.run_id, "KILLED")


def close_sweep(settings: Config, report: Callable[[Store, str], str]) -> bool:
    """Judge a sweep that ran to its end: leaderboard, winner, gate, registry, parent run.

    Parameters
    ----------
    report
        Makes the report of a judged sweep and gives the line that says where it is.

    Returns
    -------
    bool
        True when every cell finished and one of them could be chosen. A winner that the gate
        refuses is a result, not a failure.
    """
    assert settings.sweep_id is not None
    _end_cells(settings)
    store = open_store(settings.tracking)
    _close_left(store, settings)
    attempt = str(settings.sweep.attempt)
    cells = current_cells(sweep_cells(store.client, settings.sweep_id), attempt)
    parent = sweep_parent(store.client, settings.sweep_id)
    if cells:
        print(f"\n{terminal.leaderboard_table(leaderboard(cells))}\n")
    all_finished = _all_finished(cells, settings)
    choice = choose(store.client, settings.sweep_id, cells)
    if settings.sweep.require_all and not all_finished:
        choice = Choice(None, ["not every cell finished: no winner (sweep.require_all=true)"])
    luck = weigh_choice(store.client, cells, choice.run_id)
    remarks = [*luck.lines, *shortfalls(cells)]
    print(*choice.reasons, *remarks, sep="\n")
    write_luck(store.client, parent.info.run_id, luck)
    said, could_ask = _promote(store, settings, choice)
    _write_parent(store, parent, cells, choice, all_finished)
    save_view(store.client, store.experiment_id, settings.sweep_id, cells)
    analyse(store)
    if settings.tracking.report:
        print(report(store, settings.sweep_id))
    _describe(store, parent, cells, choice, [*remarks, *said])
    link = terminal.ui_link(store, sweep_id=settings.sweep_id)
    print(f"compare: {terminal.ui_command(store)}{link}")
    if not all_finished:
        print(f"try the cells that are missing again: sweep_id={settings.sweep_id}")
    winner = next((run for run in cells if run.info.run_id == choice.run_id), None)
    if winner is not None:
        print(winner.data.tags.get(tags.REGIME_NOW, ""))
    return all_finished and could_ask and choice.run_id is not None


def abandon_sweep(settings: Config, interrupted: bool) -> None:
    """Close the parent of a sweep whose launcher broke; its finished cells stay as they are."""
    _end_cells(settings)
    store = open_store(settings.tracking)
    close_orphans(store)
    status = RunStatus.KILLED if interrupted else RunStatus.FAILED
    assert settings.sweep.parent_run is not None
    store.client.set_terminated(settings.sweep.parent_run, RunStatus.to_string(status))


def _end_cells(settings: Config) -> None:
    """Take away what cells alone need: their live lines, their process, their cache."""
    live.stop()
    isolation.dismiss()
    shutil.rmtree(Path(str(settings.sweep.folder)) / CACHE, ignore_errors=True)


def _opened(store: Store, n_cells: int) -> Run:
    sweep_id = terminal.new_sweep_id()
    identity = {
        tags.KIND: "sweep",
        tags.SWEEP_ID: sweep_id,
        tags.N_CELLS: str(n_cells),
        tags.ATTEMPT: "1",
        tags.OWNER: owner.this_process(),
        tags.COMMAND: command_line(),
    }
    if sha := git_sha():
        identity[tags.GIT_SHA] = sha
    run = store.client.create_run(store.experiment_id, tags=identity, run_name=f"sweep {sweep_id}")
    store.client.log_text(run.info.run_id, environment(), ENVIRONMENT_FILE)
    return run


def _reopened(store: Store, sweep_id: str) -> Run:
    """Parent of an earlier sweep, when none of its processes lives any more."""
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


def _close_left(store: Store, settings: Config) -> None:
    """Close what is left RUNNING of a sweep whose launcher has returned: nobody works on it.

    A cell whose worker was lost and that the launcher gave to another leaves such a run, and so
    does a run whose making the store confirmed to nobody.
    """
    assert settings.sweep_id is not None
    for run in sweep_cells(store.client, settings.sweep_id):
        if run.info.status == "RUNNING":
            store.client.set_terminated(run.info.run_id, "KILLED")
    close_orphans(store)


def _still_running(store: Store, parent: Run, sweep_id: str) -> str:
    """Who still works on a sweep, in words; empty when nobody does.

    Cells left by a main process that was killed end by themselves within a second.
    """
    running = [run for run in sweep_cells(store.client, sweep_id) if run.info.status == "RUNNING"]
    if parent.info.status == "RUNNING":
        running.append(parent)
    owners = {run.data.tags.get(tags.OWNER, "") for run in running}
    return ", ".join(sorted(owner.in_words(name) for name in owners if not owner.is_dead(name)))


def _words(settings: Config) -> list[str]:
    """Overrides that tell a cell about its sweep."""
    sweep = settings.sweep
    return [
        f"sweep_id={settings.sweep_id}",
        f"sweep.parent_run={sweep.parent_run}",
        f"sweep.n_cells={sweep.n_cells}",
        f"sweep.attempt={sweep.attempt}",
        f"sweep.owner={_quoted(sweep.owner)}",
        f"sweep.folder={_quoted(sweep.folder)}",
        f"sweep.varied=[{','.join(sweep.varied)}]",
        f"tracking.uri={_quoted(settings.tracking.uri)}",
        f"compute.threads={settings.compute.threads or 'null'}",
    ]


def _quoted(text: str | None) -> str:
    """Give a text as Hydra reads it back whatever is in it."""
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _threads(settings: Config, n_cells: int) -> int | None:
    """Threads of a cell so that threads times cells at a time are the cores; None: all of them."""
    if settings.compute.workers == 1:
        return None
    return max(1, cores() // min(settings.compute.workers or cores(), n_cells))


def _folder(store: Store, sweep_id: str) -> Path:
    """Where a sweep keeps logs and finished work that is not recorded yet."""
    return artifact_root(store) / "sweeps" / sweep_id


def _promote(store: Store, settings: Config, choice: Choice) -> tuple[list[str], bool]:
    """Ask the gate, and print what it said; gives the lines, and whether it could be asked."""
    could_ask = True
    try:
        lines = _decided(store, settings, choice)
    except TrackingError as error:
        lines = [f"not promoted: {error}; hmm-promote --sweep {settings.sweep_id} tries again"]
        could_ask = False
    print(*lines, sep="\n")
    return lines, could_ask


def _decided(store: Store, settings: Config, choice: Choice) -> list[str]:
    if choice.run_id is None:
        return ["nothing to promote"]
    if settings.promote is False:
        return [f"winner: run {choice.run_id}; not promoted (promote=false)"]
    decision = registry.promote(
        store.client, choice.run_id, registry_name=settings.registry.name, gate=settings.gate
    )
    return decision.lines(settings.registry.name)


def _all_finished(cells: list[Run], settings: Config) -> bool:
    """Name the cells that did not finish, and say how many never started."""
    failed = [run for run in cells if run.info.status != "FINISHED"]
    for run in failed:
        reason = run.data.tags.get(tags.STATUS_REASON, "its process is gone")
        print(f"{run.info.status}: {run.data.tags[tags.CELL]} (run {run.info.run_id}): {reason}")
        print(f"  log: {settings.sweep.folder}/logs, and {LOG_FILE} of the run")
    missing = (settings.sweep.n_cells or 0) - len(cells)
    if missing > 0:
        print(f"MISSING: {missing} of {settings.sweep.n_cells} cells left no run")
    return not failed and missing <= 0


def _describe(store: Store, parent: Run, cells: list[Run], choice: Choice, said: list[str]) -> None:
    """Write the parent's page in the UI; last, for it names the report where there is one."""
    run_id = parent.info.run_id
    page = sweep_page(
        parent,
        next((run for run in cells if run.info.run_id == choice.run_id), None),
        leaderboard(cells) if cells else None,
        [*choice.reasons[::-1], *said],  # the last one decided
        any(item.path == REPORT for item in store.client.list_artifacts(run_id)),
    )
    store.client.set_tag(run_id, tags.NOTE, page[:LONGEST_TAG])


def _write_parent(
    store: Store, parent: Run, cells: list[Run], choice: Choice, succeeded: bool
) -> None:
    run_id = parent.info.run_id
    with tempfile.TemporaryDirectory() as folder:
        if cells:
            leaderboard(cells).to_csv(Path(folder) / "leaderboard.csv", index=False)
        criteria = criteria_by_states(cells)
        if not criteria.empty:
            (Path(folder) / "plots").mkdir()
            figure = figures.bic_by_space(criteria, winner=won_place(cells, choice))
            figures.save(figure, Path(folder) / "plots" / "bic.png")
        store.client.log_artifacts(run_id, folder)
    store.client.set_tag(run_id, tags.VERDICT, "\n".join(choice.reasons)[:LONGEST_TAG])
    if choice.run_id:
        store.client.set_tag(run_id, tags.WINNER, choice.run_id)
    status = RunStatus.FINISHED if succeeded else RunStatus.FAILED
    store.client.set_terminated(run_id, RunStatus.to_string(status))
