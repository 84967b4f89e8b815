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
Anderson acceleration extrapolates from the last few maps (Henderson & Varadhan 2019). For it both
CM-steps start from the same E-step, with the same fixed point for half of the passes over the rows.
An extrapolation that lowers the likelihood is replaced by one CM-step after the other, so no step
lowers it.

The E-step and the log densities are computed for eight rows at a time.

L-BFGS-B in scipy is shorter and finds the same optimum on continuous returns, but a lower one (by
up to 1,400 nats) in some fits with many returns of zero.

Example
-------
>>> fit = fit_mixture(probs, returns)            # probs (T, K), returns (T,)
>>> log_mixture(probs, returns, fit.loc, fit.scale, fit.df).mean()      # nats per bar
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, zeta

from hmm_exp.compiling import entry
from hmm_exp.errors import FitError
from hmm_exp.hmm.params import DF_BOUNDS
from hmm_exp.hmm.rows import column_sums
from hmm_exp.hmm.simd import LANES, exp, fma, lane_sum, largest, load, log, splat, store

SCALE_FLOOR = 1e-2  # of the mean absolute deviation: no density collapses onto repeated values
TOLERANCE = 1e-6  # largest change by a map, loc in mean absolute deviations, ln scale, ln df
MAX_MAPS = 500
MEMORY = 4  # maps used by a step of Anderson acceleration
_FARTHEST = 50.0  # of ln scale and ln df in an extrapolation
MAX_DF_MOVE = 1.0  # of ln df in one Newton step
_LOG_ZERO = -1e5  # log probability of an impossible state: exp of it is zero


# Differences between successive points and between what the map changed in them, (2K + 1,) each.
Secants = tuple[tuple[np.ndarray, np.ndarray], ...]


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
    secants
        How the last maps changed, for the fit of a similar problem.
    """

    loc: np.ndarray
    scale: np.ndarray
    df: float
    history: np.ndarray
    secants: Secants = ()


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
    problem = Problem(Weights(probs), x, scale_floor(x))
    return _maximise(problem, _start(problem))


def fit_from(problem: "Problem", start: MixtureFit) -> MixtureFit:
    """Fit from given parameters, and from the maps of their fit. Raises FitError."""
    point = _evaluate(problem, start.loc, start.scale, start.df)
    return _maximise(problem, point, start.secants)


def log_likelihood(problem: "Problem", fit: MixtureFit) -> float:
    """Log-likelihood of given parameters, nats."""
    return _evaluate(problem, fit.loc, fit.scale, fit.df).log_lik


class Weights:
    """Weights of rows, laid out once for many fits.

    Parameters
    ----------
    probs
        Shape (T, K), complete, rows summing to one.
    """

    def __init__(self, probs: np.ndarray) -> None:
        logs = np.where(probs > 0.0, np.log(np.maximum(probs, 1e-300)), _LOG_ZERO)
        self.probs = probs
        self.logs = in_lanes(logs)  # (blocks * K, 8)
        self.present = in_lanes(np.ones((len(probs), 1)))  # (blocks, 8), 0 for filled rows


@dataclass(frozen=True, eq=False)
class Problem:
    """The data of a fit."""

    weights: Weights
    x: np.ndarray  # (T,)
    floor: float  # of the scales
    tolerance: float = TOLERANCE  # largest change by a map at which the fit ends

    @property
    def unit(self) -> float:
        """Mean absolute deviation of x, or of the rows that the floor is of."""
        return self.floor / SCALE_FLOOR

    @cached_property
    def lanes(self) -> np.ndarray:
        """x in blocks of eight, shape (blocks, 8)."""
        return in_lanes(self.x[:, None])


def in_lanes(rows: np.ndarray) -> np.ndarray:
    """Rows (T, K) in blocks of eight, shape (blocks * K, 8), the last filled with zeros."""
    n_blocks, K = -(-len(rows) // LANES), rows.shape[1]
    blocks = np.zeros((n_blocks * LANES, K))
    blocks[: len(rows)] = rows
    by_state = blocks.reshape(n_blocks, LANES, K).transpose(0, 2, 1)
    return np.ascontiguousarray(by_state).reshape(-1, LANES)


class _Point(NamedTuple):
    """Parameters with their log-likelihood, moments and derivatives."""

    loc: np.ndarray  # (K,)
    scale: np.ndarray  # (K,)
    df: float
    log_lik: float
    moments: np.ndarray  # (4, K): sums of q, q u, q u (x - loc), q u (x - loc)^2
    slope: float  # d log_lik / d df
    curvature: float  # d^2 log_lik / d df^2


def _maximise(problem: Problem, point: _Point, secants: Secants = ()) -> MixtureFit:
    """Iterate accelerated ECME maps until the parameters or the likelihood stop changing.

    For Gaussian data the likelihood is so flat in df that rounding hides the gain of a map.
    """
    history, last = [point.log_lik], None
    for _ in range(MAX_MAPS):
        loc, scale = _densities(problem, point)
        vector = _vector(problem, point)
        mapped = point._replace(loc=loc, scale=scale, df=_newton_df(point))
        change = _vector(problem, mapped) - vector
        if last is not None:
            secants = (*secants[1 - MEMORY :], (vector - last[0], change - last[1]))
        if np.abs(change).max() < problem.tolerance:
            return MixtureFit(point.loc, point.scale, point.df, np.array(history), secants)
        last, before = (vector, change), point
        point = _evaluate(problem, *_extrapolated(problem, vector, change, secants))
        if point.log_lik < before.log_lik:
            point = _better_df(problem, _better_densities(problem, before))
            if point.log_lik <= before.log_lik:
                return MixtureFit(before.loc, before.scale, before.df, np.array(history))
            secants, last = (), None
        history.append(point.log_lik)
    raise FitError(f"the Student-t fit did not converge in {MAX_MAPS} steps")


def _extrapolated(
    problem: Problem, point: np.ndarray, change: np.ndarray, secants: Secants
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fixed point (loc, scale, df) of a linear extrapolation of the last maps."""
    vector = point + change
    if secants:
        steps, bends = (np.array(parts).T for parts in zip(*secants, strict=True))
        weights = np.linalg.lstsq(bends, change, rcond=None)[0]  # bends (2K + 1, at most MEMORY)
        vector = vector - (steps + bends) @ weights
    n_states = len(point) // 2
    logs = np.clip(vector[n_states:], -_FARTHEST, _FARTHEST)  # a farther leap is refused anyway
    scale = np.maximum(np.exp(logs[:-1]), problem.floor)
    df = min(max(math.exp(logs[-1]), DF_BOUNDS[0]), DF_BOUNDS[1])
    return vector[:n_states] * problem.unit, scale, df


