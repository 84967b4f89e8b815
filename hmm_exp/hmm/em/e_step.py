"""The E step, vectorised over eight stretches of the series.

Filter and smoother are chains: row t depends on row t - 1, so their arithmetic uses one SIMD lane
only. Therefore the series is cut into 8 stretches (see `rows`), one per lane, that are processed
together. The recursions are those of `e_step_log`, in plain probabilities:

    f_t(j) = b_j(x_t) sum_i f_t-1(i) A_ij / |f_t-1|,     log-likelihood = sum_t ln |f_t|,

with b the density over the row's largest, whose logarithm is added separately; and backward

    r_j = g_t+1(j) / p_t+1(j),   g_t(i) = f_t(i) / |f_t| sum_j A_ij r_j,   pairs: f_t(i) A_ij r_j.

*Start of a lane.* A lane starts with the result of the lane before it, which is not known yet. The
kernel guesses it by filtering the last `warm_up` rows of the lane before from equal probabilities,
as the chain forgets its start. Then it checks the guess: every lane's end must agree with the next
lane's guess to 1e-12 of every single probability. A step of the recursion never enlarges such a
relative error (positive maps do not expand in Hilbert's metric: Birkhoff 1957), and the first lane
starts with a known row, so agreement proves all lanes right to about 1e-12. Without agreement the
ends become the new guesses and the sweep is repeated; after p sweeps the first p lanes are exact,
so 8 sweeps suffice for any model. A warm-up that was too short doubles. The backward pass works the
same way (each step is a Markov kernel, so errors do not grow).

*Underflow.* Every f below 1e-290 is raised to that value. This only adds paths, so the sum of the
smoothed probabilities of all raised f is an upper bound of the share of the added paths in the
likelihood and in every expected count. If the sum exceeds 1e-60, the caller uses `e_step_log`.
Zeros in the transition matrix and far observations are thus harmless unless a lost path is needed.

The bits depend on the number of rows, so this E step is for training only.
"""

import math
from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import inlined, kernel, part
from hmm_exp.hmm.em.densities import BLOCK, log_densities, weigh
from hmm_exp.hmm.em.rows import FILLING, FIRST, MISSING, aligned_zeros
from hmm_exp.hmm.em.update import clear
from hmm_exp.hmm.loops import copy
from hmm_exp.hmm.simd import (
    LANES,
    exp,
    exponent,
    fma,
    lane_sum,
    largest,
    load,
    mantissa,
    splat,
    store,
    to_next,
    to_previous,
    where_equal,
)

_LEAST = 1e-290  # lower bound of f
MOST_RAISED = 1e-60  # total smoothed probability of all raised f
_AGREE = 1e-12  # of a probability
_SLACK = 1e-70  # additional absolute difference of smoothed probabilities
_FIRST_WARM_UP = 32


class Scratch(NamedTuple):
    """Memory of the E step, in vectors of 8 lanes unless a shape is given.

    Attributes
    ----------
    density
        BLOCK * K: densities over the row's largest.
    posterior
        BLOCK * K2: smoothed probabilities, K2 being K rounded up to even.
    monomials
        BLOCK * F2: 1, x_i and x_i x_j of every step (zeros where missing), F of them, rounded up.
    factors
        Indices i and j of the products among the monomials, int64 of shape (F - 1 - D, 2).
    moments
        K2 * F2: sums of posterior times monomial, for Student-t states also times the precision.
    tails
        2 * K: sums of posterior and of posterior times ln q, for Student-t states.
    pairs
        K * K: sums of f_t(i) / |f_t| r_j.
    smoothed
        K: smoothed probabilities of the step after the current one.
    guess
        K: initial value of `smoothed`.
    ratio
        K: r of the current step.
    flags
        2: 1.0 where the row is FIRST, and where it is MISSING.
    warm_up
        Rows of warm-up, forward and backward, int64 of shape (2,); kept between E steps.
    """

    density: np.ndarray
    posterior: np.ndarray
    monomials: np.ndarray
    factors: np.ndarray
    moments: np.ndarray
    tails: np.ndarray
    pairs: np.ndarray
    smoothed: np.ndarray
    guess: np.ndarray
    ratio: np.ndarray
    flags: np.ndarray
    warm_up: np.ndarray


