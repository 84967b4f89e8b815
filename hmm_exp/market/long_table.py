"""Read the rows of one symbol from one long table, CSV or Parquet, with a column of symbols.

>>> table = LongTable("bars.parquet", "symbol")
>>> table.counts()["BTC"]
28727
>>> btc = table.rows("BTC")

A text has no index, and a Parquet file ordered by time has each symbol in each of its row groups:
to read one symbol is to read all rows. With a folder for it, such a file is cut once: copied in
parts that are sorted by symbol, of which a symbol's rows are a small share.
"""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from filelock import FileLock

from hmm_exp.errors import DataError
from hmm_exp.files import PARQUET, written_beside
from hmm_exp.market.blocks import text_blocks
from hmm_exp.market.columns import find_symbols, is_bars_header
from hmm_exp.market.files import (
    UNREADABLE_PARQUET,
    Header,
    Table,
    damaged,
    fields_of,
    layout_of,
    parse,
    parse_text,
)

_MOST_ROWS = 2_000_000  # rows to decode for one symbol; a file with more of them is cut
_BATCH = 250_000  # rows in memory while those of a symbol are found
_SLICE = 1_000_000  # rows sorted at once
_GROUP = 4_096  # rows in a row group of a part: the least that is decoded
_KEY = "symbol of the row"  # name of the column that parts are sorted by
_ABOUT = "about.json"
Ragged = list[tuple[int, str]]


@dataclass(frozen=True)
class LongTable:
    """A file of several symbols, and its column of symbols."""

    file: str
    column: str

    def counts(self) -> Counter[str]:
        """Number of rows by symbol, "" for those without; no other column is read.

        Of a row group of Parquet whose statistics name one symbol, nothing is read. Raises
        DataError when the file cannot be read or lacks the column.
        """
        if not is_parquet(self.file):
            return self._counts_of_text()
        counts: Counter[str] = Counter()
        for found in _group_counts(self.file, self._name(parquet_columns(self.file))):
            counts.update(found)
        return counts

    def rows(self, symbol: str, cache: Path | None = None) -> Table:
        """Rows of one symbol in the order of the file, with columns as `read_table` gives them.

        Parameters
        ----------
        symbol
            A value of the column, as text; in a text file without blanks around it.
        cache
            A folder in which the file is cut, once for all processes, if it is text or if more
            than two million rows had to be decoded for the symbol. None for no copy.

        Raises
        ------
        DataError
            The file cannot be read or lacks the column.
        """
        if not is_parquet(self.file):
            return self._from_text(symbol, cache)
        frame = self._from_parquet(symbol, cache).to_pandas(date_as_object=False)
        return Table(frame, {"file": self.file, "format": "parquet"})

    def _name(self, names: list[str]) -> str:
        """The column's own name, which may differ in case."""
        try:
            return str(find_symbols(names, self.column))
        except DataError as error:
            raise DataError(f"{self.file}: {error}") from None

    def _counts_of_text(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        ragged: list[str] = []
        for block in self._blocks(only=True):
            counts.update(_counted(block.symbols))
            ragged += [symbol for _, _, symbol in block.ragged]
        for symbol in ragged:  # a row of another length may show anything as its symbol
            counts[symbol if symbol in counts else ""] += 1
        return counts

    def _blocks(self, only: bool = False) -> Iterator["_Block"]:
        for header, rows, _ in text_blocks(self.file, is_bars_header):
            place = header.names.index(self._name(header.names))
            table, ragged = parse_text(rows, header, self.file, place if only else None)
            symbols = pc.utf8_trim_whitespace(table.column(str(place)))
            named = [
                (line, text, (fields_of(text, header.delimiter)[place : place + 1] or [""])[0])
                for line, text in ragged
            ]
            yield _Block(header, table, symbols, named)

    def _from_text(self, symbol: str, cache: Path | None) -> Table:
        if cache is not None:
            folder = self._cut(cache)
            about = json.loads((folder / _ABOUT).read_text())
            own = [(line, text) for line, text, of in about["ragged"] if of == symbol]
            return _typed(_of_parts(folder, symbol), Header(**about["header"]), own, self.file)
        parts, ragged, headers = [], [], []
        for block in self._blocks():
            headers.append(block.header)
            parts.append(block.table.filter(pc.equal(block.symbols, symbol)))
            ragged += [(line, text) for line, text, of in block.ragged if of == symbol]
        return _typed(pa.concat_tables(parts), headers[0], ragged, self.file)

    def _from_parquet(self, symbol: str, cache: Path | None) -> pa.Table:
        with _opened(self.file) as file:
            name, schema = self._name(file.schema_arrow.names), file.schema_arrow
            value = _as_stored(symbol, schema.field(name).type)
            groups = [] if value is None else _groups_with(file, name, value)
            n_rows = sum(file.metadata.row_group(group).num_rows for group in groups)
            if cache is None or n_rows <= _MOST_ROWS:
                batches = file.iter_batches(_BATCH, groups) if groups else iter(())
                found = (
                    pa.Table.from_batches([batch]).filter(ds.field(name) == value)
                    for batch in batches
                )
                return pa.concat_tables([schema.empty_table(), *found])
        return _of_parts(self._cut(cache), symbol)

    def _cut(self, cache: Path) -> Path:
        """Folder with the file's rows in parts sorted by symbol, made by the first who asks."""
        stat = Path(self.file).stat()
        state = [str(Path(self.file).resolve()), self.column, stat.st_size, stat.st_mtime_ns]
        code = hashlib.sha256(json.dumps([*state, stat.st_ino]).encode()).hexdigest()
        folder = cache / f"symbols-{code[:24]}"
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / _ABOUT).exists():
                folder.mkdir(exist_ok=True)
                self._write_parts(folder)
        return folder

    def _write_parts(self, folder: Path) -> None:
        about: dict[str, Any] = {"header": None, "ragged": []}
        for number, (table, block) in enumerate(self._slices()):
            if block is not None:
                about["header"] = about["header"] or asdict(block.header)
                about["ragged"] += block.ragged
            part = folder / f"{number:06}.parquet"
            pq.write_table(table.sort_by(_KEY), part, row_group_size=_GROUP)
        with written_beside(folder / _ABOUT) as part:  # the last: a folder without is not whole
            part.write_text(json.dumps(about))

    def _slices(self) -> Iterator[tuple[pa.Table, "_Block | None"]]:
        """Consecutive rows with their symbols in column `_KEY`."""
        if not is_parquet(self.file):
            for block in self._blocks():
                yield block.table.append_column(_KEY, block.symbols), block
            return
        with _opened(self.file) as file:
            name = self._name(file.schema_arrow.names)
            for batch in file.iter_batches(_SLICE):
                table = pa.Table.from_batches([batch])
                yield table.append_column(_KEY, table.column(name).cast(pa.string())), None