def _vector(problem: Problem, point: _Point) -> np.ndarray:
    """Parameters without units, (2K + 1,): loc, ln scale, ln df."""
    return np.concatenate([point.loc / problem.unit, np.log(point.scale), [math.log(point.df)]])


def _start(problem: Problem) -> _Point:
    """Start from weighted means and mean absolute deviations.

    A density without weight keeps those of all rows. At df = 3 a Student-t has a scale of 0.91
    times its mean absolute deviation.
    """
    probs, x = problem.weights.probs, problem.x
    weight = column_sums(probs)
    held = weight > 0.0
    share = (probs if held.all() else np.where(held, probs, 1.0)) / np.where(held, weight, len(x))
    loc = column_sums(share * x[:, None])
    deviation = column_sums(share * np.abs(x[:, None] - loc))
    return _evaluate(problem, loc, np.maximum(0.91 * deviation, problem.floor), 3.0)


def _evaluate(problem: Problem, loc: np.ndarray, scale: np.ndarray, df: float) -> _Point:
    """Evaluate the log-likelihood, moments and derivatives in df."""
    half, more = 0.5 * df, 0.5 * (df + 1.0)
    slope_constant = float(digamma(more) - digamma(half)) - 1.0 / df
    bend_constant = 0.5 * float(zeta(2.0, more) - zeta(2.0, half)) + 1.0 / df**2
    moments = np.zeros((4, len(loc)))
    weights, parameters = problem.weights, (loc, scale, df, slope_constant)
    log_lik, slope, curvature = _expectation(
        weights.logs, weights.present, problem.lanes, *parameters, moments
    )
    curvature += 0.5 * bend_constant * len(problem.x)
    return _Point(loc, scale, df, log_lik, moments, slope, curvature)


def _better_densities(problem: Problem, point: _Point) -> _Point:
    """CM-step for locations and scales at the point's df."""
    return _evaluate(problem, *_densities(problem, point), point.df)


def _densities(problem: Problem, point: _Point) -> tuple[np.ndarray, np.ndarray]:
    """Locations and scales of the CM-step, (K,) each."""
    weight, precision, first, second = point.moments
    held = precision > 0.0
    weight, precision = np.where(held, weight, 1.0), np.where(held, precision, 1.0)
    shift = np.where(held, first / precision, 0.0)
    spread = np.maximum(second - shift * first, 0.0)
    scale = np.sqrt(spread / precision)
    # At the floor only the unexpanded divisor keeps the likelihood from falling.
    plain = np.maximum(np.sqrt(spread / weight), problem.floor)
    scale = np.where(scale < problem.floor, plain, scale)
    return point.loc + shift, np.where(held, scale, point.scale)


