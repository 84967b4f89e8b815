r"""Volatility forecasts without states: a Student-t whose scale is an EWMA of returns or of ranges.

>>> series = BarSeries(next_return, log_range, hour, next_hour)
>>> baseline = fit_volatility("range_ewma_hour", series.part(train))
>>> baseline.log_score(series)                 # nats; row i depends on bars up to i + 1, its target

Let x_i measure the movement of bar i, known at its close. The recursion and the forecast are

    s_i = decay s_{i-1} + (1 - decay) x_i^2,      r_{i+1} ~ St(0, scale sqrt(s_i), df),

the exponentially weighted variance of J.P. Morgan/Reuters, RiskMetrics Technical Document (4th
ed. 1996, section 5.2). `decay`, `scale` and `df` maximise the likelihood on train. A missing
movement leaves s unchanged, so s is carried across gaps. There are four baselines:

    ewma             x_i = r_i, the log return
    range_ewma       x_i = ln(H_i / L_i) / sqrt(4 ln 2), whose square is the variance of Parkinson
                     (1980, Journal of Business 53); zero where H = L
    ewma_hour        both with x_i / f(h_i) in place of x_i and r_{i+1} / f(h_{i+1}) in place of
    range_ewma_hour  r_{i+1}, h_i the hour in which bar i ends

The factor of an hour is f(h) = sqrt(mean of r^2 over the train bars that end in h / mean of r^2
over all train bars). The forecast of bar i + 1 uses the hour in which that bar ends, and nothing
else about it.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.special import digamma

from hmm_exp.compiling import entry, kernel
from hmm_exp.errors import FitError
from hmm_exp.judge.bar_series import BarSeries
from hmm_exp.judge.student_t import DF_BOUNDS, log_constant, scale_floor
from hmm_exp.stored.fields import Fields

VOLATILITY = ("ewma", "range_ewma", "ewma_hour", "range_ewma_hour")
HOURS = 24
LEAST_BARS = 50  # train returns in every hour that has any; fewer give no factor
DECAY_BOUNDS = (0.5, 0.9999)
RANGE_DECAY_BOUNDS = (0.05, 0.9999)  # one range tells more than one return
SCALE_BOUNDS = (0.01, 10.0)
DECAY_STARTS = (0.85, 0.95, 0.99)
N_PARAMETERS = 3


def bar_hours(
    time: pd.DatetimeIndex, step: pd.Timedelta, timezone: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`hour` and `next_hour` of a `BarSeries`.

    Parameters
    ----------
    time
        Close of every bar, UTC. A bar that ends on a full hour ends in the hour that begins then.
    step
        Length of a bar.
    timezone
        IANA name of the zone of the hours.
    """
    if step >= pd.Timedelta(days=1):
        return None, None
    hour = time.tz_convert(timezone).hour.to_numpy(np.int64)
    return hour, np.append(hour[1:], hour[-1:])  # the last bar has no next return


@dataclass(frozen=True)
class Ewma:
    """Student-t with an exponentially weighted scale.

    Attributes
    ----------
    decay
        Weight of the past in the recursion, per bar.
    scale
        Student-t scale in units of sqrt(s).
    df
        Degrees of freedom.
    initial
        s before the first bar: the mean squared movement on train.
    floor
        Smallest Student-t scale.
    """

    decay: float
    scale: float
    df: float
    initial: float
    floor: float

    def log_score(self, next_return: np.ndarray, moves: np.ndarray | None = None) -> np.ndarray:
        """Log predictive density of every bar's next return, nats, shape (N,).

        Parameters
        ----------
        next_return
            ln(C_{i+1} / C_i) of consecutive bars, shape (N,); NaN if unknown, also in the result.
        moves
            x_i of every bar, known at its close, shape (N,), NaN if unknown; by default r_i, the
            return before. Row i uses rows up to i alone, bit for bit.
        """
        returns = np.ascontiguousarray(next_return, dtype=np.float64)
        variances = _variances(_moves(returns, moves), self.decay, self.initial)
        return _log_scores(returns, variances, self.scale, self.df, self.floor)

    def variance(self, moves: np.ndarray) -> np.ndarray:
        """s_i known at every bar's close, (log return)^2 per bar, shape (N,).

        At least the square of the density's floor, so a market without movement has a variance.
        """
        least = (self.floor / self.scale) ** 2
        moves = np.ascontiguousarray(moves, dtype=np.float64)
        return np.maximum(_variances(moves, self.decay, self.initial), least)

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_stored(cls, stored: Fields) -> "Ewma":
        """The inverse of `to_dict`. Raises ModelError."""
        names = ("decay", "scale", "df", "initial", "floor")
        stored.only(list(names))
        ewma = cls(**{name: stored.number(name, above=0.0) for name in names})
        if not ewma.decay < 1.0:
            raise stored.fault("decay", "must be below 1")
        return ewma


