"""Compare a model's regimes as a trading rule with buy and hold, on bars after its training.

    hmm-backtest --bars bars.csv --output table.csv --figure strategy.png

A thin command line over `hmm_exp.backtest`: two tables, the invested states and the verdict.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from hmm_exp.command_line import (
    DONE,
    Parser,
    Reading,
    add_model_option,
    add_read_options,
    exit_status,
    figure_file,
    output_file,
    with_read_options,
)
from hmm_exp.files import written_beside

EXAMPLES = """examples:
  hmm-backtest --bars bars.csv
  hmm-backtest --bars bars.csv --output table.csv --figure strategy.png
  hmm-backtest --bars bars.csv --cost-bp 2 --delays 1 --from 2024-06-01
  hmm-backtest --bars bars.csv --model runs:/0a1b2c3d4e5f --target 0.2

Only bars after the model's training and validation are judged; earlier bars of the file warm up the
windows. Invested states, volatility target and thresholds come from the training. Positions are
decided at a close and earn the return of the bar that follows --delays later; cash earns nothing.

exit status: 0 done; 2 bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-backtest",
        description="Compare a model's regimes as a trading rule with buy and hold.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--bars", type=Path, required=True, help="bars: CSV, gzip or Parquet")
    add_model_option(parser, "models:/hmm_regime/Production")
    add(
        "--cost-bp",
        type=_number(0, 1000),
        metavar="BP",
        help="cost of a trade one way, basis points of its value (default: as in training, 10)",
    )
    add(
        "--delays",
        type=_delays,
        metavar="BARS",
        help="bars from a decision to the return that it earns, of those in training "
        "(default: as in training, 1,5)",
    )
    add(
        "--target",
        type=_number(1e-6, 100),
        metavar="VOLATILITY",
        help="yearly volatility of the volatility-targeted rows, such as 0.15 (default: that of "
        "buy and hold in training)",
    )
    add("--from", dest="since", metavar="TIME", help="judge only bars after this (UTC)")
    add("--output", type=output_file, metavar="CSV", help="write the table to this file")
    add(
        "--figure", type=figure_file, metavar="PNG", help="draw wealth and drawdown (or .svg, .pdf)"
    )
    add_read_options(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Judge the strategies, print tables and verdict, write the files; return exit status."""
    from hmm_exp.backtest.backtest import BacktestOptions, backtest_bars
    from hmm_exp.judge.split import instant
    from hmm_exp.judge.strategy_words import differences_shown, in_words, measures_shown
    from hmm_exp.serving.load import find_detector

    since = None if args.since is None else instant(f"--from {args.since}", args.since)
    detector = with_read_options(find_detector(args.model), args)
    options = BacktestOptions(args.cost_bp, args.delays, args.target, since)
    with Reading(detector) as reading:
        found = backtest_bars(detector, reading.bars(args.bars), options)
    if args.figure:
        from hmm_exp import figures
        from hmm_exp.figures.strategy import strategies

        picture = strategies(found.table, found.regimes, detector.labels, subject=detector.name)
        figures.save(picture, args.figure)
    if args.output:
        from hmm_exp.market.iso import write_csv

        with written_beside(args.output) as part:
            write_csv(found.table.rows, part)
    rows = found.table.rows
    tables = [shown(rows).to_string(index=False) for shown in (measures_shown, differences_shown)]
    print(*tables, "\n".join(in_words(rows)), sep="\n\n")
    return DONE


def _number(low: float, high: float) -> Any:
    """Type of an option for a number between bounds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text}: must be {low:g} to {high:,g}")
        return value

    return read


def _delays(text: str) -> tuple[int, ...]:
    """Type of --delays: distinct whole numbers of bars."""
    try:
        delays = tuple(int(part) for part in text.split(","))
    except ValueError:
        delays = ()
    if not delays or min(delays) < 1 or len(set(delays)) < len(delays):
        rule = "must be distinct whole numbers of bars, at least 1, such as 1,5"
        raise argparse.ArgumentTypeError(f"{text!r}: {rule}")
    return delays


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
