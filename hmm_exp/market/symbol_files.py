"""Read the rows of one symbol from files that hold several, one symbol in memory at a time.

>>> lake = SymbolFiles.of("lake")  # lake/symbol=BTC/2024.parquet, ...
>>> lake.symbols()
['BTC', 'ETH']
>>> table = lake.rows("BTC")

Symbols are the values of a column, or of folders `symbol=BTC` (Hive partitions).
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from urllib.parse import unquote

import pandas as pd

from hmm_exp.config import nearest
from hmm_exp.errors import DataError
from hmm_exp.market.blocks import text_blocks
from hmm_exp.market.columns import find_symbols, is_bars_header, tidy
from hmm_exp.market.files import Table, read_table
from hmm_exp.market.long_table import LongTable, is_parquet, parquet_columns

_ENDINGS = (".csv", ".tsv", ".txt", ".gz", ".parquet", ".pq")
_NO_SYMBOL = {"", "__HIVE_DEFAULT_PARTITION__"}
_HEAD = 1 << 16  # bytes of text that hold the header


@dataclass(frozen=True)
class SymbolRows:
    """The rows of one symbol among those of several.

    Attributes
    ----------
    symbol
        The symbol, a value of the column.
    column
        The column of symbols, or the key of folders `key=symbol`; None finds it by name.
    cache
        A folder that keeps long tables cut by symbol, see `LongTable.rows`; None for no copy.
    """

    symbol: str
    column: str | None = None
    cache: Path | None = None

    def of(self, path: str | Path) -> Table:
        """Read them; see `SymbolFiles`."""
        return SymbolFiles.of(str(path), self.column).rows(self.symbol, self.cache)


@dataclass(frozen=True)
class SymbolFiles:
    """Files in which a column or folders name the symbols.

    Attributes
    ----------
    path
        A file, a folder, or a pattern of files.
    column
        The column of symbols, or the key of the folders; None where each file is one symbol.
    files
        The files of `path` by name; of each its symbol if folders name it, else None.
    """

    path: str
    column: str | None
    files: dict[str, str | None]

    @classmethod
    def of(cls, path: str, column: str | None = None, one_file: bool = True) -> "SymbolFiles":
        """Find the files of a path and what names their symbols.

        Parameters
        ----------
        path
            A file, a folder with all files below it, or a pattern with `*`, `?`, `[...]`, `**`.
        column
            The column or the key of folders; None finds it by name: as a key of folders, then in
            the header of the first file.
        one_file
            False looks for a column only where the path is one file: of several files, each is
            then one symbol, whatever its columns.

        Raises
        ------
        DataError
            There is no file, it cannot be read, no column has the name `column`, or only some of
            the files are in folders of the key.
        """
        files = files_of(path)
        key = column or next(filter(None, map(_key, files)), None)
        values = {file: _keys(file).get(key) for file in files} if key else {}
        if any(value is not None for value in values.values()):
            return cls(path, key, _all_in_folders(values, str(key)))
        if column is None and (one_file or len(files) == 1):
            column = find_symbols(_names(files[0]))
        return cls(path, column, dict.fromkeys(files))

    @property
    def in_folders(self) -> bool:
        """Whether folders name the symbols."""
        return None not in self.files.values()

    def symbols(self) -> list[str]:
        """Symbols in alphabetical order; no column but that of the symbols is read.

        Raises
        ------
        DataError
            A file cannot be read or lacks the column, or rows or files have no symbol.
        """
        counts = self._counts()
        without = sum(counts.pop(value, 0) for value in _NO_SYMBOL)
        if without:
            what = "file" if self.in_folders else "row"
            raise DataError(
                f"{self.path}: {without:,} of {without + sum(counts.values()):,} {what}s have no "
                f"symbol in {self.column!r}: fill it in, or set data.symbol_column"
            )
        if not counts:
            raise DataError(f"{self.path} has no rows; set data.path")
        return sorted(counts)

    def rows(self, symbol: str, cache: Path | None = None) -> Table:
        """Rows of one symbol, as `read_table` gives those of a file.

        Folder `cache` keeps tables cut by symbol, see `LongTable.rows`. Raises DataError when there
        are none, or a file cannot be read.
        """
        if self.column is None:
            raise DataError(
                f"no column of {self.path} names symbols: set data.symbol_column, or leave out "
                f"data.symbol={symbol}"
            )
        if self.in_folders:
            own = self._by_symbol().get(symbol, [])
            tables = [read_table(file, is_bars_header) for file in own]
        else:
            found = [LongTable(file, self.column).rows(symbol, cache) for file in self.files]
            tables = [table for table in found if len(table.frame) or table.ragged]
        if not tables:
            raise DataError(
                f"data.symbol={symbol}: no row of {self.path} has this {self.column!r}"
                f"{nearest(symbol, self._counts())}"
            )
        return _merged(tables, {"file": self.path, "symbol": symbol})

    def paths(self) -> dict[str, str]:
        """The narrowest path that reads each symbol alone: its folder, or `path`; see `symbols`."""
        symbols = self.symbols()
        if not self.in_folders:
            return dict.fromkeys(symbols, self.path)
        return {symbol: self._folder(files) for symbol, files in self._by_symbol().items()}

    def _folder(self, files: list[str]) -> str:
        """The folder `key=symbol` if these files of a symbol are all that is in it."""
        tops = {top for top in Path(files[0]).parents if self.column in _keys(top.name)}
        top = str(tops.pop()) if len(tops) == 1 else self.path
        return top if top != self.path and set(_below(top)) == set(files) else self.path

    def _by_symbol(self) -> dict[str, list[str]]:
        """Files of each symbol that folders name."""
        groups: dict[str, list[str]] = {}
        for file, symbol in self.files.items():
            groups.setdefault(symbol or "", []).append(file)
        return groups

    def _counts(self) -> Counter[str]:
        """Number of rows, or of files, by symbol."""
        if self.in_folders:
            return Counter({symbol: len(files) for symbol, files in self._by_symbol().items()})
        counts: Counter[str] = Counter()
        for file in self.files:
            counts.update(LongTable(file, str(self.column)).counts())
        return counts


def files_of(path: str) -> list[str]:
    """Files of a path in the order of their names: a file, those below a folder, or a pattern's.

    Below a folder, files of tables by their endings count; names that begin with `.` or `_` are of
    programs. Raises DataError when there is none.
    """
    found = [path] if os.path.exists(path) else glob(path, recursive=True)  # noqa: PTH110, PTH207
    files = {file for one in found for file in (_below(one) if Path(one).is_dir() else [one])}
    regular = sorted(str(Path(file)) for file in files if Path(file).is_file())
    if not regular:
        endings = f" of a folder, files that end in {', '.join(_ENDINGS)} are read;"
        raise DataError(
            f"no file matches {path};{endings if Path(path).is_dir() else ''} set data.path"
        )
    return regular


def _below(folder: str) -> Iterable[str]:
    """Files of tables below a folder, through links that lead to no folder above."""
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        own = [name for name in folders if not name.startswith((".", "_"))]
        folders[:] = [name for name in own if not here.is_relative_to((here / name).resolve())]
        for name in names:
            if name.lower().endswith(_ENDINGS) and not name.startswith((".", "_")):
                yield str(Path(place) / name)


def _keys(file: str) -> dict[str, str]:
    """Keys and values of the folders `key=value` of a path."""
    pairs = (part.partition("=") for part in Path(file).parts if "=" in part)
    return {key: unquote(value) for key, _, value in pairs}


def _key(file: str) -> str | None:
    """The key of the folders around a file that is named as symbols are."""
    return find_symbols([*_keys(str(Path(file).parent))])


def _all_in_folders(values: dict[str, str | None], key: str) -> dict[str, str | None]:
    """The values, if every file has one."""
    for file, value in values.items():
        if value is None:
            raise DataError(
                f"{file} is in no folder {key}=..., but other files of data.path are: narrow it"
            )
    return values


def _names(file: str) -> list[str]:
    """Names of the columns of a file."""
    if is_parquet(file):
        return parquet_columns(file)
    return next((header.names for header, _, _ in text_blocks(file, is_bars_header, _HEAD)), [])


def _merged(tables: list[Table], about: dict) -> Table:
    """One table of the rows of several, in their order."""
    first, frame = tables[0], tables[0].frame
    if len(tables) > 1:
        frame = pd.concat([tidy(table.frame)[0] for table in tables], ignore_index=True)
        about = about | {"files": len(tables)}
    ragged = [row for table in tables for row in table.ragged]
    notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    return Table(frame, first.about | about, ragged, notes)
