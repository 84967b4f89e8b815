"""Write the regimes of bars as they arrive on standard input: `hmm-apply --follow`.

Of one symbol; or of many, each with its own model, in one process. A symbol that fails costs only
itself: it is named, its later bars are left out, and the exit status is 1.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import DONE, REFUSED, Reading, note, own_words, with_read_options
from hmm_exp.commands.panel_files import columns_of, folder_for_symbols, symbol_file
from hmm_exp.commands.progress import Progress
from hmm_exp.commands.symbols import cut_tables, own_models, symbol_bars, symbols_in, without
from hmm_exp.errors import ConfigError, HmmExpError, few

if TYPE_CHECKING:
    from hmm_exp.detector.detector import Detector
    from hmm_exp.detector.panel_stream import PanelStream
    from hmm_exp.detector.pipe import RegimeLines
    from hmm_exp.detector.stream import Regime, Stream
    from hmm_exp.market.panel import PanelSymbol


def apply_to_pipe(args: argparse.Namespace) -> None:
    """Write the regimes of bars as they arrive on standard input."""
    from hmm_exp.detector.pipe import (
        RegimeLines,
        check_fresh,
        follow,
        names_in,
        resumed,
        rewind,
        times_in,
    )
    from hmm_exp.market.iso import iso
    from hmm_exp.serving.load import find_detector

    if args.state is not None and not args.state.parent.is_dir():
        raise ConfigError(f"--state {args.state}: the folder {args.state.parent} does not exist")
    detector = with_read_options(find_detector(args.model), args)
    missing = _missing(args, detector)
    resumes = args.state is not None and args.state.exists()
    if args.output is not None and not resumes:
        check_fresh(args.output)
    if resumes:
        stream = resumed(args.state, detector.stream(missing=missing))
        last = iso(stream.time) if stream.time else "no time yet"
        note(f"{args.state}: resumes after the bar that closed at {last}")
    else:
        with Reading(detector) as reading:
            history = None if args.bars is None else reading.bars(args.bars)
            stream = detector.stream(history, missing)
    headed = resumes if args.output is None else rewind(args.output, stream.latest)
    as_json = args.json or (args.output is not None and args.output.suffix == ".jsonl")
    to: Any = args.output
    with nullcontext(sys.stdout) if to is None else to.open("a", encoding="utf-8") as out:
        names = detector.columns if as_json else names_in(args.output, detector)
        lines = RegimeLines(out, names, as_json, headed, times_in(args.output))

        def refuse(error: Exception) -> None:
            if not _drops(detector):
                raise error
            note(f"skipped: {own_words(error)}")

        def pause() -> None:
            if args.state is not None:
                stream.save(args.state)

        follow(stream, sys.stdin.buffer, lines.write, pause, refuse)


def apply_to_pipe_of_many(args: argparse.Namespace) -> int:
    """Write the regimes of many symbols' bars as they arrive; give the exit status."""
    from hmm_exp.detector.panel_stream import PanelStream, follow_symbols

    for option, path in (("--output", args.output), ("--state", args.state)):
        if path is not None:
            folder_for_symbols(path, option)
    models = own_models(args)
    failed = models.failed
    headed = args.state is not None and any(args.state.glob("*.json"))
    streams = PanelStream(dict(_opened(args, models.detectors, failed)))
    for symbol, error in failed.items():
        note(f"{symbol}: {own_words(error)}")

    def refuse(error: HmmExpError, symbol: str | None) -> bool:
        if symbol in failed:  # from the beginning, and named then
            return True
        if symbol is None and not all(map(_drops, models.detectors.values())):
            raise error
        goes_on = symbol is None or (symbol in streams and _drops(models.detectors[symbol]))
        if not goes_on and symbol in streams:
            failed[str(symbol)] = error
        words = f"{symbol}: {own_words(error)}" if symbol in streams else own_words(error)
        note(f"skipped: {words}" if goes_on else f"{words}; its bars are left out from now on")
        return not goes_on

    def pause() -> None:
        if args.state is not None:
            streams.save(args.state)

    write = _Answers(args, streams, headed).write
    follow_symbols(streams, sys.stdin.buffer, write, pause, refuse, args.symbol_column)
    if failed:
        note(f"error: {len(failed)} of {len({*streams, *failed})} symbols failed: {few(failed)}")
    return REFUSED if failed else DONE


