"""Zones of time: offsets and names as they stand in files, and local clock times as UTC.

>>> zone_offset("GMT+0100")  # the clock runs one hour ahead of UTC
3600000000000
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError
from hmm_exp.market.options import check_timezone

UNREADABLE = np.iinfo(np.int64).min
"""Stands for a time that cannot be read, in nanoseconds; it sorts before every other."""

_UTC = {"z", "utc", "gmt", "ut"}
_OFFSET = re.compile(r"(?:utc|gmt)? ?([+-])(\d{1,2}):?(\d{2})?", re.IGNORECASE)
_MINUTE = 60_000_000_000  # ns


def zone_offset(text: str) -> int | None:
    """Nanoseconds by which a clock runs ahead of UTC, such as for "+01:00" or "UTC-5".

    A sign means what people mean by it: "GMT+1" runs ahead of UTC. None for a name of a zone,
    whose offset depends on the date, and for anything else.
    """
    if text.lower() in _UTC:
        return 0
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    sign, hours, minutes = match[1], int(match[2]), int(match[3] or 0)
    if hours > 15 or minutes > 59:
        return None
    return (-1 if sign == "-" else 1) * (60 * hours + minutes) * _MINUTE


def in_utc(local_ns: np.ndarray, zones: Sequence[str], of_row: np.ndarray) -> np.ndarray:
    """Times of clocks in several zones as UTC.

    `local_ns` (T,) are clock times in nanoseconds since 1970; `zones` are offsets or IANA names,
    and `of_row` (T,) is the place of each row's zone. Returns int64 (T,), UNREADABLE where a zone
    is unknown or its clocks skip the time.
    """
    result = local_ns.copy()
    for place, zone in enumerate(zones):
        rows = np.flatnonzero((of_row == place) & (local_ns != UNREADABLE))
        offset = zone_offset(zone)
        if offset is not None:
            result[rows] = local_ns[rows] - offset
        elif len(rows):
            result[rows] = _named(local_ns[rows], zone)
    return result


def localised(local_ns: np.ndarray, timezone: str) -> np.ndarray:
    """Clock times of one named zone as UTC; see `in_utc`."""
    return in_utc(local_ns, [timezone], np.zeros(len(local_ns), dtype=np.int64))


def _named(local_ns: np.ndarray, name: str) -> np.ndarray:
    """Clock times of an IANA zone as UTC.

    When clocks are set back, a time exists twice: it is read as the first, unless the row before
    it is that or later. A midnight that a zone skips is the day's first instant.
    """
    try:
        zone = check_timezone(name)
    except ConfigError:
        return np.full(len(local_ns), UNREADABLE)
    clock = pd.DatetimeIndex(local_ns.view("M8[ns]"))
    summer, winter = np.ones(len(clock), dtype=bool), np.zeros(len(clock), dtype=bool)
    first = _asi8(clock.tz_localize(zone, ambiguous=summer, nonexistent="NaT"))
    second = _asi8(clock.tz_localize(zone, ambiguous=winter, nonexistent="NaT"))
    if len(first) > 1 and first[-1] < first[0]:  # newest first
        _take_second_when_repeated(first[::-1], second[::-1])
    else:
        _take_second_when_repeated(first, second)
    skipped = (first == UNREADABLE) & (clock == clock.normalize())
    if skipped.any():
        first[skipped] = _asi8(clock[skipped].tz_localize(zone, nonexistent="shift_forward"))
    return first


def _take_second_when_repeated(first: np.ndarray, second: np.ndarray) -> None:
    """Change `first` (T,) in place where its time has come already, in time order."""
    for row in np.flatnonzero(first != second):
        if row and first[row] <= first[row - 1]:
            first[row] = second[row]


def _asi8(times: pd.DatetimeIndex) -> np.ndarray:
    return times.as_unit("ns").asi8.copy()
