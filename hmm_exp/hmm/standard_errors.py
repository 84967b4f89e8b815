"""Standard errors and intervals of a fitted Gaussian hidden Markov model.

>>> errors = standard_errors(params, X, steps)
>>> errors.means.error, errors.means.lower, errors.means.upper      # (K, D) each
>>> errors.transmat.robust                                          # (K, K), sandwich
>>> errors.reasons
('the transition from state 0 to 2 has no error: its probability is at 0',)

*Observed information.* `error` comes from the inverse of minus the exact Hessian of the
log-likelihood (Efron & Hinkley 1978, Biometrika 65) on unconstrained scales: logits of the
transition rows, means, and the logarithm of each covariance S = L exp(M) L', with M = 0 at the
estimate and L its Cholesky factor ("diag", "spherical": log variances). The initial distribution is
fixed.

*Sandwich.* `robust` also holds where the model is not the truth (Huber 1967; White 1982,
Econometrica 50): H^-1 S H^-1 with H the Hessian and S the sum of the outer products of the rows'
scores. If the rows' scores depend on each other, as for features of overlapping windows, S has the
weights 1 - j / window of Newey & West (1987, Econometrica 55) for scores j rows apart.

*Intervals* are symmetric for means, on the logit scale for probabilities and on the log scale for
standard deviations, transformed back. They come from the observed information; with a window, from
the sandwich alone, and `error` is missing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag
from scipy.special import expit, logit, ndtri

from hmm_exp.hmm.curvature import Chain, Emissions, differentiate
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.inference import filter, smooth_filtered
from hmm_exp.hmm.params import GaussianParams

LEVEL = 0.95
_FEWEST_STEPS = 0.01  # expected; a transition with fewer has its probability at 0
_MOST_NUMBERS = 1 << 27  # scores of rows by parameters, 1 GB
_SINGULAR = 1e-10  # least eigenvalue of the information, scaled to a diagonal of ones


@dataclass(frozen=True, eq=False)
class Estimates:
    """Parameters of one kind with errors and intervals, arrays of one shape, NaN where missing.

    Attributes
    ----------
    value
        The estimates.
    error, robust
        Standard errors from the observed information and from the sandwich.
    lower, upper
        Ends of the intervals.
    """

    value: np.ndarray
    error: np.ndarray
    robust: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Errors of all parameters of a model.

    Attributes
    ----------
    transmat, means, deviations
        Transition probabilities (K, K), means (K, D) and standard deviations (K, D), in the units
        of the observations.
    level
        Coverage of the intervals.
    window
        Rows over which scores count as dependent; 1 for none.
    reasons
        Why errors are missing, one sentence each.
    """

    transmat: Estimates
    means: Estimates
    deviations: Estimates
    level: float = LEVEL
    window: int = 1
    reasons: tuple[str, ...] = ()

    def in_units(self, mean: np.ndarray, scale: np.ndarray) -> "StandardErrors":
        """The same errors for features times `scale` plus `mean`, shapes (D,)."""
        return replace(
            self,
            means=_moved(self.means, mean, scale),
            deviations=_moved(self.deviations, 0.0, scale),
        )


def standard_errors(
    params: GaussianParams,
    X: np.ndarray,
    steps: np.ndarray,
    *,
    faults: Sequence[str] = (),
    window: int = 1,
    level: float = LEVEL,
) -> StandardErrors:
    """Errors of a model fitted to these rows.

    Parameters
    ----------
    X
        Scaled observations that the model was fitted to, shape (T, D); a row with a NaN is missing.
    steps
        Chain steps from the row before, shape (T,), as in `inference`.
    faults
        Hard faults of the fit, in words; with any there are no errors.
    window
        Rows over which scores depend on each other, at least as long as the windows of the
        features; 1 for independent rows.
    level
        Coverage of the intervals.
    """
    if faults:
        return without_errors(params, f"the fit is degenerate: {'; '.join(faults)}", window, level)
    rows = _filled(X, steps)
    if len(rows[0]) * params.n_parameters() > _MOST_NUMBERS:
        reason = f"{len(rows[0]):,} rows of {params.n_parameters()} scores do not fit in memory"
        return without_errors(params, reason, window, level)
    chain, emissions = _prepare(params, *rows)
    fixed = at_bounds(params.transmat, chain.pairs)
    free = _free_logits(params.transmat, fixed)
    slopes, hessian = differentiate(chain, emissions, free)
    shared = _shared(params, len(free))
    information = -shared.T @ hessian @ shared
    if (fault := _fault(information)) is not None:
        return without_errors(params, fault, window, level)
    inverse = np.linalg.inv(information)
    meat = outer_products(slopes @ shared, window)
    natural = _natural(params, free, fixed) @ shared
    robust = _deviations(natural, inverse @ meat @ inverse)
    error = np.full_like(robust, np.nan) if window > 1 else _deviations(natural, inverse)
    reasons = tuple(_bound_reasons(params.transmat, fixed))
    return estimates_of(params, error, robust, level=level, window=window, reasons=reasons)


