"""The E step, vectorised over eight stretches of the series.

Filter and smoother are chains: row t depends on row t - 1, so their arithmetic uses one SIMD lane
only. Therefore the series is cut into 8 stretches (see `rows`), one per lane, that are processed
together. The recursions are those of `e_step_log`, in plain probabilities:

    f_t(j) = b_j(x_t) sum_i f_t-1(i) A_ij / |f_t-1|,     log-likelihood = sum_t ln |f_t|,

with b the density over the row's largest, whose logarithm is added separately; and backward

    r_j = g_t+1(j) / sum_i f_t(i) A_ij,   g_t(i) = f_t(i) sum_j A_ij r_j,   pairs: f_t(i) A_ij r_j,

in which |f_t| cancels. After the last row of a sequence g = f / |f|.

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
likelihood and in every expected count. A divisor of r below 1e-300 is raised too, and its g
counts. If the sum exceeds 1e-60, the caller uses `e_step_log`. Zeros in the transition matrix and
far observations are thus harmless unless a lost path is needed.

The bits depend on the number of rows, so this E step is for training only.
"""

import math
from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import inlined, kernel, part
from hmm_exp.hmm.em.densities import BLOCK, log_densities, weigh
from hmm_exp.hmm.em.rows import FILLING, FIRST, MISSING
from hmm_exp.hmm.em.update import clear
from hmm_exp.hmm.loops import copy
from hmm_exp.hmm.simd import (
    LANES,
    aligned_zeros,
    exponent,
    fma,
    lane_sum,
    largest,
    load,
    mantissa,
    quick_exp,
    splat,
    store,
    to_next,
    to_previous,
    where_equal,
)

_LEAST = 1e-290  # lower bound of f
_LEAST_AHEAD = 1e-300  # lower bound of the sum over i of f(i) A_ij
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
        K2 * K2: sums of f_t(i) r_j.
    smoothed
        K: smoothed probabilities of the step after the current one.
    guess
        K: initial value of `smoothed`.
    ratio
        BLOCK * K2: r of every step, zeros where K2 is more than K.
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
        pairs=aligned_zeros(even_states**2),
        smoothed=aligned_zeros(K),
        guess=aligned_zeros(K),
        ratio=aligned_zeros(BLOCK * even_states),
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
    special, code, x = rows.special, rows.code, rows.x
    startprob, transmat = model.startprob, model.transmat
    density, flags = work.density, work.flags
    log_lik, powers = splat(0.0), splat(0.0)
    product, first = splat(1.0), splat(0.0)
    for block in range(begin, end, BLOCK):
        block_end = min(block + BLOCK, end)
        log_densities(x, model, density, block, block_end)
        log_lik = log_lik + _scale_densities(special, code, density, flags, K, block, block_end)
        for s in range(block, block_end):
            is_special = special[s]
            if is_special:
                _flag(code, s, flags)
                first = load(flags, 0)
            total = load(forward, s * K)
            for i in range(1, K):
                total = total + load(forward, s * K + i)
            inverse = 1.0 / total
            for j in range(K):
                ahead = load(forward, s * K) * transmat[0, j]
                for i in range(1, K):
                    ahead = fma(load(forward, s * K + i), transmat[i, j], ahead)
                ahead = ahead * inverse
                if is_special:
                    ahead = fma(first, startprob[j], (1.0 - first) * ahead)
                f = largest(ahead * load(density, (s - block) * K + j), _LEAST)
                store(forward, (s + 1) * K + j, f)
            product = product * total
            powers = powers + exponent(product)
            product = mantissa(product)
    store(flags, 0, product)
    total = lane_sum(fma(powers, math.log(2.0), log_lik))
    for lane in range(LANES):
        total += math.log(flags[0, lane])
    return total


@kernel
def _flag(code, s, flags):
    """Expand the codes of a step to 0.0 and 1.0."""
    for lane in range(LANES):
        flags[0, lane] = 1.0 if code[s, lane] & FIRST else 0.0
        flags[1, lane] = 1.0 if code[s, lane] & MISSING else 0.0


