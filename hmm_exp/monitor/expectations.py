r"""Expected series of later bars under a model, stored in its detector for the monitor.

Expected per row is ln p(x_t | x_1..t-1), and per bar the log score of the next return, both by
regime: with p_t the state probabilities before the row (for the return: known at the bar's close),

    expected_t = sum_k p_tk m_k,        m_k the mean over the bars on which k was expected.

High volatility alone raises no alarm; a market that fits no regime does. The share of time in each
regime has its own chart.

The charts (`cusum.py`) are fitted on the rows after the training if there are enough, the shares on
all rows. Likelihood and score share half of the chance of a false alarm, the shares the rest.

Example
-------
>>> seen = Observations(table, detector.filtered(table), time, BarSeries(next_return))
>>> expectations = make_expectations(detector.params, seen, (train_start, train_end))
>>> observed = observe(detector.params, seen, expectations.densities)
>>> expectations.log_lik.shortfall(observed.log_lik, observed.expected)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ModelError
from hmm_exp.features.build import FeatureTable
from hmm_exp.hmm.inference import Filtered
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.rows import column_sums, finite_rows, missing_rows
from hmm_exp.judge.bar_series import BarSeries
from hmm_exp.judge.gains import hac_error
from hmm_exp.judge.residuals import predicted_probs
from hmm_exp.judge.return_forecasts import (
    Baselines,
    ReturnDensities,
    fit_baselines,
    fit_return_densities,
    known_at_close,
    mix,
)
from hmm_exp.judge.unscored import fitted
from hmm_exp.judge.volatility_baselines import VOLATILITY, VolatilityBaseline
from hmm_exp.market.iso import iso
from hmm_exp.monitor.cusum import MIN_BARS, ControlChart, fit_chart, threshold
from hmm_exp.stored.fields import Fields

CHANCE = 0.05  # of any false alarm within `cusum.HORIZON` bars
SHARE_ALLOWANCE = 0.05  # of a regime's share, in long-run deviations: regimes last, shares are slow
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Observations:
    """Rows and base bars of a market, with the model's filtered probabilities of the rows."""

    table: FeatureTable  # feature rows as the model observes them, T of them
    filtered: Filtered  # state probabilities and predictive log-likelihoods of the rows
    time: pd.DatetimeIndex  # close of every base bar, UTC, N of them
    series: BarSeries | None  # bars as the volatility forecasts read them; None without returns


@dataclass(frozen=True, eq=False)
class Observed:
    """Series that the charts follow; row and bar t depend on bars closed by t alone."""

    # ln p(x_t | x_1..t-1) of every row, nats, shape (T,); NaN where the row is missing.
    log_lik: np.ndarray
    expected: np.ndarray  # state probabilities before each row, shape (T, K)
    probs: np.ndarray  # filtered probabilities, shape (T, K)
    # Log score of every base bar's next return, nats, shape (N,); None without returns.
    score: np.ndarray | None
    # Filtered probabilities known at every bar's close, shape (N, K), NaN before the first.
    known: np.ndarray


