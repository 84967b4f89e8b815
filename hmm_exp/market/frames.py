"""A table as it comes, in memory or from a file: unique column names, one series of bars."""

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError
from hmm_exp.market.bars import PRICES
from hmm_exp.market.columns import find_series, marked

_SHOWN = 4  # values of a column in a message


def tidy(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Give the frame unique text names, with its index of times or with a name as a column.

    A column that repeats another of its name is left out; one that differs is marked "[2]".

    Returns
    -------
    The frame, and notes on what was done.

    Raises
    ------
    DataError
        When two levels of column names hold several instruments.
    """
    if isinstance(frame.columns, pd.MultiIndex):
        frame = _without_instrument(frame)
    if isinstance(frame.index, pd.DatetimeIndex) or frame.index.name is not None:
        clash = frame.index.name in frame.columns
        frame = frame.reset_index(drop=clash)
    names = [str(name) for name in frame.columns]
    unique = marked(names)
    if unique == names:
        return frame.set_axis(names, axis=1), []
    return _without_repeats(frame.set_axis(unique, axis=1), names)


def check_one_series(frame: pd.DataFrame) -> None:
    """Raise DataError where a column names more than one instrument or length of a bar."""
    for kind, columns in find_series([str(name) for name in frame.columns]).items():
        for name in columns:
            check_one(kind, name, frame[name].dropna().astype(str))


class OneSeries:
    """A check that consecutive pieces of a table name the same instrument."""

    def __init__(self) -> None:
        self._named: dict[str, str] = {}

    def check(self, frame: pd.DataFrame) -> None:
        """Raise DataError where a piece names another instrument than those before it."""
        check_one_series(frame)
        for kind, columns in find_series([str(name) for name in frame.columns]).items():
            for name in columns:
                values = frame[name].dropna().astype(str)[:1].to_list()
                both = pd.Series([self._named.get(name, *values), *values] if values else [])
                check_one(kind, name, both)
                self._named |= {name: values[0]} if values else {}


def check_one(kind: str, column: str, values: pd.Series) -> None:
    """Raise DataError where a column of symbols or intervals holds several, with their counts."""
    counts = values[values.str.strip() != ""].value_counts(sort=False)
    if len(counts) < 2:
        return
    shown = ", ".join(
        f"{str(value)[:20]} ({count} rows)" for value, count in counts[:_SHOWN].items()
    )
    more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    raise DataError(
        f"{len(counts)} {kind}s in column {column!r}: {shown}{more}; "
        "a file holds one series of bars: keep the rows of one"
    )


def telling_column(frame: pd.DataFrame, stamps: np.ndarray, rows: np.ndarray) -> str | None:
    """A text column by which rows of one time differ: the table may hold several series.

    Parameters
    ----------
    frame
        The table, N rows.
    stamps
        Times of the rows in question, shape (T,).
    rows
        Their places in the table, shape (T,).
    """
    for name in frame.columns:
        if pd.api.types.is_numeric_dtype(frame[name].dtype):
            continue
        values = frame[name].iloc[rows].astype(str).to_numpy()
        pairs = pd.DataFrame({"stamp": stamps, "value": values})
        if 1 < len(np.unique(values)) <= len(rows) // 2 and not pairs.duplicated().any():
            return str(name)
    return None


def _without_instrument(frame: pd.DataFrame) -> pd.DataFrame:
    """One level of column names out of two, the other of which names the instrument."""
    levels = [frame.columns.get_level_values(i).astype(str) for i in range(frame.columns.nlevels)]
    for place, level in enumerate(levels):
        if set(PRICES) <= {name.lower() for name in level}:
            others = {
                " ".join(parts) for parts in zip(*levels[:place], *levels[place + 1 :], strict=True)
            }
            if len(others) > 1:
                raise DataError(
                    f"{len(others)} symbols in the columns: {', '.join(sorted(others)[:_SHOWN])}; "
                    "a table holds one series of bars: keep the columns of one"
                )
            return frame.set_axis(level, axis=1)
    return frame


def _without_repeats(frame: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The frame without columns that repeat the first of their name."""
    notes, keep = [], []
    for unique, name in zip(frame.columns, names, strict=True):
        if unique != name and frame[unique].equals(frame[name].rename(unique)):
            notes.append(f"a second column {name!r} repeats the first: left out")
        else:
            keep.append(unique)
    return frame[keep], notes
