r"""Student-t densities with fixed row weights: log densities and their maximum-likelihood fit.

Row t has given weights p_tk, which sum to one and are not estimated, and the density

    f(x_t) = sum_k p_tk  St(x_t; loc_k, scale_k, df),      one df shared by the K densities.

The fit is ECME (Liu & Rubin 1995, Statistica Sinica 5, section 4; for mixtures Peel & McLachlan
2000). With z = ((x - loc) / scale)^2 the E-step gives responsibilities and latent precisions

    q_tk = p_tk St_k(x_t) / f(x_t),        u_tk = (df + 1) / (df + z_tk),

one CM-step sets

    loc_k = sum q u x / sum q u,           scale_k^2 = sum q u (x - loc_k)^2 / sum q u

(the divisor sum q u instead of sum q is the parameter expansion of Kent, Tyler & Vardi 1994 and
Meng & van Dyk 1997: the same fixed point, far fewer steps), and the other takes a safeguarded
Newton step in ln df on the observed log-likelihood. Scales and df converge slowly together, so
Anderson acceleration extrapolates from the last few maps (Henderson & Varadhan 2019); a step that
does not raise the likelihood is replaced by the plain map. No step lowers the likelihood.

L-BFGS-B in scipy is shorter and finds the same optimum on continuous returns, but a lower one (by
up to 1,400 nats) in some fits with many returns of zero.

Example
-------
>>> fit = fit_mixture(probs, returns)            # probs (T, K), returns (T,)
>>> log_mixture(probs, returns, fit.loc, fit.scale, fit.df).mean()      # nats per bar
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import digamma, polygamma

from hmm_exp.compiling import entry
from hmm_exp.errors import FitError
from hmm_exp.hmm.params import DF_BOUNDS

SCALE_FLOOR = 1e-2  # of the mean absolute deviation: no density collapses onto repeated values
TOLERANCE = 1e-6  # largest change by a map, loc in mean absolute deviations, ln scale, ln df
MAX_MAPS = 500
MEMORY = 4  # maps used by a step of Anderson acceleration
_FARTHEST = 50.0  # of ln scale and ln df in an extrapolation
MAX_DF_MOVE = 1.0  # of ln df in one Newton step


@dataclass(frozen=True)
class MixtureFit:
    """Maximum-likelihood Student-t densities.

    Attributes
    ----------
    loc, scale
        Shape (K,), in the units of the observations.
    df
        Shared degrees of freedom.
    history
        Log-likelihood in nats after every step, increasing up to rounding.
    """

    loc: np.ndarray
    scale: np.ndarray
    df: float
    history: np.ndarray


def log_mixture(
    probs: np.ndarray, x: np.ndarray, loc: np.ndarray, scale: np.ndarray, df: float
) -> np.ndarray:
    """Log of sum_k probs[t, k] St(x[t]; loc_k, scale_k, df), nats, shape (T,).

    NaN where the observation or a weight is missing. Row t depends on row t alone, bit for bit.
    """
    return _log_mixture(np.ascontiguousarray(probs), np.ascontiguousarray(x), loc, scale, df)


def scale_floor(x: np.ndarray) -> float:
    """Smallest scale a density of `x` may have. Raises FitError when `x` does not vary."""
    floor = SCALE_FLOOR * float(np.mean(np.abs(x - np.median(x))))
    if not floor > 0.0:
        raise FitError(f"all {len(x)} returns equal {x[0]:g}")
    return floor


def fit_mixture(probs: np.ndarray, x: np.ndarray) -> MixtureFit:
    """Fit locations, scales and the shared df, given the weights of every row.

    Parameters
    ----------
    probs
        Weights, shape (T, K), complete, rows summing to one.
    x
        Observations, shape (T,), complete.

    Raises
    ------
    FitError
        Fewer rows than parameters, observations that do not vary, or no convergence.
    """
    n_parameters = 2 * probs.shape[1] + 1
    if len(x) <= n_parameters:
        raise FitError(f"{len(x)} returns are too few for {n_parameters} Student-t parameters")
    floor = scale_floor(x)
    problem = _Problem(
        np.ascontiguousarray(probs), np.ascontiguousarray(x), floor, floor / SCALE_FLOOR
    )
    return _maximise(problem, _start(problem))


def fit_from(problem: Any, start: MixtureFit) -> MixtureFit:
    """Fit from given parameters; `problem` has the attributes and the E-step of `_Problem`.

    Raises FitError without convergence.
    """
    return _maximise(problem, _evaluate(problem, start.loc, start.scale, start.df))


class _Problem(NamedTuple):
    """The data of a fit."""

    probs: np.ndarray  # (T, K)
    x: np.ndarray  # (T,)
    floor: float  # of the scales
    unit: float  # mean absolute deviation of x

    @property
    def tolerance(self) -> float:
        """Largest change by a map at which the fit ends."""
        return TOLERANCE

    def expectation(self, *arguments: Any) -> tuple[float, float, float]:
        """The E-step, see `_expectation`."""
        return _expectation(self.probs, self.x, *arguments)


class _Point(NamedTuple):
    """Parameters with their log-likelihood, moments and derivatives."""

    loc: np.ndarray  # (K,)
    scale: np.ndarray  # (K,)
    df: float
    log_lik: float
    moments: np.ndarray  # (4, K): sums of q, q u, q u (x - loc), q u (x - loc)^2
    slope: float  # d log_lik / d df
    curvature: float  # d^2 log_lik / d df^2


def _maximise(problem: _Problem, point: _Point) -> MixtureFit:
    """Iterate accelerated ECME maps until the parameters or the likelihood stop changing.

    For Gaussian data the likelihood is so flat in df that rounding hides the gain of a map.
    """
    history = [point.log_lik]
    points: list[np.ndarray] = []
    changes: list[np.ndarray] = []
    for _ in range(MAX_MAPS):
        halfway = _better_densities(problem, point)
        df = _newton_df(halfway)
        points.append(_vector(problem, point))
        changes.append(_vector(problem, halfway._replace(df=df)) - points[-1])
        if np.abs(changes[-1]).max() < problem.tolerance:
            history.append(halfway.log_lik)
            return MixtureFit(halfway.loc, halfway.scale, halfway.df, np.array(history))
        before, point = point, _evaluate(problem, *_extrapolated(problem, points, changes))
        if point.log_lik < halfway.log_lik:
            point = _better_df(problem, halfway)
            if point.log_lik <= before.log_lik:
                return MixtureFit(before.loc, before.scale, before.df, np.array(history))
            points, changes = [], []
        history += [halfway.log_lik, point.log_lik]
    raise FitError(f"the Student-t fit did not converge in {MAX_MAPS} steps")


def _extrapolated(
    problem: _Problem, points: list, changes: list
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fixed point (loc, scale, df) of a linear extrapolation of the last maps."""
    vector = points[-1] + changes[-1]
    recent = slice(-MEMORY - 1, None)
    if len(points) > 1:
        bends = np.diff(changes[recent], axis=0).T  # (2K + 1, at most MEMORY)
        weights = np.linalg.lstsq(bends, changes[-1], rcond=None)[0]
        vector = vector - (np.diff(points[recent], axis=0).T + bends) @ weights
    n_states = problem.probs.shape[1]
    logs = np.clip(vector[n_states:], -_FARTHEST, _FARTHEST)  # a farther leap is refused anyway
    scale = np.maximum(np.exp(logs[:-1]), problem.floor)
    df = min(max(math.exp(logs[-1]), DF_BOUNDS[0]), DF_BOUNDS[1])
    return vector[:n_states] * problem.unit, scale, df


