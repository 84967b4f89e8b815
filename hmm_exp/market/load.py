"""Bars and prebuilt features from files: CSV with any delimiter, gzip of it, Parquet.

>>> bars = read_bars("btc_1h.csv", bar_stamp="open")
>>> bars.report["gaps"]["count"]
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.bars import OHLCV, Bars
from hmm_exp.market.columns import is_bars_header, is_features_header
from hmm_exp.market.frames import check_one_series, tidy
from hmm_exp.market.gaps import gap_report, usual_step
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.rows import Rows, counted, shown
from hmm_exp.market.table import Table, read_table
from hmm_exp.market.time_column import time_column
from hmm_exp.market.timeframes import timeframe_step
from hmm_exp.market.validate import bars_from_frame, span_report, stamped_frame


def read_bars(
    path: str | Path,
    options: ReadOptions | None = None,
    *,
    name: str | None = None,
    needs: Collection[str] = OHLCV,
    **single: Any,
) -> Bars:
    """Read bars from a file.

    Parameters
    ----------
    path
        CSV with any delimiter, gzip of it, or Parquet.
    options
        How to read it; or its fields one by one: `read_bars(path, bar_stamp="open")`.
    name
        The instrument; the file's stem unless given.
    needs
        Columns that will be used, see `bars_from_frame`.

    Returns
    -------
    Bars
        `Bars.report` describes the file and what was normalised.

    Raises
    ------
    ConfigError, DataError
        As `ReadOptions` and `bars_from_frame`.
    """
    options = options or ReadOptions(**single)
    table = whole_rows(read_table(path, is_bars_header), options)
    name = name or instrument_name(path)
    bars = bars_from_frame(table.frame, options, name=name, needs=needs)
    return replace(bars, report=_with_file(bars.report, table))


def read_features(
    path: str | Path, options: ReadOptions | None = None, *, name: str | None = None, **single: Any
) -> tuple[pd.DataFrame, dict]:
    """Read prebuilt features from a file, with their data report; parameters as in `read_bars`.

    Returns
    -------
    frame
        Index `available_at` (UTC), column `timestamp`, then every numeric column in the file's
        order. Rows of the finest timeframe that the `_{TF}` suffixes name. A missing value stays
        NaN; columns of text are left out and listed in the report.

    Raises
    ------
    ConfigError
        An option has an unknown value.
    DataError
        No column is numeric, a column with a timeframe's suffix holds text, a value is infinite,
        stamps are unreadable or in conflict, or there are too few rows.
    """
    options = options or ReadOptions(**single)
    table = whole_rows(read_table(path, is_features_header), options)
    features, report = features_from_frame(table.frame, options, name or instrument_name(path))
    return features, _with_file(report, table)


def features_from_frame(
    frame: pd.DataFrame, options: ReadOptions, name: str = "features", fewest: int = 2
) -> tuple[pd.DataFrame, dict]:
    """Prebuilt features from a table in memory, and their report; see `read_features`."""
    frame, notes = tidy(frame)
    check_one_series(frame)
    times = time_column(frame, options)
    names = _feature_columns(frame, times.name.split(" + "))
    rows = Rows(frame, times, names, options)
    rows.need_stamps()
    rows.sort()
    rows.need_cells([("text instead of a number", rows.text)])
    rows.need_cells([("an infinite value", np.isinf(rows.values))])
    rows.need_one_row_a_stamp()
    rows.need(fewest)
    step_ns = _finest_step(names) or usual_step(rows.stamps)
    report = {
        "name": name,
        "rows_read": len(frame),
        "rows_used": len(rows),
        **span_report(rows.stamps, step_ns, options.bar_stamp),
        "columns": {"timestamp": times.name} | {n: n for n in names},
        "columns_left_out": [n for n in frame.columns if n not in (*names, times.name)],
        "normalised": [*notes, *rows.notes],
        "times_compared": times.stamps.needs_all,
        "warnings": times.warnings,
        "dropped": rows.dropped,
        "gaps": gap_report(rows.stamps, step_ns, options.gaps),
    }
    return stamped_frame(rows.stamps, rows.values, names, step_ns, options.bar_stamp), report


def instrument_name(path: str | Path) -> str:
    """The file's stem, without `.csv` before `.gz` too."""
    stem = Path(path).stem
    return Path(stem).stem if Path(stem).suffix in (".csv", ".tsv", ".txt") else stem


def whole_rows(table: Table, options: ReadOptions) -> Table:
    """Return the table; raise DataError where rows of another length may not be left out."""
    if table.ragged and options.bad_rows == "error":
        line, text = table.ragged[0]
        raise DataError(
            f"{counted(len(table.ragged), 'row')} with more or fewer fields than the header, "
            f"first {shown(text)!r} in line {line}; data.bad_rows=drop leaves them out"
        )
    return table


def _with_file(report: dict, table: Table) -> dict:
    """The report led by what the file is, rows that were no rows counted."""
    report = table.about | report
    report["normalised"] = [*table.notes, *report["normalised"]]
    if table.ragged:
        report["rows_read"] += len(table.ragged)
        report["dropped"] = {"other number of fields": len(table.ragged)} | report["dropped"]
    return report


def _feature_columns(frame: pd.DataFrame, timestamps: list[str]) -> list[str]:
    """Numeric columns but the time, and those with a timeframe's suffix whatever they hold."""
    names = [
        name
        for name, dtype in zip(frame.columns, frame.dtypes, strict=True)
        if name not in timestamps and (pd.api.types.is_numeric_dtype(dtype) or _suffix_step(name))
    ]
    twice = [name for name in names if f"{name} [2]" in names]
    if twice:
        raise DataError(f"columns named more than once that differ: {', '.join(twice)}; rename one")
    if not names:
        raise DataError(
            f"no numeric column but the time {timestamps[0]!r}: a table of features needs one"
        )
    return names


def _suffix_step(name: str) -> int:
    """Nanoseconds of the timeframe that ends a column's name, 0 without one."""
    try:
        return timeframe_step(name.rpartition("_")[2]).as_unit("ns").value
    except ConfigError:
        return 0


def _finest_step(names: list[str]) -> int:
    return min(filter(None, map(_suffix_step, names)), default=0)