def _newton_df(point: _Point) -> float:
    """Newton step in ln df, uphill and within bounds."""
    slope = point.df * point.slope
    curvature = point.df**2 * point.curvature + slope
    step = -slope / curvature if curvature < 0.0 else math.copysign(MAX_DF_MOVE, slope)
    step = min(max(step, -MAX_DF_MOVE), MAX_DF_MOVE)
    return min(max(point.df * math.exp(step), DF_BOUNDS[0]), DF_BOUNDS[1])


def _better_df(problem: Problem, point: _Point) -> _Point:
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
    """`log_mixture`; a state without probability has a log density that is out of the question."""
    T, K = probs.shape
    peak, per_scale = log_constant(df) - np.log(scale), 1.0 / scale  # (K,)
    per_df, power = 1.0 / df, 0.5 * (df + 1.0)
    rows, weights, density_of = np.zeros((1, 8)), np.zeros((K, 8)), np.empty((K, 8))
    out = np.empty(T)
    for first in range(0, T, 8):
        n_rows = min(8, T - first)
        for lane in range(n_rows):
            rows[0, lane] = x[first + lane]
            for k in range(K):
                weights[k, lane] = probs[first + lane, k]
                density_of[k, lane] = 0.0 if probs[first + lane, k] > 0.0 else -1e300
        x_now, top, total = load(rows, 0), splat(-1e300), splat(0.0)
        for k in range(K):
            z = (x_now - loc[k]) * per_scale[k]
            log_term = log(fma(z * z, per_df, 1.0))
            density = load(density_of, k) + (peak[k] - log_term * power)
            store(density_of, k, density)
            top = largest(density, top)
        for k in range(K):
            total = fma(load(weights, k), exp(load(density_of, k) - top), total)
        missing = (x_now - x_now) + (total - total)  # NaN, which `log` does not pass on, else 0
        store(rows, 0, top + log(total) + missing)
        for lane in range(n_rows):
            out[first + lane] = rows[0, lane]
    return out


@entry
def _expectation(log_probs, present, x, loc, scale, df, slope_constant, moments):
    """Log-likelihood and its derivatives in df; writes `moments` (4, K).

    `log_probs` (blocks * K, 8), `present` and `x` (blocks, 8); `present` is 0 for filled rows.
    `slope_constant` is the part of d/d df common to all rows; the caller adds that of the
    curvature.
    """
    n_blocks, K = len(x), len(loc)
    peak, per_scale = log_constant(df) - np.log(scale), 1.0 / scale  # (K,)
    per_df, power = 1.0 / df, 0.5 * (df + 1.0)
    z_of, log_of, density_of = np.empty((K, 8)), np.empty((K, 8)), np.empty((K, 8))
    sums = np.zeros((4 * K, 8))
    log_lik, slope, curvature = splat(0.0), splat(0.0), splat(0.0)
    for block in range(n_blocks):
        x_now, here, top = load(x, block), load(present, block), splat(-1e300)
        for k in range(K):
            z = (x_now - loc[k]) * per_scale[k]
            z = z * z
            log_term = log(fma(z, per_df, 1.0))
            density = load(log_probs, block * K + k) + (peak[k] - power * log_term)
            store(z_of, k, z)
            store(log_of, k, log_term)
            store(density_of, k, density)
            top = largest(density, top)
        total = splat(0.0)
        for k in range(K):
            density = exp(load(density_of, k) - top)
            store(density_of, k, density)
            total = total + density
        log_lik = fma(here, top + log(total), log_lik)
        share = here / total
        row_slope, row_bend = splat(0.0), splat(0.0)
        for k in range(K):
            q, z = load(density_of, k) * share, load(z_of, k)
            v = 1.0 / (z + df)
            u = v * (df + 1.0)
            qu = q * u
            offset = x_now - loc[k]
            store(sums, k, load(sums, k) + q)
            store(sums, K + k, load(sums, K + k) + qu)
            store(sums, 2 * K + k, fma(qu, offset, load(sums, 2 * K + k)))
            store(sums, 3 * K + k, fma(qu * offset, offset, load(sums, 3 * K + k)))
            uz = u * z * per_df
            d1 = (uz - load(log_of, k) + slope_constant) * 0.5
            d2 = z * per_df * 0.5 * (v * 2.0 - u * v - u * per_df)
            row_slope = fma(q, d1, row_slope)
            row_bend = fma(q, fma(d1, d1, d2), row_bend)
        slope = slope + row_slope
        curvature = curvature + (row_bend - row_slope * row_slope)
    for moment in range(4):
        for k in range(K):
            moments[moment, k] = lane_sum(load(sums, moment * K + k))
    return lane_sum(log_lik), lane_sum(slope), lane_sum(curvature)
