"""Figure of a monitored model: observed and expected values, and its control charts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hmm_exp.figures import palette, scales, style
from hmm_exp.figures.decimate import column_means, column_times
from hmm_exp.figures.panels import Sheet
from hmm_exp.figures.scales import Panel, cut
from hmm_exp.judge.wording import percent
from hmm_exp.market.iso import iso

_PAIR = (("log_lik", "log-likelihood", palette.INK), ("score", "next-bar score", "#8e5ea2"))
_ALARM = "#c2185b"  # not a regime's colour
_COLUMNS = 225  # of four pixels: the likelihood of single bars is noisy
_HIGHEST = 100.0  # thresholds: higher values are drawn at the edge
_DEEP = 1.5  # times the usual range: lower values are left out
_TICKS = (1.0, 0.0, 0.1, 3.0, 10.0, 30.0, 100.0, 0.5)  # the most important first


def monitor(
    rows: pd.DataFrame, bars: pd.DataFrame, labels: Sequence[str], *, subject: str = ""
) -> Figure:
    """Likelihood and score with their expectations, the regimes, and every control chart.

    `rows` and `bars` are those of a `monitor.monitor.MonitorResult`.
    """
    colors = palette.regime_colors(len(labels))
    lines = [(rows, "log_lik", palette.INK), (bars, "score", _PAIR[1][2])]
    lines += [(rows, f"p_state_{k}", color) for k, color in enumerate(colors)]
    charts = [(f[f"{name}_chart"], color) for f, name, color in lines if f"{name}_chart" in f]
    alarm = _first_alarm([chart for chart, _ in charts])
    shown = [(bars if c == "score" else rows, c, n, ink) for c, n, ink in _PAIR]
    shown = [one for one in shown if len(one[0])]
    size = -(-len(rows) // _COLUMNS)
    figure = style.new_figure(
        _title([chart for chart, _ in charts], labels, alarm),
        "Observed and expected per bar",
        f"mean of {size} bars" if size > 1 else "",
        subject,
        height=150 * (len(shown) + 2) + 120,
    )
    style.add_key(figure, ["expected", *labels], [palette.ACCENT, *colors])
    sheet = Sheet(figure)
    box = (style.MARGIN, 44, style.WIDTH - 20, 150 * (len(shown) + 2) + 44)
    ends = _nanoseconds(rows.index)[[0, -1]]
    first, last = style.days(ends)
    span = (first, last) if last > first else (first - 1 / 24, last + 1 / 24)
    panels = [c.scaled(span, (0, 1)) for c in cut(len(shown) + 2, 1, box, (0, 34))]
    for i, (frame, column, name, ink) in enumerate(shown):
        panels[i], beyond = _draw_pair(sheet, panels[i], frame, column, ink)
        sheet.draw_title(panels[i], f"{name}, nats per bar", beyond)
    _draw_regimes(sheet, panels[-2], rows, colors)
    sheet.draw_title(panels[-2], "probability of the regimes")
    panels[-1], beyond = _draw_charts(sheet, panels[-1], charts)
    inks = "likelihood black, score violet, time in a regime by its colour"
    sheet.draw_title(panels[-1], f"charts / thresholds, square-root scale: {inks}", beyond)
    if alarm is not None:
        at = float(style.days(np.array(alarm.as_unit("ns").value)))
        marks = [panel.at([at, at], panel.ylim) for panel in panels]
        sheet.lines(marks, _ALARM, linewidths=1.2)
    sheet.draw_frames(panels)
    sheet.draw_time(panels[-1], int(ends[0]), int(ends[1]), y=22)
    return figure


def _first_alarm(charts: Sequence[pd.Series]) -> pd.Timestamp | None:
    crossed = [chart.index[chart.to_numpy() > 1.0] for chart in charts]
    return min((times[0] for times in crossed if len(times)), default=None)


def _title(charts: Sequence[pd.Series], labels: Sequence[str], alarm: pd.Timestamp | None) -> str:
    """Name the first chart that alarmed, or the highest chart."""
    if alarm is None:
        highest = percent(max(float(chart.max()) for chart in charts))
        return f"No alarm: the highest chart reached {highest} of its threshold"
    first = next(chart for chart in charts if _first_alarm([chart]) == alarm)
    names = {f"{column}_chart": name for column, name, _ in _PAIR}
    names |= {f"p_state_{k}_chart": f"time in {label}" for k, label in enumerate(labels)}
    return f"Alarm at {iso(alarm)}: {names[str(first.name)]} differs from expectation"


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Days and means of every pixel column, shapes (C,) and (C, len(names))."""
    values = frame[list(names)].replace([np.inf, -np.inf], np.nan).to_numpy()
    time = column_times(_nanoseconds(frame.index), _COLUMNS)
    return style.days(time), column_means(values, _COLUMNS)


