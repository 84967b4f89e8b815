"""Common style of all figures: regime colours, axes, keys, numbers, time axes, heat maps, `save`.

Positions are pixels of a 100 dpi canvas. A text label takes about 1 ms to draw, so figures have few
ticks, and small multiples share one Axes (see `panels`).
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hmm_exp.files import written_beside

DPI = 100
WIDTH = 1000  # pixels
MARGIN = 84  # pixels left of the axes, where titles start too
INK = "#222222"
GREY = "#6b6b6b"
FAINT = "#d9d9d9"
ACCENT = "#00695c"  # what was chosen or best; far from every regime colour
_TITLE, _TEXT, _SMALL = 12, 9, 8  # points
_EM = DPI / 72  # pixels per point
_ONE_AT_A_TIME = threading.Lock()  # hinting is a global setting of matplotlib

# Calm to turbulent: CIE lightness 75 falling to 32, and at least 13 Delta E apart pairwise in
# normal, protan, deutan and tritan sight (simulated after Machado et al. 2009).
_RAMP = ("#66c1ff", "#89b2ce", "#92a4a9", "#b18f55", "#c37500", "#ba561b", "#af3327", "#8d2428")


def regime_colors(n_states: int) -> tuple[str, ...]:
    """Hex colours of states in order, calm to turbulent, increasingly dark.

    The ends are the same for any number of states; a single state has the middle colour.
    """
    ramp = np.array([to_rgb(color) for color in _RAMP])
    places = np.linspace(0, 1, n_states) if n_states > 1 else np.array([0.5])
    knots = np.linspace(0, 1, len(ramp))
    mixed = np.column_stack([np.interp(places, knots, channel) for channel in ramp.T])
    return tuple(to_hex((r, g, b)) for r, g, b in mixed)


def new_figure(title: str, *subtitle: str, height: int = 440) -> Figure:
    """Create a figure of `WIDTH` by `height` pixels; empty parts of the subtitle are left out."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for text, points, below, color in (
        (title, _TITLE, 10, INK),
        ("  ·  ".join(filter(None, subtitle)), _TEXT, 34, GREY),
    ):
        figure.text(
            20 / WIDTH,
            1 - below / height,
            shorten(capitalize(text), points, WIDTH - 40),
            fontsize=points,
            color=color,
            va="top",
            parse_math=False,
        )
    return figure


def add_axes(
    figure: Figure,
    *,
    left: float = MARGIN,
    right: float = 20,
    top: float = 100,
    bottom: float = 48,
    xlabel: str = "",
    ylabel: str = "",
) -> Axes:
    """Add framed axes, `left`, `right`, `top`, `bottom` pixels from the figure's edges."""
    width, height = figure.get_size_inches() * DPI
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - top - bottom) / height,
        )
    )
    axes.set_axis_off()  # matplotlib's ticks would double the time
    frame = np.array([[left, left, width - right], [height - top, bottom, bottom]])
    x, y = frame / [[width], [height]]
    figure.add_artist(Line2D(x, y, color=FAINT, linewidth=1))
    label: dict[str, Any] = {"fontsize": _TEXT, "color": GREY, "ha": "center"}
    if xlabel:
        figure.text((left + width - right) / 2 / width, 20 / height, xlabel, va="top", **label)
    if ylabel:
        middle = (bottom + height - top) / 2 / height
        figure.text(15 / width, middle, ylabel, va="center", rotation=90, **label)
    return axes


def draw_lines(axes: Axes, segments: Sequence[np.ndarray], colors, **style) -> LineCollection:
    """Draw polylines, each (2, n), as one artist without autoscaling."""
    lines = LineCollection([segment.T for segment in segments], colors=colors, **style)
    axes.add_collection(lines, autolim=False)
    return lines


