"""Bars out of lines of text that a pipe brings, CSV or JSON.

>>> BarLines(detector.reading, "BTC").bar('{"timestamp": "2024-01-01T05:00Z", "open": 1.0, ...}')
"""

import csv
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hmm_exp.detector.model import StreamModel
from hmm_exp.detector.stream import bar_names
from hmm_exp.errors import DataError
from hmm_exp.market.bars import OHLCV
from hmm_exp.market.columns import (
    find_clock,
    find_prices,
    find_series,
    find_symbols,
    find_timestamps,
    find_volume,
    is_bars_header,
)
from hmm_exp.market.options import ReadOptions

_DELIMITERS = ",;\t|"
_MOST_COLUMNS = 1000
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?|\d{4}|\d{6}")


class HeaderError(DataError):
    """The first line names no columns, or not those that the model needs: nothing can be read."""


class Lines:
    """Values by name out of lines of CSV under a header, or of JSON objects, as the first shows.

    Later lines may be headers too, of the same or of other columns. `check` takes the names of a
    header and raises DataError if they cannot be used.
    """

    def __init__(self, check: Callable[[list[str]], Any]) -> None:
        self._check = check
        self._header: list[str] | None = None
        self._is_json = False
        self._delimiter = ","

    def values(self, line: str) -> dict[str, Any] | None:
        """Read a line; None for a blank one and for a header.

        Raises HeaderError if the first line cannot be used, so that no other can; DataError if the
        line cannot be read, or its header lacks a column.
        """
        text = line.strip()
        if not text:
            return None
        return self._of_json(text) if text.startswith("{") else self._of_csv(text)

    def _of_json(self, text: str) -> dict[str, Any]:
        self._is_json = True
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:  # also of numbers with 4,300 digits
            raise DataError(f"{text[:60]!r} is no JSON object: {error}") from None

    def _of_csv(self, text: str) -> dict[str, Any] | None:
        if self._header is None:
            self._begin(text)
            return None
        if "close" in text.lower() and (names := self._header_in(text)):
            if names != self._header:
                self._header = names
                self._check(names)
            return None
        fields = self._fields(text, self._delimiter)
        if len(fields) != len(self._header):
            raise DataError(f"{text[:60]!r} has {len(fields)} fields, not {len(self._header)}")
        return dict(zip(self._header, fields, strict=True))

    def _begin(self, text: str) -> None:
        """Take the first line of CSV for the header."""
        if self._is_json:
            raise DataError(f"{text[:60]!r} is no JSON object")
        names = self._header_in(text)
        if names is None:
            raise HeaderError(
                f"{text[:60]!r} names no columns: send a header such as "
                "timestamp,open,high,low,close,volume first, or JSON objects"
            )
        try:
            self._check(names)
        except DataError as error:
            raise HeaderError(str(error)) from None
        self._header = names

    def _header_in(self, text: str) -> list[str] | None:
        """Names of a line that is a header; its delimiter is that of the lines after it."""
        for delimiter in _DELIMITERS:
            try:
                names = self._fields(text, delimiter)
            except DataError:
                return None
            if is_bars_header(names):
                self._delimiter = delimiter
                return names
        return None

    def _fields(self, text: str, delimiter: str) -> list[str]:
        try:
            return [field.strip() for field in next(csv.reader([text], delimiter=delimiter))]
        except csv.Error as error:
            raise DataError(f"{text[:60]!r} is no line of CSV: {error}") from None


