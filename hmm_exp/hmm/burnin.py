"""Bars until the filter forgets its initial distribution.

>>> burn_in(params, log_density(params, X), steps)
37

Filters with different initial distributions converge on the same rows. A filter step is a
projective map that keeps convex combinations, so all filters started at row t lie between the K
filters that start certain of one state, and two of those K are the furthest apart (Le Gland & Mevel
2000 study the rate).
"""

import numpy as np

from hmm_exp.compiling import entry, kernel
from hmm_exp.errors import FitError
from hmm_exp.hmm.inference import advance
from hmm_exp.hmm.loops import fill
from hmm_exp.hmm.params import GaussianParams

_SLACK = 15  # bars added to the result, so that every 16th row suffices
_SETTLED = 1e-10  # filters this close remain close
_LONGEST = 10_000  # bars; a longer burn-in is of no use


def burn_in(
    params: GaussianParams, log_lik: np.ndarray, steps: np.ndarray, tolerance: float = 1e-6
) -> int:
    """Bars until filters with any two initial distributions agree, worst case over all rows.

    Parameters
    ----------
    log_lik, steps
        Log densities (T, K) and chain steps (T,) of the train rows.
    tolerance
        Largest difference of probabilities that counts as agreement.

    Returns
    -------
    int
        Bars to feed, at most 15 more than necessary.

    Raises
    ------
    FitError
        The filter does not forget a start at the first row by the last row, or takes more than
        10,000 bars.
    """
    if params.n_states == 1:
        return 1
    log_lik = np.ascontiguousarray(log_lik, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    bars, agreed = _burn_in(params.startprob, params.transmat, log_lik, steps, tolerance)
    if not agreed:
        raise FitError(
            f"the filter still depends on its start after {bars} bars "
            f"(largest probability of staying in a state: {np.diagonal(params.transmat).max():.6g})"
        )
    return int(bars)


@entry
def _burn_in(startprob, transmat, log_lik, steps, tolerance):
    """Bars needed, and whether the filters agree at all.

    The set spanned by filters started at t shrinks with every row and contains the set of filters
    started at t + 1, so a later start never agrees at an earlier row. The first row therefore
    decides whether any start is forgotten. Going back from the last row, starts that cannot need
    `_SLACK` bars more than the longest so far are skipped.
    """
    start = np.int64(0)  # of a literal numba would compile `_rows_apart` once more
    rows, agreed = _rows_apart(startprob, transmat, log_lik, steps, start, tolerance)
    longest = rows + 1
    t = log_lik.shape[0] - 1
    while agreed and t > 0:
        rows, _ = _rows_apart(startprob, transmat, log_lik, steps, t, tolerance)
        longest = max(longest, rows + 1)
        agreed = rows < _LONGEST
        t = min(t - 1, t + rows - longest - _SLACK)
    return longest + _SLACK, agreed


@kernel(allocates=True)
def _rows_apart(startprob, transmat, log_lik, steps, first, tolerance):
    """Rows from `first` until K certain starts agree permanently, and whether they do."""
    T, K = log_lik.shape
    probs = np.empty((K, K))
    for k in range(K):  # a certain start stays certain at its first row
        fill(probs[k], 0.0)
        probs[k, k] = 1.0
    filtered = np.empty((1, K))
    log_prob = np.empty(1)
    rows, apart = 1, 1.0
    for n in range(1, min(T - first, _LONGEST + 1)):
        t = first + n
        row, step = log_lik[t : t + 1], steps[t : t + 1]
        for k in range(K):
            advance(startprob, transmat, row, step, probs[k], filtered, log_prob)
        apart = _diameter(probs)
        if apart > tolerance:
            rows = n + 1
        if apart < _SETTLED:  # also at a new sequence, which all start alike
            return rows, True
    return rows, apart <= tolerance


@kernel
def _diameter(probs):
    """Largest difference between any two rows in any column."""
    largest = 0.0
    for k in range(probs.shape[1]):
        high = low = probs[0, k]
        for i in range(1, probs.shape[0]):
            high, low = max(high, probs[i, k]), min(low, probs[i, k])
        largest = max(largest, high - low)
    return largest
