"""Compute the regimes of many symbols: `hmm-apply` on a folder, a pattern, a table.

All symbols have one model, or each has its own. A symbol that fails costs only itself: it is named
at the end, and the exit status is 1.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import (
    DONE,
    REFUSED,
    CommaList,
    Reading,
    note,
    own_words,
    with_read_options,
)
from hmm_exp.commands.panel_files import FolderFiles, LongFile, regime_files
from hmm_exp.commands.progress import Progress
from hmm_exp.errors import HmmExpError, ModelError

if TYPE_CHECKING:
    import pandas as pd

    from hmm_exp.detector.detector import Detector
    from hmm_exp.detector.files import Newest
    from hmm_exp.market.panel import PanelSymbol

    Pair = tuple[PanelSymbol, Detector]
    Apply = Callable[[Pair], "_Applied"]

_CUT_FROM = 8  # symbols of a long table; for fewer, to read it again is faster than to cut it
# Seconds in this process before others are started, and of work left for which they pay.
_TRIAL, _PAYS_FROM = 1.0, 6.0


def is_panel(args: argparse.Namespace) -> bool:
    """Whether `--bars` names many symbols, by a folder, a pattern or options, or `--model` does."""
    if args.symbols or args.symbol_column or args.symbol_pattern or args.long or args.csv:
        return True
    bars = args.bars
    is_lake = bars is not None and (bars.is_dir() or (has_magic(str(bars)) and not bars.exists()))
    return is_lake or has_many_models(args)


def has_many_models(args: argparse.Namespace) -> bool:
    """Whether `--model` is a pattern: each symbol has its own model."""
    return has_magic(args.model) and not Path(args.model).exists()


def add_symbol_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of symbols."""
    options = parser.add_argument_group(
        "many symbols", "--bars is a folder, a pattern such as 'lake/*.parquet', or a long table"
    )
    add = options.add_argument
    add("--symbols", action=CommaList, nargs="+", metavar="NAME", help="only these")
    add("--symbol-column", metavar="NAME", help="column of symbols, or key of folders key=symbol")
    add("--symbol-pattern", metavar="REGEX", help="its group is the symbol in the name of a file")
    add("--long", action="store_true", help="write one Parquet or CSV file with a column symbol")
    add("--csv", action="store_true", help="write CSV files into the folder, not Parquet")


@dataclass
class PanelModels:
    """The models of symbols.

    Attributes
    ----------
    detectors
        The detector of each symbol that has one.
    failed
        Why another symbol has none, where it should have one.
    """

    detectors: dict[str, "Detector"]
    failed: dict[str, HmmExpError] = field(default_factory=dict)


def apply_to_panel(args: argparse.Namespace) -> int:
    """Write the regimes of each symbol, print the newest with `--latest`; give the exit status."""
    found = symbols_in(args)
    models = panel_models(args, [one.symbol for one in found])
    work = [one for one in found if one.symbol in models.detectors]
    used = [models.detectors[one.symbol] for one in work]
    done = _Done()
    with (
        regime_files(args.output, args.long, args.csv, used) as files,
        _cache(work) as cache,
        Progress("symbols") as progress,
    ):
        apply = partial(_apply_to_symbol, cache, files if isinstance(files, FolderFiles) else None)
        for place, applied in enumerate(_in_order(apply, list(zip(work, used, strict=True))), 1):
            progress.clear()
            try:
                _take(args, applied, files, done)
            except HmmExpError as error:
                models.failed[applied.symbol] = error
            progress(place, place / len(work))
    _report(args, done, [one.symbol for one in found], models)
    return REFUSED if models.failed else DONE


def symbols_in(args: argparse.Namespace) -> list["PanelSymbol"]:
    """The symbols of `--bars`."""
    from hmm_exp.config import DataConfig
    from hmm_exp.config.checks import check_symbols
    from hmm_exp.market.panel import symbols_of

    data = DataConfig(
        kind="panel",
        path=str(args.bars),
        symbols=args.symbols or [],
        symbol_column=args.symbol_column,
        symbol_pattern=args.symbol_pattern,
    )
    check_symbols(data)
    return symbols_of(data)


def panel_models(args: argparse.Namespace, symbols: Sequence[str]) -> PanelModels:
    """The models of symbols, by a pattern, of a pool, or one for all.

    Raises ModelError if there is no model, or none of these symbols.
    """
    from hmm_exp.config.checks import few

    models = own_models(args) if has_many_models(args) else _shared_models(args, symbols)
    models.failed = {name: error for name, error in models.failed.items() if name in symbols}
    if not models.failed and not {*models.detectors} & {*symbols}:
        raise ModelError(
            f"no symbol of {args.bars} has a model of {args.model}: bars are of {few(symbols)}, "
            f"models of {few(models.detectors)}; --symbol-pattern reads symbols from files' names"
        )
    return models


def own_models(args: argparse.Namespace) -> PanelModels:
    """The model of each symbol that has one by the pattern of `--model`."""
    from hmm_exp.config.checks import few
    from hmm_exp.registry.detectors import find_detectors

    found = find_detectors(args.model, args.symbols)
    if found.others:
        note(f"left out, not of one symbol: {few(found.others)}")
    return _read_as_asked(args, found.detectors, {**found.failed})


def _shared_models(args: argparse.Namespace, symbols: Sequence[str]) -> PanelModels:
    """One model for all symbols; of a pool for those that it was trained on."""
    from hmm_exp.detector.detector import Detector
    from hmm_exp.serving.load import find_model

    model = find_model(args.model)
    if isinstance(model, Detector):
        return _read_as_asked(args, dict.fromkeys(symbols, model))
    return _read_as_asked(args, model.detectors)


