"""Small multiples in one Axes: a sheet in pixels, cut into panels with their own scales.

An Axes takes 20 ms to draw, so 36 features would take a second; a panel takes only its labels.

    sheet = add_sheet(figure)
    for panel in cut(n=6, columns=3, box=(60, 30, 980, 380)):
        panel = panel.scaled((0, 10), (0, 1))
        sheet.plot(*panel.at(x, y))
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hmm_exp.figures.style import DPI, FAINT, GREY, INK, draw_lines, number, shorten

_POINTS = 8


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

    def draw_title(self, panel: Panel, text: str, room: float = 0) -> None:
        """Write a line above the panel, shortened to the wider of `room` and the panel."""
        short = shorten(text, _POINTS, max(room, panel.width))
        self.write(panel.left, panel.bottom + panel.height + 5, short, color=INK)

    def draw_yticks(
        self, panel: Panel, ticks: Iterable[float], names: Sequence[str] | None = None
    ) -> None:
        """Write tick labels left of the panel."""
        for tick, name in zip(ticks, names or [number(t) for t in ticks], strict=True):
            self.write(panel.left - 4, float(panel.y(tick)), name, ha="right", va="center")

    def draw_xticks(
        self, panel: Panel, ticks: Iterable[float], names: Sequence[str] | None = None
    ) -> None:
        """Write tick labels below the panel."""
        for tick, name in zip(ticks, names or [number(t) for t in ticks], strict=True):
            self.write(float(panel.x(tick)), panel.bottom - 4, name, ha="center", va="top")

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
