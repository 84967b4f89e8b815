"""The hour's mean, taken from log ranges and log volumes before the scaler.

Activity follows the clock. With `features.season=hour` each such column is used less its train mean
over the bars that end in the same hour of a time zone:

>>> means = hour_means(X[train], ends[train], recipe)  # (24, D)
>>> adjusted = less_means(X, ends, recipe, means)

The hour is that of a column's own last complete bar, of whatever timeframe. NaN stands for an hour
without a train bar, so that a value of that hour is missing.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd

from hmm_exp.compiling import entry
from hmm_exp.errors import DataError
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.options import check_timezone

HOURS = 24
_SECOND = 10**9
_HOUR = 3600 * _SECOND
_FIRST, _LAST = (pd.Timestamp(f"{year}-01-01").value for year in (1900, 2200))


def bar_ends(
    recipe: Recipe, row_time: np.ndarray, bar_time: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """When the last complete bar of every seasonal column ended, at every row.

    Parameters
    ----------
    row_time
        `available_at` of the rows in nanoseconds, shape (T,).
    bar_time
        The same of the bars of each timeframe.

    Returns
    -------
    int64 nanoseconds, shape (T, S) for the S columns of `recipe.seasonal`; None without a season.
    """
    if recipe.season is None:
        return None
    ends = np.empty((len(row_time), len(recipe.seasonal)), np.int64)
    sources = recipe.sources()
    for place, column in enumerate(recipe.seasonal):
        known = np.append(bar_time[sources[column][0]], np.iinfo(np.int64).min)  # [-1]: no bar yet
        ends[:, place] = known[np.searchsorted(known[:-1], row_time, side="right") - 1]
    return ends


def row_ends(recipe: Recipe, row_time: np.ndarray) -> np.ndarray | None:
    """As `bar_ends`, for ready rows (T,), which are the bars of their columns.

    Raises DataError for a column of a coarser timeframe, whose bar may have ended at any time
    before its row.
    """
    if recipe.season is None:
        return None
    sources = recipe.sources()
    for column in recipe.seasonal:
        if sources[column][0] != recipe.grid:
            raise DataError(
                f"ready rows of {recipe.grid} do not show in which hour the bar of "
                f"{recipe.columns[column]} ended: features.season=hour needs bars there"
            )
    return np.repeat(row_time[:, None], len(recipe.seasonal), axis=1)


def hour_means(X: np.ndarray, ends: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Mean of every seasonal column by the hour in which a bar ends, each bar counted once.

    Parameters
    ----------
    X, ends
        Raw train rows, shape (T, D), and their `bar_ends`, shape (T, S).

    Returns
    -------
    ndarray of shape (24, D)
        NaN for an hour without a value, zero in other columns.
    """
    means = np.zeros((HOURS, X.shape[1]))
    for place, column in enumerate(recipe.seasonal):
        end, first = np.unique(ends[:, place], return_index=True)
        values = X[first, column]
        seen = ~np.isnan(values)
        hours = clock_hours(end[seen], str(recipe.season))
        count = np.bincount(hours, minlength=HOURS)
        total = np.bincount(hours, weights=values[seen], minlength=HOURS)
        means[:, column] = np.divide(total, count, out=np.full(HOURS, np.nan), where=count > 0)
    return means


def less_means(
    X: np.ndarray, ends: np.ndarray | None, recipe: Recipe, means: np.ndarray | None
) -> np.ndarray:
    """Rows (T, D) less the means of their hours; the rows themselves where `means` is None.

    Raises DataError for rows of another recipe, which lack the ends of their bars.
    """
    if means is None:
        return X
    if ends is None:
        raise DataError(
            "the features were built without a season: build them by the model's recipe"
        )
    adjusted = X.copy()
    for place, column in enumerate(recipe.seasonal):
        hours = clock_hours(ends[:, place], str(recipe.season))
        adjusted[:, column] -= means[hours, column]
    return adjusted


def clock_hours(time_ns: np.ndarray, zone: str) -> np.ndarray:
    """Hour of the day in a zone, 0 to 23, of instants in nanoseconds, shape (T,)."""
    hours = np.empty(len(time_ns), np.int64)
    _write_hours(time_ns, *utc_offsets(zone), hours)
    return hours


@cache
def utc_offsets(zone: str) -> tuple[np.ndarray, np.ndarray]:
    """Instants at which the clocks of a zone change, and by how much they then lead UTC.

    Returns
    -------
    starts, offsets
        Nanoseconds, shape (M,) each; the first start precedes all times. Changes from 1900 to 2199
        are found to the second.
    """
    days = np.arange(_FIRST, _LAST, 24 * _HOUR)
    at_day = _offset(days, zone)
    change = np.flatnonzero(np.diff(at_day))
    low, high = days[change], days[change + 1]
    while (high - low > _SECOND).any():
        middle = low + (high - low) // 2 // _SECOND * _SECOND
        same = _offset(middle, zone) == at_day[change]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    starts = np.append(np.iinfo(np.int64).min, high)
    return starts, np.append(at_day[:1], _offset(high, zone))


@entry
def hour_of(time_ns: int, starts: np.ndarray, offsets: np.ndarray) -> int:
    """Hour of the day of one instant, by the table of `utc_offsets`."""
    offset = offsets[np.searchsorted(starts, time_ns, side="right") - 1]
    return (time_ns + offset) // _HOUR % HOURS


@entry
def _write_hours(time_ns, starts, offsets, hours):
    for t in range(len(time_ns)):
        hours[t] = hour_of(time_ns[t], starts, offsets)


def _offset(time_ns: np.ndarray, zone: str) -> np.ndarray:
    """Lead of a zone's clocks over UTC, nanoseconds."""
    instants = pd.DatetimeIndex(time_ns.view("M8[ns]"), tz="UTC")
    local = instants.tz_convert(check_timezone(zone)).tz_localize(None)
    return local.as_unit("ns").asi8 - time_ns
