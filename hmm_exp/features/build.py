"""A feature table from bars: every timeframe's values, joined on the finest grid.

A row holds, for each timeframe, the last bar that was complete when the row became available, so
nothing in it depends on later bars, nor on how many there are.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from hmm_exp.errors import ConfigError, DataError, HistoryError, few
from hmm_exp.features.kernel import N_FEATURES, advance_all, find_missing, join_as_of, new_state
from hmm_exp.features.lost import Lost, lost_rows
from hmm_exp.features.recipe import FEATURES, Recipe
from hmm_exp.features.season import bar_ends, hour_means, less_means
from hmm_exp.files import written_beside
from hmm_exp.hmm.rows import missing_rows
from hmm_exp.market.bars import Bars, step_in_words, timeframe_step
from hmm_exp.market.gaps import chain_steps
from hmm_exp.market.iso import iso, iso_texts, write_rows
from hmm_exp.market.resample import resample
from hmm_exp.parallel import run_all

FORMATS = (".csv", ".parquet")
_MANY = 1 << 16  # rows from which on threads are worth their start


@dataclass(frozen=True, repr=False)
class FeatureTable:
    """Features of consecutive rows, the first of them complete.

    Attributes
    ----------
    frame
        Index `available_at` (UTC), one float64 column for each of `recipe.columns`. A row that
        lacks a feature has NaN there.
    timestamp
        The stamp of each row's bar (UTC), by the convention of the bars; indexed as `frame`.
    steps
        Chain steps from the row before: 0 starts a sequence, 1 is the neighbour, shape (T,).
    warmup_rows
        Rows before the first complete one; they are not in the table.
    n_missing
        Rows of the table that lack a feature.
    recipe
        What was computed.
    ends
        When the bars of its seasonal columns ended, shape (T, S), see `season.bar_ends`; None
        without a season.
    find_lost
        Finds `lost`; it computes the features once more where bars have gaps.
    """

    frame: pd.DataFrame
    timestamp: pd.Series
    steps: np.ndarray
    warmup_rows: int
    n_missing: int
    recipe: Recipe
    ends: np.ndarray | None = None
    find_lost: Callable[[], Lost] = dict

    def __repr__(self) -> str:
        first, last = (iso(time) for time in self.available_at[[0, -1]])
        return (
            f"FeatureTable: {len(self):,} rows of {self.recipe.grid}, known {first} to {last}\n"
            f"{few(self.recipe.columns)}; {self.n_missing:,} rows lack a feature"
        )

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def lost(self) -> Lost:
        """Incomplete rows by reason, see `lost_rows`, warm-up included; empty for a ready table."""
        return self.find_lost()

    @property
    def available_at(self) -> pd.DatetimeIndex:
        """When each row may be used, UTC, shape (T,)."""
        return pd.DatetimeIndex(self.frame.index)

    @property
    def X(self) -> np.ndarray:  # noqa: N802
        """Observations, C-ordered float64, shape (T, D); NaN where missing."""
        return np.ascontiguousarray(self.frame.to_numpy(dtype=np.float64))

    def hour_means(self, rows: np.ndarray) -> np.ndarray | None:
        """Means of the seasonal columns by hour over some rows (a mask); None without a season."""
        if self.ends is None:
            return None
        return hour_means(self.X[rows], self.ends[rows], self.recipe)

    def less(self, means: np.ndarray | None) -> "FeatureTable":
        """The table less means by hour, as a model observes it; see `season.less_means`."""
        if means is None:
            return self
        X = less_means(self.X, self.ends, self.recipe, means)
        frame = pd.DataFrame(X, self.frame.index, self.frame.columns, copy=False)
        return replace(self, frame=frame, n_missing=int(missing_rows(X).sum()))

    def write(self, path: str | Path) -> None:
        """Write `timestamp` and the columns as CSV or Parquet, by the extension of `path`.

        Numbers keep every bit and missing ones are empty. The file is written beside and renamed.
        Raises ConfigError as `check_output` does, OSError where the folder cannot be written.
        """
        path = Path(path)
        check_output(path)
        _write_beside(self._arrow(as_text=path.suffix.lower() == ".csv"), path)

    def _arrow(self, as_text: bool) -> pa.Table:
        """Columns for a file, with the times as text or as they are."""
        stamps = pd.DatetimeIndex(self.timestamp).tz_convert(None)
        whole = (stamps == stamps.floor("s")).all()
        stamps = stamps.as_unit("s") if whole else stamps.as_unit("ns")
        times = pa.array(stamps.to_numpy(), pa.timestamp(stamps.unit, "UTC"))
        arrays = {"timestamp": iso_texts(self.timestamp) if as_text else times}
        for column in self.frame:
            arrays[str(column)] = pa.array(self.frame[column].to_numpy(), from_pandas=True)
        return pa.table(arrays)


def build_features(bars: Bars, recipe: Recipe) -> FeatureTable:
    """Compute the columns of `recipe` on the grid of its finest timeframe.

    A first bar of a coarser timeframe that began before the data did is left out, so that a
    value never depends on where the data begin.

    Raises
    ------
    HistoryError
        Too few bars for the windows; says how many are needed.
    DataError
        Enough bars, but no row that has every feature.
    ConfigError
        A timeframe that is no whole multiple of the bars.
    """
    try:
        bins = {timeframe: _whole_bins(bars, timeframe) for timeframe in recipe.timeframes}
    except HistoryError:
        raise _too_few(bars, recipe) from None
    X, missing = _join(recipe, bins)
    if missing.all():
        raise _no_complete_row(bars, recipe, X)
    first = int(missing.argmin())
    rows = bins[recipe.grid].frame.iloc[first:]
    step_ns = timeframe_step(recipe.grid).as_unit("ns").value
    return FeatureTable(
        frame=pd.DataFrame(X[first:], rows.index, list(recipe.columns), copy=False),
        timestamp=rows["timestamp"],
        steps=chain_steps(bins[recipe.grid].time[first:], step_ns, bars.gaps),
        warmup_rows=first,
        n_missing=int(missing[first:].sum()),
        recipe=recipe,
        ends=bar_ends(recipe, bins[recipe.grid].time[first:], {k: b.time for k, b in bins.items()}),
        find_lost=partial(_lost, bars, recipe, bins, X) if missing.any() else dict,
    )


def _lost(bars: Bars, recipe: Recipe, bins: dict[str, Bars], X: np.ndarray) -> Lost:
    """Reasons of the incomplete rows; which of them are gaps shows without gaps."""
    bridged = X
    if bars.gaps == "split" and bars.report.get("gaps", {"count": 1})["count"]:
        linked = {name: replace(of_tf, gaps="bridge") for name, of_tf in bins.items()}
        bridged, _ = _join(recipe, linked)
    seen = bars.time.searchsorted(bins[recipe.grid].time, side="right")
    return lost_rows(X, bridged, recipe, seen <= recipe.warmup(bars.step))


def timeframe_values(bars: Bars, window: int, vwap_window: int) -> np.ndarray:
    """Values of the ten features for bars of one timeframe.

    Returns
    -------
    ndarray of shape (T, 10)
        Columns in the order of `recipe.FEATURES`, NaN where missing.
    """
    values = np.empty((len(bars), N_FEATURES))
    steps = chain_steps(bars.time, bars.step.as_unit("ns").value, bars.gaps)
    advance_all(new_state(window, vwap_window), bars.ohlcv, steps == 1, values)
    return values


def ways_out(columns: Sequence[str], recipe: Recipe, bars: Bars | None) -> str:
    """Settings that help against columns of a recipe that are constant or missing, in words.

    Parameters
    ----------
    columns
        Those columns.
    bars
        What they are made from; None for a ready table.
    """
    them = "it" if len(columns) == 1 else "them"
    help_ = f"features.exclude=[{','.join(columns)}] leaves {them} out"
    used = sorted({name for column in columns for name in recipe.uses(column)} - {"volume"})
    if bars and used and all(np.ptp(bars.frame[name]) == 0 for name in used):
        same = f"{' and '.join(used)} never change in {len(bars):,} bars"
        return f"{', '.join(columns)}; {same}"
    if set(columns) == set(recipe.columns):
        others = "features=v1, v2 or returns" if bars else "a table with others"
        help_ = f"use another feature set than {', '.join(columns)} ({others})"
    if bars is None or not _volume_in(columns, recipe):
        return help_
    used = bars.report.get("columns", {}).get("volume", "volume")
    first, *more = bars.report.get("other_volumes") or ["NAME"]
    also = f" (or {', '.join(more[:2])})" if more else ""
    return (
        f"{help_}, data.volume_column={shlex.quote(first)}{also} reads another volume than {used!r}"
    )


def _volume_in(columns: Sequence[str], recipe: Recipe) -> bool:
    return any("volume" in recipe.uses(column) for column in columns)


def bars_in_words(bars: Bars) -> str:
    """Number, length and span of bars: a wrong unit of their times shows here.

    >>> bars_in_words(bars)
    '2,000 bars of 1H, 2024-01-01 to 2024-03-24'
    """
    first, last = bars.frame.index[0], bars.frame.index[-1]
    return f"{len(bars):,} bars of {step_in_words(bars.step)}, {first:%Y-%m-%d} to {last:%Y-%m-%d}"


def check_output(path: Path) -> None:
    """Raise ConfigError unless `path` has a known extension and lies in a folder that exists."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path}: a feature table is written as {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the folder {path.parent} does not exist")


