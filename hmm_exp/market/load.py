"""Load bars or prebuilt features from files, whole or in chunks.

>>> bars = read_bars("btc_1h.csv", bar_stamp="open")
>>> bars.report["gaps"]["count"]
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from hmm_exp.errors import ConfigError, DataError, counted
from hmm_exp.files import PARQUET
from hmm_exp.market.bars import OHLCV, Bars, shown, timeframe_step
from hmm_exp.market.blocks import BLOCK, text_blocks
from hmm_exp.market.clean import StampedRows, bars_from_frame, span_report, stamped_frame
from hmm_exp.market.columns import (
    OneSeries,
    check_one_series,
    is_bars_header,
    is_features_header,
    tidy,
)
from hmm_exp.market.files import (
    UNREADABLE_PARQUET,
    Table,
    damaged,
    layout_of,
    parse,
    read_table,
)
from hmm_exp.market.gaps import gap_report, usual_step
from hmm_exp.market.iso import iso
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.symbol_files import SymbolRows
from hmm_exp.market.time_column import time_column


def read_bars(
    path: str | Path,
    options: ReadOptions | None = None,
    *,
    name: str | None = None,
    needs: Collection[str] = OHLCV,
    symbol: str | SymbolRows | None = None,
    **single: Any,
) -> Bars:
    """Read bars from a file, or those of one symbol from files that hold several.

    Parameters
    ----------
    path
        CSV with any delimiter, gzip of it, or Parquet.
    options
        How to read it; or its fields one by one: `read_bars(path, bar_stamp="open")`.
    name
        The instrument; the symbol, or the file's stem, unless given.
    needs
        Columns that will be used, see `bars_from_frame`.
    symbol
        The symbol whose rows are read; `path` may then be a folder or a pattern, too. None for all
        rows of a file.

    Returns
    -------
    Bars
        `Bars.report` describes the file and what was normalised.

    Raises
    ------
    ConfigError, DataError
        As `ReadOptions` and `bars_from_frame`.
    """
    options = options or ReadOptions(**single)
    rows = SymbolRows(symbol) if isinstance(symbol, str) else symbol
    table = read_table(path, is_bars_header) if rows is None else rows.of(path)
    table = whole_rows(table, options)
    name = name or (instrument_name(path) if rows is None else rows.symbol)
    bars = bars_from_frame(table.frame, options, name=name, needs=needs)
    return replace(bars, report=_with_file(bars.report, table))


def read_features(
    path: str | Path, options: ReadOptions | None = None, *, name: str | None = None, **single: Any
) -> tuple[pd.DataFrame, dict]:
    """Read prebuilt features from a file, with their data report; parameters as in `read_bars`.

    Returns
    -------
    frame
        Index `available_at` (UTC), column `timestamp`, then every numeric column in the file's
        order. Rows of the finest timeframe that the `_{TF}` suffixes name. A missing value stays
        NaN; columns of text are left out and listed in the report.

    Raises
    ------
    ConfigError
        An option has an unknown value.
    DataError
        No column is numeric, a column with a timeframe's suffix holds text, a value is infinite,
        stamps are unreadable or in conflict, or there are too few rows.
    """
    options = options or ReadOptions(**single)
    table = whole_rows(read_table(path, is_features_header), options)
    features, report = features_from_frame(table.frame, options, name or instrument_name(path))
    return features, _with_file(report, table)


def features_from_frame(
    frame: pd.DataFrame, options: ReadOptions, name: str = "features", fewest: int = 2
) -> tuple[pd.DataFrame, dict]:
    """Prebuilt features from a table in memory, and their report; see `read_features`."""
    frame, notes = tidy(frame)
    check_one_series(frame)
    times = time_column(frame, options)
    names = _feature_columns(frame, times.name.split(" + "))
    rows = StampedRows(frame, times, names, options)
    rows.need_stamps()
    rows.sort()
    rows.need_cells([("text instead of a number", rows.text)])
    rows.need_cells([("an infinite value", np.isinf(rows.values))])
    rows.need_one_row_a_stamp()
    rows.need(fewest)
    step_ns = min(filter(None, map(_suffix_step, names)), default=0) or usual_step(rows.stamps)
    report = {
        "name": name,
        "rows_read": len(frame),
        "rows_used": len(rows),
        **span_report(rows.stamps, step_ns, options.bar_stamp),
        "columns": {"timestamp": times.name} | {n: n for n in names},
        "columns_left_out": [n for n in frame.columns if n not in (*names, times.name)],
        "normalised": [*notes, *rows.notes],
        "times_compared": times.stamps.needs_all,
        "warnings": times.warnings,
        "dropped": rows.dropped,
        "gaps": gap_report(rows.stamps, step_ns, options.gaps),
        "missing_rows": int(np.isnan(rows.values).any(axis=1).sum()),
    }
    return stamped_frame(rows.stamps, rows.values, names, step_ns, options.bar_stamp), report


def instrument_name(path: str | Path) -> str:
    """The file's stem, without `.csv` before `.gz` too."""
    stem = Path(path).stem
    return Path(stem).stem if Path(stem).suffix in (".csv", ".tsv", ".txt") else stem


