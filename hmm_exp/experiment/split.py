"""Train, validation and test in time.

The instants are set on the base bars, before features and timeframes, so that every cell of a
sweep shares them. Train fits, validation chooses, test judges.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hmm_exp.config import SplitConfig
from hmm_exp.errors import ConfigError, DataError

BEFORE, TRAIN, VAL, TEST = -1, 0, 1, 2
SPLIT_NAMES = {BEFORE: "before", TRAIN: "train", VAL: "val", TEST: "test"}


@dataclass(frozen=True)
class Split:
    """Instants (UTC): train ends at train_end, validation at val_end, test is what follows."""

    train_start: pd.Timestamp
    train_end: pd.Timestamp
    val_end: pd.Timestamp

    def of(self, time: pd.DatetimeIndex) -> np.ndarray:
        """Part of every instant: BEFORE, TRAIN, VAL or TEST, int8 array of the same length."""
        edges = pd.DatetimeIndex([self.train_start, self.train_end, self.val_end])
        return (edges.searchsorted(time, side="left") - 1).astype(np.int8)

    def to_dict(self) -> dict[str, str]:
        """Instants as ISO texts."""
        return {name: getattr(self, name).isoformat() for name in self.__dataclass_fields__}


def make_split(available_at: pd.DatetimeIndex, config: SplitConfig) -> Split:
    """Set the split instants on base bars.

    Parameters
    ----------
    available_at
        When each base bar is complete (UTC), ascending.

    Raises
    ------
    ConfigError
        Dates out of order or not dates.
    DataError
        Dates outside the data, or a split that leaves no train bars.
    """
    before = available_at[0] - pd.Timedelta(1, "ns")
    if config.kind == "dates":
        split = _by_dates(config, before)
        _check_inside(split, available_at)
        return split
    n = len(available_at)
    n_train, n_val = round(n * config.train), round(n * config.val)
    if n_train < 1:
        raise DataError(f"split.train={config.train} of {n} bars leaves none to fit on")
    return Split(before, available_at[n_train - 1], available_at[min(n, n_train + n_val) - 1])


def _by_dates(config: SplitConfig, before: pd.Timestamp) -> Split:
    instants = {}
    for name in ("train_start", "train_end", "val_end"):
        text = getattr(config, name)
        try:
            instants[name] = before if text is None else pd.to_datetime(text, utc=True)
        except ValueError:
            raise ConfigError(f"split.{name}={text} is not a date") from None
    if not instants["train_start"] < instants["train_end"] <= instants["val_end"]:
        raise ConfigError(
            f"split dates must ascend: train_start={config.train_start}, "
            f"train_end={config.train_end}, val_end={config.val_end}"
        )
    return Split(**instants)


def _check_inside(split: Split, available_at: pd.DatetimeIndex) -> None:
    first, last = available_at[0], available_at[-1]
    for name in ("train_end", "val_end"):
        instant = getattr(split, name)
        if not first <= instant <= last:
            raise DataError(f"split.{name}={instant} is outside the data ({first} to {last})")
    if split.train_start >= last:
        raise DataError(f"split.train_start={split.train_start} is after the data ends ({last})")
