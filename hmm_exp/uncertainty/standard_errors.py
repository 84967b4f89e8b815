"""Standard errors and intervals of a fitted hidden Markov model.

>>> errors = standard_errors(params, X, steps)
>>> errors.means.error, errors.means.lower, errors.means.upper      # (K, D) each
>>> errors.transmat.robust                                          # (K, K), sandwich
>>> errors.reason
'no error for transitions at probability 0: 0 to 2'

*Observed information.* `error` comes from the inverse of minus the exact Hessian of the
log-likelihood (Efron & Hinkley 1978, Biometrika 65) on the unconstrained scales of
`derivatives`, and by the delta method. The initial distribution is fixed.

*Sandwich.* `robust` also holds where the model is not the truth (Huber 1967; White 1982,
Econometrica 50): H^-1 S H^-1 with H the Hessian and S the sum of the outer products of the rows'
scores. If the rows' scores depend on each other, as for features of overlapping windows, S has the
weights 1 - j / window of Newey & West (1987, Econometrica 55) for scores j rows apart.
"""

from dataclasses import replace

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.uncertainty.derivatives import Derivatives, derivatives
from hmm_exp.uncertainty.estimates import LEVEL, StandardErrors, estimates_of, without_errors

_MOST_SCORES = 1 << 27  # of rows by parameters, 1 GB
_BLOCK = 1024  # rows whose sums are in memory
_SINGULAR = 1e-10  # least eigenvalue of the information, scaled to a diagonal of ones


def standard_errors(
    params: GaussianParams,
    X: np.ndarray,
    steps: np.ndarray,
    window: int = 1,
    level: float = LEVEL,
    threads: int | None = 1,
) -> StandardErrors:
    """Errors of a sound model fitted to these rows.

    Parameters
    ----------
    X
        Scaled observations that the model was fitted to, shape (T, D); a row with a NaN is missing.
    steps
        Chain steps from the row before, shape (T,), as in `inference`.
    window
        Rows over which scores depend on each other, at least as long as the windows of the
        features; 1 for independent rows.
    level
        Coverage of the intervals.
    threads
        Most threads at a time, with the same bits at any number; None takes all cores.
    """
    if (n_scores := _n_rows(steps) * params.n_parameters()) > _MOST_SCORES:
        return without_errors(params, f"{n_scores:,} scores need too much memory")
    with np.errstate(over="ignore", invalid="ignore"):  # no derivative of an impossible row
        slopes = derivatives(params, X, steps, threads)
    if (fault := _fault(-slopes.hessian)) is not None:
        return without_errors(params, fault)
    inverse = np.linalg.inv(-slopes.hessian)
    sandwich = inverse @ outer_products(slopes.scores, window) @ inverse
    robust = _deviations(slopes.natural, sandwich)
    error = np.full_like(robust, np.nan) if window > 1 else _deviations(slopes.natural, inverse)
    estimates = estimates_of(params, error, robust, window, level)
    return replace(estimates, reason=_bounds_in_words(params, slopes))


def outer_products(slopes: np.ndarray, window: int = 1) -> np.ndarray:
    """Sum of the outer products of scores (T, P), with Newey-West weights within a window, (P, P).

    The weighted sum is the mean of the outer products of all sums over `window` neighbours.
    """
    if window == 1:
        return slopes.T @ slopes
    slopes, n_parameters = np.ascontiguousarray(slopes), slopes.shape[1]
    total, inside = np.zeros((n_parameters, n_parameters)), np.zeros(n_parameters)
    sums, n_sums = np.empty((_BLOCK, n_parameters)), len(slopes) + window - 1
    for first in range(0, n_sums, _BLOCK):
        block = sums[: n_sums - first]
        _window_sums(slopes, window, first, inside, block)
        total += block.T @ block
    return total / window


def _n_rows(steps: np.ndarray) -> int:
    """Rows with the missing bars of gaps."""
    return len(steps) + int(np.maximum(steps[1:] - 1, 0).sum())


def _fault(information: np.ndarray) -> str | None:
    """Why the information cannot be inverted, in words."""
    if not np.isfinite(information).all():
        return "the information matrix is not finite"
    diagonal = np.diagonal(information)
    if (diagonal > 0).all():
        scale = np.sqrt(diagonal)
        if np.linalg.eigvalsh(information / np.outer(scale, scale))[0] > _SINGULAR:
            return None
    return "the information matrix is not positive definite: the fit is at no maximum"


def _deviations(natural: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard errors of the natural parameters by the delta method; NaN for fixed ones."""
    variance = np.einsum("np,pq,nq->n", natural, covariance, natural)
    return np.sqrt(np.where(natural.any(axis=1), variance, np.nan))


def _bounds_in_words(params: GaussianParams, slopes: Derivatives) -> str:
    """Which transitions and df have no error."""
    sentences = []
    for bound in (0, 1):
        at_bound = slopes.fixed & ((params.transmat > 0.5) == bound)
        if at_bound.any():
            names = ", ".join(f"{i} to {j}" for i, j in np.argwhere(at_bound))
            sentences.append(f"no error for transitions at probability {bound}: {names}")
    if slopes.fixed_df.any():
        names = ", ".join(map(str, np.flatnonzero(slopes.fixed_df)))
        sentences.append(f"no error for df at its bound: state {names}")
    return "; ".join(sentences)


@entry
def _window_sums(slopes, width, first, inside, out):
    """Write sums of rows (T, P) over `width` neighbours, from that which ends at row `first` on.

    `inside` (P,) holds the sum before it and afterwards the last one. There are partial sums at
    both ends, T + width - 1 in all.
    """
    T, P = slopes.shape
    for i in range(len(out)):
        t = first + i
        for p in range(P):
            if t < T:
                inside[p] += slopes[t, p]
            if t >= width:
                inside[p] -= slopes[t - width, p]
            out[i, p] = inside[p]