def _draw_pair(
    sheet: Sheet, panel: Panel, frame: pd.DataFrame, column: str, ink: str
) -> tuple[Panel, str]:
    """Draw expected below observed values; the panel with its range, and what it leaves out."""
    x, values = _columns(frame, [f"{column}_promised", column])
    least, low, high = np.nanquantile(values, [0.0, 0.002, 1.0])
    if high - least < _DEEP * (high - low):  # a single crash must not flatten the rest
        low = least
    panel = panel.scaled(panel.xlim, scales.padded(low, high))
    below = values[:, 1] < panel.ylim[0]  # NaN is not below
    values = np.clip(values, *panel.ylim)
    for y, color, width in zip(values.T, (palette.ACCENT, ink), (2.2, 1.0), strict=True):
        sheet.line(*panel.at(x, y), color=color, linewidth=width)
    edge = panel.at(x[below], values[below, 1])
    sheet.marks(*edge, marker="v", color=ink, markersize=5)
    sheet.draw_yticks(panel, scales.round_ticks(*panel.ylim, 4))
    notes = {"below the axis": below.sum(), "impossible": np.isinf(frame[column]).sum()}
    return panel, ", ".join(f"{n:,} {what}" for what, n in notes.items() if n)


def _draw_regimes(sheet: Sheet, panel: Panel, rows: pd.DataFrame, colors: Sequence[str]) -> None:
    """Stacked probabilities, calm at the bottom."""
    x, values = _columns(rows, [f"p_state_{k}" for k in range(len(colors))])
    across, heights = panel.x(np.append(x, panel.xlim[1])), np.cumsum(values, axis=1)
    for k in range(len(colors))[::-1]:
        top = panel.y(heights[:, k])
        sheet.boxes(across[:-1], across[1:], panel.bottom, top, colors[k])
    sheet.draw_yticks(panel, (0, 0.5, 1))


def _draw_charts(
    sheet: Sheet, panel: Panel, charts: Sequence[tuple[pd.Series, str]]
) -> tuple[Panel, str]:
    """Charts as shares of their thresholds, the maximum of every pixel column.

    Square roots show quiet charts and loud alarms in one panel.
    """
    highest = max(float(chart.max()) for chart, _ in charts)
    panel = panel.scaled(panel.xlim, (0.0, np.sqrt(1.15 * np.clip(highest, 1.0, _HIGHEST))))
    for chart, color in reversed(charts):
        size = -(-len(chart) // (4 * _COLUMNS))
        starts = np.arange(0, len(chart), size)
        y = np.sqrt(np.minimum(np.maximum.reduceat(chart.to_numpy(), starts), _HIGHEST))
        x = style.days(_nanoseconds(chart.index)[starts])
        sheet.line(*panel.at(x, y), color=color, linewidth=1.3)
    edge = panel.at(panel.xlim, [1, 1])
    sheet.lines([edge], _ALARM, linewidths=1, linestyles=[(0, (4, 3))])
    ticks = _apart(panel)
    names = ["alarm" if tick == 1 else scales.number(tick) for tick in ticks]
    sheet.draw_yticks(panel, np.sqrt(ticks), names)
    beyond = sum(int((chart > _HIGHEST).sum()) for chart, _ in charts)
    return panel, f"{beyond:,} values above {_HIGHEST:g} at the edge" if beyond else ""


def _apart(panel: Panel) -> list[float]:
    """Ticks of the charts that have room."""
    kept: list[float] = []
    for tick in _TICKS:
        near = [abs(panel.y(np.sqrt(tick)) - panel.y(np.sqrt(other))) for other in kept]
        if np.sqrt(tick) <= panel.ylim[1] and min(near, default=np.inf) > 15:
            kept.append(tick)
    return sorted(kept)


def _nanoseconds(time: pd.Index) -> np.ndarray:
    return pd.DatetimeIndex(time).as_unit("ns").asi8
