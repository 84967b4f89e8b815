"""Rules that the value of a setting follows; each reads as words in an error and in the manual.

>>> 0 in Range(0, above=True), str(Range(0, above=True))
(False, 'above 0')
"""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OneOf:
    """One of a few words or numbers."""

    options: tuple[str | float, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.options

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.options))}"


@dataclass(frozen=True)
class Range:
    """A number between bounds; `above` leaves the lower bound out, `or_zero` takes 0, too."""

    low: float
    high: float = math.inf
    above: bool = False
    or_zero: bool = False

    def __contains__(self, value: Any) -> bool:
        fits = self.low < value <= self.high if self.above else self.low <= value <= self.high
        return (fits and math.isfinite(value)) or (self.or_zero and value == 0)

    def __str__(self) -> str:
        lower = f"above {self.low:.10g}" if self.above else f"at least {self.low:.10g}"
        both = lower if self.high == math.inf else f"{lower} and at most {self.high:.10g}"
        return f"0, or {both}" if self.or_zero else both


@dataclass(frozen=True)
class Each:
    """A list whose parts all follow one rule; it is not empty."""

    rule: Range
    distinct: bool = False

    def __contains__(self, values: Any) -> bool:
        repeats = self.distinct and len(set(values)) < len(values)
        return len(values) > 0 and not repeats and all(value in self.rule for value in values)

    def __str__(self) -> str:
        kind = " distinct whole numbers" if self.distinct else ""
        return f"one or more{kind}, each {self.rule}"


@dataclass(frozen=True)
class Text:
    """A text of bounded length; it holds no character of `without`."""

    longest: int
    without: str = ""

    def __contains__(self, value: Any) -> bool:
        return 0 < len(value) <= self.longest and not set(value) & set(self.without)

    def __str__(self) -> str:
        signs = f" without {' '.join(self.without)}" if self.without else ""
        return f"a text of 1 to {self.longest} characters{signs}"


@dataclass(frozen=True)
class Name(Text):
    """A text that names something in MLflow, which reads some names as paths and URIs."""

    def __contains__(self, value: Any) -> bool:
        plain = value == value.strip() and value != "." and not value.startswith("..")
        return plain and super().__contains__(value)

    def __str__(self) -> str:
        signs = f", without {' '.join(self.without)}" if self.without else ""
        return (
            f"a name of at most {self.longest} characters, not . or .., no blank at its ends{signs}"
        )