@kernel
def _scale_densities(special, code, density, flags, K, begin, end):
    """Scale the densities of a block by each row's largest; return the sum of the largest logs."""
    offset = splat(0.0)
    for s in range(begin, end):
        top = load(density, (s - begin) * K)
        for k in range((s - begin) * K + 1, (s - begin + 1) * K):
            top = largest(top, load(density, k))
        for k in range((s - begin) * K, (s - begin + 1) * K):
            store(density, k, quick_exp(load(density, k) - top))
        if special[s]:
            _flag(code, s, flags)
            missing = load(flags, 1)
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
    special, code, transmat = rows.special, rows.code, model.transmat
    smoothed, posterior, flags, start = work.smoothed, work.posterior, work.flags, stats.start
    ratio, pairs = work.ratio, work.pairs
    x, factors, monomials, moments = rows.x, work.factors, work.monomials, work.moments
    D = model.means.shape[1]
    even_states = posterior.shape[0] // BLOCK
    first, alone, raised = splat(0.0), splat(0.0), splat(0.0)
    if not warming:
        _zero(moments)
        _zero(work.tails)
        _zero(pairs)
        clear(stats)
    for block_end in range(end, 0, -BLOCK):
        block = max(block_end - BLOCK, 0)
        for s in range(block_end - 1, block - 1, -1):
            now = (s + 1) * K
            here = (s - block) * even_states
            is_special = special[s + 1]
            if is_special:
                _flag(code, s + 1, flags)
                first = load(flags, 0)
            if warming and s == end - 1:
                is_special = True
                first = splat(1.0)
            for j in range(K):
                ahead = load(forward, now) * transmat[0, j]
                for i in range(1, K):
                    ahead = fma(load(forward, now + i), transmat[i, j], ahead)
                ahead = largest(ahead, _LEAST_AHEAD)
                later = load(smoothed, j)
                if is_special:
                    later = later * (1.0 - first)
                raised = raised + where_equal(ahead, _LEAST_AHEAD, later)
                store(ratio, here + j, later / ahead)
            if is_special:
                total = load(forward, now)
                for i in range(1, K):
                    total = total + load(forward, now + i)
                alone = first / total
            for i in range(K):
                behind = load(ratio, here) * transmat[i, 0]
                for j in range(1, K):
                    behind = fma(load(ratio, here + j), transmat[i, j], behind)
                if is_special:
                    behind = behind + alone
                f = load(forward, now + i)
                g = f * behind
                raised = raised + where_equal(f, _LEAST, g)
                store(smoothed, i, g)
                store(posterior, here + i, g)
            if not warming and special[s]:
                _add_starts(code, s, smoothed, start)
        if not warming:
            _add_products(forward, (block + 1) * K, K, ratio, pairs, block_end - block)
            _monomials(x, special, code, flags, factors, D, monomials, block, block_end)
            weigh(x, model, work, block, block_end)
            _add_products(posterior, 0, even_states, monomials, moments, block_end - block)
    return lane_sum(raised)


@kernel
def _add_starts(code, s, smoothed, start):
    """Count the initial states of the sequences that start at this step."""
    for lane in range(LANES):
        if code[s, lane] & (FIRST | FILLING) == FIRST:
            for k in range(start.size):
                start[k] += smoothed[k, lane]


@kernel
def _add_products(left, first, height, right, sums, n):
    """sums += left' right over n steps, the last first, two by two columns at a time.

    The left side of step s is at `left[first + s * height]`, the right one at `right[s * width]`.
    """
    width = right.shape[0] // BLOCK
    for i in range(0, height, 2):
        other = min(i + 1, height - 1)
        for j in range(0, width, 2):
            a, b = i * width + j, (i + 1) * width + j
            m00, m01 = load(sums, a), load(sums, a + 1)
            m10, m11 = load(sums, b), load(sums, b + 1)
            for s in range(n - 1, -1, -1):
                row = first + s * height
                p0, p1 = load(left, row + i), load(left, row + other)
                q0, q1 = load(right, s * width + j), load(right, s * width + j + 1)
                m00, m01 = fma(p0, q0, m00), fma(p0, q1, m01)
                m10, m11 = fma(p1, q0, m10), fma(p1, q1, m11)
            store(sums, a, m00)
            store(sums, a + 1, m01)
            store(sums, b, m10)
            store(sums, b + 1, m11)


@kernel
def _zero(array):
    for row in range(array.shape[0]):
        store(array, row, splat(0.0))


@kernel
def _monomials(x, special, code, flags, factors, D, out, begin, end):
    """1, x_i and x_i x_j of the steps of a block, zeros where missing."""
    width = out.shape[0] // BLOCK
    n = end - begin
    for s in range(n):
        one = splat(1.0)
        if special[begin + s]:
            _flag(code, begin + s, flags)
            one = one - load(flags, 1)
        store(out, s * width, one)
    for i in range(D):
        for s in range(n):
            store(out, s * width + 1 + i, load(x, (begin + s) * D + i))
    for f in range(factors.shape[0]):
        i, j, place = factors[f, 0], factors[f, 1], 1 + D + f
        for s in range(n):
            row = (begin + s) * D
            store(out, s * width + place, load(x, row + i) * load(x, row + j))


@inlined
def _collect(model, work, stats):
    """Sum over the lanes."""
    K, D = model.means.shape
    width = work.monomials.shape[0] // BLOCK
    even_states = work.posterior.shape[0] // BLOCK
    for k in range(K):
        for j in range(K):
            pairs = lane_sum(load(work.pairs, k * even_states + j))
            stats.pairs[k, j] = model.transmat[k, j] * pairs
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
