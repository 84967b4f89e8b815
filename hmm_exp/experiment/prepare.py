"""Prepare a run from its config: bars, features, split, scaler, scaled rows, next returns.

All faults of the input are found here, before any fit.
"""

import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hmm_exp.config import NOT_IN_RESULT, Config, flat
from hmm_exp.detector.detector import feature_table
from hmm_exp.errors import ConfigError, DataError, FitError, few
from hmm_exp.experiment.cache import FOLDER as CACHE
from hmm_exp.experiment.source import (
    Source,
    column_step,
    read_options,
    read_source,
    shared_features,
)
from hmm_exp.features.build import FeatureTable, build_features, ways_out, window_settings
from hmm_exp.features.lost import usable_in_words
from hmm_exp.features.recipe import Recipe, select_columns
from hmm_exp.hmm.rows import missing_rows
from hmm_exp.judge.bar_series import BarSeries
from hmm_exp.judge.split import TEST, TRAIN, VAL, Fold, Split, make_split, train_option
from hmm_exp.market.bars import OHLCV, step_in_words, timeframe_step
from hmm_exp.market.gaps import usual_step
from hmm_exp.market.reading import what_was_read
from hmm_exp.version import __version__

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

IN_FINGERPRINT_OTHERWISE = {
    "data.path",
    "model.n_states",
    "model.state_grid",
    "data.calendar",
    "split.like",
}  # digest; numbers of states; a report alone; dates
_BASE = "base"  # the timeframe of the bars themselves
_ROUNDING = 1e-9  # of means by hour: a log that follows the clock alone is constant without them
_HIDDEN = 1e-6  # of the deviation of a column: the floor of variances hides differences below
_SOME_ROWS = 1000


@dataclass(frozen=True)
class Prepared:
    """One observation space, ready to be fitted.

    Attributes
    ----------
    part
        BEFORE, TRAIN, VAL or TEST of every row, shape (T,).
    target_part
        The same for the next return of every base bar: the part its return falls in, shape (N,).
    season
        Means by hour that are taken off before the scaler, shape (24, D), see `features.season`;
        None without a season.
    given
        A scaler of other rows; None for that of the complete train rows.
    volatility
        Column of X that states are ordered by, or None.
    row_of_bar
        Latest row known at each base bar's close, -1 before the first, shape (N,).
    """

    config: Config
    source: Source
    table: FeatureTable
    split: Split
    part: np.ndarray
    target_part: np.ndarray
    season: np.ndarray | None
    volatility: int | None
    row_of_bar: np.ndarray
    seconds: float
    given: "StandardScaler | None" = None

    @cached_property
    def adjusted(self) -> FeatureTable:
        """The features less their season."""
        return self.table.less(self.season)

    @cached_property
    def scaler(self) -> "StandardScaler":
        """Scaler of the rows; made when it is first used, since scikit-learn takes long to load."""
        return self.given or _fitted(self.adjusted.frame[self.train].dropna())

    @cached_property
    def X(self) -> np.ndarray:  # noqa: N802
        """Scaled features, shape (T, D), NaN where missing."""
        rows = self.adjusted.X
        return np.ascontiguousarray((rows - self.scaler.mean_) / self.scaler.scale_)

    @property
    def recipe(self) -> Recipe:
        """Columns and windows of this observation space."""
        return self.table.recipe

    @property
    def base_step(self) -> pd.Timedelta:
        """Length of a base bar; of a row, when the features came ready."""
        bars = self.source.bars
        return timeframe_step(self.recipe.grid) if bars is None else bars.step

    def rescaled(self, rows: np.ndarray) -> "Prepared":
        """Same rows, their season and scaler fitted on `rows` (a mask) instead of train."""
        season = self.table.hour_means(rows)
        complete = self.table.less(season).frame[rows].dropna()
        if len(complete) < 2:
            grid = self.table.recipe.grid
            raise FitError(
                f"{len(complete)} complete rows of {grid} to fit on, at least 2 are needed"
            )
        return self.scaled_by(_fitted(complete), season)

    def scaled_by(self, scaler: "StandardScaler", season: np.ndarray | None) -> "Prepared":
        """Same rows under another scaler and season."""
        return replace(self, given=scaler, season=season)

    def cut(self, fold: Fold) -> "Prepared":
        """The bars and rows of a fold and no others, scaled by its own past.

        Its past is the train part, its out-of-sample block the validation part. Raises FitError
        when there are too few rows for a scaler.
        """
        rows = fold.rows(self.table.available_at)
        bars = slice(fold.first, fold.stop)
        time = self.source.time[bars]
        table = replace(
            self.table,
            frame=self.table.frame.iloc[rows],
            timestamp=self.table.timestamp.iloc[rows],
            steps=np.append(0, self.table.steps[rows][1:]),
            n_missing=int(np.isnan(self.adjusted.X[rows]).any(axis=1).sum()),
            ends=None if self.table.ends is None else self.table.ends[rows],
        )
        fresh = replace(
            self,
            source=self.source.cut(bars),
            table=table,
            split=fold.split,
            part=fold.split.of(table.available_at),
            target_part=_target_part(fold.split, time),
            row_of_bar=np.maximum(self.row_of_bar[bars] - rows.start, -1),
        )
        return fresh.rescaled(fresh.train)

    @property
    def row_return(self) -> np.ndarray | None:
        """Base log return at each row's close, shape (T,); None without base returns."""
        if self.source.log_return is None:
            return None
        bar_of_row = self.source.time.searchsorted(self.table.available_at, side="right") - 1
        return self.source.log_return[bar_of_row]

    @cached_property
    def series(self) -> BarSeries | None:
        """The base bars as the volatility forecasts read them; None without base returns.

        Hours are of `data.timezone`. The cells of a sweep share what is computed from them.
        """
        from hmm_exp.judge.volatility_baselines import bar_hours  # SciPy, when a fit needs it

        source = self.source
        if source.next_return is None:
            return None
        log_range = None if source.bars is None else source.bars.log_range
        hours = bar_hours(source.time, self.base_step, self.config.data.timezone)
        return BarSeries(source.next_return, log_range, *hours).shared

    @property
    def train(self) -> np.ndarray:
        """Mask of train rows, shape (T,)."""
        return self.part == TRAIN

    @property
    def observation_space(self) -> str:
        """Same space, comparable likelihoods: columns, timeframe, split, data."""
        exact = [self.recipe.to_dict(), self.split.to_dict(), self.source.digest]
        code = hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.config.features.name}@{self.timeframe}#{code}"

    @property
    def fingerprint(self) -> str:
        """Same fingerprint, same result: settings that can change it, data, package version."""
        settings = {
            name: value
            for name, value in flat(self.config).items()
            if name.split(".")[0] not in NOT_IN_RESULT and name not in IN_FINGERPRINT_OTHERWISE
        } | {"data.name": self.source.name, "states": self.config.state_grid}
        exact = [settings, self.source.digest, __version__]
        return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def bic_doubt(self) -> str | None:
        """Why BIC cannot choose a number of states, in words; None where it can."""
        if self.recipe.repeats == 1:
            return None
        return (
            f"BIC cannot choose the number of states: {self.recipe.repeats} rows repeat one value "
            "of the coarsest log range; use one timeframe, or selection=next_return"
        )

    @property
    def what_was_read(self) -> list[str]:
        """Rows that were read and kept, and rows that the features leave usable: a line each."""
        report = self.source.report
        sessions = report["gaps"].get("sessions", False)
        name = f"{self.config.features.name}@{self.timeframe} of {self.source.name}"
        usable = int((~missing_rows(self.adjusted.X)).sum())
        return [what_was_read(report), usable_in_words(self.table, name, usable, sessions)]

    @property
    def unseen_hours(self) -> list[str]:
        """A warning where rows after train are missing, because train has no bar of their hour."""
        later = (self.part == VAL) | (self.part == TEST)
        lost = missing_rows(self.adjusted.X) & ~missing_rows(self.table.X) & later
        if not lost.any():
            return []
        return [
            f"{lost.sum():,} of {later.sum():,} validation and test rows are missing: no train bar "
            f"ends in their hour (features.season=hour in {self.recipe.season})"
        ]

    @property
    def timeframe(self) -> str:
        """Timeframes of the features, finest first, such as "1H" or "1H+4H"."""
        return "+".join(self.recipe.timeframes)


