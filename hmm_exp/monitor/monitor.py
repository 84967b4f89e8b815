"""Monitor a model on new bars: compare each bar with its expectation, raise an alarm on drift.

The monitor follows the log-likelihood of every row and the log score of every next return, each
relative to the mean of its regime, and the share of time in every regime. A CUSUM chart of each
(`cusum.py`) sums the shortfall and raises an alarm beyond its threshold. An alarm depends, bit for
bit, on bars closed by its time only.

Example
-------
>>> result = monitor_bars(detector, bars)
>>> [(chart.name, chart.alarm_at) for chart in result.alarms]
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hmm_exp.detector.detector import Detector
from hmm_exp.errors import DataError
from hmm_exp.judge.bar_series import BarSeries
from hmm_exp.judge.gains import estimate_gain
from hmm_exp.judge.return_forecasts import next_returns
from hmm_exp.judge.unscored import FORECASTS
from hmm_exp.judge.volatility_baselines import VOLATILITY, bar_hours
from hmm_exp.judge.wording import WordedGain
from hmm_exp.market.bars import Bars
from hmm_exp.market.gaps import chain_steps
from hmm_exp.market.iso import iso
from hmm_exp.monitor.cusum import ControlChart
from hmm_exp.monitor.expectations import (
    Expectations,
    Observations,
    Observed,
    expectations_of,
    observe,
)


@dataclass(frozen=True)
class ChartResult:
    """One chart over the judged bars."""

    name: str  # name of the series
    # `promised`, `seen`: expected and observed mean per bar: nats, or a share of time.
    promised: float
    seen: float
    highest: float  # largest sum of the chart, as a share of its threshold; beyond 1 is an alarm
    now: float  # the sum after the last bar
    alarm_at: pd.Timestamp | None  # close of the first bar beyond the threshold, None without
    # Bar at which the sum that crossed, or else the last sum, started to grow; None at zero.
    drift_since: pd.Timestamp | None


@dataclass(frozen=True, eq=False)
class MonitorResult:
    """Series and charts over the judged bars."""

    # Index `available_at`; `log_lik, log_lik_promised, log_lik_chart`, nats and the chart's sum as
    # a share of its threshold; for every state `p_state_k` and `p_state_k_chart`.
    rows: pd.DataFrame
    # The same for the return that a base bar closes: `score, score_promised, score_chart`, and its
    # `gain` over a Student-t for all time and `ewma_gain` ... over the volatility forecasts that
    # have a fit. Empty without expected scores.
    bars: pd.DataFrame
    findings: tuple[ChartResult, ...]  # one per chart

    @property
    def alarms(self) -> list[ChartResult]:
        """Charts that crossed their threshold, by time."""
        crossed = [finding for finding in self.findings if finding.alarm_at is not None]
        return sorted(crossed, key=lambda finding: str(finding.alarm_at))

    @property
    def gains(self) -> dict[str, float]:
        """Mean gain over every baseline that scores these bars, nats per bar, by its name."""
        return {name: float(gain.mean()) for name, gain in self._gains.items()}

    @property
    def worded_gains(self) -> dict[str, WordedGain]:
        """The gains in words, by name; without those on fewer than `MIN_BARS` bars."""
        found = {name: estimate_gain(gain.to_numpy()) for name, gain in self._gains.items()}
        return {
            name: WordedGain.of(FORECASTS[name], estimate)
            for name, estimate in found.items()
            if estimate is not None
        }

    @property
    def _gains(self) -> dict[str, pd.Series]:
        columns = {"static": "gain", **{name: f"{name}_gain" for name in VOLATILITY}}
        known = {name: self.bars[column] for name, column in columns.items() if column in self.bars}
        return {name: gain for name, gain in known.items() if gain.notna().any()}


def monitor_bars(
    detector: Detector, bars: Bars, since: pd.Timestamp | None = None
) -> MonitorResult:
    """Compare the bars after a detector's training with its expectations.

    Parameters
    ----------
    bars
        New bars after at least `min_history` older ones; without these, the first new bars serve
        as history and are not judged.
    since
        Judge the bars after this instant, UTC, instead of those after the training.

    Raises
    ------
    ModelError
        When the detector has no monitoring baseline.
    HistoryError, DataError
        When there are too few bars, or none to judge.
    """
    expected = expectations_of(detector)
    table = detector.observe(bars)
    time = pd.DatetimeIndex(bars.frame.index)
    start = _start(detector, time, table.available_at[-1], since)
    steps = chain_steps(bars.time, bars.step.value, bars.gaps)
    returns = next_returns(bars.frame["close"].to_numpy(), steps)
    hours = bar_hours(time, bars.step, detector.reading.timezone)
    series = BarSeries(returns, bars.log_range, *hours)
    seen = Observations(table.less(detector.season), detector.filtered(table), time, series)
    observed = observe(detector.params, seen, expected.densities)
    rows = _rows(expected, observed, table.available_at, start)
    scored = _scored(expected, observed, seen, start)
    return MonitorResult(rows, scored, tuple(_charts(expected, detector.labels, rows, scored)))


def _start(
    detector: Detector, time: pd.DatetimeIndex, last: pd.Timestamp, since: pd.Timestamp | None
) -> pd.Timestamp:
    """Instant after which bars are judged: not before the filter has settled."""
    wanted = since if since is not None else pd.Timestamp(detector.meta["train_end"])
    start = max(wanted, time[detector.min_history - 1])
    if last <= start:
        after = "the training" if since is None else "--since"
        raise DataError(
            f"no row to judge after {iso(start)}, the end of {after} or of the first "
            f"{detector.min_history} bars: the last one is of {iso(last)}; send newer "
            "bars, or another --since"
        )
    return start


def _rows(
    expected: Expectations, observed: Observed, time: pd.DatetimeIndex, start: pd.Timestamp
) -> pd.DataFrame:
    """Log-likelihoods and regimes of the judged rows; each chart starts from zero."""
    kept = np.asarray(time > start)
    log_lik, weights, probs = (
        x[kept] for x in (observed.log_lik, observed.expected, observed.probs)
    )
    short = expected.log_lik.shortfall(log_lik, weights)
    columns = {
        "log_lik": log_lik,
        "log_lik_promised": expected.log_lik.of(weights),
        "log_lik_chart": _sums(expected.log_lik.chart, short),
    }
    for k in range(probs.shape[1]):
        columns[f"p_state_{k}"] = probs[:, k]
    for k, chart in enumerate(expected.share_charts):
        falls, rises = _sums(chart, probs[:, k]), _sums(chart.upwards, -probs[:, k])
        columns[f"p_state_{k}_chart"] = np.maximum(falls, rises)
    return pd.DataFrame(columns, index=time[kept])


def _scored(
    expected: Expectations, observed: Observed, seen: Observations, start: pd.Timestamp
) -> pd.DataFrame:
    """Scores of the judged returns at the close of the bar that makes them known."""
    time = seen.time
    if expected.score is None or observed.score is None or seen.series is None:
        return pd.DataFrame(index=time[:0])
    kept = np.append(time[1:] > start, False)
    score, known = observed.score[kept], observed.known[kept]
    columns = {
        "score": score,
        "score_promised": expected.score.of(known),
        "score_chart": _sums(expected.score.chart, expected.score.shortfall(score, known)),
    }
    if expected.static is not None:
        ones = np.ones((len(score), 1))
        static = expected.static.log_score(ones, seen.series.next_return[kept])
        columns["gain"] = score - static
    for name, baseline in expected.volatility.items():
        if seen.series.log_range is not None or not baseline.of_range:
            columns[f"{name}_gain"] = score - baseline.log_score(seen.series)[kept]
    return pd.DataFrame(columns, index=time[1:][kept[:-1]])


def _sums(chart: ControlChart, y: np.ndarray) -> np.ndarray:
    """A chart's sum as a share of its threshold."""
    return chart.path(y) / chart.threshold


