"""Compute the regimes of many symbols with one model: `hmm-apply` on a folder, a pattern, a table.

A symbol that fails costs only itself: it is named at the end, and the exit status is 1.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmm_exp.command_line import (
    DONE,
    REFUSED,
    CommaList,
    Reading,
    own_words,
    with_read_options,
)
from hmm_exp.errors import ConfigError, HmmExpError

if TYPE_CHECKING:
    import pandas as pd

    from hmm_exp.detector.detector import Detector
    from hmm_exp.market.panel import PanelSymbol

    Write = Callable[[str, pd.DataFrame], None]

_CUT_FROM = 8  # symbols of a long table; for fewer, to read it again is faster than to cut it


def is_panel(args: argparse.Namespace) -> bool:
    """Whether `--bars` names many symbols: a folder, a pattern, or with options of symbols."""
    if args.symbols or args.symbol_column or args.symbol_pattern or args.long:
        return True
    bars = args.bars
    return bars is not None and (bars.is_dir() or (has_magic(str(bars)) and not bars.exists()))


def add_symbol_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of symbols."""
    options = parser.add_argument_group(
        "many symbols", "--bars is a folder, a pattern such as 'lake/*.parquet', or a long table"
    )
    add = options.add_argument
    add("--symbols", action=CommaList, nargs="+", metavar="NAME", help="only these")
    add("--symbol-column", metavar="NAME", help="column of symbols, or key of folders key=symbol")
    add("--symbol-pattern", metavar="REGEX", help="its group is the symbol in the name of a file")
    add("--long", action="store_true", help="write one Parquet file with a column symbol")


def apply_to_panel(args: argparse.Namespace) -> int:
    """Write the regimes of each symbol, print the newest with `--latest`; give the exit status."""
    from hmm_exp.serving.load import find_detector

    detector = with_read_options(find_detector(args.model), args)
    found = _symbols(args)
    failed: dict[str, HmmExpError] = {}
    n_rows = 0
    with _output(args) as write, _cache(found) as cache:
        for one in found:
            try:
                n_rows += _apply_to_symbol(args, detector, one, cache, write)
            except HmmExpError as error:
                failed[one.symbol] = error
    _report(args, len(found), n_rows, failed)
    return REFUSED if failed else DONE


def _symbols(args: argparse.Namespace) -> list["PanelSymbol"]:
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


def _apply_to_symbol(
    args: argparse.Namespace,
    detector: "Detector",
    one: "PanelSymbol",
    cache: Path | None,
    write: "Write",
) -> int:
    """Read a symbol, write its regimes and print the newest one; gives the number of rows."""
    from hmm_exp.detector.files import apply, check_read
    from hmm_exp.market.reading import unclosed_hint

    rows = replace(one.rows, cache=cache) if one.rows else None
    regimes: list[Any] = []
    with Reading(detector) as reading:
        bars = reading.bars(Path(one.path), name=one.symbol, symbol=rows)
        newest, n_read = apply(detector.stream().extend, [(bars, 1.0)], regimes.append)
        check_read(detector, n_read, newest.n_rows)
    write(one.symbol, regimes[0])
    if args.latest:
        print(json.dumps({"symbol": one.symbol} | newest.to_dict()), flush=True)
    if hint := unclosed_hint(bars):
        print(f"{one.symbol}: {hint}", file=sys.stderr)
    return newest.n_rows


def _report(
    args: argparse.Namespace, n_found: int, n_rows: int, failed: dict[str, HmmExpError]
) -> None:
    """Print what was written, then each failed symbol with its reason."""
    lines = [f"{symbol}: {own_words(error)}" for symbol, error in failed.items()]
    if args.output is not None:
        n_done = n_found - len(failed)
        lines.insert(0, f"{args.output}: {n_rows:,} rows written, {n_done} of {n_found} symbols")
    if failed:
        lines.append(f"error: {len(failed)} of {n_found} symbols failed")
    for line in lines:
        print(line, file=sys.stderr)


@contextmanager
def _cache(found: list["PanelSymbol"]) -> Iterator[Path | None]:
    """A folder in which a long table is cut by symbol, deleted at the end; None for few symbols."""
    if len(found) < _CUT_FROM or found[0].column is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextmanager
def _output(args: argparse.Namespace) -> Iterator["Write"]:
    """Write regimes nowhere, into a folder, or into one file that exists only when complete."""
    path = args.output
    if path is None:
        yield lambda symbol, frame: None
    elif not args.long:
        if path.is_file() or path.suffix in (".csv", ".jsonl", ".parquet"):
            raise ConfigError(f"--output {path}: many symbols need a folder, or --long")
        path.mkdir(parents=True, exist_ok=True)
        yield partial(_write_file, path)
    elif path.suffix != ".parquet" or not path.parent.is_dir():
        raise ConfigError(f"--output {path}: --long needs a .parquet file in a folder that exists")
    else:
        with ExitStack() as stack:
            yield _LongFile(path, stack).write


def _write_file(folder: Path, symbol: str, frame: "pd.DataFrame") -> None:
    from hmm_exp.files import written_beside
    from hmm_exp.market.panel import registry_part

    with written_beside(folder / f"{registry_part(symbol)}.parquet") as part:
        frame.to_parquet(part, index=False)


class _LongFile:
    """One Parquet file with a row group for each symbol; it is made with the first."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._path, self._stack = path, stack
        self._writer: Any = None

    def write(self, symbol: str, frame: "pd.DataFrame") -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from hmm_exp.files import written_beside

        named = frame.assign(symbol=symbol)[["symbol", *frame.columns]]
        table = pa.table({name: _column(named[name]) for name in named})
        if self._writer is None:
            part = self._stack.enter_context(written_beside(self._path))
            self._writer = self._stack.enter_context(pq.ParquetWriter(part, table.schema))
        self._writer.write_table(table)


def _column(column: "pd.Series") -> Any:
    """A column for Parquet; times are UTC."""
    import pandas as pd
    import pyarrow as pa

    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        return pa.array(column.to_numpy(), from_pandas=True)
    return pa.array(column.dt.tz_convert(None).to_numpy(), pa.timestamp("ns", "UTC"))
