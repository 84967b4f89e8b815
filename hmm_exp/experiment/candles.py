"""Download the candles of `data=ccxt` before anything is trained, unless their file exists.

>>> download(config.data)
"""

import sys
from pathlib import Path

from hmm_exp.config import DataConfig
from hmm_exp.errors import DataError, HmmExpError, one_line


def download(data: DataConfig, quiet: bool = False) -> None:
    """Write the file `data.path` if `data.exchange` is set and there is none.

    A file that exists stays as it is, so that a sweep goes on with the bars with which it began. A
    download that was interrupted goes on from where it was.

    Raises
    ------
    ConfigError, DataError, DownloadError, OSError
        As `Exchange.of` and `Exchange.download`; DataError too if no candle has closed.
    """
    path = Path(str(data.path))
    if data.exchange is None:
        return
    if path.exists():
        _note_bounds(path, data, quiet)
        return
    from hmm_exp.market.candles import CandleFile, Series
    from hmm_exp.market.exchange import Exchange

    def tell(line: str) -> None:
        if not quiet:
            print(one_line(line), file=sys.stderr, flush=True)

    names = _names(data)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    file = CandleFile.open(part, Series(*names))
    since, until = _bounds(data)
    assert since is not None
    exchange = Exchange.of(data.exchange, names[1:2], names[2], data.url, tell)
    tell(f"downloading {file.series} to {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    exchange.download(file, since, until)
    if file.last is None:
        raise DataError(f"data.since={data.since}: no candle of {file.series} has closed since")
    part.replace(path)
    tell(f"{path}: {len(file.frame):,} candles, {file.in_words(exchange.step)}")


def _names(data: DataConfig) -> tuple[str, str, str]:
    return str(data.exchange), str(data.symbol), str(data.timeframe)


def _bounds(data: DataConfig) -> tuple[int | None, int | None]:
    """`data.since` and `data.until` in epoch milliseconds."""
    from hmm_exp.judge.split import instant

    since, until = (
        None if time is None else instant(f"data.{name}={time}", time).value // 1_000_000
        for name, time in (("since", data.since), ("until", data.until))
    )
    return since, until


def _note_bounds(path: Path, data: DataConfig, quiet: bool) -> None:
    """Say where the file that is there holds candles outside `data.since` and `data.until`."""
    from hmm_exp.market.candles import CandleFile, Series

    series, (since, until) = Series(*_names(data)), _bounds(data)
    try:
        file = CandleFile.open(path, series)
    except HmmExpError:  # no file of a download: whoever reads it knows its span
        return
    if quiet or file.last is None:
        return
    first = int(file.frame["timestamp"].iloc[0].value // 1_000_000)
    outside = []
    if since is not None and first < since:
        outside.append(f"data.since={data.since}")
    if until is not None and file.last >= until:
        outside.append(f"data.until={data.until}")
    if outside:
        line = f"warning: {path} exists and holds bars outside {' and '.join(outside)}: all of them"
        print(one_line(f"{line} are used; delete it to download anew"), file=sys.stderr, flush=True)