def estimates_of(
    params: GaussianParams, error: np.ndarray, robust: np.ndarray, **about
) -> StandardErrors:
    """Errors with intervals from standard errors on the natural scales.

    Parameters
    ----------
    error, robust
        Of transition probabilities (K, K), means (K, D) and deviations (K, D), one after the other
        and flat; NaN where missing.
    about
        `level`, `window` and `reasons` of `StandardErrors`.
    """
    K, D = params.means.shape
    ends = [K * K, K * K + K * D]
    parts = zip(np.split(error, ends), np.split(robust, ends), strict=True)
    values = (params.transmat, params.means, deviations_of(params))
    z = float(ndtri(0.5 + about.get("level", LEVEL) / 2))
    estimates = [
        _with_interval(value, *(part.reshape(value.shape) for part in pair), z, scale)
        for value, pair, scale in zip(values, parts, _SCALES, strict=True)
    ]
    return StandardErrors(*estimates, **about)


def without_errors(
    params: GaussianParams, reason: str, window: int = 1, level: float = LEVEL
) -> StandardErrors:
    """A model's estimates with no errors at all, for one reason."""
    K, D = params.means.shape
    missing = np.full(K * K + 2 * K * D, np.nan)
    return estimates_of(
        params, missing, missing, level=level, window=window, reasons=(f"no errors: {reason}",)
    )


def deviations_of(params: GaussianParams) -> np.ndarray:
    """Standard deviation of every feature in every state, shape (K, D)."""
    return np.sqrt(np.diagonal(params.full_covars(), axis1=1, axis2=2))


