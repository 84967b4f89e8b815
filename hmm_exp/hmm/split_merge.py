"""Starts made from a solution with fewer or more states.

A solution with one state fewer, one of whose states is split, begins at about its likelihood, so
that more states seldom fit worse than fewer (Ueda et al. 2000 split and merge for mixtures).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.health import bhattacharyya
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.starts import StartingPoint, shape_covars

N_SPLITS = 3  # states of a solution that are split in turn, the busiest first
APART = 0.4  # variances of the halves of a split state are 1 -+ this times its own

_SOFT = 1e-4  # weight of even probabilities mixed into a transition matrix
_STAY = 0.95  # of the chain's stay in the state, now within each half


def starts_from(
    solutions: GaussianParams | Sequence[GaussianParams] | None,
    n_states: int,
    apart: float = APART,
) -> list[StartingPoint]:
    """Starting points of `n_states` states made from earlier solutions.

    One with as many states is taken as it is ("given"). With fewer, its busiest states are split in
    turn, one start for each ("split"); with more, its nearest states are merged ("merged"). None
    keeps the probabilities that are zero, as EM could never change them.
    """
    if solutions is None:
        return []
    if isinstance(solutions, GaussianParams):
        solutions = [solutions]
    points = []
    for params in solutions:
        if params.n_states < n_states:
            splits = _all_splits(params, n_states, apart)
            points += [StartingPoint("split", _softened(larger)) for larger in splits]
            continue
        kind = "given" if params.n_states == n_states else "merged"
        while params.n_states > n_states:
            params = merge(params, *nearest_pair(params))
        points.append(StartingPoint(kind, _softened(params)))
    return points


def split(params: GaussianParams, k: int, apart: float = APART) -> GaussianParams:
    """State k as two, a calmer one in its place and a wilder one at the end.

    Their variances are 1 - apart and 1 + apart times its own; with "tied" covariances their means
    lie `apart` standard deviations to either side of its mean instead.
    """
    K = params.n_states
    origin = np.append(np.arange(K), k)
    startprob = params.startprob[origin]
    startprob[[k, K]] /= 2
    transmat = params.transmat[np.ix_(origin, origin)]
    transmat[:, [k, K]] /= 2
    stay = params.transmat[k, k]
    transmat[[k, K], [k, K]] = stay * _STAY
    transmat[[k, K], [K, k]] = stay * (1 - _STAY)
    means, covars = params.means[origin], params.covars
    if params.covariance_type == "tied":
        away = apart * np.sqrt(np.diagonal(covars))
        means[k], means[K] = means[k] - away, means[K] + away
    else:
        covars = covars[origin]
        covars[k], covars[K] = covars[k] * (1 - apart), covars[K] * (1 + apart)
    return replace(params, startprob=startprob, transmat=transmat, means=means, covars=covars)


def merge(params: GaussianParams, i: int, j: int) -> GaussianParams:
    """States i and j as one with the moments of their mixture, in the place of i."""
    weight = occupancy(params)
    kept = np.delete(np.arange(params.n_states), j)
    share = weight[[i, j]] / max(weight[[i, j]].sum(), np.finfo(float).tiny)
    means, covars = params.means[kept], params.full_covars()
    place = int(np.searchsorted(kept, i))
    means[place] = share @ params.means[[i, j]]
    away = params.means[[i, j]] - means[place]
    covars[i] = np.einsum("k,kij->ij", share, covars[[i, j]] + away[:, :, None] * away[:, None, :])
    transmat = params.transmat.copy()
    transmat[i] = share @ params.transmat[[i, j]]
    transmat[:, i] += transmat[:, j]
    startprob = params.startprob.copy()
    startprob[i] += startprob[j]
    kind = params.covariance_type
    shaped = params.covars if kind == "tied" else shape_covars(covars[kept], kind)
    return GaussianParams(startprob[kept], transmat[np.ix_(kept, kept)], means, shaped, kind)


def nearest_pair(params: GaussianParams) -> tuple[int, int]:
    """The two states with the least Bhattacharyya distance, the lower first."""
    distance = bhattacharyya(params)
    distance[np.tril_indices(params.n_states)] = np.inf
    i, j = np.unravel_index(np.argmin(distance), distance.shape)
    return int(i), int(j)


def occupancy(params: GaussianParams) -> np.ndarray:
    """Share of time in every state in the long run, even when the chain has none, shape (K,)."""
    try:
        return params.stationary()
    except FitError:
        return np.full(params.n_states, 1.0 / params.n_states)


def _softened(params: GaussianParams) -> GaussianParams:
    """Even initial probabilities, and a trace of them in the transition matrix."""
    even = np.full(params.n_states, 1.0 / params.n_states)
    return replace(params, startprob=even, transmat=(1 - _SOFT) * params.transmat + _SOFT * even)


def _all_splits(params: GaussianParams, n_states: int, apart: float) -> list[GaussianParams]:
    """One solution per state that is split first, busiest first; the rest split the busiest."""
    busiest = np.argsort(-occupancy(params), kind="stable")[:N_SPLITS]
    grown = []
    for k in busiest:
        larger = split(params, int(k), apart)
        while larger.n_states < n_states:
            larger = split(larger, int(np.argmax(occupancy(larger))), apart)
        grown.append(larger)
    return grown
