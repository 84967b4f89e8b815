"""Build a feature table from a file of OHLCV bars.

A thin command line over `hmm_exp.features`. The table has one row per bar of the finest timeframe:
`timestamp`, then the columns by feature and timeframe.
"""

import argparse
from pathlib import Path

from hmm_exp.command_line import (
    DONE,
    CommaList,
    Parser,
    add_read_options,
    exit_status,
    read_options,
    show_reading,
)

EXAMPLE = """example:
  hmm-features --input bars.csv --bar-stamp open --features v1 \\
      --timeframes 1H,4H,12H,1D --output v1.csv
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-features",
        description="Build a feature table from a file of OHLCV bars.",
        epilog=EXAMPLE,
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, help="bars: CSV, gzip or Parquet")
    add("--output", type=Path, required=True, help="table to write: .csv or .parquet")
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
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> list[str]:
    """Read the bars, build and write the table; return the lines to print."""
    from hmm_exp.features.build import build_features, check_output
    from hmm_exp.features.recipe import Recipe
    from hmm_exp.market.bars import timeframe_name
    from hmm_exp.market.load import read_bars

    check_output(args.output)
    windows = (args.window, args.vwap_hours)
    needs = Recipe.of_set(args.features, args.timeframes or ["1H"], *windows).needs
    bars = read_bars(args.input, read_options(args), needs=needs)
    show_reading(bars.report)
    timeframes = args.timeframes or [timeframe_name(bars.step)]
    recipe = Recipe.of_set(args.features, timeframes, *windows)
    table = build_features(bars, recipe)
    table.write(args.output)
    stamps = table.timestamp.dt.tz_convert(None)
    return [
        f"{args.input}: {len(bars):,} bars, {sum(bars.report['dropped'].values()):,} bad rows "
        f"dropped, {bars.report['gaps'].get('missing_bars', 0):,} bars missing in gaps",
        f"{table.warmup_rows:,} warm-up rows dropped, {table.n_missing:,} rows kept with empty "
        "cells for missing features",
        f"{args.output}: {len(table):,} rows of {recipe.grid}, {len(recipe.columns)} features, "
        f"{stamps.iloc[0]} to {stamps.iloc[-1]} UTC",
    ]


def build(args: argparse.Namespace) -> int:
    """Build the table and print a summary; return the exit status."""
    print(*run(args), sep="\n")
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(build, parse(argv))
