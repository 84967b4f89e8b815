"""Compute the regimes of new bars with a stored model, from file to file or in a pipe.

Probabilities are filtered: each row uses only bars up to its own. Exit status: 0 done; 1 some of
many symbols failed; 2 bad input, with one line on standard error.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hmm_exp.command_line import (
    DONE,
    Parser,
    Reading,
    add_model_option,
    add_read_options,
    exit_status,
    note,
    with_read_options,
)
from hmm_exp.commands.apply_panel import apply_to_panel
from hmm_exp.commands.apply_stream import apply_to_pipe, apply_to_pipe_of_many
from hmm_exp.commands.progress import Progress
from hmm_exp.commands.symbols import add_symbol_options, has_many_models, names_symbols
from hmm_exp.errors import DataError, SeveralSeriesError

EXAMPLES = """examples:
  hmm-apply --model models:/hmm_regime/Production --bars new.csv --latest
  hmm-apply --model models:/hmm_regime/Production --bars new.csv \\
      --output regimes.csv
  hmm-apply --model runs:/0a1b2c3d4e5f --features-csv v1.csv --output regimes.csv
  hmm-apply --model ./model --lookbacks lookbacks/ --latest     # by hmm-features --lookbacks
  hmm-apply --model 0a1b2c3d --bars new.csv --join table.csv --output joined.csv
  hmm-apply --model 0a1b2c3d --bars 'lake/*.parquet' --output regimes/    # a file per symbol
  hmm-apply --model 0a1b2c3d --bars long.csv --symbol-column symbol --latest
  feed | hmm-apply --model models:/hmm_regime/Production --follow \\
      --bars history.csv --state stream.json >> regimes.csv

--join gives each row of a table the last regime that was known when the row was known, in columns
regime_state, regime_label, regime_p_state_0, ... A time of the table is the instant at which its
row is known, unless bars are stamped open (--bar-stamp) and the table has the step of the model's
rows: then a time is a row's start, and the row is known one step later. --join-stamp decides
otherwise. Rows before the first regime stay empty; regime_available_at shows how old a regime is.

Many symbols: --output is a folder, and gets <symbol>.parquet for each; with --long it is one
.parquet file. --latest prints one line per symbol. A symbol that cannot be read is named at the
end, and the exit status is 1.

--follow reads bars from standard input (CSV with a header, or one JSON object per line) and
writes a regime for each bar that closes. With --state it saves its state whenever the input
pauses. Started again, it resumes from there with identical results and without --bars; the feed
may repeat bars already processed, and they are skipped. An --output file holds each row once;
standard output may repeat the last rows before a kill.
With --bad-rows drop, an unreadable line is skipped with a note on standard error. An unreadable
header always stops the command.

exit status: 0 done; 1 a symbol could not be read; 2 bad input
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-apply",
        description="Compute the regimes of new bars with a stored model.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add_model_option(parser)
    add("--bars", type=Path, help="bars: CSV, gzip or Parquet; with --follow the history")
    add("--features-csv", type=Path, metavar="FILE", help="precomputed features")
    add("--lookbacks", type=Path, metavar="FOLDER", help="bars per timeframe: 1H.csv, 4H.csv, ...")
    add("--output", type=Path, metavar="CSV", help="file for the regimes (--follow: or .jsonl)")
    add("--latest", action="store_true", help="print the newest bar's regime as JSON")
    add("--follow", action="store_true", help="read bars from standard input as they close")
    add("--json", action="store_true", help="with --follow: write JSON lines, not CSV")
    add("--state", type=Path, metavar="JSON", help="with --follow: save state, resume from it")
    add(
        "--missing",
        choices=("error", "gap"),
        help="with --follow: treat missing bars as an error or as a gap (default: error; gap with "
        "--bad-rows drop)",
    )
    _add_join_options(parser)
    symbols = add_symbol_options(parser)
    symbols.add_argument(
        "--long", action="store_true", help="write one Parquet or CSV file with a column symbol"
    )
    symbols.add_argument(
        "--csv", action="store_true", help="write CSV files into the folder, not Parquet"
    )
    add_read_options(parser)
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    if _is_panel(args):
        return apply_to_pipe_of_many(args) if args.follow else apply_to_panel(args)
    try:
        apply_to_pipe(args) if args.follow else apply_to_files(args)
    except SeveralSeriesError as error:
        if error.column is None or args.bars is None or args.follow:
            raise
        column = shlex.quote(error.column)
        raise DataError(f"{error}, or --symbol-column {column} reads each") from None
    return DONE


def apply_to_files(args: argparse.Namespace) -> None:
    """Write the regimes of a file of bars or features, or of a folder of lookbacks."""
    from hmm_exp.detector.files import apply, check_read
    from hmm_exp.serving.load import find_detector

    detector = with_read_options(find_detector(args.model), args)
    hints: list[str] = []
    reading = Reading(detector)
    extend, chunks = _source(args, reading, hints)
    to = _regime_file(args.output) if args.join is None else _joined_file(args, detector)
    with reading, Progress() as progress, to as write:
        newest, n_read = apply(extend, chunks, write, progress)
        check_read(detector, n_read, newest.n_rows, of_bars=args.bars is not None)
    if args.latest:
        print(json.dumps(newest.to_dict()))
    if args.output is not None and args.join is None:
        note(f"{args.output}: {newest.n_rows:,} rows written from {n_read:,} rows read")
    for hint in hints:
        note(hint)


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if _is_panel(args):
        _check_panel(parser, args)
    given = [args.bars, args.features_csv, args.lookbacks].count(None)
    if args.follow:
        if args.features_csv or args.lookbacks or args.latest or args.join:
            parser.error("--follow takes only --bars (the history), --output and --state")
        return
    if args.state or args.json:
        parser.error("--state and --json need --follow")
    if given != 2:
        parser.error("give one of --bars, --features-csv and --lookbacks, or --follow")
    if args.join and args.output is None:
        parser.error("--join needs --output, the file for the joined table")
    if args.output is None and not args.latest:
        parser.error("give --output, --latest or both")


