"""Rows of a table on their way to being bars or features: stamps, numbers, order, duplicates.

Lossless steps are done and noted. A step that would lose data goes through `Rows.refuse`, which
raises one line or, with `data.bad_rows=drop`, leaves the rows out and counts them.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hmm_exp.errors import DataError
from hmm_exp.market.frames import check_one, telling_column
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.table import NO_VALUE
from hmm_exp.market.time_column import TimeColumn
from hmm_exp.market.zones import UNREADABLE

_LONGEST_VALUE = 60  # characters in a message


class Rows:
    """Stamps and values of the same rows, narrowed and ordered step by step.

    Attributes
    ----------
    stamps
        Nanoseconds since 1970, UTC, shape (T,).
    values
        The columns as float64, shape (T, D).
    text
        Where a value was text that is no number, shape (T, D).
    notes, dropped
        What was normalised; how many rows were left out, by reason.
    newest_first
        Whether the table holds the newest row first.
    """

    def __init__(
        self, table: pd.DataFrame, times: TimeColumn, columns: list[str], options: ReadOptions
    ) -> None:
        self.drop = options.bad_rows == "drop"
        self.table, self.raw, self.times = table, table[columns], times
        self.stamps, self.notes = times.stamps.ns, list(times.stamps.notes)
        self.newest_first = False
        numbers = [_numbers(self.raw.iloc[:, i]) for i in range(self.raw.shape[1])]
        self.values = np.column_stack([values for values, _ in numbers])
        self.text = np.column_stack([text for _, text in numbers])
        self.dropped: dict[str, int] = {}
        self.rows = np.arange(len(table))  # place in the table, shape (T,)

    def __len__(self) -> int:
        return len(self.stamps)

    def refuse(self, bad: np.ndarray, counts: dict[str, int], line: str, remedy: str) -> None:
        """Raise `line` with the remedy, or leave the rows `bad` (T,) out, counted by reason."""
        if not self.drop:
            raise DataError(f"{line}; data.bad_rows=drop {remedy}")
        self.dropped |= counts
        self.take(np.flatnonzero(~bad))

    def take(self, rows: np.ndarray) -> None:
        """Keep `rows` alone, in that order."""
        self.stamps, self.values = self.stamps[rows], self.values[rows]
        self.text, self.rows = self.text[rows], self.rows[rows]

    def need(self, least: int) -> None:
        """Raise DataError where fewer than `least` rows are left."""
        if len(self) < least:
            left_out = f" of {len(self.raw)}, {sum(self.dropped.values())} dropped"
            raise DataError(
                f"too few rows: {len(self)}{left_out if self.dropped else ''}, "
                f"at least {least} needed; set data.path"
            )

    def need_stamps(self) -> None:
        """Refuse rows whose stamp is missing or cannot be read."""
        bad = self.stamps == UNREADABLE
        if bad.any():
            first = self.rows[np.argmax(bad)]
            reason = f" ({self.times.stamps.reason})" if self.times.stamps.reason else ""
            line = (
                f"{counted(bad.sum(), 'unreadable timestamp')}, first "
                f"{shown(self.times.values.iloc[first])!r} in data row {first + 1}{reason}"
            )
            self.refuse(bad, {"unreadable timestamp": int(bad.sum())}, line, "leaves them out")

    def sort(self) -> None:
        """Put the rows in time order; of equal stamps the later row stays later."""
        steps = np.diff(self.stamps)
        if np.all(steps >= 0):
            return
        if np.all(steps <= 0):
            self.notes.append("newest first: order reversed")
            self.newest_first = True
            self.take(np.arange(len(self))[::-1])
        else:
            self.notes.append(f"{counted((steps < 0).sum(), 'step')} back in time: rows sorted")
            self.take(np.argsort(self.stamps, kind="stable"))

    def need_one_row_a_stamp(self) -> None:
        """Remove exact duplicates; refuse different rows of one stamp (drop keeps the last).

        The last in time order: in a table with the newest row first, the upper one.
        """
        again = np.diff(self.stamps) == 0
        if not again.any():
            return
        frame = pd.DataFrame(self.values).assign(stamp=self.stamps)
        same = frame.duplicated(keep="last").to_numpy()
        if same.any():
            self.notes.append(f"{counted(same.sum(), 'exact duplicate row')} removed")
            self.take(np.flatnonzero(~same))
        conflict = np.append(np.diff(self.stamps) == 0, False)
        if conflict.any():
            self._refuse_several_series()
            stamps = np.unique(self.stamps[conflict])
            line = (
                f"{counted(len(stamps), 'conflicting duplicate timestamp')}, "
                f"first {moment(stamps[0])}"
            )
            counts = {"conflicting duplicate timestamp": int(conflict.sum())}
            kept = "upper one (newest first)" if self.newest_first else "last"
            self.refuse(conflict, counts, line, f"keeps the {kept}")

    def _refuse_several_series(self) -> None:
        """Raise DataError where a column of text tells the rows of every repeated time apart."""
        again = np.diff(self.stamps) == 0
        rows = np.append(again, False) | np.append(False, again)
        name = telling_column(self.table, self.stamps[rows], self.rows[rows])
        if name is not None:
            check_one("value", name, self.table[name].dropna().astype(str))

    def need_cells(self, reasons: Sequence[tuple[str, np.ndarray]]) -> None:
        """Refuse rows with bad cells (T, D), given by phrase; a row counts under its first one."""
        bad = np.zeros(len(self), dtype=bool)
        lines, counts = [], {}
        for phrase, cells in reasons:
            rows = cells.any(axis=1) & ~bad
            if rows.any():
                bad |= rows
                counts[phrase] = int(rows.sum())
                lines.append(
                    f"{counted(rows.sum(), 'row')} with {phrase}, {self._first(rows, cells)}"
                )
        if lines:
            self.refuse(bad, counts, ", ".join(lines), "leaves them out")

    def _first(self, rows: np.ndarray, cells: np.ndarray) -> str:
        row = int(np.argmax(rows))
        column = int(np.argmax(cells[row]))
        value = self.raw.iloc[self.rows[row], column]
        name = shown(self.raw.columns[column])
        return f"first {name}={shown(value)} at {moment(self.stamps[row])}"


def shown(value: object) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = str(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def counted(number: int, noun: str) -> str:
    """`1 row`, `3 rows`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def moment(stamp: int | np.integer) -> str:
    """Nanoseconds since 1970 as a date and time, UTC."""
    time = pd.Timestamp(int(stamp), unit="ns")
    return time.strftime("%Y-%m-%d %H:%M:%S" if time.second else "%Y-%m-%d %H:%M")


def _numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Values as float64, NaN where there is none, and where text stood instead, both (T,)."""
    if column.dtype.kind in "iuf":
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return values, np.zeros(len(values), dtype=bool)
    if column.dtype.kind not in "OSU":  # times or truth values are no numbers
        return np.full(len(column), np.nan), column.notna().to_numpy(dtype=bool)
    try:
        numbers = pd.to_numeric(column, errors="coerce")
        values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        empty = column.isna() | column.astype(str).str.strip().isin(NO_VALUE)
    except (ValueError, TypeError, OverflowError):  # such as a number of thousands of digits
        values = np.array([_number(value) for value in column], dtype=np.float64)
        empty = column.isna()
    return values, np.isnan(values) & ~empty.to_numpy(dtype=bool)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        return np.nan
