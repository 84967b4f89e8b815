"""State probabilities of one model at every row of a table, each recursion run at most once.

>>> posterior = Posterior(params, X, steps)
>>> posterior.filtered.probs[-1]   # all that is known live
>>> posterior.smoothed.probs[0]    # with hindsight
"""

from functools import cached_property

import numpy as np

from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.inference import Decoded, Filtered, Smoothed, filter, smooth_filtered, viterbi
from hmm_exp.hmm.params import GaussianParams


class Posterior:
    """Filtered, smoothed and decoded states of rows, from the stationary distribution.

    Parameters
    ----------
    params
        The model.
    X
        Scaled observations, shape (T, D); a row with a NaN is missing.
    steps
        Chain steps from the row before, shape (T,), as in `inference`.

    Raises
    ------
    FitError
        On use, when the chain has no unique stationary distribution.
    """

    def __init__(self, params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> None:
        self.params, self.X, self.steps = params, X, steps

    @cached_property
    def density(self) -> np.ndarray:
        """Log density of every row under every state, nats, shape (T, K)."""
        return log_density(self.params, self.X)

    @cached_property
    def filtered(self) -> Filtered:
        """p(z_t | x_1..t) and ln p(x_t | x_1..t-1) of every row."""
        return filter(self._startprob, self.params.transmat, self.density, self.steps)

    @cached_property
    def smoothed(self) -> Smoothed:
        """p(z_t | x_1..T) of every row: for looking back only."""
        return smooth_filtered(self.filtered, self.params.transmat, self.steps)

    @cached_property
    def decoded(self) -> Decoded:
        """The most probable path through all rows: for looking back only."""
        return viterbi(self._startprob, self.params.transmat, self.density, self.steps)

    @property
    def _startprob(self) -> np.ndarray:
        return self.params.stationary()
