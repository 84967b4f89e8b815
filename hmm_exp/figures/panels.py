"""Plots without Axes: a sheet in pixels, with panels that have their own scales.

An Axes takes milliseconds to make and to draw, a panel only its labels.

    sheet = Sheet(figure)
    for panel in cut(n=6, columns=3, box=(60, 30, 980, 380)):
        panel = panel.scaled((0, 10), (0, 1))
        sheet.line(*panel.at(x, y), color="black")
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Bbox, IdentityTransform, TransformedBbox

from hmm_exp.figures.decimate import column_times, majority
from hmm_exp.figures.palette import FAINT, GREY, INK
from hmm_exp.figures.scales import Panel, number
from hmm_exp.figures.style import MARGIN, WIDTH, days, time_ticks
from hmm_exp.figures.text import DPI, fit_all, fit_block, width, write

_POINTS = 8
_TITLES = ((_POINTS, 1), (7, 2))  # points and most lines
_LINE = 12  # pixels of a title's line
_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#c9ced6", "#3d4654"])
_DARK = 0.75  # shade from which white text reads better


class Sheet:
    """Draws on a figure in pixels from its lower left corner."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        width, height = figure.get_size_inches() * DPI
        self.pixels = Affine2D().scale(1 / width, 1 / height) + figure.transFigure

    def box(self, panel: Panel) -> TransformedBbox:
        """Box of a panel, for a line that is cut at its edges."""
        box = Bbox.from_bounds(panel.left, panel.bottom, panel.width, panel.height)
        return TransformedBbox(box, self.pixels)

    def line(self, x, y, **style: Any) -> None:
        """Draw one line."""
        self.figure.add_artist(Line2D(x, y, transform=self.pixels, **style))

    def marks(self, x, y, *, marker: str = "o", **style: Any) -> None:
        """Draw markers of one kind and colour."""
        self.line(np.atleast_1d(x), np.atleast_1d(y), marker=marker, linestyle="", **style)

    def lines(self, segments: Sequence[np.ndarray], colors, **style: Any) -> None:
        """Draw polylines, each (2, n), as one artist."""
        points = [segment.T for segment in segments]
        style |= {"colors": colors, "transform": self.pixels}
        self.figure.add_artist(LineCollection(points, **style))

    def dots(self, x, y, area: float, **style: Any) -> None:
        """Draw circles as one artist; `area` is that of their square in points."""
        style |= {"offsets": np.column_stack([x, y]), "offset_transform": self.pixels}
        circles = PathCollection([Path.unit_circle()], sizes=[area / 4], **style)
        circles.set_transform(IdentityTransform())
        self.figure.add_artist(circles)

    def boxes(self, left, right, bottom, top, colors) -> None:
        """Fill boxes as one artist, without seams between neighbours; those with NaN are blank."""
        sides = np.stack(np.broadcast_arrays(left, right, bottom, top))
        x0, x1, y0, y1 = sides[:, np.isfinite(sides).all(axis=0)]
        corners = [*np.stack([[x0, x0, x1, x1], [y0, y1, y1, y0]]).T]  # (4, 2) each
        style: dict[str, Any] = {"facecolors": colors, "linewidths": 0, "antialiaseds": False}
        self.figure.add_artist(PolyCollection(corners, transform=self.pixels, **style))

    def areas(self, outlines: Sequence[np.ndarray], colors) -> None:
        """Fill outlines, each (2, n), as one artist, the last on top."""
        corners = [outline.T for outline in outlines]
        style: dict[str, Any] = {"facecolors": colors, "linewidths": 0}
        self.figure.add_artist(PolyCollection(corners, transform=self.pixels, **style))

    def states(
        self, panel: Panel, ends: tuple[float, float], time: np.ndarray, states, colors
    ) -> None:
        """Draw a band between two heights: the most frequent state of every pixel column.

        `colors` are of the states and, last, of rows without one.
        """
        n_columns = int(panel.width) // 2
        shown = majority(states, len(colors) - 1, n_columns)
        edges = np.append(days(column_times(time, n_columns)), panel.xlim[1])
        first = np.append(np.flatnonzero(np.diff(shown, prepend=-2)), len(shown))  # of every visit
        visits, across = np.array(colors)[shown[first[:-1]]], panel.x(edges[first])
        self.boxes(across[:-1], across[1:], *ends, visits)

    def draw_frames(self, panels: Sequence[Panel]) -> None:
        """Draw the left and bottom edges of all panels as one artist."""
        edges = [
            panel.at(np.array([0, 0, 1]), np.array([1, 0, 0]))
            for panel in (panel.scaled((0, 1), (0, 1)) for panel in panels)
        ]
        self.lines(edges, FAINT, linewidths=0.8, zorder=0)

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
        points: float = _POINTS,
    ) -> None:
        """Write tick labels in `room` pixels left of the panel."""
        ticks = list(ticks)
        names, size = fit_all(names or [number(t) for t in ticks], points, room)
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
        points: float = _POINTS,
    ) -> None:
        """Write tick labels below the panel, each in `room` pixels or the distance of two ticks."""
        places = panel.x(list(ticks))
        room = min(np.diff(places), default=panel.width) - 6 if room is None else room
        names, size = fit_all(names or [number(t) for t in ticks], points, room)
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": size}
        for x, name in zip(places, names, strict=True):
            self.write(float(x), panel.bottom - 4, name, rotation=rotation, **style)

    def draw_time(
        self, panel: Panel, start: int, end: int, y: float, points: float = _POINTS
    ) -> None:
        """Label round instants from `start` to `end` (nanoseconds), and the axis at height `y`."""
        at, names = time_ticks(start, end, panel.width, most=9, points=points)
        self.draw_xticks(panel, days(at), names, points=points)
        middle = panel.left + panel.width / 2
        self.write(middle, y, "time (UTC)", ha="center", va="top", fontsize=9)

    def name_axes(self, panel: Panel, x: str, y: str) -> None:
        """Name the axes of a panel at the figure's lower and left edges."""
        middle = panel.left + panel.width / 2
        self.write(middle, 20, x, ha="center", va="top", fontsize=9)
        self.name_y(panel, y)

    def name_y(self, panel: Panel, name: str) -> None:
        """Name the y axis of a panel at the figure's left edge."""
        middle = panel.bottom + panel.height / 2
        self.write(15, middle, name, ha="center", va="center", rotation=90, fontsize=9)

    def mark_splits(self, panel: Panel, splits: Mapping[str, int]) -> None:
        """Draw a dashed line at the start of each part of the data, labelled if there is room.

        `splits` maps a part's name to its first instant (nanoseconds); the panel's x are days.
        """
        low, high = panel.xlim
        parts = sorted((max(float(days(np.array(t))), low), name) for name, t in splits.items())
        parts = [(at, name) for at, name in parts if at < high]
        edges = [at for at, _ in parts if at > low + 0.01 * (high - low)]  # others hide the frame
        marks = [panel.at([at, at], panel.ylim) for at in edges]
        self.lines(marks, "white", linewidths=3, zorder=1.5)
        self.lines(marks, INK, linewidths=1, linestyles=[(0, (4, 3))])
        starts = panel.x([at for at, _ in parts] + [high])
        for (_, name), start, room in zip(parts, starts, np.diff(starts), strict=False):
            if room > width(name, 9) + 10:
                self.write(float(start) + 3, panel.bottom + panel.height + 3, name, fontsize=9)

    def draw_heat(self, panel: Panel, names: Sequence[Sequence[str]], shade: np.ndarray) -> None:
        """Fill a panel with fields in greys by `shade` (0 white to 1 dark), each with its name.

        Greys, because colours mean regimes. Empty names are not drawn.
        """
        rows, columns = shade.shape
        panel = panel.scaled((0, columns), (rows, 0))
        i, j = (place.ravel() for place in np.indices(shade.shape))
        across, along = (panel.x(j), panel.x(j + 1)), (panel.y(i + 1), panel.y(i))
        self.boxes(*across, *along, _SHADES(shade.ravel()))
        edges = [panel.at([0, columns], [n, n]) for n in range(1, rows)]
        edges += [panel.at([n, n], [0, rows]) for n in range(1, columns)]
        self.lines(edges, "white", linewidths=2)
        flat, size = fit_all([n for row in names for n in row], 9, panel.width / columns - 4)
        for (x, y), name, dark in zip(
            panel.at(j + 0.5, i + 0.5).T, flat, shade.ravel() > _DARK, strict=True
        ):
            color = "white" if dark else INK
            self.write(x, y, name, ha="center", va="center", fontsize=size, color=color)

    def write(self, x: float, y: float, text: str, *, color: str = GREY, **style) -> None:
        """Write small text at a position in pixels."""
        style = {"fontsize": _POINTS, "color": color, "transform": self.pixels} | style
        write(self.figure, x, y, text, **style)


def wide(bottom: float = 48, top: float = 340) -> Panel:
    """A panel across the figure, between two heights."""
    return Panel(MARGIN, bottom, WIDTH - MARGIN - 20, top - bottom)
