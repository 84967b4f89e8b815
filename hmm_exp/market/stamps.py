"""Times of any usual form as int64 nanoseconds since 1970, UTC.

Epochs, dates as digits and as text are read by known rules (`number_stamps`, `text_stamps`), never
guessed. Whatever does not lie between 1800 and 2100 is no time of a bar. Times that name no zone
are those of `data.timezone`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hmm_exp.errors import DataError
from hmm_exp.market.number_stamps import FIRST, LAST, read_numbers
from hmm_exp.market.options import check_timezone
from hmm_exp.market.text_stamps import is_number, read_texts
from hmm_exp.market.zones import UNREADABLE, localised

_UNITS_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017
_MICROSECOND = timedelta(microseconds=1)
_MOST_DIGITS = 19  # of a whole number in int64


@dataclass
class Stamps:
    """Times of a column."""

    ns: np.ndarray  # nanoseconds since 1970, UTC, shape (T,), UNREADABLE where there is none
    notes: list[str]  # what was done to read them
    reason: str = ""  # why some cannot be read, where more is known than their text; else empty
    # Whether the form was decided by comparing rows, so that fewer rows could tell otherwise.
    needs_all: bool = False
    local: bool = False  # whether any of them names no zone


def read_stamps(column: pd.Series, timezone: str = "UTC") -> Stamps:
    """Read a column of times.

    The column holds datetimes, numbers or text, T values; those that name no zone are of
    `timezone`, an IANA name. Raises DataError when day and month cannot be told apart, or numbers
    have lost digits.
    """
    kind = column.dtype.kind
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        stamps, local = Stamps(_of_datetimes(column.dt.tz_convert("UTC")), []), False
    elif kind == "M":
        stamps, local = Stamps(_of_datetimes(column), []), True
    elif kind in "iuf":
        stamps, local = _of_numbers(column)
    else:
        return _of_text(column, timezone)
    return _in_zone(stamps, np.full(len(column), local), timezone)


def read_stamp(value: Any, timezone: str = "UTC") -> int:
    """Read one time as nanoseconds since 1970, UTC; the same that `read_stamps` gives for it.

    Raises DataError when it cannot be read.
    """
    stamp = _quickly(value, timezone)
    if stamp is None:
        stamps = read_stamps(pd.Series([value]), timezone)
        stamp = int(stamps.ns[0])
    if not FIRST <= stamp < LAST:
        raise DataError(
            f"timestamp {_shown(value)} cannot be read: send ISO text, a datetime or an epoch"
        )
    return stamp


def _quickly(value: Any, timezone: str) -> int | None:
    """A datetime, or ISO text of a date and a clock, in UTC; None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) < 16 or text[4] != "-" or text[7] != "-" or text[10] not in "T ":
            return None
        if len(text) > 26 and text[19] in ".," and text[20:27].isdigit():  # below a microsecond
            return None
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            return None
    elif isinstance(value, pd.Timestamp):
        if value.tz is None and timezone != "UTC":
            return _quickly(value.to_pydatetime(warn=False), timezone)
        return value.as_unit("ns").value if abs(value.year - 1950) < 150 else UNREADABLE
    elif not isinstance(value, datetime) or value is pd.NaT:
        return None
    if value.tzinfo is None:
        if timezone == "UTC":
            value = value.replace(tzinfo=_EPOCH.tzinfo)
        elif (value := _of_clock(value, timezone)) is None:
            return None
    return (value - _EPOCH) // _MICROSECOND * 1000


