"""Filter closed bars one by one, with the bits of the batch filter.

>>> stream = detector.stream()
>>> stream.update({"timestamp": "2024-01-01T05:00Z", "open": 1.0, ...})
"""

from collections.abc import Collection, Mapping
from datetime import UTC
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hmm_exp.detector.decision import UNDECIDED
from hmm_exp.detector.kernel import LAST_BAR, LAST_ROW, N_BARS, NEVER, constants_of, new_state, run
from hmm_exp.detector.model import StreamModel, read_model
from hmm_exp.detector.saved import read_state, text_of
from hmm_exp.errors import DataError, one_line
from hmm_exp.market.bars import OHLCV, PRICES, Bars
from hmm_exp.market.iso import iso
from hmm_exp.market.options import ReadOptions, check_choice
from hmm_exp.market.stamps import read_stamp
from hmm_exp.stored.document import (
    FORMAT,
    LARGEST,
    STREAM,
    format_of,
    read_document,
    write_document,
)
from hmm_exp.stored.fields import Fields

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

    A bar is a mapping of `names` (from `bar_names`) to a time (datetime, text or epoch), four
    prices and a volume; a dict is fastest, a row of a DataFrame will do. A time that names no zone
    is of `timezone`. A value outside `needs` may be absent or bad, and is then NaN. Raises
    DataError if another value is absent or unreadable, or the bar is impossible.
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
            values = ", ".join(f"{name}={x:g}" for name, x in zip(OHLCV, numbers, strict=True))
            raise DataError(f"the bar of {iso(stamp)} {fault}: {values}")
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


MISSING = ("error", "gap")


