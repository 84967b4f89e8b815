"""Which column of a table is which, by name: the time, the four prices, the base volume."""

import re
from collections.abc import Sequence

from hmm_exp.errors import DataError
from hmm_exp.market.bars import PRICES

# Best first. Nameless and `index` columns are what a written DataFrame index becomes.
_TIMES = ("unix", "unixtime", "unixtimestamp", "timestamp", "timestamps", "timestampms",
          "timestamputc", "datetime", "datetimeutc", "time", "timeutc", "gmttime", "date",
          "dateutc", "", "index", "unnamed0")  # fmt: skip
_TIMES_OF = {"open": ("opentime", "opentimestamp"), "close": ("closetime", "closetimestamp")}
_QUOTES = {"usd", "usdt", "usdc", "busd", "tusd", "fdusd", "dai", "eur", "gbp", "jpy", "krw",
           "try", "brl", "quote", "currency", "notional", "turnover"}  # fmt: skip
_NOT_TRADED_VOLUME = {"taker", "buy", "sell", "bid", "ask", "ma", "sma", "ema", "average", "avg",
                      "delta", "change", "oscillator", "osc", "log", "weighted", "rvol",
                      "ratio"}  # fmt: skip


def is_bars_header(names: Sequence[str]) -> bool:
    """True for a line that names all four prices."""
    return set(PRICES) <= {_bare(name) for name in names}


def is_features_header(names: Sequence[str]) -> bool:
    """True for a line that names a time and something more."""
    known = {*_TIMES, *_TIMES_OF["open"], *_TIMES_OF["close"]}
    return len(names) > 1 and any(_bare(name) in known for name in names)


def find_prices(names: Sequence[str]) -> dict[str, str]:
    """Columns of open, high, low and close, in any case. Raises DataError naming those missing."""
    found = {price: [name for name in names if _bare(name) == price] for price in PRICES}
    missing = [price for price in PRICES if not found[price]]
    if missing:
        raise DataError(f"no column named {', '.join(missing)}; {_there_are(names)}; set data.path")
    for price, columns in found.items():
        if len(columns) > 1:
            raise DataError(f"{len(columns)} columns are named {price}: {', '.join(columns)}")
    return {price: columns[0] for price, columns in found.items()}


def find_timestamp(names: Sequence[str], bar_stamp: str, chosen: str | None = None) -> str:
    """Column of the stamps: `chosen` (data.timestamp_column), else the best of the usual names.

    Of `open_time` and `close_time` the one that `bar_stamp` speaks of is meant; where only the
    other is there, reading it would shift every bar, so that is refused. Raises DataError.
    """
    if chosen is not None:
        return _chosen(names, chosen, "data.timestamp_column")
    by_name = {_bare(name): name for name in reversed(names)}
    for time in (*_TIMES_OF[bar_stamp], *_TIMES):
        if time in by_name:
            return by_name[time]
    for other in _TIMES_OF["close" if bar_stamp == "open" else "open"]:
        if other in by_name:
            raise DataError(
                f"the only time is {by_name[other]!r} but data.bar_stamp={bar_stamp}; "
                "change it, or name the column in data.timestamp_column"
            )
    raise DataError(f"no column of times; {_there_are(names)}; set data.timestamp_column")


def find_clock(names: Sequence[str], timestamp: str) -> tuple[str, str] | None:
    """Names of a `date` and a `time` column where `timestamp` is one of them and both exist."""
    by_name = {_bare(name): name for name in reversed(names)}
    both = by_name.get("date"), by_name.get("time")
    return (both[0], both[1]) if both[0] and both[1] and timestamp in both else None


def find_volume(names: Sequence[str], chosen: str | None = None, hint: str = "") -> str:
    """Column of the volume in units of the base asset.

    `chosen` (data.volume_column) wins; then a column named volume; then the only one of that kind;
    then the one whose asset stands before another's in `hint`, a text with the symbol in it
    (`ETC/BTC` takes `Volume ETC`); then the only one not in a quote currency. Raises DataError.
    """
    if chosen is not None:
        return _chosen(names, chosen, "data.volume_column")
    plain = [name for name in names if _bare(name) == "volume"] or [
        name for name in names if _bare(name) == "vol"
    ]
    assets = {name: _asset(name) for name in names if _asset(name) is not None}
    ways = (
        plain,
        list(assets),
        [name for name, asset in assets.items() if asset and "base" in asset],
        _first_of_pair(assets, hint),
        [name for name, asset in assets.items() if asset and not asset & _QUOTES],
    )
    if not assets:
        raise DataError(f"no column named volume; {_there_are(names)}; set data.volume_column")
    for columns in ways:
        if len(columns) == 1:
            return columns[0]
    raise DataError(
        f"{len(assets)} volume columns cannot be told apart: {', '.join(assets)}; "
        "name one in data.volume_column"
    )


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> set[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return set(re.findall(r"[a-z0-9]+", apart.lower()))


def _asset(name: str) -> set[str] | None:
    """Words beside "volume" in a name of traded volume; None for any other column."""
    words = _words(name)
    if not words & {"volume", "vol"} or words & _NOT_TRADED_VOLUME:
        return None
    return words - {"volume", "vol"}


def _first_of_pair(assets: dict[str, set[str] | None], hint: str) -> list[str]:
    symbol = _bare(hint)
    known = {name: next(iter(asset)) for name, asset in assets.items() if asset and len(asset) == 1}
    pairs = ((name, a + b) for name, a in known.items() for b in known.values() if a != b)
    return [name for name, pair in pairs if pair in symbol]


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
