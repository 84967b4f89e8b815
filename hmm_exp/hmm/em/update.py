"""The M step of EM for Gaussian states, with hmmlearn's priors and a covariance floor.

All four covariance types share one representation inside EM: a (K, D, D) array, of which "diag" and
"spherical" use the diagonal only and "tied" holds K equal matrices. Means are relative to the
centre of the data.

hmmlearn 0.3.3 (after Huang, Acero & Hon 2001, "Spoken Language Processing", p. 443) divides
`covars_prior + scatter` by the state's mass. That maximises, together with the other updates,

    log-likelihood - 1/2 sum_k [ tr(S_k^-1 P) + w ln det S_k + v (m_k - m0)' S_k^-1 (m_k - m0) ]
                   + sum (a - 1) ln startprob + sum (b - 1) ln transmat

with P = covars_prior (a scalar fills the diagonal for "diag" and "spherical" but *every* element
for "full" and "tied"), w = max(covars_weight - 1, 0) or max(covars_weight - D, 0), v = means_weight
and m0 = means_prior, and the Dirichlet parameters a and b. A tied matrix counts once. EM never
lowers this penalised objective.
"""

import math
from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import inlined, kernel, part
from hmm_exp.hmm.loops import fill

KINDS = ("spherical", "diag", "tied", "full")
SPHERICAL, DIAG, TIED, FULL = range(4)

NO_MASS = 1e-50  # with fewer expected rows or steps the parameters stay
_ROUNDING = 1e-12  # of a variance: a pivot below it may be rounding alone
_SMALLEST_DIVISOR = 1e-5  # hmmlearn's, for "diag" and "spherical"


class EMParams(NamedTuple):
    """Parameters as the kernels use them; K states, D features.

    Attributes
    ----------
    startprob, transmat
        Shapes (K,) and (K, K).
    means
        Relative to the centre of the data, shape (K, D).
    covars
        Shape (K, D, D).
    whiten
        Inverse of the lower Cholesky factor of every covariance, shape (K, D, D).
    shift
        `whiten @ means`, shape (K, D): z = whiten @ x - shift is standard normal in its state.
    log_norm
        Log density at the mean, shape (K,).
    kind
        Shape (1,): index of the covariance type in `KINDS`.
    df, log_tail
        Degrees of freedom of Student-t states, shape (K,), whose covariances are scale matrices,
        and what is added to `log_norm` for them. Both are empty for Gaussian states.
    heavy_tailed
        True for Student-t states, else None: a type that compiled code is chosen by.
    flat
        The memory of all arrays of floats, of which they are views.
    """

    startprob: np.ndarray
    transmat: np.ndarray
    means: np.ndarray
    covars: np.ndarray
    whiten: np.ndarray
    shift: np.ndarray
    log_norm: np.ndarray
    kind: np.ndarray
    df: np.ndarray
    log_tail: np.ndarray
    heavy_tailed: bool | None
    flat: np.ndarray


class Stats(NamedTuple):
    """Expected counts and moments about the centre of the data.

    Attributes
    ----------
    start
        Sequences that begin in the state, shape (K,).
    pairs
        Steps from state i to state j, shape (K, K).
    mass
        Observed rows in the state, shape (K,).
    weight
        The same with every row weighted by its expected precision, as in all further sums. The
        precisions of Gaussian states are one.
    first
        Sum of the observations in the state, shape (K, D).
    second
        Sum of their outer products, lower triangle (or diagonal alone), shape (K, D, D).
    log_tail
        Sum of ln q of Student-t states (see `densities`) without precisions, shape (K,).
    flat
        The memory of all arrays, of which they are views.
    """

    start: np.ndarray
    pairs: np.ndarray
    mass: np.ndarray
    weight: np.ndarray
    first: np.ndarray
    second: np.ndarray
    log_tail: np.ndarray
    flat: np.ndarray


class Prior(NamedTuple):
    """hmmlearn's prior parameters, broadcast to full shapes.

    Shapes: startprob (K,), transmat (K, K), means (K, D) relative to the centre, scatter (K, D, D),
    weights (2,): means_weight and covars_weight. `updated` (4,): whether EM updates startprob,
    transmat, means and covars.
    """

    startprob: np.ndarray
    transmat: np.ndarray
    means: np.ndarray
    scatter: np.ndarray
    weights: np.ndarray
    updated: np.ndarray