def make_scratch(n_states: int, n_features: int, full: bool) -> Scratch:
    """Allocate memory for models of K states and D features, with or without covariances."""
    K, D = n_states, n_features
    factors = [(i, j) for i in range(D) for j in range(i + 1) if full or i == j]
    even_states = K + K % 2
    n_monomials = 1 + D + len(factors)
    n_monomials += n_monomials % 2
    return Scratch(
        density=aligned_zeros(BLOCK * K),
        posterior=aligned_zeros(BLOCK * even_states),
        monomials=aligned_zeros(BLOCK * n_monomials),
        factors=np.array(factors),
        moments=aligned_zeros(even_states * n_monomials),
        tails=aligned_zeros(2 * K),
        pairs=aligned_zeros(K * K),
        smoothed=aligned_zeros(K),
        guess=aligned_zeros(K),
        ratio=aligned_zeros(K),
        flags=aligned_zeros(2),
        warm_up=np.full(2, _FIRST_WARM_UP),
    )


@part
def filter(rows, model, forward, work):
    """Sweep forward until every lane starts where the one before it ended.

    Returns the log-likelihood in nats. `forward` stores f, shape ((n + 1) * K, LANES): step s at
    s + 1, the rows before the lanes at 0.
    """
    K = model.startprob.size
    n = rows.code.shape[0] - 1
    warm_up = min(work.warm_up[0], n)
    before, last = forward[:K], forward[n * K :]
    for k in range(K):
        store(forward, (n - warm_up) * K + k, splat(1.0 / K))
    log_lik = 0.0
    for sweep in range(-1, LANES):  # the first is the warm-up
        log_lik = _forward(rows, model, forward, work, n - warm_up if sweep < 0 else 0, n)
        if sweep >= 0 and _agree(before, last, 0.0):
            break
        if sweep >= 0:
            work.warm_up[0] = min(2 * warm_up, n)
        for k in range(K):  # lane 0 starts a sequence: any guess will do
            store(before, k, to_next(load(last, k), 1.0 / K))
    return log_lik + math.log(_total(last, LANES - 1))


@kernel
def _total(values, lane):
    """Sum of one lane over the states."""
    total = 0.0
    for k in range(values.shape[0]):
        total += values[k, lane]
    return total


@kernel
def _agree(early, late, slack):
    """Whether each lane of `early` but the first is the lane before it of `late`, normalised."""
    for lane in range(LANES - 1):
        p_total, q_total = _total(early, lane + 1), _total(late, lane)
        for k in range(early.shape[0]):
            p, q = early[k, lane + 1] / p_total, late[k, lane] / q_total
            if not abs(p - q) <= _AGREE * q + slack:
                return False
    return True


@inlined
def _forward(rows, model, forward, work, begin, end):
    """Filter the steps begin..end of all lanes, starting from the step stored before them.

    Returns the log-likelihood, with |f| of the row before the first instead of that of the last.
    """
    K = model.startprob.size
    transmat = model.transmat
    density = work.density
    log_lik, powers = splat(0.0), splat(0.0)
    product, first = splat(1.0), splat(0.0)
    for block in range(begin, end, BLOCK):
        block_end = min(block + BLOCK, end)
        log_lik = log_lik + _densities(rows, model, work, block, block_end)
        for s in range(block, block_end):
            special = rows.special[s]
            if special:
                _flag(rows, work, s)
                first = load(work.flags, 0)
            total = load(forward, s * K)
            for i in range(1, K):
                total = total + load(forward, s * K + i)
            inverse = 1.0 / total
            for j in range(K):
                ahead = load(forward, s * K) * transmat[0, j]
                for i in range(1, K):
                    ahead = fma(load(forward, s * K + i), transmat[i, j], ahead)
                ahead = ahead * inverse
                if special:
                    ahead = fma(first, model.startprob[j], (1.0 - first) * ahead)
                f = largest(ahead * load(density, (s - block) * K + j), _LEAST)
                store(forward, (s + 1) * K + j, f)
            product = product * total
            powers = powers + exponent(product)
            product = mantissa(product)
    store(work.flags, 0, product)
    total = lane_sum(fma(powers, math.log(2.0), log_lik))
    for lane in range(LANES):
        total += math.log(work.flags[0, lane])
    return total


