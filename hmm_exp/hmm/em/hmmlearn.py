"""One EM run by hmmlearn, for comparison with the native engine.

hmmlearn does not bridge missing rows, so every gap and every missing row starts a new segment, and
all segments share one startprob.
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


class History(NamedTuple):
    """Log-likelihood and penalised objective in nats before every M step, shape (iterations,)."""

    log_lik: np.ndarray
    objective: np.ndarray


def run_start(
    X: np.ndarray, steps: np.ndarray, start: GaussianParams, *, n_iter: int, tol: float
) -> tuple[GaussianParams, History]:
    """Run EM until the objective gains less than `tol`, falls, or `n_iter` is reached.

    Parameters
    ----------
    X, steps
        Observations (T, D) with NaN rows missing, and chain steps (T,).

    Returns
    -------
    GaussianParams
        The fitted parameters.
    History
        Its likelihoods.

    Raises
    ------
    FitError
        A state loses all its rows, or its covariance collapses.
    """
    rows, lengths = segments(X, steps)
    with _quiet(), threadpool_limits(limits=1, user_api="blas"):  # sums depend on thread count
        try:
            return _fit(rows, lengths, start, "scaling", n_iter, tol)
        except ValueError:  # underflow of a row that no state explains
            pass
        try:
            return _fit(rows, lengths, start, "log", n_iter, tol)
        except ValueError as error:
            raise FitError(f"EM broke down: {error}") from None


def segments(X: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The observed rows (N, D), and the lengths of their stretches without gaps."""
    observed = ~np.isnan(X).any(axis=1)
    linked = np.zeros(len(X), dtype=bool)
    linked[1:] = observed[1:] & observed[:-1] & (steps[1:] == 1)
    firsts = np.flatnonzero(~linked[observed])
    return X[observed], np.diff(np.append(firsts, observed.sum()))


class _PenalisedHMM(GaussianHMM):
    """hmmlearn's model, monitored by the objective that its M step maximises."""

    def _compute_lower_bound(self, curr_logprob: float) -> float:
        self.log_liks.append(curr_logprob)
        return curr_logprob + log_prior(GaussianParams.from_hmmlearn(self))


class _HistoryMonitor(ConvergenceMonitor):
    """Keep the history without logging, and stop at a value that is not finite."""

    def report(self, log_prob: float) -> None:
        if not np.isfinite(log_prob):
            raise FitError(f"EM broke down: log-likelihood {log_prob}")
        self.history.append(log_prob)
        self.iter += 1


def _fit(rows, lengths, start, implementation, n_iter, tol) -> tuple[GaussianParams, History]:
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
    history = History(np.array(model.log_liks), np.array(model.monitor_.history))
    return GaussianParams.from_hmmlearn(model), history


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress hmmlearn's log lines and numpy's warnings of this thread."""
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