@dataclass(frozen=True, eq=False)
class ExpectedSeries:
    """A series with an expected value for each regime."""

    mean: float  # mean of the series on the bars that the chart rests on
    by_state: np.ndarray  # its mean on the bars on which each regime was expected, shape (K,)
    chart: ControlChart  # chart of `shortfall`

    def of(self, weights: np.ndarray) -> np.ndarray:
        """Expected value of every bar, from the state probabilities expected of it (T, K)."""
        return mix(weights, self.by_state) + self.chart.mean

    def shortfall(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The series less the mean of its regimes."""
        return y - mix(weights, self.by_state)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {
            "mean": self.mean,
            "by_state": self.by_state.tolist(),
            "chart": self.chart.to_dict(),
        }

    @classmethod
    def from_stored(cls, stored: Fields, n_states: int) -> "ExpectedSeries":
        """Read what `to_dict` gave. Raises ModelError."""
        stored.only(["mean", "by_state", "chart"])
        by_state = stored.array("by_state", (n_states,))
        return cls(stored.number("mean"), by_state, ControlChart.from_stored(stored.part("chart")))


@dataclass(frozen=True, eq=False)
class Expectations:
    """Monitoring baseline of a detector."""

    # `first`, `last`: close of the first and the last row that the charts rest on.
    first: pd.Timestamp
    last: pd.Timestamp
    n_rows: int  # number of those rows
    held_out: bool  # whether the model was fitted on none of them
    log_lik: ExpectedSeries  # log-likelihood per row
    # Log score per bar; None without returns or without densities by regime.
    score: ExpectedSeries | None
    # `densities`, `static`: densities of the next return by regime, and one for all time; None
    # without a score, and `static` also where it has no fit.
    densities: ReturnDensities | None
    static: ReturnDensities | None
    shares: np.ndarray  # share of time in every regime, shape (K,)
    # Charts of the filtered probability of every regime; empty for one state.
    share_charts: tuple[ControlChart, ...]
    # The volatility forecasts that have a fit, by name.
    volatility: Mapping[str, VolatilityBaseline] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the detector's JSON."""
        optional = {"score": self.score, "yardstick": self.densities, "static": self.static}
        return {
            "first": iso(self.first),
            "last": iso(self.last),
            "n_rows": self.n_rows,
            "held_out": self.held_out,
            "log_lik": self.log_lik.to_dict(),
            **{name: part.to_dict() for name, part in optional.items() if part is not None},
            "shares": self.shares.tolist(),
            "share_charts": [chart.to_dict() for chart in self.share_charts],
            "volatility": {name: of.to_dict() for name, of in self.volatility.items()},
        }


def expectations_of(detector: Detector) -> Expectations:
    """Read the baseline of a detector. Raises ModelError when it has none, or a damaged one."""
    if not detector.expectations:
        raise ModelError(
            "this model has no monitoring baseline: an earlier version made it, or it had fewer "
            f"than {MIN_BARS} rows; train it again on at least as many"
        )
    stored, K = Fields(detector.expectations, "promise"), detector.n_states
    has_score, has_static = ("score" in stored or "yardstick" in stored), "static" in stored
    optional = ["score", "yardstick"] * (has_score or has_static) + ["static"] * has_static
    required = ["first", "last", "n_rows", "held_out", "log_lik", "shares", "share_charts"]
    stored.only([*required, *optional], optional=["volatility"])  # which older models lack
    first, last = (pd.Timestamp(stored.time(name)) for name in ("first", "last"))
    if last < first:
        raise stored.fault("last", "must not be before promise.first")
    shares = stored.array("shares", (K,))
    if (shares < 0).any() or abs(shares.sum() - 1) > _SUM_TOLERANCE:
        raise stored.fault("shares", "must be shares that sum to 1")
    charts = tuple(map(ControlChart.from_stored, stored.parts("share_charts")))
    if len(charts) != (K if K > 1 else 0):
        raise stored.fault("share_charts", "must be one for each of several states")
    return Expectations(
        first=first,
        last=last,
        n_rows=stored.whole("n_rows", least=MIN_BARS),
        held_out=stored.truth("held_out"),
        log_lik=ExpectedSeries.from_stored(stored.part("log_lik"), K),
        score=ExpectedSeries.from_stored(stored.part("score"), K) if has_score else None,
        densities=ReturnDensities.from_stored(stored.part("yardstick"), K) if has_score else None,
        static=ReturnDensities.from_stored(stored.part("static"), 1) if has_static else None,
        shares=shares,
        share_charts=charts,
        volatility=_volatility(stored.part("volatility")) if "volatility" in stored else {},
    )


def _volatility(stored: Fields) -> dict[str, VolatilityBaseline]:
    stored.only([], optional=VOLATILITY)
    names = [name for name in VOLATILITY if name in stored]
    return {name: VolatilityBaseline.from_stored(stored.part(name)) for name in names}


def make_expectations(
    params: GaussianParams,
    seen: Observations,
    fitted_on: tuple[pd.Timestamp, pd.Timestamp],
    densities: tuple[ReturnDensities, Baselines] | None = None,
    observed: Observed | None = None,
) -> Expectations | None:
    """Monitoring baseline of a fitted model from the rows and bars of its run.

    The charts are fitted on the rows after its train rows; on all rows where these are few.

    Parameters
    ----------
    seen
        Rows and bars of the run.
    fitted_on
        Start (exclusive) and end (inclusive) of the train rows. Densities of returns are fitted on
        the same span; earlier rows do not count.
    densities
        Densities of returns by regime and without regimes, if already fitted.
    observed
        Result of `observe` for these rows and densities, if already computed.

    Returns
    -------
    Expectations or None
        None when there are too few rows.
    """
    start, end = fitted_on
    time, row_time = seen.time, seen.table.available_at
    observed = observed or observe(params, seen)
    usable = (row_time > start) & np.isfinite(observed.log_lik)
    held_out = bool((usable & (row_time > end)).sum() >= MIN_BARS)
    since = end if held_out else start
    counted = usable & (row_time > since)
    if counted.sum() < MIN_BARS:
        return None
    if densities is None and seen.series is not None:
        densities = _densities(observed, time, seen.series, fitted_on)
    score = None
    if densities is not None and seen.series is not None:
        scores = observed.score
        if scores is None:
            scores = densities[0].log_score(observed.known, seen.series.next_return)
        bars = np.isfinite(scores) & (time > start)
        if (bars & (time > since)).sum() >= MIN_BARS:
            score = _expected_series(scores, observed.known, bars, time > since)
    probs = np.compress(row_time > start, observed.probs, axis=0)
    return Expectations(
        first=row_time[counted][0],
        last=row_time[counted][-1],
        n_rows=int(counted.sum()),
        held_out=held_out,
        log_lik=_expected_series(observed.log_lik, observed.expected, usable, counted),
        score=score,
        densities=densities[0] if densities and score else None,
        static=densities[1].static if densities and score else None,
        volatility=densities[1].volatility if densities and score else {},
        shares=column_sums(probs) / len(probs),
        share_charts=_share_charts(probs, params),
    )


def _densities(
    observed: Observed,
    time: pd.DatetimeIndex,
    series: BarSeries,
    fitted_on: tuple[pd.Timestamp, pd.Timestamp],
) -> tuple[ReturnDensities, Baselines] | None:
    """Densities of the train returns by regime and without; None without the former."""
    start, end = fitted_on
    inside = np.asarray(time > start) & np.append(time[1:] <= end, False)
    returns = np.where(inside, series.next_return, np.nan)
    by_regime = fitted("model", {}, fit_return_densities, observed.known, returns)
    if by_regime is None:
        return None
    return by_regime, fit_baselines(series.part(inside))


def observe(
    params: GaussianParams, seen: Observations, densities: ReturnDensities | None = None
) -> Observed:
    """Series of rows and, with densities of returns, of base bars."""
    table, probs = seen.table, seen.filtered.probs
    row_time = table.available_at.as_unit("ns").asi8
    known = known_at_close(seen.time.as_unit("ns").asi8, row_time, probs)
    score = None
    if densities is not None and seen.series is not None:
        score = densities.log_score(known, seen.series.next_return)
    return Observed(
        log_lik=with_gaps(seen.filtered.log_lik, table),
        expected=predicted_probs(params, table.steps, probs),
        probs=probs,
        score=score,
        known=known,
    )


def with_gaps(log_lik: np.ndarray, table: FeatureTable) -> np.ndarray:
    """Log-likelihood of every row, NaN where the row is missing."""
    return np.where(missing_rows(table.X), np.nan, log_lik)


def _expected_series(
    y: np.ndarray, weights: np.ndarray, usable: np.ndarray, counted: np.ndarray
) -> ExpectedSeries:
    """Means by regime over all usable bars; the chart over the counted ones."""
    usable = usable & finite_rows(weights)
    counted = usable & counted
    known, by_row = np.compress(usable, y), np.compress(usable, weights, axis=0)
    mass, sums = column_sums(by_row), known @ by_row
    by_state = np.where(mass > 1.0, sums / np.maximum(mass, 1.0), known.mean())
    later = np.compress(counted, y)
    expected = mix(np.compress(counted, weights, axis=0), by_state)
    chart = fit_chart(later - expected, chance=0.25 * CHANCE)
    return ExpectedSeries(float(later.mean()), by_state, chart)


def _share_charts(probs: np.ndarray, params: GaussianParams) -> tuple[ControlChart, ...]:
    """Chart of every regime's probability, fitted on all rows."""
    n_rows, n_states = probs.shape
    if n_states == 1:
        return ()
    allowance = SHARE_ALLOWANCE + 1.0 / np.sqrt(n_rows)
    height = threshold(0.5 * CHANCE / (2 * n_states), allowance)  # up and down
    chain = _chain_spread(params)
    return tuple(
        ControlChart(
            mean=float(p.mean()),
            spread=max(float(chain[k]), hac_error(p) * float(np.sqrt(n_rows))),
            allowance=float(allowance),
            threshold=height,
        )
        for k, p in enumerate(np.ascontiguousarray(probs.T))
    )


def _chain_spread(params: GaussianParams) -> np.ndarray:
    """Long-run deviation of the time in each state under the chain itself, shape (K,).

    pi_k (2 z_kk - 1 - pi_k) with the fundamental matrix Z (Kemeny & Snell 1960, theorem 4.6.1).
    """
    share = params.stationary()
    fundamental = np.linalg.inv(np.eye(params.n_states) - params.transmat + share)
    return np.sqrt(np.maximum(share * (2.0 * np.diag(fundamental) - 1.0 - share), 0.0))
