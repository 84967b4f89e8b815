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
from hmm_exp.hmm.simd import fma, load, log, splat, store

BLOCK = 16  # steps whose densities and posteriors fit in the first-level cache


def log_densities(x: Any, model: Any, out: Any, begin: Any, end: Any) -> None:
    """Write ln b of the steps begin..end into `out`, K vectors per step; compiled code only."""


def weigh(x: Any, model: Any, work: Any, begin: Any, end: Any) -> None:
    """Multiply the posteriors of a block by u; add posterior and posterior times ln q to `tails`.

    Both sums leave out missing rows, whose first monomial is zero. Nothing for Gaussian states.
    Compiled code only.
    """


@overload(log_densities)
def _log_densities(x, model, out, begin, end):
    return _student_t_densities if heavy_tailed(model) else _gaussian_densities


@overload(weigh)
def _weigh(x, model, work, begin, end):
    if not heavy_tailed(model):
        return lambda x, model, work, begin, end: None
    return lambda x, model, work, begin, end: _weigh_student_t(x, model, work, begin, end)


def heavy_tailed(model: types.NamedTuple) -> bool:
    """Whether numba's type of a model is that of Student-t states."""
    return not isinstance(model.types[model.fields.index("heavy_tailed")], types.NoneType)


def _gaussian_densities(x, model, out, begin, end):
    K, D = model.means.shape
    for k in range(K):
        for s in range(begin, end):
            distance = _distance(x, s * D, model, k)
            store(out, (s - begin) * K + k, fma(distance, -0.5, model.log_norm[k]))


def _student_t_densities(x, model, out, begin, end):
    K, D = model.means.shape
    for k in range(K):
        peak = model.log_norm[k] + model.log_tail[k]
        per_df, power = 1.0 / model.df[k], -0.5 * (model.df[k] + D)
        for s in range(begin, end):
            q = fma(_distance(x, s * D, model, k), per_df, 1.0)
            store(out, (s - begin) * K + k, fma(log(q), power, peak))


@kernel
def _weigh_student_t(x, model, work, begin, end):
    K, D = model.means.shape
    even_states = work.posterior.shape[0] // BLOCK
    width = work.monomials.shape[0] // BLOCK
    for k in range(K):
        per_df, most = 1.0 / model.df[k], (model.df[k] + D) / model.df[k]
        mass, logs = load(work.tails, 2 * k), load(work.tails, 2 * k + 1)
        for s in range(begin, end):
            place = (s - begin) * even_states + k
            posterior = load(work.posterior, place)
            q = fma(_distance(x, s * D, model, k), per_df, 1.0)
            seen = posterior * load(work.monomials, (s - begin) * width)
            mass = mass + seen
            logs = fma(seen, log(q), logs)
            store(work.posterior, place, posterior * (most / q))
        store(work.tails, 2 * k, mass)
        store(work.tails, 2 * k + 1, logs)


@inlined
def _distance(x, place, model, k):
    """Squared Mahalanobis distance of one step from state k, its features at x[place...]."""
    distance = splat(0.0)
    full = model.kind[0] >= TIED
    for i in range(model.means.shape[1]):
        z = fma(load(x, place + i), model.whiten[k, i, i], -model.shift[k, i])
        for j in range(i if full else 0):
            z = fma(load(x, place + j), model.whiten[k, i, j], z)
        distance = fma(z, z, distance)
    return distance
