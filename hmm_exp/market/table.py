"""A table file as a DataFrame: CSV with any delimiter and preamble, gzip of it, or Parquet.

Nothing is interpreted here beyond numbers and the commonest dates; the words for "no value"
become missing. What a file needed (delimiter, preamble, compression) is told in `Table.about`.
"""

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from hmm_exp.errors import DataError

NO_VALUE = ("", "null", "NULL", "Null", "NaN", "nan", "NAN", "-nan", "N/A", "n/a", "NA", "<NA>",
            "#N/A", "None", "none", "NaT")  # fmt: skip
_HEADER_WITHIN = 50  # lines
_USUAL_DELIMITERS = ",;\t|"
_BLANKS = re.compile(rb"[ \t]+")


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
    """

    frame: pd.DataFrame
    about: dict
    ragged: list[tuple[int, str]] = field(default_factory=list)


def read_table(path: str | Path, is_header: Callable[[list[str]], bool]) -> Table:
    """Read the file at `path`; its header is the first line whose names satisfy `is_header`.

    A file without such a line is read from its first one, for its columns to be reported as
    missing by name. Raises DataError when there is no file, or none that can be read.
    """
    content = _content(Path(path))
    about = {"file": str(path)}
    if content[:4] == b"PAR1":
        return Table(_parquet(content, path), about | {"format": "parquet"})
    if content[:2] == b"\x1f\x8b":
        about["compression"] = "gzip"
        content = _gunzip(content, path)
    frame, layout, ragged = _delimited(_as_utf8(content), is_header, path)
    return Table(frame, about | layout, ragged)


def _content(path: Path) -> bytes:
    if not path.exists():
        raise DataError(f"no such file: {path}; set data.path")
    if path.is_dir():
        raise DataError(f"{path} is a folder; set data.path to a file in it")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; set data.path") from error
    if not content.strip():
        raise DataError(f"{path} is empty; set data.path")
    return content


def _parquet(content: bytes, path: str | Path) -> pd.DataFrame:
    try:
        return pa_parquet.read_table(pa.BufferReader(content)).to_pandas(date_as_object=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is a damaged Parquet file: {_one_line(error)}") from error


def _gunzip(content: bytes, path: str | Path) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is a damaged gzip file: {_one_line(error)}") from error


def _as_utf8(content: bytes) -> bytes:
    """Without a byte order mark, out of UTF-16 as spreadsheets write it, all of it valid."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = content.decode("utf-16", errors="replace").encode()
    elif not content.isascii():
        content = content.decode(errors="replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def _delimited(
    content: bytes, is_header: Callable[[list[str]], bool], path: str | Path
) -> tuple[pd.DataFrame, dict, list[tuple[int, str]]]:
    lines = content[:65536].decode(errors="replace").split("\n")[:_HEADER_WITHIN]
    line, delimiter = _find_header(lines, is_header)
    names = _fields(lines[line], delimiter)
    body = content.split(b"\n", line + 1)[-1] if content.count(b"\n") > line else b""
    if delimiter == " ":
        body = b"\n".join(_BLANKS.sub(b" ", row.strip()) for row in body.split(b"\n"))
    frame, ragged = _parse(body, names, delimiter, path)
    layout = {"format": "csv", "delimiter": delimiter, "preamble_lines": line}
    return frame, layout, [(number + line + 1, text) for number, text in ragged]


def _find_header(lines: list[str], is_header: Callable[[list[str]], bool]) -> tuple[int, str]:
    """Line and delimiter of the header; of the first line where no line is one."""
    for number, line in enumerate(lines):
        for delimiter in _delimiters(line):
            if is_header(_fields(line, delimiter)):
                return number, delimiter
    return 0, max(_delimiters(lines[0]), key=lambda d: len(_fields(lines[0], d)))


def _delimiters(line: str) -> Iterable[str]:
    """Marks that may separate the fields of `line`, the usual ones first, blanks last."""
    marks = {c for c in line if c.isascii() and c.isprintable() and not c.isalnum()} - {" "}
    other = sorted(marks - set(_USUAL_DELIMITERS + "\"'_.<>()"))
    return (*_USUAL_DELIMITERS, *other, " ")


def _fields(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:  # a carriage return in mid-line: no row of a table
        return [line]


def _parse(
    body: bytes, names: list[str], delimiter: str, path: str | Path
) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """Columns as numbers, dates or text; a column's kind is judged on the whole of it."""
    ragged: list[tuple[int, str]] = []

    def leave_out(row) -> str:
        ragged.append((row.number, row.text))
        return "skip"

    if not body.strip():
        return pd.DataFrame(columns=names), ragged
    try:
        table = pa_csv.read_csv(
            io.BytesIO(body),
            read_options=pa_csv.ReadOptions(
                use_threads=False,  # rows are numbered only then
                block_size=len(body) + 1,  # kinds are inferred from one block
                column_names=names,
            ),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=leave_out),
            convert_options=pa_csv.ConvertOptions(null_values=NO_VALUE, strings_can_be_null=True),
        )
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a table: {_one_line(error)}") from error
    return table.to_pandas(date_as_object=False), ragged


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
