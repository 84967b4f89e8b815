"""Panels, ticks and numbers that figures share with the pages of a report; draws nothing."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator  # the only part of it that a page needs

OFF_SCALE = 3.0  # multiple of the other values at which one state is off the axis


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


def number(value: float) -> str:
    """Format a number with at most five significant digits: 1.2M, 70,000, 0.00005, −0.5."""
    if 1e-7 < abs(value) < 1e-4:
        text = np.format_float_positional(value, 5, fractional=False, trim="-")
    elif abs(value) >= 1e6:
        text = f"{value / 1e6:,.5g}M"
    else:
        text = f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.5g}"
    return text.replace("-", "−")


def round_ticks(low: float, high: float, n: int) -> np.ndarray:
    """About `n` round values inside [low, high], more of them if fewer than three are inside."""
    for nbins in range(n, 3 * n):
        ticks = np.asarray(MaxNLocator(nbins, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        ticks[np.abs(ticks) < 1e-9 * (high - low)] = 0.0
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= 3:
            break
    return ticks


def log_ticks(low: float, high: float, most: int) -> np.ndarray:
    """At most `most` round values inside [low, high], a factor of 1.4 or more apart if wide."""
    tens = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = np.outer(tens, digits).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) < 2:
            return round_ticks(low, high, most)
        if len(ticks) <= most:
            return ticks
    return ticks[:: -(-len(ticks) // most)]


def padded(low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """Widen a range by `share` on both sides; never empty."""
    room = share * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def far_null(part: pd.DataFrame, name: str) -> bool:
    """Whether one state is so far above the others of its space that it would flatten them.

    Parameters
    ----------
    part
        Rows of one observation space, with `n_states` and the criterion `name`.
    """
    one, above = part["n_states"] == 1, part[name] - part[name].min()
    others = above[~one].max()
    return bool(others > 0 and (above[one] > OFF_SCALE * others).any())
