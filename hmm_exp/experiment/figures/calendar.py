"""Time axes: UTC nanoseconds as matplotlib's days, with round ticks found by arithmetic.

matplotlib's own date locator takes longer than the rest of the figure.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from hmm_exp.experiment.figures.style import GREY, INK, draw_lines, set_ticks, text_width

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
    """At most `most` round instants in [start, end] (nanoseconds), and their names."""
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
    """Let the x axis of `axes` span `time`, which is in nanoseconds and not empty."""
    start, end = int(time[0]), int(time[-1])
    if start == end:
        start, end = start - int(_DAY / 24), end + int(_DAY / 24)
    room = int(0.03 * (end - start))  # a name at the very edge would leave the figure
    at, names = time_ticks(start, end - room, most=7)
    axes.set_xlim(*days(np.array([start, end])))
    set_ticks(axes, "x", days(at), names)


def mark_splits(axes: Axes, splits: Mapping[str, int], width: float = 896) -> None:
    """A dashed line where each part of the data starts, named where there is room.

    `splits` maps a part's name to its first instant (nanoseconds); `width` is the axes' in pixels.
    """
    if not splits:
        return
    low, high = axes.get_xlim()
    parts = sorted((max(float(days(np.array(t))), low), name) for name, t in splits.items())
    parts = [(at, name) for at, name in parts if at < high]
    ends = [at for at, _ in parts[1:]] + [high]
    edges = [at for at, _ in parts if at > low + 0.01 * (high - low)]  # else it hides the frame
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
