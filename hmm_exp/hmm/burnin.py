"""How many bars the filter needs until it no longer matters where it started.

Two filters fed the same rows draw together. Every filter step is a projective map and keeps convex
combinations, so all filters started at row t lie between the K that started certain of one state,
and the two furthest apart among all are two of those K (Le Gland & Mevel 2000 study the rate).
"""

import numpy as np
from numba import njit

from hmm_exp.errors import FitError
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.recursions import advance

_SLACK = 15  # bars added to the answer, so that only every 16th row need be tried
_SETTLED = 1e-10  # filters this close stay together
_LONGEST = 10_000  # bars; a longer burn-in is of no use


def burn_in(
    params: GaussianParams, log_lik: np.ndarray, steps: np.ndarray, tolerance: float = 1e-6
) -> int:
    """Bars until filters started from any two distributions agree, worst case over all rows.

    Parameters
    ----------
    log_lik, steps
        Log densities (T, K) and chain steps (T,) of the train rows.
    tolerance
        Largest difference of a probability that counts as agreement.

    Returns
    -------
    int
        Bars to feed, the last of which is in agreement; at most 15 more than the least.

    Raises
    ------
    FitError
        When no start is seen to be forgotten: the chain holds on to where it began.
    """
    if params.n_states == 1:
        return 1
    log_lik = np.ascontiguousarray(log_lik, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    bars, seen = _burn_in(params.startprob, params.transmat, log_lik, steps, tolerance)
    if not seen:
        raise FitError(
            f"the filter still remembers where it started after {bars} bars "
            f"(largest chance to stay in a state: {np.diagonal(params.transmat).max():.6g})"
        )
    return int(bars)


@njit(cache=True, nogil=True, error_model="numpy")
def _burn_in(startprob, transmat, log_lik, steps, tolerance):
    """Bars needed, and whether any start was seen to be forgotten.

    What filters started at t span shrinks as rows come, and holds what filters started at t + 1
    span: the row at which they agree never lies earlier for a later start. So, going back from the
    last row, all starts that cannot need `_SLACK` bars more than the longest so far are skipped.
    """
    longest, seen = 1, False
    t = log_lik.shape[0] - 1
    while t >= 0:
        agreed, forgotten = _first_agreement(startprob, transmat, log_lik, steps, t, tolerance)
        if agreed >= _LONGEST:
            return agreed, False
        seen |= forgotten
        longest = max(longest, agreed + 1)
        t = min(t - 1, t + agreed - longest - _SLACK)
    return longest + _SLACK, seen


@njit(cache=True, nogil=True, error_model="numpy")
def _first_agreement(startprob, transmat, log_lik, steps, first, tolerance):
    """Rows after `first` until K certain starts agree, and whether the rows made them do so."""
    T, K = log_lik.shape
    probs = np.eye(K)  # a certain start stays certain at its own first row
    fresh = np.empty((1, K))
    predicted = np.empty((2, K))
    agreed, apart = 1, 1.0
    for n in range(1, min(T - first, _LONGEST + 1)):
        t = first + n
        if steps[t] == 0:
            return agreed, apart <= tolerance
        row = log_lik[t : t + 1]
        for k in range(K):
            advance(probs, k, startprob, transmat, row, steps[t], fresh, 0, predicted)
            probs[k] = fresh[0]
        apart = _diameter(probs)
        if apart > tolerance:
            agreed = n + 1
        if apart < _SETTLED:
            return agreed, True
    return agreed, apart <= tolerance


@njit(cache=True, nogil=True, error_model="numpy")
def _diameter(probs):
    """Largest difference between any two rows in any column."""
    largest = 0.0
    for k in range(probs.shape[1]):
        largest = max(largest, probs[:, k].max() - probs[:, k].min())
    return largest
