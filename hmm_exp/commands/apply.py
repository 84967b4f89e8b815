"""Regimes for new bars, by a promoted model: a file in, a file out, or a pipe.

Filtered probabilities only: each row rests on bars up
to its own. Exit status: 0 done; 2 bad input, with one line on standard error.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hmm_exp.command_line import (
    DONE,
    Parser,
    add_read_options,
    exit_status,
    own_words,
    show_reading,
    with_read_options,
)

EXAMPLES = """examples:
  hmm-apply --model models:/hmm_regime/Production --bars new.csv --latest
  hmm-apply --model models:/hmm_regime/Production --bars new.csv \\
      --output regimes.csv
  hmm-apply --model runs:/0a1b2c3d4e5f --features-csv v1.csv --output regimes.csv
  hmm-apply --model ./model --lookbacks lookbacks/ --latest
  feed | hmm-apply --model models:/hmm_regime/Production --follow \\
      --bars history.csv --state stream.json >> regimes.csv

--follow reads bars from standard input, CSV under a header or JSON objects one a line, and writes
a regime for each bar that closes. With --state it saves where it is whenever the input pauses;
killed and started again it goes on with the same bits, without --bars. The feed may then begin at
any bar up to the one after the last taken: what was taken is left out. With --output the file
holds each row once; on standard output the last rows before a kill may come again.
With --bad-rows drop a line that is no bar is left out with a line on standard error, whatever it
holds; only a first line that is no header ends it, since no other can be read without one.
"""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-apply",
        description="Regimes for new bars, by a promoted model.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--model", required=True, help="models:/..., runs:/..., a run's id, a folder or a file")
    add("--bars", type=Path, help="bars: CSV, gzip or Parquet; with --follow the history")
    add("--features-csv", type=Path, metavar="FILE", help="feature rows that are ready")
    add("--lookbacks", type=Path, metavar="FOLDER", help="bars per timeframe: 1H.csv, 4H.csv, ...")
    add("--output", type=Path, metavar="CSV", help="regimes to write (.jsonl with --follow too)")
    add("--latest", action="store_true", help="print the newest bar's regime as JSON")
    add("--follow", action="store_true", help="bars from standard input, regimes as they close")
    add("--json", action="store_true", help="JSON lines from --follow in place of CSV")
    add("--state", type=Path, metavar="JSON", help="where --follow saves its state and goes on")
    add(
        "--missing",
        choices=("error", "gap"),
        help="a bar of --follow that is not one step on is an error, or follows a gap (default: "
        "error; gap where bad rows are dropped, each of which leaves one)",
    )
    add_read_options(parser)
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def run(args: argparse.Namespace) -> int:
    """Do what was asked; gives the exit status."""
    apply_to_pipe(args) if args.follow else apply_to_files(args)
    return DONE


def apply_to_files(args: argparse.Namespace) -> None:
    """Regimes of a file of bars or features, or of a folder of lookbacks."""
    from hmm_exp.detector.files import apply
    from hmm_exp.serving.lookup import find_detector

    detector = with_read_options(find_detector(args.model), args)
    extend, chunks = _source(args, detector)
    with Progress() as progress, _regime_file(args.output) as write:
        newest, n_read = apply(extend, chunks, write, progress)
        _check_read(args, detector, n_read, newest.n_rows)
    if args.latest:
        print(json.dumps(newest.to_dict()))
    if args.output is not None:
        _tell(f"{args.output}: {newest.n_rows:,} rows from {n_read:,}")


def apply_to_pipe(args: argparse.Namespace) -> None:
    """Regimes of bars as they come on standard input."""
    from hmm_exp.detector.pipe import RegimeLines, check_fresh, follow, resumed, rewind
    from hmm_exp.serving.lookup import find_detector

    detector = with_read_options(find_detector(args.model), args)
    drops = detector.reading.bad_rows == "drop"
    missing = args.missing or ("gap" if drops else "error")
    goes_on = args.state is not None and args.state.exists()
    if args.output is not None and not goes_on:
        check_fresh(args.output)
    if goes_on:
        stream = resumed(args.state, detector.stream(missing=missing))
        _tell(f"{args.state}: going on after the bar complete at {stream.time}")
    else:
        stream = detector.stream(_history(args, detector), missing)
    headed = goes_on if args.output is None else rewind(args.output, stream.latest)
    as_json = args.json or (args.output is not None and args.output.suffix == ".jsonl")
    with _opened(args.output) as out:
        lines = RegimeLines(out, detector.n_states, as_json, headed)

        def refuse(error: Exception) -> None:
            if not drops:
                raise error
            _tell(f"left out: {own_words(error)}")

        def pause() -> None:
            if args.state is not None:
                stream.save(args.state)

        follow(stream, sys.stdin.buffer, lines.write, pause, refuse)


class Progress:
    """One live line on a terminal, rewritten in place and gone at the end; nothing in a pipe."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.began = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, n_rows: int, share: float) -> None:
        """Show how far the file has been read."""
        if self.live:
            left = (time.monotonic() - self.began) * (1 / max(share, 1e-9) - 1)
            text = f"\r\x1b[K{n_rows:,} rows, {share:.0%}, {left:.0f} s left"
            print(text, end="", file=sys.stderr, flush=True)


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    given = [args.bars, args.features_csv, args.lookbacks].count(None)
    if args.follow:
        if args.features_csv or args.lookbacks or args.latest:
            parser.error("--follow goes with --bars (the history), --output and --state alone")
        return
    if args.state or args.json:
        parser.error("--state and --json go with --follow")
    if given != 2:
        parser.error("give one of --bars, --features-csv and --lookbacks, or --follow")
    if args.output is None and not args.latest:
        parser.error("give --output, --latest or both")


