"""Candles of an exchange: page by page into a file that a later download extends.

>>> for page in candles(fetch, since, step=3_600_000, until=now):
...     file.append(page)

A candle is the list of ccxt: its open in epoch milliseconds (UTC), open, high, low, close, volume.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from hmm_exp.errors import ConfigError
from hmm_exp.files import written_beside
from hmm_exp.market.bars import OHLCV
from hmm_exp.market.files import UNREADABLE_PARQUET, damaged
from hmm_exp.market.gaps import gap_report
from hmm_exp.market.iso import arrow_table, iso, write_csv

SUFFIXES = (".parquet", ".csv")
_COLUMNS = ["timestamp", *OHLCV]
_OF_SERIES = ["exchange", "symbol", "timeframe"]
_STAMP = pa.timestamp("ms", "UTC")
_UNSAVED = 0.05  # of the saved candles: a file of N candles is written about 20 N rows in all
_SMALLEST_PAGE = 100  # candles; no exchange of ccxt has a smaller limit

Candle = list[float]
Fetch = Callable[[int], list[Candle]]


@dataclass(frozen=True)
class Page:
    """New candles in order of time, and how many were delivered again."""

    rows: list[Candle]
    repeated: int = 0


def candles(fetch: Fetch, since: int, step: int, until: int) -> Iterator[Page]:
    """Fetch all closed candles between two times, page by page.

    Some exchanges send an empty page before the listing and in outages, so after a page without new
    candles the next one starts later, by the largest page so far and at least 100 candles.

    Parameters
    ----------
    fetch
        Gives candles that open at a time or later, as many as the exchange gives at once, in any
        order. It may repeat candles, and may give later or earlier ones.
    since
        Earliest open, epoch milliseconds.
    step
        Length of a candle, milliseconds.
    until
        Latest close, epoch milliseconds: a candle that is open then is left out.

    Yields
    ------
    Page
        Candles after all those before. Of two candles with one open, the first one counts.
    """
    begin, largest = since, _SMALLEST_PAGE
    while begin + step <= until:
        rows = fetch(begin)
        closed = [row for row in rows if row[0] >= since and row[0] + step <= until]
        unique = {int(row[0]): row for row in reversed(closed) if row[0] >= begin}
        new = [unique[time] for time in sorted(unique)]
        largest = max(largest, len(new))
        yield Page(new, len(closed) - len(new))
        if rows and min(row[0] for row in rows) + step > until:
            return  # the exchange has none before it
        begin = int(new[-1][0]) + step if new else begin + largest * step


@dataclass(frozen=True)
class Series:
    """What the candles of a file are of.

    Attributes
    ----------
    exchange, symbol, timeframe
        As ccxt names them, such as binance, BTC/USDT and 1h.
    """

    exchange: str
    symbol: str
    timeframe: str

    def __str__(self) -> str:
        return f"{self.exchange} {self.symbol} {self.timeframe}"


@dataclass
class CandleFile:
    """Candles of one series in a Parquet or CSV file, which is whole at any time.

    The file has the columns `timestamp` (a candle's open, UTC), open, high, low, close and volume.
    The exchange, the symbol and the timeframe are metadata in Parquet and columns in CSV.

    Attributes
    ----------
    path
        The file, `.parquet` or `.csv`.
    series
        What it holds.
    frame
        Candles that the file holds.
    repeated
        Number of candles that were delivered again.
    end
        Latest close that a download asked for, epoch milliseconds.
    """

    path: Path
    series: Series
    frame: pd.DataFrame
    repeated: int = 0
    end: int = 0
    _rows: list[Candle] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, series: Series) -> "CandleFile":
        """Read the candles of a file, or begin an empty one.

        Raises
        ------
        ConfigError
            The suffix is unknown, or the file holds something else.
        DataError
            The file cannot be read.
        """
        if path.suffix not in SUFFIXES:
            raise ConfigError(f"{path}: the name must end in {' or '.join(SUFFIXES)}")
        if not path.exists():
            return cls(path, series, _frame([]))
        found, frame = (_of_parquet if path.suffix == ".parquet" else _of_csv)(path)
        if found != series:
            holds = found if found is not None else "no candles of a download"
            raise ConfigError(f"{path} holds {holds}, not {series}: choose another file")
        return cls(path, series, frame)

    @property
    def last(self) -> int | None:
        """Open of the last saved candle, epoch milliseconds; None without one."""
        return None if self.frame.empty else int(_milliseconds(self.frame["timestamp"])[-1])

    def append(self, page: Page) -> None:
        """Add a page; the file is written when a twentieth of it is new."""
        self.repeated += page.repeated
        self._rows += page.rows
        if len(self._rows) > _UNSAVED * len(self.frame):
            self.save()

    def save(self) -> None:
        """Write the file with all candles, if some are new."""
        if self._rows:
            new = _frame(self._rows)
            frame = new if self.frame.empty else pd.concat([self.frame, new], ignore_index=True)
            with written_beside(self.path) as part:
                _write(frame, self.series, part, is_csv=self.path.suffix == ".csv")
            self.frame, self._rows = frame, []

    def in_words(self, step: int) -> str:
        """Span and gaps of the saved candles, for a step in milliseconds."""
        time = _milliseconds(self.frame["timestamp"]) * 1_000_000
        text = f"{iso(time[0])} to {iso(time[-1])}"
        gaps = gap_report(time, step * 1_000_000, "split")
        if gaps["count"]:
            text += (
                f"; {_many(gaps['count'], 'gap')} with "
                f"{_many(gaps['missing_bars'], 'missing candle')}, the longest after "
                f"{gaps['longest_after']} ({_longest_missing(time, step)} missing)"
            )
        after = int(time[-1]) // 1_000_000 + step
        if after + step <= self.end:
            text += f"; none from {iso(after * 1_000_000)} to {iso(self.end * 1_000_000)}"
        return text + (f"; {_many(self.repeated, 'repeated candle')} dropped" * bool(self.repeated))


def _longest_missing(time_ns: np.ndarray, step: int) -> str:
    return f"{int(np.diff(time_ns).max()) // (step * 1_000_000) - 1:,}"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _frame(rows: list[Candle]) -> pd.DataFrame:
    """Candles as a table; a missing number is NaN."""
    values = np.array([row[1:6] for row in rows], dtype=np.float64).reshape(-1, 5)
    frame = pd.DataFrame(values, columns=list(OHLCV))
    opens = np.array([row[0] for row in rows], dtype=np.int64)
    stamps = pd.DatetimeIndex(opens.astype("datetime64[ms]"), tz="UTC")
    frame.insert(0, "timestamp", stamps)
    return frame


def _milliseconds(times: pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("ms").asi8


def _write(frame: pd.DataFrame, series: Series, path: Path, is_csv: bool) -> None:
    if is_csv:
        write_csv(frame.assign(**vars(series)), path)
        return
    table = arrow_table(frame, lambda times: pa.array(_milliseconds(times), _STAMP))
    pq.write_table(table.replace_schema_metadata(vars(series)), path)


def _of_parquet(path: Path) -> tuple[Series | None, pd.DataFrame]:
    try:
        table = pq.read_table(path)
    except UNREADABLE_PARQUET as error:
        raise damaged(path, "Parquet", error) from None
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    names = [about.get(name, "") for name in _OF_SERIES]
    if not all(names) or table.column_names != _COLUMNS or not len(table):
        return None, _frame([])
    return Series(*names), table.to_pandas()


def _of_csv(path: Path) -> tuple[Series | None, pd.DataFrame]:
    kinds = dict.fromkeys(OHLCV, pa.float64()) | dict.fromkeys(_OF_SERIES, pa.string())
    options = pyarrow.csv.ConvertOptions(column_types={"timestamp": _STAMP, **kinds})
    try:
        table = pyarrow.csv.read_csv(path, convert_options=options)
    except pa.ArrowInvalid:  # no such table
        return None, _frame([])
    if table.column_names != [*_COLUMNS, *_OF_SERIES] or not len(table):
        return None, _frame([])
    names = [pc.unique(table[name]).to_pylist() for name in _OF_SERIES]
    if any(len(values) != 1 for values in names):
        return None, _frame([])
    return Series(*(values[0] for values in names)), table.select(_COLUMNS).to_pandas()
