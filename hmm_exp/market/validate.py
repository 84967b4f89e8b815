"""From a table to bars: the one place where market data is normalised and checked.

>>> bars = bars_from_frame(frame, ReadOptions("open"))
"""

import shlex
from collections.abc import Collection

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.bars import OHLCV, Bars
from hmm_exp.market.columns import (
    find_prices,
    find_series,
    find_volume,
    may_be_volumes,
    renamed,
)
from hmm_exp.market.frames import check_one_series, tidy
from hmm_exp.market.gaps import gap_report, usual_step
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.rows import Rows, counted, moment
from hmm_exp.market.time_column import time_column
from hmm_exp.market.timeframes import step_in_words


def bars_from_frame(
    frame: pd.DataFrame,
    options: ReadOptions,
    *,
    step: pd.Timedelta | None = None,
    name: str = "bars",
    needs: Collection[str] = OHLCV,
) -> Bars:
    """Bars out of a table of them, normalised and checked.

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
    columns = _ohlcv_columns(frame, options.volume_column, name, needs)
    times = time_column(frame, options)
    absent = [name for name in OHLCV if name not in columns]
    rows = Rows(
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
            *_volume_warnings(rows, columns, others, needs),
            *_unused_warnings(unused, absent),
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
        "first": moment(stamps[0]),
        "last": moment(stamps[-1]),
        "step": step_in_words(step),
        "off_grid_steps": int((np.diff(stamps) % step_ns != 0).sum()),
    }


def _ohlcv_columns(
    frame: pd.DataFrame, volume_column: str | None, name: str, needs: Collection[str]
) -> dict[str, str]:
    """Columns of open, high, low, close and volume; those that are not needed may be absent."""
    names = list(frame.columns)
    symbols = [frame[n].iloc[0] for n in find_series(names)["symbol"] if len(frame)]
    columns = find_prices(names, needs)
    try:
        hint = " ".join(map(str, [*symbols, name]))
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
    rows: Rows, columns: dict[str, str], others: list[str], needs: Collection[str]
) -> list[str]:
    """A warning where the volume in use is zero on every bar and another column is not."""
    if "volume" not in needs or not others or not len(rows) or (rows.values[:, 4] != 0).any():
        return []
    return [
        f"the volume {columns['volume']!r} is 0 on every bar, {others[0]!r} is not: "
        f"data.volume_column={shlex.quote(others[0])} reads that"
    ]


def _unused_warnings(unused: dict[str, int], absent: Collection[str]) -> list[str]:
    """A warning for bad values of a column that is there and that no feature uses."""
    return [
        f"{counted(count, 'bad value')} of {name}, which no feature uses"
        for name, count in unused.items()
        if name not in absent
    ]


def _check(rows: Rows, needs: Collection[str], least: int) -> dict[str, int]:
    """Refuse bad rows. Gives the numbers of bad values by column where it is not needed."""
    rows.need_stamps()
    rows.sort()
    unused = _blank(rows, needs)
    rows.need_cells(_bad_cells(rows, needs))
    rows.need_one_row_a_stamp()
    rows.need(least)
    return unused


def _blank(rows: Rows, needs: Collection[str]) -> dict[str, int]:
    """Make bad values of columns that are not needed NaN; gives their number by column."""
    counts = {}
    for place, name in enumerate(OHLCV):
        if name in needs:
            continue
        values = rows.values[:, place]
        bad = ~np.isfinite(values) | ((values < 0) if name == "volume" else (values <= 0))
        rows.values[bad, place], rows.text[:, place] = np.nan, False
        if bad.any():
            counts[name] = int(bad.sum())
    return counts


def _bad_cells(rows: Rows, needs: Collection[str]) -> list[tuple[str, np.ndarray]]:
    """What a bar must not hold, with the cells (T, 5) that hold it; comparisons pass NaN by."""
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
