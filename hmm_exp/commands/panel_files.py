"""Write the regimes of many symbols: a file for each, or one long table."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmm_exp.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from hmm_exp.detector.model import StreamModel

_ENDINGS = (".csv", ".json", ".jsonl", ".parquet")  # of files


@contextmanager
def regime_files(
    path: Path | None, long: bool, csv: bool, models: Iterable["StreamModel"]
) -> Iterator["FolderFiles | LongCsv | LongParquet"]:
    """What writes the regimes of symbols: nowhere, into a folder, or into one file if `long`.

    The one file exists only when complete. Raises ConfigError for a path of another kind.
    """
    if path is None:
        yield FolderFiles(None)
    elif not long:
        yield FolderFiles(folder_for_symbols(path), csv)
    elif path.suffix not in (".csv", ".parquet") or not path.parent.is_dir():
        raise ConfigError(
            f"--output {path}: --long needs a .parquet or .csv file in a folder that exists"
        )
    else:
        with ExitStack() as stack:
            kind = LongCsv if path.suffix == ".csv" else LongParquet
            yield kind(path, columns_of(models), stack)


def folder_for_symbols(path: Path, option: str = "--output") -> Path:
    """The path as a folder, made if it is not there. Raises ConfigError for a file."""
    if path.is_file() or path.suffix in _ENDINGS:
        or_long = ", or --long" if option == "--output" else ""
        raise ConfigError(f"{option} {path}: many symbols need a folder{or_long}")
    path.mkdir(parents=True, exist_ok=True)
    return path


def symbol_file(folder: Path, symbol: str, kind: str) -> Path:
    """The file of a symbol, `kind` its ending."""
    from hmm_exp.market.panel import registry_part

    return folder / f"{registry_part(symbol)}.{kind}"


def columns_of(models: Iterable["StreamModel"]) -> list[str]:
    """Columns of a table of all models, the symbol first; probabilities of the most states last."""
    most_first = sorted({model.columns for model in models}, key=len, reverse=True)
    names = dict.fromkeys(chain(["symbol"], *most_first))
    return sorted(names, key=lambda name: name.startswith("p_state_"))


@dataclass(frozen=True)
class FolderFiles:
    """A file for each symbol, Parquet or `csv`; without a folder none. Any process may write."""

    folder: Path | None
    csv: bool = False

    def write(self, symbol: str, frame: "pd.DataFrame") -> None:
        """Write the regimes of a symbol; its file exists only when complete."""
        from hmm_exp.files import written_beside
        from hmm_exp.market.iso import write_csv

        if self.folder is None:
            return
        path = symbol_file(self.folder, symbol, "csv" if self.csv else "parquet")
        with written_beside(path) as part:
            write_csv(frame, part) if self.csv else frame.to_parquet(part, index=False)


class LongCsv:
    """A CSV of all symbols, each written after the other by this process.

    A cell is empty where a symbol's model does not have the column.
    """

    def __init__(self, path: Path, columns: list[str], stack: ExitStack) -> None:
        from hmm_exp.detector.files import RegimeFile

        self._columns = columns
        self._file = stack.enter_context(RegimeFile(path))

    def write(self, symbol: str, frame: "pd.DataFrame") -> None:
        """Append the regimes of a symbol."""
        self._file.write(frame.assign(symbol=symbol).reindex(columns=self._columns))


class LongParquet:
    """As `LongCsv`, a Parquet file with a row group for each symbol; it is made with the first."""

    def __init__(self, path: Path, columns: list[str], stack: ExitStack) -> None:
        self._path, self._columns, self._stack = path, columns, stack
        self._writer: Any = None

    def write(self, symbol: str, frame: "pd.DataFrame") -> None:
        """Append the regimes of a symbol."""
        import pyarrow.parquet as pq

        from hmm_exp.files import written_beside

        table = self._table(frame.assign(symbol=symbol))
        if self._writer is None:
            part = self._stack.enter_context(written_beside(self._path))
            self._writer = self._stack.enter_context(pq.ParquetWriter(part, table.schema))
        self._writer.write_table(table)

    def _table(self, frame: "pd.DataFrame") -> "pa.Table":
        """The regimes with all columns, in order."""
        import pyarrow as pa

        columns = {name: _column(frame[name]) for name in frame}
        for name in set(self._columns) - set(columns):
            kind = pa.bool_() if name == "in_training" else pa.float64()
            columns[name] = pa.nulls(len(frame), kind)
        return pa.table({name: columns[name] for name in self._columns})


def _column(column: "pd.Series") -> Any:
    """A column for Parquet; times are UTC."""
    import pandas as pd
    import pyarrow as pa

    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        return pa.array(column.to_numpy(), from_pandas=True)
    return pa.array(column.dt.tz_convert(None).to_numpy(), pa.timestamp("ns", "UTC"))
