"""The times of a table: which column holds them, whether it really does, and what betrays a fault.

A name alone decides nothing: a column of row numbers named `time` is passed over for a `date`
that can be read. Where two columns disagree, the report names the one that was used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError, counted
from hmm_exp.market.bars import shown
from hmm_exp.market.columns import (
    find_clock,
    find_timestamps,
    find_zone,
    times_of_other_stamp,
    times_of_stamp,
)
from hmm_exp.market.iso import iso
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.stamps import Stamps, read_stamps
from hmm_exp.market.zones import UNREADABLE

_DAY = 86_400_000_000_000  # ns
_YEAR = 366 * _DAY
_VERY_FEW = 0.01  # share of the times
_NO_OFFSET = r"(?i)z|utc|gmt|(utc|gmt)? ?[+-]?0+([:.]?0+)?"
_LONG_GAP = 5  # usual steps: longer than a weekend of daily bars
_CLOCK = (
    r"\d{1,2}(:\d{2}){1,2}(\.\d+)?( ?[AaPp]\.?[Mm]\.?)?( ?[A-Za-z]*([+-]\d{1,2}(:?\d{2})?)?)?"
    r"|\d{1,6}|\d{9}"
)
_FEW = 100  # rows that tell whether two columns are one


@dataclass
class TimeColumn:
    """The times of a table."""

    name: str  # the column, or the two that were joined
    values: pd.Series  # as they stand in the table, for messages, shape (T,)
    stamps: Stamps  # as read
    warnings: list[str] = field(default_factory=list)  # what a user should look at


def time_column(frame: pd.DataFrame, options: ReadOptions) -> TimeColumn:
    """Find and read the times of a frame whose column names are unique texts.

    Raises DataError if no column holds times, the bar's other end is meant, or times cannot be told
    apart.
    """
    names = [str(name) for name in frame.columns]
    candidates = find_timestamps(names, options.bar_stamp, options.timestamp_column)
    first, *others = _distinct(candidates, names)
    times = _read(frame, first, options)
    while others and not _holds_times(times):
        other = _read(frame, others.pop(0), options)
        if _holds_times(other):
            other.stamps.notes.append(f"{times.name!r} holds no times: {other.name!r} is read")
            other.stamps.needs_all = True
            times = other
    if len(frame) and not _holds_times(times, least=0.0):
        raise _no_times(times)
    if options.timestamp_column is None:
        _refuse_other_end(frame, times, options)
        times.warnings += _disagreements(frame, times, others, options)
    times.warnings += [*swapped_days(times), *_unused_zone(frame, times), *_far_from_all(times)]
    return times


def swapped_days(times: TimeColumn) -> list[str]:
    """A warning where exchanging day and month in dates up to the 12th mends order and gaps.

    A spreadsheet of another country reads 2 January as 1 February, and leaves the 13th alone.
    """
    ns = times.stamps.ns[times.stamps.ns != UNREADABLE]
    if times.values.dtype.kind in "iuf" or len(ns) < 3:
        return []
    backward, gaps = _disorder(ns)
    if backward < 2 and gaps < 3:
        return []
    exchanged = _exchanged(ns)
    backward_then, gaps_then = _disorder(exchanged)
    mends_order = backward >= 2 and backward_then == 0
    if not mends_order and (gaps < 3 or 4 * gaps_then > gaps):
        return []
    row = int(np.argmax(exchanged != ns))
    was, is_ = (f"{pd.Timestamp(int(t)):%Y-%m-%d}" for t in (ns[row], exchanged[row]))
    found = f"{backward} steps back in time" if mends_order else f"{gaps - gaps_then} gaps"
    return [
        f"{found} would vanish with day and month exchanged in dates up to the 12th ({was} would "
        f"be {is_}): a spreadsheet may have swapped them in {times.name!r}"
    ]


def _unused_zone(frame: pd.DataFrame, times: TimeColumn) -> list[str]:
    """A warning where times that name no zone stand beside a column that names one."""
    name = find_zone(list(frame.columns)) if times.stamps.local else None
    if name is None:
        return []
    zones = frame[name].dropna().astype(str).str.strip()
    zones = zones[~zones.str.fullmatch(_NO_OFFSET)]
    if not len(zones):
        return []
    return [
        f"{times.name!r} names no zone, and {name!r}, which begins with {shown(zones.iloc[0])!r}, "
        "is not read: data.timezone decides"
    ]


def _far_from_all(times: TimeColumn) -> list[str]:
    """A warning where very few times lie further from all others than those span."""
    ns = np.sort(times.stamps.ns[times.stamps.ns != UNREADABLE])
    if len(ns) < 3:
        return []
    steps = np.diff(ns)
    before = int(np.argmax(steps)) + 1
    n_few = min(before, len(ns) - before)
    if steps.max() < max(_YEAR, (ns[-1] - ns[0]) / 2) or n_few > max(1, _VERY_FEW * len(ns)):
        return []
    place = 0 if n_few == before else -1
    return [
        f"{counted(n_few, 'time')} of {times.name!r} lies {steps.max() // _DAY:,} days from the "
        f"others: {iso(ns[place])}"
    ]


def _distinct(candidates: Sequence[str], names: Sequence[str]) -> list[str]:
    """The candidates; refuse a first one that is there twice with different content."""
    twin = f"{candidates[0]} [2]"
    if twin in names:
        raise DataError(
            f"2 columns are named {candidates[0] or '(nameless)'} and differ: rename one, or "
            f"choose by data.timestamp_column={twin!r}"
        )
    return list(candidates)


def _read(frame: pd.DataFrame, name: str, options: ReadOptions) -> TimeColumn:
    """Read a column, joined with a clock of its own where it is a date or a clock."""
    both = find_clock(list(frame.columns), name)
    if both is not None:
        clock = _clock_texts(frame[both[1]])
        if clock is not None and _are_days(frame[both[0]]):
            values = _date_texts(frame[both[0]]) + " " + clock
            stamps = read_stamps(values, options.timezone)
            stamps.needs_all |= not clock.dropna().str.contains(":").any()  # all tell its digits
            joined = TimeColumn(" + ".join(both), values, stamps)
            if _holds_times(joined):
                return joined
    return TimeColumn(name, frame[name], read_stamps(frame[name], options.timezone))


def _date_texts(column: pd.Series) -> pd.Series:
    """Dates as text; whole numbers without a decimal point."""
    texts = column.astype("string")
    return texts.str.removesuffix(".0") if column.dtype.kind == "f" else texts


def _are_days(column: pd.Series) -> bool:
    """Whether the first values of a column are dates without a time of day."""
    try:
        ns = read_stamps(_date_texts(column[:_FEW])).ns
    except DataError:  # day and month are told apart by all rows
        return True
    read = ns[ns != UNREADABLE]
    return bool((read % _DAY == 0).all())


def _clock_texts(column: pd.Series) -> pd.Series | None:
    """Times of day as text, or None where a column holds none.

    Digits are HHMM or HHMMSS, or without leading zeros what the largest shows: hours up to 24,
    HHMM up to 2400, else HHMMSS.
    """
    texts = _date_texts(column).str.strip()
    present = texts.dropna()
    if not len(present) or not present.str.fullmatch(_CLOCK).mean() > 0.5:
        return None
    lengths = present.str.len()
    if (lengths == lengths.iloc[0]).all() and lengths.iloc[0] in (4, 6, 9):
        return texts
    digits = present[present.str.fullmatch(r"\d{1,6}")]
    if not len(digits):
        return texts
    largest = digits.astype("int64").max()
    padded = texts.str.zfill(2 if largest <= 24 else 4 if largest <= 2400 else 6)
    return texts.where(texts.str.contains(":", regex=False, na=True), padded)


def _holds_times(times: TimeColumn, least: float = 0.5) -> bool:
    """Whether more than the share `least` of the values that are there can be read."""
    present = times.values.notna().to_numpy()
    if not present.any():
        return False
    return bool((times.stamps.ns[present] != UNREADABLE).mean() > least)


def _no_times(times: TimeColumn) -> DataError:
    reason = f" ({times.stamps.reason})" if times.stamps.reason else ""
    first = str(times.values.iloc[0])[:60]
    return DataError(
        f"no column of times: {times.name or '(nameless)'!r} begins with {first!r}{reason}; "
        "set data.timestamp_column"
    )


def _refuse_other_end(frame: pd.DataFrame, times: TimeColumn, options: ReadOptions) -> None:
    """Raise DataError where the times are those of a column named after the bar's other end."""
    for name in times_of_other_stamp(list(frame.columns), options.bar_stamp):
        if name == times.name or not len(frame):
            continue
        other = read_stamps(frame[name][:_FEW], options.timezone).ns
        if np.array_equal(other, times.stamps.ns[:_FEW]) and (other != UNREADABLE).all():
            end = "close" if options.bar_stamp == "open" else "open"
            raise DataError(
                f"{times.name!r} holds the same times as {name!r}, but data.bar_stamp="
                f"{options.bar_stamp}: set data.bar_stamp={end}, or data.timestamp_column"
            )