def _source(
    args: argparse.Namespace, detector: Any
) -> tuple[Callable[[Any], Any], Iterable[tuple[Any, float]]]:
    """What takes the chunks, and the chunks."""
    from hmm_exp.detector.files import RowStream
    from hmm_exp.features.lookbacks import lookback_table, read_lookbacks
    from hmm_exp.market.load import bar_chunks, feature_chunks

    stream = detector.stream()
    options = detector.reading
    if args.bars is not None:
        chunks = bar_chunks(args.bars, options, detector.step, needs=detector.recipe.needs)
        return stream.extend, _shown(chunks, detector)
    if args.features_csv is not None:
        return RowStream(stream.model).extend, feature_chunks(args.features_csv, options)
    lookbacks = read_lookbacks(args.lookbacks, detector.recipe.timeframes, options)
    table = lookback_table(lookbacks, detector.recipe)
    return detector.filter, [(table, 1.0)]


def _shown(chunks: Iterable[tuple[Any, float]], detector: Any) -> Iterator[tuple[Any, float]]:
    """The chunks, with what the user should know of the reading after the first of them."""
    is_first = True
    for bars, share in chunks:
        if is_first:
            show_reading(bars.report, detector)
        yield bars, share
        is_first = False


def _check_read(args: argparse.Namespace, detector: Any, n_read: int, n_rows: int) -> None:
    """Refuse an answer that rests on too few bars."""
    from hmm_exp.errors import HistoryError
    from hmm_exp.market.bars import step_in_words

    if args.bars is not None and n_read < detector.min_history:
        raise HistoryError(
            f"{n_read:,} bars of {step_in_words(detector.step)} are too few: at least "
            f"{detector.min_history:,} consecutive bars are needed, windows and burn-in included"
        )
    if args.bars is None and n_rows < detector.min_rows:
        raise HistoryError(
            f"{n_rows} rows with their windows filled are too few: at least {detector.min_rows} "
            f"consecutive rows of {detector.recipe.grid} are needed"
        )
    if n_rows == 0:
        raise HistoryError(f"no row of {n_read} has every feature")


@contextmanager
def _regime_file(path: Path | None) -> Iterator[Callable[[Any], None]]:
    """What takes frames of regimes: a file, whole or not at all, or nothing."""
    from hmm_exp.detector.files import RegimeFile

    if path is None:
        yield lambda frame: None
        return
    with RegimeFile(path) as file:
        yield file.write


def _history(args: argparse.Namespace, detector: Any) -> Any:
    """Bars to begin a stream with, if any are given."""
    from hmm_exp.market.load import read_bars

    if args.bars is None:
        return None
    bars = read_bars(args.bars, detector.reading, needs=detector.recipe.needs)
    show_reading(bars.report, detector)
    return bars


def _opened(path: Path | None) -> Any:
    """Where lines go: a file, to be closed, or standard output."""
    return nullcontext(sys.stdout) if path is None else path.open("a", encoding="utf-8")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 2 with one line on standard error when it cannot be done."""
    return exit_status(run, parse(argv))
