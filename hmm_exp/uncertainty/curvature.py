r"""Scores of every row and the exact Hessian of a hidden Markov model's log-likelihood.

>>> slopes, hessian = differentiate(chain, emissions, free)
>>> slopes.sum(axis=0)  # the gradient, zero at a maximum

The parameters are logits of the transition rows, a_ij = exp(u_ij) / sum_l exp(u_il), and any
parameters of the state densities whose scores the caller gives. The initial distribution is fixed.

*Scores.* The score of row t is the derivative of ln p(x_t | x_1..t-1). The filter is differentiated
along with its recursion (Lystig & Hughes 2002, Journal of Computational and Graphical Statistics
11): with predicted p, filtered f, density b over its predicted mean c, and e = d ln b,

    dp_t = df_t-1 A + f_t-1 dA,   d ln c_t = sum_k (dp_tk b_tk / c_t + f_tk e_tk).

*Hessian.* The gradient is the expected complete-data score (Fisher's identity; Louis 1982, Journal
of the Royal Statistical Society B 44), a sum over smoothed probabilities and expected transitions.
Both are differentiated along with the backward recursion, without differences: eight directions at
a time, one per SIMD lane, at a cost of K^2 per row and direction.
"""

from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.hmm.simd import LANES, fma, load, splat, store
from hmm_exp.parallel import run_all


class Chain(NamedTuple):
    """A filtered chain whose rows are one step apart.

    Attributes
    ----------
    transmat
        Shape (K, K).
    filtered
        Filtered probabilities, shape (T, K).
    ratio
        p(x_t | k) / p(x_t | x_1..t-1), shape (T, K); 1 at a missing row.
    pairs
        Expected number of steps from state i to state j, shape (K, K).
    first
        Whether the row starts a sequence, shape (T,).
    """

    transmat: np.ndarray
    filtered: np.ndarray
    ratio: np.ndarray
    pairs: np.ndarray
    first: np.ndarray


class Emissions(NamedTuple):
    """Derivatives of the log densities with respect to Q parameters of each state.

    Attributes
    ----------
    slopes
        d ln p(x_t | k) by the parameters of state k, shape (K, Q, T); 0 at a missing row.
    curvature
        Second derivatives, summed over the rows by the smoothed probabilities, shape (K, Q, Q).
    """

    slopes: np.ndarray
    curvature: np.ndarray


