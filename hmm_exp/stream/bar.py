"""One bar as a caller gives it: a time and five numbers out of a mapping, checked.

>>> read_bar({"timestamp": "2024-01-01T05:00Z", "open": 1.0, ...})
(1704085200000000000, (1.0, ...))
"""

from collections.abc import Collection, Mapping
from math import nan
from typing import Any

import numpy as np

from hmm_exp.errors import DataError, one_line
from hmm_exp.market.bars import OHLCV, PRICES
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.rows import moment
from hmm_exp.market.stamps import read_stamp

Names = tuple[str, str, str, str, str, str]
Numbers = tuple[float, float, float, float, float]

BAR: Names = ("timestamp", "open", "high", "low", "close", "volume")
_INFINITY = float("inf")


def bar_names(reading: ReadOptions) -> Names:
    """Keys of a bar's time, prices and volume: the columns chosen in training, else the usual."""
    return (reading.time, *PRICES, reading.volume)


def read_bar(
    bar: Mapping[str, Any],
    names: Names = BAR,
    timezone: str = "UTC",
    needs: Collection[str] = OHLCV,
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
    needs
        Columns that will be used; another one may be absent or bad, and is then NaN.

    Raises
    ------
    DataError
        When a value is not there, cannot be read, or the bar cannot be.
    """
    try:
        stamp = read_stamp(bar[names[0]], timezone)
        numbers = tuple(
            value if type(value := bar[name]) is float else _number(value) for name in names[1:]
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        stamp, numbers = _needed(bar, names, timezone, needs)
    opens, high, low, close, volume = numbers
    # Comparisons with NaN are false, so one chain of them holds all that a bar must be.
    if not (
        0.0 < low <= opens <= high < _INFINITY and low <= close <= high and 0 <= volume < _INFINITY
    ):
        numbers = _without_unused((opens, high, low, close, volume), needs)
        if fault := _fault(numbers, needs):
            raise DataError(f"the bar of {moment(stamp)} {fault}: {_in_words(numbers)}")
    return stamp, numbers  # type: ignore[return-value]


def is_number(value: Any) -> bool:
    """Whether a value is a number or the text of one."""
    try:
        _number(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _number(value: Any) -> float:
    """Value of a number or of its text. Raises TypeError, ValueError or OverflowError."""
    if isinstance(value, bool | np.bool_ | bytes | bytearray):
        raise TypeError
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError  # Python reads 1_000 and digits of any script; tables do not
    return float(value)


def _needed(
    bar: Mapping[str, Any], names: Names, timezone: str, needs: Collection[str]
) -> tuple[int, Numbers]:
    """The bar with NaN for what is absent or no number and not needed. Raises DataError."""
    if not hasattr(bar, "keys"):
        raise DataError(f"a bar is a mapping such as a dict, not {type(bar).__name__}")
    roles = dict(zip(OHLCV, names[1:], strict=True))
    used = [names[0], *(name for role, name in roles.items() if role in needs)]
    if missing := [name for name in used if name not in bar]:
        raise _lacks(missing, names)
    for name in used[1:]:
        if not is_number(bar[name]):
            time, value = (one_line(repr(bar[key])[:60]) for key in (names[0], name))
            raise DataError(f"the bar of {time} has {name}={value}: no number")
    numbers = (
        _number(bar[name]) if name in bar and is_number(bar[name]) else nan
        for name in roles.values()
    )
    return read_stamp(bar[names[0]], timezone), tuple(numbers)  # type: ignore[return-value]


def _lacks(missing: list[str], names: Names) -> DataError:
    """Error about keys that are not there, with those that training chose."""
    chosen = [
        f"data.{kind}_column={name}"
        for kind, name in (("timestamp", names[0]), ("volume", names[-1]))
        if name != kind and name in missing
    ]
    why = f"; the model was trained with {' and '.join(chosen)}" if chosen else ""
    line = f"the bar has no {', '.join(missing)}: send {', '.join(names)}{why}"
    return DataError(one_line(line))


def _without_unused(numbers: Numbers, needs: Collection[str]) -> Numbers:
    """The numbers with NaN for impossible values that no feature uses."""
    kept = (
        value
        if name in needs or 0 < value < _INFINITY or (name == "volume" and value == 0)
        else nan
        for name, value in zip(OHLCV, numbers, strict=True)
    )
    return tuple(kept)  # type: ignore[return-value]


def _fault(numbers: Numbers, needs: Collection[str]) -> str:
    """What such a bar cannot be, by the rules for files; empty where it can."""
    opens, high, low, close, volume = numbers
    used = [value for name, value in zip(OHLCV, numbers, strict=True) if name in needs]
    if not all(abs(value) < _INFINITY for value in used):
        return "has a missing or infinite number"
    if any(value <= 0.0 for value in numbers[:4]):
        return "has a zero or negative price"
    if high < low and {"high", "low"} & set(needs):
        return "has its high below its low"
    if volume < 0.0:
        return "has a negative volume"
    for price, name in ((opens, "open"), (close, "close")):
        if (price > high or price < low) and {name, "high", "low"} & set(needs):
            return "has open or close outside low..high"
    return ""


def _in_words(numbers: Numbers) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(OHLCV, numbers, strict=True))
