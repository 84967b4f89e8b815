"""The E step, vectorised over eight stretches of the series.

Filter and smoother are chains: row t depends on row t - 1, so their arithmetic uses one SIMD lane
only. Therefore the series is cut into 8 stretches (see `rows`), one per lane, that are processed
together. The recursions are those of `e_step_log`, in plain probabilities:

    f_t(j) = b_j(x_t) sum_i f_t-1(i) A_ij / 2^e_t-1,     log-likelihood = sum_t e_t ln 2 + ln |f_T|,

with e_t the exponent of |f_t| as a float, which is scaled away without a division, and b the
density over the row's largest, whose logarithm is added separately; and backward

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

*Underflow.* 1e-290 is added to every f (times the mantissa of the |f| before it, so that relative
to |f| it does not depend on the start of a lane). This only adds paths, so the sum of the smoothed
probabilities of all f below 1e-265 bounds their share in the likelihood and in every expected
count; a larger f owes less than 1e-24 to it. 1e-300 is added to a divisor of r too, and its g
counts where the divisor is below 1e-275. If the sum exceeds 1e-60, the caller uses `e_step_log`.
Zeros in the transition matrix and far observations are thus harmless unless a lost path is needed.
With such summands no product is subnormal either: those take a hundred times as long.

*Memory.* Of a long series only the f of a segment are kept (see `scratch`). The backward sweep
filters every segment once more from its checkpoint, with the same bits.

The bits depend on the number of rows, so this E step is for training only.
"""

import math

from hmm_exp.compiling import call, inlined, kernel, part
from hmm_exp.hmm.em.blocks import (
    AHEAD,
    BLOCK,
    ZERO,
    add_products,
    add_squares,
    predict,
    set_columns,
    store_four,
)
from hmm_exp.hmm.em.densities import log_densities, weigh
from hmm_exp.hmm.em.update import TIED, clear
from hmm_exp.hmm.loops import copy
from hmm_exp.hmm.simd import (
    LANES,
    exponent,
    fma,
    has_bit,
    inverse_power,
    lane_sum,
    largest,
    load,
    quick_exp,
    splat,
    spread,
    store,
    to_next,
    to_previous,
    where_below,
)

_LEAST = 1e-290  # added to f, in units of the mantissa of the |f| before it
_RAISED = 1e-265  # f below it may owe a noticeable part to what is added
_LEAST_AHEAD = 1e-300  # added to the sum over i of f(i) A_ij
_RAISED_AHEAD = 1e275  # inverse of the largest such sum that counts as raised
_TINY = 1e-280  # added to smoothed probabilities
MOST_RAISED = 1e-60  # total smoothed probability of all raised f and divisors
_AGREE = 1e-12  # of a probability
_SLACK = 1e-70  # additional absolute difference of smoothed probabilities


@kernel
def _length(forward, K):
    """Steps of a segment."""
    return forward.shape[0] // K - 1 - AHEAD


