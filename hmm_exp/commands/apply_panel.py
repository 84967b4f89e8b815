"""Compute the regimes of many symbols: `hmm-apply` on a folder, a pattern, a table.

All symbols have one model, or each has its own. A symbol that fails costs only itself: it is named
at the end, and the exit status is 1.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import DONE, REFUSED, Reading, own_words
from hmm_exp.commands.panel_files import FolderFiles, LongFile, regime_files
from hmm_exp.commands.progress import Progress
from hmm_exp.commands.symbols import (
    PanelModels,
    cut_tables,
    in_order,
    panel_models,
    symbols_in,
    without,
)
from hmm_exp.errors import HmmExpError

if TYPE_CHECKING:
    import pandas as pd

    from hmm_exp.detector.detector import Detector
    from hmm_exp.detector.files import Newest
    from hmm_exp.market.panel import PanelSymbol


def apply_to_panel(args: argparse.Namespace) -> int:
    """Write the regimes of each symbol, print the newest with `--latest`; give the exit status."""
    found = symbols_in(args)
    models = panel_models(args, [one.symbol for one in found])
    work = [one for one in found if one.symbol in models.detectors]
    used = [models.detectors[one.symbol] for one in work]
    done = _Done()
    with (
        regime_files(args.output, args.long, args.csv, used) as files,
        cut_tables(work) as cache,
        Progress("symbols") as progress,
    ):
        apply = partial(_apply_to_symbol, cache, files if isinstance(files, FolderFiles) else None)
        for place, applied in enumerate(in_order(apply, list(zip(work, used, strict=True))), 1):
            progress.clear()
            try:
                _take(args, applied, files, done)
            except HmmExpError as error:
                models.failed[applied.symbol] = error
            progress(place, place / len(work))
    _report(args, done, [one.symbol for one in found], models)
    return REFUSED if models.failed else DONE


@dataclass
class _Applied:
    """What came of a symbol: reports of what was read, and its newest regime or the error."""

    symbol: str
    reading: Reading
    regimes: "pd.DataFrame | None" = None  # if they are to be written
    newest: "Newest | None" = None
    hint: str | None = None
    error: HmmExpError | None = None


def _apply_to_symbol(
    cache: Path | None, files: FolderFiles | None, pair: "tuple[PanelSymbol, Detector]"
) -> _Applied:
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
