"""Bars and regimes as lines of text: CSV under a header, or JSON objects."""

import csv
import json
from typing import IO, Any

import pandas as pd

from hmm_exp.errors import DataError
from hmm_exp.market.columns import find_prices, find_timestamp, find_volume, is_bars_header
from hmm_exp.stream.live import Regime

_DELIMITERS = ",;\t|"


class BarLines:
    """Bars out of lines of text, CSV or JSON as the first line shows.

    Parameters
    ----------
    stamp, name
        Of the bars, to tell the columns of times and of the base asset's volume.
    """

    def __init__(self, stamp: str, name: str) -> None:
        self._stamp, self._name = stamp, name
        self._header: list[str] | None = None
        self._delimiter = ","
        self._columns: dict[str, str] = {}
        self._keys: tuple[str, ...] = ()

    def bar(self, line: str) -> dict[str, Any] | None:
        """Read a line; None for a blank one and for the header. Raises DataError."""
        text = line.strip()
        if not text:
            return None
        values = self._of_json(text) if text.startswith("{") else self._of_csv(text)
        if values is None:
            return None
        if tuple(values) != self._keys:
            self._columns, self._keys = self._places(list(values)), tuple(values)
        return {name: values[column] for name, column in self._columns.items()}

    def _of_json(self, text: str) -> dict[str, Any]:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{text[:60]!r} is no JSON object: {error}") from None

    def _of_csv(self, text: str) -> dict[str, Any] | None:
        if self._header is None:
            self._header = self._read_header(text)
            return None
        fields = self._fields(text, self._delimiter)
        if fields == self._header:
            return None  # files after one another
        if len(fields) != len(self._header):
            raise DataError(f"{text[:60]!r} has {len(fields)} fields, not {len(self._header)}")
        return dict(zip(self._header, fields, strict=True))

    def _read_header(self, text: str) -> list[str]:
        for delimiter in _DELIMITERS:
            names = self._fields(text, delimiter)
            if is_bars_header(names):
                self._delimiter = delimiter
                return names
        raise DataError(
            f"{text[:60]!r} names no columns: send a header such as "
            "timestamp,open,high,low,close,volume first, or JSON objects"
        )

    def _fields(self, text: str, delimiter: str) -> list[str]:
        return [field.strip() for field in next(csv.reader([text], delimiter=delimiter))]

    def _places(self, names: list[str]) -> dict[str, str]:
        stamp = {"timestamp": find_timestamp(names, self._stamp)}
        return stamp | find_prices(names) | {"volume": find_volume(names, None, self._name)}


class RegimeLines:
    """Regimes as lines of text: CSV under a header, or JSON objects.

    Parameters
    ----------
    file
        Where lines go; `pause` flushes it.
    n_states
        For the header.
    as_json
        JSON objects in place of CSV.
    headed
        Whether the header is there already.
    """

    def __init__(self, file: IO[str], n_states: int, as_json: bool, headed: bool) -> None:
        self._file, self._as_json = file, as_json
        probs = [f"p_state_{k}" for k in range(n_states)]
        self._names = ["timestamp", "available_at", "state", "label", *probs]
        if not headed and not as_json:
            file.write(",".join(self._names) + "\n")

    def write(self, regimes: list[Regime]) -> None:
        """Write a line for each regime and flush."""
        for regime in regimes:
            times = (_moment(regime.timestamp), _moment(regime.available_at))
            values = (*times, regime.state, regime.label, *regime.probs)
            if self._as_json:
                line = json.dumps(dict(zip(self._names, values, strict=True)))
            else:
                line = ",".join(map(str, values))
            self._file.write(line + "\n")
        self._file.flush()


def _moment(time: pd.Timestamp) -> str:
    text = time.strftime("%Y-%m-%d %H:%M:%S")
    return text if time.value % 1_000_000_000 == 0 else time.tz_localize(None).isoformat(sep=" ")
