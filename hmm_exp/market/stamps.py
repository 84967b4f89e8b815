"""Stamps of any usual form as int64 nanoseconds since 1970, UTC.

Epochs are read per row by their size, so seconds and milliseconds may stand in one column.
Text is read as ISO first, then as the forms that exchanges and terminals write. Stamps without
a zone are UTC.
"""

import re

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError
from hmm_exp.market.columns import find_clock, find_timestamp
from hmm_exp.market.options import ReadOptions

UNREADABLE = np.iinfo(np.int64).min
"""Stands for a stamp that cannot be read; it sorts before every other."""

# An epoch below the bound is in this unit: seconds until the year 5138, finer ones from 1973 on.
_EPOCHS = (
    (1e11, "s", 1_000_000_000),
    (1e14, "ms", 1_000_000),
    (1e17, "us", 1_000),
    (9.2e18, "ns", 1),
)
_DAY_AND_MONTH = re.compile(r"(\d{1,2})([/.-])(\d{1,2})[/.-](\d{4})")


def stamp_column(frame: pd.DataFrame, options: ReadOptions) -> pd.Series:
    """The column of stamps, its name telling its source; a date and a time of day are joined."""
    chosen = options.timestamp_column
    name = find_timestamp(list(frame.columns), options.bar_stamp, chosen)
    both = None if chosen is not None else find_clock(list(frame.columns), name)
    if both is None or not _is_clock(frame[both[1]]):
        return frame[name]
    date, clock = (frame[column].astype(str) for column in both)
    return (date + " " + clock).rename(f"{both[0]} + {both[1]}")


def read_stamps(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Nanoseconds since 1970, shape (T,), UNREADABLE where there is none; and what was done.

    Raises DataError when day and month cannot be told apart.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        return _nanoseconds(pd.to_datetime(column, utc=True)), []
    if column.dtype.kind in "iuf":
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        whole = column.dtype.kind in "iu" and not np.isnan(numbers).any()
        return _from_numbers(numbers, column.to_numpy(dtype=np.int64) if whole else None)
    return _from_text(column)


def _is_clock(column: pd.Series) -> bool:
    present = column.dropna()
    return len(present) > 0 and bool(re.match(r"\d{1,2}:\d{2}", str(present.iloc[0])))


def _nanoseconds(stamps: pd.Series) -> np.ndarray:
    return stamps.dt.as_unit("ns").astype("int64").to_numpy()


def _from_numbers(
    numbers: np.ndarray, exact: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Epochs, or dates written as 20200131; `exact` keeps nanoseconds beyond 2^53."""
    present = numbers[np.isfinite(numbers)]
    like_dates = (present >= 19_000_101) & (present <= 21_001_231) & (present % 1 == 0)
    if len(present) and like_dates.all():
        text = pd.Series(numbers).astype("Int64").astype("string")
        dates = pd.to_datetime(text, format="%Y%m%d", utc=True, errors="coerce")
        return _nanoseconds(dates), ["dates written as YYYYMMDD"]
    return _from_epochs(numbers, exact)


def _from_epochs(numbers: np.ndarray, exact: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    stamps = np.full(len(numbers), UNREADABLE)
    used, lower = [], 0.0
    size = np.abs(numbers)
    for upper, unit, factor in _EPOCHS:
        rows = (size >= lower) & (size < upper)
        lower = upper
        if not rows.any():
            continue
        used.append(unit)
        whole = np.floor(numbers[rows])
        part = np.rint((numbers[rows] - whole) * factor).astype(np.int64)
        units = exact[rows] if exact is not None else whole.astype(np.int64)
        stamps[rows] = units * factor + part
    return stamps, [f"epochs in {' and '.join(used)}"] if used else []


def _from_text(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    text = column.reset_index(drop=True).astype("string").str.strip()
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isfinite(numbers).any():
        stamps, notes = _from_numbers(numbers)
        words = text.where(pd.Series(~np.isfinite(numbers), index=text.index))
    else:
        stamps, notes, words = np.full(len(text), UNREADABLE), [], text
    dates, date_notes = _from_dates(words)
    return np.maximum(stamps, dates), notes + date_notes


def _from_dates(text: pd.Series) -> tuple[np.ndarray, list[str]]:
    stamps = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    # Without a year there is no date: a time of day alone would be read as today's.
    left = stamps.isna() & text.str.contains(r"\d{4}", regex=True).fillna(False)
    if not left.any():
        return _nanoseconds(stamps), []
    other = _year_first(text[left])
    hours = pd.to_datetime(other, format="%Y-%m-%d %I-%p", utc=True, errors="coerce")
    free = pd.to_datetime(other[hours.isna()], format="mixed", utc=True, errors="coerce")
    stamps[left] = hours.fillna(free)
    return _nanoseconds(stamps), ["dates not in ISO form"]


def _year_first(text: pd.Series) -> pd.Series:
    """Dates like 31/01/2020 or 01/31/2020 as 2020-01-31; the order that fits every row counts."""
    parts = text.str.extract(_DAY_AND_MONTH)
    rows = parts[0].notna()
    if not rows.any():
        return text
    first, second = parts.loc[rows, 0].astype(int), parts.loc[rows, 2].astype(int)
    dotted = bool((parts.loc[rows, 1] == ".").all())  # only ever written day first
    day_first, month_first = bool((second <= 12).all()), bool((first <= 12).all()) and not dotted
    if day_first and month_first and not first.equals(second):
        example = text[rows][(first != second)].iloc[0]
        raise DataError(
            f"day and month cannot be told apart in dates like {example!r}; "
            "write them as YYYY-MM-DD"
        )
    order = r"\4-\3-\1" if day_first else r"\4-\1-\3"
    return text.str.replace(_DAY_AND_MONTH, order, regex=True)