def prepare(config: Config) -> Prepared:
    """Read, build, split, scale; see the errors of each part.

    Raises
    ------
    ConfigError, DataError, FitError
        For input that no fit should start on.
    """
    folder = config.sweep.folder
    cut = Path(folder) / CACHE if config.cache and folder else None
    # One process alone reads a symbol of a panel.
    cache = None if config.sweep.symbol else cut
    source = read_source(config.data, cache, needs_of(config), cut)
    started = time.perf_counter()
    config = on_base(config, source)
    table = _features(config, source, cache)
    split = make_split(source.time, config.split)
    part = split.of(table.available_at)
    train = part == TRAIN
    season = table.hour_means(train)
    _check_rows(table.less(season), train, config, source)
    row_of_bar = table.available_at.searchsorted(source.time, side="right") - 1
    return Prepared(
        config=config,
        source=source,
        table=table,
        split=split,
        part=part,
        target_part=_target_part(split, source.time),
        season=season,
        volatility=volatility_column(table.recipe),
        row_of_bar=row_of_bar,
        seconds=time.perf_counter() - started,
    )


def volatility_column(recipe: Recipe) -> int | None:
    """Column that orders the states: the finest log range, else Parkinson, else range."""
    for stem in ("log_range_current_", "close_parkinson_", "high_low_range_pct_current_"):
        found = [i for i, name in enumerate(recipe.columns) if name.startswith(stem)]
        if found:
            return min(found, key=lambda i: column_step(recipe.columns[i]))
    return None


def needs_of(config: Config) -> tuple[str, ...]:
    """Columns of bars that a config's features use; all for a ready table."""
    if config.data.kind == "features":
        return OHLCV
    hours = max(config.features.vwap_hours, 1.0)  # bars of `base` may be shorter than 1H
    features = replace(config.features, vwap_hours=hours)
    return recipe_of(_on_base(replace(config, features=features), "1H")).needs


