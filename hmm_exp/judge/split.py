"""Split the bars in time into train, validation and test, and into walk-forward folds.

The instants are set on the base bars, before features and timeframes, so that all cells of a sweep
share them. Models are fitted on train, chosen on validation and judged on test.

>>> print(make_split(bars.frame.index, SplitConfig(kind="walk_forward", refit_every=2000)))
 refit       train_from         train_to  train_bars   out_of_sample_to  bars part
     0 2021-01-01 01:00 2022-03-14 00:00       10512   2022-06-05 08:00  2000  val
     1 2021-01-01 01:00 2022-06-05 08:00       12512   2022-08-27 16:00  2000  val
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.config import SplitConfig
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.gaps import usual_step
from hmm_exp.market.iso import iso
from hmm_exp.market.stamps import read_stamp

BEFORE, TRAIN, VAL, TEST = -1, 0, 1, 2
SPLIT_NAMES = {BEFORE: "before", TRAIN: "train", VAL: "val", TEST: "test"}
_NAMES = pd.Series([SPLIT_NAMES[code] for code in (BEFORE, TRAIN, VAL, TEST)]).array


def part_names(parts: np.ndarray) -> Any:
    """Names of part codes, shape (T,), as an array of strings of pandas."""
    return _NAMES.take(parts - BEFORE)


@dataclass(frozen=True)
class Split:
    """Instants (UTC) at which train starts and ends and validation ends; test follows."""

    train_start: pd.Timestamp
    train_end: pd.Timestamp
    val_end: pd.Timestamp

    def of(self, time: pd.DatetimeIndex) -> np.ndarray:
        """Part of every instant: BEFORE, TRAIN, VAL or TEST, int8 array of the same length."""
        edges = pd.DatetimeIndex([self.train_start, self.train_end, self.val_end])
        return (edges.searchsorted(time, side="left") - 1).astype(np.int8)

    def to_dict(self) -> dict[str, Any]:
        """Instants as ISO texts."""
        names = ("train_start", "train_end", "val_end")
        return {name: iso(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class Fold:
    """One refit of a walk forward: its train bars and its out-of-sample block."""

    number: int  # 0 for the first fit
    # `first`, `end`, `stop`: base bars [first, end) are train, [end, stop) the out-of-sample block.
    first: int
    end: int
    stop: int
    split: Split  # the same as instants: train, the block as validation, and all later bars as test

    def rows(self, available_at: pd.DatetimeIndex) -> slice:
        """Rows that lie in the fold, given the time when each is complete."""
        edges = pd.DatetimeIndex([self.split.train_start, self.split.val_end])
        return slice(*map(int, available_at.as_unit("ns").searchsorted(edges, side="right")))


@dataclass(frozen=True)
class WalkForward(Split):
    """Successive refits, each on its own past; their blocks cover all bars after train.

    No fold holds a bar after its block, so a fold cannot look ahead. A fold is fitted at the close
    of bar `end - 1` and forecasts the returns of bars end..stop-1.
    """

    refit_every: int  # base bars of a block; the last block may be shorter
    window: int | None  # most base bars of a fit; None takes all past bars
    folds: tuple[Fold, ...]  # in time order; their blocks are contiguous up to the last bar
    # When each base bar is complete (UTC).
    time: pd.DatetimeIndex = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Instants as ISO texts, with the block length and the window."""
        return super().to_dict() | {"refit_every": self.refit_every, "window": self.window}

    def table(self) -> pd.DataFrame:
        """One row per fold: its train bars, its out-of-sample bars and their part."""
        first, end, stop = np.array([(f.first, f.end, f.stop) for f in self.folds]).T
        part = self.of(self.time)
        return pd.DataFrame(
            {
                "refit": [fold.number for fold in self.folds],
                "train_from": self.time[first],
                "train_to": self.time[end - 1],
                "train_bars": end - first,
                "out_of_sample_to": self.time[stop - 1],
                "bars": stop - end,
                "part": [
                    "+".join(SPLIT_NAMES[p] for p in np.unique(part[fold.end : fold.stop]))
                    for fold in self.folds
                ],
            }
        )

    def __str__(self) -> str:
        times = dict.fromkeys(("train_from", "train_to", "out_of_sample_to"), iso)
        return self.table().to_string(index=False, formatters=times)


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
        Dates outside the data, or a split that leaves no train bars; dates of another run, by
        `split.like`, at which no bar of this data closes.
    """
    before = available_at[0] - pd.Timedelta(1, "ns")
    if train_option(config) == "split.train_end":
        split = _by_dates(config, before)
        _check_inside(split, available_at, config.like)
    else:
        split = _by_ratio(config, available_at, before)
    return _walk(split, available_at, config) if config.kind == "walk_forward" else split


def train_option(config: SplitConfig) -> str:
    """Name of the setting that decides where train ends."""
    by_date = config.kind == "dates" or config.train_end is not None
    return "split.train_end" if by_date else "split.train"


def instant(option: str, text: str) -> pd.Timestamp:
    """Read the time given in an option; without a zone it is UTC.

    Raises ConfigError if it is no time, or one that depends on the clock, such as "now".
    """
    try:
        return pd.Timestamp(read_stamp(text), unit="ns", tz="UTC")
    except DataError:
        raise ConfigError(
            f"{option} is not a date such as 2024-06-01 or 2024-06-01 12:00"
        ) from None


def _is_close(instant: pd.Timestamp, available_at: pd.DatetimeIndex) -> bool:
    """Whether a bar closes at an instant, or would where bars are missing."""
    time = available_at.as_unit("ns").asi8
    last = time[np.searchsorted(time, instant.value, side="right") - 1]
    return (instant.value - last) % usual_step(time) == 0


def _by_ratio(config: SplitConfig, available_at: pd.DatetimeIndex, before: pd.Timestamp) -> Split:
    n = len(available_at)
    n_train, n_val = round(n * config.train), round(n * config.val)
    if n_train < 1:
        raise DataError(f"split.train={config.train} of {n} bars leaves none to fit on")
    return Split(before, available_at[n_train - 1], available_at[min(n, n_train + n_val) - 1])


def _walk(split: Split, time: pd.DatetimeIndex, config: SplitConfig) -> WalkForward:
    """Cut the bars after train into blocks of `refit_every` bars, one fold each."""
    time = time.as_unit("ns")
    start = int(time.searchsorted(split.train_start, side="right"))
    ends = range(
        int(time.searchsorted(split.train_end, side="right")), len(time), config.refit_every
    )
    if not ends:
        raise DataError(
            f"all {len(time)} bars are train: a walk forward needs some after it, "
            f"{train_option(config)} decides"
        )
    folds = []
    for number, end in enumerate(ends):
        first = start if config.window is None else max(start, end - config.window)
        stop = min(end + config.refit_every, len(time))
        since = time[first - 1] if first else split.train_start
        inside = Split(since, time[end - 1], time[stop - 1])
        folds.append(Fold(number, first, end, stop, inside))
    return WalkForward(
        *(split.train_start, folds[0].split.train_end, split.val_end),
        refit_every=config.refit_every,
        window=config.window,
        folds=tuple(folds),
        time=time,
    )


def _by_dates(config: SplitConfig, before: pd.Timestamp) -> Split:
    instants = {}
    for name in ("train_start", "train_end", "val_end"):
        text = getattr(config, name)
        instants[name] = before if text is None else instant(f"split.{name}={text}", text)
    if not instants["train_start"] < instants["train_end"] <= instants["val_end"]:
        raise ConfigError(
            f"split dates must ascend: train_start={config.train_start}, "
            f"train_end={config.train_end}, val_end={config.val_end}"
        )
    return Split(**instants)


def _check_inside(split: Split, available_at: pd.DatetimeIndex, like: str | None) -> None:
    first, last = available_at[0], available_at[-1]
    source = f" of split.like={like[:12]}" if like else ""
    for name in ("train_end", "val_end"):
        instant = getattr(split, name)
        if not first <= instant <= last:
            raise DataError(
                f"split.{name}={instant}{source} is outside the data ({first} to {last})"
            )
        if like and not _is_close(instant, available_at):
            raise DataError(
                f"split.{name}={instant}{source} lies within a bar: bars of another length, "
                "data.timezone or data.bar_stamp have no such split"
            )
    if split.train_start >= last:
        raise DataError(f"split.train_start={split.train_start} is after the data ends ({last})")