def differentiate(
    chain: Chain, emissions: Emissions, free: np.ndarray, threads: int | None = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Score of every row and Hessian of the log-likelihood.

    Parameters
    ----------
    free
        Logits to differentiate by, as pairs (i, j), shape (F, 2).
    threads
        Most blocks of eight directions at a time; None takes all cores.

    Returns
    -------
    slopes
        Shape (T, F + K Q): the logits, then the parameters of the states in turn.
    hessian
        Shape (F + K Q, F + K Q), symmetric.
    """
    K, Q = emissions.slopes.shape[:2]
    emission = emissions.slopes.reshape(K * Q, -1)
    T, P = len(chain.filtered), len(free) + K * Q
    n_blocks = -(-P // LANES)
    turns = _turns(chain.transmat, free, n_blocks)

    def along(block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (T, LANES), and derivatives of pairs and moments, in eight directions."""
        own = np.arange(block * LANES, (block + 1) * LANES) - len(free)
        own[own >= K * Q] = -1
        turn = turns[block] if block * LANES < len(free) else turns[block][:0]
        scores, trail = np.empty((T, LANES)), np.empty((T * K, LANES))
        pairs, moments = np.zeros((K * K, LANES)), np.zeros((K * Q, LANES))
        _forward(chain, emission, own, turn, trail, scores)
        _backward(chain, emission, own, turn, trail, scores, pairs, moments)
        return scores[:, : P - block * LANES], pairs, moments

    slopes, pairs, moments = zip(*run_all(along, range(n_blocks), threads), strict=True)
    hessian = np.empty((P, P))
    hessian[:, : len(free)] = _logit_columns(chain, _by_direction(np.stack(pairs), P), turns, free)
    hessian[:, len(free) :] = _by_direction(np.stack(moments), P)
    own_state = np.arange(K * Q).reshape(K, Q) + len(free)
    for k, places in enumerate(own_state):
        hessian[np.ix_(places, places)] += emissions.curvature[k]
    return np.concatenate(slopes, axis=1), (hessian + hessian.T) / 2


def _turns(transmat: np.ndarray, free: np.ndarray, n_blocks: int) -> np.ndarray:
    """Derivatives of the transition matrix in every direction, (n_blocks, K * K, LANES)."""
    K = len(transmat)
    turns = np.zeros((n_blocks * LANES, K, K))
    for direction, (i, j) in enumerate(free):
        turns[direction, i] = transmat[i, j] * ((np.arange(K) == j) - transmat[i])
    return np.ascontiguousarray(turns.reshape(n_blocks, LANES, K * K).swapaxes(1, 2))


def _by_direction(blocks: np.ndarray, n_directions: int) -> np.ndarray:
    """Results (n_blocks, N, LANES) as one row per direction, (n_directions, N)."""
    return blocks.swapaxes(1, 2).reshape(-1, blocks.shape[1])[:n_directions]


def _logit_columns(
    chain: Chain, changes: np.ndarray, turns: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """Derivatives of the gradient by the free logits, pairs_ij - a_ij sum_l pairs_il, (P, F)."""
    K, P = len(chain.transmat), len(changes)
    turned = _by_direction(turns, P).reshape(P, K, K)
    weight = np.divide(chain.pairs, chain.transmat, out=np.zeros((K, K)), where=chain.transmat > 0)
    expected = chain.transmat * changes.reshape(P, K, K) + turned * weight
    leaving = expected.sum(axis=2, keepdims=True)
    total = chain.pairs.sum(axis=1, keepdims=True)
    columns = expected - turned * total - chain.transmat * leaving
    return columns[:, free[:, 0], free[:, 1]]


@entry
def _forward(chain, emission, own, turn, trail, scores):
    """Differentiate the filter in eight directions.

    `emission` holds the slopes, (K * Q, T); `own` (LANES,) the place of each lane's parameter in
    it, -1 for none; `turn` (K * K, LANES) the derivative of the transition matrix, or nothing.
    Writes the derivatives of the filtered probabilities into `trail` (T * K, LANES) and of ln c
    into `scores` (T, LANES).
    """
    T, K = chain.filtered.shape
    Q = len(emission) // K
    slope = np.zeros((K, LANES))
    before = np.zeros((K, LANES))
    for t in range(T):
        _own_slopes(emission, t, own, Q, slope)
        total = splat(0.0)
        for j in range(K):
            ahead = splat(0.0)
            if not chain.first[t]:
                for i in range(K):
                    ahead = fma(load(before, i), chain.transmat[i, j], ahead)
                    if turn.shape[0] > 0:
                        ahead = fma(load(turn, i * K + j), chain.filtered[t - 1, i], ahead)
            rise = fma(load(slope, j), chain.filtered[t, j], ahead * chain.ratio[t, j])
            store(trail, t * K + j, rise)
            total = total + rise
        store(scores, t, total)
        for k in range(K):
            now = load(trail, t * K + k) - total * chain.filtered[t, k]
            store(trail, t * K + k, now)
            store(before, k, now)


@entry
def _backward(chain, emission, own, turn, trail, scores, pairs, moments):
    """Differentiate the backward recursion and with it the expected complete-data score.

    Adds the derivatives of the pairs, divided by the transition probabilities, to `pairs`
    (K * K, LANES), and those of the smoothed sums of emission slopes to `moments` (K * Q, LANES).
    """
    T, K = chain.filtered.shape
    Q = len(emission) // K
    slope = np.zeros((K, LANES))
    later, weight = np.empty(K), np.empty(K)
    change, rise = np.zeros((K, LANES)), np.empty((K, LANES))
    for t in range(T - 1, -1, -1):
        if t == T - 1 or chain.first[t + 1]:
            for k in range(K):
                later[k] = 1.0
                store(change, k, splat(0.0))
        for k in range(K):
            smoothed = load(trail, t * K + k) * later[k]
            smoothed = fma(load(change, k), chain.filtered[t, k], smoothed)
            for place in range(k * Q, (k + 1) * Q):
                store(moments, place, fma(smoothed, emission[place, t], load(moments, place)))
        if chain.first[t]:
            continue
        _own_slopes(emission, t, own, Q, slope)
        for j in range(K):
            weight[j] = chain.ratio[t, j] * later[j]
            upward = (load(slope, j) - load(scores, t)) * weight[j]
            store(rise, j, fma(load(change, j), chain.ratio[t, j], upward))
        for i in range(K):
            later[i] = 0.0
            total = splat(0.0)
            past, now = load(trail, (t - 1) * K + i), chain.filtered[t - 1, i]
            for j in range(K):
                place = i * K + j
                step = fma(load(rise, j), now, past * weight[j])
                store(pairs, place, load(pairs, place) + step)
                later[i] += chain.transmat[i, j] * weight[j]
                total = fma(load(rise, j), chain.transmat[i, j], total)
                if turn.shape[0] > 0:
                    total = fma(load(turn, place), weight[j], total)
            store(change, i, total)


@entry(inline="always")
def _own_slopes(emission, t, own, Q, out):
    """Write d ln p(x_t | k) of every lane's own parameter into `out` (K, LANES), else zero."""
    for lane in range(LANES):
        if own[lane] >= 0:
            out[own[lane] // Q, lane] = emission[own[lane], t]
