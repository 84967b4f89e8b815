"""One bar as a caller gives it: a time and five numbers out of a mapping, checked.

>>> read_bar({"timestamp": "2024-01-01T05:00Z", "open": 1.0, ...})
(1704085200000000000, (1.0, ...))
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError, one_line
from hmm_exp.market.bars import OHLCV, PRICES
from hmm_exp.market.options import ReadOptions, check_timezone
from hmm_exp.market.rows import moment
from hmm_exp.market.stamps import UNREADABLE, read_stamps

Names = tuple[str, str, str, str, str, str]
Numbers = tuple[float, float, float, float, float]

BAR: Names = ("timestamp", "open", "high", "low", "close", "volume")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INFINITY = float("inf")
_FIRST, _LAST = (pd.Timestamp(f"{year}-01-01").value for year in (1700, 2200))
_LONGEST_TIME = 64  # characters
_LAST_DATE = 21_001_231  # of dates written as whole numbers; larger ones are epochs


def bar_names(reading: ReadOptions) -> Names:
    """Keys of a bar's time, prices and volume: the columns chosen in training, else the usual."""
    return (reading.timestamp_column or "timestamp", *PRICES, reading.volume_column or "volume")


def read_bar(
    bar: Mapping[str, Any], names: Names = BAR, timezone: str = "UTC"
) -> tuple[int, Numbers]:
    """Stamp in nanoseconds since 1970 (UTC) and open, high, low, close, volume.

    Parameters
    ----------
    bar
        A time (datetime, text or epoch), four prices and a volume. A dict is fastest; a row of a
        DataFrame will do.
    names
        Keys of the six, in that order; from `bar_names`.
    timezone
        IANA name of the zone of a time that names none.

    Raises
    ------
    DataError
        When a value is not there, cannot be read, or the bar cannot be.
    """
    try:
        stamp = stamp_of(bar[names[0]], timezone)
        opens, high, low, close, volume = [
            value if type(value := bar[name]) is float else _number(value) for name in names[1:]
        ]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _unreadable(bar, names) from None
    # Comparisons with NaN are false, so one chain of them holds all that a bar must be.
    if not (
        0.0 < low <= opens <= high < _INFINITY and low <= close <= high and 0 <= volume < _INFINITY
    ):
        numbers = opens, high, low, close, volume
        raise DataError(f"the bar of {moment(stamp)} {_fault(*numbers)}: {_told(numbers)}")
    return stamp, (opens, high, low, close, volume)


def stamp_of(value: Any, timezone: str = "UTC") -> int:
    """Nanoseconds since 1970 of a time in any form that bars files may have.

    Parameters
    ----------
    value
        Datetime, text or epoch.
    timezone
        IANA name of the zone of a time that names none.

    Raises
    ------
    DataError
        When it cannot be read, or the zone's clock does not show it exactly once.
    """
    try:
        stamp = _stamp(value, timezone)
    except (TypeError, ValueError, OverflowError):
        stamp = UNREADABLE
    if not _FIRST <= stamp <= _LAST:
        shown = one_line(repr(value)[:60])
        raise DataError(f"timestamp {shown} cannot be read: send ISO text, a datetime or an epoch")
    return stamp


def _stamp(value: Any, timezone: str) -> int:
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if value is pd.NaT:
        return UNREADABLE
    if isinstance(value, pd.Timestamp):
        offset = 0 if value.tzinfo else _offset(value.to_pydatetime(warn=False), timezone)
        return value.value - offset
    if isinstance(value, datetime):
        return _since_epoch(value, timezone)
    if isinstance(value, str) and value[4:5] == "-":
        return _from_iso(value, timezone)
    return _of_any_form(value, timezone)


def _from_iso(text: str, timezone: str) -> int:
    try:
        return _since_epoch(datetime.fromisoformat(text.strip()), timezone)
    except ValueError:
        return _of_any_form(text, timezone)


def _since_epoch(time: datetime, timezone: str) -> int:
    if time.tzinfo:
        return (time - _EPOCH) // _MICROSECOND * 1000
    return (time.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND * 1000 - _offset(time, timezone)


def _offset(time: datetime, timezone: str) -> int:
    """Nanoseconds by which a zone's clock, which shows `time`, is before UTC."""
    if timezone == "UTC":
        return 0
    zone = check_timezone(timezone)
    first, second = (time.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    assert first is not None
    if first != second:
        raise DataError(f"{time} is no time or two times in {timezone}: send times in UTC")
    return first // _MICROSECOND * 1000


def _of_any_form(value: Any, timezone: str) -> int:
    """An epoch, or a date in a form that files may have."""
    is_text = isinstance(value, str)
    if not is_text and (
        isinstance(value, bool) or not isinstance(value, int | float | np.number | date)
    ):
        return UNREADABLE
    if len(value) > _LONGEST_TIME if is_text else isinstance(value, int) and abs(value) >= 1 << 63:
        return UNREADABLE
    if timezone != "UTC" and not (is_number(value) and float(value) > _LAST_DATE):
        return UNREADABLE  # whether such a text names a zone is not known
    return int(read_stamps(pd.Series([value]))[0][0])


def _number(value: Any) -> float:
    """Value of a number or of its text. Raises TypeError, ValueError or OverflowError."""
    if isinstance(value, bool | np.bool_ | bytes | bytearray):
        raise TypeError
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError  # Python reads 1_000 and digits of any script; tables do not
    return float(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number or the text of one."""
    try:
        _number(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _unreadable(bar: Mapping[str, Any], names: Names) -> DataError:
    if not hasattr(bar, "keys"):
        return DataError(f"a bar is a mapping such as a dict, not {type(bar).__name__}")
    missing = [name for name in names if name not in bar]
    if missing:
        chosen = [
            f"data.{kind}_column={name}"
            for kind, name in (("timestamp", names[0]), ("volume", names[-1]))
            if name != kind and name in missing
        ]
        why = f"; the model was trained with {' and '.join(chosen)}" if chosen else ""
        line = f"the bar has no {', '.join(missing)}: send {', '.join(names)}{why}"
        return DataError(one_line(line))
    shown = {name: one_line(repr(bar[name])[:60]) for name in names}
    for name in names[1:]:
        if not is_number(bar[name]):
            return DataError(f"the bar of {shown[names[0]]} has {name}={shown[name]}: no number")
    return DataError(f"timestamp {shown[names[0]]} cannot be read")


def _fault(opens: float, high: float, low: float, close: float, volume: float) -> str:
    """Say what such a bar cannot be; the same rules as those for files."""
    if not all(abs(value) < _INFINITY for value in (opens, high, low, close, volume)):
        return "has a missing or infinite number"
    if min(opens, high, low, close) <= 0.0:
        return "has a zero or negative price"
    if high < low:
        return "has its high below its low"
    return "has a negative volume" if volume < 0.0 else "has open or close outside low..high"


def _told(numbers: Numbers) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(OHLCV, numbers, strict=True))