def _opened(
    args: argparse.Namespace, detectors: Mapping[str, "Detector"], failed: dict[str, HmmExpError]
) -> Iterator[tuple[str, "Stream"]]:
    """The stream of each symbol, resumed or after its history."""
    found = symbols_in(args) if args.bars is not None else []
    history = {one.symbol: one for one in found}
    n_resumed = 0
    with cut_tables(found) as cache, Progress("symbols") as progress:
        for place, (symbol, detector) in enumerate(detectors.items(), 1):
            progress.clear()
            try:
                stream = _resumed(args, symbol, detector)
                n_resumed += stream is not None
                yield symbol, stream or _begun(args, symbol, detector, history.get(symbol), cache)
            except HmmExpError as error:
                failed[symbol] = error
            progress(place, place / len(detectors))
    if n_resumed:
        note(f"{args.state}: {n_resumed:,} of {len(detectors):,} symbols resume after their bars")
    for line in without("model", "bars", [s for s in detectors if found and s not in history]):
        note(line)


def _resumed(args: argparse.Namespace, symbol: str, detector: "Detector") -> "Stream | None":
    """The saved stream of a symbol, its output cut after it; None if none is saved."""
    from hmm_exp.detector.panel_stream import state_file
    from hmm_exp.detector.pipe import resumed, rewind

    if args.state is None or not (state := state_file(args.state, symbol)).exists():
        return None
    stream = resumed(state, detector.stream(missing=_missing(args, detector)))
    if args.output is not None:
        rewind(_answer_file(args, symbol), stream.latest)
    return stream


def _begun(
    args: argparse.Namespace,
    symbol: str,
    detector: "Detector",
    place: "PanelSymbol | None",
    cache: Path | None,
) -> "Stream":
    """A new stream of a symbol, after the bars of its history."""
    from hmm_exp.detector.pipe import check_fresh

    if args.output is not None:
        check_fresh(_answer_file(args, symbol))
    with Reading(detector) as reading:
        history = None if place is None else symbol_bars(reading, place, cache)
        return detector.stream(history, _missing(args, detector))


def _missing(args: argparse.Namespace, detector: "Detector") -> str:
    """What a missing bar means."""
    return args.missing or ("gap" if _drops(detector) else "error")


def _drops(detector: "Detector") -> bool:
    """Whether bad rows are left out: as the options of reading say, or as in training."""
    return detector.reading.bad_rows == "drop"


def _answer_file(args: argparse.Namespace, symbol: str) -> Path:
    """The file of a symbol's regimes."""
    return symbol_file(args.output, symbol, "jsonl" if args.json else "csv")


class _Answers:
    """Regimes as lines, on standard output with their symbol or in a file for each symbol."""

    def __init__(self, args: argparse.Namespace, streams: "PanelStream", headed: bool) -> None:
        from hmm_exp.detector.pipe import RegimeLines

        self._args, self._streams = args, streams
        self._own: dict[str, RegimeLines] = {}
        if args.output is None:
            names = columns_of(stream.model for stream in streams.values())
            self._all = RegimeLines(sys.stdout, names, args.json, headed)

    def write(self, symbol: str, regimes: list["Regime"]) -> None:
        """Write the regimes that a bar of a symbol completes."""
        if self._args.output is None:
            self._all.write(regimes, symbol)
        elif regimes:
            self._lines(symbol).write(regimes)

    def _lines(self, symbol: str) -> "RegimeLines":
        from hmm_exp.detector.pipe import RegimeLines, names_in, times_in

        if symbol not in self._own:
            path, model = _answer_file(self._args, symbol), self._streams[symbol].model
            as_json = self._args.json
            names = model.columns if as_json else names_in(path, model)
            headed = path.exists() and path.stat().st_size > 0
            file: Any = _Appended(path)
            self._own[symbol] = RegimeLines(file, names, as_json, headed, times_in(path))
        return self._own[symbol]


@dataclass(frozen=True)
class _Appended:
    """A file that is open only while it is written, so that there may be many."""

    path: Path

    def write(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    def flush(self) -> None:
        """Nothing waits."""