def _disagreements(
    frame: pd.DataFrame, times: TimeColumn, others: Sequence[str], options: ReadOptions
) -> list[str]:
    """Warnings about other columns of times that differ from the one in use.

    Times of the bar's other end differ by right, and so does a column that repeats them.
    """
    names = [str(name) for name in frame.columns]
    own_end = times_of_stamp(names, options.bar_stamp)
    left = [name for name in others if name not in (*own_end, *times.name.split(" + "))]
    ends = times_of_other_stamp(names, options.bar_stamp) if left else []
    of_ends = [read_stamps(frame[name], options.timezone).ns for name in ends]
    warnings = []
    for name in left:
        other = read_stamps(frame[name], options.timezone).ns
        if not any(np.array_equal(other, end) for end in of_ends):
            warnings += _disagreement(times, name, other)
    return warnings


def _disagreement(times: TimeColumn, name: str, other: np.ndarray) -> list[str]:
    both = (other != UNREADABLE) & (times.stamps.ns != UNREADABLE)
    if both.mean() < 0.5 or (other[both] % _DAY == 0).all():  # no times, or days alone
        return []
    apart = other[both] - times.stamps.ns[both]
    values, counts = np.unique(apart, return_counts=True)
    usual = values[np.argmax(counts)]
    n_other = int((apart != usual).sum())
    if n_other == 0 and usual == 0:
        return []
    if n_other == 0:
        return [f"{name!r} is {_length(usual)} from {times.name!r} in all rows; the latter is read"]
    largest = apart[np.argmax(np.abs(apart - usual))]
    return [
        f"{name!r} and {times.name!r} disagree in {n_other} rows, by up to "
        f"{_length(largest - usual)}; {times.name!r} is read"
    ]


def _length(ns: int) -> str:
    return str(pd.Timedelta(abs(int(ns)), unit="ns")).removeprefix("0 days ")


def _disorder(ns: np.ndarray) -> tuple[int, int]:
    """Steps back in time by the way that most rows go, and long gaps after sorting."""
    steps = np.diff(ns)
    backward = min(int((steps < 0).sum()), int((steps > 0).sum()))
    ordered = np.diff(np.unique(ns))
    usual = np.median(ordered) if len(ordered) else 0
    return backward, int((ordered > _LONG_GAP * usual).sum())


def _exchanged(ns: np.ndarray) -> np.ndarray:
    """Times with day and month exchanged where both are up to 12, shape (T,)."""
    times = pd.DatetimeIndex(ns.view("M8[ns]"))
    month, day = times.month.to_numpy(), times.day.to_numpy()
    in_day = ns % _DAY
    year = (times.year.to_numpy() - 1970).astype("M8[Y]").astype("M8[M]")
    first = (year + (day - 1)).astype("M8[D]").astype(np.int64)
    return np.where(day <= 12, (first + month - 1) * _DAY + in_day, ns)
