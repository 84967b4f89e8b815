"""Compute the regimes of many symbols: `hmm-apply` on a folder, a pattern, a table.

All symbols have one model, or each has its own. A symbol that fails costs only itself: it is named
at the end, and the exit status is 1.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import DONE, REFUSED, own_words
from hmm_exp.commands.panel_files import FolderFiles, regime_files
from hmm_exp.commands.symbols import (
    PanelModels,
    for_each_symbol,
    panel_models,
    symbols_in,
    without,
)

if TYPE_CHECKING:
    import pandas as pd

    from hmm_exp.detector.detector import Detector
    from hmm_exp.detector.files import Newest
    from hmm_exp.market.bars import Bars


def apply_to_panel(args: argparse.Namespace) -> int:
    """Write the regimes of each symbol, print the newest with `--latest`; give the exit status."""
    found = symbols_in(args)
    models = panel_models(args, [one.symbol for one in found])
    used = [models.detectors[one.symbol] for one in found if one.symbol in models.detectors]
    done = _Done()
    with regime_files(args.output, args.long, args.csv, used) as files:
        own = files if isinstance(files, FolderFiles) else None

        def take(symbol: str, detector: "Detector", applied: _Applied) -> None:
            if applied.regimes is not None:
                files.write(symbol, applied.regimes)
            done.add(applied.newest, detector)
            _show(args, symbol, applied)

        for_each_symbol(partial(_apply_to_symbol, own), take, found, models)
    _report(args, done, [one.symbol for one in found], models)
    return REFUSED if models.failed else DONE


@dataclass
class _Applied:
    """What came of a symbol: its newest regime, and all of them if they are to be written."""

    newest: "Newest"
    hint: str | None
    regimes: "pd.DataFrame | None"


def _apply_to_symbol(
    files: FolderFiles | None, symbol: str, detector: "Detector", bars: "Bars"
) -> _Applied:
    """Compute a symbol's regimes, and write them if they go into a file of their own."""
    from hmm_exp.detector.files import apply, check_read
    from hmm_exp.market.reading import unclosed_hint

    regimes: list[Any] = []
    newest, n_read = apply(detector.stream().extend, [(bars, 1.0)], regimes.append)
    check_read(detector, n_read, newest.n_rows)
    if files is not None:
        files.write(symbol, regimes[0])
    return _Applied(newest, unclosed_hint(bars), None if files else regimes[0])


def _show(args: argparse.Namespace, symbol: str, applied: _Applied) -> None:
    """Print the newest regime of a symbol if asked for, and a hint about its last bar."""
    if args.latest:
        print(json.dumps({"symbol": symbol} | applied.newest.to_dict()), flush=True)
    if applied.hint:
        print(f"{symbol}: {applied.hint}", file=sys.stderr)


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
