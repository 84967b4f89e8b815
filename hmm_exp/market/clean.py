"""Turn the rows of a table into valid bars or features: stamps, numbers, order, duplicates.

Lossless steps are done and noted. A step that would lose data goes through `StampedRows.refuse`,
which raises one line or, with `data.bad_rows=drop`, leaves the rows out and counts them.
"""

import shlex
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError, DataError, counted
from hmm_exp.market.bars import OHLCV, Bars, shown, step_in_words
from hmm_exp.market.columns import (
    check_one,
    check_one_series,
    find_prices,
    find_series,
    find_volume,
    may_be_volumes,
    renamed,
    telling_column,
    tidy,
)
from hmm_exp.market.files import NO_VALUE
from hmm_exp.market.gaps import gap_report, usual_step
from hmm_exp.market.iso import iso
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.stamp_doubts import clocks_set_back, taken_for_starts
from hmm_exp.market.time_column import TimeColumn, time_column
from hmm_exp.market.zones import UNREADABLE

QUIET_SHARE = 0.05  # of bars without a range; more of them are worth a warning
_IDLE_SHARE = 0.95  # of bars with one and the same volume; such a volume shows no activity


_PLAINLY = ": write numbers as 1234.5, without a currency or unit, thousands unmarked"


class StampedRows:
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
    is_local
        Whether the times name no zone, and none was told.
    newest_first
        Whether the table holds the newest row first.
    """

    def __init__(
        self, table: pd.DataFrame, times: TimeColumn, columns: list[str], options: ReadOptions
    ) -> None:
        self.drop = options.bad_rows == "drop"
        self.table, self.raw, self.times = table, table[columns], times
        self.stamps, self.notes = times.stamps.ns, list(times.stamps.notes)
        self.is_local = times.stamps.local and options.timezone == "UTC"
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
            hint = f"data.bad_rows=drop {remedy}"
            if bad.all():
                hint = "that is every row" + (_PLAINLY if self.text.any(axis=1).all() else "")
            raise DataError(f"{line}; {hint}")
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
        """Sort the rows by time; rows of equal stamps keep their order."""
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
                f"{counted(len(stamps), 'conflicting duplicate timestamp')}, first {iso(stamps[0])}"
            )
            if self.is_local and clocks_set_back(stamps):
                line += (
                    " (local times come twice when clocks are set back: data.timezone reads them)"
                )
            counts = {"conflicting duplicate timestamp": int(conflict.sum())}
            kept = "upper one (newest first)" if self.newest_first else "last"
            self.refuse(conflict, counts, line, f"keeps the {kept}")

    def _refuse_several_series(self) -> None:
        """Raise DataError where a text column differs between the rows of every repeated time."""
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
        return f"first {name}={shown(value)} at {iso(self.stamps[row])}"


def _numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Values as float64, NaN where missing, and a mask of texts that are no numbers, both (T,)."""
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


