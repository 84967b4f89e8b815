"""Blocked cross-validation: the likelihood of stretches of time that the fit has not seen.

>>> result = cross_validate(X, steps, 3, n_blocks=5, embargo=720)
>>> result.mean, result.standard_error      # nats per row
(-8.31, 0.12)

A series is cut into consecutive blocks. Each is held out in turn: it and the embargo on either side
(rows whose windows overlap it) are missing rows while the model is fitted to all others, so the
chain runs through them undisturbed (Celeux & Durand 2008, Computational Statistics 23, on
cross-validated likelihood for hidden Markov chains). Then the filter runs over the series with
everything up to each row in view, and what it says of the held-out rows before it sees them counts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm import inference
from hmm_exp.hmm.fit import fit
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.parallel import run_all


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Held-out log-likelihood per observed row, in nats.

    Attributes
    ----------
    folds
        Of every block, shape (n_blocks,).
    n_rows
        Observed rows of every block, shape (n_blocks,).
    """

    folds: np.ndarray
    n_rows: np.ndarray

    @property
    def mean(self) -> float:
        """Over all held-out rows."""
        return float(np.average(self.folds, weights=self.n_rows))

    @property
    def standard_error(self) -> float:
        """Of the mean, from the spread of the blocks."""
        return float(self.folds.std(ddof=1) / np.sqrt(len(self.folds)))


def cross_validate(
    X: np.ndarray,
    steps: np.ndarray,
    n_states: int,
    *,
    n_blocks: int = 5,
    embargo: int = 0,
    threads: int | None = None,
    volatility: np.ndarray | None = None,
    **options: Any,
) -> CrossValidation:
    """Hold out every block in turn.

    Parameters
    ----------
    X, steps, volatility
        As in `fit.fit`; scaled once, by all rows.
    n_blocks
        Consecutive blocks of about equal numbers of observed rows; at least two.
    embargo
        Rows before and after a held-out block that are left out of its fit as well.
    threads
        Most folds at a time; None takes all cores. Changes no bit.
    options
        Of `fit.fit`.

    Raises
    ------
    FitError
        When a block has no rows, or a fold cannot be fitted; it is named.
    """
    X = np.ascontiguousarray(X, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    observed = np.flatnonzero(~np.isnan(X).any(axis=1))
    if not 2 <= n_blocks <= len(observed):
        raise FitError(f"{n_blocks} blocks of {len(observed)} complete rows: at least 2, each some")
    blocks = np.array_split(observed, n_blocks)

    def held_out(i: int) -> float:
        known = _without(X, blocks[i], embargo)
        try:
            fitted = fit(
                known, steps, n_states=n_states, volatility=volatility, threads=1, **options
            )
        except FitError as error:
            raise FitError(f"block {i + 1} of {n_blocks} held out: {error}") from None
        return float(_predictive(fitted.params, X, steps)[blocks[i]].mean())

    if options.get("engine") == "hmmlearn":  # keeps quiet for the whole process, not per thread
        threads = 1
    folds = run_all(held_out, range(n_blocks), threads)
    return CrossValidation(np.array(folds), np.array([len(block) for block in blocks]))


def _without(X: np.ndarray, block: np.ndarray, embargo: int) -> np.ndarray:
    """A copy whose rows in and around the block are missing."""
    known = X.copy()
    known[max(block[0] - embargo, 0) : block[-1] + embargo + 1] = np.nan
    return known


def _predictive(params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """ln p(x_t | x_1..t-1) of every row in nats, shape (T,), from the stationary distribution.

    A chain without one begins from `startprob`.
    """
    try:
        begin = params.stationary()
    except FitError:
        begin = params.startprob
    return inference.filter_rows(params, X, steps, begin).log_lik
