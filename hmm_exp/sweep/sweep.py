"""One sweep, from its plan to its verdict.

Hydra runs the cells, in this process or on other machines, while the generator waits:

    running = sweep(config, report)
    settings = next(running)    # the settings are valid, the parent run is open
    next(running)               # announced
    succeeded = next(running)   # after the cells: a winner is chosen, promoted and reported
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from hmm_exp.config import Config
from hmm_exp.store.address import resolve_uri
from hmm_exp.store.health import check_file
from hmm_exp.sweep import child, progress
from hmm_exp.sweep.garbage import collect_seldom
from hmm_exp.sweep.like import resolve_like
from hmm_exp.sweep.plan import (
    CheckedData,
    SweepPlan,
    announce,
    announce_opened,
    check_data,
    check_launcher,
    in_this_process,
    new_sweep_id,
    plan_sweep,
    refuse_own_words,
)

if TYPE_CHECKING:
    from hmm_exp.store.store import Store

_CHARTS = "hmm_exp.report.charts"  # and their library
_MOST_AHEAD = 50  # cells; there is time for a few


def sweep(config: DictConfig, report: "Callable[[Store, str], str]") -> Iterator[Config | bool]:
    """Run one sweep; Hydra runs the cells between the second and the third value.

    Yields the settings as soon as the sweep is open, so that the caller can close it, and again
    when it is announced; then True when every cell finished and one of them could be chosen.
    `report` makes the report and gives the line that names its place. Raises HmmExpError: before
    the first value nothing is written, after it finished work stays.
    """
    sweep_id = found = None

    def check(plan: SweepPlan) -> CheckedData:
        data = check_data(plan)
        if in_this_process(config):  # the child works while the store is opened
            cells = plan.first_cells if first.sweep_id is None and not plan.search else []
            child.worker().work_ahead(cells[:_MOST_AHEAD])
        return data

    with progress.busy("checking settings and data", config.quiet):
        resolve_like(config)
        plan = plan_sweep(config)
        first = plan.variations[0]
        refuse_own_words(first)
        check_launcher(config, first)
        collect_seldom()
        if first.sweep_id is None and check_file(resolve_uri(first.tracking.uri)):
            _load_beside("hmm_exp.sweep.start")  # and MLflow, while the child reads the data
            found = check(plan)
            sweep_id = new_sweep_id()
    if found and sweep_id:  # before MLflow has opened the store, which takes seconds
        announce(sweep_id, plan, found, config.quiet)
    with progress.busy("opening the store", config.quiet):
        from hmm_exp.sweep.start import end_cells, open_sweep, watch

        collect_seldom()  # once more: MLflow is loaded now
        settings, checked = open_sweep(config, plan, found or check, sweep_id)
    yield settings

    if not found:
        announce(str(settings.sweep_id), plan, checked, config.quiet)
    announce_opened(str(settings.sweep_id), config.quiet)
    watch(settings)
    end = ["hmm_exp.sweep.finish"]  # what the end needs, while the child fits the first cell
    if settings.tracking.report:
        end += ["hmm_exp.report.log", "hmm_exp.report.page"]
        if not in_this_process(config):  # else the child draws the charts
            end.append(_CHARTS)
    _load_beside(*end, compiled_code=True)
    yield settings

    from hmm_exp.sweep.cell import record_last
    from hmm_exp.sweep.finish import FinishedSweep

    if settings.tracking.report:
        child.prepare_help(_CHARTS)
    record_last()
    progress.stop()
    finished = FinishedSweep.read(settings)
    choice, complete = finished.choose(), finished.complete
    finished.print_leaderboard(choice.run_id)
    finished.print_failures()
    notes, verdict = finished.weigh(choice)
    print(*choice.reasons, *notes, *verdict, sep="\n")
    decision, was_asked = finished.promote(choice)
    finished.record(choice, complete)
    if settings.tracking.report:
        print(report(finished.store, finished.sweep_id))
    end_cells(settings)
    finished.describe(choice, [*notes, *verdict, *decision])
    finished.print_links(choice, complete)
    yield complete and was_asked and choice.run_id is not None


def _load_beside(*modules: str, compiled_code: bool = False) -> None:
    """Import modules, and what compiled code needs, in a thread: this process waits for another."""

    def load() -> None:
        with suppress(Exception):  # who needs it next meets it again, and reports it
            for name in modules:
                import_module(name)
            if compiled_code:
                import_module("hmm_exp.compiling").get_ready()

    Thread(target=load, name="hmm_exp.load", daemon=True).start()
