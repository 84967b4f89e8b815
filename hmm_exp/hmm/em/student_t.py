"""The rest of the M step for Student-t states: scale of the precisions, and degrees of freedom.

`update` sets S* = (P + scatter) / mass with rows weighted by their expected precisions u (see
`densities`). Then, in every state and with the moments of the same E step,

- the precisions get a free scale a (parameter expansion: Liu, Rubin & Wu 1998, Biometrika 85,
  section 4.2), which maximises the penalised expected log-likelihood, and S = S* / a. Without
  priors a = sum u / mass. It is the same optimum in far fewer iterations;
- df becomes the root of (Peel & McLachlan 2000, equation 33, with a = 1)

    ln(df/2) - psi(df/2) + 1 - ln a - (sum u / mass) / a
        + (sum ln u) / mass + psi((old + D)/2) - ln((old + D)/2) = 0,

  within `DF_BOUNDS`, where sums are over posteriors. A df at the upper bound means a Gaussian.

Every step raises the penalised expected log-likelihood, so EM never lowers the objective.
"""

import math

from hmm_exp.compiling import kernel
from hmm_exp.hmm.em.update import NO_MASS, covariance_weight, pull
from hmm_exp.hmm.params import DF_BOUNDS

_LEAST, _MOST = DF_BOUNDS
_HALVINGS = 50


@kernel
def update_tails(model, stats, prior, hits):
    """Replace scales and df, given covariances that are whitened; `hits` are those at the floor."""
    D = model.means.shape[1]
    for k in range(model.df.size):
        if not prior.updated[3] or not stats.mass[k] > NO_MASS:
            continue
        old = model.df[k]
        a = 1.0 if hits[k].any() else _precision_scale(model, stats, prior, k)
        _rescale(model, k, a)
        precision = stats.weight[k] / stats.mass[k]
        log_precision = math.log((old + D) / old) - stats.log_tail[k] / stats.mass[k]
        known = log_precision + digamma(0.5 * (old + D)) - math.log(0.5 * (old + D))
        model.df[k] = _root(math.log(a) + precision / a - 1.0 - known)


@kernel
def norm_tails(model):
    """Set `log_tail`: log density at the centre, less that of a Gaussian with the same scale."""
    D = model.means.shape[1]
    for k in range(model.df.size):
        half = 0.5 * model.df[k]
        ratio = math.lgamma(half + 0.5 * D) - math.lgamma(half)
        model.log_tail[k] = ratio - 0.5 * D * math.log(half)


@kernel
def digamma(x):
    """psi(x) for x > 0: recurrence up to 10, then the asymptotic series (Abramowitz 6.3.18)."""
    total = 0.0
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r / 132))))
    return total + math.log(x) - 0.5 / x - series


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