def on_base(config: Config, source: Source) -> Config:
    """The config with the length of the bars in place of the timeframe `base`.

    Raises ConfigError for bars that no timeframe names.
    """
    if _BASE not in config.timeframe.timeframes:
        return config
    if source.bars is not None:
        step = source.bars.step
    else:
        step = pd.Timedelta(usual_step(source.time.as_unit("ns").asi8), unit="ns")
    if step.value % 60_000_000_000:
        seconds = step.total_seconds()
        raise ConfigError(f"timeframe={_BASE}: bars of {seconds:g} s: a timeframe is whole minutes")
    return _on_base(config, step_in_words(step))


def _on_base(config: Config, name: str) -> Config:
    names = [name if each == _BASE else each for each in config.timeframe.timeframes]
    return replace(config, timeframe=replace(config.timeframe, timeframes=names))


def _features(config: Config, source: Source, cache: Path | None) -> FeatureTable:
    recipe = recipe_of(config, source.frame)
    if (bars := source.bars) is not None:
        return shared_features(cache, source.digest, recipe, lambda: build_features(bars, recipe))
    assert source.frame is not None
    options = read_options(config.data)
    return feature_table(source.frame, recipe, timeframe_step(recipe.grid), options)


def recipe_of(config: Config, ready: pd.DataFrame | None = None) -> Recipe:
    """Feature recipe of a config; an empty column list takes all columns of a ready table."""
    features = config.features
    windows = (features.window, features.vwap_hours)
    if features.name != "columns":
        recipe = Recipe.of_set(features.name, config.timeframe.timeframes, *windows)
        names = list(recipe.columns)
    else:
        names = features.columns or ([] if ready is None else list(ready.columns))
        names = [name for name in names if name != "timestamp"]
    names = select_columns(names, features.include, features.exclude)
    if ready is not None and (absent := [name for name in names if name not in ready.columns]):
        has = few(str(name) for name in ready if name != "timestamp")
        raise DataError(
            f"no column {', '.join(absent)} in {config.data.path}, which has {has}: choose "
            "features and timeframe of its columns, or features=columns, which takes all of them"
        )
    recipe = Recipe.of_columns(names, *windows)
    return recipe.by_hour(config.data.timezone) if features.season == "hour" else recipe


def _target_part(split: Split, time: pd.DatetimeIndex) -> np.ndarray:
    """Part of the bar after each; of the last bar itself."""
    part = split.of(time)
    return np.append(part[1:], part[-1:])


def _fitted(rows: pd.DataFrame) -> "StandardScaler":
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit(rows.to_numpy())


def _check_rows(table: FeatureTable, train: np.ndarray, config: Config, source: Source) -> None:
    """Check that a fit can use the complete train rows."""
    rows = table.frame[train].dropna()
    n_states = max(config.state_grid)
    if len(rows) < 2:
        help_ = _longer_train(config, table, source)
        raise DataError(
            f"{len(rows)} complete train rows of {table.recipe.grid} after a warm-up of "
            f"{table.warmup_rows} rows, at least 2 are needed: {help_}"
        )
    seasonal = {table.recipe.columns[column] for column in table.recipe.seasonal}
    constant = [
        str(name)
        for name in rows
        if rows[name].iloc[0] == rows[name].min() == rows[name].max()
        or (name in seasonal and np.ptp(rows[name]) < _ROUNDING)
    ]
    if constant:
        help_ = ways_out(constant, table.recipe, source.bars)
        raise FitError(f"constant on all {len(rows)} train rows: {help_}")
    for name in rows:
        _check_scale(str(name), rows[name].to_numpy())
    some = rows.head(_SOME_ROWS)  # nearly always enough, and found much sooner
    distinct = len(some.drop_duplicates())
    if distinct < n_states:
        distinct = len(rows.drop_duplicates())
    if distinct < n_states:
        option = "model.state_grid" if config.model.state_grid else "model.n_states"
        raise FitError(
            f"{n_states} states from {distinct} distinct train rows: use fewer states ({option})"
        )


def _check_scale(name: str, values: np.ndarray) -> None:
    """Refuse a column whose differences the scaler would lose. Raises FitError."""
    largest = np.abs(values).max()
    with np.errstate(all="ignore"):
        offset, spread = values - values.mean(), values.std()
    if not 0 < spread < np.inf:
        raise FitError(f"{name}: values up to {largest:.3g} have no finite variance: rescale it")
    most = values[np.abs(offset) < spread]
    if most.size and 0 < np.ptp(most) < _HIDDEN * spread:
        outlier = values[np.abs(offset).argmax()]
        raise FitError(
            f"{name}: beside {outlier:.3g} its other values are as good as equal: remove that row"
        )


def _longer_train(config: Config, table: FeatureTable, source: Source) -> str:
    """Ways to more train rows, in words."""
    windows = [] if source.bars is None else window_settings(table.recipe)
    shorter = f", a smaller {' or '.join(windows)}" if windows else ""
    return f"more data, a later end of train ({train_option(config.split)}){shorter}"
