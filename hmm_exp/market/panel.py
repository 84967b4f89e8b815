"""Symbols of a panel: files of one symbol each, a long table, or folders `symbol=BTC`.

>>> for one in symbols_of(DataConfig(kind="panel", path="lake/*.parquet", bar_stamp="open")):
...     bars = read_bars(one.path, bar_stamp="open", name=one.symbol, symbol=one.rows)
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hmm_exp.config import DataConfig, nearest
from hmm_exp.config.patterns import selected
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.load import instrument_name
from hmm_exp.market.symbol_files import SymbolFiles, SymbolRows, files_of

_OTHER = re.compile(r"[^\w.^=+-]")  # what a registered model, its URI or a shell may not take
_ESCAPED = re.compile(r"(?:~[0-9A-F]{2})+")


@dataclass(frozen=True)
class PanelSymbol:
    """A symbol, and where its bars are.

    Attributes
    ----------
    symbol
        Its name.
    path
        Its file or folder, or that of the table that holds it.
    column
        The column or the key of folders that names it; None where its file holds nothing else.
    """

    symbol: str
    path: str
    column: str | None = None

    @property
    def rows(self) -> SymbolRows | None:
        """What `read_bars` takes to read this symbol alone; None for all rows of its file."""
        return SymbolRows(self.symbol, self.column) if self.column else None

    def settings(self, data: DataConfig) -> DataConfig:
        """Settings that read this symbol alone, as `data=bars` does."""
        return replace(
            data,
            kind="bars",
            path=self.path,
            name=self.symbol,
            symbol=self.symbol if self.column else None,
            symbol_column=self.column,
            symbol_pattern=None,
            symbols=[],
            include=[],
            exclude=[],
        )


def symbols_of(data: DataConfig) -> list[PanelSymbol]:
    """Symbols of a panel that the settings leave, in alphabetical order; no bars are read.

    A file is named by its stem, or by the group of `data.symbol_pattern`, a regular expression that
    is searched in its name (in its path if the expression holds a slash). If `data.path` is one
    file with a column of symbols, or `data.symbol_column` is set, the symbols are the values of the
    column; if the files are in folders `symbol=BTC`, those of the folders.

    Raises
    ------
    ConfigError
        A symbol of `data.symbols` is not there, or a pattern matches nothing.
    DataError
        There is no file, two files have one symbol, rows have none, or a long table cannot be read.
    """
    found = {one.symbol: one for one in _found(data)}
    for symbol in data.symbols:
        if symbol not in found:
            raise ConfigError(
                f"data.symbols=[{symbol}]: no such symbol{nearest(symbol, found)} among the "
                f"{len(found)} of {data.path}"
            )
    names = [name for name in sorted(found) if not data.symbols or name in data.symbols]
    return [found[name] for name in selected(names, data.include, data.exclude, "data", "symbol")]


def registry_part(symbol: str) -> str:
    """The symbol as a part of the name of a registered model; two symbols never share one.

    Letters, digits and `. _ - ^ = +` stay. Any other character is written as `~` and the two hex
    digits of each of its bytes: MLflow reads a slash, a colon, `?`, `@` and `#` in a name as parts
    of its URI.

    >>> registry_part("BTC/USDT")
    'BTC~2FUSDT'
    """
    return _OTHER.sub(lambda found: "".join(f"~{byte:02X}" for byte in found[0].encode()), symbol)


def symbol_named(part: str) -> str:
    """The symbol of a `registry_part`.

    >>> symbol_named("BTC~2FUSDT")
    'BTC/USDT'
    """
    return _ESCAPED.sub(
        lambda found: bytes.fromhex(found[0].replace("~", "")).decode(errors="replace"), part
    )


def _found(data: DataConfig) -> Iterable[PanelSymbol]:
    """All symbols of the path."""
    path = str(data.path)
    if data.symbol_pattern is not None:
        return _of_files(files_of(path), data.symbol_pattern)
    lake = SymbolFiles.of(path, data.symbol_column, one_file=False)
    if lake.column is None:
        return _of_files(list(lake.files), None)
    return [_printable(PanelSymbol(*pair, lake.column)) for pair in lake.paths().items()]


def _of_files(files: list[str], pattern: str | None) -> Iterable[PanelSymbol]:
    """Files of one symbol each."""
    named: dict[str, str] = {}
    for file in files:
        symbol = instrument_name(file) if pattern is None else _matched(pattern, file)
        if symbol in named:
            raise DataError(
                f"2 files of symbol {symbol}: {named[symbol]} and {file}; narrow the path, or set "
                "data.symbol_pattern"
            )
        named[symbol] = file
    return [_printable(PanelSymbol(symbol, file)) for symbol, file in named.items()]


def _matched(pattern: str, file: str) -> str:
    """The group of the pattern in a file's name or path."""
    path = Path(file)
    found = re.search(pattern, path.as_posix() if "/" in pattern else path.name)
    if found is None or not found[1]:
        raise ConfigError(f"data.symbol_pattern={pattern}: finds no symbol in {file}")
    return found[1]


def _printable(one: PanelSymbol) -> PanelSymbol:
    """The symbol, if terminals and stores can hold its name."""
    if {"Cc", "Cs"} & set(map(unicodedata.category, one.symbol)):
        raise DataError(
            f"symbol {one.symbol!r} holds control characters or bytes that are not UTF-8: rename it"
        )
    return one