def set_ticks(
    axes: Axes, which: str, ticks: Iterable[float], names: Iterable[str], *, rotation: float = 0
) -> None:
    """Label the x or y axis of `axes`; set its scale before."""
    style: dict[str, Any] = {
        "fontsize": _TEXT,
        "color": GREY,
        "parse_math": False,
        "rotation": rotation,
    }
    if which == "x":
        below, at = -7 / axes.bbox.height, axes.get_xaxis_transform()
        for tick, name in zip(ticks, names, strict=True):
            axes.text(tick, below, name, transform=at, ha="center", va="top", **style)
    else:
        left, at = -7 / axes.bbox.width, axes.get_yaxis_transform()
        for tick, name in zip(ticks, names, strict=True):
            axes.text(left, tick, name, transform=at, ha="right", va="center", **style)


def add_key(figure: Figure, names: Sequence[str], colors: Sequence[str], below: int = 64) -> None:
    """Draw a colour key in one row, `below` pixels under the top edge."""
    width, height = figure.get_size_inches() * DPI
    left, y = 26.0, 1 - below / height
    for name, color in zip(names, colors, strict=True):
        figure.add_artist(Line2D([left / width], [y], marker="s", ms=8, mew=0, color=color))
        at = (left + 10) / width
        figure.text(at, y, name, fontsize=_TEXT, color=INK, va="center_baseline", parse_math=False)
        left += 10 + text_width(name) + 14


def text_width(text: str, points: float = _TEXT) -> float:
    """Upper estimate of a label's width in pixels, without a renderer."""
    return 0.62 * points * _EM * len(text)


def shorten(text: str, points: float, room: float) -> str:
    """Replace the middle of `text` by an ellipsis if it is wider than `room` pixels."""
    most = max(int(room / text_width("x", points)), 3)
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def capitalize(text: str) -> str:
    """Make the first letter upper case and keep the rest."""
    return text[:1].upper() + text[1:]


def number(value: float) -> str:
    """Format a number with at most five significant digits: 1.2M, 70,000, 0.00005, −0.5."""
    if 1e-7 < abs(value) < 1e-4:
        text = np.format_float_positional(value, 5, fractional=False, trim="-")
    elif abs(value) >= 1e6:
        text = f"{value / 1e6:,.5g}M"
    else:
        text = f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.5g}"
    return text.replace("-", "−")


def percent(share: float) -> str:
    """Format a share: 62 %, 0.4 %."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return f"{100 * share:.1f} %"
    return f"{100 * share:.0f} %"


def short_labels(labels: Sequence[str]) -> list[str]:
    """First words of state labels, such as `vol-1` of `vol-1 below VWAP`, for narrow places."""
    return [label.split()[0] for label in labels]


def round_ticks(low: float, high: float, n: int) -> np.ndarray:
    """About `n` round values inside [low, high]."""
    ticks = np.asarray(MaxNLocator(nbins=n, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    ticks[np.abs(ticks) < 1e-9 * (high - low)] = 0.0
    return ticks[(ticks >= low) & (ticks <= high)]


def log_ticks(low: float, high: float, most: int) -> np.ndarray:
    """At most `most` round values, a factor of 1.4 or more apart, inside [low, high]."""
    tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = np.outer(tens, digits).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) <= most:
            return ticks
    return ticks[:: -(-len(ticks) // most)]


def padded(low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """Widen a range by `share` on both sides; never empty."""
    room = share * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure to a temporary file and rename it to `path`.

    The suffix of `path` gives the format. Glyphs are not hinted and PNG is compressed lightly,
    which saves a third of the time.
    """
    path = Path(path)
    format_ = path.suffix.lstrip(".") or "png"
    fast: dict[str, Any] = {"pil_kwargs": {"compress_level": 1}} if format_ == "png" else {}
    with written_beside(path) as part, _ONE_AT_A_TIME, rc_context({"text.hinting": "none"}):
        figure.savefig(part, dpi=DPI, format=format_, **fast)
    return path


_DAY = 86_400e9
_STEPS = (
    *((n, "m") for n in (1, 2, 5, 15, 30)),
    *((n, "h") for n in (1, 2, 3, 6, 12)),
    *((n, "D") for n in (1, 2, 7, 14)),
    *((n, "M") for n in (1, 3, 6)),
    *((n, "Y") for n in (1, 2, 5, 10, 20, 50)),
)
_LETTERS = {"Y": 4, "M": 7, "D": 10, "h": 16, "m": 16}  # of an ISO stamp that a unit needs


