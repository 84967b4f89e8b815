"""Find the columns of times, prices and base volume of a table by their names.

Names are unique here: a second column of one name is marked, "time [2]", by `marked`.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError, MissingColumnError, SeveralSeriesError
from hmm_exp.market.bars import OHLCV, PRICES

# Best first. Nameless and `index` columns are what a written DataFrame index becomes.
_TIMES = ("unix", "unixtime", "unixtimestamp", "timestamp", "timestamps", "timestampms",
          "timestamputc", "datetime", "datetimeutc", "dates", "tsevent", "time", "timeutc",
          "gmttime", "localtime", "date", "dateutc", "tradedate", "tradingdate", "dtyyyymmdd",
          "yyyymmdd", "t", "", "index", "unnamed0")  # fmt: skip
_TIMES_OF = {
    "open": ("timeperiodstart", "opentime", "opentimestamp", "timeopen", "timestampopen",
             "opendate", "windowstart", "starttime", "starttimestamp", "start", "begin"),
    "close": ("timeperiodend", "closetime", "closetimestamp", "timeclose", "timestampclose",
              "closedate", "windowend", "endtime", "endtimestamp", "end"),
}  # fmt: skip
_DATES = ("date", "dateutc", "tradedate", "tradingdate", "localdate", "dtyyyymmdd", "yyyymmdd")
_CLOCKS = ("time", "timeutc", "tradetime", "localtime", "clock", "hhmmss", "hhmm", "hour")
_PRICE_NAMES = {
    "open": ("open", "openprice", "priceopen", "pxopen", "1open", "o"),
    "high": ("high", "highprice", "pricehigh", "pxhigh", "2high", "h"),
    "low": ("low", "lowprice", "pricelow", "pxlow", "3low", "l"),
    "close": ("close", "closeprice", "priceclose", "pxlast", "4close", "c", "last"),
}
_SYMBOLS = ("symbol", "ticker", "pair", "instrument", "instrumentname", "productid", "sym",
            "asset", "security", "isin", "coin", "contract", "name", "code", "stock", "exchange",
           "market", "product", "underlying", "permno", "gvkey", "tic", "tscode", "instid",
           "instrumentid", "marketid", "contractname")  # fmt: skip
_GROUPS = {"exchange", "market", "underlying", "product"}  # may hold several symbols
_ENDS_OF_SYMBOLS = {"symbol", "ticker", "isin", "figi", "cusip", "sedol", "ric", "pair",
                    "instrument"}  # fmt: skip
_ZONES = ("timezone", "tz", "zone", "utcoffset", "gmtoffset", "tzoffset")
_INTERVALS = ("interval", "timeframe", "resolution", "granularity", "period", "per", "tf")
_QUOTES = {"usd", "usdt", "usdc", "busd", "tusd", "fdusd", "dai", "eur", "gbp", "jpy", "krw",
           "try", "brl", "quote", "currency", "notional", "turnover"}  # fmt: skip
_NOT_TRADED_VOLUME = {"taker", "buy", "sell", "bid", "ask", "ma", "sma", "ema", "average", "avg",
                      "delta", "change", "oscillator", "osc", "log", "weighted", "rvol",
                      "ratio"}  # fmt: skip
_TRADED = re.compile(r"vol|tick|trades|tradecount|count|amount|turnover|qty|quantity")
_KNOWN = {
    *_TIMES, *_TIMES_OF["open"], *_TIMES_OF["close"], *_DATES, *_CLOCKS, *_SYMBOLS, *_ZONES,
    *_INTERVALS, *(name for names in _PRICE_NAMES.values() for name in names), "price", "vol", "v",
}  # fmt: skip
_MARK = re.compile(r" \[\d+\]$")


def is_bars_header(names: Sequence[str]) -> bool:
    """True for a line that names all four prices, or a time and a close."""
    found = [price for price in PRICES if _prices(names)[price]]
    return len(found) == 4 or ("close" in found and len(names) > 1 and _names_a_time(names))


def is_features_header(names: Sequence[str]) -> bool:
    """True for a line that names a time and another column."""
    return len(names) > 1 and _names_a_time(names)


def is_known(name: str) -> bool:
    """Whether a column of that name may hold a time, a price, a volume or the instrument."""
    return (
        _bare(_MARK.sub("", name)) in _KNOWN or _asset(name) is not None or _ends_as_symbols(name)
    )


def marked(names: Iterable[str]) -> list[str]:
    """The names with a mark on the second and later columns of one name: "time", "time [2]"."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} [{seen[name]}]")
    return unique


