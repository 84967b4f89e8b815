"""Scores and Hessian of a Gaussian hidden Markov model on unconstrained scales.

>>> slopes = derivatives(params, X, steps)
>>> np.linalg.inv(-slopes.hessian)  # covariance of the free parameters at a maximum

The free parameters are logits of the transition rows, shifts d of the means, m + L d, and the
logarithm M of each covariance, L exp(M) L', with L the Cholesky factor of the covariance; all are 0
at the model itself. In whitened coordinates z = L^-1 (x - m)

    ln p = -(tr M + (z - d)' exp(-M) (z - d)) / 2 + constant,

whose second derivatives depend on the rows by the smoothed moments of z alone. For "diag" and
"spherical" M holds logarithms of variances.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag

from hmm_exp.hmm.curvature import Chain, Emissions, differentiate
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.inference import filter, smooth_filtered
from hmm_exp.hmm.params import GaussianParams

_LARGEST_LOG = 700.0  # of a number; it is beyond only where the start rules the state out
_FEWEST_STEPS = 0.01  # expected; a transition with fewer has its probability at 0


class Derivatives(NamedTuple):
    """Derivatives by P free parameters.

    Their order: logits of the free transitions by row, without the most probable one of each row;
    shifts of the means by state; logarithms of the covariances by state, lower triangles by row
    ("tied": of the one matrix; "spherical": one number per state).

    Attributes
    ----------
    scores
        Of ln p(x_t | x_1..t-1), shape (T, P). The missing bars of gaps have rows of their own.
    hessian
        Of the log-likelihood, shape (P, P).
    natural
        Of K K transition probabilities, K D means and K D standard deviations, one after the other,
        shape (K K + 2 K D, P).
    fixed
        Transitions whose probability is at 0 or 1 and so no parameter, shape (K, K).
    """

    scores: np.ndarray
    hessian: np.ndarray
    natural: np.ndarray
    fixed: np.ndarray


def derivatives(params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> Derivatives:
    """Scores of all rows, and the Hessian, at a model with a fixed initial distribution.

    Parameters
    ----------
    X
        Observations, shape (T, D); a row with a NaN is missing.
    steps
        Chain steps from the row before, shape (T,), as in `inference`.
    """
    X, steps = _filled(X, steps)
    density = log_density(params, X)
    filtered = filter(params.startprob, params.transmat, density, steps)
    smoothed = smooth_filtered(filtered, params.transmat, steps)
    ratio = np.exp(np.minimum(density - filtered.log_lik[:, None], _LARGEST_LOG))
    chain = Chain(params.transmat, filtered.probs, ratio, smoothed.pairs, steps == 0)
    fixed = at_bounds(params.transmat, smoothed.pairs)
    free = _free_logits(params.transmat, fixed)
    emissions = _gaussian_emissions(params, X, smoothed.probs)
    scores, hessian = differentiate(chain, emissions, free)
    shared = _shared(params, len(free))
    natural = _natural(params, free, fixed)
    return Derivatives(scores @ shared, shared.T @ hessian @ shared, natural @ shared, fixed)


def at_bounds(transmat: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Transitions whose probability is at 0 or 1, shape (K, K).

    At 0 is a transition that is expected less than a hundredth of a time in all rows; at 1 is one
    with all others of its row at 0.
    """
    at_zero = pairs < _FEWEST_STEPS
    alone = (~at_zero).sum(axis=1) < 2
    return at_zero | alone[:, None]


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


def _gaussian_emissions(params: GaussianParams, X: np.ndarray, probs: np.ndarray) -> Emissions:
    """Derivatives of the log densities of observed rows, weighed by probs (T, K)."""
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
        deviations[k, :, k, D:] = variances / (2 * params.deviations()[k][:, None])
    states = np.concatenate([means, deviations]).reshape(2 * K * D, -1)
    return block_diag(probabilities.reshape(K * K, -1), states)


def _free_logits(transmat: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Transitions (i, j) that are not fixed, without the most probable of each row, (F, 2)."""
    free = ~fixed
    free[np.arange(len(free)), transmat.argmax(axis=1)] = False
    return np.argwhere(free)