def _charts(
    expected: Expectations, labels: tuple[str, ...], rows: pd.DataFrame, scored: pd.DataFrame
) -> Iterator[ChartResult]:
    yield _chart("log-likelihood", rows, "log_lik", rows["log_lik_promised"].mean())
    if len(scored):
        yield _chart("next-bar score", scored, "score", scored["score_promised"].mean())
    for k, _ in enumerate(expected.share_charts):
        yield _chart(f"time in {labels[k]}", rows, f"p_state_{k}", expected.shares[k])


def _chart(name: str, frame: pd.DataFrame, column: str, promised: float) -> ChartResult:
    path = frame[f"{column}_chart"].to_numpy()
    crossed = np.flatnonzero(path > 1.0)
    end = int(crossed[0]) if len(crossed) else len(path) - 1
    zeros = np.flatnonzero(path[: end + 1] == 0.0)
    grew = int(zeros[-1]) + 1 if len(zeros) else 0
    return ChartResult(
        name=name,
        promised=float(promised),
        seen=float(frame[column].replace([np.inf, -np.inf], np.nan).mean()),
        highest=float(path.max()),
        now=float(path[-1]),
        alarm_at=frame.index[end] if len(crossed) else None,
        drift_since=frame.index[grew] if grew <= end else None,
    )
