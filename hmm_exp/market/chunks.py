"""Long files of bars or features in chunks, so that memory does not grow with the file.

>>> for bars, share in bar_chunks("btc_1min.csv", ReadOptions("open"), minute):
...     print(f"{len(bars)} bars, {share:.0%} of the file read")

Each chunk is normalised and checked as a file of its own, and must come after the one before it.
A file that has to be seen whole (newest row first, dates whose form shows only over many rows) is
read whole.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from hmm_exp.errors import DataError
from hmm_exp.file_kinds import GZIP, PARQUET
from hmm_exp.market.bars import OHLCV, Bars
from hmm_exp.market.columns import is_bars_header, is_features_header
from hmm_exp.market.frames import OneSeries, tidy
from hmm_exp.market.headers import find_header
from hmm_exp.market.load import (
    features_from_frame,
    instrument_name,
    read_bars,
    read_features,
    whole_rows,
)
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.rows import moment
from hmm_exp.market.table import (
    UNREADABLE_PARQUET,
    Table,
    as_utf8,
    below,
    damaged,
    first_lines,
    layout_of,
    parse,
    read_table,
    refuse_other_kinds,
)
from hmm_exp.market.validate import bars_from_frame

BLOCK = 16 << 20  # bytes of text in a chunk, about 250,000 bars
_PARQUET_ROWS = 250_000
Rows = TypeVar("Rows", Bars, pd.DataFrame)
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

    Parameters
    ----------
    path, options, name, needs
        As in `read_bars`.
    step
        Length of a bar.
    block
        Bytes of text that make a chunk.

    Raises
    ------
    DataError
        As `read_bars`, and when a chunk does not come after the one before.
    """
    name = name or instrument_name(path)

    def bars_of(table: Table) -> tuple[Bars, dict]:
        frame = whole_rows(table, options).frame
        bars = bars_from_frame(frame, options, step=step, name=name, needs=needs)
        return bars, bars.report

    last: Bars | None = None
    for table, share in _tables(Path(path), is_bars_header, block):
        bars = _in_order(bars_of, table, is_whole=share == 1 or last is not None)
        if bars is None:
            yield read_bars(path, options, name=name, needs=needs), 1.0
            return
        bars = bars if last is None else _after(last, bars)
        if len(bars):
            yield bars, share
            last = bars


def feature_chunks(
    path: str | Path, options: ReadOptions, *, block: int = BLOCK
) -> Iterator[tuple[pd.DataFrame, float]]:
    """Prebuilt feature rows of a file, as `read_features` gives them, in chunks; see above."""

    def rows_of(table: Table) -> tuple[pd.DataFrame, dict]:
        return features_from_frame(whole_rows(table, options).frame, options, fewest=1)

    last: pd.Timestamp | None = None
    for table, share in _tables(Path(path), is_features_header, block):
        rows = _in_order(rows_of, table, is_whole=share == 1 or last is not None)
        if rows is None:
            yield read_features(path, options)[0], 1.0
            return
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
        file.seek(0)
        if magic == PARQUET:
            yield from _parquet(path)
        elif magic[:2] in (b"\xff\xfe", b"\xfe\xff") or not magic.strip():
            yield read_table(path, is_header), 1.0
        else:
            size = path.stat().st_size
            with gzip.open(file) if magic[:2] == GZIP else nullcontext(file) as text:
                for table, is_last in _text_tables(text, is_header, path, block):
                    yield table, 1.0 if is_last else min(file.tell() / size, 0.99)


def _text_tables(
    text: io.BufferedIOBase, is_header: Callable[[list[str]], bool], path: Path, block: int
) -> Iterator[tuple[Table, bool]]:
    """Each block under the header of the first one, and whether it is the last."""
    header, about = None, {"file": str(path)}
    try:
        for content, is_last in _blocks(text, block):
            if header is None:
                refuse_other_kinds(content, path)
            content = rows = as_utf8(content)
            if header is None:
                header = find_header(first_lines(content), is_header)
                rows = below(content, header)
                about |= layout_of(header)
            frame, ragged = parse(rows, header, path)
            yield Table(frame, about, ragged, header.notes), is_last
            header = replace(header, line=header.line + content.count(b"\n"))
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, "gzip", error) from None


def _blocks(text: io.BufferedIOBase, size: int) -> Iterator[tuple[bytes, bool]]:
    """Blocks that end with a line; a short rest stays with the last, as it tells too little."""
    block, more = text.read(size), text.read(size)
    while len(more) > size // 4:
        cut = block.rfind(b"\n") + 1
        if cut:
            yield block[:cut], False
        block, more = block[cut:] + more, text.read(size)
    if block:
        yield block + more, True


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
    read: Callable[[Table], tuple[Rows, dict]], table: Table, is_whole: bool
) -> Rows | None:
    """Rows of a chunk; None where the first one shows that the file must be seen whole."""
    try:
        rows, report = read(table)
    except DataError:
        if is_whole:
            raise
        return None  # more rows tell more, be it of the form of dates or of what is wrong
    unordered = any(mark in note for note in report["normalised"] for mark in _UNORDERED)
    return None if (unordered or report["times_compared"]) and not is_whole else rows


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
        f"rows are not in time order: {moment(first.value)} comes after {moment(last.value)} in "
        "the file; sort it by time first"
    )
