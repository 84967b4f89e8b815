"""Join regimes to another table: each row takes the last regime that was known at its time.

>>> table = read_rows("features.csv", ReadOptions("open"))
>>> join_regimes(table, detector.filter(bars), prefix="regime_")
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.bars import step_in_words
from hmm_exp.market.clean import StampedRows
from hmm_exp.market.columns import is_features_header, tidy
from hmm_exp.market.files import read_table
from hmm_exp.market.gaps import usual_step
from hmm_exp.market.iso import iso
from hmm_exp.market.load import whole_rows
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.time_column import time_column

_MOST_IRREGULAR = 0.1  # share of steps that are no multiple of the usual one, for a row to be a bar


@dataclass(frozen=True, eq=False)
class KnownRows:
    """Rows of a table in the file's order, and when each is known."""

    frame: pd.DataFrame  # all columns of the table, (T, ...)
    known_at: np.ndarray  # nanoseconds since 1970, UTC, shape (T,)
    time: str  # the column of times
    length: pd.Timedelta  # of a row, between its stamp and when it is known; 0 for instants

    @property
    def in_words(self) -> str:
        """What the times of the table are taken for."""
        if not self.length:
            return f"{self.time!r} is read as the instant at which a row is known"
        step = step_in_words(self.length)
        return f"{self.time!r} is read as a row's start, and the row is known {step} later"


def read_rows(
    path: str | Path, options: ReadOptions, row_step: pd.Timedelta | None = None
) -> KnownRows:
    """Read a table with a column of times, whatever else it holds.

    Parameters
    ----------
    path
        CSV with any delimiter, gzip of it, or Parquet.
    options
        How its times are read. `bar_stamp` "open": a time is a row's start, and the row is known
        one usual step of the table later. "close": a time is the instant at which a row is known.
    row_step
        If given, rows at other steps or at irregular times are read as "close", which is never too
        early for the regime of a row.

    Raises
    ------
    DataError
        There is no readable column of times, or rows at irregular times are stamped "open".
    """
    chosen = options.timestamp_column
    is_header = (lambda names: chosen in names) if chosen else is_features_header
    table = whole_rows(read_table(path, is_header), options)
    frame, _ = tidy(table.frame)
    if frame.empty:
        names = ", ".join(map(str, frame.columns[:5]))
        raise DataError(f"{path}: no rows under a header of {names}; set data.timestamp_column")
    times = time_column(frame, options)
    rows = StampedRows(frame, times, list(frame.columns[:1]), options)
    rows.need_stamps()
    step = _length(rows.stamps, path, row_step) if options.bar_stamp == "open" else 0
    kept = frame.iloc[rows.rows].reset_index(drop=True)
    return KnownRows(kept, rows.stamps + step, times.name, pd.Timedelta(step, unit="ns"))


def join_regimes(table: KnownRows, regimes: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The table with the regime of each row: the last one that was available when it was known.

    Parameters
    ----------
    table
        T rows in any order.
    regimes
        Output of `Detector.filter`, `available_at` increasing.
    prefix
        Put before each name of a column of the regimes.

    Returns
    -------
    DataFrame
        The T rows in their order, then all columns of `regimes` but `timestamp`; empty in rows
        that are known before the first regime.

    Raises
    ------
    ConfigError
        The table has a column of such a name.
    """
    available = pd.DatetimeIndex(regimes["available_at"]).as_unit("ns").asi8
    place = np.searchsorted(available, table.known_at, side="right") - 1
    values = regimes.drop(columns="timestamp").add_prefix(prefix)
    if twice := [name for name in values if name in table.frame]:
        raise ConfigError(f"the table has a column {twice[0]!r} already: --prefix decides")
    picked = values.iloc[np.maximum(place, 0)].reset_index(drop=True)
    joined = {name: _nullable(picked[name]).where(place >= 0) for name in picked}
    return pd.concat([_plain(table.frame), pd.DataFrame(joined)], axis=1)


def _length(stamps: np.ndarray, path: str | Path, row_step: pd.Timedelta | None) -> int:
    """Usual step of the rows, in nanoseconds, 0 for instants. Raises DataError without a step."""
    ordered = np.unique(stamps)
    step = usual_step(ordered) if len(ordered) > 1 else 0
    irregular = (np.diff(ordered) % step != 0) if step else np.ones(1)
    is_irregular = irregular.mean() > _MOST_IRREGULAR
    if row_step is not None and (is_irregular or step != row_step.as_unit("ns").value):
        return 0
    if is_irregular:
        where = f", first after {iso(ordered[int(irregular.argmax())])}," if step else ""
        raise DataError(
            f"{path}: rows at irregular times{where} have no length: data.bar_stamp=close reads "
            "times as the instants at which rows are known"
        )
    return step


def _nullable(column: pd.Series) -> pd.Series:
    """Whole numbers and truth values in a type that has a missing value."""
    kinds: dict[str, Any] = {"i": "Int64", "u": "UInt64", "b": "boolean"}
    kind = kinds.get(column.dtype.kind)
    return column.astype(kind) if kind else column


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its times with a zone as text, in that zone."""
    zoned = frame.select_dtypes("datetimetz")
    return frame.assign(**{str(name): zoned[name].astype(str) for name in zoned})
