"""A forecast and a baseline compared in words, by the interval of the gain.

>>> WordedGain("the EWMA Student-t", -0.0337, -0.0502, -0.0171).text
'worse than the EWMA Student-t (-0.0337, -0.0502 to -0.0171)'
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hmm_exp.judge.gains import GainEstimate

BETTER, AS_WELL, WORSE = "better", "about as well", "worse"
_AGAINST = {BETTER: "better than", AS_WELL: "about as well as", WORSE: "worse than"}


@dataclass(frozen=True)
class WordedGain:
    """A gain over a baseline with its interval, nats per bar.

    The interval decides: a forecast is better if it lies above zero, worse if it lies below zero,
    and about as good if it covers zero.
    """

    over: str  # the baseline in words, such as "the EWMA Student-t"
    mean: float
    low: float  # the lower of the interval's end and the gate's bound: never more than the gate
    high: float

    @classmethod
    def of(cls, over: str, estimate: GainEstimate) -> "WordedGain":
        """An estimated gain."""
        return cls(over, estimate.mean, min(estimate.low, estimate.bound), estimate.high)

    @classmethod
    def recorded(cls, over: str, metrics: Mapping[str, float], name: str) -> "WordedGain | None":
        """A gain in a run's metrics, such as `ewma_gain_test`; None if it was not measured."""
        if f"{name}_bound" not in metrics:
            return None
        mean, bound, low, high = (
            metrics[f"{name}{end}"] for end in ("", "_bound", "_low", "_high")
        )
        return cls(over, mean, min(low, bound), high)

    @property
    def word(self) -> str:
        """`BETTER`, `AS_WELL` or `WORSE`."""
        if self.low > 0.0:
            return BETTER
        return WORSE if self.high < 0.0 else AS_WELL

    @property
    def figure(self) -> str:
        """The gain and its interval."""
        return f"{signed(self.mean)}, {signed(self.low)} to {signed(self.high)}"

    @property
    def text(self) -> str:
        """Comparison with the baseline, and the figure."""
        return f"{self.against} ({self.figure})"

    @property
    def against(self) -> str:
        """Comparison with the baseline."""
        return f"{_AGAINST[self.word]} {self.over}"


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign; zero, also after rounding, has none."""
    return without_sign_of_zero(f"{value:+.{digits}f}")


def without_sign_of_zero(text: str) -> str:
    """A formatted number; a zero, such as -0.00, loses its sign."""
    return text.lstrip("+-") if re.fullmatch(r"[+-][0.]+\D*", text) else text


def percent(share: float) -> str:
    """A share such as 62 %, 0.4 % or 99.98 %: only 0 and 1 themselves are 0 % and 100 %."""
    if not 0.0 < share < 1.0:
        return f"{100 * share:.0f} %"
    for digits in (0, 1, 2) if 0.01 <= share <= 0.99 else (1, 2):
        text = f"{100 * share:.{digits}f}"
        if float(text) not in (0.0, 100.0):
            return f"{text} %"
    return "<0.01 %" if share < 0.5 else ">99.99 %"


def probability(p: float) -> str:
    """A probability in three decimals; only 1 itself is 1.000."""
    text = f"{p:.3f}"
    return "above 0.999" if text == "1.000" and p < 1.0 else text


def from_next(lead: float, digits: int = 4, side: str = "above") -> str:
    """Distance of the best from the next: `0.0329 above the next`, or `equal to the next`."""
    text = f"{lead:.{digits}f}"
    return f"{text} {side} the next" if float(text) else "equal to the next"


def listed(names: list[str]) -> str:
    """Names in a sentence: `a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def capitalize(text: str) -> str:
    """Make the first letter upper case and keep the rest."""
    return text[:1].upper() + text[1:]
