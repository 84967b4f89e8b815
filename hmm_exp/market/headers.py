"""Where the columns of a text table get their names: a header line, several, or none.

Exchanges hand out some tables without a header. Their columns are known by number and content:
times that can be read, and prices of which none is above the high or below the low.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError
from hmm_exp.market.columns import is_bars_header, is_features_header
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
    """Names of the columns of a text table.

    Attributes
    ----------
    names
        One for each column.
    delimiter
        Between two fields; a blank stands for any number of blanks.
    line
        Number of lines above the header, or above the rows where there is no header.
    n_lines
        Lines of the header; 0 where the file has none.
    notes
        What was concluded.
    """

    names: list[str]
    delimiter: str
    line: int = 0
    n_lines: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def rows_from(self) -> int:
        """Number of lines above the rows."""
        return self.line + self.n_lines


def find_header(lines: Sequence[str], is_header: Callable[[list[str]], bool]) -> Header:
    """Find the header among the first lines of a file.

    It is the first line whose names satisfy `is_header`; else the columns are named by a known
    layout without header; else the first line counts, for what is missing to be reported by name.

    Raises
    ------
    DataError
        When the header names several instruments, or columns without names can be read in two ways.
    """
    for number, line in enumerate(lines):
        for delimiter in _delimiters(line):
            names = fields_of(line, delimiter)
            if is_header(names):
                return _with_lines_below(Header(names, delimiter, number), lines)
    without = _without_header(lines) if is_header is is_bars_header else None
    return without or _first_line(lines)


def fields_of(line: str, delimiter: str) -> list[str]:
    """Fields of a line without blanks around them."""
    if delimiter == " ":
        return line.split()
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:  # a carriage return in mid-line: no row of a table
        return [line]


def _first_line(lines: Sequence[str]) -> Header:
    delimiter = max(_delimiters(lines[0]), key=lambda d: len(fields_of(lines[0], d)))
    return Header(fields_of(lines[0], delimiter), delimiter)


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
    times = rows["date"] + " " + rows["time"] if "date" in rows else rows.iloc[:, 0]
    with np.errstate(invalid="ignore"):
        inside = (low > 0) & (low <= np.minimum(opens, close)) & (high >= np.maximum(opens, close))
    try:
        read = read_stamps(times).ns != UNREADABLE
    except DataError:  # day and month are told apart later, by all rows
        read = np.ones(len(rows), dtype=bool)
    return bool(inside.all() and read.all())
