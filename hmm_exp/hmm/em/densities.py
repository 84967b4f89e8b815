"""State densities and precisions of a block of rows, eight lanes at a time.

With the squared distance d = (x - m)' S^-1 (x - m) in D dimensions, a Gaussian state has

    ln b = log_norm - d / 2,

and a Student-t state with df degrees of freedom and scale matrix S (Peel & McLachlan 2000)

    ln b = log_norm + log_tail - (df + D) / 2 ln q,    q = 1 + d / df.

A Student-t row is Gaussian given its precision, whose expectation is u = (df + D) / df / q. Moments
of the states weight every row with posterior times u.

The type of the model decides which functions are compiled, so Gaussian states pay for no branch
(which would slow an iteration by a tenth).
"""

from typing import Any

from numba import types
from numba.extending import overload

from hmm_exp.compiling import inlined, kernel
from hmm_exp.hmm.em.update import TIED
from hmm_exp.hmm.simd import fma, load, log, splat, spread, store


def log_densities(x: Any, model: Any, out: Any, begin: Any, end: Any) -> None:
    """Write ln b of the steps begin..end into `out`, K vectors per step; compiled code only.

    Four steps at a time: up to three more are read and written.
    """


def weigh(x: Any, model: Any, work: Any, begin: Any, end: Any) -> None:
    """Multiply the posteriors of a block by u; add posterior and posterior times ln q to `tails`.

    Both sums leave out missing rows, whose first column is zero. Nothing for Gaussian states.
    Compiled code only.
    """


def _from_distance(model: Any, k: Any) -> Any:
    """Factor and summand that make ln b (Gaussian) or q (Student-t) of a squared distance."""


@overload(log_densities)
def _log_densities(x, model, out, begin, end):
    return _student_t_densities if heavy_tailed(model) else _gaussian_densities


@overload(weigh)
def _weigh(x, model, work, begin, end):
    if not heavy_tailed(model):
        return lambda x, model, work, begin, end: None
    return lambda x, model, work, begin, end: _weigh_student_t(x, model, work, begin, end)


@overload(_from_distance, inline="always")
def _by_distance(model, k):
    if heavy_tailed(model):
        return lambda model, k: (1.0 / model.df[k], 1.0)
    return lambda model, k: (-0.5, model.log_norm[k])


def heavy_tailed(model: types.NamedTuple) -> bool:
    """Whether numba's type of a model is that of Student-t states."""
    return not isinstance(model.types[model.fields.index("heavy_tailed")], types.NoneType)


def _gaussian_densities(x, model, out, begin, end):
    _distances(x, model, out, begin, end)


def _student_t_densities(x, model, out, begin, end):
    K, D = model.means.shape
    _distances(x, model, out, begin, end)
    for k in range(K):
        peak = model.log_norm[k] + model.log_tail[k]
        power = -0.5 * (model.df[k] + D)
        for place in range(k, (end - begin) * K, K):
            store(out, place, fma(log(load(out, place)), power, peak))


@kernel
def _weigh_student_t(x, model, work, begin, end):
    K, D = model.means.shape
    _distances(x, model, work.density, begin, end)
    for k in range(K):
        most = (model.df[k] + D) / model.df[k]
        mass, logs = load(work.tails, 2 * k), load(work.tails, 2 * k + 1)
        for s in range(end - begin):
            place = s * work.ahead.shape[1] + k
            posterior, q = load(work.posterior, place), load(work.density, s * K + k)
            seen = posterior * load(work.columns, s)
            mass = mass + seen
            logs = fma(seen, log(q), logs)
            store(work.posterior, place, posterior * (most / q))
        store(work.tails, 2 * k, mass)
        store(work.tails, 2 * k + 1, logs)


@kernel
def _distances(x, model, out, begin, end):
    """Squared Mahalanobis distances from all states, by `_from_distance`."""
    for k in range(model.means.shape[0]):
        _one_state(x, model, k, out, begin, end)


@inlined
def _one_state(x, model, k, out, begin, end):
    """`_distances` of state k, four steps at a time."""
    K, D = model.means.shape
    whiten, shift = model.whiten, model.shift
    full = model.kind[0] >= TIED
    factor, summand = _from_distance(model, k)
    place = k
    for s in range(begin, end, 4):
        row = s * D
        a0, a1, a2, a3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        at = k * D * D
        for i in range(D):
            p, start = spread(whiten, at + i), splat(0.0) - spread(shift, k * D + i)
            y0, y1 = fma(load(x, row + i), p, start), fma(load(x, row + D + i), p, start)
            y2, y3 = (
                fma(load(x, row + 2 * D + i), p, start),
                fma(load(x, row + 3 * D + i), p, start),
            )
            for j in range(i if full else 0):
                p = spread(whiten, at + j)
                y0, y1 = fma(load(x, row + j), p, y0), fma(load(x, row + D + j), p, y1)
                y2, y3 = fma(load(x, row + 2 * D + j), p, y2), fma(load(x, row + 3 * D + j), p, y3)
            at += D
            a0, a1, a2, a3 = fma(y0, y0, a0), fma(y1, y1, a1), fma(y2, y2, a2), fma(y3, y3, a3)
        _store_steps(out, place, K, factor, summand, a0, a1, a2, a3)
        place += 4 * K


@kernel
def _store_steps(out, place, K, factor, summand, a0, a1, a2, a3):
    """Store factor * a + summand of one state in four steps."""
    store(out, place, fma(a0, factor, summand))
    store(out, place + K, fma(a1, factor, summand))
    store(out, place + 2 * K, fma(a2, factor, summand))
    store(out, place + 3 * K, fma(a3, factor, summand))
