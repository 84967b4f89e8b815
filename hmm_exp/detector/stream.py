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
from hmm_exp.detector.sent import Row, bars_sent, row_of
from hmm_exp.errors import DataError
from hmm_exp.market.bars import OHLCV, PRICES, Bars, step_in_words
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


def _quickly(
    row: Mapping[str, Any], names: Names, timezone: str, needs: Collection[str]
) -> tuple[int, Numbers] | None:
    """Stamp in nanoseconds since 1970 (UTC) and numbers of a plain bar; None for any other.

    A time that names no zone is of `timezone`. A value outside `needs` may be bad, and is then NaN.
    """
    try:
        stamp = read_stamp(row[names[0]], timezone)
        numbers = tuple(
            value if type(value := row[name]) is float else _number(value) for name in names[1:]
        )
    except (KeyError, TypeError, ValueError, OverflowError, DataError):
        return None
    opens, high, low, close, volume = numbers
    # Comparisons with NaN are false, so one chain of them holds all that a bar must be.
    if not (
        0.0 < low <= opens <= high < _INFINITY and low <= close <= high and 0 <= volume < _INFINITY
    ):
        numbers = _without_unused((opens, high, low, close, volume), needs)
        return None if _is_impossible(numbers, needs) else (stamp, numbers)
    return stamp, numbers  # type: ignore[return-value]


def _number(value: Any) -> float:
    """Value of a number or of its text. Raises TypeError, ValueError or OverflowError."""
    if isinstance(value, bool | np.bool_ | bytes | bytearray):
        raise TypeError
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise ValueError  # Python reads 1_000 and digits of any script; tables do not
    return float(value)


def _without_unused(numbers: Numbers, needs: Collection[str]) -> Numbers:
    """The numbers with NaN for impossible values that no feature uses."""
    kept = (
        value
        if name in needs or 0 < value < _INFINITY or (name == "volume" and value == 0)
        else nan
        for name, value in zip(OHLCV, numbers, strict=True)
    )
    return tuple(kept)  # type: ignore[return-value]


def _is_impossible(numbers: Numbers, needs: Collection[str]) -> bool:
    """Whether the rules for tables refuse such a bar."""
    opens, high, low, close, volume = numbers
    used = [value for name, value in zip(OHLCV, numbers, strict=True) if name in needs]
    return (
        not all(abs(value) < _INFINITY for value in used)
        or any(value <= 0.0 for value in numbers[:4])
        or (high < low and bool({"high", "low"} & set(needs)))
        or volume < 0.0
        or any(
            (price > high or price < low) and bool({name, "high", "low"} & set(needs))
            for price, name in ((opens, "open"), (close, "close"))
        )
    )


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
        # Keys of the bars that `_names` belong to, and values of names that they lack.
        self._keys: tuple[str, ...] = self._names
        self._absent: dict[str, float] = {}
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

    def __repr__(self) -> str:
        model, latest = self.model, self.latest
        bars = f"{self.n_bars:,} bars of {step_in_words(model.step)}"
        last = "" if self.time is None else f", the last closed at {iso(self.time)}"
        state = "no regime yet"
        if latest is not None:
            state = f"{latest.label}, probability {max(latest.probs):.3f}"
        return f"Stream {model.name}: {bars}{last}\n{state}"

    def update(self, bar: Row) -> Regime | None:
        """Take a closed bar and give the newest regime that it completes.

        Parameters
        ----------
        bar
            Its time (by the model's stamp convention), open, high, low, close and volume by name,
            as `Detector.filter` reads them: a mapping, a row of a frame, or a frame of one row. A
            dict with the keys of the one before it is fastest.

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

    def update_all(self, bar: Row) -> list[Regime]:
        """Do as `update`, and give every regime, oldest first.

        There are two when a bar comes after a gap: the coarser bar that the gap left open is known
        to be complete only now.
        """
        time_ns, numbers = self._read(bar)
        return self._take(time_ns, numbers)

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
        if stored.text("last_bar") not in (_last_bar(stream.time), str(stream.time)):  # as before
            raise stored.fault("last_bar", f"the clock has {stream.time}")
        if "decider" in stored:  # an earlier version has the argmax, which remembers nothing
            stream._decider.restore(stored.part("decider"))
        return stream

    def _read(self, bar: Row) -> tuple[int, Numbers]:
        """When a bar is complete, in nanoseconds since 1970 (UTC), and its numbers."""
        row = bar if type(bar) is dict else row_of(bar, self.model.reading)
        if tuple(row) == self._keys:
            whole = row | self._absent if self._absent else row
            read = _quickly(whole, self._names, self._timezone, self._needs)
            if read is not None:
                return read[0] + self._stamp_to_close, read[1]
        bars = bars_sent([row], self.model, one=True)
        found = bars.report["columns"]
        self._keys = tuple(row)
        self._absent = {name: nan for name in BAR if name not in found}
        self._names = tuple(found.get(name, name) for name in BAR)
        return int(bars.time[0]), tuple(bars.ohlcv[0].tolist())

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