def bars_from_frame(
    frame: pd.DataFrame,
    options: ReadOptions,
    *,
    step: pd.Timedelta | None = None,
    name: str = "bars",
    needs: Collection[str] = OHLCV,
) -> Bars:
    """Bars from a table, normalised and checked.

    Column names in any case, order, epoch units, date forms and exact duplicates are normalised
    and listed in `Bars.report`. Bad rows (text or no number, a price not above zero, high below
    low, open or close outside low..high, negative volume, conflicting stamps) are an error, or with
    `bad_rows="drop"` left out and counted; of conflicting rows of one stamp the last in time order
    stays, which in a newest-first table is the upper one.

    Parameters
    ----------
    frame
        A time (column or index: datetimes, text or epochs), open, high, low, close and volume.
    options
        What the times mark, which columns to use, what to do about bad rows and gaps.
    step
        Length of a bar; the most common difference of the stamps unless given.
    name
        The instrument; a symbol in it helps to find the base asset's volume.
    needs
        Columns that will be used. Another one may be absent or hold bad values, which become NaN
        and are counted in the report.

    Raises
    ------
    DataError
        A column is missing, rows are bad, there are too few, or they are not `step` apart; or the
        table holds several series.
    """
    frame, notes = tidy(frame)
    check_one_series(frame)
    columns = ohlcv_columns(frame, options.volume_column, name, needs)
    times = time_column(frame, options)
    absent = [name for name in OHLCV if name not in columns]
    rows = StampedRows(
        frame.assign(**dict.fromkeys(absent, np.nan)),
        times,
        [columns.get(name, name) for name in OHLCV],
        options,
    )
    unused = _check(rows, needs, least=2 if step is None else 1)
    step_ns = _step(rows.stamps, step)
    others = _other_volumes(frame, columns)
    report = {
        "name": name,
        "rows_read": len(frame),
        "rows_used": len(rows),
        **span_report(rows.stamps, step_ns, options.bar_stamp),
        "columns": {"timestamp": times.name} | columns,
        "other_volumes": others,
        "normalised": [*notes, *renamed(columns), *rows.notes],
        "times_compared": times.stamps.needs_all,
        "warnings": [
            *times.warnings,
            *taken_for_starts(rows.stamps, step_ns, options.bar_stamp),
            *_volume_warnings(rows, columns, others, needs),
            *_unused_warnings(unused, absent),
            *_quiet_warnings(rows, needs),
        ],
        "dropped": rows.dropped,
        "needs": [name for name in OHLCV if name in needs],
        "unused": unused,
        "gaps": gap_report(rows.stamps, step_ns, options.gaps),
        "zero_volume_bars": int((rows.values[:, 4] == 0).sum()),
        "flat_bars": int((rows.values[:, 1] == rows.values[:, 2]).sum()),
    }
    table = stamped_frame(rows.stamps, rows.values, list(OHLCV), step_ns, options.bar_stamp)
    length = pd.Timedelta(step_ns, unit="ns")
    return Bars(table, length, options.bar_stamp, options.gaps, name, report)


def stamped_frame(
    stamps: np.ndarray, values: np.ndarray, names: list[str], step_ns: int, bar_stamp: str
) -> pd.DataFrame:
    """Values (T, D) under index `available_at`, with column `timestamp` first, both UTC."""
    offset = step_ns if bar_stamp == "open" else 0
    frame = pd.DataFrame(values, columns=names)
    frame.insert(0, "timestamp", pd.to_datetime(stamps, utc=True, unit="ns").as_unit("ns"))
    frame.index = pd.to_datetime(stamps + offset, utc=True, unit="ns").as_unit("ns")
    frame.index.name = "available_at"
    return frame


def span_report(stamps: np.ndarray, step_ns: int, bar_stamp: str) -> dict:
    """First and last stamp, the length of a bar and how many stamps are off its grid."""
    step = pd.Timedelta(step_ns, unit="ns")
    return {
        "bar_stamp": bar_stamp,
        "first": iso(stamps[0]),
        "last": iso(stamps[-1]),
        "step": step_in_words(step),
        "off_grid_steps": int((np.diff(stamps) % step_ns != 0).sum()),
    }


def ohlcv_columns(
    frame: pd.DataFrame, volume_column: str | None, name: str, needs: Collection[str]
) -> dict[str, str]:
    """Columns of open, high, low, close and volume; those that are not needed may be absent."""
    names = list(frame.columns)
    symbols = [frame[n].iloc[0] for n in find_series(names)["symbol"] if len(frame)]
    columns = find_prices(names, needs)
    try:
        hint = "\n".join(map(str, [*symbols, name]))
        columns["volume"] = find_volume(names, volume_column, hint)
    except DataError:
        if "volume" in needs or volume_column is not None:
            raise
    return columns


def _other_volumes(frame: pd.DataFrame, columns: dict[str, str]) -> list[str]:
    """Other columns that hold amounts or numbers of trades or ticks, and not zero alone."""
    return [
        name
        for name in may_be_volumes(list(frame.columns))
        if name not in columns.values()
        and frame[name].dtype.kind in "iuf"
        and bool((frame[name] > 0).any())
    ]


def _volume_warnings(
    rows: StampedRows, columns: dict[str, str], others: list[str], needs: Collection[str]
) -> list[str]:
    """A warning where the volume in use is one value on nearly every bar, and a better one is."""
    if "volume" not in needs or not others or not len(rows):
        return []
    value, share = _commonest(rows.values[:, 4])
    lively = [name for name in others if _is_livelier(rows.table[name], value)]
    if share < _IDLE_SHARE or not lively:
        return []
    on_bars = "every bar" if share == 1 else f"{share:.1%} of all bars"
    return [
        f"the volume {columns['volume']!r} is {value:g} on {on_bars}, {lively[0]!r} is not: "
        f"data.volume_column={shlex.quote(lively[0])} reads that"
    ]