class Regime(NamedTuple):
    """The regime of one closed bar of the model's finest timeframe.

    Attributes
    ----------
    timestamp, available_at
        The bar's stamp as its source would give it, and when the bar was complete, UTC.
    state, label
        The most probable state and its name.
    probs
        Filtered p(state | all bars so far), one for each state.
    regime
        The state that the model's decision rule takes; -1 while the bars do not decide it.
    in_training
        Whether the parameters know this bar; None where the model does not know its training.
    """

    timestamp: pd.Timestamp
    available_at: pd.Timestamp
    state: int
    label: str
    probs: tuple[float, ...]
    regime: int = UNDECIDED
    in_training: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the row under the names that `detector.filter` uses."""
        values = self._asdict()
        probs = values.pop("probs")
        if self.in_training is None:
            del values["in_training"]
        return values | {f"p_state_{k}": p for k, p in enumerate(probs)} | {"probs": probs}


class Stream:
    """A filter that takes closed bars one by one.

    Parameters
    ----------
    model
        What turns bars into regimes.
    missing
        What a bar means that is not one step on: "error", or "gap" for bars that never came,
        which `detector.filter` understands as missing observations; more than 24 of them start a
        new sequence. Bars with `gaps="bridge"` may come any time later.

    Attributes
    ----------
    model, missing
        As given; `missing` may be changed at any time.
    """

    def __init__(self, model: StreamModel, missing: str = "error") -> None:
        self.model = model
        self.missing = check_choice("missing", missing, MISSING)
        self._constants = constants_of(model)
        self._clock, self._memory = new_state(model)
        self._decider = model.decider()
        self._names, self._timezone = bar_names(model.reading), model.reading.timezone
        self._needs = model.recipe.needs
        self._step_ns = model.step.as_unit("ns").value
        row_ns = model.row_step.as_unit("ns").value
        opens = model.stamp == "open"
        self._stamp_to_close, self._close_to_stamp = (self._step_ns, row_ns) if opens else (0, 0)
        K = model.params.n_states
        self._bar = np.empty(1, np.int64), np.empty((1, 5))  # room for one bar and its rows
        self._rows = np.empty(2, np.int64), np.empty((2, K))
        no_bars = np.empty(0, np.int64), np.empty((0, 5))
        self._run(*no_bars, *self._rows)  # compiles, or reads what was compiled before
        self._decider.advance(self._rows[1][:0])

    def update(self, bar: Mapping[str, Any]) -> Regime | None:
        """Take a closed bar and give the newest regime that it completes.

        Parameters
        ----------
        bar
            `timestamp` (by the model's stamp convention) and `open high low close volume`. A
            model whose training chose a column of times or of volume needs these by their names.

        Returns
        -------
        Regime or None
            None while no bar of the model's finest timeframe closes, and until `min_history`
            bars have been seen.

        Raises
        ------
        DataError
            When the bar is not valid, repeats or precedes the last one, or is not one step on
            (see `missing`). The stream is then as it was.
        """
        regimes = self.update_all(bar)
        return regimes[-1] if regimes else None

    def update_all(self, bar: Mapping[str, Any]) -> list[Regime]:
        """Do as `update`, and give every regime, oldest first.

        There are two when a bar comes after a gap: the coarser bar that the gap left open is known
        to be complete only now.
        """
        stamp, numbers = read_bar(bar, self._names, self._timezone, self._needs)
        return self._take(stamp + self._stamp_to_close, numbers)

    def extend(self, bars: Bars) -> pd.DataFrame:
        """Take many bars at once; gaps in and before them are gaps.

        Returns
        -------
        DataFrame
            Columns of `model.columns` for every row that they complete, the same as
            `detector.filter` gives for all bars so far.

        Raises
        ------
        DataError
            When the bars are of another length or do not come after the last one.
        """
        self._check_bars(bars)
        row_time = np.empty(len(bars) + 1, np.int64)
        row_probs = np.empty((len(bars) + 1, self.model.params.n_states))
        n = self._run(bars.time, bars.ohlcv, row_time, row_probs)
        stamps, probs = row_time[:n] - self._close_to_stamp, row_probs[:n]
        decided = self._decider.advance(probs)
        return self.model.regime_frame(_utc(stamps), _utc(row_time[:n]), probs, decided=decided)

    def has_taken(self, timestamp: Any) -> bool:
        """Whether the bar of that stamp, or a later one, was taken already."""
        return read_stamp(timestamp, self._timezone) + self._stamp_to_close <= self._clock[LAST_BAR]

    @property
    def time(self) -> pd.Timestamp | None:
        """When the last bar taken was complete, UTC; None before the first."""
        last = int(self._clock[LAST_BAR])
        return None if last == NEVER else pd.Timestamp(last, tz=UTC)

    @property
    def n_bars(self) -> int:
        """Bars taken so far."""
        return int(self._clock[N_BARS])

    @property
    def settled(self) -> bool:
        """Whether `min_history` bars have been taken, so that where it began is forgotten."""
        return self.n_bars >= self.model.min_history

    @property
    def latest(self) -> Regime | None:
        """The regime as of the last bar; None before the first one that counts."""
        if self._clock[LAST_ROW] == NEVER or not self.settled:
            return None
        probs = self._memory[: len(self.model.labels)]
        return self._regime(int(self._clock[LAST_ROW]), probs, self._decider.regime)

    def to_dict(self) -> dict[str, Any]:
        """Give model and state as plain values for JSON."""
        return {
            "format": FORMAT,
            "model": self.model.to_dict(),
            "missing": self.missing,
            "last_bar": _last_bar(self.time),
            "clock": text_of(self._clock),
            "memory": text_of(self._memory),
            "decider": self._decider.to_dict(),
        }

    def save(self, path: str | Path) -> None:
        """Write model and state as JSON with a digest, whole or not at all."""
        write_document(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Stream":
        """Read what `save` wrote. Raises ModelError when there is none or it is damaged."""
        return read_document(path, STREAM, cls._from_dict)

    @classmethod
    def _from_dict(cls, values: dict[str, Any]) -> "Stream":
        stored = Fields(values)
        names = ["format", "model", "missing", "last_bar", "clock", "memory"]
        stored.only(names, optional=["decider"])
        model = read_model(stored.plain("model"), format_of(values, STREAM))
        stream = cls(model, stored.text("missing"))
        clock, memory = (stored.text(name, longest=LARGEST) for name in ("clock", "memory"))
        stream._clock, stream._memory = read_state(clock, memory, model)
        if stored.text("last_bar") not in (_last_bar(stream.time), str(stream.time)):  # in 0.x
            raise stored.fault("last_bar", f"the clock has {stream.time}")
        if "decider" in stored:  # an earlier version has the argmax, which remembers nothing
            stream._decider.restore(stored.part("decider"))
        return stream

    def _run(self, *bars_and_rows: np.ndarray) -> int:
        return run(*self._constants, self._clock, self._memory, *bars_and_rows)

    def _take(self, time_ns: int, numbers: Numbers) -> list[Regime]:
        last = int(self._clock[LAST_BAR])
        if last != NEVER and time_ns - last != self._step_ns:
            self._check_place(time_ns, last)
        self._bar[0][0] = time_ns
        self._bar[1][0] = numbers
        n = self._run(*self._bar, *self._rows)
        times, probs = self._rows
        decided = self._decider.advance(probs[:n]) if n else ()
        if not self.settled:
            return []
        return [self._regime(int(times[i]), probs[i], int(decided[i])) for i in range(n)]

    def _check_place(self, time_ns: int, last: int) -> None:
        """Refuse a bar that may not follow the last one."""
        passed, rest = divmod(time_ns - last, self._step_ns)
        told = f"the bar of {iso(time_ns - self._stamp_to_close)}"
        after = f"the last bar was that of {iso(last - self._stamp_to_close)}"
        if time_ns == last:
            raise DataError(f"{told} was taken already")
        if time_ns < last:
            raise DataError(f"{told} is out of order: {after}")
        if self.model.gaps == "bridge":
            return
        if rest:
            raise DataError(f"{told} is off the grid of {self.model.step}: {after}")
        if self.missing == "error":
            raise DataError(
                f"{passed - 1} bars are missing before {told}: {after}; send them first, or set "
                "missing='gap'"
            )

    def _check_bars(self, bars: Bars) -> None:
        if bars.step != self.model.step:
            raise DataError(f"bars of {bars.step}: the model was trained on {self.model.step}")
        if len(bars) and self._clock[LAST_BAR] != NEVER and bars.time[0] <= self._clock[LAST_BAR]:
            raise DataError(
                f"bars from {bars.frame.index[0]} on do not come after the last one, {self.time}"
            )

    def _regime(self, time_ns: int, probs: np.ndarray, decided: int) -> Regime:
        values = probs.tolist()
        state = values.index(max(values))
        available_at, train_end = pd.Timestamp(time_ns, tz=UTC), self.model.train_end
        return Regime(
            pd.Timestamp(time_ns - self._close_to_stamp, tz=UTC),
            available_at,
            state,
            self.model.labels[state],
            tuple(values),
            decided,
            None if train_end is None else available_at <= train_end,
        )


def _last_bar(time: pd.Timestamp | None) -> str:
    return str(time) if time is None else iso(time)


def _utc(time_ns: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(time_ns.view("M8[ns]"), tz="UTC")
