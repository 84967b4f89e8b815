"""Scores and Hessian of a hidden Markov model on unconstrained scales.

>>> slopes = derivatives(params, X, steps)
>>> np.linalg.inv(-slopes.hessian)  # covariance of the free parameters at a maximum

The free parameters are logits of the transition rows, shifts d of the means, m + L d, the
logarithm M of each covariance (of Student-t states: scale matrix), L exp(M) L' with L its Cholesky
factor, and the logarithm of each df; for "diag" and "spherical" M holds logarithms of variances. In
whitened coordinates z = L^-1 (x - m), with q = (z - d)' exp(-M) (z - d),

    Gaussian   ln p = -(tr M + q) / 2 + constant,
    Student-t  ln p = -(tr M + (df + D) ln(1 + q / df)) / 2 + constant(df),

so a Student-t state has the derivatives of a Gaussian one with every row weighed by
w = (df + D) / (df + q), and terms from the derivatives of w.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag
from scipy.special import digamma, polygamma

from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.inference import filter, smooth_filtered
from hmm_exp.hmm.params import DF_BOUNDS, GaussianParams
from hmm_exp.hmm.rows import missing_rows
from hmm_exp.uncertainty.curvature import Chain, Emissions, differentiate

_AT_BOUND = 1e-3  # relative
_LARGEST_LOG = 700.0  # of a number; it is beyond only where the start rules the state out
_FEWEST_STEPS = 0.01  # expected; a transition with fewer has its probability at 0


class Derivatives(NamedTuple):
    """Derivatives by P free parameters.

    Their order: logits of the free transitions by row, without the most probable one of each row;
    shifts of the means by state; logarithms of the covariances by state, lower triangles by row
    ("tied": of the one matrix; "spherical": one number per state); logarithms of free df.

    Attributes
    ----------
    scores
        Of ln p(x_t | x_1..t-1), shape (T, P). The missing bars of gaps have rows of their own.
    hessian
        Of the log-likelihood, shape (P, P).
    natural
        Of K K transition probabilities, K D means and K D standard deviations, one after the other;
        of Student-t states also of K D scales and K df, shape (N, P).
    fixed
        Transitions whose probability is at 0 or 1 and so no parameter, shape (K, K).
    fixed_df
        States whose df is at a bound and so no parameter, shape (K,); empty for Gaussian states.
    """

    scores: np.ndarray
    hessian: np.ndarray
    natural: np.ndarray
    fixed: np.ndarray
    fixed_df: np.ndarray


def derivatives(
    params: GaussianParams, X: np.ndarray, steps: np.ndarray, threads: int | None = 1
) -> Derivatives:
    """Scores of all rows, and the Hessian, at a model with a fixed initial distribution.

    Parameters
    ----------
    X
        Observations, shape (T, D); a row with a NaN is missing.
    steps
        Chain steps from the row before, shape (T,), as in `inference`.
    threads
        Most blocks of directions at a time; None takes all cores.
    """
    X, steps = _filled(X, steps)
    density = log_density(params, X)
    filtered = filter(params.startprob, params.transmat, density, steps)
    smoothed = smooth_filtered(filtered, params.transmat, steps)
    ratio = np.exp(np.minimum(density - filtered.log_lik[:, None], _LARGEST_LOG))
    chain = Chain(params.transmat, filtered.probs, ratio, smoothed.pairs, steps == 0)
    fixed = at_bounds(smoothed.pairs)
    free = _free_logits(params.transmat, fixed)
    emissions = _emissions(params, X, smoothed.probs)
    scores, hessian = differentiate(chain, emissions, free, threads)
    fixed_df = df_at_bounds(params)
    shared = _shared(params, len(free), fixed_df)
    natural = _natural(params, free, fixed) @ shared
    if not np.array_equal(shared, np.eye(len(shared))):
        scores = scores @ shared
    return Derivatives(scores, shared.T @ hessian @ shared, natural, fixed, fixed_df)


def at_bounds(pairs: np.ndarray) -> np.ndarray:
    """Transitions whose probability is at 0 or 1, by the expected counts (K, K), shape (K, K).

    At 0 is a transition that is expected less than a hundredth of a time in all rows; at 1 is one
    with all others of its row at 0.
    """
    at_zero = pairs < _FEWEST_STEPS
    alone = (~at_zero).sum(axis=1) < 2
    return at_zero | alone[:, None]


def df_at_bounds(params: GaussianParams) -> np.ndarray:
    """States whose df is at one of `DF_BOUNDS`, shape (K,); empty for Gaussian states."""
    if params.df is None:
        return np.zeros(0, dtype=bool)
    least, most = DF_BOUNDS
    return (params.df <= least * (1 + _AT_BOUND)) | (params.df >= most * (1 - _AT_BOUND))


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


def _emissions(params: GaussianParams, X: np.ndarray, probs: np.ndarray) -> Emissions:
    """Derivatives of the log densities of observed rows, weighed by probs (T, K)."""
    (K, D), C = params.means.shape, len(_places(params)[0])
    Q = D + C + (params.df is not None)
    seen = ~missing_rows(X)
    slopes, curvature = np.empty((K, Q, len(X))), np.zeros((K, Q, Q))
    slopes[:, :, ~seen] = 0.0
    rows = slice(None) if seen.all() else seen  # a slice makes no copies
    columns = np.ascontiguousarray(X[rows].T)
    for k, factor in enumerate(np.linalg.cholesky(params.full_covars())):
        z = np.linalg.inv(factor) @ (columns - params.means[k][:, None])
        own = np.ascontiguousarray(probs[rows, k])
        if params.df is None:
            slopes[k][:, rows], curvature[k] = _gaussian(params, z, own)
        else:
            slopes[k][:, rows], curvature[k] = _student_t(params, z, own, params.df[k])
    return Emissions(slopes, curvature)


def _gaussian(
    params: GaussianParams, z: np.ndarray, probs: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (D + C, T) and curvature of a Gaussian whose squared distances are weighed.

    Here and below z has the shape (D, T), as NumPy is slow along a short axis.
    """
    (i, j), D = _places(params), params.n_features
    bases = _bases(params)
    slopes = _steepness(params, z)
    if weights is not None:
        slopes *= weights
    slopes[D + np.flatnonzero(i == j)] -= 0.5  # of half the trace of M
    weight = probs if weights is None else probs * weights
    first, second = z @ weight, (z * weight) @ z.T
    both = np.einsum("qab,rbc,ac->qr", bases, bases, second, optimize=True)
    across = -bases @ first
    upper = np.hstack([-weight.sum() * np.eye(D), across.T])
    return slopes, np.vstack([upper, np.hstack([across, -(both + both.T) / 4])])


