"""A table file as a DataFrame: CSV with any delimiter and preamble, gzip of it, or Parquet.

Nothing is interpreted here beyond numbers and the commonest dates; the words for "no value"
become missing. `Table.about` describes what a file needed: delimiter, preamble, compression.
"""

import gzip
import io
import os
import re
import select
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from hmm_exp.errors import DataError, one_line
from hmm_exp.file_kinds import GZIP, PARQUET, kind_of
from hmm_exp.market.columns import clock_columns
from hmm_exp.market.headers import Header, find_header

NO_VALUE = ("", "null", "NULL", "Null", "NaN", "nan", "NAN", "-nan", "N/A", "n/a", "NA", "<NA>",
            "#N/A", "None", "none", "NaT")  # fmt: skip
_HEADER_WITHIN = 50  # lines
_BLANKS = re.compile(rb"[ \t]+")
_LONGEST_REASON = 150  # characters of a library's words
_WRITER_WITHIN = 5.0  # seconds until a process must write into a pipe
UNREADABLE_PARQUET = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, TypeError)


@dataclass(frozen=True)
class Table:
    """What a file holds, as it stands there.

    Attributes
    ----------
    frame
        The columns under their own names, in the file's order.
    about
        File, format, and for text the delimiter, compression and preamble lines.
    ragged
        Number and text of every row that has not as many fields as the header, left out of `frame`.
    notes
        What was concluded about the header.
    """

    frame: pd.DataFrame
    about: dict
    ragged: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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
    """Raise DataError where the first bytes of a file show another format; it names it."""
    if kind := kind_of(content):
        raise DataError(
            f"{path} is {kind}: a table is CSV, gzip of CSV, or Parquet; convert it, or set "
            "data.path"
        )


def first_lines(content: bytes) -> list[str]:
    """The lines among which a header is looked for."""
    return content[:65536].decode(errors="replace").split("\n")[:_HEADER_WITHIN]


def below(content: bytes, header: Header) -> bytes:
    """The rows below the header of a file."""
    *above, rows = content.split(b"\n", header.rows_from)
    return rows if len(above) == header.rows_from else b""


def layout_of(header: Header) -> dict:
    """What `Table.about` says of a text file."""
    return {
        "format": "csv",
        "delimiter": header.delimiter,
        "preamble_lines": header.line,
        "header_lines": header.n_lines,
    }


def as_utf8(content: bytes) -> bytes:
    """Without a byte order mark, out of UTF-16 as spreadsheets write it, all of it valid."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content.decode("utf-16", errors="replace").encode()
    elif not content.isascii():
        content = content.decode(errors="replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def parse(
    rows: bytes, header: Header, path: str | Path
) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """Columns as numbers, dates or text; a column's kind is judged on the whole of it.

    Returns
    -------
    The frame, and the line numbers and texts of rows with more or fewer fields than the header.
    """
    if header.delimiter == " ":
        rows = b"\n".join(_BLANKS.sub(b" ", row.strip()) for row in rows.split(b"\n"))
    ragged: list[tuple[int, str]] = []

    def leave_out(row) -> str:
        ragged.append((row.number + header.rows_from, row.text))
        return "skip"

    if not rows.strip():
        return pd.DataFrame(columns=header.names), ragged
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
            convert_options=pa_csv.ConvertOptions(
                null_values=NO_VALUE,
                strings_can_be_null=True,
                column_types={name: pa.string() for name in clock_columns(header.names)},
            ),
        )
        return table.to_pandas(date_as_object=False), ragged
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
    """All that is written into a named pipe. Raises DataError where nobody writes."""
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
