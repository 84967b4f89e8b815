"""Validated OHLCV bars, indexed by when they may be used; timeframes; words for rows and times."""

import hashlib
import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError
from hmm_exp.market.iso import iso

_LONGEST_VALUE = 60  # characters in a message

PRICES = ("open", "high", "low", "close")
OHLCV = (*PRICES, "volume")


@dataclass(frozen=True, repr=False)
class Bars:
    """Bars in time order, complete and valid.

    Attributes
    ----------
    frame
        Index `available_at` (UTC, nanoseconds, strictly increasing): when the bar is complete.
        Columns `timestamp` (UTC, the stamp as the source gave it) and float64
        `open high low close volume`.
    step
        Length of one bar.
    stamp
        "open" or "close": what `timestamp` marks. Open-stamped bars are available one step later.
    gaps
        "split": a missing bar is a missing observation. "bridge": neighbours are neighbours.
    name
        The instrument.
    report
        What was normalised, dropped and found missing, for `data_report.json`.
    states
        Planted regime of every bar, shape (T,), on a synthetic market only.
    """

    frame: pd.DataFrame
    step: pd.Timedelta
    stamp: str = "open"
    gaps: str = "split"
    name: str = "bars"
    report: dict = field(default_factory=dict)
    states: np.ndarray | None = None

    def __repr__(self) -> str:
        head = f"Bars {self.name}: {len(self):,} of {step_in_words(self.step)}"
        if not len(self):
            return head
        first, last = (iso(time) for time in self.time[[0, -1]])
        return f"{head}, closed {first} to {last}\nstamps mark the {self.stamp}, gaps={self.gaps}"

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def time(self) -> np.ndarray:
        """`available_at` as int64 nanoseconds since 1970, shape (T,)."""
        return pd.DatetimeIndex(self.frame.index).as_unit("ns").asi8

    @property
    def log_range(self) -> np.ndarray | None:
        r"""$\ln(H / L)$ of every bar, shape (T,), NaN if unknown; None if it is of all bars."""
        high, low = (self.frame[name].to_numpy() for name in ("high", "low"))
        log_range = np.where(high >= low, np.log(high / low), np.nan)
        return log_range if np.isfinite(log_range).any() else None

    @property
    def ohlcv(self) -> np.ndarray:
        """Open, high, low, close, volume as a C-ordered float64 array, shape (T, 5)."""
        return np.ascontiguousarray(self.frame[list(OHLCV)].to_numpy(dtype=np.float64))


def bars_digest(bars: Bars) -> str:
    """Sixteen hex digits that tell two data sets apart: values, times, step, options, name."""
    digest = hashlib.sha256(bars.time.tobytes())
    digest.update(bars.ohlcv.tobytes())
    digest.update(f"{bars.step.as_unit('ns').value}|{bars.stamp}|{bars.gaps}|{bars.name}".encode())
    return digest.hexdigest()[:16]


_UNIT_MINUTES = {"min": 1, "H": 60, "D": 1440}
_NAME = re.compile(r"(\d+)(min|H|D)")


def timeframe_step(name: str) -> pd.Timedelta:
    """Length of a bar of timeframe `name`, such as "4H". Raises ConfigError."""
    match = _NAME.fullmatch(name)
    if not match or int(match[1]) == 0:
        raise ConfigError(f"unknown timeframe {name!r}: write it like 15min, 1H, 4H or 1D")
    return pd.Timedelta(minutes=int(match[1]) * _UNIT_MINUTES[match[2]])


def timeframe_name(step: pd.Timedelta) -> str:
    """Name of a bar length, in the largest unit that divides it: 60 minutes is "1H"."""
    minutes, rest = divmod(step.value, 60_000_000_000)
    if rest or minutes <= 0:
        raise ConfigError(f"a bar of {step} is not a whole number of minutes")
    unit = next(u for u in ("D", "H", "min") if minutes % _UNIT_MINUTES[u] == 0)
    return f"{minutes // _UNIT_MINUTES[unit]}{unit}"


def step_in_words(step: pd.Timedelta) -> str:
    """Name of a bar length, or the length itself where it is no whole number of minutes."""
    return str(step) if step.value % 60_000_000_000 else timeframe_name(step)


def shown(value: object) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = str(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
