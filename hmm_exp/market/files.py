"""Read tables from files: CSV with any delimiter, gzip of it, Parquet; with or without a header.

Some exchanges export tables without a header. Their layout is recognised by the number of columns
and by the content: readable times, and no price above the high or below the low.
"""

import csv
import gzip
import io
import os
import re
import select
import stat
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from hmm_exp.errors import DataError, one_line
from hmm_exp.files import GZIP, PARQUET, kind_of
from hmm_exp.market.columns import clock_columns, is_bars_header, is_features_header
from hmm_exp.market.stamps import read_stamps
from hmm_exp.market.zones import UNREADABLE

_USUAL_DELIMITERS = ",;\t|"
_TICKERS = {"ticker", "tickers", "symbol", "symbols"}
_LAYOUTS = {  # number of columns: their names, in every order that is known
    6: (
        ("time", "open", "high", "low", "close", "volume"),
        ("time", "low", "high", "open", "close", "volume"),
        ("time", "open", "close", "high", "low", "volume"),
    ),
    7: (
        ("time", "open", "high", "low", "close", "volume", "trades"),
        ("date", "time", "open", "high", "low", "close", "volume"),
    ),
    8: (("time", "open", "high", "low", "close", "vwap", "volume", "trades"),),
    12: (
        ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume",
         "trades", "taker_buy_volume", "taker_buy_quote_volume", "ignore"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """Names of the columns of a text table."""

    names: list[str]  # one for each column
    delimiter: str  # between two fields; a blank stands for any number of blanks
    line: int = 0  # number of lines above the header, or above the rows where there is no header
    n_lines: int = 1  # lines of the header; 0 where the file has none
    notes: list[str] = field(default_factory=list)  # what was concluded

    @property
    def rows_from(self) -> int:
        """Number of lines above the rows."""
        return self.line + self.n_lines


def find_header(lines: Sequence[str], is_header: Callable[[list[str]], bool]) -> Header:
    """Find the header among the first lines of a file.

    It is the first line whose names satisfy `is_header`; else the columns are named by a known
    layout without header; else the first line counts, for what is missing to be reported by name.
    Raises DataError when the header names several instruments, or columns without names can be read
    in two ways.
    """
    for number, line in enumerate(lines):
        for delimiter in _delimiters(line):
            names = fields_of(line, delimiter)
            if is_header(names):
                return _with_lines_below(Header(names, delimiter, number), lines)
    if is_header is is_bars_header and (without := _without_header(lines)):
        return without
    delimiter = max(_delimiters(lines[0]), key=lambda d: len(fields_of(lines[0], d)))
    return Header(fields_of(lines[0], delimiter), delimiter)


def fields_of(line: str, delimiter: str) -> list[str]:
    """Fields of a line without blanks around them."""
    if delimiter == " ":
        return line.split()
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:  # a carriage return in mid-line: no row of a table
        return [line]


def _delimiters(line: str) -> Iterable[str]:
    """Marks that may separate the fields of `line`, the usual ones first, blanks last."""
    marks = {c for c in line if c.isascii() and c.isprintable() and not c.isalnum()} - {" "}
    other = sorted(marks - set(_USUAL_DELIMITERS + "\"'_.<>()"))
    return (*_USUAL_DELIMITERS, *other, " ")


def _with_lines_below(header: Header, lines: Sequence[str]) -> Header:
    """The header with the lines around it that belong to it, as pandas writes two levels."""
    names, n_lines = list(header.names), 1
    symbols = _symbols(lines[header.line - 1], header.delimiter) if header.line else set()
    for line in lines[header.line + 1 : header.line + 3]:
        fields = fields_of(line, header.delimiter)
        if len(fields) != len(names):
            break
        if below := _symbols(line, header.delimiter):
            symbols, names[0] = below, ""
        elif fields[0] and not any(fields[1:]) and is_features_header([fields[0], ""]):
            names[0] = fields[0]
        else:
            break
        n_lines += 1
    if len(symbols) > 1:
        raise DataError(
            f"{len(symbols)} symbols in the header: {', '.join(sorted(symbols)[:4])}; "
            "a file holds one series of bars: keep the columns of one"
        )
    return Header(names, header.delimiter, header.line, n_lines)


def _symbols(line: str, delimiter: str) -> set[str]:
    """Instruments that a line of a header names."""
    first, *others = fields_of(line, delimiter) or [""]
    return {name for name in others if name} if first.lower() in _TICKERS else set()


def _without_header(lines: Sequence[str]) -> Header | None:
    """Names by the one known layout that the first rows fit; None where none does."""
    rows = [line for line in lines[:-1] or lines if line.strip()]
    for delimiter in _delimiters(rows[0]) if rows else ():
        fields = [fields_of(line, delimiter) for line in rows]
        layouts = _LAYOUTS.get(len(fields[0]), ())
        whole = [row for row in fields if len(row) == len(fields[0])]
        fitting = [names for names in layouts if _fits(pd.DataFrame(whole, columns=list(names)))]
        if len(fitting) > 1:
            raise DataError(
                "the columns have no names and can be read in several ways: add a header line such "
                f"as {','.join(fitting[0])}"
            )
        if fitting:
            note = f"no header line: columns read as {', '.join(fitting[0])}"
            return Header(list(fitting[0]), delimiter, 0, 0, [note])
    return None


def _fits(rows: pd.DataFrame) -> bool:
    """Whether rows under such names are bars: times, and prices within low and high."""
    names = ["open", "high", "low", "close"]
    prices = rows[names].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    opens, high, low, close = prices.T
    if "trades" in rows and not rows["trades"].str.fullmatch(r"\d+").all():
        return False
    times = rows["date"] + " " + rows["time"] if "date" in rows else rows.iloc[:, 0]
    with np.errstate(invalid="ignore"):
        inside = (low > 0) & (low <= np.minimum(opens, close)) & (high >= np.maximum(opens, close))
    try:
        ns = read_stamps(times).ns
    except DataError:  # day and month are told apart later, by all rows
        ns = np.arange(len(rows))
    return bool(inside.all() and (ns != UNREADABLE).all() and _goes_on(opens, close, ns))


def _goes_on(opens: np.ndarray, close: np.ndarray, ns: np.ndarray) -> bool:
    """Whether a bar opens nearer to the close before it than it closes to the open before it."""
    order = np.argsort(ns, kind="stable")
    opens, close = opens[order], close[order]
    return np.abs(opens[1:] - close[:-1]).sum() <= np.abs(close[1:] - opens[:-1]).sum()


NO_VALUE = ("", "null", "NULL", "Null", "NaN", "nan", "NAN", "-nan", "N/A", "n/a", "NA", "<NA>",
            "#N/A", "None", "none", "NaT")  # fmt: skip
_HEADER_WITHIN = 50  # lines
_BLANKS = re.compile(rb"[ \t]+")
_LONGEST_REASON = 150  # characters of a library's words
_WRITER_WITHIN = 5.0  # seconds until a process must write into a pipe
UNREADABLE_PARQUET = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, TypeError)


@dataclass(frozen=True)
class Table:
    """The table of a file as text or typed columns, with its layout."""

    frame: pd.DataFrame  # the columns under their own names, in the file's order
    about: dict  # file, format, and for text the delimiter, compression and preamble lines
    # Number and text of every row that has not as many fields as the header, left out of `frame`.
    ragged: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was concluded about the header


def read_table(path: str | Path, is_header: Callable[[list[str]], bool]) -> Table:
    """Read the file at `path`; its header is the first line whose names satisfy `is_header`.

    Raises DataError when there is no file, or none that can be read.
    """
    content = _content(Path(path))
    about = {"file": str(path)}
    if content[:4] == PARQUET:
        return Table(_parquet(content, path), about | {"format": "parquet"})
    if content[:2] == GZIP:
        about["compression"] = "gzip"
        content = _gunzip(content, path)
    refuse_other_kinds(content, path)
    content = as_utf8(content)
    header = find_header(first_lines(content), is_header)
    frame, ragged = parse(below(content, header), header, path)
    return Table(frame, about | layout_of(header), ragged, header.notes)


def refuse_other_kinds(content: bytes, path: str | Path) -> None:
    """Raise DataError that names the format when the first bytes show another one."""
    if kind := kind_of(content):
        raise DataError(
            f"{path} is {kind}: a table is CSV, gzip of CSV, or Parquet; convert it, or set "
            "data.path"
        )


def first_lines(content: bytes) -> list[str]:
    """First lines of a file, which may hold the header."""
    return content[:65536].decode(errors="replace").split("\n")[:_HEADER_WITHIN]


def below(content: bytes, header: Header) -> bytes:
    """The rows below the header of a file."""
    *above, rows = content.split(b"\n", header.rows_from)
    return rows if len(above) == header.rows_from else b""


def layout_of(header: Header) -> dict:
    """Layout of a text file for `Table.about`."""
    return {
        "format": "csv",
        "delimiter": header.delimiter,
        "preamble_lines": header.line,
        "header_lines": header.n_lines,
    }


def as_utf8(content: bytes) -> bytes:
    """Valid UTF-8 without a byte order mark, decoded from UTF-16 where a spreadsheet wrote that."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content.decode("utf-16", errors="replace").encode()
    elif not content.isascii():
        content = content.decode(errors="replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def parse(
    rows: bytes, header: Header, path: str | Path
) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """Columns as numbers, dates or text; a column's kind is judged on the whole of it.

    Returns the frame, and the line numbers and texts of rows with more or fewer fields than the
    header.
    """
    kinds = {name: pa.string() for name in clock_columns(header.names)}
    options = pa_csv.ConvertOptions(
        null_values=NO_VALUE, strings_can_be_null=True, column_types=kinds
    )
    table, ragged = _columns(rows, header, path, options)
    return table.to_pandas(date_as_object=False), ragged


def parse_text(
    rows: bytes, header: Header, path: str | Path, only: int | None = None
) -> tuple[pa.Table, list[tuple[int, str]]]:
    """Columns as the text that stands in the file, named "0", "1", ...; else as `parse`.

    With `only`, that column alone.
    """
    names = [str(i) for i in range(len(header.names))]
    options = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=[] if only is None else [names[only]],
    )
    return _columns(rows, replace(header, names=names), path, options)


def _columns(
    rows: bytes, header: Header, path: str | Path, options: pa_csv.ConvertOptions
) -> tuple[pa.Table, list[tuple[int, str]]]:
    """Columns of one block of text, and the rows of another length."""
    if header.delimiter == " ":
        rows = b"\n".join(_BLANKS.sub(b" ", row.strip()) for row in rows.split(b"\n"))
    ragged: list[tuple[int, str]] = []

    def leave_out(row) -> str:
        ragged.append((row.number + header.rows_from, row.text))
        return "skip"

    if not rows.strip():
        names = options.include_columns or header.names
        nothing = [pa.nulls(0, options.column_types.get(name, pa.null())) for name in names]
        return pa.Table.from_arrays(nothing, names=names), ragged
    try:
        table = pa_csv.read_csv(
            io.BytesIO(rows),
            read_options=pa_csv.ReadOptions(
                use_threads=False,  # rows are numbered only then
                block_size=len(rows) + 1,  # kinds are inferred from one block
                column_names=header.names,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=header.delimiter, invalid_row_handler=leave_out
            ),
            convert_options=options,
        )
        return table, ragged
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} cannot be read as a table: {_reason(error)}") from error


def _content(path: Path) -> bytes:
    if not path.exists():
        raise DataError(f"no such file: {path}; set data.path")
    if path.is_dir():
        raise DataError(f"{path} is a folder; set data.path to a file in it")
    try:
        content = _of_pipe(path) if stat.S_ISFIFO(path.stat().st_mode) else path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; set data.path") from error
    if not content.strip():
        raise DataError(f"{path} is empty; set data.path")
    return content


def _of_pipe(path: Path) -> bytes:
    """Content of a named pipe. Raises DataError when nobody writes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else it waits for a writer for ever
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        if not select.select([pipe], [], [], _WRITER_WITHIN)[0]:
            raise DataError(f"{path} is a pipe into which nothing is written; set data.path")
        os.set_blocking(descriptor, True)
        return pipe.read()


def _parquet(content: bytes, path: str | Path) -> pd.DataFrame:
    try:
        return pa_parquet.read_table(pa.BufferReader(content)).to_pandas(date_as_object=False)
    except UNREADABLE_PARQUET as error:
        raise damaged(path, "Parquet", error) from error


def damaged(path: str | Path, kind: str, error: Exception) -> DataError:
    """Error about a file of a known kind that cannot be read."""
    return DataError(f"{path} is a damaged {kind} file: {_reason(error)}")


def _gunzip(content: bytes, path: str | Path) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, "gzip", error) from error


def _reason(error: Exception) -> str:
    return one_line(error, _LONGEST_REASON)
