"""Regimes bar by bar: each closed bar in, the regime that follows from all bars so far out.

    stream = detector.stream(history)
    regime = stream.update({"timestamp": ..., "open": ..., "high": ..., ...})
    stream.save("stream.json")  # Stream.load goes on with the same bits

Time and memory per bar do not grow. At every bar the answer is that of `detector.filter` over all
bars since the first one of the history.
"""

import base64
import json
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError, ModelError
from hmm_exp.market.bars import Bars
from hmm_exp.market.options import check_choice
from hmm_exp.market.rows import moment
from hmm_exp.stream.bar import Numbers, read_bar, stamp_of
from hmm_exp.stream.kernel import run
from hmm_exp.stream.layout import LAST_BAR, LAST_ROW, N_BARS, NEVER, constants_of, new_state
from hmm_exp.stream.model import StreamModel
from hmm_exp.writing import written_beside

FORMAT = 1  # of a saved stream; a reader refuses what it does not know
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
    """

    timestamp: pd.Timestamp
    available_at: pd.Timestamp
    state: int
    label: str
    probs: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give the row under the names that `detector.filter` uses."""
        probs = {f"p_state_{k}": p for k, p in enumerate(self.probs)}
        return {**self._asdict(), **probs} | {"probs": self.probs}


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
        self._step_ns = model.step.as_unit("ns").value
        row_ns = model.row_step.as_unit("ns").value
        opens = model.stamp == "open"
        self._stamp_to_close, self._close_to_stamp = (self._step_ns, row_ns) if opens else (0, 0)
        K = model.params.n_states
        self._bar = np.empty(1, np.int64), np.empty((1, 5))  # room for one bar and its rows
        self._rows = np.empty(2, np.int64), np.empty((2, K))
        self._run(*_no_bars(), *self._rows)  # compiles, or reads what was compiled before

    def update(self, bar: Mapping[str, Any]) -> Regime | None:
        """Take a closed bar and give the newest regime that it completes.

        Parameters
        ----------
        bar
            `timestamp` (by the model's stamp convention) and `open high low close volume`.

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
        stamp, numbers = read_bar(bar)
        return self._take(stamp + self._stamp_to_close, numbers)

    def extend(self, bars: Bars) -> pd.DataFrame:
        """Take many bars at once; gaps in and before them are gaps.

        Returns
        -------
        DataFrame
            `timestamp, available_at, state, label, p_state_0 ...` of every row that they complete,
            the same as `detector.filter` gives for all bars so far.

        Raises
        ------
        DataError
            When the bars are of another length or do not come after the last one.
        """
        self._check_bars(bars)
        row_time = np.empty(len(bars) + 1, np.int64)
        row_probs = np.empty((len(bars) + 1, self.model.params.n_states))
        n = self._run(bars.time, bars.ohlcv, row_time, row_probs)
        stamps = row_time[:n] - self._close_to_stamp
        return self.model.regime_frame(_utc(stamps), _utc(row_time[:n]), row_probs[:n])

    def has_taken(self, timestamp: Any) -> bool:
        """Whether the bar of that stamp, or a later one, was taken already."""
        return stamp_of(timestamp) + self._stamp_to_close <= self._clock[LAST_BAR]

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
        return self._regime(int(self._clock[LAST_ROW]), self._memory[: len(self.model.labels)])

    def save(self, path: str | Path) -> None:
        """Write model and state as JSON, whole or not at all."""
        content = {
            "format": FORMAT,
            "model": self.model.to_dict(),
            "missing": self.missing,
            "last_bar": str(self.time),
            "clock": _text_of(self._clock),
            "memory": _text_of(self._memory),
        }
        with written_beside(path) as part:
            part.write_text(json.dumps(content))

    @classmethod
    def load(cls, path: str | Path) -> "Stream":
        """Read what `save` wrote. Raises ModelError when there is none or it is damaged."""
        try:
            stored = json.loads(Path(path).read_text())
            if stored["format"] != FORMAT:
                raise ModelError(f"{path}: format {stored['format']}, this version reads {FORMAT}")
            stream = cls(StreamModel.from_dict(stored["model"]), stored["missing"])
            stream._restore(stored["clock"], stored["memory"])
        except FileNotFoundError:
            raise ModelError(f"no saved stream at {path}") from None
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ModelError(f"{path} is no saved stream: {error}") from None
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
        if not self.settled:
            return []
        times, probs = self._rows
        return [self._regime(int(times[i]), probs[i]) for i in range(n)]

    def _check_place(self, time_ns: int, last: int) -> None:
        """Refuse a bar that may not follow the last one."""
        passed, rest = divmod(time_ns - last, self._step_ns)
        told = f"the bar of {moment(time_ns - self._stamp_to_close)}"
        after = f"the last bar was that of {moment(last - self._stamp_to_close)}"
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

    def _regime(self, time_ns: int, probs: np.ndarray) -> Regime:
        values = probs.tolist()
        state = values.index(max(values))
        return Regime(
            pd.Timestamp(time_ns - self._close_to_stamp, tz=UTC),
            pd.Timestamp(time_ns, tz=UTC),
            state,
            self.model.labels[state],
            tuple(values),
        )

    def _restore(self, clock: str, memory: str) -> None:
        arrays = _array_of(clock, np.int64), _array_of(memory, np.float64)
        if arrays[0].shape != self._clock.shape or arrays[1].shape != self._memory.shape:
            raise ModelError("the saved stream does not fit its model")
        self._clock, self._memory = arrays


def _utc(time_ns: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(time_ns.view("M8[ns]"), tz="UTC")


def _no_bars() -> tuple[np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty((0, 5))


def _text_of(array: np.ndarray) -> str:
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def _array_of(text: str, kind: type) -> np.ndarray:
    little = np.dtype(kind).newbyteorder("<")
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=little).astype(kind)