def find_prices(names: Sequence[str], needed: Collection[str] = PRICES) -> dict[str, str]:
    """Columns of open, high, low and close, in any case.

    Raises DataError when a needed one is missing, or one exists twice.
    """
    found = _prices(names)
    missing = [price for price in PRICES if price in needed and not found[price]]
    if missing:
        absent = ", ".join(missing)
        line = f"no column named {absent}; {_there_are(names)}"
        if _are_values(names):
            line += "; the first line holds numbers: write a line of names above or in place of it"
        raise MissingColumnError(line, column=absent)
    for price, columns in found.items():
        if len(columns) > 1:
            shown = ", ".join(map(_printable, columns))
            raise DataError(f"{len(columns)} columns are named {price}: {shown}; rename one")
    return {price: columns[0] for price, columns in found.items() if columns}


def find_timestamps(names: Sequence[str], bar_stamp: str, chosen: str | None = None) -> list[str]:
    """Columns that may hold the times, best first; `chosen` (data.timestamp_column) alone.

    Of `open_time` and `close_time` the one that `bar_stamp` names is meant; where only the other
    is there, reading it would shift every bar, so that is refused. Raises DataError.
    """
    if chosen is not None:
        return [_chosen(names, chosen, "data.timestamp_column")]
    found = _called(names, (*_TIMES_OF[bar_stamp], *_TIMES), twins=True)
    if found:
        return found
    for other in times_of_other_stamp(names, bar_stamp):
        raise DataError(
            f"the only time is {other!r} but data.bar_stamp={bar_stamp}; "
            "change it, or name the column in data.timestamp_column"
        )
    raise DataError(f"no column of times; {_there_are(names)}; set data.timestamp_column")


def times_of_other_stamp(names: Sequence[str], bar_stamp: str) -> list[str]:
    """Columns named as times of the bar's other end."""
    return times_of_stamp(names, "close" if bar_stamp == "open" else "open")


def times_of_stamp(names: Sequence[str], bar_stamp: str) -> list[str]:
    """Columns named as times of the bar's open, or of its close."""
    return _called(names, _TIMES_OF[bar_stamp])


def find_clock(names: Sequence[str], timestamp: str) -> tuple[str, str] | None:
    """Names of a date and a clock column where `timestamp` is one of them and both exist."""
    dates, clocks = _called(names, _DATES), _called(names, _CLOCKS)
    if not dates or not clocks or timestamp not in (*dates, *clocks):
        return None
    date = timestamp if timestamp in dates else dates[0]
    return date, timestamp if timestamp in clocks else clocks[0]


def clock_columns(names: Sequence[str]) -> list[str]:
    """Columns of a date and of a clock in a table that has both."""
    both = next(filter(None, (find_clock(names, date) for date in _called(names, _DATES))), ())
    return list(both)


def find_volume(names: Sequence[str], chosen: str | None = None, hint: str = "") -> str:
    """Column of the volume in units of the base asset.

    `chosen` (data.volume_column) wins; then a column named volume; then the only one of that kind;
    then the one whose asset stands before another's in `hint`, lines with the symbol in them
    (`ETC/BTC` takes `Volume ETC`); then the only one not in a quote currency. Raises DataError.
    """
    if chosen is not None:
        return _chosen(names, chosen, "data.volume_column")
    plain = next(filter(None, (_all_called(names, name) for name in ("volume", "vol", "v"))), [])
    assets = {name: _asset(name) for name in names if _asset(name) is not None}
    ways = (
        plain,
        list(assets),
        [name for name, asset in assets.items() if asset and "base" in asset],
        _first_of_pair(assets, hint),
        [name for name, asset in assets.items() if asset and not asset & _QUOTES],
    )
    if not assets and not plain:
        line = f"no column named volume; {_there_are(names)}; set data.volume_column"
        raise MissingColumnError(line, column="volume")
    for columns in ways if len(plain) < 2 else ():
        if len(columns) == 1:
            return columns[0]
    found = plain if len(plain) > 1 else list(assets)
    raise DataError(
        f"{len(found)} volume columns cannot be told apart: {', '.join(map(_printable, found))}; "
        "name one in data.volume_column"
    )


def find_series(names: Sequence[str]) -> dict[str, list[str]]:
    """Columns that name the instrument or the bar's length of each row, by what they name."""
    known = _called(names, _SYMBOLS)
    ends = [name for name in names if _ends_as_symbols(name)]
    symbols = [*known, *(name for name in ends if name not in known)]
    return {"symbol": symbols, "interval": _called(names, _INTERVALS)}