def _vector(problem: _Problem, point: _Point) -> np.ndarray:
    """Parameters without units, (2K + 1,): loc, ln scale, ln df."""
    return np.concatenate([point.loc / problem.unit, np.log(point.scale), [math.log(point.df)]])


def _start(problem: _Problem) -> _Point:
    """Start from weighted means and mean absolute deviations.

    A density without weight keeps those of all rows. At df = 3 a Student-t has a scale of 0.91
    times its mean absolute deviation.
    """
    probs, x, floor, _ = problem
    weight = probs.sum(axis=0)
    held = weight > 0.0
    share = np.where(held, probs, 1.0) / np.where(held, weight, len(x))
    loc = (share * x[:, None]).sum(axis=0)
    deviation = (share * np.abs(x[:, None] - loc)).sum(axis=0)
    return _evaluate(problem, loc, np.maximum(0.91 * deviation, floor), 3.0)


def _evaluate(problem: _Problem, loc: np.ndarray, scale: np.ndarray, df: float) -> _Point:
    """Evaluate the log-likelihood, moments and derivatives in df."""
    half, more = 0.5 * df, 0.5 * (df + 1.0)
    slope_constant = float(digamma(more) - digamma(half)) - 1.0 / df
    bend_constant = 0.5 * float(polygamma(1, more) - polygamma(1, half)) + 1.0 / df**2
    moments = np.zeros((4, len(loc)))
    log_lik, slope, curvature = problem.expectation(loc, scale, df, slope_constant, moments)
    curvature += 0.5 * bend_constant * len(problem.x)
    return _Point(loc, scale, df, log_lik, moments, slope, curvature)