@kernel
def clear(stats):
    """Set everything to zero."""
    fill(stats.flat, 0.0)


@part
def update(model, stats, prior):
    """Replace the parameters by those that maximise the penalised expected log-likelihood."""
    if prior.updated[0]:
        _update_distribution(model.startprob, stats.start, prior.startprob)
    if prior.updated[1]:
        for k in range(model.startprob.size):
            _update_distribution(model.transmat[k], stats.pairs[k], prior.transmat[k])
    if prior.updated[2]:
        for k in range(model.startprob.size):
            _update_mean(model, stats, prior, k)
    if prior.updated[3] and model.kind[0] == TIED:
        _update_tied(model, stats, prior)
    elif prior.updated[3]:
        for k in range(model.startprob.size):
            if stats.mass[k] > NO_MASS:
                _update_covariance(model, stats, prior, k)
    return 0.0


@inlined
def _update_mean(model, stats, prior, k):
    """Mean of one state, unchanged without rows."""
    if stats.mass[k] > NO_MASS:
        v = prior.weights[0]
        for d in range(model.means.shape[1]):
            total = v * prior.means[k, d] + stats.first[k, d]
            model.means[k, d] = total / (v + stats.weight[k])


@kernel
def _update_distribution(probs, counts, dirichlet):
    """Normalised counts; zeros stay zero, and a negligible total changes nothing."""
    total = 0.0
    for j in range(probs.size):
        if probs[j] > 0.0:
            total += max(dirichlet[j] - 1.0 + counts[j], 0.0)
    if total < NO_MASS:
        return
    for j in range(probs.size):
        if probs[j] > 0.0:
            probs[j] = max(dirichlet[j] - 1.0 + counts[j], 0.0) / total


@kernel
def _scatter(model, stats, prior, k, i, j):
    """Weighted outer product of deviations from the new mean, plus the prior of the mean."""
    mean_i, mean_j = model.means[k, i], model.means[k, j]
    away = (mean_i - prior.means[k, i]) * (mean_j - prior.means[k, j])
    return (
        prior.weights[0] * away
        + stats.second[k, i, j]
        - stats.first[k, i] * mean_j
        - stats.first[k, j] * mean_i
        + mean_i * mean_j * stats.weight[k]
    )


@inlined
def _update_covariance(model, stats, prior, k):
    """Covariance of one state, any type but "tied"."""
    D = model.means.shape[1]
    kind = model.kind[0]
    if kind == FULL:
        divisor = max(prior.weights[1] - D, 0.0) + stats.mass[k]
    else:
        divisor = max(max(prior.weights[1] - 1.0, 0.0) + stats.mass[k], _SMALLEST_DIVISOR)
    for i in range(D):
        for j in range(i + 1 if kind == FULL else 0):
            value = (prior.scatter[k, i, j] + _scatter(model, stats, prior, k, i, j)) / divisor
            model.covars[k, i, j] = value
            model.covars[k, j, i] = value
        if kind != FULL:
            value = (prior.scatter[k, i, i] + _scatter(model, stats, prior, k, i, i)) / divisor
            model.covars[k, i, i] = value
    if kind == SPHERICAL:
        mean = 0.0
        for i in range(D):
            mean += model.covars[k, i, i] / D
        for i in range(D):
            model.covars[k, i, i] = mean


@inlined
def _update_tied(model, stats, prior):
    """The common covariance, written to every state."""
    K, D = model.means.shape
    divisor = max(prior.weights[1] - D, 0.0)
    for k in range(K):
        divisor += stats.mass[k]
    for i in range(D):
        for j in range(i + 1):
            total = prior.scatter[0, i, j]
            for k in range(K):
                if stats.mass[k] > NO_MASS:
                    total += _scatter(model, stats, prior, k, i, j)
            for k in range(K):
                model.covars[k, i, j] = total / divisor
                model.covars[k, j, i] = total / divisor


