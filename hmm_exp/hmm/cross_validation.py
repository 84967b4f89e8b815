"""Blocked cross-validation of hidden Markov models.

>>> result = cross_validate(X, steps, 3, n_blocks=5, embargo=720)
>>> result.mean, result.standard_error      # nats per row
(-8.31, 0.12)

A series is cut into consecutive blocks, and each block is held out in turn. The block and the
embargo on either side (rows whose windows overlap it) are missing rows while the model is fitted to
all others, so the chain bridges them (Celeux & Durand 2008, Computational Statistics 23). Then the
filter runs over the whole series, and the predictive likelihood of the held-out rows is the score.
"""

from dataclasses import dataclass, replace

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm import inference
from hmm_exp.hmm.fit import Search, fit
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.rows import finite_rows
from hmm_exp.parallel import run_all


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Held-out log-likelihood per observed row, in nats."""

    folds: np.ndarray  # mean per block, shape (n_blocks,)
    n_rows: np.ndarray  # observed rows of every block, shape (n_blocks,)

    @property
    def mean(self) -> float:
        """Mean over all held-out rows."""
        return float(np.average(self.folds, weights=self.n_rows))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, from the spread of the blocks."""
        return float(self.folds.std(ddof=1) / np.sqrt(len(self.folds)))


def cross_validate(
    X: np.ndarray,
    steps: np.ndarray,
    n_states: int,
    search: Search | None = None,
    *,
    n_blocks: int = 5,
    embargo: int = 0,
    volatility: np.ndarray | None = None,
) -> CrossValidation:
    """Hold out every block in turn.

    Parameters
    ----------
    X, steps, n_states, volatility
        As in `fit.fit`; scaled once, by all rows.
    search
        Settings of every fit; `threads` folds are fitted at a time.
    n_blocks
        Consecutive blocks of about equal numbers of observed rows; at least two.
    embargo
        Rows before and after a held-out block that its fit also leaves out.

    Raises
    ------
    FitError
        A block has no rows, or a fold cannot be fitted; the message names it.
    """
    search = search or Search()
    X = np.ascontiguousarray(X, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    observed = np.flatnonzero(~np.isnan(X).any(axis=1))
    if not 2 <= n_blocks <= len(observed):
        raise FitError(f"{n_blocks} blocks of {len(observed)} complete rows: at least 2, each some")
    blocks = np.array_split(observed, n_blocks)

    alone = replace(search, threads=1)

    def held_out(i: int) -> float:
        known = X.copy()
        known[max(blocks[i][0] - embargo, 0) : blocks[i][-1] + embargo + 1] = np.nan
        held = f"block {i + 1} of {n_blocks} held out"
        if embargo and (left := int(finite_rows(known).sum())) < n_states:
            raise FitError(
                f"{held}, with {embargo:,} rows on each side whose windows overlap with it: {left} "
                "rows are left; take shorter windows or more train rows"
            )
        try:
            fitted = fit(known, steps, n_states, alone, volatility=volatility)
        except FitError as error:
            raise FitError(f"{held}: {error}") from None
        return float(_predictive(fitted.params, X, steps)[blocks[i]].mean())

    native = search.engine == "native"  # hmmlearn's warnings are global to the process
    folds = run_all(held_out, range(n_blocks), search.threads if native else 1)
    return CrossValidation(np.array(folds), np.array([len(block) for block in blocks]))


def _predictive(params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """ln p(x_t | x_1..t-1) of every row in nats, shape (T,).

    Starts from the stationary distribution, or from `startprob` if there is none.
    """
    try:
        begin = params.stationary()
    except FitError:
        begin = params.startprob
    return inference.filter_rows(params, X, steps, begin).log_lik