def find_symbols(names: Sequence[str], chosen: str | None = None) -> str | None:
    """Column that names the instrument of each row; `chosen` (data.symbol_column) or by its name.

    Raises DataError when the chosen one is not there.
    """
    if chosen is not None:
        return _chosen(names, chosen, "data.symbol_column")
    found = find_series(names)["symbol"]
    return next((name for name in found if _bare(name) not in _GROUPS), None)


def find_zone(names: Sequence[str]) -> str | None:
    """Column that says in which zone the times of a table are, if any."""
    return next(iter(_called(names, _ZONES)), None)


def may_be_volumes(names: Sequence[str]) -> list[str]:
    """Columns whose name suggests traded amounts, numbers of trades or of ticks."""
    return [
        name
        for name in names
        if _TRADED.search(_bare(name)) and not _words(name) & _NOT_TRADED_VOLUME
    ]


def renamed(columns: dict[str, str]) -> list[str]:
    """A note for each of open, high, low, close and volume that has another name."""
    return [f"{columns[is_]!r} read as {is_}" for is_ in OHLCV if columns.get(is_, is_) != is_]


def _prices(names: Sequence[str]) -> dict[str, list[str]]:
    """All columns of each price; of several names of a price the first known one counts."""
    found = {
        price: next(filter(None, (_all_called(names, name) for name in known)), [])
        for price, known in _PRICE_NAMES.items()
    }
    if not found["close"] and found["open"] and found["high"] and found["low"]:
        found["close"] = _all_called(names, "price")
    return found


def _names_a_time(names: Sequence[str]) -> bool:
    return bool(_called(names, (*_TIMES, *_TIMES_OF["open"], *_TIMES_OF["close"])))


def _called(names: Sequence[str], known: Sequence[str], twins: bool = False) -> list[str]:
    """The first column of each known name, in the order of `known`.

    With `twins` followed by further ones, such as `Time` beside `time`.
    """
    by_name: dict[str, list[str]] = {}
    for name in names:
        by_name.setdefault(_bare(name), []).append(name)
    found = [by_name[name] for name in known if name in by_name]
    return [one for ones in found for one in (ones if twins else ones[:1])]


def _are_values(names: Sequence[str]) -> bool:
    """Whether most names are numbers, as where the first row stands in place of a header."""
    numbers = [name for name in names if re.fullmatch(r"[+-]?\d[\d.,:eE+-]*", name.strip())]
    return len(names) > 1 and len(numbers) > len(names) / 2


def _all_called(names: Sequence[str], known: str) -> list[str]:
    """All columns of a known name, marked ones too."""
    return [name for name in names if _bare(_MARK.sub("", name)) == known]


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> set[str]:
    return set(_in_order(name))


def _ends_as_symbols(name: str) -> bool:
    """Whether a name ends as one of symbols: `local_ticker`, `asset_id`."""
    *words, last = _in_order(name) or [""]
    if last == "id":
        return bool(set(words[-1:]) & set(_SYMBOLS) - _GROUPS - {"name", "code"})
    return last in _ENDS_OF_SYMBOLS


def _in_order(name: str) -> list[str]:
    """Words of a name such as `tickerSymbol` or `ticker_symbol`, in lower case."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z0-9]+", apart.lower())


def _asset(name: str) -> set[str] | None:
    """Words of a name of traded volume without "volume"; None for any other column."""
    words = _words(name)
    if not words & {"volume", "vol"} or words & _NOT_TRADED_VOLUME:
        return None
    return words - {"volume", "vol"}


def _first_of_pair(assets: dict[str, set[str] | None], hint: str) -> list[str]:
    symbols = [_bare(line) for line in hint.splitlines()]
    known = {name: next(iter(asset)) for name, asset in assets.items() if asset and len(asset) == 1}
    pairs = ((name, a + b) for name, a in known.items() for b in known.values() if a != b)
    return [name for name, pair in pairs if any(pair in symbol for symbol in symbols)]


def _chosen(names: Sequence[str], chosen: str, option: str) -> str:
    matches = [name for name in names if name == chosen]
    matches = matches or [name for name in names if name.lower() == chosen.lower()]
    if len(matches) != 1:
        there = "no column" if not matches else f"{len(matches)} columns"
        raise DataError(f"{option}={chosen}: {there} of that name; {_there_are(names)}")
    return matches[0]


def _there_are(names: Sequence[str]) -> str:
    shown = ", ".join(_printable(name) for name in names[:12])
    return f"there are {shown}{' and more' if len(names) > 12 else ''}"


def _printable(name: str) -> str:
    return (name if name.isprintable() else repr(name))[:40] or "(nameless)"


_SHOWN = 4  # values of a column in a message


def tidy(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Give the frame unique text names, with its index of times or with names as columns.

    A column that repeats another of its name is left out; one that differs is marked "[2]". Returns
    the frame, and notes on what was done. Raises DataError when two levels of column names hold
    several instruments.
    """
    if isinstance(frame.columns, pd.MultiIndex):
        frame = _without_instrument(frame)
    if isinstance(frame.index, pd.MultiIndex):
        own = [i for i, name in enumerate(frame.index.names) if name not in frame.columns]
        frame = frame.reset_index(level=own).reset_index(drop=True)
    if isinstance(frame.index, pd.DatetimeIndex) or frame.index.name is not None:
        clash = frame.index.name in frame.columns
        frame = frame.reset_index(drop=clash)
    names = [str(name) for name in frame.columns]
    unique = marked(names)
    if unique == names:
        return frame.set_axis(names, axis=1), []
    return _without_repeats(frame.set_axis(unique, axis=1), names)