@kernel
def _flag(rows, work, s):
    """Expand the codes of a step to 0.0 and 1.0."""
    for lane in range(LANES):
        code = rows.code[s, lane]
        work.flags[0, lane] = 1.0 if code & FIRST else 0.0
        work.flags[1, lane] = 1.0 if code & MISSING else 0.0


@inlined
def _densities(rows, model, work, begin, end):
    """Scale the densities of a block by each row's largest; return the sum of the largest logs."""
    K = model.startprob.size
    density = work.density
    offset = splat(0.0)
    log_densities(rows.x, model, density, begin, end)
    for s in range(begin, end):
        top = load(density, (s - begin) * K)
        for k in range((s - begin) * K + 1, (s - begin + 1) * K):
            top = largest(top, load(density, k))
        for k in range((s - begin) * K, (s - begin + 1) * K):
            store(density, k, exp(load(density, k) - top))
        if rows.special[s]:
            _flag(rows, work, s)
            missing = load(work.flags, 1)
            top = top * (1.0 - missing)
            for k in range((s - begin) * K, (s - begin + 1) * K):
                store(density, k, fma(load(density, k), 1.0 - missing, missing))
        offset = offset + top
    return offset


@part
def smooth(rows, model, forward, work, stats):
    """Sweep backward until every lane ends where the one after it starts; fill `stats`.

    Returns the total smoothed probability of all raised f: above `MOST_RAISED` neither `stats` nor
    the log-likelihood are accurate.
    """
    K = model.startprob.size
    n = rows.code.shape[0] - 1
    warm_up = min(work.warm_up[1], n)
    raised = 0.0
    for sweep in range(-1, LANES):  # the first is the warm-up
        end = warm_up if sweep < 0 else n
        raised = _backward(rows, model, forward, work, stats, end, sweep < 0)
        if sweep >= 0 and _agree(work.smoothed, work.guess, _SLACK):
            break
        if sweep >= 0:
            work.warm_up[1] = min(2 * warm_up, n)
        for k in range(K):  # nothing follows the last row
            guess = to_previous(load(work.smoothed, k), 1.0 / K)
            store(work.guess, k, guess)
            store(work.smoothed, k, guess)
    _collect(model, work, stats)
    return raised


@inlined
def _backward(rows, model, forward, work, stats, end, warming):
    """Smooth the steps end..0 of all lanes from `work.smoothed`; sum counts unless warming up.

    When warming up, the last step uses its filtered probabilities as smoothed ones.
    """
    K = model.startprob.size
    transmat = model.transmat
    smoothed, ratio = work.smoothed, work.ratio
    even_states = work.posterior.shape[0] // BLOCK
    first, raised = splat(0.0), splat(0.0)
    if not warming:
        _zero(work.moments)
        _zero(work.tails)
        _zero(work.pairs)
        clear(stats)
    for block_end in range(end, 0, -BLOCK):
        block = max(block_end - BLOCK, 0)
        for s in range(block_end - 1, block - 1, -1):
            now = (s + 1) * K
            total = load(forward, now)
            for i in range(1, K):
                total = total + load(forward, now + i)
            inverse = 1.0 / total
            special = rows.special[s + 1]
            if special:
                _flag(rows, work, s + 1)
                first = load(work.flags, 0)
            if warming and s == end - 1:
                special = True
                first = splat(1.0)
            for j in range(K):
                ahead = load(forward, now) * transmat[0, j]
                for i in range(1, K):
                    ahead = fma(load(forward, now + i), transmat[i, j], ahead)
                r = load(smoothed, j) / largest(ahead * inverse, _LEAST)
                store(ratio, j, r * (1.0 - first) if special else r)
            for i in range(K):
                behind = load(ratio, 0) * transmat[i, 0]
                for j in range(1, K):
                    behind = fma(load(ratio, j), transmat[i, j], behind)
                if special:
                    behind = behind + first
                f = load(forward, now + i)
                filtered = f * inverse
                g = filtered * behind
                raised = raised + where_equal(f, _LEAST, g)
                store(smoothed, i, g)
                if not warming:
                    store(work.posterior, (s - block) * even_states + i, g)
                    for j in range(K):
                        pair = fma(filtered, load(ratio, j), load(work.pairs, i * K + j))
                        store(work.pairs, i * K + j, pair)
            if not warming and rows.special[s]:
                _add_starts(rows, work, stats, s)
        if not warming:
            _add_moments(rows, model, work, block, block_end)
    return lane_sum(raised)


