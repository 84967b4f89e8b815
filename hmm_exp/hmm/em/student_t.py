"""The rest of the M step for Student-t states: scale of the precisions, and degrees of freedom.

`update` sets S* = (P + scatter) / mass with rows weighted by their expected precisions u (see
`densities`). Then, in every state and with the moments of the same E step,

- the precisions get a free scale a (parameter expansion: Liu, Rubin & Wu 1998, Biometrika 85),
  which maximises the penalised expected log-likelihood, and S = S* / a. Without
  priors a = sum u / mass. It is the same optimum in far fewer iterations;
- df becomes the root of (Peel & McLachlan 2000, Statistics and Computing 10, with a = 1)

    ln(df/2) - psi(df/2) + 1 - ln a - (sum u / mass) / a
        + (sum ln u) / mass + psi((old + D)/2) - ln((old + D)/2) = 0,

  within `DF_BOUNDS`, where sums are over posteriors. A df at the upper bound means a Gaussian.

Both raise the penalised expected log-likelihood, so that the objective cannot fall. But nearly all
information about a large df is in the precisions, which are missing, and steps to the root are then
hundreds of times too short. So a step of ln df is multiplied by the ratio of the complete to the
expected observed information (Lange, Little & Taylor 1989, JASA 84, appendix B). If the objective
falls nevertheless, `withdraw` takes the root instead, as in overrelaxed EM (Salakhutdinov & Roweis
2003), and halves the factor.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from hmm_exp.compiling import kernel
from hmm_exp.hmm.em.densities import heavy_tailed
from hmm_exp.hmm.em.update import NO_MASS, covariance_weight, pull
from hmm_exp.hmm.loops import copy
from hmm_exp.hmm.params import DF_BOUNDS

_LEAST, _MOST = DF_BOUNDS
_HALVINGS = 50
_LONGEST = 1.0  # step of ln df


class TailSteps(NamedTuple):
    """Memory of the steps of df.

    Attributes
    ----------
    root
        The df that certainly does not lower the objective, shape (K,).
    stretch
        Share of the extra length that steps have, from 1 to 0, shape (1,).
    """

    root: np.ndarray
    stretch: np.ndarray


def update_tails(model: Any, stats: Any, prior: Any, hits: Any, steps: Any) -> None:
    """Replace scales and df, given covariances that are whitened; `hits` are those at the floor.

    Nothing for Gaussian states. Compiled code only.
    """


def withdraw(model: Any, steps: Any) -> bool:
    """Take the roots as df after a fall; False if they are taken, and for Gaussian states.

    Compiled code only.
    """
    raise NotImplementedError


@overload(update_tails, inline="always")
def _choose_update(model, stats, prior, hits, steps):
    if not heavy_tailed(model):
        return lambda model, stats, prior, hits, steps: None
    return lambda model, stats, prior, hits, steps: _update(model, stats, prior, hits, steps)


@overload(withdraw, inline="always")
def _choose_withdraw(model, steps):
    if not heavy_tailed(model):
        return lambda model, steps: False
    return lambda model, steps: _withdraw(model, steps)


@kernel
def _update(model, stats, prior, hits, steps):
    D = model.means.shape[1]
    for k in range(model.df.size):
        old = model.df[k]
        steps.root[k] = old
        if not prior.updated[3] or not stats.mass[k] > NO_MASS:
            continue
        hit = False
        for d in range(D):
            hit |= hits[k, d]
        a = 1.0 if hit else _precision_scale(model, stats, prior, k)
        _rescale(model, k, a)
        precision = stats.weight[k] / stats.mass[k]
        log_precision = math.log((old + D) / old) - stats.log_tail[k] / stats.mass[k]
        known = log_precision + digamma(0.5 * (old + D)) - math.log(0.5 * (old + D))
        root = _root(math.log(a) + precision / a - 1.0 - known)
        step = math.log(root / old)
        step *= 1.0 + steps.stretch[0] * (_information_ratio(old, D) - 1.0)
        step = min(max(step, -_LONGEST), _LONGEST)
        steps.root[k] = root
        model.df[k] = min(max(old * math.exp(step), _LEAST), _MOST)
    renew_tails(model)


@kernel
def _withdraw(model, steps):
    taken = True
    for k in range(model.df.size):
        taken &= model.df[k] == steps.root[k]
    if taken:
        return False
    copy(steps.root, model.df)
    renew_tails(model)
    steps.stretch[0] *= 0.5
    return True


@kernel
def renew_tails(model):
    """Set `log_tail` after a change of df."""
    for k in range(model.df.size):
        model.log_tail[k] = log_tail(model.df[k], model.means.shape[1])


@kernel
def log_tail(df, D):
    """Log density at the centre, less that of a Gaussian with the same scale matrix."""
    half = 0.5 * df
    return math.lgamma(half + 0.5 * D) - math.lgamma(half) - 0.5 * D * math.log(half)


@kernel
def digamma(x):
    """psi(x) for x > 0: recurrence up to 10, then a series (Abramowitz & Stegun 6.3.18)."""
    total = 0.0
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r / 132))))
    return total + math.log(x) - 0.5 / x - series


@kernel
def trigamma(x):
    """psi'(x) for x > 0, in the same way (Abramowitz & Stegun 6.4.12)."""
    total = 0.0
    while x < 10.0:
        total += 1.0 / (x * x)
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1 / 6 - r * (1 / 30 - r * (1 / 42 - r * (1 / 30 - r * 5 / 66))))
    return total + (1.0 + 0.5 / x + series) / x


@kernel
def _information_ratio(df, D):
    """Information about df in observed precisions over that in rows, at known m and S."""
    complete = 0.5 * trigamma(0.5 * df) - 1.0 / df
    return complete * df * df / (2.0 * information(df, D))


@kernel
def information(df, D):
    """Expected information of a row about ln df, at known m and S."""
    lost = 0.5 * trigamma(0.5 * (df + D)) + D * (df + D + 4.0) / (df * (df + D) * (df + D + 2.0))
    return 0.5 * df * df * (0.5 * trigamma(0.5 * df) - lost)


@kernel
def _precision_scale(model, stats, prior, k):
    """The maximum in a of  -(df mass - w D)/2 ln a - df sum u / (2 a) - a/2 pull."""
    mass = model.df[k] * stats.mass[k]
    mass -= covariance_weight(model, prior) * model.means.shape[1]
    weight = model.df[k] * stats.weight[k]
    return 2.0 * weight / (mass + math.sqrt(mass * mass + 4.0 * pull(model, prior, k) * weight))


@kernel
def _rescale(model, k, a):
    """Divide the scale matrix of a state by a."""
    D = model.means.shape[1]
    for i in range(D):
        model.shift[k, i] *= math.sqrt(a)
        for j in range(D):
            model.covars[k, i, j] /= a
            model.whiten[k, i, j] *= math.sqrt(a)
    model.log_norm[k] += 0.5 * D * math.log(a)


@kernel
def _root(wanted):
    """The df with ln(df/2) - psi(df/2) = wanted, which falls in df, by bisection of ln df."""
    low, high = math.log(_LEAST), math.log(_MOST)
    if _fall(_LEAST) <= wanted:
        return _LEAST
    if _fall(_MOST) >= wanted:
        return _MOST
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _fall(math.exp(middle)) > wanted:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))


@kernel
def _fall(df):
    return math.log(0.5 * df) - digamma(0.5 * df)