def _steepness(params: GaussianParams, z: np.ndarray) -> np.ndarray:
    """-1/2 times the derivatives of the squared distance by d and M, shape (D + C, T)."""
    i, j = _places(params)
    return np.concatenate([z, z[i] * z[j] * np.where(i == j, 0.5, 1.0)[:, None]])


def _student_t(
    params: GaussianParams, z: np.ndarray, probs: np.ndarray, df: float
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (D + C + 1, T) and curvature of a Student-t state, ln df last."""
    D, square = params.n_features, (z**2).sum(axis=0)
    weights = (df + D) / (df + square)
    slopes, curvature = _gaussian(params, z, probs, weights)
    steep = _steepness(params, z)
    bent = probs * 2.0 * weights / (df + square)
    curvature += (steep * bent) @ steep.T
    across = df * steep @ (probs * (square - D) / (df + square) ** 2)
    tail, bend = _tail(df, D, square)
    corner = np.array([[probs @ bend]])
    curvature = np.block([[curvature, across[:, None]], [across[None], corner]])
    return np.vstack([slopes, tail]), curvature


def _tail(df: float, D: int, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative of a Student-t log density by ln df, shape (T,) each."""
    ratio = (df + D) * square / (df * (df + square))
    gammas = digamma(0.5 * (df + D)) - digamma(0.5 * df) - D / df
    first = 0.5 * (gammas - np.log1p(square / df) + ratio)
    change = square / (df * (df + square)) + ratio * (
        1.0 / (df + D) - (2.0 * df + square) / (df * (df + square))
    )
    bent = polygamma(1, 0.5 * (df + D)) - polygamma(1, 0.5 * df)
    second = 0.25 * bent + 0.5 * D / df**2 + 0.5 * change
    return df * first, df * first + df**2 * second


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


def _shared(params: GaussianParams, n_free: int, fixed_df: np.ndarray) -> np.ndarray:
    """How logits and the parameters of every state depend on the free parameters, (F + K Q, P).

    A tied M is the same in all states, a spherical one the same for all features.
    """
    (K, D), C = params.means.shape, len(_places(params)[0])
    Q = D + C + (params.df is not None)
    own = np.eye(K * Q).reshape(K, Q, K, Q)
    covariances, tails = own[..., D : D + C], own[..., D + C :]
    if params.covariance_type == "tied":
        covariances = covariances.sum(axis=2, keepdims=True)
    if params.covariance_type == "spherical":
        covariances = covariances.sum(axis=3, keepdims=True)
    parts = [own[..., :D], covariances, tails[:, :, ~fixed_df] if fixed_df.size else tails]
    return block_diag(np.eye(n_free), np.hstack([part.reshape(K * Q, -1) for part in parts]))


def _natural(params: GaussianParams, free: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Derivatives of the natural parameters as in `Derivatives`, (N, F + K Q)."""
    (K, D), bases, df = params.means.shape, _bases(params), params.df
    C = len(bases)
    probabilities = np.zeros((K, K, len(free)))
    for column, (i, j) in enumerate(free):
        row = params.transmat[i]
        probabilities[i, :, column] = row[j] * ((np.arange(K) == j) - row)
    probabilities[fixed] = 0.0
    means, scales, deviations = np.zeros((3, K, D, K, D + C + (df is not None)))
    for k, factor in enumerate(np.linalg.cholesky(params.full_covars())):
        means[k, :, k, :D] = factor
        variances = np.einsum("ia,qab,ib->iq", factor, bases, factor)
        scales[k, :, k, D : D + C] = variances / (2 * params.scales()[k][:, None])
        deviations[k] = scales[k] * (params.deviations() / params.scales())[k][:, None, None]
        if df is not None:  # of sqrt(df / (df - 2)) by ln df
            deviations[k, :, k, -1] = -params.deviations()[k] / (df[k] - 2.0)
    parts = [part.reshape(K * D, -1) for part in (means, deviations)]
    if df is not None:
        tails = np.zeros((K, K, D + C + 1))
        tails[np.arange(K), np.arange(K), -1] = df
        parts += [scales.reshape(K * D, -1), tails.reshape(K, -1)]
    return block_diag(probabilities.reshape(K * K, -1), np.vstack(parts))


def _free_logits(transmat: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Transitions (i, j) that are not fixed, without the most probable of each row, (F, 2)."""
    free = ~fixed
    free[np.arange(len(free)), transmat.argmax(axis=1)] = False
    return np.argwhere(free)
