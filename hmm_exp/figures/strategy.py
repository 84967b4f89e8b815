"""Figure of trading rules: wealth and drawdown over the judged bars, with the regimes below."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hmm_exp.figures import palette, scales, style
from hmm_exp.figures.decimate import group_size
from hmm_exp.figures.panels import Sheet
from hmm_exp.figures.scales import Panel, cut
from hmm_exp.judge.strategy import HOLD, STRATEGIES
from hmm_exp.judge.strategy_table import EQUAL, StrategyTable, drawdown, wealth
from hmm_exp.judge.wording import percent, without_sign_of_zero

_COLORS = {  # far from the regimes' colours
    HOLD: palette.INK,
    "regime": palette.ACCENT,
    "regime_target": "#5cb8a7",
    "average": "#9a9a9a",
    "ewma": "#8e5ea2",
}
_HEIGHT, _FOOT, _STRIP = 584, 96, 12  # pixels
_LEAST = 1e-6  # of wealth on the log axis


def strategies(
    table: StrategyTable, regimes: np.ndarray, labels: Sequence[str], *, subject: str = ""
) -> Figure:
    """Wealth (log axis) and drawdown of every strategy at the first delay, after costs.

    Parameters
    ----------
    regimes
        State known at the close of every judged bar, shape (n,); -1 if unknown.
    """
    delays, names = table.rows["delay"].to_numpy(), table.rows["strategy"].to_numpy()
    first = np.flatnonzero(delays == delays[0]).tolist()
    places = {str(names[place]): place for place in first}
    courses = {name: wealth(table.net[place]) for name, place in places.items()}
    part, cost = table.rows["part"].iloc[0], table.rows["cost_bp"].iloc[0]
    figure = style.new_figure(
        _title(table.rows, places),
        "Wealth and drawdown after costs",
        f"{part}, delay {delays[0]}, {cost:g} bp one way",
        "strip: decided regime",
        subject,
        height=_HEIGHT,
    )
    style.add_key(figure, [STRATEGIES[name] for name in courses], [_COLORS[n] for n in courses])
    sheet = Sheet(figure)
    days = style.days(table.time)
    span = (float(days[0]), float(days[-1]))
    box = (style.MARGIN, _FOOT, style.WIDTH - 20, _HEIGHT - 90)
    low, high = (panel.scaled(span, (0, 1)) for panel in _unequal(box))
    high = _draw_wealth(sheet, high, days, courses)
    low = _draw_drawdown(sheet, low, days, {n: drawdown(c) for n, c in courses.items()})
    sheet.draw_title(high, "wealth, 1 before the first bar (log scale)")
    sheet.draw_title(low, "drawdown")
    sheet.draw_frames([high, low])
    _draw_regimes(sheet, low, table.time, regimes, labels)
    strip = Panel(low.left, low.bottom - _STRIP - 6, low.width, 1, low.xlim)
    sheet.draw_time(strip, int(table.time[0]), int(table.time[-1]), y=48)
    style.add_key(figure, labels, palette.regime_colors(len(labels)), below=_HEIGHT - 20)
    return figure


def _unequal(box: tuple[float, float, float, float]) -> tuple[Panel, Panel]:
    """The lower panel, a third of the height, and the upper one."""
    thirds = cut(3, 1, box, (0, 26))
    top = thirds[0].bottom + thirds[0].height - thirds[1].bottom
    left, bottom, width = thirds[1].left, thirds[1].bottom, thirds[1].width
    return thirds[2], Panel(left, bottom, width, top)


def _title(rows: pd.DataFrame, places: Mapping[str, int]) -> str:
    """Sharpe ratio and drawdown of the regimes and of buy and hold, by the rows' `places`."""
    sharpes, losses = rows["sharpe"].to_numpy(), rows["max_drawdown"].to_numpy()
    texts = []
    for name in ("regime", HOLD):
        sharpe, loss = sharpes[places[name]], losses[places[name]]
        ratio = f"{sharpe:.2f}" if np.isfinite(sharpe) else "unknown"
        ratio = without_sign_of_zero(ratio).replace("-", "−")
        texts.append(f"{STRATEGIES[name]}: Sharpe {ratio}, drawdown {percent(abs(loss))}")
    note = rows["note"].iloc[places["regime"]]
    return f"Regime {note}: {texts[1].partition(': ')[2]}" if note == EQUAL else "; ".join(texts)


def _draw_wealth(
    sheet: Sheet, panel: Panel, days: np.ndarray, courses: Mapping[str, np.ndarray]
) -> Panel:
    """Draw logarithms of the wealth; return the panel with its range."""
    logs = {name: np.log10(np.maximum(course, _LEAST)) for name, course in courses.items()}
    every = np.concatenate([[0.0], *logs.values()])
    panel = panel.scaled(panel.xlim, scales.padded(float(every.min()), float(every.max()), 0.05))
    sheet.lines([panel.at(panel.xlim, [0, 0])], palette.FAINT, linewidths=0.8)
    _draw_courses(sheet, panel, days, logs)
    low, high = 10.0 ** panel.ylim[0], 10.0 ** panel.ylim[1]
    ticks = scales.log_ticks(low, high, 6)
    if len(ticks) < 3:
        ticks = scales.round_ticks(low, high, 6)
    sheet.draw_yticks(panel, np.log10(ticks), [scales.number(tick) for tick in ticks])
    return panel


def _draw_drawdown(
    sheet: Sheet, panel: Panel, days: np.ndarray, losses: Mapping[str, np.ndarray]
) -> Panel:
    """Draw drawdowns; return the panel with its range."""
    least = min(float(loss.min()) for loss in losses.values()) or -0.01
    panel = panel.scaled(panel.xlim, (1.05 * least, 0.0))
    _draw_courses(sheet, panel, days, losses)
    ticks = scales.round_ticks(*panel.ylim, 4)
    names = [f"−{percent(-tick)}" if tick else "0" for tick in ticks]
    sheet.draw_yticks(panel, ticks, names)
    return panel


def _draw_courses(
    sheet: Sheet, panel: Panel, days: np.ndarray, courses: Mapping[str, np.ndarray]
) -> None:
    """Draw lines through the lowest point of every pixel column, regimes last and so on top."""
    starts = np.arange(0, len(days), group_size(len(days)))
    for name in sorted(courses, key=lambda name: name.startswith("regime")):
        y = np.append(np.minimum.reduceat(courses[name], starts), courses[name][-1])
        x = np.append(days[starts], days[-1])
        width = 1.8 if name in ("regime", HOLD) else 1.1
        sheet.line(*panel.at(x, y), color=_COLORS[name], linewidth=width)


def _draw_regimes(
    sheet: Sheet, panel: Panel, time: np.ndarray, regimes: np.ndarray, labels: Sequence[str]
) -> None:
    """Strip of the most frequent regime per pixel column, under the lowest panel."""
    bottom = panel.bottom - _STRIP - 4
    colors = (*palette.regime_colors(len(labels)), "white")
    sheet.states(panel, (bottom, bottom + _STRIP), time, regimes, colors)
