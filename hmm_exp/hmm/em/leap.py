"""Leaps of an accelerated EM run: limited-memory BFGS steps, with EM's step as the gradient.

EM is gradient ascent: in the metric of the complete-data information its step f(x) = M(x) - x is
the gradient of the objective, and the Hessian is -(I - J) with the Jacobian J of M, whose
eigenvalues are the rates of convergence (Dempster, Laird & Rubin 1977, JRSS B 39). Rates near one
make EM slow, and quasi-Newton steps remove them (Jamshidian & Jennrich 1997, JRSS B 59). Here the
Hessian comes from the last `MEMORY` pairs of successive places and steps (Nocedal 1980, Mathematics
of Computation 35), from a multiple of the identity, 1 to 2: EM's steps still rise near an optimum
when up to twice as long (Peters & Walker 1978, SIAM Journal on Applied Mathematics 35). A leap
d = H f costs no pass over the data.

*Coordinates* are roots, so that every point is feasible: square roots of probabilities, means,
Cholesky factors of covariances, and ln df. Probabilities of zero stay zero.

*Probabilities near zero* hardly move in roots, also where the likelihood wants them back (the
condition of Karush, Kuhn and Tucker fails): EM multiplies such a probability by some g > 1 in each
iteration. Of N draws, one that a single observation asks for is best at (1 - 1/g) / N, and half of
that is its step.

*What is left.* At distance d from the optimum the objective is f'd / 2 nats too low. The estimate,
at least f'f / 2, ends the run. It is too small while a slow direction is not in the memory, so
`em.run` asks for far less than its tolerance, twice.

*Saddles* have directions without curvature, which a Newton step would follow back to the saddle. A
pair without curvature is damped (Powell 1978), so that leaps lead away.
"""

import math
from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import inlined, kernel, part
from hmm_exp.hmm.em.student_t import information, renew_tails
from hmm_exp.hmm.em.update import covariance_weight
from hmm_exp.hmm.loops import copy, fill
from hmm_exp.hmm.params import DF_BOUNDS

MEMORY = 6  # pairs
# Longest leap over EM's step, in the metric: at first, at most, and what successful and withdrawn
# leaps multiply it by.
_FIRST, _LONGEST, _LONGER, _SHORTER = 3.0, 30.0, 1.2, 0.5
_FLATTEST = 1e-6  # least curvature of a pair, which keeps the Hessian definite
_DAMPED = 0.1  # curvature that a pair without any gets: leaps away from a saddle are ten EM steps
_UNSURE = 1e4  # near a saddle, what the estimate of what is left is multiplied by
_TINY = 1e-300
_LEAST_DF, _MOST_DF = DF_BOUNDS
_LEAST_SHARE = 0.1  # of EM's root of a probability or Cholesky pivot that a leap keeps
_MOST_STRETCH = 2.0  # of EM's step, in directions that the memory does not know
_ASLEEP = 0.01  # draws that a probability near zero expects, at most
_GONE = 1e-200  # the same, at least: below, the limits of the E step move it
_WAKES = 1.01  # by which EM multiplies a probability near zero that is wanted back, at least


class Leaps(NamedTuple):
    """Memory of the leaps; P coordinates, M = MEMORY.

    Attributes
    ----------
    place, leap
        x and d, shape (P,).
    rows
        f, then M differences s of places and M differences y of steps with the other sign, both
        the newest first, shape (2 M + 1, P).
    metric_rows, products
        The same in the metric, and their scalar products, shape (2 M + 1, 2 M + 1).
    shares
        d as a combination of the rows, shape (2 M + 1,).
    longest
        Longest leap over EM's step, shape (1,).
    n_places
        Places so far, at most M + 1, shape (1,).
    """

    place: np.ndarray
    leap: np.ndarray
    rows: np.ndarray
    metric_rows: np.ndarray
    products: np.ndarray
    shares: np.ndarray
    longest: np.ndarray
    n_places: np.ndarray


def make_leaps(n_states: int, n_features: int, heavy_tailed: bool) -> Leaps:
    """Allocate memory."""
    K, D = n_states, n_features
    P = K + K * K + K * D + K * D * (D + 1) // 2 + K * heavy_tailed
    n_rows = 2 * MEMORY + 1
    return Leaps(
        place=np.zeros(P),
        leap=np.zeros(P),
        rows=np.zeros((n_rows, P)),
        metric_rows=np.zeros((n_rows, P)),
        products=np.zeros((n_rows, n_rows)),
        shares=np.zeros(n_rows),
        longest=np.full(1, _FIRST),
        n_places=np.zeros(1, dtype=np.int64),
    )


@part
def plan(before, after, stats, prior, leaps):
    """Plan a leap from `before`, which one EM iteration changes to `after`.

    Returns the estimated gain in nats that is left at `before`.
    """
    _remember(before, after, stats, prior, leaps)
    for row in range(2 * MEMORY + 1):
        _to_metric(before, stats, prior, leaps.rows[row], leaps.metric_rows[row])
    return _combine(leaps)


