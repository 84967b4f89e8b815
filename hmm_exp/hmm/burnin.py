"""How many bars the filter needs until it no longer matters where it started.

Two filters fed the same rows draw together. Every filter step is a projective map and keeps convex
combinations, so all filters started at row t lie between the K that started certain of one state,
and the two furthest apart among all are two of those K (Le Gland & Mevel 2000 study the rate).
"""

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.errors import FitError
from hmm_exp.hmm.inference import advance
from hmm_exp.hmm.params import GaussianParams

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
        When not even the first row's start is forgotten by the last row, or one takes more than
        10,000 bars: the chain holds on to where it began.
    """
    if params.n_states == 1:
        return 1
    log_lik = np.ascontiguousarray(log_lik, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    bars, agreed = _burn_in(params.startprob, params.transmat, log_lik, steps, tolerance)
    if not agreed:
        raise FitError(
            f"the filter still remembers where it started after {bars} bars "
            f"(largest chance to stay in a state: {np.diagonal(params.transmat).max():.6g})"
        )
    return int(bars)


@entry(error_model="numpy")
def _burn_in(startprob, transmat, log_lik, steps, tolerance):
    """Bars needed, and whether the filters were seen to agree at all.

    What filters started at t span shrinks as rows come, and holds what filters started at t + 1
    span: the row at which they agree never lies earlier for a later start. So the first row tells
    whether any start is forgotten, and, going back from the last row, all starts that cannot need
    `_SLACK` bars more than the longest so far are skipped.
    """
    rows, agreed = _rows_apart(startprob, transmat, log_lik, steps, 0, tolerance)
    longest = rows + 1
    t = log_lik.shape[0] - 1
    while agreed and t > 0:
        rows, _ = _rows_apart(startprob, transmat, log_lik, steps, t, tolerance)
        longest = max(longest, rows + 1)
        agreed = rows < _LONGEST
        t = min(t - 1, t + rows - longest - _SLACK)
    return longest + _SLACK, agreed


@entry(error_model="numpy")
def _rows_apart(startprob, transmat, log_lik, steps, first, tolerance):
    """Rows from `first` on until K certain starts agree for good, and whether they did."""
    T, K = log_lik.shape
    probs = np.eye(K)  # a certain start stays certain at its own first row
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
        if apart < _SETTLED:  # a new sequence, too: all begin it alike
            return rows, True
    return rows, apart <= tolerance


@entry(error_model="numpy")
def _diameter(probs):
    """Largest difference between any two rows in any column."""
    largest = 0.0
    for k in range(probs.shape[1]):
        largest = max(largest, probs[:, k].max() - probs[:, k].min())
    return largest
