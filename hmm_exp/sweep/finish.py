"""The end of a sweep: leaderboard, winner, gate, promotion, report, and the parent's page.

It reads the store by `sweep_id`, so it sees cells that ran in other processes or on other machines.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Run, RunStatus

from hmm_exp.config import Config
from hmm_exp.errors import TrackingError
from hmm_exp.registry import promotion
from hmm_exp.store.store import Store, analyse, patiently, store_of
from hmm_exp.sweep import terminal
from hmm_exp.sweep.leaderboard import Choice, choose, criteria_by_states, leaderboard, won_place
from hmm_exp.sweep.luck import missing_scores, shortfalls, weigh_choice, write_luck
from hmm_exp.sweep.start import close_orphans, end_cells
from hmm_exp.tracking import tags, ui
from hmm_exp.tracking.bundle import LOG_FILE, LONGEST_TAG
from hmm_exp.tracking.record import log_files
from hmm_exp.tracking.runs import called, current_cells, sweep_cells, sweep_parent
from hmm_exp.tracking.ui import REPORT, save_view, sweep_page

Result = TypeVar("Result")


def close_sweep(settings: Config, report: Callable[[Store, str], str]) -> bool:
    """Judge a sweep that ran to its end: leaderboard, winner, gate, promotion, parent run.

    Parameters
    ----------
    report
        Makes the report of a judged sweep and gives the line that says where it is.

    Returns
    -------
    bool
        True when every cell finished and one of them could be chosen. A winner that the gate
        refuses is a result, not a failure.

    Raises
    ------
    TrackingError
        When the store has not answered for `tracking.patience` seconds; what was done stays.
    """
    sweep_id = settings.sweep_id
    assert sweep_id is not None
    end_cells(settings)

    def ask(step: Callable[[], Result]) -> Result:
        return patiently(step, settings.tracking.patience)

    store = ask(lambda: store_of(settings.tracking))
    ask(lambda: _close_left(store, settings))
    attempt = str(settings.sweep.attempt)
    cells = current_cells(ask(lambda: sweep_cells(store.client, sweep_id)), attempt)
    parent = ask(lambda: sweep_parent(store.client, sweep_id))
    if cells:
        print(f"\n{terminal.leaderboard_table(leaderboard(cells))}\n")
    all_finished = _all_finished(cells, settings)
    choice = ask(lambda: choose(store.client, sweep_id, cells))
    if settings.sweep.require_all and not all_finished:
        choice = Choice(None, ["not every cell finished: no winner (sweep.require_all=true)"])
    luck = ask(lambda: weigh_choice(store.client, cells, choice.run_id))
    remarks = [*luck.lines, *missing_scores(cells), *shortfalls(cells)]
    print(*choice.reasons, *remarks, sep="\n")
    ask(lambda: write_luck(store.client, parent.info.run_id, luck))
    said, could_ask = _promote(store, settings, choice)
    ask(lambda: _write_parent(store, parent, cells, choice, all_finished))
    ask(lambda: save_view(store.client, store.experiment_id, sweep_id, cells))
    analyse(store)
    if settings.tracking.report:
        print(report(store, sweep_id))
    ask(lambda: _describe(store, parent, cells, choice, [*remarks, *said]))
    link = ui.ui_link(store, sweep_id=sweep_id)
    print(f"compare: {ui.ui_command(store)}{link}")
    if not all_finished:
        print(f"try the cells that are missing again: sweep_id={sweep_id}")
    winner = next((run for run in cells if run.info.run_id == choice.run_id), None)
    if winner is not None:
        print(winner.data.tags.get(tags.REGIME_NOW, ""))
    return all_finished and could_ask and choice.run_id is not None


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
    decision = promotion.promote(
        store.client, choice.run_id, registry_name=settings.registry.name, gate=settings.gate
    )
    return decision.lines(settings.registry.name)


def _all_finished(cells: list[Run], settings: Config) -> bool:
    """Name the cells that did not finish, and say how many never started."""
    failed = [run for run in cells if run.info.status != "FINISHED"]
    for run in failed:
        reason = run.data.tags.get(tags.STATUS_REASON, "its process is gone")
        print(f"{run.info.status}: {called(run)} (run {run.info.run_id}): {reason}")
        log = run.data.tags.get(tags.LOG, f"{settings.sweep.folder}/logs")
        print(f"  log: {log}, and {LOG_FILE} of the run")
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
            from hmm_exp import figures  # matplotlib only when there is something to draw

            (Path(folder) / "plots").mkdir()
            figure = figures.bic_by_space(criteria, winner=won_place(cells, choice))
            figures.save(figure, Path(folder) / "plots" / "bic.png")
        log_files(store.client, run_id, Path(folder))
    store.client.set_tag(run_id, tags.VERDICT, "\n".join(choice.reasons)[:LONGEST_TAG])
    if choice.run_id:
        store.client.set_tag(run_id, tags.WINNER, choice.run_id)
    status = RunStatus.FINISHED if succeeded else RunStatus.FAILED
    store.client.set_terminated(run_id, RunStatus.to_string(status))