@inlined
def _combine(leaps):
    """Coefficients of the leap, by the two loops of Nocedal (1980) on products; the estimate."""
    products, shares = leaps.products, leaps.shares
    n_pairs = leaps.n_places[0] - 1
    _multiply_rows(leaps)
    near_saddle = n_pairs > 0 and products[1, 1 + MEMORY] <= _FLATTEST * products[1, 1]
    if near_saddle:
        _damp(leaps)
        _multiply_rows(leaps)
    fill(shares, 0.0)
    shares[0] = 1.0
    for i in range(1, n_pairs + 1):
        if products[i, i + MEMORY] > _FLATTEST * products[i, i]:
            shares[i + MEMORY] = -_product(leaps, i) / products[i, i + MEMORY]
    stretch = _stretch(products) if n_pairs > 0 else 1.0
    for i in range(shares.size):
        shares[i] *= stretch
    for i in range(n_pairs, 0, -1):
        if products[i, i + MEMORY] > _FLATTEST * products[i, i]:
            share = _product(leaps, i + MEMORY) / products[i, i + MEMORY]
            shares[i] = -shares[i + MEMORY] / stretch - share
    left = 0.5 * max(products[0, 0], _product(leaps, 0))
    return left * _UNSURE if near_saddle else left


@inlined
def _stretch(products):
    """Multiple of the identity that fits the last pair (Nocedal & Wright 2006, equation 7.20)."""
    steps = max(products[1 + MEMORY, 1 + MEMORY], _TINY)
    return min(max(products[1, 1 + MEMORY] / steps, 1.0), _MOST_STRETCH)


@kernel
def _multiply_rows(leaps):
    """Scalar products of all rows in the metric."""
    rows = leaps.metric_rows
    for a in range(rows.shape[0]):
        for b in range(a + 1):
            total = 0.0
            for p in range(rows.shape[1]):
                total += rows[a, p] * rows[b, p]
            leaps.products[a, b] = total
            leaps.products[b, a] = total


@kernel
def _product(leaps, row):
    """Scalar product of a row with the combination so far."""
    total = 0.0
    for i in range(leaps.shares.size):
        total += leaps.products[row, i] * leaps.shares[i]
    return total


@inlined
def _damp(leaps):
    """Give the last pair some curvature."""
    length, curvature = leaps.products[1, 1], leaps.products[1, 1 + MEMORY]
    share = (1.0 - _DAMPED) * length / max(length - curvature, _TINY)
    _mix(leaps.rows, share)
    _mix(leaps.metric_rows, share)


@kernel
def _mix(rows, share):
    for p in range(rows.shape[1]):
        rows[1 + MEMORY, p] = share * rows[1 + MEMORY, p] + (1.0 - share) * rows[1, p]


@part
def take(model, prior, leaps):
    """Leap: replace EM's parameters, all but `whiten` and what follows from it."""
    K, D = model.means.shape
    _add_leap(leaps)
    p = 0
    if prior.updated[0]:
        _square(leaps.leap[:K], model.startprob)
    p += K
    for k in range(K):
        if prior.updated[1]:
            _square(leaps.leap[p : p + K], model.transmat[k])
        p += K
    if prior.updated[2]:
        for k in range(K):
            copy(leaps.leap[p + k * D : p + k * D + D], model.means[k])
    p += K * D
    if not prior.updated[3]:
        return 0.0
    for k in range(K):
        _multiply(leaps.leap[p:], model, k)
        p += D * (D + 1) // 2
    for k in range(model.df.size):
        model.df[k] = min(max(math.exp(leaps.leap[p + k]), _LEAST_DF), _MOST_DF)
    renew_tails(model)
    return 0.0


@inlined
def _add_leap(leaps):
    """Replace d by x + d, with d shortened to the longest leap."""
    products, shares = leaps.products, leaps.shares
    length = 0.0
    for i in range(shares.size):
        length += shares[i] * _product(leaps, i)
    most = leaps.longest[0] * math.sqrt(products[0, 0])
    scale = most / math.sqrt(length) if length > most * most else 1.0
    leaps.longest[0] = min(_LONGER * leaps.longest[0], _LONGEST)
    copy(leaps.place, leaps.leap)
    for i in range(shares.size):
        for p in range(leaps.leap.size):
            leaps.leap[p] += scale * shares[i] * leaps.rows[i, p]


@kernel
def shorten(leaps):
    """Make later leaps shorter, as the last one lowered the objective."""
    leaps.longest[0] = max(_SHORTER * leaps.longest[0], 1.0)


