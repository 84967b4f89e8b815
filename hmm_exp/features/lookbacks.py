"""Lookbacks: per timeframe just the last bars, enough to compute the newest observation.

For those who keep their bars in one table per timeframe. What comes out are features of the last
row, never a regime: a regime needs the filter, and so a history or a stream.

>>> lookbacks = build_lookbacks(bars, ["1H", "4H"], hours=24 * 35)
>>> latest_observation(lookbacks, Recipe.of_set("v1", ["1H", "4H"]))
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError, DataError, HistoryError
from hmm_exp.features.build import FeatureTable, bars_in_words, timeframe_values
from hmm_exp.features.kernel import join_as_of
from hmm_exp.features.recipe import FEATURES, Recipe
from hmm_exp.features.season import bar_ends
from hmm_exp.files import written_beside
from hmm_exp.market.bars import OHLCV, Bars, timeframe_step
from hmm_exp.market.gaps import chain_steps
from hmm_exp.market.iso import iso_texts
from hmm_exp.market.load import read_bars
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.resample import resample

Lookbacks = Mapping[str, Bars]
SUFFIXES = (".csv", ".csv.gz", ".parquet")


def build_lookbacks(bars: Bars, timeframes: Sequence[str], hours: float) -> dict[str, Bars]:
    """Bars of every timeframe that were complete within the last `hours`.

    Parameters
    ----------
    bars
        Base bars; `hours` are counted back from when the last one was complete.
    timeframes
        Names such as "1H", each a whole multiple of the base bars.
    hours
        Length of the lookback. Bars that began before it are left out.

    Raises
    ------
    ConfigError
        When `hours` is not above 0, or a timeframe does not fit the bars.
    HistoryError
        When a timeframe has no whole bar in the lookback.
    """
    if not hours > 0:
        raise ConfigError(f"a lookback of {hours} hours: must be above 0")
    begin = bars.frame.index[-1] - pd.Timedelta(hours=hours)
    begin = max(begin, bars.frame.index[0] - bars.step)
    return {name: _recent(resample(bars, name), name, begin) for name in timeframes}


def latest_observation(lookbacks: Lookbacks, recipe: Recipe) -> pd.Series:
    """Features of the newest row, by the name of their columns; `name` is its `available_at`.

    A value equals that of `build_features` over the whole history at the same row. NaN means that
    it is missing there: a gap before the bar, no volume in a window.

    Raises
    ------
    HistoryError
        When a lookback holds fewer bars than the windows of its timeframe need.
    DataError
        When a timeframe of the recipe has no lookback.
    """
    for timeframe in recipe.timeframes:
        _check_length(_of(lookbacks, timeframe), timeframe, recipe)
    return observations(lookbacks, recipe).iloc[-1]


def observations(lookbacks: Lookbacks, recipe: Recipe) -> pd.DataFrame:
    """Features of every row of the finest timeframe, index `available_at`; NaN while they fill."""
    row_time = _of(lookbacks, recipe.grid).time
    X = np.full((len(row_time), len(recipe.columns)), np.nan)
    timeframes, features = map(np.array, zip(*recipe.sources(), strict=True))
    for timeframe in recipe.timeframes:
        bars, columns = _of(lookbacks, timeframe), np.flatnonzero(timeframes == timeframe)
        values = timeframe_values(bars, recipe.window, recipe.vwap_window(timeframe))
        join_as_of(row_time, bars.time, values, features[columns], columns, X)
    return pd.DataFrame(X, lookbacks[recipe.grid].frame.index, list(recipe.columns))


def lookback_table(lookbacks: Lookbacks, recipe: Recipe) -> FeatureTable:
    """Features of every row from the first complete one on, as `build_features` gives them.

    Raises HistoryError where no row has every feature.
    """
    frame = observations(lookbacks, recipe)
    complete = frame.notna().all(axis=1).to_numpy()
    if not complete.any():
        raise HistoryError("the lookbacks are too short: no row has every feature")
    first = int(complete.argmax())
    bars = lookbacks[recipe.grid]
    return FeatureTable(
        frame=frame.iloc[first:],
        timestamp=bars.frame["timestamp"].iloc[first:],
        steps=chain_steps(bars.time[first:], bars.step.as_unit("ns").value, bars.gaps),
        warmup_rows=first,
        n_missing=int((~complete[first:]).sum()),
        recipe=recipe,
        ends=bar_ends(recipe, bars.time[first:], {k: b.time for k, b in lookbacks.items()}),
    )


def read_lookbacks(
    folder: str | Path,
    timeframes: Sequence[str],
    options: ReadOptions,
    needs: Collection[str] = OHLCV,
) -> dict[str, Bars]:
    """Lookbacks from a folder with a file of bars for each timeframe, such as `4H.csv`.

    `needs` are the columns that will be used. Raises DataError when a file is missing or its bars
    are not of its timeframe.
    """
    lookbacks = {}
    for name in timeframes:
        path = _file(Path(folder), name)
        lookbacks[name] = read_bars(path, options, needs=needs)
        if lookbacks[name].step != timeframe_step(name):
            raise DataError(f"{path} holds bars of {lookbacks[name].step}, not of {name}")
    return lookbacks


def write_lookbacks(
    lookbacks: Lookbacks, folder: str | Path, options: ReadOptions | None = None
) -> None:
    """Write each lookback as `{timeframe}.csv`, each file under another name and renamed.

    The columns of time and volume have the names that `options` choose, if they choose any.
    """
    names = {} if options is None else {"timestamp": options.time, "volume": options.volume}
    for name, bars in lookbacks.items():
        with written_beside(Path(folder) / f"{name}.csv") as part:
            stamps = iso_texts(bars.frame["timestamp"]).to_pylist()
            bars.frame.assign(timestamp=stamps).rename(columns=names).to_csv(part, index=False)


def _recent(bars: Bars, timeframe: str, begin: pd.Timestamp) -> Bars:
    """Bars that began at `begin` or later."""
    recent = bars.frame[bars.frame.index >= begin + bars.step]
    if recent.empty:
        raise HistoryError(f"the lookback holds no whole bar of {timeframe}")
    return replace(bars, frame=recent, states=None)


def _check_length(bars: Bars, timeframe: str, recipe: Recipe) -> None:
    vwap = recipe.vwap_window(timeframe)
    used = [feature for source, feature in recipe.sources() if source == timeframe]
    needed = max((FEATURES[i].lookback(recipe.window, vwap) for i in used), default=1)
    if len(bars) < needed:
        hours = needed * bars.step / pd.Timedelta(hours=1)
        raise HistoryError(
            f"{bars_in_words(bars)}, are too few: the windows need {needed:,}, a lookback of at "
            f"least {hours:,g} hours and one more bar"
        )


def _of(lookbacks: Lookbacks, timeframe: str) -> Bars:
    if timeframe not in lookbacks:
        raise DataError(f"no lookback of {timeframe}: there are {', '.join(lookbacks)}")
    return lookbacks[timeframe]


def _file(folder: Path, timeframe: str) -> Path:
    for suffix in SUFFIXES:
        if (folder / f"{timeframe}{suffix}").is_file():
            return folder / f"{timeframe}{suffix}"
    raise DataError(f"{folder} holds no {timeframe}{SUFFIXES[0]}, {' nor '.join(SUFFIXES[1:])}")
