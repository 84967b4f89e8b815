"""Small static plots of a report, as lines for an SVG that the page stretches to its width.

A line is in thousandths of the plot, from its upper left corner; the style sheet gives its role a
colour in the light and the dark theme, and keeps strokes and dots as they are while the plot is
stretched. Texts of the axes are in percent of the plot, for elements of the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hmm_exp.figures.scales import Panel, number, round_ticks
from hmm_exp.judge.residuals import ResidualLimits

_REACH = 4.1  # of a quantile plot: points beyond it are drawn at its edge
_SHIFT = 0.2  # of the stems of a series and of its squares, lags
_LAGS = (1, 5, 10, 15, 20)


@dataclass(frozen=True)
class Line:
    """Lines of one colour: `role` and `kind` (hair, line, stems, dots), and an SVG path."""

    role: str
    kind: str
    path: str


@dataclass(frozen=True)
class Plot:
    """A plot: its lines from back to front, and its ticks as percent and text."""

    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_label: str
    height: int  # pixels


# Thousandths of the plot, downwards as in SVG.
_WHOLE = Panel(left=0.0, bottom=1000.0, width=1000.0, height=-1000.0)


def quantiles(rows: pd.DataFrame) -> tuple[Plot, str]:
    """Normal quantile plot of residuals, and a note on what is drawn at its edge.

    A correct model is on the diagonal.
    """
    panel = _WHOLE.scaled((-4.2, 4.2), (-4.2, 4.2))
    shown = rows[rows["kind"] == "quantile"]
    x, y = shown["x"].to_numpy(), shown["value"].clip(-_REACH, _REACH).to_numpy()
    lines = [
        Line("grey", "line", _segments(panel, [-4.2], [-4.2], [4.2], [4.2])),
        Line("ink", "dots", _segments(panel, x, y, x, y)),
    ]
    beyond = int((shown["value"].abs() > _REACH).sum())
    note = f"{beyond} of {len(shown)} points beyond ±{_REACH:g}, at the edge" if beyond else ""
    return _plot(panel, lines, (-3, 0, 3), (-3, 0, 3), "normal quantile", height=146), note


def autocorrelations(rows: pd.DataFrame) -> Plot:
    """Autocorrelations of residuals and their squares, with the limits of a correct model."""
    limit = ResidualLimits().memory
    reach = max(1.25 * limit, 1.1 * float(rows.loc[rows["kind"] != "quantile", "value"].max()))
    lowest = -1.25 * limit
    panel = _WHOLE.scaled((0.0, _LAGS[-1] + 1.0), (lowest, reach))
    lines = [_level(panel, *at) for at in (("grey", 0.0), ("faint", limit), ("faint", -limit))]
    for kind, role, shift in (("memory", "ink", -_SHIFT), ("square_memory", "square", _SHIFT)):
        shown = rows[rows["kind"] == kind]
        x, y = shown["x"].to_numpy() + shift, shown["value"].clip(lower=lowest).to_numpy()
        lines.append(Line(role, "stems", _segments(panel, x, np.zeros(len(x)), x, y)))
    ticks = round_ticks(lowest, reach, 3)
    return _plot(panel, lines, _LAGS, ticks, "lag (rows)", height=86)


def _plot(
    panel: Panel,
    lines: list[Line],
    x: Sequence[float],
    y: Sequence[float] | np.ndarray,
    x_label: str,
    height: int,
) -> Plot:
    """The plot of some lines, over an axis below and the hairlines of the ticks."""
    hairs = [_level(panel, "hair", value) for value in y]
    at_x = [(float(panel.x(value)) / 10, number(value)) for value in x]
    at_y = [(float(panel.y(value)) / 10, number(value)) for value in y]
    axis = _level(panel, "faint", panel.ylim[0])
    return Plot([*hairs, axis, *lines], at_x, at_y, x_label, height)


def _level(panel: Panel, role: str, value: float) -> Line:
    """A line at one height, over the whole width."""
    start, end = panel.xlim
    return Line(role, "hair", _segments(panel, [start], [value], [end], [value]))


def _segments(panel: Panel, x0: ArrayLike, y0: ArrayLike, x1: ArrayLike, y1: ArrayLike) -> str:
    """A path of separate segments."""
    ends = (*panel.at(x0, y0), *panel.at(x1, y1))
    return "".join(f"M{a:.0f} {b:.0f}L{c:.0f} {d:.0f}" for a, b, c, d in zip(*ends, strict=True))