def _read_as_asked(
    args: argparse.Namespace,
    detectors: Mapping[str, "Detector"],
    failed: dict[str, HmmExpError] | None = None,
) -> PanelModels:
    """The models of the symbols asked for, with the options of reading."""
    failed = failed or {}
    for symbol in args.symbols or ():
        if symbol not in detectors and symbol not in failed:
            failed[symbol] = ModelError(f"{args.model} has no model of this symbol")
    asked = {s: one for s, one in detectors.items() if s in (args.symbols or detectors)}
    return PanelModels({s: with_read_options(one, args) for s, one in asked.items()}, failed)


@dataclass
class _Applied:
    """What came of a symbol: reports of what was read, and its newest regime or the error."""

    symbol: str
    reading: Reading
    regimes: "pd.DataFrame | None" = None  # if they are to be written
    newest: "Newest | None" = None
    hint: str | None = None
    error: HmmExpError | None = None


def _in_order(apply: "Apply", pairs: Sequence["Pair"]) -> Iterator[_Applied]:
    """Answers for the symbols in their order; other processes help where much is left to do."""
    from hmm_exp.parallel import cores

    began = time.monotonic()
    for n_done, pair in enumerate(pairs, 1):
        yield apply(pair)
        spent, rest = time.monotonic() - began, pairs[n_done:]
        if cores() > 1 and spent >= _TRIAL and spent / n_done * len(rest) >= _PAYS_FROM:
            break
    else:
        return
    from joblib import Parallel, delayed

    with Parallel(cores(), return_as="generator", batch_size=1) as run:
        yield from run(delayed(apply)(pair) for pair in rest)


def _apply_to_symbol(cache: Path | None, files: FolderFiles | None, pair: "Pair") -> _Applied:
    """Read a symbol, compute its regimes, and write them if they go into a file of their own."""
    from hmm_exp.detector.files import apply, check_read
    from hmm_exp.market.reading import unclosed_hint

    one, detector = pair
    rows = replace(one.rows, cache=cache) if one.rows else None
    regimes: list[Any] = []
    answer = _Applied(one.symbol, Reading(detector))
    try:
        bars = answer.reading.bars(Path(one.path), name=one.symbol, symbol=rows)
        newest, n_read = apply(detector.stream().extend, [(bars, 1.0)], regimes.append)
        check_read(detector, n_read, newest.n_rows)
    except HmmExpError as error:
        return replace(answer, error=error)
    answer = replace(answer, newest=newest, hint=unclosed_hint(bars))
    if files is None:
        return replace(answer, regimes=regimes[0])
    files.write(one.symbol, regimes[0])
    return answer


@dataclass
class _Done:
    """What was done: symbols, rows, and the symbols by their regime now."""

    n_symbols: int = 0
    n_rows: int = 0
    regimes: Counter[str] = field(default_factory=Counter)

    def add(self, newest: "Newest", detector: "Detector") -> None:
        """Count a symbol."""
        assert newest.row is not None
        self.n_symbols += 1
        self.n_rows += newest.n_rows
        regime = int(newest.row["regime"])
        self.regimes[detector.labels[regime] if regime >= 0 else "undecided"] += 1

    def lines(self) -> list[str]:
        """The regimes now as a table."""
        names = [name for name, _ in self.regimes.most_common()]
        width = max(map(len, [*names, "regime now"]))
        rows = [f"{name:<{width}}  {self.regimes[name]:>7,}" for name in names]
        return [f"{'regime now':<{width}}  symbols", *rows] if rows else []


def _take(
    args: argparse.Namespace, applied: _Applied, files: "FolderFiles | LongFile", done: _Done
) -> None:
    """Show what was read, write a symbol's regimes and print the newest. Raises its error."""
    with applied.reading:
        if applied.error is not None:
            raise applied.error
    newest, detector = applied.newest, applied.reading.detector
    assert newest is not None
    assert detector is not None
    if applied.regimes is not None:
        files.write(applied.symbol, applied.regimes)
    done.add(newest, detector)
    if args.latest:
        print(json.dumps({"symbol": applied.symbol} | newest.to_dict()), flush=True)
    if applied.hint:
        print(f"{applied.symbol}: {applied.hint}", file=sys.stderr)


def _report(
    args: argparse.Namespace, done: _Done, symbols: Sequence[str], models: PanelModels
) -> None:
    """Print what was done, each failed symbol with its reason, and what has no counterpart."""
    n_all = done.n_symbols + len(models.failed)
    lines = done.lines()
    if args.output is not None:
        lines.append(
            f"{args.output}: {done.n_rows:,} rows written, {done.n_symbols} of {n_all} symbols"
        )
    lines += [f"{symbol}: {own_words(error)}" for symbol, error in models.failed.items()]
    with_model = {*models.detectors, *models.failed}
    lines += without("symbol", "model", [name for name in symbols if name not in with_model])
    lines += without("model", "bars", [name for name in models.detectors if name not in symbols])
    if models.failed:
        lines.append(f"error: {len(models.failed)} of {n_all} symbols failed")
    for line in lines:
        print(line, file=sys.stderr)


def without(noun: str, lacks: str, names: Sequence[str]) -> list[str]:
    """A line that names the symbols or models that lack something; none if there are none."""
    from hmm_exp.config.checks import few

    if not names:
        return []
    return [f"{len(names):,} {noun}{'s' * (len(names) > 1)} without {lacks}: {few(names)}"]


@contextmanager
def _cache(found: Sequence["PanelSymbol"]) -> Iterator[Path | None]:
    """A folder in which a long table is cut by symbol, deleted at the end; None for few symbols."""
    if len(found) < _CUT_FROM or found[0].column is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