def check_one_series(frame: pd.DataFrame) -> None:
    """Raise DataError where a column names more than one instrument or length of a bar."""
    for kind, columns in find_series([str(name) for name in frame.columns]).items():
        for name in columns:
            check_one(kind, name, frame[name].dropna().astype(str))


class OneSeries:
    """A check that consecutive pieces of a table name the same instrument."""

    def __init__(self) -> None:
        self._named: dict[str, str] = {}

    def check(self, frame: pd.DataFrame) -> None:
        """Raise DataError where a piece names another instrument than those before it."""
        check_one_series(frame)
        for kind, columns in find_series([str(name) for name in frame.columns]).items():
            for name in columns:
                values = frame[name].dropna().astype(str)[:1].to_list()
                both = pd.Series([self._named.get(name, *values), *values] if values else [])
                check_one(kind, name, both)
                self._named |= {name: values[0]} if values else {}


def check_one(kind: str, column: str, values: pd.Series) -> None:
    """Raise DataError where a column of symbols or intervals holds several, with their counts."""
    counts = values[values.str.strip() != ""].value_counts(sort=False)
    if len(counts) < 2:
        return
    shown = ", ".join(
        f"{str(value)[:20]} ({count} rows)" for value, count in counts[:_SHOWN].items()
    )
    more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    raise SeveralSeriesError(
        f"{len(counts)} {kind}s in column {column!r}: {shown}{more}; "
        "a file holds one series of bars: keep the rows of one",
        column=column if kind != "interval" else None,
        first=str(counts.index[0]),
    )


def telling_column(frame: pd.DataFrame, stamps: np.ndarray, rows: np.ndarray) -> str | None:
    """A column, without fractions, that differs between rows of one time: maybe several series.

    Parameters
    ----------
    frame
        The table, N rows.
    stamps
        Times of the rows in question, shape (T,).
    rows
        Their places in the table, shape (T,).
    """
    for name in frame.columns:
        if frame[name].dtype.kind == "f":
            continue
        values = frame[name].iloc[rows].astype(str).to_numpy()
        pairs = pd.DataFrame({"stamp": stamps, "value": values})
        few = 1 < pd.Series(values).nunique() <= len(rows) // 2
        if few and not pairs.duplicated().any():
            return str(name)
    return None


def _without_instrument(frame: pd.DataFrame) -> pd.DataFrame:
    """One level of column names out of two, the other of which names the instrument."""
    levels = [frame.columns.get_level_values(i).astype(str) for i in range(frame.columns.nlevels)]
    for place, level in enumerate(levels):
        if set(PRICES) <= {name.lower() for name in level}:
            others = {
                " ".join(parts) for parts in zip(*levels[:place], *levels[place + 1 :], strict=True)
            }
            if len(others) > 1:
                raise DataError(
                    f"{len(others)} symbols in the columns: {', '.join(sorted(others)[:_SHOWN])}; "
                    "a table holds one series of bars: keep the columns of one"
                )
            return frame.set_axis(level, axis=1)
    return frame


def _without_repeats(frame: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The frame without columns that repeat the first of their name."""
    notes, keep = [], []
    for unique, name in zip(frame.columns, names, strict=True):
        if unique != name and frame[unique].equals(frame[name].rename(unique)):
            notes.append(f"a second column {name!r} repeats the first: left out")
        else:
            keep.append(unique)
    return frame[keep], notes