def whole_rows(table: Table, options: ReadOptions) -> Table:
    """Return the table; raise DataError where rows of another length may not be left out."""
    if not table.ragged:
        return table
    line, text = table.ragged[0]
    if table.frame.empty:
        raise DataError(
            f"no row has as many fields as the header, {len(table.frame.columns)}: line {line} is "
            f"{shown(text)!r}; name every column, and quote a text that holds the delimiter"
        )
    if options.bad_rows == "error":
        raise DataError(
            f"{counted(len(table.ragged), 'row')} with more or fewer fields than the header, "
            f"first {shown(text)!r} in line {line}; data.bad_rows=drop leaves them out"
        )
    return table


def _with_file(report: dict, table: Table) -> dict:
    """The report with the file's layout first, and the number of malformed rows."""
    report = table.about | report
    report["normalised"] = [*table.notes, *report["normalised"]]
    if table.ragged:
        report["rows_read"] += len(table.ragged)
        report["dropped"] = {"other number of fields": len(table.ragged)} | report["dropped"]
    return report


def _feature_columns(frame: pd.DataFrame, timestamps: list[str]) -> list[str]:
    """Numeric columns but the time, and those with a timeframe's suffix whatever they hold."""
    names = [
        name
        for name, dtype in zip(frame.columns, frame.dtypes, strict=True)
        if name not in timestamps and (pd.api.types.is_numeric_dtype(dtype) or _suffix_step(name))
    ]
    twice = [name for name in names if f"{name} [2]" in names]
    if twice:
        raise DataError(f"columns named more than once that differ: {', '.join(twice)}; rename one")
    if not names:
        raise DataError(
            f"no numeric column but the time {timestamps[0]!r}: a table of features needs one"
        )
    return names


def _suffix_step(name: str) -> int:
    """Nanoseconds of the timeframe that ends a column's name, 0 without one."""
    try:
        return timeframe_step(name.rpartition("_")[2]).as_unit("ns").value
    except ConfigError:
        return 0


_PARQUET_ROWS = 250_000
Chunk = TypeVar("Chunk", Bars, pd.DataFrame)
_UNORDERED = ("newest first", "back in time")  # notes of a report


def bar_chunks(
    path: str | Path,
    options: ReadOptions,
    step: pd.Timedelta,
    *,
    name: str | None = None,
    needs: Collection[str] = OHLCV,
    block: int = BLOCK,
) -> Iterator[tuple[Bars, float]]:
    """Bars of a file in time order, with the share of the file that has been read.

    Arguments are those of `read_bars`; `step` is the length of a bar, `block` the bytes of text
    that make a chunk. Raises DataError as `read_bars`, and when a chunk does not come after the one
    before.
    """
    name = name or instrument_name(path)

    def bars_of(table: Table) -> tuple[Bars, dict]:
        frame = whole_rows(table, options).frame
        bars = bars_from_frame(frame, options, step=step, name=name, needs=needs)
        report = _with_file(bars.report, table)
        return replace(bars, report=report), report

    last: Bars | None = None
    for table, share in _tables(Path(path), is_bars_header, block):
        read = _in_order(bars_of, table, is_whole=share == 1 or last is not None)
        if read is None:
            yield read_bars(path, options, name=name, needs=needs), 1.0
            return
        bars, _ = read
        bars = bars if last is None else _after(last, bars)
        if len(bars):
            yield bars, share
            last = bars


