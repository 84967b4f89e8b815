"""One composed config, run and recorded: alone, or as a cell of a sweep."""

import logging

from hydra.core.hydra_config import HydraConfig

from hmm_exp.config import Config
from hmm_exp.experiment.prepare import Prepared, prepare
from hmm_exp.experiment.run import RunResult, run
from hmm_exp.tracking import registry, terminal
from hmm_exp.tracking.record import cell_name, fail_run, finish_run, start_run
from hmm_exp.tracking.store import Store, open_store
from hmm_exp.tracking.sweep import is_finished

log = logging.getLogger(__name__)


def run_cell(settings: Config) -> None:
    """Run one config: alone an error is raised; in a sweep it is recorded and the sweep goes on."""
    if settings.sweep.parent_run is None:
        _run_alone(settings)
    else:
        _run_in_sweep(settings, HydraConfig.get().job.num + 1)


def _run_alone(settings: Config) -> None:
    prepared = prepare(settings)  # bad input leaves no run behind
    store = open_store(settings.tracking)
    run_id = start_run(store, settings, prepared)
    result = _fit_and_record(store, run_id, prepared, terminal.Progress(cell_name(settings)))
    terminal.print_run(result)
    print(f"run {run_id}: {terminal.ui_link(store, run_id=run_id)}")
    if settings.promote:
        decision = registry.promote(
            store.client, run_id, registry_name=settings.registry.name, gate=settings.gate
        )
        print(*decision.lines(settings.registry.name), sep="\n")
    print(result.regime_now)


def _run_in_sweep(settings: Config, number: int) -> None:
    store = open_store(settings.tracking)
    head = f"[{number}/{settings.sweep.n_cells}] {cell_name(settings)}"
    prepared, run_id = None, None
    try:
        prepared = prepare(settings)
        if settings.sweep.resumed and is_finished(store.client, settings, prepared.fingerprint):
            log.info("%s  finished before", head)
            return
        run_id = start_run(store, settings, prepared)
        result = _fit_and_record(store, run_id, prepared, terminal.Progress(head), keep=True)
        log.info("%s  %s", head, terminal.summary_line(result))
    except (Exception, KeyboardInterrupt) as error:
        run_id = run_id or start_run(store, settings, prepared)
        log.error("%s  FAILED: %s", head, fail_run(store, run_id, error))
        log.debug("the whole story", exc_info=True)
        if isinstance(error, KeyboardInterrupt):
            raise


def _fit_and_record(
    store: Store, run_id: str, prepared: Prepared, progress: terminal.Progress, keep: bool = False
) -> RunResult:
    """Fit and record; an error closes the run, unless the caller keeps that for itself."""
    try:
        with progress:
            result = run(prepared, progress)
            progress("recording")
            finish_run(store, run_id, result)
    except (Exception, KeyboardInterrupt) as error:
        if not keep:
            fail_run(store, run_id, error)
        raise
    return result
