r"""What a model promises of bars to come, kept in its detector so that it can be held to it.

Per row ln p(x_t | x_1..t-1) and per bar the log score of the next return are promised by regime:
with p_t what was expected of the regimes before the row (for the return: known at the bar's close),

    promised_t = sum_k p_tk m_k,        m_k the mean over the bars on which k was expected.

A turbulent spell is then no broken promise; a market that fits no regime is. That it stays longer
in a regime than it used to is a promise of its own: the share of time in each of them.

The charts (`cusum.py`) rest on rows that the model was not fitted on, the shares on all rows. Half
of the chance of a false alarm belongs to likelihood and score, half to the shares.

Example
-------
>>> promise = make_expectations(detector, table, time, next_return, (train_start, train_end))
>>> seen = observe(detector, promise.yardstick, table, time, next_return)
>>> promise.log_lik.chart.path(promise.log_lik.shortfall(seen.log_lik, seen.expected))
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ModelError
from hmm_exp.features.build import FeatureTable
from hmm_exp.hmm.inference import predict
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.judge.gains import hac_error
from hmm_exp.judge.return_forecasts import (
    ReturnDensities,
    fit_return_densities,
    fit_static,
    known_at_close,
    mix,
)
from hmm_exp.judge.unscored import Unscored, fitted
from hmm_exp.monitor.cusum import MIN_BARS, ControlChart, fit_chart, threshold
from hmm_exp.stored.fields import Fields

CHANCE = 0.05  # of any false alarm within `cusum.HORIZON` bars
SHARE_ALLOWANCE = 0.05  # of a regime's share, in long-run deviations: regimes last, shares are slow
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Observed:
    """What a model says of some rows and bars; row and bar t rest on what was closed by t alone.

    Attributes
    ----------
    log_lik
        ln p(x_t | x_1..t-1) of every row, nats, shape (T,); NaN where the row is missing.
    expected
        Probabilities of the regimes before the row was seen, shape (T, K).
    probs
        Filtered probabilities, shape (T, K).
    score
        Log score of every base bar's next return, nats, shape (N,); None without returns.
    known
        Filtered probabilities known at every bar's close, shape (N, K), NaN before the first.
    """

    log_lik: np.ndarray
    expected: np.ndarray
    probs: np.ndarray
    score: np.ndarray | None
    known: np.ndarray


@dataclass(frozen=True, eq=False)
class ExpectedSeries:
    """A series that is promised by regime.

    Attributes
    ----------
    mean
        Of the series on the bars that the promise rests on.
    by_state
        Its mean on the bars on which each regime was expected, shape (K,).
    chart
        Of what `shortfall` gives.
    """

    mean: float
    by_state: np.ndarray
    chart: ControlChart

    def of(self, weights: np.ndarray) -> np.ndarray:
        """What is promised of every bar, from the regimes expected of it (T, K)."""
        return mix(weights, self.by_state) + self.chart.mean

    def shortfall(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """What the chart watches: the series less what its regime lets expect."""
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
    """All that a detector promises.

    Attributes
    ----------
    first, last
        Close of the first and the last row that the charts rest on.
    n_rows
        How many those are.
    held_out
        Whether the model was fitted on none of them.
    log_lik
        Per row.
    score
        Per bar; None where there were no returns or they have no densities by regime, and then
        neither are the densities.
    yardstick, static
        Densities of the next return by regime, and for all time; `static` is None where it has no
        fit.
    shares
        Of time in every regime, shape (K,).
    share_charts
        Of the filtered probability of every regime; empty for one state.
    """

    first: pd.Timestamp
    last: pd.Timestamp
    n_rows: int
    held_out: bool
    log_lik: ExpectedSeries
    score: ExpectedSeries | None
    yardstick: ReturnDensities | None
    static: ReturnDensities | None
    shares: np.ndarray
    share_charts: tuple[ControlChart, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the detector's JSON."""
        optional = {"score": self.score, "yardstick": self.yardstick, "static": self.static}
        return {
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "n_rows": self.n_rows,
            "held_out": self.held_out,
            "log_lik": self.log_lik.to_dict(),
            **{name: part.to_dict() for name, part in optional.items() if part is not None},
            "shares": self.shares.tolist(),
            "share_charts": [chart.to_dict() for chart in self.share_charts],
        }


def expectations_of(detector: Detector) -> Expectations:
    """Read the promise in a detector. Raises ModelError when there is none, or it is damaged."""
    if not detector.promise:
        raise ModelError(
            "this model carries no promise to watch: an earlier version made it, or it had fewer "
            f"than {MIN_BARS} rows; train it again on at least as many"
        )
    stored, K = Fields(detector.promise, "promise"), detector.n_states
    has_score, has_static = ("score" in stored or "yardstick" in stored), "static" in stored
    optional = ["score", "yardstick"] * (has_score or has_static) + ["static"] * has_static
    stored.only(
        ["first", "last", "n_rows", "held_out", "log_lik", "shares", "share_charts", *optional]
    )
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
        yardstick=ReturnDensities.from_stored(stored.part("yardstick"), K) if has_score else None,
        static=ReturnDensities.from_stored(stored.part("static"), 1) if has_static else None,
        shares=shares,
        share_charts=charts,
    )