@part
def whiten(model, floor, hits):
    """Raise the covariances to the floor, mark raised features in `hits` (K, D), and factor them.

    The floor (D,) bounds the variance of every feature given the features before it (for "diag"
    and "spherical": its variance). A smaller pivot of the Cholesky factorisation is raised through
    its diagonal element, so the result is always positive definite.
    """
    K, D = model.means.shape
    full = model.kind[0] >= TIED
    for k in range(K):
        lower = model.whiten[k]
        log_det = 0.0
        for i in range(D):
            for j in range(i if full else 0):
                rest = model.covars[k, i, j]
                for m in range(j):
                    rest -= lower[i, m] * lower[j, m]
                lower[i, j] = rest / lower[j, j]
            pivot = model.covars[k, i, i]
            for j in range(i if full else 0):
                pivot -= lower[i, j] * lower[i, j]
            rounding = _ROUNDING * model.covars[k, i, i]
            least = max(floor[i], rounding)
            hits[k, i] = not pivot >= least + rounding  # at the floor, it differs by rounding alone
            if hits[k, i]:
                model.covars[k, i, i] += least - pivot
                pivot = least
            lower[i, i] = math.sqrt(pivot)
            log_det += math.log(pivot)
        _invert_lower(lower)
        for i in range(D):
            model.shift[k, i] = 0.0
            for j in range(i + 1):
                model.shift[k, i] += lower[i, j] * model.means[k, j]
        model.log_norm[k] = -0.5 * (D * math.log(2.0 * math.pi) + log_det)
    return 0.0


@inlined
def _invert_lower(lower):
    """Invert a lower triangular matrix in place, row by row from the last column back."""
    D = lower.shape[0]
    for i in range(D):
        lower[i, i] = 1.0 / lower[i, i]
        for j in range(i):
            total = 0.0
            for m in range(j, i):
                total += lower[i, m] * lower[m, j]
            lower[i, j] = -total * lower[i, i]


@part
def log_prior(model, prior):
    """The terms that EM adds to the log-likelihood (see the module docstring), in nats."""
    K, D = model.means.shape
    kind = model.kind[0]
    total = 0.0
    for k in range(K):
        total += _log_dirichlet(model.transmat[k], prior.transmat[k])
        total += _log_dirichlet(model.startprob, prior.startprob) / K
        if prior.weights[0] > 0.0:
            total -= 0.5 * prior.weights[0] * _distance(model, prior, k)
    w = covariance_weight(model, prior)
    for k in range(1 if kind == TIED else K):
        log_det = -2.0 * model.log_norm[k] - D * math.log(2.0 * math.pi)
        total -= 0.5 * (w * log_det + _trace(model.whiten[k], prior.scatter[k]))
    return total


@kernel
def covariance_weight(model, prior):
    """w of the module docstring."""
    D = model.means.shape[1]
    return max(prior.weights[1] - (D if model.kind[0] >= TIED else 1.0), 0.0)


@kernel
def pull(model, prior, k):
    """tr(S_k^-1 P) + v (m_k - m0)' S_k^-1 (m_k - m0)."""
    distance = prior.weights[0] * _distance(model, prior, k)
    return distance + _trace(model.whiten[k], prior.scatter[k])


@kernel
def _log_dirichlet(probs, dirichlet):
    total = 0.0
    for j in range(probs.size):
        if dirichlet[j] != 1.0 and probs[j] > 0.0:
            total += (dirichlet[j] - 1.0) * math.log(probs[j])
    return total


@kernel
def _distance(model, prior, k):
    """Squared Mahalanobis distance of the mean from its prior mean."""
    total = 0.0
    for i in range(model.means.shape[1]):
        z = 0.0
        for j in range(i + 1):
            z += model.whiten[k, i, j] * (model.means[k, j] - prior.means[k, j])
        total += z * z
    return total


@kernel
def _trace(lower, scatter):
    """tr(W' W P) for the whitening matrix W of a state."""
    total = 0.0
    for r in range(lower.shape[0]):
        for i in range(r + 1):
            for j in range(r + 1):
                total += lower[r, i] * lower[r, j] * scatter[i, j]
    return total
