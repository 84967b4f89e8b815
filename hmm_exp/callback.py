"""Hydra callback around a sweep. It refuses bad settings before heavy imports."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.config import Config, checked
from hmm_exp.config.overrides import composition_error
from hmm_exp.errors import HmmExpError, described, is_from_outside, one_line
from hmm_exp.experiment.candles import download
from hmm_exp.interrupts import interrupt_of
from hmm_exp.panel.panel import panel
from hmm_exp.store.folders import check_folder
from hmm_exp.store.login import hide_login
from hmm_exp.sweep import child
from hmm_exp.sweep.like import resolve_like
from hmm_exp.sweep.plan import in_this_process, refuse_own_words, refuse_sweep_words
from hmm_exp.sweep.sweep import sweep

FAILED, BAD_INPUT = 1, 2
_open: Config | None = None
_running: Iterator[Config | bool] = iter(())  # here: Hydra sends the callback to its workers


class SweepCallback(Callback):
    """Starts and finishes a sweep; of a single run it only checks the settings."""

    def __init__(self) -> None:
        self.settings: Config | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check a single run's settings before Hydra makes its folder."""
        if self.settings is None and config.hydra.mode != RunMode.MULTIRUN:
            with _exits_with(BAD_INPUT):
                hide_login(config)
                resolve_like(config)
                settings = checked(config)
                refuse_own_words(settings)
                refuse_sweep_words(config)
                check_folder("hydra.run.dir", config.hydra.run.dir, config.hydra.output_subdir)
                download(settings.data, settings.quiet)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check every cell's settings and open the sweep."""
        global _open, _running
        with _exits_with(BAD_INPUT):
            hide_login(config)
            check_folder("hydra.sweep.dir", config.hydra.sweep.dir)
            _running = (panel if config.data.kind == "panel" else sweep)(config, _report)
            self.settings = _open = cast(Config, next(_running))
            next(_running)  # announces it
            if not in_this_process(config):
                child.dismiss()  # the launcher's own processes have theirs

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Let go of a cell's config: Hydra would keep those of all cells until the sweep ends."""
        if config.hydra.mode == RunMode.MULTIRUN:
            job_return.cfg = job_return.hydra_cfg = None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Judge the sweep; exit non-zero on any failure."""
        if self.settings is None or sys.exception() is not None:
            return  # it never started, or its launcher broke: Hydra 1.4 calls this all the same
        with _exits_with(FAILED, f"; go on with sweep_id={self.settings.sweep_id}"):
            try:
                succeeded = next(_running)
            except Exception:
                _close(self.settings)
                raise
        if not succeeded:
            raise SystemExit(FAILED)


def abandon(error: BaseException) -> bool:
    """Close the open sweep of this process after its launcher broke; print how to go on.

    Returns
    -------
    bool
        Whether there was one.
    """
    if _open is None:
        return False
    left = _close(_open, isinstance(error, KeyboardInterrupt))
    hint = f"; go on with sweep_id={_open.sweep_id}"
    print(f"error: {one_line(f'{_in_words(error)}{left}{hint}')}", file=sys.stderr)
    return True


def _in_words(error: BaseException) -> str:
    """What went wrong, as one sentence; of Hydra's errors with the setting."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return composition_error(error)
    return described(error)


def _close(settings: Config, interrupted: bool = False) -> str:
    """Close the sweep's runs; gives a note when the store does not let it."""
    from hmm_exp.sweep.start import abandon_sweep

    try:
        abandon_sweep(settings, interrupted)
    except Exception:  # whatever it is, the reason to stop is what the user should read
        return "; its runs are closed when it goes on"
    return ""


def _report(store: Any, sweep_id: str) -> str:
    from hmm_exp.report.log import report_line
    from hmm_exp.report.page import DRAW

    return report_line(store, sweep_id, partial(child.helped, DRAW))


@contextmanager
def _exits_with(status: int, hint: str = "") -> Iterator[None]:
    """Leave the program on an error: Hydra turns a callback's into a warning and goes on."""
    try:
        yield
    except Exception as error:
        if interrupt := interrupt_of(error):
            raise interrupt from None
        child.dismiss()  # which may still be starting
        expected = HmmExpError | HydraException | OmegaConfBaseException
        if not (isinstance(error, expected) or is_from_outside(error)):
            traceback.print_exc()
        print(f"error: {one_line(f'{_in_words(error)}{hint}')}", file=sys.stderr)
        raise SystemExit(status) from None
