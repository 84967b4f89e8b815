"""Bars as a caller sends them: one rule for `filter`, a stream, MLflow's `predict` and REST.

Column names are found in any case and in their usual variants, times in a column or in the index.

>>> bars = bars_sent({"Time": ["2024-01-01T05:00Z"], "O": [1.0], ...}, detector)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.detector.model import StreamModel
from hmm_exp.errors import DataError
from hmm_exp.market.bars import Bars
from hmm_exp.market.clean import bars_from_frame, ohlcv_columns
from hmm_exp.market.columns import check_one_series, find_timestamps, tidy
from hmm_exp.market.options import ReadOptions

Table = pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]
Row = Mapping[str, Any] | pd.Series | pd.DataFrame

_MISSING = (type(None), type(pd.NA), type(pd.NaT))
_NUMBERS = (str, Real, Decimal, *_MISSING)  # allowed types of numeric cells
_TIMES = (*_NUMBERS, date, np.datetime64, pd.Period)
_MOST_BITS = 1000  # of an integer; a double holds up to 1023


def bars_sent(table: Table, model: StreamModel, *, one: bool = False) -> Bars:
    """Bars of a table as the model reads them, `one` of them always an error if it is bad.

    Raises
    ------
    DataError
        As `bars_from_frame`, or a cell that is used is neither a number nor a text.
    """
    reading = replace(model.reading, bad_rows="error") if one else model.reading
    frame, _ = tidy(frame_of(table))
    with _hint(model.input_hint):
        check_one_series(frame)
        _check_used(frame, model)
        return bars_from_frame(
            frame, reading, step=model.step, name=model.name, needs=model.recipe.needs
        )


def frame_of(table: Table) -> pd.DataFrame:
    """A table, a mapping of columns or a sequence of mappings as a frame. Raises DataError."""
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, Mapping | list | tuple):
        try:
            return pd.DataFrame(table)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"a table of bars is expected, not this one: {error}") from None
    raise DataError(f"a table of bars is expected, not {type(table).__name__}")


def row_of(bar: Row, reading: ReadOptions) -> dict[str, Any]:
    """Values of one bar by name; the time of a Series is its name unless it holds one."""
    if isinstance(bar, pd.DataFrame):
        if len(bar) != 1:
            raise DataError(f"one bar is expected, not {len(bar)} rows")
        frame, _ = tidy(bar)
        return {str(name): frame[name].iloc[0] for name in frame}
    if isinstance(bar, pd.Series):
        values = dict(zip(map(str, bar.index), bar.array, strict=True))
        is_time = isinstance(bar.name, str | date)
        index = {reading.timestamp_column or "index": bar.name} if is_time else {}
        return index | values
    if not hasattr(bar, "keys"):
        raise DataError(f"a bar is a mapping such as a dict, not {type(bar).__name__}")
    return dict(bar)


def indexed(answer: pd.DataFrame, source: object, reading: ReadOptions) -> pd.DataFrame:
    """The answer with the index of the frame that it is about, if that is a DatetimeIndex of times.

    Its rows have the times as the caller writes them: in the zone of the index, or naive.
    """
    if not isinstance(source, pd.DataFrame) or not isinstance(source.index, pd.DatetimeIndex):
        return answer
    index, name = source.index, source.index.name or "index"
    column = "available_at"
    if name != column:
        names = list(tidy(source[:0])[0].columns)
        if name != find_timestamps(names, reading.bar_stamp, reading.timestamp_column)[0]:
            return answer
        column = "timestamp"
    times = pd.DatetimeIndex(answer[column]).tz_convert(index.tz or reading.timezone)
    written = times if index.tz else times.tz_localize(None)
    return answer.set_axis(written.as_unit(index.unit).rename(index.name))


def check_kinds(frame: pd.DataFrame, columns: Sequence[str], time: str) -> None:
    """Refuse cells that are neither numbers nor texts, nor times in the column `time`."""
    for name in columns:
        column, kinds = frame[name], _TIMES if name == time else _NUMBERS
        if column.dtype != object:
            if not _fits(column.dtype.type, kinds):
                raise DataError(f"column {name} holds values of type {column.dtype}")
            continue
        for row, cell in enumerate(column, 1):
            if not _fits(type(cell), kinds):
                kind = type(cell).__name__
                raise DataError(f"column {name} holds a value of type {kind} in data row {row}")
            if isinstance(cell, int) and cell.bit_length() > _MOST_BITS:
                raise DataError(f"column {name} holds a number beyond 1e300 in data row {row}")


def _fits(kind: type, kinds: tuple[type, ...]) -> bool:
    return issubclass(kind, kinds) and not issubclass(kind, bool | np.bool_)


def _check_used(frame: pd.DataFrame, model: StreamModel) -> None:
    """Refuse a table without rows or columns of bars, and cells of other kinds in them."""
    if frame.empty:
        raise DataError("the table of bars has no rows or no columns")
    reading, needs = model.reading, model.recipe.needs
    found = ohlcv_columns(frame, reading.volume_column, model.name, needs)
    names = list(frame.columns)
    time, *_ = find_timestamps(names, reading.bar_stamp, reading.timestamp_column)
    check_kinds(frame, [time, *(name for role, name in found.items() if role in needs)], time)


@contextmanager
def _hint(what_to_send: str) -> Iterator[None]:
    """Add to a complaint about a missing column what a caller may send instead."""
    try:
        yield
    except DataError as error:
        if "no column" in str(error):
            raise DataError(f"{error}; send {what_to_send}") from None
        raise