def make_expectations(
    detector: Detector,
    table: FeatureTable,
    time: pd.DatetimeIndex,
    next_return: np.ndarray | None,
    fitted_on: tuple[pd.Timestamp, pd.Timestamp],
    densities: tuple[ReturnDensities, ReturnDensities | None] | None = None,
) -> Expectations | None:
    """What a fitted detector promises, from the rows and bars of its run.

    Rows after those that it was fitted on carry the charts, all rows where too few are after.

    Parameters
    ----------
    table, time, next_return
        Rows; close of every base bar, and the log return after it, NaN where none.
    fitted_on
        Where the train rows begin (exclusive) and end (inclusive). Densities of returns are
        fitted on the same; what is before counts for nothing.
    densities
        Of returns by regime and for all time, where they have been fitted before.

    Returns
    -------
    Expectations or None
        None when there are too few rows.
    """
    start, end = fitted_on
    row_time = table.available_at
    seen = observe(detector, None, table, time, next_return)
    usable = (row_time > start) & np.isfinite(seen.log_lik)
    held_out = bool((usable & (row_time > end)).sum() >= MIN_BARS)
    since = end if held_out else start
    counted = usable & (row_time > since)
    if counted.sum() < MIN_BARS:
        return None
    if densities is None and next_return is not None:
        densities = _densities(seen, time, next_return, fitted_on)
    score = None
    if densities is not None and next_return is not None:
        scores = densities[0].log_score(seen.known, next_return)
        bars = np.isfinite(scores) & (time > start)
        if (bars & (time > since)).sum() >= MIN_BARS:
            score = _promised(scores, seen.known, bars, time > since)
    return Expectations(
        first=row_time[counted][0],
        last=row_time[counted][-1],
        n_rows=int(counted.sum()),
        held_out=held_out,
        log_lik=_promised(seen.log_lik, seen.expected, usable, counted),
        score=score,
        yardstick=densities[0] if densities and score else None,
        static=densities[1] if densities and score else None,
        shares=seen.probs[row_time > start].mean(axis=0),
        share_charts=_share_charts(seen.probs[row_time > start], detector.params),
    )


def _densities(
    seen: "Observed",
    time: pd.DatetimeIndex,
    next_return: np.ndarray,
    fitted_on: tuple[pd.Timestamp, pd.Timestamp],
) -> tuple[ReturnDensities, ReturnDensities | None] | None:
    """Densities of the train returns by regime and for all time; None without the former."""
    start, end = fitted_on
    inside = (time > start) & np.append(time[1:] <= end, False)
    returns = np.where(inside, next_return, np.nan)
    unscored: Unscored = {}
    by_regime = fitted("model", unscored, fit_return_densities, seen.known, returns)
    if by_regime is None:
        return None
    return by_regime, fitted("static", unscored, fit_static, returns)


def observe(
    detector: Detector,
    yardstick: ReturnDensities | None,
    table: FeatureTable,
    time: pd.DatetimeIndex,
    next_return: np.ndarray | None,
) -> Observed:
    """What a detector says of rows and, with densities of returns, of base bars."""
    filtered = detector.filtered(table)
    row_time = table.available_at.as_unit("ns").asi8
    known = known_at_close(time.as_unit("ns").asi8, row_time, filtered.probs)
    score = None
    if yardstick is not None and next_return is not None:
        score = yardstick.log_score(known, next_return)
    missing = np.isnan(table.X).any(axis=1)
    return Observed(
        log_lik=np.where(missing, np.nan, filtered.log_lik),
        expected=_expected(detector.params, filtered.probs, table.steps),
        probs=filtered.probs,
        score=score,
        known=known,
    )


def _expected(params: GaussianParams, probs: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Probabilities of the regimes of every row as they were before it, shape (T, K)."""
    expected = np.tile(params.stationary(), (len(probs), 1))
    before = np.maximum(np.arange(len(probs)) - 1, 0)
    later = np.arange(len(probs)) > 0
    for step in np.unique(steps[steps > 0]):
        rows = (steps == step) & later
        expected[rows] = predict(params.transmat, probs[before[rows]], int(step))
    return expected


def _promised(
    y: np.ndarray, weights: np.ndarray, usable: np.ndarray, counted: np.ndarray
) -> ExpectedSeries:
    """Means by regime over all usable bars, the chart from those that count."""
    usable = usable & np.isfinite(weights).all(axis=1)
    counted = usable & counted
    mass = weights[usable].sum(axis=0)
    sums = (weights[usable] * y[usable, None]).sum(axis=0)
    by_state = np.where(mass > 1.0, sums / np.maximum(mass, 1.0), y[usable].mean())
    chart = fit_chart(y[counted] - mix(weights[counted], by_state), chance=0.25 * CHANCE)
    return ExpectedSeries(float(y[counted].mean()), by_state, chart)


def _share_charts(probs: np.ndarray, params: GaussianParams) -> tuple[ControlChart, ...]:
    """A chart of every regime's probability; all rows, for shares are slow to be known."""
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
    """Long-run deviation of the time in each state that the chain itself has, shape (K,).

    pi_k (2 z_kk - 1 - pi_k) with the fundamental matrix Z (Kemeny & Snell 1960, theorem 4.6.1).
    """
    share = params.stationary()
    fundamental = np.linalg.inv(np.eye(params.n_states) - params.transmat + share)
    return np.sqrt(np.maximum(share * (2.0 * np.diag(fundamental) - 1.0 - share), 0.0))
