"""Common style of all figures: regime colours, keys, numbers, ticks, `save`.

Positions are pixels of a 100 dpi canvas, see `panels`.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hmm_exp.figures.palette import GREY, INK
from hmm_exp.figures.text import DPI, SMALLEST, fit_block, fit_row, width, write
from hmm_exp.files import written_beside
from hmm_exp.judge.wording import capitalize

WIDTH = 1000  # pixels
MARGIN = 84  # pixels left of the panels
_TEXT = 9  # points
# Points and most lines, by preference; and the first line's place below the top edge, in pixels.
_TITLES, _TITLE_TOP = ((12, 1), (10, 1), (8, 2)), {1: 10, 2: 6}
_SUBTITLES, _SUBTITLE_TOP = ((9, 1), (8, 2)), {1: 34, 2: 33}
_KEY_LEFT, _KEY_GAP = 26.0, 24.0  # pixels: the first mark, and of a mark and the free space
_LINE = 1.16 * DPI / 72  # pixels of a line per point
_DEEPEST = 230  # pixels of a turned label
_TURN_BELOW = 7.5  # points: a label that would be smaller is turned


def new_figure(title: str, *subtitle: str, height: float = 440) -> Figure:
    """Create a figure of `WIDTH` by `height` pixels; empty parts of the subtitle are left out."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for parts, sizes, tops, color in (
        ([title], _TITLES, _TITLE_TOP, INK),
        ([*filter(None, subtitle)], _SUBTITLES, _SUBTITLE_TOP, GREY),
    ):
        capital = [capitalize(part) if i == 0 else part for i, part in enumerate(parts)]
        lines, points = fit_block(capital, sizes, WIDTH - 40)
        below = tops[len(lines)] + _LINE * points * np.arange(len(lines))
        for line, y in zip(lines, 1 - below / height, strict=True):
            style: dict[str, Any] = {"fontsize": points, "color": color, "va": "top"}
            write(figure, 20 / WIDTH, y, line, **style)
    return figure


def turned(names: Sequence[str], room: float) -> tuple[int, float]:
    """Rotation of names that have `room` pixels each, and the height that they need beyond a line.

    Names that are too long are turned by 90 degrees.
    """
    if max(width(name, _TURN_BELOW) for name in names) <= room:
        return 0, 0.0
    return 90, min(max(width(name, _TEXT) for name in names), _DEEPEST) - 12


def left_of(names: Sequence[str], least: float, most: float) -> float:
    """Pixels left of axes whose y axis has `names`."""
    return float(np.clip(33 + max(width(name, _TEXT) for name in names), least, most))


def add_key(figure: Figure, names: Sequence[str], colors: Sequence[str], below: int = 67) -> None:
    """Draw a colour key in one row `below` pixels under the top edge, or in two smaller ones."""
    across, height = figure.get_size_inches() * DPI
    room = across - _KEY_LEFT - 20
    rows = [(below, [*names], [*colors])]
    if fit_row(names, _TEXT, room, _KEY_GAP)[0] != [*names]:
        n = -(-len(names) // 2)
        rows = [(below - 2, [*names[:n]], [*colors[:n]]), (below + 9, [*names[n:]], [*colors[n:]])]
    for at, some, inks in rows:
        kept, size = fit_row(some, _TEXT if len(rows) == 1 else SMALLEST, room, _KEY_GAP)
        left, y = _KEY_LEFT, 1 - at / height
        for name, color in zip(kept, inks, strict=True):
            marker = Line2D([left / across], [y], marker="s", ms=size - 1, mew=0, color=color)
            figure.add_artist(marker)
            style: dict[str, Any] = {"fontsize": size, "color": INK, "va": "center_baseline"}
            write(figure, (left + 10) / across, y, name, **style)
            left += width(name, size) + _KEY_GAP


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure to a temporary file and rename it to `path`.

    The suffix of `path` gives the format.
    """
    path = Path(path)
    format_ = path.suffix.lstrip(".") or "png"
    with written_beside(path) as part:
        if format_ == "png":
            part.write_bytes(_png(figure))
        else:
            figure.savefig(part, dpi=DPI, format=format_)
    return path


def _png(figure: Figure) -> bytes:
    """The figure as PNG with unfiltered rows, which suit flat colours.

    Pillow looks for the best filter of every row, which takes three times as long.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)  # each begins with its filter
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)  # eight bits of RGBA
    packer = zlib.compressobj(3, memLevel=6)  # a hash table in the first-level cache is faster
    packed = packer.compress(rows.data) + packer.flush()
    parts = {b"IHDR": head, b"IDAT": packed, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in parts.items()
    )


_DAY = 86_400e9
_STEPS = (
    *((n, "m") for n in (1, 2, 5, 15, 30)),
    *((n, "h") for n in (1, 2, 3, 6, 12)),
    *((n, "D") for n in (1, 2, 7, 14)),
    *((n, "M") for n in (1, 2, 3, 6)),
    *((n, "Y") for n in (1, 2, 5, 10, 20, 50)),
)
_LETTERS = {"Y": 4, "M": 7, "D": 10, "h": 16, "m": 16}  # of an ISO stamp that a unit needs


def days(time: np.ndarray) -> np.ndarray:
    """Nanoseconds since 1970 as days since 1970, matplotlib's own unit."""
    return np.asarray(time, dtype=np.int64) / _DAY


def time_ticks(
    start: int, end: int, room: float, *, most: int = 8, points: float = _TEXT
) -> tuple[np.ndarray, list[str]]:
    """At most `most` round instants in [start, end] (nanoseconds), and their labels.

    The labels are apart on an axis of `room` pixels, and hardly leave it.
    """
    at, names = np.array([], dtype=np.int64), list[str]()
    finer, longest = (at, names), 0.0
    for n, unit in _STEPS:
        first, last = (
            int(np.datetime64(t, "ns").astype(f"M8[{unit}]").astype(int)) // n for t in (start, end)
        )
        if last - first > 3 * most:
            continue
        finer = at, names
        at, names = _stamps(np.arange(first, last + 1) * n, unit)
        longest = max(width(name, points) for name in names)
        x = (at - start) / max(end - start, 1) * room
        inside = (at >= start) & (x > longest / 2 - 30) & (x < room + 8 - longest / 2)
        at, names = at[inside], [name for name, kept in zip(names, inside, strict=True) if kept]
        if len(at) <= most and min(np.diff(x[inside]), default=room) > longest + 12:
            break
    far = finer[0][[0, -1]] if len(finer[0]) else at
    if len(at) < 2 <= len(far) and np.ptp(far) * room > (longest + 12) * (end - start):
        return far, [finer[1][0], finer[1][-1]]
    return at, names


def _stamps(counts: np.ndarray, unit: str) -> tuple[np.ndarray, list[str]]:
    """Instants in nanoseconds of `counts` units since 1970, and their labels."""
    stamps = counts.astype(f"M8[{unit}]")
    names = [str(s)[: _LETTERS[unit]].replace("T", " ") for s in stamps.astype("M8[m]")]
    return stamps.astype("M8[ns]").astype(np.int64), names


def time_range(time: np.ndarray) -> tuple[int, int]:
    """First and last of `time` (nanoseconds, not empty); an hour around a single instant."""
    hour = int(_DAY / 24) if time[0] == time[-1] else 0
    return int(time[0]) - hour, int(time[-1]) + hour