@part
def filter(only, rows, model, forward, work):
    """Sweep forward until every lane starts where the one before it ended.

    Returns the log-likelihood in nats. If `only` is no negative number, filters that segment once
    more from its checkpoint and returns nothing of use.
    """
    K = model.startprob.size
    n = rows.missing.shape[0] - 1
    length = _length(forward, K)
    warm_up = min(work.warm_up[0], n)
    again = only >= 0
    _set_chances(model.transmat, work.ahead, work.behind)
    before = work.checkpoints[work.checkpoints.shape[0] - K :]
    for k in range(K):
        store(work.state, k, load(work.checkpoints, only * K + k) if again else splat(1.0 / K))
    for sweep in range(-1, LANES):  # the first is the warm-up
        begin = n - warm_up if sweep < 0 and not again else 0
        last = max(only, 0)
        _zero(work.logs)
        for segment in range(only if again else (n - begin - 1) // length, last - 1, -1):
            _copy(work.state, ZERO, work.checkpoints, segment * K, K)
            first = max(n - (segment + 1) * length, begin)
            _advance(rows, model, forward, work, first, n - segment * length)
        if again:
            return 0.0
        if sweep >= 0 and _agree(before, work.state, 0.0):
            break
        if sweep >= 0:
            work.warm_up[0] = min(2 * warm_up, n)
        for k in range(K):  # lane 0 starts a sequence: any guess will do
            store(work.state, k, to_next(load(work.state, k), 1.0 / K))
    log_lik = lane_sum(fma(load(work.logs, 1), math.log(2.0), load(work.logs, 0)))
    for lane in range(LANES):
        log_lik += math.log(_total(work.state, lane) / _total(before, lane))
    return log_lik


@kernel
def _set_chances(transmat, ahead, behind):
    """Copy the transition matrix and its transpose."""
    for i in range(transmat.shape[0]):
        for j in range(transmat.shape[0]):
            ahead[i, j] = transmat[i, j]
            behind[j, i] = transmat[i, j]


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


@kernel
def _copy(source, place, target, other, n):
    """Copy n vectors."""
    for i in range(n):
        store(target, other + i, load(source, place + i))


@inlined
def _advance(rows, model, forward, work, begin, end):
    """Filter the steps begin..end of all lanes, starting from `work.state`.

    Stores f of step s at s + 1 - begin in `forward`, shape (n * K, LANES), and adds to `work.logs`.
    """
    K = model.startprob.size
    missing, first, x = rows.missing, rows.first, rows.x
    startprob, ahead = model.startprob, work.ahead
    density, flags = work.density, work.flags
    offset, powers = load(work.logs, 0), load(work.logs, 1)
    _copy(work.state, ZERO, forward, ZERO, K)
    now = 0
    for block in range(begin, end, BLOCK):
        block_end = min(block + BLOCK, end)
        log_densities(x, model, density, block, block_end)
        offset = _scale_densities(missing, density, flags, K, block, block_end, offset)
        for s in range(block, block_end):
            total = load(forward, now)
            for i in range(1, K):
                total = total + load(forward, now + i)
            scale = inverse_power(total)
            powers = powers + exponent(total)
            total = total * scale
            here = (s - block) * K
            _step(forward, now, ahead, density, here, scale, total * _LEAST, K)
            if first[s]:
                _flag(first[s], flags)
                _begin(forward, now + K, startprob, density, here, total, load(flags, 0), K)
            now += K
    _copy(forward, now, work.state, ZERO, K)
    store(work.logs, 0, offset)
    store(work.logs, 1, powers)


@inlined
def _step(forward, now, ahead, density, here, scale, least, K):
    """Filter one step, whose f is stored after that of the step before; four states at a time.

    The last four may reach into the step after, which overwrites them. A single last state is
    followed alone.
    """
    width = ahead.shape[1]
    for j in range(0, K - 1, 4):
        p0 = p1 = p2 = p3 = splat(_LEAST_AHEAD)
        chance = j
        for i in range(now, now + K):
            f = load(forward, i)
            p0, p1 = fma(f, spread(ahead, chance), p0), fma(f, spread(ahead, chance + 1), p1)
            p2, p3 = fma(f, spread(ahead, chance + 2), p2), fma(f, spread(ahead, chance + 3), p3)
            chance += width
        at = here + j
        p0 = fma(p0, load(density, at) * scale, least)
        p1 = fma(p1, load(density, at + 1) * scale, least)
        p2 = fma(p2, load(density, at + 2) * scale, least)
        p3 = fma(p3, load(density, at + 3) * scale, least)
        store_four(forward, now + K + j, p0, p1, p2, p3)
    if K % 4 == 1:
        p, chance = splat(_LEAST_AHEAD), K - 1
        for i in range(now, now + K):
            p = fma(load(forward, i), spread(ahead, chance), p)
            chance += width
        store(forward, now + 2 * K - 1, fma(p, load(density, here + K - 1) * scale, least))


@inlined
def _begin(forward, then, startprob, density, here, total, first, K):
    """Replace f where a sequence begins; `total` keeps what the log-likelihood lacks."""
    for j in range(K):
        start = fma(total * startprob[j], load(density, here + j), total * _LEAST)
        store(forward, then + j, fma(first, start, (1.0 - first) * load(forward, then + j)))


@kernel
def _flag(bits, flags):
    """Expand the bits of a step to 0.0 and 1.0."""
    for lane in range(LANES):
        flags[0, lane] = 1.0 if has_bit(bits, lane) else 0.0


@kernel
def _scale_densities(missing, density, flags, K, begin, end, offset):
    """Scale the densities of a block by each row's largest, and add its logarithm to `offset`."""
    for s in range(begin, end):
        top = load(density, (s - begin) * K)
        for k in range((s - begin) * K + 1, (s - begin + 1) * K):
            top = largest(top, load(density, k))
        for k in range((s - begin) * K, (s - begin + 1) * K):
            store(density, k, quick_exp(load(density, k) - top))
        if missing[s]:
            _flag(missing[s], flags)
            is_missing = load(flags, 0)
            top = top * (1.0 - is_missing)
            for k in range((s - begin) * K, (s - begin + 1) * K):
                store(density, k, fma(load(density, k), 1.0 - is_missing, is_missing))
        offset = offset + top
    return offset


@part
def smooth(again, rows, model, forward, work, stats):
    """Sweep backward until every lane ends where the one after it starts; fill `stats`.

    Returns the total smoothed probability of all raised f: above `MOST_RAISED` neither `stats` nor
    the log-likelihood are accurate. `again` is the address of `filter`.
    """
    K = model.startprob.size
    n = rows.missing.shape[0] - 1
    length = _length(forward, K)
    n_segments = work.checkpoints.shape[0] // K
    warm_up = min(work.warm_up[1], n)
    for sweep in range(-1, LANES):  # the first is the warm-up
        end = warm_up if sweep < 0 else n
        _clear(work, stats)
        for segment in range((n - end) // length, n_segments):
            first, last = max(n - (segment + 1) * length, 0), min(n - segment * length, end)
            if n_segments > 1:
                call(again, (segment, rows, model, forward, work))
            _backward(rows, model, forward, work, stats, first, last, end if sweep < 0 else -1)
        if sweep >= 0 and _agree(work.smoothed, work.guess, _SLACK):
            break
        if sweep >= 0:
            work.warm_up[1] = min(2 * warm_up, n)
        for k in range(K):  # nothing follows the last row
            guess = to_previous(load(work.smoothed, k), 1.0 / K)
            store(work.guess, k, guess)
            store(work.smoothed, k, guess)
    _collect(model, work, stats)
    return lane_sum(load(work.raised, 0))


@inlined
def _clear(work, stats):
    """Set all sums to zero."""
    _zero(work.moments)
    _zero(work.squares)
    _zero(work.tails)
    _zero(work.pairs)
    _zero(work.raised)
    clear(stats)


@inlined
def _backward(rows, model, forward, work, stats, begin, end, warming):
    """Smooth the steps end..begin of all lanes from `work.smoothed`, and sum counts.

    A warm-up sums nothing. It begins before the step `warming`, which is negative otherwise, and
    takes the filtered probabilities of its first step as smoothed ones.
    """
    K, D = model.means.shape
    missing, first, transmat, x = rows.missing, rows.first, model.transmat, rows.x
    behind, width = work.behind, work.behind.shape[1]
    smoothed, posterior, flags, ratio = work.smoothed, work.posterior, work.flags, work.ratio
    raised = load(work.raised, 0)
    for block_end in range(end, begin, -BLOCK):
        block = max(block_end - BLOCK, begin)
        n = block_end - block
        now = (block + 1 - begin) * K
        predict(forward, now, transmat, _LEAST_AHEAD, ratio, n)
        _copy(smoothed, ZERO, posterior, n * width, K)
        for s in range(n - 1, -1, -1):
            ends = first[block + s + 1] != 0
            if ends:
                _flag(first[block + s + 1], flags)
            if block + s + 1 == warming:
                ends = True
                store(flags, 0, splat(1.0))
            f, here = now + s * K, s * width
            raised = _divide(posterior, here + width, ratio, s, ends, flags, raised, K)
            raised = _step_back(forward, f, behind, ratio, s, posterior, here, raised, K)
            if ends:
                raised = _end(forward, f, load(flags, 0), posterior, here, raised, K)
            if warming < 0 and first[block + s]:
                _add_starts(rows, block + s, posterior, here, stats.start)
        _copy(posterior, ZERO, smoothed, ZERO, K)
        if warming < 0:
            add_products(forward, now, K, K, ratio, work.pairs, n)
            columns, full = work.columns, model.kind[0] >= TIED
            set_columns(x, missing, D, columns, block, block_end)
            weigh(x, model, work, block, block_end)
            add_products(posterior, ZERO, width, K, columns, work.moments, n)
            add_squares(posterior, width, K, columns, D, full, work.products, work.squares, n)
    store(work.raised, 0, raised)


@inlined
def _divide(posterior, after, ratio, here, ends, flags, raised, K):
    """Turn the inverse divisors of one step into r; gives `raised` with that of the divisors."""
    for j in range(K):
        inverse, later = load(ratio, here + j * BLOCK), load(posterior, after + j)
        if ends:
            later = later * (1.0 - load(flags, 0))
        raised = raised + where_below(_RAISED_AHEAD, inverse, later)
        store(ratio, here + j * BLOCK, later * inverse)
    return raised


@inlined
def _step_back(forward, now, behind, ratio, here, posterior, place, raised, K):
    """Smoothed probabilities of one step from r, four states at a time; gives `raised`."""
    width = behind.shape[1]
    for i in range(0, K - 1, 4):
        g0 = g1 = g2 = g3 = splat(_LEAST_AHEAD)
        chance = i
        for j in range(here, here + K * BLOCK, BLOCK):
            r = load(ratio, j)
            g0, g1 = fma(r, spread(behind, chance), g0), fma(r, spread(behind, chance + 1), g1)
            g2, g3 = fma(r, spread(behind, chance + 2), g2), fma(r, spread(behind, chance + 3), g3)
            chance += width
        f0, f1 = load(forward, now + i), load(forward, now + i + 1)
        f2, f3 = load(forward, now + i + 2), load(forward, now + i + 3)
        g0, g1 = fma(g0, f0, _TINY), fma(g1, f1, _TINY)
        g2, g3 = fma(g2, f2, _TINY), fma(g3, f3, _TINY)
        raised = raised + (where_below(f0, _RAISED, g0) + where_below(f1, _RAISED, g1))
        raised = raised + (where_below(f2, _RAISED, g2) + where_below(f3, _RAISED, g3))
        store_four(posterior, place + i, g0, g1, g2, g3)
    if K % 4 == 1:
        g, chance = splat(_LEAST_AHEAD), K - 1
        for j in range(here, here + K * BLOCK, BLOCK):
            g = fma(load(ratio, j), spread(behind, chance), g)
            chance += width
        f = load(forward, now + K - 1)
        g = fma(g, f, _TINY)
        raised = raised + where_below(f, _RAISED, g)
        store(posterior, place + K - 1, g)
    return raised


@inlined
def _end(forward, now, first, posterior, place, raised, K):
    """Add the filtered probabilities where a sequence ends; gives `raised`."""
    total = load(forward, now)
    for i in range(1, K):
        total = total + load(forward, now + i)
    alone = first / total
    for i in range(K):
        f = load(forward, now + i)
        raised = raised + where_below(f, _RAISED, f * alone)
        store(posterior, place + i, fma(f, alone, load(posterior, place + i)))
    return raised


@kernel
def _add_starts(rows, s, posterior, place, start):
    """Count the initial states of the sequences that start at this step, without filling rows."""
    n = rows.missing.shape[0] - 1
    for lane in range(LANES):
        if has_bit(rows.first[s], lane) and lane * n + s < rows.n_rows:
            for k in range(start.size):
                start[k] += posterior[place + k, lane]


@kernel
def _zero(array):
    for row in range(array.shape[0]):
        store(array, row, splat(0.0))


@inlined
def _collect(model, work, stats):
    """Sum over the lanes."""
    K, D = model.means.shape
    full = model.kind[0] >= TIED
    n_moments, n_squares = work.moments.shape[0] // (K + 1), work.squares.shape[0] // (K + 1)
    for k in range(K):
        for j in range(K):
            pairs = lane_sum(load(work.pairs, k * work.ahead.shape[1] + j))
            stats.pairs[k, j] = model.transmat[k, j] * pairs
        stats.weight[k] = lane_sum(load(work.moments, k * n_moments))
        place = k * n_squares
        for i in range(D):
            stats.first[k, i] = lane_sum(load(work.moments, k * n_moments + 1 + i))
            for j in range(0 if full else i, i + 1):
                stats.second[k, i, j] = lane_sum(load(work.squares, place))
                place += 1
    copy(stats.weight, stats.mass)
    for k in range(model.df.size):
        stats.mass[k] = lane_sum(load(work.tails, 2 * k))
        stats.log_tail[k] = lane_sum(load(work.tails, 2 * k + 1))
