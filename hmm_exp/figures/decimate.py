"""Reduce a million bars to a thousand pixel columns without losing visible detail.

>>> regime_lines(x, y, states, n_states=3)          # one NaN-broken line per state

Every column shows an equal number of neighbouring rows. Columns follow rows instead of time, so
nights and weekends leave no empty columns.
"""

import numpy as np

COLUMNS = 900


def group_size(n_rows: int, columns: int = COLUMNS) -> int:
    """Rows of one pixel column."""
    return max(-(-n_rows // columns), 1)


def column_means(values: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Mean of every pixel column without NaN rows; (T, K) to (at most `columns`, K)."""
    size = group_size(len(values), columns)
    starts = np.arange(0, len(values), size)
    seen = np.isfinite(values).all(axis=1)
    sums = np.add.reduceat(np.where(seen[:, None], values, 0.0), starts, axis=0)
    counts = np.add.reduceat(seen.astype(float), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / counts[:, None]


def column_times(time: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Time of the first row of every column."""
    return time[:: group_size(len(time), columns)]


def majority(states: np.ndarray, n_states: int, columns: int = COLUMNS) -> np.ndarray:
    """The most frequent state of every column; -1 without a known state."""
    size = group_size(len(states), columns)
    group = np.arange(len(states)) // size
    known = states >= 0
    cells = -(-len(states) // size) * n_states
    counts = np.bincount(group[known] * n_states + states[known], minlength=cells)
    counts = counts.reshape(-1, n_states)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)


def regime_lines(
    x: np.ndarray,
    y: np.ndarray,
    states: np.ndarray,
    n_states: int,
    *,
    breaks: np.ndarray | None = None,
    columns: int = COLUMNS,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut a curve into one NaN-broken line per state, at most 3 `columns` points in total.

    The stroke from row t-1 to row t has the state of row t. If there are more rows than columns, a
    column is drawn as a vertical from its lowest to its highest point, which keeps all extremes,
    with the state that is most frequent in it. Rows (T,) with a state outside 0..`n_states`-1 are
    not drawn; rows in the mask `breaks` (T,) have no stroke from the row before.
    """
    before = np.maximum(np.arange(len(y)) - 1, 0)
    if breaks is not None:
        before = np.where(breaks, np.arange(len(y)), before)
    x0, y0, x1, y1 = x[before], y[before], x, y
    size = group_size(len(y), columns)
    if size > 1:
        starts = np.arange(0, len(y), size)
        x0 = x1 = x[np.minimum(starts + size // 2, len(y) - 1)]
        y0, y1 = (
            np.minimum.reduceat(np.minimum(y0, y1), starts),
            np.maximum.reduceat(np.maximum(y0, y1), starts),
        )
        states = majority(states, n_states, columns)
    nan = np.full(len(x0), np.nan)
    across, along = np.column_stack([x0, x1, nan]), np.column_stack([y0, y1, nan])
    return [(across[states == k].ravel(), along[states == k].ravel()) for k in range(n_states)]
