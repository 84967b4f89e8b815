"""From a table to bars: the one place where market data is normalised and checked.

>>> bars = bars_from_frame(frame, ReadOptions("open"))
"""

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.bars import OHLCV, Bars
from hmm_exp.market.columns import find_prices, find_volume
from hmm_exp.market.gaps import gap_report, usual_step
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.rows import Rows, moment
from hmm_exp.market.stamps import stamp_column
from hmm_exp.market.timeframes import step_in_words


def bars_from_frame(
    frame: pd.DataFrame,
    options: ReadOptions,
    *,
    step: pd.Timedelta | None = None,
    name: str = "bars",
) -> Bars:
    """Bars out of a table of them, normalised and checked.

    Column names in any case, order, epoch units, date forms and exact duplicates are normalised,
    and `Bars.report` tells so. Bad rows (text or no number, a price not above zero, high below low,
    open or close outside low..high, negative volume, conflicting stamps) are an error, or with
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

    Raises
    ------
    DataError
        A column is missing, rows are bad, there are too few, or they are not `step` apart.
    """
    frame = with_index_as_column(frame)
    columns, notes = _ohlcv_columns(frame, options.volume_column, name)
    stamps = stamp_column(frame, options)
    rows = Rows(stamps, frame[list(columns.values())], options)
    _check(rows, least=2 if step is None else 1)
    step_ns = _step(rows.stamps, step)
    report = {
        "name": name,
        "rows_read": len(frame),
        "rows_used": len(rows),
        **span_report(rows.stamps, step_ns, options.bar_stamp),
        "columns": {"timestamp": str(stamps.name)} | columns,
        "normalised": notes + rows.notes,
        "dropped": rows.dropped,
        "gaps": gap_report(rows.stamps, step_ns, options.gaps),
        "zero_volume_bars": int((rows.values[:, 4] == 0).sum()),
        "flat_bars": int((rows.values[:, 1] == rows.values[:, 2]).sum()),
    }
    table = stamped_frame(rows.stamps, rows.values, list(OHLCV), step_ns, options.bar_stamp)
    length = pd.Timedelta(step_ns, unit="ns")
    return Bars(table, length, options.bar_stamp, options.gaps, name, report)


def with_index_as_column(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with text column names, its index of times or with a name among the columns."""
    if isinstance(frame.index, pd.DatetimeIndex) or frame.index.name is not None:
        clash = frame.index.name in frame.columns
        frame = frame.reset_index(drop=clash)
    return frame.set_axis([str(column) for column in frame.columns], axis=1)


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
        "first": moment(stamps[0]),
        "last": moment(stamps[-1]),
        "step": step_in_words(step),
        "off_grid_steps": int((np.diff(stamps) % step_ns != 0).sum()),
    }


def _ohlcv_columns(
    frame: pd.DataFrame, volume_column: str | None, name: str
) -> tuple[dict[str, str], list[str]]:
    """Columns of open, high, low, close and volume, and a note for each that was renamed."""
    names = list(frame.columns)
    symbols = [frame[n].iloc[0] for n in ("symbol", "Symbol") if names.count(n) == 1 and len(frame)]
    columns = find_prices(names)
    columns["volume"] = find_volume(names, volume_column, " ".join(map(str, [*symbols, name])))
    return columns, [f"{was!r} read as {is_}" for is_, was in columns.items() if is_ != was]


def _check(rows: Rows, least: int) -> None:
    rows.need_stamps()
    rows.sort()
    rows.need_cells(_bad_cells(rows))
    rows.need_one_row_a_stamp()
    rows.need(least)


def _bad_cells(rows: Rows) -> list[tuple[str, np.ndarray]]:
    """What a bar must not hold, with the cells (T, 5) that hold it; comparisons pass NaN by."""
    values, none = rows.values, np.zeros_like(rows.text)
    opens, high, low, close, volume = values.T
    not_positive, crossed, outside, negative = none.copy(), none.copy(), none.copy(), none.copy()
    not_positive[:, :4] = values[:, :4] <= 0
    crossed[:, 1] = high < low
    outside[:, 0] = (opens > high) | (opens < low)
    outside[:, 3] = (close > high) | (close < low)
    negative[:, 4] = volume < 0
    return [
        ("text instead of a number", rows.text),
        ("a missing or infinite number", ~np.isfinite(values) & ~rows.text),
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
