"""Observations laid out for EM in eight stretches of time, one per SIMD lane.

The series, with one row for every missing bar of a gap, is cut into 8 stretches of n rows. Row t is
step s = t mod n of lane t // n, and feature d of step s is one vector of 8 numbers (one per lane)
at `x[s * D + d]`. Two bits of a row say whether it has no observation and whether it is the first
of a sequence; both are set in the rows that fill the last lane.
"""

from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry, kernel
from hmm_exp.errors import FeatureError, FitError
from hmm_exp.hmm.em.blocks import AHEAD
from hmm_exp.hmm.simd import LANES, aligned_zeros

_ALL = 255  # the bits of eight lanes


class PaddedRows(NamedTuple):
    """The laid-out series.

    Attributes
    ----------
    x
        Observations minus `centre`, zeros where missing, shape ((n + AHEAD) * D, LANES); the steps
        from n on are zero.
    missing
        Which lanes have no observation at a step, so that its density is 1 in every state: a bit
        each, shape (n + 1,), uint8. Step n is the row after each lane's end.
    first
        Which lanes start a sequence, whose state is drawn from startprob, in the same way.
    centre
        Mean of every feature over the observed rows, shape (D,). Moments about it lose no digits
        for data far from zero.
    spread
        Variance of every feature over the observed rows, shape (D,).
    n_rows
        Rows of the series, missing bars included, filling excluded.
    n_observed
        Rows with an observation.
    """

    x: np.ndarray
    missing: np.ndarray
    first: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    n_rows: int
    n_observed: int


def lay_out(X: np.ndarray, steps: np.ndarray) -> PaddedRows:
    """Cut the series into lanes.

    Parameters
    ----------
    X
        Observations, shape (T, D); a row with any NaN is missing.
    steps
        Chain steps from the row before, shape (T,): 0 starts a sequence, 1 is the neighbour,
        m + 1 means m missing rows in between. The first is taken as 0.

    Raises
    ------
    FitError
        Inconsistent shapes, an infinite value, negative steps, or no observed row.
    """
    X = np.ascontiguousarray(X, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    _check(X, steps)
    D = X.shape[1]
    centre, spread, n_observed = _moments(X)
    if n_observed < 0:
        raise FitError(f"row {-n_observed - 1} holds an infinite value")
    if n_observed == 0:
        raise FitError("every row is missing: nothing to fit")
    if not np.isfinite(spread).all():
        d = int(np.argmin(np.isfinite(spread)))
        raise FeatureError(f"feature {d} is too large to be squared", feature=d)
    n_rows = len(X) + int(np.maximum(steps[1:] - 1, 0).sum())
    n = -(-n_rows // LANES)
    x = aligned_zeros((n + AHEAD) * D)
    missing = np.full(n + 1, _ALL, dtype=np.uint8)
    first = np.full(n + 1, _ALL, dtype=np.uint8)
    _fill(X, steps, centre, x, missing, first)
    for bits in (missing, first):
        bits[n] = bits[0] >> 1 | 1 << (LANES - 1)
    return PaddedRows(x, missing, first, centre, spread, n_rows, n_observed)


def _check(X: np.ndarray, steps: np.ndarray) -> None:
    """Raise FitError unless X and steps are consistent."""
    if X.ndim != 2 or X.size == 0:
        raise FitError(f"observations have shape {X.shape}, not (rows, features)")
    if steps.shape != X.shape[:1]:
        raise FitError(f"{len(X)} rows but steps of shape {steps.shape}")
    if (steps < 0).any():
        raise FitError(f"steps at row {int(np.argmax(steps < 0))} is negative")


@kernel
def _is_missing(x):
    for value in x:  # noqa: SIM110 - numba compiles no generators
        if np.isnan(value):
            return True
    return False


@entry
def _moments(X):
    """Mean and variance of the observed rows (Welford 1962), and their number.

    If a row has an infinite value, the number is minus its position, counted from one.
    """
    T, D = X.shape
    mean = np.zeros(D)
    square = np.zeros(D)
    n_observed = 0
    for t in range(T):
        if _is_missing(X[t]):
            continue
        n_observed += 1
        for d in range(D):
            if np.isinf(X[t, d]):
                return mean, square, -(t + 1)
            away = X[t, d] - mean[d]
            mean[d] += away / n_observed
            square[d] += away * (X[t, d] - mean[d])
    return mean, square / max(n_observed, 1), n_observed


@entry
def _fill(X, steps, centre, x, missing, first):
    """Write observations, and clear bits; missing bars become missing rows."""
    T, D = X.shape
    n = missing.shape[0] - 1
    row = 0
    for t in range(T):
        starts = t == 0 or steps[t] == 0
        if not starts:
            for _ in range(steps[t] - 1):
                first[row % n] &= ~(1 << row // n)
                row += 1
        s, lane = row % n, row // n
        if not starts:
            first[s] &= ~(1 << lane)
        if not _is_missing(X[t]):
            missing[s] &= ~(1 << lane)
            for d in range(D):
                x[s * D + d, lane] = X[t, d] - centre[d]
        row += 1