def _whole_bins(bars: Bars, timeframe: str) -> Bars:
    """Bars of a timeframe without a first one that began before the data."""
    binned = resample(bars, timeframe)
    if binned is bars or not len(binned):
        return binned
    began = binned.frame.index[0] - binned.step
    if bars.frame.index[0] - bars.step <= began:
        return binned
    return replace(binned, frame=binned.frame.iloc[1:], states=None)


def _join(recipe: Recipe, bins: dict[str, Bars]) -> tuple[np.ndarray, np.ndarray]:
    """Values of every column at every row of the grid, (T, D), and which rows lack one, (T,)."""
    row_time = bins[recipe.grid].time
    X = np.empty((len(row_time), len(recipe.columns)))
    missing = np.zeros(len(row_time), dtype=bool)
    threads = None if len(row_time) >= _MANY else 1
    values = run_all(lambda timeframe: _values_of(recipe, timeframe, bins), list(bins), threads)
    timeframes, features = map(np.array, zip(*recipe.sources(), strict=True))

    def join(rows: slice) -> None:
        for timeframe, of_bars in zip(bins, values, strict=True):
            columns = np.flatnonzero(timeframes == timeframe)
            pairs = features[columns], columns
            join_as_of(row_time[rows], bins[timeframe].time, of_bars, *pairs, X[rows])
        find_missing(X[rows], missing[rows])

    run_all(join, [slice(i, i + _MANY) for i in range(0, len(row_time), _MANY)], threads)
    return X, missing