@inlined
def _remember(before, after, stats, prior, leaps):
    """Store the place and EM's step, and what both changed by since the last time."""
    rows = leaps.rows
    copy(leaps.place, leaps.leap)
    _coordinates(before, leaps.place)
    for p in range(leaps.place.size):
        for i in range(MEMORY, 1, -1):
            rows[i, p] = rows[i - 1, p]
            rows[i + MEMORY, p] = rows[i - 1 + MEMORY, p]
        rows[1, p] = leaps.place[p] - leaps.leap[p]
        rows[1 + MEMORY, p] = rows[0, p]
    _coordinates(after, rows[0])
    _wake(before, after, stats, prior, rows[0])
    for p in range(leaps.place.size):
        rows[0, p] -= leaps.place[p]
        rows[1 + MEMORY, p] -= rows[0, p]
    leaps.n_places[0] = min(leaps.n_places[0] + 1, MEMORY + 1)


@kernel
def _coordinates(model, out):
    """Roots of the probabilities, means, Cholesky factors row by row, ln df."""
    K, D = model.means.shape
    p = 0
    for k in range(K):
        out[p] = math.sqrt(model.startprob[k])
        p += 1
    for k in range(K):
        for j in range(K):
            out[p] = math.sqrt(model.transmat[k, j])
            p += 1
    for k in range(K):
        for d in range(D):
            out[p] = model.means[k, d]
            p += 1
    for k in range(K):
        for i in range(D):
            for j in range(i + 1):
                out[p] = 0.0
                for m in range(j + 1):  # L = S W' as W = L^-1
                    out[p] += model.covars[k, i, m] * model.whiten[k, j, m]
                p += 1
    for k in range(model.df.size):
        out[p] = math.log(model.df[k])
        p += 1


@inlined
def _wake(before, after, stats, prior, roots):
    """Let probabilities return that EM raises from almost zero."""
    K = before.startprob.size
    draws = _total(stats.start, prior.startprob)
    _wake_some(before.startprob, after.startprob, draws, roots[:K])
    for k in range(K):
        draws = _total(stats.pairs[k], prior.transmat[k])
        _wake_some(before.transmat[k], after.transmat[k], draws, roots[K + k * K : 2 * K + k * K])


@kernel
def _wake_some(before, after, draws, roots):
    """Change the roots of those probabilities of one distribution with a number of draws."""
    for j in range(before.size):
        if _GONE < draws * before[j] < _ASLEEP and after[j] > _WAKES * before[j]:
            least = 0.5 * (1.0 - before[j] / after[j]) / draws
            roots[j] = math.sqrt(max(after[j], least))


@inlined
def _to_metric(model, stats, prior, vector, out):
    """A difference of coordinates in a metric where the complete-data information is one."""
    K, D = model.means.shape
    p = 0
    weight = 2.0 * math.sqrt(_total(stats.start, prior.startprob))
    for _ in range(K):
        out[p] = weight * vector[p]
        p += 1
    for k in range(K):
        weight = 2.0 * math.sqrt(_total(stats.pairs[k], prior.transmat[k]))
        for _ in range(K):
            out[p] = weight * vector[p]
            p += 1
    for k in range(K):
        weight = math.sqrt(prior.weights[0] + stats.weight[k])
        for i in range(D):
            total = 0.0
            for j in range(i + 1):
                total += model.whiten[k, i, j] * vector[p + j]
            out[p + i] = weight * total
        p += D
    for k in range(K):
        weight = math.sqrt(covariance_weight(model, prior) + stats.mass[k])
        for i in range(D):
            for j in range(i + 1):
                total = 0.0
                for m in range(j, i + 1):
                    total += model.whiten[k, i, m] * vector[p + m * (m + 1) // 2 + j]
                double = math.sqrt(2.0) if i == j else 1.0
                out[p + i * (i + 1) // 2 + j] = double * weight * total
        p += D * (D + 1) // 2
    for k in range(model.df.size):
        out[p] = math.sqrt(stats.mass[k] * information(model.df[k], D)) * vector[p]
        p += 1


@kernel
def _total(counts, dirichlet):
    """Number of draws that a distribution is estimated from, prior ones included."""
    total = 0.0
    for j in range(counts.size):
        total += max(dirichlet[j] - 1.0 + counts[j], 0.0)
    return total


@kernel
def _square(roots, probs):
    """Probabilities from their roots, none far below EM's."""
    total = 0.0
    for j in range(probs.size):
        root = max(roots[j], _LEAST_SHARE * math.sqrt(probs[j]))
        probs[j] = root * root
        total += probs[j]
    for j in range(probs.size):
        probs[j] /= total


@inlined
def _multiply(lower, model, k):
    """Covariance of a state from the rows of its Cholesky factor, no pivot far below EM's."""
    D = model.means.shape[1]
    for i in range(D):
        place = i * (i + 1) // 2 + i
        lower[place] = max(lower[place], _LEAST_SHARE / model.whiten[k, i, i])
    for i in range(D):
        for j in range(i + 1):
            total = 0.0
            for m in range(j + 1):
                total += lower[i * (i + 1) // 2 + m] * lower[j * (j + 1) // 2 + m]
            model.covars[k, i, j] = total
            model.covars[k, j, i] = total