def _is_livelier(values: pd.Series, than: float) -> bool:
    """Whether a column varies, or is not 0 where the one in use is."""
    value, share = _commonest(values)
    return share < _IDLE_SHARE or (than == 0 and value != 0)


def _commonest(values: np.ndarray | pd.Series) -> tuple[float, float]:
    """The most common value, and its share of all."""
    shares = pd.Series(values).value_counts(normalize=True)
    return (float(shares.index[0]), float(shares.iloc[0])) if len(shares) else (np.nan, 1.0)


def _unused_warnings(unused: dict[str, int], absent: Collection[str]) -> list[str]:
    """A warning for bad values of a column that is there and that no feature uses."""
    return [
        f"{counted(count, 'bad value')} of {name}, which no feature uses"
        for name, count in unused.items()
        if name not in absent
    ]


def _quiet_warnings(rows: StampedRows, needs: Collection[str]) -> list[str]:
    """A warning where many bars have no range."""
    n_quiet = int((rows.values[:, 1] == rows.values[:, 2]).sum())
    if not {"high", "low"} <= set(needs) or n_quiet <= QUIET_SHARE * len(rows):
        return []
    return [
        f"high equals low on {n_quiet:,} of {len(rows):,} bars ({n_quiet / len(rows):.1%}): "
        "the log range is missing there, other features of the range are 0"
    ]


def _check(rows: StampedRows, needs: Collection[str], least: int) -> dict[str, int]:
    """Refuse bad rows. Gives the numbers of bad values kept, by column that is not needed."""
    rows.need_stamps()
    rows.sort()
    _blank(rows, needs)
    rows.need_cells(_bad_cells(rows, needs))
    rows.need_one_row_a_stamp()
    rows.need(least)
    missing = dict(zip(OHLCV, np.isnan(rows.values).sum(axis=0).tolist(), strict=True))
    return {name: count for name, count in missing.items() if count and name not in needs}


def _blank(rows: StampedRows, needs: Collection[str]) -> None:
    """Make bad values of columns that are not needed NaN."""
    for place, name in enumerate(OHLCV):
        if name not in needs:
            values = rows.values[:, place]
            bad = ~np.isfinite(values) | ((values < 0) if name == "volume" else (values <= 0))
            rows.values[bad, place], rows.text[:, place] = np.nan, False


def _bad_cells(rows: StampedRows, needs: Collection[str]) -> list[tuple[str, np.ndarray]]:
    """Rules that bars break, each with the cells (T, 5) that break it; NaN breaks none."""
    values, none = rows.values, np.zeros_like(rows.text)
    needed = np.array([name in needs for name in OHLCV])
    opens, high, low, close, volume = values.T
    not_positive, crossed, outside, negative = none.copy(), none.copy(), none.copy(), none.copy()
    not_positive[:, :4] = values[:, :4] <= 0
    crossed[:, 1] = (high < low) & needed[1:3].any()
    outside[:, 0] = ((opens > high) | (opens < low)) & needed[:3].any()
    outside[:, 3] = ((close > high) | (close < low)) & needed[1:4].any()
    negative[:, 4] = volume < 0
    return [
        ("text instead of a number", rows.text),
        ("a missing or infinite number", ~np.isfinite(values) & ~rows.text & needed),
        ("a zero or negative price", not_positive),
        ("high below low", crossed),
        ("open or close outside low..high", outside),
        ("a negative volume", negative),
    ]


def _step(stamps: np.ndarray, step: pd.Timedelta | None) -> int:
    """Length of a bar in nanoseconds; one that was given must be the usual step of the stamps."""
    if step is None:
        return usual_step(stamps)
    given = step.as_unit("ns").value
    if given <= 0:
        raise ConfigError(f"a bar of {step} has no length")
    if len(stamps) > 2 and usual_step(stamps) != given:
        usual = pd.Timedelta(usual_step(stamps), unit="ns")
        raise DataError(
            f"bars come every {step_in_words(usual)}: bars of {step_in_words(step)} are expected"
        )
    return given