def _is_panel(args: argparse.Namespace) -> bool:
    """Whether many symbols are meant."""
    return names_symbols(args) or args.long or args.csv


def _check_panel(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that do not go with many symbols."""
    if args.follow and (args.long or args.csv or not has_many_models(args)):
        parser.error(
            "--follow of many symbols needs a --model of each, such as "
            "'models:/hmm_regime.*/Production', and takes only --bars, --output and --state"
        )
    if (args.bars is None and not args.follow) or args.join or args.lookbacks or args.features_csv:
        parser.error("many symbols are read with --bars alone, and written by --output or --latest")


def _source(
    args: argparse.Namespace, reading: Reading, hints: list[str]
) -> tuple[Callable[[Any], Any], Iterable[tuple[Any, float]]]:
    """The function that processes the chunks, and the chunks, which at their end give hints."""
    from hmm_exp.detector.files import RowStream
    from hmm_exp.features.lookbacks import lookback_table, read_lookbacks
    from hmm_exp.market.load import bar_chunks, feature_chunks

    detector: Any = reading.detector
    stream = detector.stream()
    options = detector.reading
    if args.bars is not None:
        chunks = bar_chunks(args.bars, options, detector.step, needs=detector.recipe.needs)
        return stream.extend, _watched(chunks, reading, hints)
    if args.features_csv is not None:
        rows = feature_chunks(args.features_csv, options, on_report=_taken_by(reading))
        return RowStream(stream.model).extend, rows
    recipe = detector.recipe
    lookbacks = read_lookbacks(args.lookbacks, recipe.timeframes, options, recipe.needs)
    for bars in lookbacks.values():
        reading.take(bars.report)
    table = lookback_table(lookbacks, recipe)
    return detector.filter, [(table, 1.0)]


def _watched(
    chunks: Iterable[tuple[Any, float]], reading: Reading, hints: list[str]
) -> Iterator[tuple[Any, float]]:
    """Pass the chunks on; take the report of the first and a hint about the last bar."""
    from hmm_exp.market.reading import unclosed_hint

    bars = None
    for chunk, share in chunks:
        if bars is None:
            _taken_by(reading)(chunk.report, share)
        bars = chunk
        yield bars, share
    if bars is not None and (hint := unclosed_hint(bars)):
        hints.append(hint)


def _taken_by(reading: Reading) -> Callable[[dict[str, Any], float], None]:
    """What takes the report of a file, or of its first part."""

    def take(report: dict[str, Any], share: float) -> None:
        reading.take(report if share == 1 else report | {"part": f"first {share:.0%}"})

    return take


@contextmanager
def _regime_file(path: Path | None) -> Iterator[Callable[[Any], None]]:
    """A writer of regimes into a file that exists only when complete; without a path, a no-op."""
    from hmm_exp.detector.files import RegimeFile

    if path is None:
        yield lambda frame: None
        return
    with RegimeFile(path) as file:
        yield file.write


def _add_join_options(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("joining to a table")
    add = options.add_argument
    add("--join", type=Path, metavar="FILE", help="table that gets the regimes: CSV or Parquet")
    add("--prefix", default="regime_", help="of the new columns' names (default: regime_)")
    add(
        "--join-stamp",
        choices=("open", "close"),
        help="whether times in the table mark a row's start (it is known one step later) or the "
        "instant at which it is known (default: as --bar-stamp if the table has the step of the "
        "model's rows, else close)",
    )
    add("--join-column", metavar="NAME", help="the table's times (default: found by name)")


@contextmanager
def _joined_file(args: argparse.Namespace, detector: Any) -> Iterator[Callable[[Any], Any]]:
    """A collector of regimes, which are joined to the table and written at the end."""
    import pandas as pd

    from hmm_exp.detector.files import RegimeFile
    from hmm_exp.detector.join import join_regimes, read_rows

    stamp = args.join_stamp or detector.reading.bar_stamp
    reading = replace(detector.reading, bar_stamp=stamp, timestamp_column=args.join_column)
    try:
        table = read_rows(args.join, reading, None if args.join_stamp else detector.row_step)
    except DataError as error:
        text = str(error).replace("data.timestamp_column", "--join-column")
        text = text.replace("data.bar_stamp", "--join-stamp").removeprefix(f"{args.join}: ")
        raise DataError(f"{args.join}: {text}") from None
    chunks: list[pd.DataFrame] = []
    with RegimeFile(args.output) as file:
        yield chunks.append
        regimes = pd.concat([chunk for chunk in chunks if len(chunk)])
        joined = join_regimes(table, regimes, args.prefix)
        file.write(joined)
    n_empty = int(joined[f"{args.prefix}state"].isna().sum())
    note(f"{args.join}: {table.in_words}; --join-stamp decides")
    note(f"{args.output}: {len(joined):,} rows written, {n_empty:,} before the first regime")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
