"""Observations laid out for EM in eight stretches of time, one per SIMD lane.

The series, with one row for every missing bar of a gap, is cut into 8 stretches of n rows. Row t is
step s = t mod n of lane t // n, and feature d of step s is one vector of 8 numbers (one per lane)
at `x[s * D + d]`. A code marks the special rows: without observation, first of a sequence, filling
at the end.
"""

from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry, kernel
from hmm_exp.errors import FitError
from hmm_exp.hmm.em.blocks import AHEAD
from hmm_exp.hmm.simd import LANES, aligned_zeros

# Bits of a row's code.
MISSING = 1  # no observation: density 1 in every state
FIRST = 2  # starts a sequence: the state is drawn from startprob
FILLING = 4  # past the end of the data: a sequence of one missing row, not counted


class PaddedRows(NamedTuple):
    """The laid-out series.

    Attributes
    ----------
    x
        Observations minus `centre`, zeros where missing, shape ((n + AHEAD) * D, LANES); the steps
        from n on are zero.
    code
        Code of every row, shape (n + 1, LANES); step n is the row after each lane's end.
    special
        Whether any lane of the step has a code, shape (n + 1,).
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
    code: np.ndarray
    special: np.ndarray
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
        raise FitError(f"feature {int(np.argmin(np.isfinite(spread)))} is too large to be squared")
    n_rows = len(X) + int(np.maximum(steps[1:] - 1, 0).sum())
    n = -(-n_rows // LANES)
    x = aligned_zeros((n + AHEAD) * D)
    code = np.full((n + 1, LANES), MISSING | FIRST | FILLING, dtype=np.uint8)
    _fill(X, steps, centre, x, code)
    code[n, :-1] = code[0, 1:]
    special = np.asarray(code.any(axis=1))
    return PaddedRows(x, code, special, centre, spread, n_rows, n_observed)


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
def _fill(X, steps, centre, x, code):
    """Write observations and codes; missing bars become missing rows."""
    T, D = X.shape
    n = code.shape[0] - 1
    row = 0
    for t in range(T):
        first = t == 0 or steps[t] == 0
        if not first:
            for _ in range(steps[t] - 1):
                code[row % n, row // n] = MISSING
                row += 1
        s, lane = row % n, row // n
        code[s, lane] = FIRST if first else 0
        if _is_missing(X[t]):
            code[s, lane] |= MISSING
        else:
            for d in range(D):
                x[s * D + d, lane] = X[t, d] - centre[d]
        row += 1