class BarLines:
    """Bars out of lines of text, CSV or JSON, or out of the values of a line.

    `reading` names the columns of the times and the volume; the instrument's `name` tells the base
    asset's volume from another; columns outside `needs` may be absent. `names` are the keys of the
    bars, those that a stream with this reading takes.
    """

    def __init__(self, reading: ReadOptions, name: str, needs: Collection[str] = OHLCV) -> None:
        self.names = bar_names(reading)
        self._reading, self._name, self._needs = reading, name, needs
        self._lines = Lines(self._find_places)
        self._places: dict[str, str] = {}  # column of every name
        self._columns: tuple[str, ...] | None = None  # among which they were found
        self._clock: tuple[str, str] | None = None  # a date and a clock that make up the time
        self._series: dict[str, Any] = {}  # what symbol and interval columns hold

    def bar(self, line: str) -> dict[str, Any] | None:
        """Read a line; None for a blank one and for a header.

        Raises HeaderError if the first line cannot be used, so that no other can; DataError if the
        line is no bar, or its header lacks a column.
        """
        values = self._lines.values(line)
        return None if values is None else self.bar_of(values)

    def bar_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The bar of a line's values. Raises DataError if they are of no bar, or of another one."""
        if tuple(values) != self._columns:
            self._find_places(list(values))
        self._check_series(values)
        bar = {name: values[column] for name, column in self._places.items()}
        if self._clock is not None:
            date, clock = (str(values[column]) for column in self._clock)
            bar[self.names[0]] = f"{date} {clock}" if _CLOCK.fullmatch(clock) else clock
        return bar

    def _find_places(self, names: list[str]) -> None:
        """Find the columns of a bar among names. Raises DataError, now and for lines to come."""
        self._columns = None
        if len(names) > _MOST_COLUMNS:
            raise DataError(f"{len(names):,} columns are more than {_MOST_COLUMNS:,}")
        reading = self._reading
        time = find_timestamps(names, reading.bar_stamp, reading.timestamp_column)[0]
        columns = find_prices(names, self._needs)
        if "volume" in self._needs or reading.volume_column is not None:
            columns["volume"] = find_volume(names, reading.volume_column, self._name)
        for column in (time, *columns.values()):
            if names.count(column) > 1:
                raise DataError(f"{names.count(column)} columns are named {column}")
        keys = dict(zip(OHLCV, self.names[1:], strict=True))
        self._places = {self.names[0]: time} | {keys[role]: c for role, c in columns.items()}
        self._clock = find_clock(names, time)
        self._columns = tuple(names)

    def _check_series(self, values: Mapping[str, Any]) -> None:
        """Raise DataError where a line is of another instrument than the first one."""
        for kind, columns in find_series(list(values)).items():
            for column in columns:
                first = self._series.setdefault(column, values[column])
                if values[column] != first:
                    raise DataError(
                        f"another {kind} in {column!r}: {str(values[column])[:40]!r} after "
                        f"{str(first)[:40]!r}; a stream takes the bars of one"
                    )


class SymbolLines:
    """Bars of many symbols out of lines of text, each with its symbol in a column or under a key.

    Each model reads the bars of its symbol. `column` names the symbols; None finds it by name.
    """

    def __init__(self, models: Mapping[str, StreamModel], column: str | None = None) -> None:
        self._bars = {
            symbol: BarLines(model.reading, symbol, model.recipe.needs)
            for symbol, model in models.items()
        }
        self._column = column
        self._lines = Lines(self._place)
        self._found: tuple[tuple[str, ...], str] = ((), "")  # columns, and the one of the symbols

    def values(self, line: str) -> tuple[str, dict[str, Any]] | None:
        """The symbol and the values of a line; None for a blank one and for a header.

        Raises HeaderError if the first line cannot be used; DataError if this one cannot be read.
        """
        values = self._lines.values(line)
        if values is None:
            return None
        if tuple(values) != self._found[0]:
            self._found = tuple(values), self._place(list(values))
        symbol = str(values[self._found[1]] or "").strip()
        if not symbol:
            raise DataError(f"{line.strip()[:60]!r} has no symbol in {self._found[1]!r}")
        return symbol, values

    def bar(self, symbol: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """The bar of values and its time. Raises DataError if they are of none."""
        lines = self._bars[symbol]
        bar = lines.bar_of(values)
        return bar, bar[lines.names[0]]

    def _place(self, names: list[str]) -> str:
        """The column of the symbols."""
        found = find_symbols(names, self._column)
        if found is None:
            raise DataError(
                f"no column of {', '.join(names)[:60]} names symbols: send one called symbol, or "
                "set data.symbol_column"
            )
        return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name is there twice")
    return values
