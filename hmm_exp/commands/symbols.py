"""Many symbols on a command line: their bars, their models, and the work on one after the other."""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from hmm_exp.command_line import CommaList, Reading, note, with_read_options
from hmm_exp.commands.progress import Progress
from hmm_exp.errors import HmmExpError, ModelError, counted, few

if TYPE_CHECKING:
    from hmm_exp.detector.detector import Detector
    from hmm_exp.market.bars import Bars
    from hmm_exp.market.panel import PanelSymbol

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

_CUT_FROM = 8  # symbols of a long table; for fewer, to read it again is faster than to cut it
# Seconds in this process before others are started, and of work left for which they pay.
_TRIAL, _PAYS_FROM = 1.0, 6.0


def names_symbols(args: argparse.Namespace) -> bool:
    """Whether `--bars` names many symbols, by a folder, a pattern or options, or `--model` does."""
    if args.symbols or args.symbol_column or args.symbol_pattern:
        return True
    bars = args.bars
    is_lake = bars is not None and (bars.is_dir() or (has_magic(str(bars)) and not bars.exists()))
    return is_lake or has_many_models(args)


def has_many_models(args: argparse.Namespace) -> bool:
    """Whether `--model` is a pattern: each symbol has its own model."""
    return has_magic(args.model) and not Path(args.model).exists()


def add_symbol_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add the options of symbols, and give their group."""
    options = parser.add_argument_group(
        "many symbols", "--bars is a folder, a pattern such as 'lake/*.parquet', or a long table"
    )
    add = options.add_argument
    add("--symbols", action=CommaList, nargs="+", metavar="NAME", help="only these")
    add("--symbol-column", metavar="NAME", help="column of symbols, or key of folders key=symbol")
    add("--symbol-pattern", metavar="REGEX", help="its group is the symbol in the name of a file")
    return options


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


def panel_models(args: argparse.Namespace, symbols: Sequence[str]) -> PanelModels:
    """The models of symbols, by a pattern, of a pool, or one for all.

    Raises ModelError if there is no model, or none of these symbols.
    """
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


def without(noun: str, lacks: str, names: Sequence[str]) -> list[str]:
    """A line that names the symbols or models that lack something; none if there are none."""
    return [f"{counted(len(names), noun)} without {lacks}: {few(names)}"] if names else []


def for_each_symbol(
    work: "Callable[[str, Detector, Bars], Result]",
    take: "Callable[[str, Detector, Result], None]",
    found: "Sequence[PanelSymbol]",
    models: PanelModels,
) -> None:
    """Do the work on the bars of each symbol that has a model, and take the results in order.

    `work` runs in any process, `take` in this one. What was read is shown before each result. A
    symbol that fails in either is added to `models.failed`.
    """
    pairs = [(one, models.detectors[one.symbol]) for one in found if one.symbol in models.detectors]
    with cut_tables([one for one, _ in pairs]) as cache, Progress("symbols") as progress:
        for place, answer in enumerate(in_order(partial(_answer, work, cache), pairs), 1):
            progress.clear()
            try:
                with answer.reading:
                    result = answer.get()
                take(answer.symbol, models.detectors[answer.symbol], result)
            except HmmExpError as error:
                models.failed[answer.symbol] = error
            progress(place, place / len(pairs))


@dataclass
class _Answer(Generic[Result]):
    """What was read of a symbol, and the result of the work on it or its error."""

    symbol: str
    reading: Reading
    result: Result | None = None
    error: HmmExpError | None = None

    def get(self) -> Result:
        """The result. Raises the error."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


def _answer(
    work: "Callable[[str, Detector, Bars], Result]",
    cache: Path | None,
    pair: "tuple[PanelSymbol, Detector]",
) -> _Answer[Result]:
    """Read the bars of a symbol and do the work on them."""
    one, detector = pair
    answer: _Answer[Result] = _Answer(one.symbol, Reading(detector))
    try:
        bars = symbol_bars(answer.reading, one, cache)
        return replace(answer, result=work(one.symbol, detector, bars))
    except HmmExpError as error:
        return replace(answer, error=error)


def symbol_bars(reading: Reading, one: "PanelSymbol", cache: Path | None) -> "Bars":
    """The bars of a symbol, from where its long table is cut if it is."""
    rows = replace(one.rows, cache=cache) if one.rows else None
    return reading.bars(Path(one.path), name=one.symbol, symbol=rows)


def in_order(work: Callable[[Item], Answer], items: Sequence[Item]) -> Iterator[Answer]:
    """Answers for the items in their order; other processes help where much is left to do."""
    from hmm_exp.parallel import cores

    began = time.monotonic()
    for n_done, item in enumerate(items, 1):
        yield work(item)
        spent, rest = time.monotonic() - began, items[n_done:]
        if cores() > 1 and spent >= _TRIAL and spent / n_done * len(rest) >= _PAYS_FROM:
            break
    else:
        return
    from joblib import Parallel, delayed

    with Parallel(cores(), return_as="generator", batch_size=1) as run:
        yield from run(delayed(work)(item) for item in rest)


@contextmanager
def cut_tables(found: Sequence["PanelSymbol"]) -> Iterator[Path | None]:
    """A folder in which a long table is cut by symbol, deleted at the end; None for few symbols."""
    if len(found) < _CUT_FROM or found[0].column is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
