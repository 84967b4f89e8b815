"""Small multiples in one Axes: a sheet in pixels, cut into panels with their own scales.

An Axes takes 20 ms to draw, so 36 features would take a second; a panel takes only its labels.

    sheet = add_sheet(figure)
    for panel in cut(n=6, columns=3, box=(60, 30, 980, 380)):
        panel = panel.scaled((0, 10), (0, 1))
        sheet.plot(*panel.at(x, y))
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmm_exp.figures.style import FAINT, GREY, INK, days, draw_lines, number, time_ticks
from hmm_exp.figures.text import DPI, fit_all, fit_block

_POINTS = 8
_TITLES = ((_POINTS, 1), (7, 2))  # points and most lines
_LINE = 12  # pixels of a title's line


@dataclass(frozen=True)
class Panel:
    """A rectangle of the sheet in pixels with its data ranges."""

    left: float
    bottom: float
    width: float
    height: float
    xlim: tuple[float, float] = (0.0, 1.0)
    ylim: tuple[float, float] = (0.0, 1.0)

    def scaled(self, xlim: tuple[float, float], ylim: tuple[float, float]) -> "Panel":
        """The same rectangle with other data ranges."""
        return replace(self, xlim=xlim, ylim=ylim)

    def x(self, values) -> np.ndarray:
        """Horizontal pixels of data values."""
        low, high = self.xlim
        return self.left + self.width * (np.asarray(values, dtype=float) - low) / (high - low)

    def y(self, values) -> np.ndarray:
        """Vertical pixels of data values."""
        low, high = self.ylim
        return self.bottom + self.height * (np.asarray(values, dtype=float) - low) / (high - low)

    def at(self, x, y) -> np.ndarray:
        """Pixels of data points, shape (2, n)."""
        return np.stack(np.broadcast_arrays(self.x(x), self.y(y)))


class Sheet(Axes):
    """An invisible Axes over the whole figure whose data coordinates are pixels."""

    def draw_frames(self, panels: Sequence[Panel]) -> None:
        """Draw the left and bottom edges of all panels as one artist."""
        edges = [
            panel.at(np.array([0, 0, 1]), np.array([1, 0, 0]))
            for panel in (panel.scaled((0, 1), (0, 1)) for panel in panels)
        ]
        draw_lines(self, edges, FAINT, linewidths=0.8, zorder=0)

    def draw_title(self, panel: Panel, *parts: str, room: float = 0) -> None:
        """Write one or two lines above the panel, in the wider of `room` and the panel."""
        lines, size = fit_block([*filter(None, parts)], _TITLES, max(room, panel.width))
        for i, line in enumerate(reversed(lines)):
            y = panel.bottom + panel.height + 5 + _LINE * i
            self.write(panel.left, y, line, color=INK, fontsize=size)

    def draw_yticks(
        self,
        panel: Panel,
        ticks: Iterable[float],
        names: Sequence[str] | None = None,
        room: float = 52,
    ) -> None:
        """Write tick labels in `room` pixels left of the panel."""
        ticks = list(ticks)
        names, size = fit_all(names or [number(t) for t in ticks], _POINTS, room)
        style: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": size}
        for tick, name in zip(ticks, names, strict=True):
            self.write(panel.left - 4, float(panel.y(tick)), name, **style)

    def draw_xticks(
        self,
        panel: Panel,
        ticks: Iterable[float],
        names: Sequence[str] | None = None,
        *,
        rotation: float = 0,
        room: float | None = None,
    ) -> None:
        """Write tick labels below the panel, each in `room` pixels or the distance of two ticks."""
        places = panel.x(list(ticks))
        room = min(np.diff(places), default=panel.width) - 6 if room is None else room
        names, size = fit_all(names or [number(t) for t in ticks], _POINTS, room)
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": size}
        for x, name in zip(places, names, strict=True):
            self.write(float(x), panel.bottom - 4, name, rotation=rotation, **style)

    def draw_time(self, panel: Panel, start: int, end: int, y: float) -> None:
        """Label round instants from `start` to `end` (nanoseconds), and the axis at height `y`."""
        at, names = time_ticks(start, end, panel.width, most=9, points=_POINTS)
        self.draw_xticks(panel, days(at), names)
        middle = panel.left + panel.width / 2
        self.write(middle, y, "time (UTC)", ha="center", va="top", fontsize=9)

    def write(self, x: float, y: float, text: str, *, color: str = GREY, **style) -> None:
        """Write small text at a position in pixels."""
        self.text(x, y, text, color=color, **{"fontsize": _POINTS, "parse_math": False, **style})


def add_sheet(figure: Figure) -> Sheet:
    """Cover the figure by a sheet."""
    width, height = figure.get_size_inches() * DPI
    figure.add_axes(sheet := Sheet(figure, (0, 0, 1, 1)))
    sheet.set_axis_off()
    sheet.set(xlim=(0, width), ylim=(0, height))
    return sheet


def cut(
    n: int, columns: int, box: tuple[float, float, float, float], gap: tuple[float, float]
) -> list[Panel]:
    """`n` equal panels in rows of `columns`, from the top left of `box` (x0, y0, x1, y1).

    `gap` is the free space right of and above each panel, in pixels.
    """
    x0, y0, x1, y1 = box
    rows = -(-n // columns)
    width, height = (x1 - x0) / columns, (y1 - y0) / rows
    return [
        Panel(
            x0 + (i % columns) * width,
            y1 - (i // columns + 1) * height,
            width - gap[0],
            height - gap[1],
        )
        for i in range(n)
    ]
