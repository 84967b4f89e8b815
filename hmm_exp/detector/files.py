"""Write the regimes of a file of any length into a file, chunk by chunk.

>>> with RegimeFile("regimes.csv") as file:
...     newest = apply(stream.extend, bar_chunks("bars.csv", ...), file.write)
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from hmm_exp.detector.model import StreamModel
from hmm_exp.errors import ConfigError, DataError, HistoryError
from hmm_exp.features.season import less_means, row_ends
from hmm_exp.files import written_beside
from hmm_exp.hmm import inference
from hmm_exp.market.bars import step_in_words
from hmm_exp.market.gaps import chain_steps
from hmm_exp.market.iso import arrow_table, iso, write_rows


@dataclass
class Newest:
    """The last row of an answer, and since when its state and its regime have held."""

    n_rows: int = 0  # rows seen
    row: dict[str, Any] | None = None  # the last one, as a mapping; empty before the first
    # When the first row of its unbroken visit to the state, and to the regime, was known.
    since: pd.Timestamp | None = None
    regime_since: pd.Timestamp | None = None

    def see(self, frame: pd.DataFrame) -> None:
        """Take the next rows into account."""
        if frame.empty:
            return
        self.since = self._since(frame, "state", self.since)
        self.regime_since = self._since(frame, "regime", self.regime_since)
        self.row = {str(name): value for name, value in frame.iloc[-1].items()}
        self.n_rows += len(frame)

    def _since(
        self, frame: pd.DataFrame, name: str, before: pd.Timestamp | None
    ) -> pd.Timestamp | None:
        """When the last value of a column began to hold; `before` where it goes on."""
        values = frame[name].to_numpy()
        others = (values != values[-1]).nonzero()[0]
        begun = int(others[-1]) + 1 if len(others) else 0
        goes_on = begun == 0 and self.row is not None and self.row[name] == values[-1]
        return before if goes_on else frame["available_at"].iloc[begun]

    def to_dict(self) -> dict[str, Any]:
        """Give the row for JSON: ISO times, with `since` of state and regime."""
        since = {"since": self.since, "regime_since": self.regime_since}
        values = (self.row or {}) | since
        return {key: _plain(value) for key, value in values.items()}


def apply(
    extend: Callable[[Any], pd.DataFrame],
    chunks: Iterable[tuple[Any, float]],
    write: Callable[[pd.DataFrame], None],
    progress: Callable[[int, float], None] = lambda rows, share: None,
) -> tuple[Newest, int]:
    """Pass chunks through a stream and write what comes out.

    `extend` is that of a `Stream` or a `RowStream`; each chunk of bars or feature rows comes with
    the share of the whole that has been read; `progress` takes the rows read so far and the share.
    Returns the newest regime and the number of rows read.
    """
    newest, n_read = Newest(), 0
    for rows, share in chunks:
        regimes = extend(rows)
        write(regimes)
        newest.see(regimes)
        n_read += len(rows)
        progress(n_read, share)
    return newest, n_read


def check_read(model: StreamModel, n_read: int, n_rows: int, of_bars: bool = True) -> None:
    """Raise HistoryError where too few bars or feature rows were read for the rows of an answer."""
    if of_bars and n_read < model.min_history:
        raise HistoryError(
            f"{n_read:,} bars of {step_in_words(model.step)} are too few: at least "
            f"{model.min_history:,} consecutive bars are needed, windows and burn-in included"
        )
    if not of_bars and n_rows < model.min_rows:
        raise HistoryError(
            f"{n_rows} rows with their windows filled are too few: at least {model.min_rows} "
            f"consecutive rows of {model.recipe.grid} are needed"
        )
    if n_rows == 0:
        raise HistoryError(f"no row of {n_read} has every feature")


class RegimeFile:
    """A CSV of regimes, written beside and renamed when it is whole.

    Raises ConfigError if the path does not end in `.csv` or its folder does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".csv":
            raise ConfigError(f"{path}: regimes are written as .csv")
        if not self.path.parent.is_dir():
            raise ConfigError(f"{path}: the folder {self.path.parent} does not exist")
        self._opened = ExitStack()
        self._file: IO[bytes] | None = None
        self._names: list[str] = []

    def __enter__(self) -> "RegimeFile":
        with ExitStack() as stack:
            part = stack.enter_context(written_beside(self.path))
            self._file = stack.enter_context(part.open("wb"))
            self._opened = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._opened.__exit__(kind, error, trace)

    def write(self, frame: pd.DataFrame) -> None:
        """Append rows; the first call decides the header."""
        assert self._file is not None
        is_first = not self._names
        self._names = self._names or list(frame.columns)
        write_rows(arrow_table(frame[self._names]), self._file, header=is_first)


def _plain(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return iso(value)
    return value.item() if hasattr(value, "item") else value


class RowStream:
    """A filter over feature rows that remembers where it was."""

    def __init__(self, model: StreamModel) -> None:
        self.model = model
        self._startprob = model.params.stationary()
        self._decider = model.decider()
        self._probs: np.ndarray | None = None
        self._last: np.ndarray = np.empty(0, np.int64)  # `available_at` of the last row

    def extend(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Take rows and give their regimes; those before the first complete one are dropped.

        The index is `available_at`, increasing and later than all before; the columns are
        `timestamp` and those of the recipe. Raises DataError when one is missing.
        """
        columns = list(self.model.recipe.columns)
        missing = [name for name in columns if name not in rows]
        if missing:
            raise DataError(f"no column {', '.join(missing)}: the model needs {', '.join(columns)}")
        X = rows[columns].to_numpy(dtype=np.float64)
        first = self._first(X)
        rows, X = rows.iloc[first:], X[first:]
        timestamp, available_at = pd.DatetimeIndex(rows["timestamp"]), pd.DatetimeIndex(rows.index)
        probs = np.empty((0, self.model.params.n_states))
        if len(rows):
            probs = self._filtered(X, available_at)
        decided = self._decider.advance(probs)
        return self.model.regime_frame(timestamp, available_at, probs, decided=decided)

    def _first(self, X: np.ndarray) -> int:
        """Row to begin with: the first complete one, where none has come yet."""
        if self._probs is not None:
            return 0
        complete = ~np.isnan(X).any(axis=1)
        return int(complete.argmax()) if complete.any() else len(X)

    def _filtered(self, X: np.ndarray, available_at: pd.DatetimeIndex) -> np.ndarray:
        model = self.model
        time = np.concatenate([self._last, available_at.as_unit("ns").asi8])
        steps = chain_steps(time, model.row_step.as_unit("ns").value, model.gaps)
        now = time[len(self._last) :]
        X = less_means(X, row_ends(model.recipe, now), model.recipe, model.season)
        scaled = (X - model.scaler_mean) / model.scaler_scale
        filtered = inference.filter_rows(
            model.params, scaled, steps[len(self._last) :], self._startprob, self._probs
        )
        self._last, self._probs = time[-1:], filtered.probs[-1]
        return filtered.probs
