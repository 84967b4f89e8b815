"""Names of timeframes: `1min 5min 15min 30min 1H 4H 12H 1D` and any like them.

pandas rejects "4H" as a rule, so names are mapped to `Timedelta` here and nowhere else.
"""

import re

import pandas as pd

from hmm_exp.errors import ConfigError

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
