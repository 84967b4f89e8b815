"""Read the values of a stored object by rules; an error names the field and the rule.

>>> fields = Fields({"min_history": 0}, "model")
>>> fields.whole("min_history", least=1)
ModelError: model.min_history is 0: must be a whole number, at least 1
"""

import math
from collections.abc import Collection
from datetime import datetime
from typing import Any

import numpy as np

from hmm_exp.errors import ModelError, one_line

LARGEST = 1e100  # magnitude of a number; products of two do not overflow
_SHOWN = 40  # characters of a value in a message
_MOST_TEXTS = 10_000
_YEARS = range(1700, 2200)  # of stored times; int64 nanoseconds end at 1677 and 2262


class Fields:
    """The values of one JSON object.

    Parameters
    ----------
    values
        As JSON gives them.
    place
        Where the object stands in its document, for messages.

    Raises
    ------
    ModelError
        By every method, when a value is missing or breaks its rule.
    """

    def __init__(self, values: Any, place: str = "") -> None:
        self.place = place
        if not isinstance(values, dict):
            raise ModelError(f"{place or 'it'} is {_short(values)}: must be a JSON object")
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def only(self, names: Collection[str], optional: Collection[str] = ()) -> None:
        """Refuse a missing name and a name that is none of these."""
        for name in names:
            self._value(name)
        for name in self._values:
            if name not in names and name not in optional:
                raise ModelError(f"{self._path(name)} is unknown")

    def part(self, name: str) -> "Fields":
        """Fields of an object inside."""
        return Fields(self._value(name), self._path(name))

    def parts(self, name: str) -> list["Fields"]:
        """Fields of every object of a list."""
        values = self._value(name)
        if not isinstance(values, list):
            raise self.fault(name, "must be a list")
        return [Fields(value, f"{self._path(name)}[{i}]") for i, value in enumerate(values)]

    def plain(self, name: str) -> dict[str, Any]:
        """An object inside, as it is."""
        return self.part(name)._values

    def text(self, name: str, longest: int = 1000) -> str:
        """A text of bounded length."""
        value = self._value(name)
        if not isinstance(value, str) or len(value) > longest:
            raise self.fault(name, f"must be a text of at most {longest} characters")
        return value

    def text_or_none(self, name: str) -> str | None:
        """A text or null."""
        return None if self._value(name) is None else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Distinct texts, none of them empty or with control characters."""
        values = self._value(name)
        if (
            not isinstance(values, list)
            or not 0 < len(values) <= _MOST_TEXTS
            or not all(isinstance(value, str) and 0 < len(value) <= 100 for value in values)
            or not all(map(str.isprintable, values))
            or len(set(values)) < len(values)
        ):
            raise self.fault(name, "must be distinct texts of 1 to 100 printable characters")
        return tuple(values)

    def whole(self, name: str, least: int) -> int:
        """A whole number."""
        value = self._value(name)
        if type(value) is not int or value < least:
            raise self.fault(name, f"must be a whole number, at least {least}")
        return value

    def wholes(self, name: str, least: int) -> tuple[int, ...]:
        """A list of distinct whole numbers."""
        values = self._value(name)
        if (
            not isinstance(values, list)
            or not all(type(value) is int and value >= least for value in values)
            or len(set(values)) < len(values)
        ):
            raise self.fault(name, f"must be distinct whole numbers, at least {least}")
        return tuple(values)

    def number(self, name: str, above: float = -math.inf) -> float:
        """A finite number above a bound, of at most `LARGEST`."""
        value = self._value(name)
        if not _is_number(value) or not above < value:
            bound = "" if above == -math.inf else f" above {above:g}"
            raise self.fault(name, f"must be a number{bound}, at most {LARGEST:g}")
        return float(value)

    def truth(self, name: str) -> bool:
        """True or false."""
        value = self._value(name)
        if not isinstance(value, bool):
            raise self.fault(name, "must be true or false")
        return value

    def time(self, name: str) -> datetime:
        """A time with its zone, in ISO form."""
        rule = f"must be an ISO time with a zone, from {_YEARS[0]} to {_YEARS[-1]}"
        try:
            time = datetime.fromisoformat(self.text(name))
        except ValueError:
            raise self.fault(name, rule) from None
        if time.tzinfo is None or time.year not in _YEARS:
            raise self.fault(name, rule)
        return time

    def array(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Numbers of at most `LARGEST`, float64: of this shape, or of any with up to three axes."""
        value = self._value(name)
        try:
            array = np.array(value, dtype=np.float64) if _is_numeric(value, 3) else None
        except ValueError:  # rows of several lengths
            array = None
        if array is None:
            rule = f"must be finite numbers, at most {LARGEST:g}, in rows of one length"
            raise self.fault(name, rule)
        if shape is not None and array.shape != shape:
            sizes = " x ".join(map(str, shape))
            there = " x ".join(map(str, array.shape)) or "1 alone"
            raise ModelError(f"{self._path(name)} has {there} numbers: must have {sizes}")
        return array

    def numbers_or_null(self, name: str, length: int) -> np.ndarray:
        """So many numbers of at most `LARGEST`, float64: NaN for a null, but not for all."""
        values = self._value(name)
        if (
            not isinstance(values, list)
            or len(values) != length
            or not all(value is None or _is_number(value) for value in values)
            or values.count(None) == length
        ):
            rule = f"must be {length} numbers of at most {LARGEST:g} or nulls, not all null"
            raise self.fault(name, rule)
        return np.array(values, dtype=np.float64)

    def fault(self, name: str, rule: str) -> ModelError:
        """Error that names a field, its value and the rule that it breaks."""
        return ModelError(f"{self._path(name)} is {_short(self._values[name])}: {rule}")

    def _value(self, name: str) -> Any:
        if name not in self._values:
            raise ModelError(f"{self._path(name)} is missing")
        return self._values[name]

    def _path(self, name: str) -> str:
        return one_line(f"{self.place}.{name[:40]}" if self.place else name[:40])


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= LARGEST


def _is_numeric(value: Any, depth: int) -> bool:
    """Whether all of a list, or of lists in it, are finite numbers."""
    if not isinstance(value, list):
        return _is_number(value)
    return depth > 0 and all(_is_numeric(inner, depth - 1) for inner in value)


def _short(value: Any) -> str:
    text = repr(value[:_SHOWN]) if isinstance(value, list | str) else repr(value)
    return one_line(text) if len(text) <= _SHOWN else f"{one_line(text[:_SHOWN])} ..."
