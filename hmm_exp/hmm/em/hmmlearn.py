"""One EM run from one start, done by hmmlearn.

The engine to compare with. hmmlearn cannot bridge missing rows, so every gap and every
missing row starts a new segment here, and all segments share one startprob.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from hmmlearn.base import ConvergenceMonitor
from hmmlearn.hmm import GaussianHMM
from threadpoolctl import threadpool_limits

from hmm_exp.errors import FitError
from hmm_exp.hmm.params import GaussianParams, log_prior


class Run(NamedTuple):
    """Log-likelihood and penalised objective in nats before every M step, shape (iterations,)."""

    log_lik: np.ndarray
    objective: np.ndarray


def run_start(
    X: np.ndarray, steps: np.ndarray, start: GaussianParams, *, n_iter: int, tol: float
) -> tuple[GaussianParams, Run]:
    """Climb from `start` until the objective gains less than `tol`, falls, or `n_iter` is reached.

    Parameters
    ----------
    X, steps
        Observations (T, D) with NaN rows missing, and chain steps (T,).

    Returns
    -------
    GaussianParams
        Where EM ended.
    Run
        How it got there.

    Raises
    ------
    FitError
        When a state loses all its rows or its covariance collapses.
    """
    rows, lengths = segments(X, steps)
    with _quiet(), threadpool_limits(limits=1, user_api="blas"):  # sums depend on thread count
        try:
            return _fit(rows, lengths, start, "scaling", n_iter, tol)
        except ValueError:  # underflow: a row that no state expects
            pass
        try:
            return _fit(rows, lengths, start, "log", n_iter, tol)
        except ValueError as error:
            raise FitError(f"EM broke down: {error}") from None


def segments(X: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The observed rows (N, D), and the lengths of the stretches of them without any gap."""
    observed = ~np.isnan(X).any(axis=1)
    linked = np.zeros(len(X), dtype=bool)
    linked[1:] = observed[1:] & observed[:-1] & (steps[1:] == 1)
    firsts = np.flatnonzero(~linked[observed])
    return X[observed], np.diff(np.append(firsts, observed.sum()))


class _PenalisedHMM(GaussianHMM):
    """hmmlearn's model, watched by the objective that its M step climbs."""

    def _compute_lower_bound(self, curr_logprob: float) -> float:
        self.log_liks.append(curr_logprob)
        return curr_logprob + log_prior(GaussianParams.from_hmmlearn(self))


class _HistoryMonitor(ConvergenceMonitor):
    """Keeps the history, logs nothing, and stops as soon as a number makes no sense."""

    def report(self, log_prob: float) -> None:
        if not np.isfinite(log_prob):
            raise FitError(f"EM broke down: log-likelihood {log_prob}")
        self.history.append(log_prob)
        self.iter += 1


def _fit(rows, lengths, start, implementation, n_iter, tol) -> tuple[GaussianParams, Run]:
    model = _PenalisedHMM(
        start.n_states,
        covariance_type=start.covariance_type,
        n_iter=n_iter,
        tol=tol,
        init_params="",
        implementation=implementation,
    )
    model.startprob_, model.transmat_ = start.startprob.copy(), start.transmat.copy()
    model.means_, model.covars_ = start.means.copy(), start.covars
    model.monitor_, model.log_liks = _HistoryMonitor(tol, n_iter, verbose=False), []
    model.fit(rows, lengths)
    run = Run(np.array(model.log_liks), np.array(model.monitor_.history))
    return GaussianParams.from_hmmlearn(model), run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep hmmlearn's log lines and numpy's warnings of this thread to ourselves."""
    here = threading.get_ident()
    logger = logging.getLogger("hmmlearn.base")

    def not_ours(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger.addFilter(not_ours)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(not_ours)
