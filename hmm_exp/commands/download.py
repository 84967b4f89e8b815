"""Download closed candles of a crypto exchange into files that training reads.

A thin command line over `hmm_exp.market.exchange`. A file is whole at any time; the same command
again adds the candles that have closed since. Exit status: 0 done; 1 the exchange does not answer;
2 bad input.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hmm_exp.command_line import DONE, REFUSED, CommaList, Parser, exit_status, own_words
from hmm_exp.commands.apply import Progress
from hmm_exp.errors import ConfigError, DataError, DownloadError
from hmm_exp.files import stem_of

if TYPE_CHECKING:
    from hmm_exp.market.candles import CandleFile
    from hmm_exp.market.exchange import Exchange

EXAMPLES = """examples:
  hmm-download --exchange binance --symbol BTC/USDT --timeframe 1h \\
      --since 2020-01-01 --output bars.parquet
  hmm-download --exchange binance --symbol BTC/USDT --timeframe 1h --output bars.parquet
  hmm-download --exchange kraken --symbol BTC/USD ETH/USD --timeframe 1h \\
      --since 2024-01-01 --output lake/         # lake/BTC-USD.parquet, lake/ETH-USD.parquet
  python -m hmm_exp.train -m data=bars data.path=bars.parquet data.bar_stamp=open

The second command adds what has closed since the first one. A download that was interrupted goes
on in the same way. Exchanges, symbols and timeframes have the names of ccxt: BTC/USDT is a spot
market, BTC/USDT:USDT a perpetual. Only public data is asked for, without an account. The command
needs the library: pip install 'hmm_exp[ccxt]'.

exit status: 0 done; 1 the exchange does not answer; 2 bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-download",
        description="Download closed candles of a crypto exchange, or extend a file of them.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--exchange", required=True, metavar="NAME", help="such as binance, kraken or coinbase")
    add("--symbol", required=True, nargs="+", action=CommaList, help="such as BTC/USDT")
    add("--timeframe", required=True, metavar="TF", help="length of a candle, such as 1h or 1d")
    add(
        "--output",
        required=True,
        metavar="PATH",
        help=".parquet or .csv; or a folder, which gets a .parquet file per symbol",
    )
    add("--since", metavar="TIME", help="first open (UTC); needed for a new file")
    add("--until", metavar="TIME", help="latest close (UTC; default: now)")
    add(
        "--url",
        metavar="URL",
        help="scheme and host in place of the exchange's own, such as those of a mirror",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Download every symbol and print a line for each; return the exit status."""
    from hmm_exp.market.candles import CandleFile, Series
    from hmm_exp.market.exchange import Exchange

    since, until = _milliseconds("--since", args.since), _milliseconds("--until", args.until)
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"--until {args.until} is not after --since {args.since}")
    paths = _paths(args)
    of = [Series(args.exchange, symbol, args.timeframe) for symbol in paths]
    files = [CandleFile.open(path, one) for path, one in zip(paths.values(), of, strict=True)]
    for file in files:
        if file.last is None and args.since is None:
            raise ConfigError(f"--since is not set: {file.path} is new and needs it")
    try:
        exchange = Exchange.of(args.exchange, [*paths], args.timeframe, args.url, _note)
        for file in files:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            _download(exchange, file, since, until)
    except DownloadError as error:
        print(f"error: {own_words(f'{args.exchange}: {error}')}", file=sys.stderr)
        return REFUSED
    return DONE


def _download(
    exchange: "Exchange", file: "CandleFile", since: int | None, until: int | None
) -> None:
    """Extend one file and describe it."""
    from hmm_exp.market.iso import iso

    with Progress() as progress:
        new = exchange.download(file, since or 0, until, progress)
    if file.last is None:
        raise DataError(f"{file.series}: the exchange has no closed candle in this time")
    first = file.frame["timestamp"].iloc[0]
    late = since is not None and first.value // 1_000_000 >= since + exchange.step
    print(
        f"{file.path}: {len(file.frame):,} candles of {file.series} ({new:,} new), "
        f"{file.in_words(exchange.step)}"
        + (f"; none from {iso(since * 1_000_000)} to the first" if late and since else ""),
        flush=True,
    )


def _paths(args: argparse.Namespace) -> dict[str, Path]:
    """The file of each symbol."""
    output = Path(args.output)
    symbols = list(dict.fromkeys(args.symbol))
    is_file = output.suffix and not output.is_dir() and not args.output.endswith("/")
    if len(symbols) == 1 and is_file:
        if not output.parent.is_dir():
            raise ConfigError(f"--output {output}: the folder {output.parent} does not exist")
        return {symbols[0]: output}
    if is_file:
        raise ConfigError(f"--output {output}: must be a folder for {len(symbols)} symbols")
    paths = {symbol: output / f"{stem_of(symbol)}.parquet" for symbol in symbols}
    if len(set(paths.values())) < len(paths):
        raise ConfigError(f"--symbol {' '.join(symbols)}: two of them have one file's name")
    return paths


def _milliseconds(option: str, text: str | None) -> int | None:
    """The time of an option."""
    from hmm_exp.judge.split import instant

    return None if text is None else instant(f"{option} {text}", text).value // 1_000_000


def _note(line: str) -> None:
    print(f"note: {own_words(line)}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