def days(time: np.ndarray) -> np.ndarray:
    """Nanoseconds since 1970 as days since 1970, matplotlib's own unit."""
    return np.asarray(time, dtype=np.int64) / _DAY


def time_ticks(start: int, end: int, most: int = 8) -> tuple[np.ndarray, list[str]]:
    """At most `most` round instants in [start, end] (nanoseconds), and their labels."""
    for n, unit in _STEPS:
        first, last = (
            np.datetime64(t, "ns").astype(f"M8[{unit}]").astype(int) for t in (start, end)
        )
        if last // n - first // n < most:
            break
    stamps = (np.arange(first // n, last // n + 1) * n).astype(f"M8[{unit}]")
    at = stamps.astype("M8[ns]").astype(np.int64)
    inside = (at >= start) & (at <= end)
    names = [str(s)[: _LETTERS[unit]].replace("T", " ") for s in stamps.astype("M8[m]")[inside]]
    return at[inside], names


def set_time_axis(axes: Axes, time: np.ndarray) -> None:
    """Set the x axis of `axes` to the range of `time` (nanoseconds, not empty)."""
    start, end = int(time[0]), int(time[-1])
    if start == end:
        start, end = start - int(_DAY / 24), end + int(_DAY / 24)
    room = int(0.03 * (end - start))  # a label at the edge would leave the figure
    at, names = time_ticks(start, end - room, most=7)
    axes.set_xlim(*days(np.array([start, end])))
    set_ticks(axes, "x", days(at), names)


def mark_splits(axes: Axes, splits: Mapping[str, int], width: float = 896) -> None:
    """Draw a dashed line at the start of each part of the data, labelled if there is room.

    `splits` maps a part's name to its first instant (nanoseconds); `width` of the axes in pixels.
    """
    if not splits:
        return
    low, high = axes.get_xlim()
    parts = sorted((max(float(days(np.array(t))), low), name) for name, t in splits.items())
    parts = [(at, name) for at, name in parts if at < high]
    ends = [at for at, _ in parts[1:]] + [high]
    edges = [
        at for at, _ in parts if at > low + 0.01 * (high - low)
    ]  # a line here would hide the frame
    across = axes.get_xaxis_transform()
    marks = [np.array([[at, at], [0, 1]]) for at in edges]
    draw_lines(axes, marks, "white", transform=across, linewidths=3, zorder=1.5)
    draw_lines(axes, marks, INK, transform=across, linewidths=1, linestyles=[(0, (4, 3))])
    for (at, name), end in zip(parts, ends, strict=True):
        if (end - at) / (high - low) * width > text_width(name) + 10:
            axes.annotate(
                name,
                (at, 1),
                (3, 3),
                xycoords=across,
                textcoords="offset points",
                fontsize=9,
                color=GREY,
            )


_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#c9ced6", "#3d4654"])
_DARK = 0.75  # shade from which white text reads better


def draw_heat(
    axes: Axes, matrix: np.ndarray, names: Sequence[Sequence[str]], shade: np.ndarray
) -> None:
    """Draw `matrix` in greys by `shade` (0 white to 1 dark) with a label in each field.

    Greys, because colours mean regimes. Empty labels are not drawn.
    """
    rows, columns = matrix.shape
    axes.imshow(shade, cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    across = [np.array([[-0.5, columns - 0.5], [i - 0.5] * 2]) for i in range(1, rows)]
    along = [np.array([[j - 0.5] * 2, [-0.5, rows - 0.5]]) for j in range(1, columns)]
    draw_lines(axes, across + along, "white", linewidths=2)
    for i, j in np.ndindex(rows, columns):
        if names[i][j]:
            axes.text(
                j,
                i,
                names[i][j],
                ha="center",
                va="center",
                fontsize=9,
                color="white" if shade[i, j] > _DARK else INK,
                parse_math=False,
            )