def at_bounds(transmat: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Transitions whose probability is at 0 or 1, shape (K, K).

    At 0 is a transition that is expected less than a hundredth of a time in all rows; at 1 is one
    with all others of its row at 0.
    """
    at_zero = pairs < _FEWEST_STEPS
    alone = (~at_zero).sum(axis=1) < 2
    return at_zero | alone[:, None]


def outer_products(slopes: np.ndarray, window: int = 1) -> np.ndarray:
    """Sum of the outer products of scores (T, P), with Newey-West weights within a window, (P, P).

    The weighted sum is the mean of the outer products of all sums over `window` neighbours.
    """
    if window == 1:
        return slopes.T @ slopes
    padded = np.pad(slopes, ((window, window - 1), (0, 0))).cumsum(axis=0)
    sums = padded[window:] - padded[:-window]
    return sums.T @ sums / window


def _identity(value, error, z):
    return value - z * error, value + z * error


def _log(value, error, z):
    spread = np.exp(z * error / value)
    return value / spread, value * spread


def _logit(value, error, z):
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, spread = logit(value), z * error / (value * (1.0 - value))
        return expit(centre - spread), expit(centre + spread)


_SCALES = (_logit, _identity, _log)  # of probabilities, means, deviations


def _with_interval(value, error, robust, z, scale) -> Estimates:
    used = np.where(np.isnan(error), robust, error)
    return Estimates(value, error, robust, *scale(value, used, z))


def _moved(part: Estimates, mean: np.ndarray | float, scale: np.ndarray) -> Estimates:
    return Estimates(
        part.value * scale + mean,
        part.error * scale,
        part.robust * scale,
        part.lower * scale + mean,
        part.upper * scale + mean,
    )


def _filled(X: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the missing bars of gaps written out, (T, D), and steps of 0 or 1."""
    steps = np.asarray(steps, dtype=np.int64).copy()
    steps[0] = 0
    place = np.arange(len(X)) + np.maximum(steps - 1, 0).cumsum()
    rows = np.full((place[-1] + 1, X.shape[1]), np.nan)
    rows[place] = X
    ones = np.ones(len(rows), dtype=np.int64)
    ones[place] = np.minimum(steps, 1)
    return rows, ones


def _prepare(
    params: GaussianParams, X: np.ndarray, steps: np.ndarray
) -> tuple[Chain, Emissions]:
    """The filtered chain of these rows, and the derivatives of the densities."""
    density = log_density(params, X)
    filtered = filter(params.startprob, params.transmat, density, steps)
    smoothed = smooth_filtered(filtered, params.transmat, steps)
    ratio = np.exp(density - filtered.log_lik[:, None])
    chain = Chain(params.transmat, filtered.probs, ratio, smoothed.pairs, steps == 0)
    return chain, gaussian_emissions(params, X, smoothed.probs)


def gaussian_emissions(
    params: GaussianParams, X: np.ndarray, probs: np.ndarray
) -> Emissions:
    """Derivatives of Gaussian log densities by the mean and log covariance of each state.

    In whitened coordinates z = L^-1 (x - m), a mean moved by L d and a covariance L exp(M) L':
    ln p = -(tr M + (z - d)' exp(-M) (z - d)) / 2 + constant, with M = sum_q m_q B_q over `_bases`.

    Parameters
    ----------
    X
        Shape (T, D); a row with a NaN is missing.
    probs
        Smoothed probabilities, shape (T, K).
    """
    (K, D), (i, j) = params.means.shape, _places(params)
    C, bases = len(i), _bases(params)
    seen = ~np.isnan(X).any(axis=1)
    slopes = np.zeros((len(X), K, D + C))
    curvature = np.zeros((K, D + C, D + C))
    products = np.einsum("qab,rbc->qrac", bases, bases)
    for k, factor in enumerate(np.linalg.cholesky(params.full_covars())):
        z = (X[seen] - params.means[k]) @ np.linalg.inv(factor).T
        slopes[seen, k, :D] = z
        slopes[seen, k, D:] = (z[:, i] * z[:, j] - (i == j)) * np.where(i == j, 0.5, 1.0)
        weight = probs[seen, k]
        first, second = weight @ z, (weight[:, None] * z).T @ z
        curvature[k, :D, :D] = -weight.sum() * np.eye(D)
        curvature[k, D:, :D] = -bases @ first
        curvature[k, :D, D:] = curvature[k, D:, :D].T
        both = np.einsum("qrab,ab->qr", products, second)
        curvature[k, D:, D:] = -(both + both.T) / 4
    return Emissions(slopes, curvature)


def _places(params: GaussianParams) -> tuple[np.ndarray, np.ndarray]:
    """Row and column in M of every parameter of a state's log covariance, (C,) each."""
    if params.covariance_type in ("full", "tied"):
        return np.tril_indices(params.n_features)
    return np.arange(params.n_features), np.arange(params.n_features)


def _bases(params: GaussianParams) -> np.ndarray:
    """The symmetric matrices B_q of M = sum_q m_q B_q, shape (C, D, D)."""
    i, j = _places(params)
    bases = np.zeros((len(i), params.n_features, params.n_features))
    bases[np.arange(len(i)), i, j] = bases[np.arange(len(i)), j, i] = 1.0
    return bases


def _shared(params: GaussianParams, n_free: int) -> np.ndarray:
    """How logits and the parameters of every state depend on the free parameters, (F + K Q, P).

    A tied M is the same in all states, a spherical one the same for all features.
    """
    (K, D), C = params.means.shape, len(_places(params)[0])
    own = np.eye(K * (D + C)).reshape(K, D + C, K, D + C)
    kind = params.covariance_type
    covariances = own[..., D:]
    if kind == "tied":
        covariances = covariances.sum(axis=2, keepdims=True)
    if kind == "spherical":
        covariances = covariances.sum(axis=3, keepdims=True)
    parts = [part.reshape(K * (D + C), -1) for part in (own[..., :D], covariances)]
    return block_diag(np.eye(n_free), np.hstack(parts))


def _natural(params: GaussianParams, free: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Derivatives of transition probabilities, means and deviations, (K K + 2 K D, F + K Q)."""
    (K, D), bases = params.means.shape, _bases(params)
    probabilities = np.zeros((K, K, len(free)))
    for column, (i, j) in enumerate(free):
        row = params.transmat[i]
        probabilities[i, :, column] = row[j] * ((np.arange(K) == j) - row)
    probabilities[fixed] = 0.0
    means = np.zeros((K, D, K, D + len(bases)))
    deviations = np.zeros_like(means)
    for k, factor in enumerate(np.linalg.cholesky(params.full_covars())):
        means[k, :, k, :D] = factor
        variances = np.einsum("ia,qab,ib->iq", factor, bases, factor)
        deviations[k, :, k, D:] = variances / (2 * deviations_of(params)[k][:, None])
    states = np.concatenate([means, deviations]).reshape(2 * K * D, -1)
    return block_diag(probabilities.reshape(K * K, -1), states)


def _free_logits(transmat: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Transitions (i, j) that are not fixed, without the most probable of each row, (F, 2)."""
    free = ~fixed
    free[np.arange(len(free)), transmat.argmax(axis=1)] = False
    return np.argwhere(free)


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


def _bound_reasons(transmat: np.ndarray, fixed: np.ndarray) -> Iterator[str]:
    """Why transitions have no error, a sentence for each."""
    for i, j in np.argwhere(fixed):
        bound = 1 if transmat[i, j] > 0.5 else 0
        yield f"the transition from state {i} to {j} has no error: its probability is at {bound}"