def feature_chunks(
    path: str | Path,
    options: ReadOptions,
    *,
    block: int = BLOCK,
    on_report: Callable[[dict, float], None] = lambda report, share: None,
) -> Iterator[tuple[pd.DataFrame, float]]:
    """Prebuilt feature rows of a file, as `read_features` gives them, in chunks; see above.

    `on_report` takes the report of the first chunk and the share of the file that it holds.
    """

    def rows_of(table: Table) -> tuple[pd.DataFrame, dict]:
        rows, report = features_from_frame(whole_rows(table, options).frame, options, fewest=1)
        return rows, _with_file(report, table)

    last: pd.Timestamp | None = None
    for table, share in _tables(Path(path), is_features_header, block):
        read = _in_order(rows_of, table, is_whole=share == 1 or last is not None)
        if read is None:
            rows, report = read_features(path, options)
            on_report(report, 1.0)
            yield rows, 1.0
            return
        rows, report = read
        if last is None:
            on_report(report, share)
        if last is not None and rows.index[0] <= last:
            raise _not_in_order(rows.index[0], last)
        yield rows, share
        last = rows.index[-1]


def _tables(
    path: Path, is_header: Callable[[list[str]], bool], block: int
) -> Iterator[tuple[Table, float]]:
    """Tables of consecutive rows of a file, with the share of it that has been read."""
    if not path.is_file():
        yield read_table(path, is_header), 1.0  # raises what is wrong, or is a pipe
        return
    series = OneSeries()
    for table, share in _tables_of_file(path, is_header, block):
        series.check(tidy(table.frame)[0])
        yield table, share


def _tables_of_file(
    path: Path, is_header: Callable[[list[str]], bool], block: int
) -> Iterator[tuple[Table, float]]:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == PARQUET:
        yield from _parquet(path)
    elif not magic.strip():
        yield read_table(path, is_header), 1.0
    else:
        about: dict = {}
        for header, rows, share in text_blocks(path, is_header, block):
            about = about or {"file": str(path)} | layout_of(header)
            frame, ragged = parse(rows, header, path)
            yield Table(frame, about, ragged, header.notes), share


def _parquet(path: Path) -> Iterator[tuple[Table, float]]:
    about = {"file": str(path), "format": "parquet"}
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            total, done = file.metadata.num_rows, 0
            for batch in file.iter_batches(_PARQUET_ROWS):
                done += len(batch)
                frame = pa.Table.from_batches([batch]).to_pandas(date_as_object=False)
                yield Table(frame, about), done / total
    except UNREADABLE_PARQUET as error:
        raise damaged(path, "Parquet", error) from None


def _in_order(
    read: Callable[[Table], tuple[Chunk, dict]], table: Table, is_whole: bool
) -> tuple[Chunk, dict] | None:
    """Rows of a chunk and their report; None where the first one asks for the whole file."""
    try:
        rows, report = read(table)
    except DataError:
        if is_whole:
            raise
        return None  # more rows tell more, be it of the form of dates or of what is wrong
    unordered = any(mark in note for note in report["normalised"] for mark in _UNORDERED)
    return None if (unordered or report["times_compared"]) and not is_whole else (rows, report)


def _after(last: Bars, bars: Bars) -> Bars:
    """The bars, without a first one that repeats the last one of the chunk before."""
    if bars.time[0] > last.time[-1]:
        return bars
    same = bars.time[0] == last.time[-1] and np.array_equal(bars.ohlcv[0], last.ohlcv[-1])
    if not same:
        raise _not_in_order(bars.frame.index[0], last.frame.index[-1])
    return replace(bars, frame=bars.frame.iloc[1:])


def _not_in_order(first: pd.Timestamp, last: pd.Timestamp) -> DataError:
    return DataError(
        f"rows are not in time order: {iso(first.value)} comes after {iso(last.value)} in "
        "the file; sort it by time first"
    )
