"""Figure of a monitored model: observed and expected values, and its control charts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmm_exp.figures.decimate import column_means, column_times
from hmm_exp.figures.panels import (
    Panel,
    add_sheet,
    cut,
    draw_frames,
    draw_title,
    draw_xticks,
    draw_yticks,
)
from hmm_exp.figures.style import (
    ACCENT,
    INK,
    MARGIN,
    WIDTH,
    add_key,
    days,
    draw_lines,
    join,
    new_figure,
    number,
    padded,
    percent,
    regime_colors,
    round_ticks,
    time_ticks,
)

_PAIR = (("log_lik", "log-likelihood", INK), ("score", "next-bar score", "#8e5ea2"))
_ALARM = "#c2185b"  # not a regime's colour
_COLUMNS = 225  # of four pixels: the likelihood of single bars is noisy
_HIGHEST = 1.5  # of a threshold: higher values are drawn at the edge


def monitor(
    rows: pd.DataFrame, bars: pd.DataFrame, labels: Sequence[str], *, subject: str = ""
) -> Figure:
    """Likelihood and score with their expectations, the regimes, and every control chart.

    Parameters
    ----------
    rows, bars
        As in `monitor.monitor.MonitorResult`.
    labels
        Names of the states, calm first.
    subject
        Name of the data, for the subtitle.
    """
    colors = regime_colors(len(labels))
    lines = [(rows, "log_lik", INK), (bars, "score", _PAIR[1][2])]
    lines += [(rows, f"p_state_{k}", color) for k, color in enumerate(colors)]
    charts = [(f[f"{name}_chart"], color) for f, name, color in lines if f"{name}_chart" in f]
    alarm = _first_alarm([chart for chart, _ in charts])
    shown = [(bars if c == "score" else rows, c, n, ink) for c, n, ink in _PAIR]
    shown = [one for one in shown if len(one[0])]
    size = -(-len(rows) // _COLUMNS)
    figure = new_figure(
        _title([chart for chart, _ in charts], labels, alarm),
        join("Observed and expected per bar", f"mean of {size} bars" if size > 1 else "", subject),
        height=150 * (len(shown) + 2) + 120,
    )
    add_key(figure, ["expected", *labels], [ACCENT, *colors])
    sheet = add_sheet(figure)
    box = (MARGIN, 44, WIDTH - 20, 150 * (len(shown) + 2) + 44)
    span = _span(rows.index)
    panels = [c.scaled(span, (0, 1)) for c in cut(len(shown) + 2, 1, box, (0, 34))]
    for i, (frame, column, name, ink) in enumerate(shown):
        draw_title(sheet, panels[i], f"{name}, nats per bar")
        panels[i] = _draw_pair(sheet, panels[i], frame, column, ink)
    _draw_regimes(sheet, panels[-2], rows, colors)
    draw_title(sheet, panels[-2], "probability of the regimes")
    panels[-1] = panels[-1].scaled(span, (0, _HIGHEST))
    name = "charts / thresholds: likelihood black, score violet, time in a regime by its colour"
    draw_title(sheet, panels[-1], name)
    _draw_charts(sheet, panels[-1], charts)
    for panel in panels:
        _mark(sheet, panel, alarm)
    draw_frames(sheet, panels)
    _draw_time(sheet, panels[-1], rows.index)
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
    return f"Alarm at {alarm:%Y-%m-%d %H:%M} UTC: {names[str(first.name)]} differs from expectation"


def _span(time: pd.Index) -> tuple[float, float]:
    """First and last instant in days; an hour around a single one."""
    first, last = days(_nanoseconds(time)[[0, -1]])
    return (first, last) if last > first else (first - 1 / 24, last + 1 / 24)


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Days and means of every pixel column, shapes (C,) and (C, len(names))."""
    values = frame[list(names)].replace([np.inf, -np.inf], np.nan).to_numpy()
    time = column_times(_nanoseconds(frame.index), _COLUMNS)
    return days(time), column_means(values, _COLUMNS)


def _draw_pair(sheet: Axes, panel: Panel, frame: pd.DataFrame, column: str, ink: str) -> Panel:
    """Draw expected below observed values; return the panel with its range."""
    x, values = _columns(frame, [f"{column}_promised", column])
    low, high = np.nanquantile(values, [0.002, 1.0])  # a single crash must not flatten the rest
    panel = panel.scaled(panel.xlim, padded(low, high))
    values = np.clip(values, *panel.ylim)
    for y, color, width in zip(values.T, (ACCENT, ink), (2.2, 1.0), strict=True):
        sheet.plot(*panel.at(x, y), color=color, linewidth=width)
    draw_yticks(sheet, panel, round_ticks(*panel.ylim, 4))
    return panel


def _draw_regimes(sheet: Axes, panel: Panel, rows: pd.DataFrame, colors: Sequence[str]) -> None:
    """Stacked probabilities, calm at the bottom."""
    x, values = _columns(rows, [f"p_state_{k}" for k in range(len(colors))])
    x, values = np.append(x, panel.xlim[1]), np.vstack([values, values[-1:]])
    heights = np.cumsum(values, axis=1)
    for k in range(len(colors))[::-1]:
        across, top = panel.at(x, heights[:, k])
        sheet.fill_between(across, panel.bottom, top, step="post", color=colors[k], linewidth=0)
    draw_yticks(sheet, panel, (0, 0.5, 1))


def _draw_charts(sheet: Axes, panel: Panel, charts: Sequence[tuple[pd.Series, str]]) -> None:
    """Charts as shares of their thresholds, the maximum of every pixel column."""
    for chart, color in reversed(charts):
        size = -(-len(chart) // (4 * _COLUMNS))
        starts = np.arange(0, len(chart), size)
        y = np.minimum(np.maximum.reduceat(chart.to_numpy(), starts), _HIGHEST)
        x = days(_nanoseconds(chart.index)[starts])
        sheet.plot(*panel.at(x, y), color=color, linewidth=1.3)
    edge = panel.at(panel.xlim, [1, 1])
    draw_lines(sheet, [edge], _ALARM, linewidths=1, linestyles=[(0, (4, 3))])
    draw_yticks(sheet, panel, (0, 0.5, 1), ("0", number(0.5), "alarm"))


def _mark(sheet: Axes, panel: Panel, alarm: pd.Timestamp | None) -> None:
    """Draw a vertical line at the first alarm."""
    if alarm is not None:
        at = float(days(np.array(alarm.as_unit("ns").value)))
        draw_lines(sheet, [panel.at([at, at], panel.ylim)], _ALARM, linewidths=1.2)


def _draw_time(sheet: Axes, panel: Panel, time: pd.Index) -> None:
    start, end = _nanoseconds(time)[[0, -1]]
    room = (end - start) // 20  # labels at the edges would overlap or leave the figure
    at, names = time_ticks(int(start + room), int(end - room), most=9)
    draw_xticks(sheet, panel, days(at), names)
    middle = panel.left + panel.width / 2
    sheet.text(middle, 22, "time (UTC)", ha="center", va="top", fontsize=9, color="#6b6b6b")


def _nanoseconds(time: pd.Index) -> np.ndarray:
    return pd.DatetimeIndex(time).as_unit("ns").asi8