def _better_densities(problem: _Problem, point: _Point) -> _Point:
    """CM-step for locations and scales at the point's df."""
    weight, precision, first, second = point.moments
    held = precision > 0.0
    weight, precision = np.where(held, weight, 1.0), np.where(held, precision, 1.0)
    shift = np.where(held, first / precision, 0.0)
    spread = np.maximum(second - shift * first, 0.0)
    scale = np.sqrt(spread / precision)
    # At the floor only the unexpanded divisor keeps the likelihood from falling.
    plain = np.maximum(np.sqrt(spread / weight), problem.floor)
    scale = np.where(scale < problem.floor, plain, scale)
    return _evaluate(problem, point.loc + shift, np.where(held, scale, point.scale), point.df)


def _newton_df(point: _Point) -> float:
    """Newton step in ln df, uphill and within bounds."""
    slope = point.df * point.slope
    curvature = point.df**2 * point.curvature + slope
    step = -slope / curvature if curvature < 0.0 else math.copysign(MAX_DF_MOVE, slope)
    step = min(max(step, -MAX_DF_MOVE), MAX_DF_MOVE)
    return min(max(point.df * math.exp(step), DF_BOUNDS[0]), DF_BOUNDS[1])


def _better_df(problem: _Problem, point: _Point) -> _Point:
    """CM-step for df: the Newton step, halved until the log-likelihood does not fall."""
    df = _newton_df(point)
    while abs(math.log(df / point.df)) > 0.01 * TOLERANCE:
        moved = _evaluate(problem, point.loc, point.scale, df)
        if moved.log_lik >= point.log_lik:
            return moved
        df = math.sqrt(df * point.df)
    return point


@entry
def log_constant(df):
    """Log of the standard Student-t density at its centre."""
    return math.lgamma(0.5 * (df + 1.0)) - math.lgamma(0.5 * df) - 0.5 * math.log(df * math.pi)


@entry
def _log_mixture(probs, x, loc, scale, df):
    T, K = probs.shape
    peak = log_constant(df) - np.log(scale)  # (K,)
    log_density = np.empty(K)
    out = np.empty(T)
    for t in range(T):
        top = -np.inf
        for k in range(K):
            z = (x[t] - loc[k]) / scale[k]
            log_density[k] = peak[k] - 0.5 * (df + 1.0) * math.log(1.0 + z * z / df)
            if probs[t, k] > 0.0 and log_density[k] > top:
                top = log_density[k]
        total = 0.0
        for k in range(K):
            if probs[t, k] != 0.0:  # a NaN weight makes the row NaN
                total += probs[t, k] * math.exp(log_density[k] - top)
        out[t] = top + math.log(total)
    return out


@entry
def _expectation(probs, x, loc, scale, df, slope_constant, moments):
    """Log-likelihood and its derivatives in df; accumulates `moments`.

    `slope_constant` is the part of d/d df common to all rows; the caller adds that of the
    curvature.
    """
    T, K = probs.shape
    peak = log_constant(df) - np.log(scale)  # (K,)
    per_scale, per_df, exponent = 1.0 / scale, 1.0 / df, 0.5 * (df + 1.0)
    offset, z, logs, density = np.empty(K), np.empty(K), np.empty(K), np.empty(K)
    log_lik = slope = curvature = 0.0
    for t in range(T):
        top = -np.inf
        for k in range(K):
            if probs[t, k] > 0.0:
                offset[k] = x[t] - loc[k]
                z[k] = (offset[k] * per_scale[k]) ** 2
                logs[k] = math.log(1.0 + z[k] * per_df)
                density[k] = peak[k] - exponent * logs[k]
                top = max(top, density[k])
        total = 0.0
        for k in range(K):
            if probs[t, k] > 0.0:
                density[k] = probs[t, k] * math.exp(density[k] - top)
                total += density[k]
        log_lik += top + math.log(total)
        per_total = 1.0 / total
        row_slope = row_bend = 0.0
        for k in range(K):
            if probs[t, k] > 0.0:
                q = density[k] * per_total
                v = 1.0 / (df + z[k])
                u = (df + 1.0) * v
                qu = q * u
                moments[0, k] += q
                moments[1, k] += qu
                moments[2, k] += qu * offset[k]
                moments[3, k] += qu * offset[k] * offset[k]
                d1 = 0.5 * (slope_constant - logs[k] + u * z[k] * per_df)
                d2 = 0.5 * z[k] * per_df * (2.0 * v - u * v - u * per_df)
                row_slope += q * d1
                row_bend += q * (d2 + d1 * d1)
        slope += row_slope
        curvature += row_bend - row_slope * row_slope
    return log_lik, slope, curvature
