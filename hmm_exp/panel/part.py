"""A job of a panel: some symbols with all configurations, in one process of a launcher."""

import logging

from hmm_exp.config import Config
from hmm_exp.errors import HmmExpError, described, is_from_outside, one_line
from hmm_exp.interrupts import interrupt_of
from hmm_exp.panel.plan import Job
from hmm_exp.panel.symbol import Symbol
from hmm_exp.store.store import Store, patiently, store_of
from hmm_exp.sweep.cell import join_main
from hmm_exp.tracking import tags

log = logging.getLogger(__name__)


def run_job(settings: Config) -> None:
    """Run the symbols of a job; a failure is recorded or printed, and the panel goes on."""
    join_main(settings)
    job = Job.of(settings)
    n_symbols = (settings.sweep.n_cells or 0) // max(1, len(job.configurations))
    for number, one in job.symbols:
        head = f"[{number + 1}/{n_symbols}] {one_line(one.symbol, 60)}"
        try:
            store = store_of(settings.tracking)
            if _is_superseded(store, settings):
                log.warning("%s  left to a later start of this sweep", head)
                return
            Symbol(job, number, one, store, n_symbols).run()
        except Exception as error:
            if interrupt_of(error):
                raise
            if not isinstance(error, HmmExpError) and not is_from_outside(error):
                log.debug("the full traceback", exc_info=True)
            log.error("%s  FAILED: %s", head, one_line(described(error)))


def _is_superseded(store: Store, settings: Config) -> bool:
    """Whether a later start of the panel has replaced this one."""
    parent_run = str(settings.sweep.parent_run)
    parent = patiently(lambda: store.client.get_run(parent_run), settings.tracking.patience)
    return parent.data.tags.get(tags.ATTEMPT) not in (None, str(settings.sweep.attempt))
