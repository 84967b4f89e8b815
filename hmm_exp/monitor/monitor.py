"""A model held to its promise: every new bar against what was promised of it, and an alarm.

Watched are the log-likelihood of every row and the log score of every next return, each against
what was promised of a bar in its regime, and the share of time in every regime. A chart for each
adds up what falls short (`cusum.py`); one that crosses its threshold is an alarm. All is causal: an
alarm at a time rests on bars closed by then, bit for bit.

Example
-------
>>> watched = watch(detector, bars)
>>> [(finding.name, finding.alarm_at) for finding in watched.alarms]
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hmm_exp.detector.detector import Detector
from hmm_exp.errors import DataError
from hmm_exp.judge.return_forecasts import next_returns
from hmm_exp.market.bars import Bars
from hmm_exp.market.gaps import chain_steps
from hmm_exp.monitor.cusum import ControlChart
from hmm_exp.monitor.expectations import Expectations, Observed, expectations_of, observe


@dataclass(frozen=True)
class ChartResult:
    """One chart over the judged bars.

    Attributes
    ----------
    name
        What is watched.
    promised, seen
        Its mean per bar: nats, or a share of time.
    highest
        Largest sum of the chart, as a share of its threshold; beyond 1 is an alarm.
    now
        The sum after the last bar.
    alarm_at
        Close of the first bar beyond the threshold, None without.
    drift_since
        Where the sum that crossed, or the present one, began to grow; None when it is at zero.
    """

    name: str
    promised: float
    seen: float
    highest: float
    now: float
    alarm_at: pd.Timestamp | None
    drift_since: pd.Timestamp | None


@dataclass(frozen=True, eq=False)
class MonitorResult:
    """What was seen of the judged bars.

    Attributes
    ----------
    rows
        Index `available_at`; `log_lik, log_lik_promised, log_lik_chart`, nats and the chart's sum
        as a share of its threshold; for every state `p_state_k` and `p_state_k_chart`.
    bars
        The same of the return that a base bar closes: `score, score_promised, score_chart`, and
        its `gain` over a Student-t for all time where that has a fit. Empty where nothing is
        promised of returns.
    findings
        One per chart.
    """

    rows: pd.DataFrame
    bars: pd.DataFrame
    findings: tuple[ChartResult, ...]

    @property
    def alarms(self) -> list[ChartResult]:
        """The charts that crossed their threshold, the first to do so first."""
        crossed = [finding for finding in self.findings if finding.alarm_at is not None]
        return sorted(crossed, key=lambda finding: str(finding.alarm_at))


def watch(detector: Detector, bars: Bars, since: pd.Timestamp | None = None) -> MonitorResult:
    """Hold a detector to its promise on the bars after its training.

    Parameters
    ----------
    bars
        New bars and, before them, at least `min_history`; where those lack, the first of the new
        ones serve as such and are not judged.
    since
        Judge the bars after this instant, UTC, and not those after the training.

    Raises
    ------
    ModelError
        When the detector carries no promise.
    HistoryError, DataError
        When there are too few bars, or none to judge.
    """
    promise = expectations_of(detector)
    table = detector.observe(bars)
    time = pd.DatetimeIndex(bars.frame.index)
    start = _start(detector, time, table.available_at[-1], since)
    steps = chain_steps(bars.time, bars.step.value, bars.gaps)
    returns = next_returns(bars.frame["close"].to_numpy(), steps)
    seen = observe(detector, promise.yardstick, table, time, returns)
    rows = _rows(promise, seen, table.available_at, start)
    scored = _scored(promise, seen, time, returns, start)
    return MonitorResult(rows, scored, tuple(_findings(promise, detector.labels, rows, scored)))


def _start(
    detector: Detector,
    time: pd.DatetimeIndex,
    last: pd.Timestamp,
    since: pd.Timestamp | None,
) -> pd.Timestamp:
    """Instant after which bars are judged: not before the filter has settled."""
    wanted = since if since is not None else pd.Timestamp(detector.meta["train_end"])
    start = max(wanted, time[detector.min_history - 1])
    if last <= start:
        after = "the training" if since is None else "--since"
        raise DataError(
            f"no row to judge after {start:%Y-%m-%d %H:%M} UTC, the end of {after} or of the first "
            f"{detector.min_history} bars: the last one is of {last:%Y-%m-%d %H:%M}; send newer "
            "bars, or another --since"
        )
    return start


def _rows(
    promise: Expectations, seen: Observed, time: pd.DatetimeIndex, start: pd.Timestamp
) -> pd.DataFrame:
    """Likelihoods and regimes of the judged rows, each chart from zero at the first."""

    kept = np.asarray(time > start)
    log_lik, expected, probs = (x[kept] for x in (seen.log_lik, seen.expected, seen.probs))
    short = promise.log_lik.shortfall(log_lik, expected)
    columns = {
        "log_lik": log_lik,
        "log_lik_promised": promise.log_lik.of(expected),
        "log_lik_chart": _sums(promise.log_lik.chart, short),
    }
    for k in range(probs.shape[1]):
        columns[f"p_state_{k}"] = probs[:, k]
    for k, chart in enumerate(promise.share_charts):
        falls, rises = _sums(chart, probs[:, k]), _sums(chart.upwards, -probs[:, k])
        columns[f"p_state_{k}_chart"] = np.maximum(falls, rises)
    return pd.DataFrame(columns, index=time[kept])


def _scored(
    promise: Expectations,
    seen: Observed,
    time: pd.DatetimeIndex,
    returns: np.ndarray,
    start: pd.Timestamp,
) -> pd.DataFrame:
    """Scores of the judged returns at the close of the bar that makes them known."""

    if promise.score is None or seen.score is None:
        return pd.DataFrame(index=time[:0])
    kept = np.append(time[1:] > start, False)
    score, known = seen.score[kept], seen.known[kept]
    columns = {
        "score": score,
        "score_promised": promise.score.of(known),
        "score_chart": _sums(promise.score.chart, promise.score.shortfall(score, known)),
    }
    if promise.static is not None:
        static = promise.static.log_score(np.ones((len(score), 1)), returns[kept])
        columns["gain"] = score - static
    return pd.DataFrame(columns, index=time[1:][kept[:-1]])


def _sums(chart: ControlChart, y: np.ndarray) -> np.ndarray:
    """A chart's sum as a share of its threshold."""
    return chart.path(y) / chart.threshold


def _findings(
    promise: Expectations, labels: tuple[str, ...], rows: pd.DataFrame, scored: pd.DataFrame
) -> Iterator[ChartResult]:
    yield _finding("log-likelihood", rows, "log_lik", rows["log_lik_promised"].mean())
    if len(scored):
        yield _finding("next-bar score", scored, "score", scored["score_promised"].mean())
    for k, _ in enumerate(promise.share_charts):
        yield _finding(f"time in {labels[k]}", rows, f"p_state_{k}", promise.shares[k])


def _finding(name: str, frame: pd.DataFrame, column: str, promised: float) -> ChartResult:
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
