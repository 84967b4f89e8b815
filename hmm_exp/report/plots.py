"""Small static plots of a report, as lines for an SVG that the page stretches to its width.

A line is in thousandths of the plot, from its upper left corner; the style sheet gives its role a
colour in the light and the dark theme, and keeps strokes and dots as they are while the plot is
stretched. Texts of the axes are in percent of the plot, for elements of the page.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

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


@dataclass(frozen=True)
class _Axes:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: ArrayLike) -> np.ndarray:
        return 1000 * (np.asarray(value) - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: ArrayLike) -> np.ndarray:
        return 1000 * (self.y_high - np.asarray(value)) / (self.y_high - self.y_low)

    def segments(self, x0: ArrayLike, y0: ArrayLike, x1: ArrayLike, y1: ArrayLike) -> str:
        """A path of separate segments."""
        ends = (
            self.x(np.array(x0)),
            self.y(np.array(y0)),
            self.x(np.array(x1)),
            self.y(np.array(y1)),
        )
        return "".join(
            f"M{a:.0f} {b:.0f}L{c:.0f} {d:.0f}" for a, b, c, d in zip(*ends, strict=True)
        )

    def level(self, role: str, value: float, kind: str = "hair") -> Line:
        """A line at one height, over the whole width."""
        return Line(role, kind, self.segments([self.x_low], [value], [self.x_high], [value]))

    def plot(
        self, lines: list[Line], x: Iterable[float], y: Iterable[float], x_label: str, height: int
    ) -> Plot:
        """The plot of some lines, over an axis below and the hairlines of the ticks."""
        hairs = [self.level("hair", value) for value in y]
        at_x = [(float(self.x(value)) / 10, _text(value)) for value in x]
        at_y = [(float(self.y(value)) / 10, _text(value)) for value in y]
        return Plot([*hairs, self.level("faint", self.y_low), *lines], at_x, at_y, x_label, height)


def quantiles(rows: pd.DataFrame) -> tuple[Plot, str]:
    """Normal quantile plot of residuals, and a note on what is drawn at its edge.

    A correct model is on the diagonal.
    """
    axes = _Axes(-4.2, 4.2, -4.2, 4.2)
    shown = rows[rows["kind"] == "quantile"]
    x, y = shown["x"].to_numpy(), shown["value"].clip(-_REACH, _REACH).to_numpy()
    lines = [
        Line("grey", "line", axes.segments([-4.2], [-4.2], [4.2], [4.2])),
        Line("ink", "dots", axes.segments(x, y, x, y)),
    ]
    beyond = int((shown["value"].abs() > _REACH).sum())
    note = f"{beyond} of {len(shown)} points beyond ±{_REACH:g}, at the edge" if beyond else ""
    return axes.plot(lines, (-3, 0, 3), (-3, 0, 3), "normal quantile", height=146), note


def autocorrelations(rows: pd.DataFrame) -> Plot:
    """Autocorrelations of residuals and their squares, with the limits of a correct model."""
    limit = ResidualLimits().memory
    reach = max(1.25 * limit, 1.1 * float(rows.loc[rows["kind"] != "quantile", "value"].max()))
    axes = _Axes(0.0, _LAGS[-1] + 1.0, -1.25 * limit, reach)
    lines = [axes.level("grey", 0.0), axes.level("faint", limit), axes.level("faint", -limit)]
    for kind, role, shift in (("memory", "ink", -_SHIFT), ("square_memory", "square", _SHIFT)):
        shown = rows[rows["kind"] == kind]
        x, y = shown["x"].to_numpy() + shift, shown["value"].clip(lower=axes.y_low).to_numpy()
        lines.append(Line(role, "stems", axes.segments(x, np.zeros(len(x)), x, y)))
    ticks = [y for y in MaxNLocator(3).tick_values(axes.y_low, reach) if axes.y_low <= y <= reach]
    return axes.plot(lines, _LAGS, ticks, "lag (rows)", height=86)


def _text(value: float) -> str:
    return f"{value:g}".replace("-", "−")