@dataclass(frozen=True, eq=False)
class VolatilityBaseline:
    """One of the four forecasts.

    Attributes
    ----------
    ewma
        The recursion and the density, of movements and returns in units of the hour's factor.
    of_range
        Whether movements are ranges, not returns.
    factors
        Factor by hour, shape (24,), NaN for an hour without train bars; None without hours.
    """

    ewma: Ewma
    of_range: bool = False
    factors: np.ndarray | None = None

    def log_score(self, series: BarSeries) -> np.ndarray:
        """Log predictive density of every bar's next return, nats, shape (N,).

        NaN where the return is unknown or ends in an hour without a factor. Row i depends on bars
        up to i, on the hour in which bar i + 1 ends, and on its return, the target. Not to be
        changed: a series keeps it.
        """

        def score() -> np.ndarray:
            returns, moves, factor = _in_units(series, self.of_range, self.factors)
            return self.ewma.log_score(returns, moves) - np.log(factor)

        return series.once((self, "log_score"), score)

    def variance(self, series: BarSeries) -> np.ndarray:
        """Variance of the next return up to one factor, known at every bar's close, shape (N,).

        (Log return)^2 per bar; NaN where bar i + 1 ends in an hour without a factor. Not to be
        changed: a series keeps it.
        """

        def variance() -> np.ndarray:
            _, moves, factor = _in_units(series, self.of_range, self.factors)
            return self.ewma.variance(moves) * factor**2

        return series.once((self, "variance"), variance)

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON; an hour without a factor has 0."""
        stored: dict = {"ewma": self.ewma.to_dict(), "of_range": self.of_range}
        if self.factors is not None:
            stored["factors"] = np.nan_to_num(self.factors).tolist()
        return stored

    @classmethod
    def from_stored(cls, stored: Fields) -> "VolatilityBaseline":
        """The inverse of `to_dict`. Raises ModelError."""
        stored.only(["ewma", "of_range"], optional=["factors"])
        factors = stored.array("factors", (HOURS,)) if "factors" in stored else None
        if factors is not None:
            if (factors < 0.0).any():
                raise stored.fault("factors", "must not be below 0")
            factors = np.where(factors > 0.0, factors, np.nan)
        return cls(Ewma.from_stored(stored.part("ewma")), stored.truth("of_range"), factors)


def fit_volatility(name: str, train: BarSeries) -> VolatilityBaseline:
    """Fit one of `VOLATILITY` to the train bars.

    Raises
    ------
    FitError
        Too few returns, returns or ranges that do not vary, bars without a high and a low or
        without an hour, or an hour with too few returns.
    """
    of_range, factors = name.startswith("range"), None
    if of_range and train.log_range is None:
        raise FitError("the data have no high and low")
    if name.endswith("hour"):
        if train.next_hour is None:
            raise FitError("bars of a day and more have no hour")
        factors = hour_factors(train.next_return, train.next_hour)
    returns, moves, _ = _in_units(train, of_range, factors)
    return VolatilityBaseline(fit_ewma(returns, moves if of_range else None), of_range, factors)


def fit_ewma(next_return_train: np.ndarray, moves: np.ndarray | None = None) -> Ewma:
    """Fit decay, scale and df by maximum likelihood on the train bars, in time order.

    L-BFGS-B with exact gradients from several decays; the best result is kept. `moves` as in
    `Ewma.log_score`.

    Raises
    ------
    FitError
        Too few returns, or returns or movements that do not vary.
    """
    from scipy.optimize import minimize  # a fit can wait for it, the first line of a sweep not

    returns = np.ascontiguousarray(next_return_train, dtype=np.float64)
    present = returns[np.isfinite(returns)]
    if len(present) <= N_PARAMETERS:
        raise FitError(f"{len(present)} train returns are too few for an EWMA Student-t")
    floor = scale_floor(present)
    known = returns if moves is None else moves
    known = known[np.isfinite(known)]
    if not known.any():
        raise FitError(f"none of {len(known)} train bars moves")
    fixed = (float(np.mean(known**2)), floor)
    decays = DECAY_BOUNDS if moves is None else RANGE_DECAY_BOUNDS
    bounds = [_logit_pair(decays), _log_pair(SCALE_BOUNDS), _log_pair(DF_BOUNDS)]
    options = {"ftol": 1e-13, "gtol": 1e-7, "maxiter": 200}
    ends = [
        minimize(
            _objective,
            np.array([_logit(decay), math.log(0.7), math.log(4.0)]),
            args=(returns, _moves(returns, moves), len(present), fixed),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options=options,
        )
        for decay in DECAY_STARTS
    ]
    best = min(ends, key=lambda end: float(end.fun))
    return Ewma(*_parameters(best.x), *fixed)


def hour_factors(next_return: np.ndarray, next_hour: np.ndarray) -> np.ndarray:
    """Volatility of the returns that end in each hour, relative to that of all, shape (24,).

    NaN for an hour without returns.

    Raises
    ------
    FitError
        An hour has fewer than `LEAST_BARS` returns, or only returns of zero.
    """
    known = np.isfinite(next_return)
    squares, hours = next_return[known] ** 2, next_hour[known]
    counts = np.bincount(hours, minlength=HOURS)
    sums = np.bincount(hours, weights=squares, minlength=HOURS)
    for hour in np.flatnonzero(counts):
        if counts[hour] < LEAST_BARS:
            text = f"{counts[hour]} train returns end in hour {hour}"
            raise FitError(f"{text}, at least {LEAST_BARS} are needed in every hour")
        if sums[hour] == 0.0:
            raise FitError(f"all {counts[hour]} train returns that end in hour {hour} are zero")
    factors, seen = np.full(HOURS, np.nan), counts > 0
    factors[seen] = np.sqrt(sums[seen] / counts[seen] / np.mean(squares)) if seen.any() else 1.0
    return factors


def _in_units(
    series: BarSeries, of_range: bool, factors: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
    """Next returns and movements in units of their hours' factors, and the next hour's factor."""
    returns = series.next_return
    moves = _last(returns)
    if of_range:
        assert series.log_range is not None
        moves = series.log_range / math.sqrt(4.0 * math.log(2.0))
    if factors is None:
        return returns, moves, 1.0
    assert series.hour is not None
    assert series.next_hour is not None
    following = factors[series.next_hour]
    return returns / following, moves / factors[series.hour], following


def ewma_variances(moves: np.ndarray, decay: float, initial: float) -> np.ndarray:
    """s_i of the recursion after every movement, shape (N,); `initial` is s before the first."""
    return _variances(np.ascontiguousarray(moves, dtype=np.float64), decay, initial)


def _last(next_return: np.ndarray) -> np.ndarray:
    """The return of every bar itself, known at its close; NaN for the first."""
    return np.append(np.nan, next_return[:-1])


def _moves(returns: np.ndarray, moves: np.ndarray | None) -> np.ndarray:
    return _last(returns) if moves is None else np.ascontiguousarray(moves, dtype=np.float64)


def _objective(
    theta: np.ndarray,
    returns: np.ndarray,
    moves: np.ndarray,
    n_present: int,
    fixed: tuple[float, float],
) -> tuple[float, np.ndarray]:
    """Minus the mean log-likelihood and its gradient in (logit decay, ln scale, ln df)."""
    decay, scale, df = _parameters(theta)
    log_lik, by_scale, by_decay, by_df = _log_lik(returns, moves, decay, scale, df, *fixed)
    by_df += 0.5 * n_present * (digamma(0.5 * (df + 1.0)) - digamma(0.5 * df) - 1.0 / df)
    gradient = np.array([by_decay * decay * (1.0 - decay), by_scale, by_df * df])
    return -log_lik / n_present, -gradient / n_present


def _parameters(theta: np.ndarray) -> tuple[float, float, float]:
    return 1.0 / (1.0 + math.exp(-theta[0])), math.exp(theta[1]), math.exp(theta[2])


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))


def _logit_pair(bounds: tuple[float, float]) -> tuple[float, float]:
    return _logit(bounds[0]), _logit(bounds[1])


def _log_pair(bounds: tuple[float, float]) -> tuple[float, float]:
    return math.log(bounds[0]), math.log(bounds[1])


@entry
def _variances(moves, decay, initial):
    out = np.empty(len(moves))
    s = initial
    for i in range(len(moves)):
        s = _updated(s, moves[i], decay)
        out[i] = s
    return out


@kernel
def _updated(s, x, decay):
    """The EWMA variance after the movement x; a missing movement changes nothing."""
    return s if math.isnan(x) else decay * s + (1.0 - decay) * x * x


@entry
def _log_scores(next_return, variances, scale, df, floor):
    peak = log_constant(df)
    out = np.empty(len(next_return))
    for i in range(len(next_return)):
        width = max(scale * math.sqrt(variances[i]), floor)
        z = next_return[i] / width
        out[i] = peak - math.log(width) - 0.5 * (df + 1.0) * math.log(1.0 + z * z / df)
    return out


@entry
def _log_lik(returns, moves, decay, scale, df, initial, floor):
    """Log-likelihood; its derivatives in ln scale, decay and (the part of the rows) df."""
    peak = log_constant(df)
    s, ds = initial, 0.0  # ds = d s / d decay
    log_lik = by_scale = by_decay = by_df = 0.0
    for i in range(len(returns)):
        x, r = moves[i], returns[i]
        if not math.isnan(x):
            ds = s - x * x + decay * ds
            s = _updated(s, x, decay)
        if math.isnan(r):
            continue
        width = max(scale * math.sqrt(s), floor)
        z = (r / width) ** 2
        log_term = math.log(1.0 + z / df)
        log_lik += peak - math.log(width) - 0.5 * (df + 1.0) * log_term
        uz = (df + 1.0) / (df + z) * z
        by_df += 0.5 * (uz / df - log_term)
        if width > floor:
            by_scale += uz - 1.0
            by_decay += (uz - 1.0) * 0.5 * ds / s
    return log_lik, by_scale, by_decay, by_df