def _values_of(recipe: Recipe, timeframe: str, bins: dict[str, Bars]) -> np.ndarray:
    return timeframe_values(bins[timeframe], recipe.window, recipe.vwap_window(timeframe))


def _no_complete_row(bars: Bars, recipe: Recipe, X: np.ndarray) -> DataError:
    """Explain why no row has every feature."""
    if len(bars) <= recipe.warmup(bars.step):
        return _too_few(bars, recipe)
    n_missing = np.isnan(X).sum(axis=0)
    most = int(n_missing.max())
    columns = [recipe.columns[i] for i in np.flatnonzero(n_missing == most)]
    help_ = ways_out(columns, recipe, bars)
    if most == len(X):
        return DataError(f"no value on any of {len(X)} rows: {help_}")
    if bars.gaps == "split" and not _volume_in(columns, recipe):
        help_ += ", data.gaps=bridge makes neighbours across gaps"
    return DataError(f"none of {len(X)} rows has every feature, {most} lack {columns[0]}: {help_}")


def _too_few(bars: Bars, recipe: Recipe) -> HistoryError:
    needed = recipe.warmup(bars.step) + 1
    windows = ", ".join(recipe.timeframes)
    return HistoryError(
        f"{bars_in_words(bars)}, are too few for the windows of {windows}: {needed:,} are needed; "
        f"if a bar is not {step_in_words(bars.step)} long, set data.timestamp_column; else "
        f"{', '.join([*window_settings(recipe), 'timeframe'])} decide"
    )


def window_settings(recipe: Recipe) -> list[str]:
    """Settings that the lengths of a recipe's windows come from."""
    stems = {FEATURES[place].template for _, place in recipe.sources()}
    used = ["features.window"] if any("{w}" in stem for stem in stems) else []
    return used + (["features.vwap_hours"] if any("vwap" in stem for stem in stems) else [])


def _write_beside(table: pa.Table, path: Path) -> None:
    with written_beside(path) as part:
        if path.suffix.lower() == ".csv":
            with part.open("wb") as file:
                write_rows(table, file, header=True)
        else:
            pa.parquet.write_table(table, part)
