"""Build a feature table or lookbacks from a file of OHLCV bars.

A thin command line over `hmm_exp.features`. The table has one row per bar of the finest timeframe:
`timestamp`, then the columns by feature and timeframe. Lookbacks are a folder with a file of bars
for each timeframe.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hmm_exp.command_line import (
    DONE,
    CommaList,
    Parser,
    Reading,
    add_read_options,
    exit_status,
    own_words,
    read_options,
)

if TYPE_CHECKING:
    from hmm_exp.features.recipe import Recipe
    from hmm_exp.market.bars import Bars

EXAMPLE = """examples:
  hmm-features --input bars.csv --bar-stamp open --features v1 \\
      --timeframes 1H,4H,12H,1D --output v1.csv
  hmm-features --input bars.csv --bar-stamp open --timeframes 1H,4H --lookbacks lookbacks/
  hmm-apply --model models:/hmm_regime/Production --lookbacks lookbacks/ --latest

--lookbacks writes 1H.csv, 4H.csv, ... of whole bars, which hmm-apply reads as it reads the bars.
Give the model's timeframes, and the options for reading with which the model was trained. With
--hours only the last bars are written: enough for the windows and for the model's start, else
hmm-apply refuses the folder or its first regimes differ.

exit status: 0 done; 2 bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-features",
        description="Build a feature table or lookbacks from a file of OHLCV bars.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, help="bars: CSV, gzip or Parquet")
    add("--output", type=Path, help="table to write: .csv or .parquet")
    add("--lookbacks", type=Path, metavar="FOLDER", help="folder to write a file per timeframe in")
    add("--hours", type=float, help="length of the lookbacks (default: all bars)")
    add(
        "--features",
        default="v1",
        metavar="SET",
        help="returns, v1, v2, v1v2 or range (default: v1)",
    )
    add(
        "--timeframes",
        nargs="+",
        action=CommaList,
        metavar="TF",
        help="such as 1H,4H,12H,1D; one row per bar of the finest (default: that of the bars)",
    )
    add("--window", type=int, default=20, help="bars in the short windows (default: 20)")
    add("--vwap-hours", type=float, default=720.0, help="window of the VWAP (default: 720)")
    add_read_options(parser, required=True)
    args = parser.parse_args(argv)
    if args.output is None and args.lookbacks is None:
        parser.error("give --output, --lookbacks or both")
    if args.hours is not None and args.lookbacks is None:
        parser.error("--hours needs --lookbacks")
    return args


def run(args: argparse.Namespace) -> list[str]:
    """Read the bars, write the table and the lookbacks; return the lines to print."""
    from hmm_exp.features.build import check_output
    from hmm_exp.features.recipe import Recipe
    from hmm_exp.market.bars import timeframe_name
    from hmm_exp.market.load import read_bars

    if args.output is not None:
        check_output(args.output)
    windows = (args.window, args.vwap_hours)
    needs = Recipe.of_set(args.features, args.timeframes or ["1H"], *windows).needs
    lines: list[str] = []
    with Reading() as reading:
        bars = read_bars(args.input, read_options(args), needs=needs)
        reading.take(bars.report)
        timeframes = args.timeframes or [timeframe_name(bars.step)]
        if args.output is not None:
            lines += _table(bars, Recipe.of_set(args.features, timeframes, *windows), args)
        if args.lookbacks is not None:
            lines += _lookbacks(bars, timeframes, args)
    return lines


def _table(bars: "Bars", recipe: "Recipe", args: argparse.Namespace) -> list[str]:
    """Build and write the feature table; describe it."""
    from hmm_exp.features.build import build_features
    from hmm_exp.features.lost import usable_in_words
    from hmm_exp.market.iso import iso

    table = build_features(bars, recipe)
    table.write(args.output)
    first, last = (iso(table.timestamp.iloc[place]) for place in (0, -1))
    sessions = bars.report["gaps"].get("sessions", False)
    usable = usable_in_words(table, f"{args.features} of {bars.name}", sessions=sessions)
    return [
        f"{table.warmup_rows:,} warm-up rows dropped, {table.n_missing:,} rows kept with empty "
        "cells for missing features",
        own_words(usable),
        f"{args.output}: {len(table):,} rows of {recipe.grid}, {len(recipe.columns)} features, "
        f"{first} to {last}",
    ]


def _lookbacks(bars: "Bars", timeframes: list[str], args: argparse.Namespace) -> list[str]:
    """Build and write the lookbacks; describe each file."""
    import pandas as pd

    from hmm_exp.features.build import bars_in_words
    from hmm_exp.features.lookbacks import build_lookbacks, write_lookbacks

    span = bars.frame.index[-1] - bars.frame.index[0] + bars.step
    hours = span / pd.Timedelta(hours=1) if args.hours is None else args.hours
    lookbacks = build_lookbacks(bars, timeframes, hours)
    args.lookbacks.mkdir(parents=True, exist_ok=True)
    write_lookbacks(lookbacks, args.lookbacks, read_options(args))
    return [f"{args.lookbacks / name}.csv: {bars_in_words(b)}" for name, b in lookbacks.items()]


def build(args: argparse.Namespace) -> int:
    """Write the files and print a summary; return the exit status."""
    print(*run(args), sep="\n")
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(build, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
