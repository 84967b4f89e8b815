"""One bar as a caller gives it: a time and five numbers out of a mapping, checked.

>>> read_bar({"timestamp": "2024-01-01T05:00Z", "open": 1.0, ...})
(1704085200000000000, (1.0, ...))
"""

from collections.abc import Mapping
from typing import Any

from hmm_exp.errors import DataError
from hmm_exp.market.bars import OHLCV
from hmm_exp.market.rows import moment
from hmm_exp.market.stamps import read_stamp

Numbers = tuple[float, float, float, float, float]

_INFINITY = float("inf")


def read_bar(bar: Mapping[str, Any]) -> tuple[int, Numbers]:
    """Stamp in nanoseconds since 1970 (UTC) and open, high, low, close, volume.

    Parameters
    ----------
    bar
        `timestamp` (datetime, text or epoch; without a zone it is UTC), `open`, `high`, `low`,
        `close`, `volume`. A dict is fastest; a row of a DataFrame will do.

    Raises
    ------
    DataError
        When a value is not there, cannot be read, or the bar cannot be.
    """
    try:
        stamp = stamp_of(bar["timestamp"])
        opens, high, low, close, volume = [float(bar[name]) for name in OHLCV]
    except (KeyError, TypeError, ValueError):
        raise _unreadable(bar) from None
    # Comparisons with NaN are false, so one chain of them holds all that a bar must be.
    if not (
        0.0 < low <= opens <= high < _INFINITY and low <= close <= high and 0 <= volume < _INFINITY
    ):
        numbers = opens, high, low, close, volume
        raise DataError(f"the bar of {moment(stamp)} {_fault(*numbers)}: {_told(numbers)}")
    return stamp, (opens, high, low, close, volume)


def stamp_of(value: Any) -> int:
    """Nanoseconds since 1970 of a time in any form that bars files may have.

    Raises DataError when it cannot be read.
    """
    return read_stamp(value)


def _unreadable(bar: Mapping[str, Any]) -> DataError:
    missing = [name for name in ("timestamp", *OHLCV) if name not in bar]
    if missing:
        return DataError(f"the bar has no {', '.join(missing)}: send timestamp, {', '.join(OHLCV)}")
    for name in OHLCV:
        try:
            float(bar[name])
        except (TypeError, ValueError):
            return DataError(f"the bar of {bar['timestamp']} has {name}={bar[name]!r}: no number")
    return DataError(f"timestamp {bar['timestamp']!r} cannot be read")


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