@dataclass(frozen=True)
class _Block:
    """Consecutive rows of a text file."""

    header: Header
    table: pa.Table  # columns of text "0", "1", ...
    symbols: pa.ChunkedArray  # of each row, without blanks around
    ragged: list[tuple[int, str, str]]  # line, text and symbol of rows of another length


@contextmanager
def _reading_parquet(file: str) -> Iterator[None]:
    try:
        yield
    except UNREADABLE_PARQUET as error:
        raise damaged(file, "Parquet", error) from None


def is_parquet(file: str) -> bool:
    """Whether a file begins as Parquet does. Raises DataError when it cannot be opened."""
    try:
        with Path(file).open("rb") as opened:
            return opened.read(4) == PARQUET
    except OSError as error:
        raise DataError(f"cannot read {file}: {os.strerror(error.errno or 0)}") from None


def parquet_columns(file: str) -> list[str]:
    """Names of the columns of a Parquet file. Raises DataError when it is damaged."""
    with _reading_parquet(file):
        return pq.read_schema(file).names


@contextmanager
def _opened(file: str, dictionary: str | None = None) -> Iterator[pq.ParquetFile]:
    """A Parquet file of which few rows are in memory at a time."""
    names = None if dictionary is None else [dictionary]
    with (
        _reading_parquet(file),
        pq.ParquetFile(file, read_dictionary=names, pre_buffer=False) as opened,
    ):
        yield opened


def _group_counts(path: str, name: str) -> Iterator[dict[str, int]]:
    """Rows by symbol of each row group."""
    with _opened(path, dictionary=name) as file:
        place = _place(file, name)
        kind = _plain(file.schema_arrow.field(name).type)
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            stats = group.column(place).statistics
            one = stats is not None and stats.has_min_max and stats.min == stats.max
            if one and stats.has_null_count and not stats.null_count:
                yield {pa.scalar(stats.min, kind).cast(pa.string()).as_py(): group.num_rows}
                continue
            for batch in file.iter_batches(_SLICE, [number], [name]):
                yield _counted(batch.column(0))


def _counted(symbols: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Number of each value as text, "" for a missing one."""
    counts: Counter[str] = Counter()
    for found in symbols.value_counts().to_pylist() if len(symbols) else []:
        value = found["values"]
        counts["" if value is None else str(value).strip() and str(value)] += found["counts"]
    return counts


def _place(file: pq.ParquetFile, name: str) -> int:
    """Place of a column among the columns of the file, in which a nested one is several."""
    paths = [file.schema.column(i).path for i in range(len(file.schema))]
    if name not in paths:
        raise DataError(f"column {name!r} is nested: a column of symbols holds one text a row")
    return paths.index(name)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _as_stored(symbol: str, kind: pa.DataType) -> pa.Scalar | None:
    """The symbol in the type of its column; None where that cannot hold it."""
    try:
        return pa.scalar(symbol).cast(_plain(kind))
    except pa.ArrowException:
        return None


def _groups_with(file: pq.ParquetFile, name: str, value: pa.Scalar) -> list[int]:
    """Row groups that may hold a value, by their statistics."""
    place, wanted, found = _place(file, name), value.as_py(), []
    for number in range(file.num_row_groups):
        stats = file.metadata.row_group(number).column(place).statistics
        known = stats is not None and stats.has_min_max
        if not known or stats.min <= wanted <= stats.max:
            found.append(number)
    return found


def _of_parts(folder: Path, symbol: str) -> pa.Table:
    """Rows of one symbol from the parts of a table that was cut."""
    parts = sorted(map(str, folder.glob("*.parquet")))
    wanted = ds.field(_KEY) == symbol
    found = pq.read_table(parts, filters=wanted, partitioning=None, pre_buffer=False)
    return found.drop_columns(_KEY)


def _typed(rows: pa.Table, header: Header, ragged: Ragged, path: str) -> Table:
    """Rows of text with numbers and dates, as `parse` reads them from a file of them alone."""
    text = io.BytesIO()
    pa_csv.write_csv(rows, text, pa_csv.WriteOptions(include_header=False))
    frame, _ = parse(text.getvalue(), Header(header.names, ","), path)
    return Table(frame, {"file": path} | layout_of(header), ragged, header.notes)