@inlined
def _add_starts(rows, work, stats, s):
    """Count the initial states of the sequences that start at this step."""
    for lane in range(LANES):
        if rows.code[s, lane] & (FIRST | FILLING) == FIRST:
            for k in range(stats.start.size):
                stats.start[k] += work.smoothed[k, lane]


@kernel
def _zero(array):
    for row in range(array.shape[0]):
        store(array, row, splat(0.0))


@inlined
def _add_moments(rows, model, work, begin, end):
    """moments += posterior' monomials over a block, two states by two monomials at a time."""
    even_states = work.posterior.shape[0] // BLOCK
    width = work.monomials.shape[0] // BLOCK
    posterior, monomials, moments = work.posterior, work.monomials, work.moments
    _monomials(rows, work, begin, end)
    weigh(rows.x, model, work, begin, end)
    for k in range(0, even_states, 2):
        for f in range(0, width, 2):
            a, b = k * width + f, (k + 1) * width + f
            m00, m01 = load(moments, a), load(moments, a + 1)
            m10, m11 = load(moments, b), load(moments, b + 1)
            for s in range(end - begin):
                g0 = load(posterior, s * even_states + k)
                g1 = load(posterior, s * even_states + k + 1)
                q0 = load(monomials, s * width + f)
                q1 = load(monomials, s * width + f + 1)
                m00, m01 = fma(g0, q0, m00), fma(g0, q1, m01)
                m10, m11 = fma(g1, q0, m10), fma(g1, q1, m11)
            store(moments, a, m00)
            store(moments, a + 1, m01)
            store(moments, b, m10)
            store(moments, b + 1, m11)


@inlined
def _monomials(rows, work, begin, end):
    """1, x_i and x_i x_j of the steps of a block, zeros where missing."""
    D = rows.centre.size
    width = work.monomials.shape[0] // BLOCK
    for s in range(begin, end):
        place = (s - begin) * width
        one = splat(1.0)
        if rows.special[s]:
            _flag(rows, work, s)
            one = one - load(work.flags, 1)
        store(work.monomials, place, one)
        for i in range(D):
            store(work.monomials, place + 1 + i, load(rows.x, s * D + i))
        for f in range(work.factors.shape[0]):
            i, j = work.factors[f, 0], work.factors[f, 1]
            product = load(rows.x, s * D + i) * load(rows.x, s * D + j)
            store(work.monomials, place + 1 + D + f, product)


@inlined
def _collect(model, work, stats):
    """Sum over the lanes."""
    K, D = model.means.shape
    width = work.monomials.shape[0] // BLOCK
    for k in range(K):
        for j in range(K):
            stats.pairs[k, j] = model.transmat[k, j] * lane_sum(load(work.pairs, k * K + j))
        stats.weight[k] = lane_sum(load(work.moments, k * width))
        for i in range(D):
            stats.first[k, i] = lane_sum(load(work.moments, k * width + 1 + i))
        for f in range(work.factors.shape[0]):
            i, j = work.factors[f, 0], work.factors[f, 1]
            stats.second[k, i, j] = lane_sum(load(work.moments, k * width + 1 + D + f))
    copy(stats.weight, stats.mass)
    for k in range(model.df.size):
        stats.mass[k] = lane_sum(load(work.tails, 2 * k))
        stats.log_tail[k] = lane_sum(load(work.tails, 2 * k + 1))