def _of_clock(value: datetime, timezone: str) -> datetime | None:
    """The time at which clocks of a zone show `value`, None where they skip it.

    Raises DataError where they show it twice: one time alone cannot tell which is meant.
    """
    zone = check_timezone(timezone)
    first, second = (value.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    ahead = first.utcoffset() - second.utcoffset()  # type: ignore[operator]
    if ahead > timedelta(0):
        raise DataError(f"{value} comes twice in {timezone}: send times in UTC or with an offset")
    return None if ahead else first


def _shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "of too many digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _of_datetimes(column: pd.Series) -> np.ndarray:
    """Nanoseconds of datetimes in any unit, UNREADABLE outside the span, shape (T,)."""
    unit = np.datetime_data(column.dt.tz_localize(None).dtype)[0]
    values, factor = column.astype("int64").to_numpy(), _UNITS_NS[unit]
    inside = (values >= FIRST // factor) & (values < LAST // factor) & column.notna().to_numpy()
    return np.where(inside, np.where(inside, values, 0) * factor, UNREADABLE)


def _of_numbers(column: pd.Series) -> tuple[Stamps, bool]:
    """Stamps of numbers, and whether they are those of a local clock."""
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    is_whole = column.dtype.kind in "iu" and not np.isnan(numbers).any()
    fits = is_whole and np.abs(numbers).max(initial=0) < 2**63
    return _read_numbers(numbers, column.to_numpy(dtype=np.int64) if fits else None)


def _read_numbers(numbers: np.ndarray, exact: np.ndarray | None) -> tuple[Stamps, bool]:
    read = read_numbers(numbers, exact)
    reason = ""
    if (read.ns == UNREADABLE)[np.isfinite(numbers)].any():
        reason = (
            "no epoch in s, ms, us or ns of 1973 to 2100, and no date in digits, YYYYMMDD first"
        )
    return Stamps(read.ns, list(read.notes), reason, read.needs_all), read.local


def _of_text(column: pd.Series, timezone: str) -> Stamps:
    """Stamps of text, in which numbers may stand among dates."""
    texts = _texts(column)
    if iso := _of_iso(texts, timezone):
        return iso
    stamps = Stamps(np.full(len(texts), UNREADABLE), [])
    local = np.zeros(len(texts), dtype=bool)
    numeric = is_number(texts)
    if numeric.any():
        rows = np.flatnonzero(numeric)
        of_numbers, is_local = _read_numbers(*_parsed(texts.take(pa.array(rows))))
        stamps.ns[rows], local[rows] = of_numbers.ns, is_local
        stamps.notes, stamps.reason = of_numbers.notes, of_numbers.reason
        stamps.needs_all = of_numbers.needs_all
    rows = np.flatnonzero(~numeric & pc.is_valid(texts).to_numpy(zero_copy_only=False))
    if len(rows):
        read = read_texts(texts.take(pa.array(rows)))
        stamps.ns[rows], local[rows] = read.ns, read.local
        stamps.needs_all |= read.needs_all
        stamps.notes += ["dates not in ISO form"] if set(read.forms) - {"year first"} else []
        if read.unknown_zones:
            stamps.reason = (
                f"no zone is named {_shown(read.unknown_zones[0])}: write an offset (-04:00), "
                "or no zone and set data.timezone"
            )
    return _in_zone(stamps, local, timezone)


def _of_iso(texts: pa.Array, timezone: str) -> Stamps | None:
    """Stamps where all texts are ISO dates and clocks, with a zone in each or in none."""
    for zone in (None, "UTC"):
        try:
            times = pc.cast(texts, pa.timestamp("ns", zone))
        except pa.ArrowInvalid:
            continue
        ns = np.where(times.is_valid(), pc.fill_null(pc.cast(times, pa.int64()), 0), UNREADABLE)
        ns[(ns < FIRST) | (ns >= LAST)] = UNREADABLE
        return _in_zone(Stamps(ns, []), np.full(len(ns), zone is None), timezone)
    return None


def _texts(column: pd.Series) -> pa.Array:
    """Values as text without blanks around, null where there is none or it is no text."""
    try:
        texts = pa.array(list(column.astype("string").array), pa.string(), from_pandas=True)
    except (ValueError, TypeError, OverflowError):  # such as a number of thousands of digits
        texts = pa.array([_text(value) for value in column], pa.string())
    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.less_equal(pc.utf8_length(texts), 100), texts, None)


def _text(value: Any) -> str | None:
    try:
        return str(value).encode(errors="replace").decode()
    except ValueError:
        return None


def _parsed(texts: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers of texts that are numbers, and the same exactly where all are whole."""
    numbers = pc.cast(texts, pa.float64()).to_numpy()
    whole = pc.match_substring_regex(texts, rf"^[+-]?\d{{1,{_MOST_DIGITS - 1}}}$|^[1-4]\d{{18}}$")
    if not pc.all(whole).as_py():
        return numbers, None
    return numbers, pc.cast(pc.utf8_ltrim(texts, "+"), pa.int64()).to_numpy()


def _in_zone(stamps: Stamps, local: np.ndarray, timezone: str) -> Stamps:
    """The stamps with those of a local clock taken from `timezone`."""
    rows = np.flatnonzero(local & (stamps.ns != UNREADABLE))
    stamps.local = bool(len(rows))
    if timezone == "UTC" or not len(rows):
        return stamps
    stamps.ns[rows] = localised(stamps.ns[rows], timezone)
    if (stamps.ns[rows] == UNREADABLE).any():
        stamps.reason = f"clocks in {timezone} skip that time"
    stamps.notes.append(f"times without a zone read as {timezone}")
    return stamps
