"""One panel, from its plan to its verdict.

Hydra runs the jobs, in this process or on other machines, while the generator waits, as it does
for `sweep.sweep`:

    running = panel(config, report)
    settings = next(running)    # the settings are valid, the parent run is open
    succeeded = next(running)   # after the jobs: winners are tested, promoted and reported
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from hmm_exp.config import Config
from hmm_exp.sweep import child, progress
from hmm_exp.sweep.garbage import collect_seldom
from hmm_exp.sweep.like import resolve_like
from hmm_exp.sweep.plan import announce, announce_opened, check_launcher, refuse_own_words

if TYPE_CHECKING:
    from hmm_exp.store.store import Store


def panel(config: DictConfig, report: "Callable[[Store, str], str]") -> Iterator[Config | bool]:
    """Run one panel; Hydra runs the jobs between the second and the third value.

    Yields the settings as soon as the panel is open, so that the caller can close it, and again
    when it is announced; then True when every symbol finished and one of them has a winner.
    `report` makes the report and gives the line that names its place. Raises HmmExpError: before
    the first value nothing is written, after it finished work stays.
    """
    with progress.busy("checking settings and data", config.quiet):
        resolve_like(config)
        child.worker()  # it imports while this process imports MLflow
        from hmm_exp.panel.plan import escaped, plan_panel

        plan = plan_panel(config)
        refuse_own_words(plan.settings)
        check_launcher(config, plan.settings)
        collect_seldom()
        from hmm_exp.store.store import patiently, store_of
        from hmm_exp.sweep.start import end_cells, open_sweep, watch
        from hmm_exp.tracking import tags

        settings, data = open_sweep(config, plan.sweep, plan.check_data)
    yield settings

    with progress.busy("opening the store", config.quiet):
        n_symbols = str(len(plan.symbols))
        client = store_of(settings.tracking).client
        client.set_tag(str(settings.sweep.parent_run), tags.N_SYMBOLS, n_symbols)
    notes = escaped(settings.registry.name, plan.symbols)
    data = replace(data, read=data.read + notes)
    announce(str(settings.sweep_id), plan.sweep, data, settings.quiet)
    announce_opened(str(settings.sweep_id), settings.quiet)
    watch(settings)
    names = [one.symbol for one in plan.symbols]
    yield settings

    from hmm_exp.panel.finish import FinishedPanel
    from hmm_exp.panel.pool import Pools
    from hmm_exp.sweep.finish import close_left

    progress.stop()
    if not settings.pool:
        end_cells(settings)
    with progress.busy(f"reading {len(names):,} symbols", settings.quiet) as tell:
        store = patiently(lambda: store_of(settings.tracking), settings.tracking.patience)
        patiently(lambda: close_left(store, str(settings.sweep_id)), settings.tracking.patience)
        finished = FinishedPanel.read(settings, names, tell)
        tests = finished.test()
        decisions, failures = finished.promote(tests)
        table = finished.table(tests, decisions)
        lines = finished.verdict(table, tests)
        if settings.pool:
            pools = Pools(finished, plan.symbols, plan.configurations)
            try:
                pools.run()
            finally:
                end_cells(settings)
            lines, failures = [*lines, *pools.lines()], [*failures, *pools.failures]
    print("", *finished.table_lines(table), "", *finished.failure_lines(), sep="\n")
    print(*lines, *failures, sep="\n")
    finished.record(table, lines)
    if settings.tracking.report:
        print(report(finished.store, finished.sweep_id))
    finished.describe(table, lines)
    print(*finished.links(), sep="\n")
    yield finished.complete and not failures and bool(finished.winners)
