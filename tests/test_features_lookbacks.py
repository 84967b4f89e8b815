"""Lookbacks: the newest observation from a few bars per timeframe is that of the whole history."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import ConfigError, DataError, HistoryError
from hmm_exp.features.build import build_features
from hmm_exp.features.lookbacks import (
    build_lookbacks,
    latest_observation,
    lookback_table,
    read_lookbacks,
    write_lookbacks,
)
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.options import ReadOptions
from tests.live_detector import SHORT, gappy_bars, live_detector, part

CASES = [
    ("1h", ["1H"], 48.0),
    ("1h", ["4H"], 48.0),
    ("1h", ["1H", "4H", "12H"], 48.0),
    ("1min", ["1min", "5min"], 1.0),
    ("5min", ["5min", "1H"], 6.0),
    ("15min", ["15min", "4H"], 24.0),
    ("30min", ["1H"], 24.0),
    ("1D", ["1D"], 240.0),
]


@pytest.mark.parametrize("stamp", ["open", "close"])
@pytest.mark.parametrize(("step", "timeframes", "vwap_hours"), CASES, ids=str)
def test_latest_observation_is_the_batch_row(step, timeframes, vwap_hours, stamp):
    recipe = Recipe.of_set("v1v2", timeframes, window=5, vwap_hours=vwap_hours)
    bars = gappy_bars(1500, step=step, stamp=stamp, lost=0.0, seed=1)
    hours = (recipe.warmup(bars.step) + 1) * bars.step / pd.Timedelta(hours=1)
    table = build_features(bars, recipe)
    for last in range(len(bars) - 30, len(bars)):
        known = part(bars, slice(last + 1))
        observation = latest_observation(build_lookbacks(known, timeframes, hours), recipe)
        row = table.frame.loc[observation.name]
        assert np.abs(observation - row).max() < 1e-12
        assert list(observation.index) == list(recipe.columns)


@pytest.mark.parametrize("features", ["v1v2", "range"])
def test_latest_observation_across_gaps(features):
    recipe, bars = Recipe.of_set(features, ["1H", "4H"], **SHORT), gappy_bars(1200, seed=2)
    table = build_features(bars, recipe)
    for last in range(700, len(bars), 7):
        lookbacks = build_lookbacks(part(bars, slice(last + 1)), ["1H", "4H"], hours=240)
        observation = latest_observation(lookbacks, recipe)
        row = table.frame.loc[observation.name]
        np.testing.assert_allclose(observation, row, rtol=0, atol=1e-12)


def test_a_lookback_holds_whole_recent_bars_only():
    bars = gappy_bars(300, lost=0.0)
    lookbacks = build_lookbacks(bars, ["1H", "4H"], hours=24)
    end = bars.frame.index[-1]
    assert len(lookbacks["1H"]) == 24
    assert lookbacks["4H"].frame.index[0] - lookbacks["4H"].step >= end - pd.Timedelta(hours=24)
    assert lookbacks["4H"].frame.index[-1] <= end


def test_too_short_a_lookback_says_how_long_it_must_be():
    recipe = Recipe.of_set("v1", ["1H", "4H"], **SHORT)
    lookbacks = build_lookbacks(gappy_bars(300, lost=0.0), ["1H", "4H"], hours=16)
    with pytest.raises(
        HistoryError, match=r"bars of 4H, .* are too few: the windows need 5, .* 20 hours"
    ):
        latest_observation(lookbacks, recipe)
    with pytest.raises(HistoryError, match="no whole bar of 12H"):
        build_lookbacks(gappy_bars(300, lost=0.0), ["12H"], hours=5)


def test_a_timeframe_that_is_not_there_is_named():
    recipe, bars = Recipe.of_set("v1", ["1H", "4H"], **SHORT), gappy_bars(300)
    with pytest.raises(DataError, match="no lookback of 4H: there are 1H"):
        latest_observation(build_lookbacks(bars, ["1H"], hours=100), recipe)
    with pytest.raises(ConfigError, match="must be above 0"):
        build_lookbacks(bars, ["1H"], hours=0)


def test_a_folder_of_lookbacks_gives_the_regime_of_the_whole_history(tmp_path):
    recipe, bars = Recipe.of_set("v1v2", ["1H", "4H"], **SHORT), gappy_bars(1500, lost=0.01)
    detector = live_detector(recipe)
    write_lookbacks(build_lookbacks(bars, recipe.timeframes, hours=900), tmp_path)
    lookbacks = read_lookbacks(tmp_path, recipe.timeframes, ReadOptions("open"))
    ours = detector.filter(lookback_table(lookbacks, recipe)).iloc[-1]
    theirs = detector.filter(bars).iloc[-1]
    assert ours["available_at"] == theirs["available_at"]
    assert abs(ours["p_state_0"] - theirs["p_state_0"]) < 1e-9


def test_a_folder_that_lacks_or_mixes_up_a_timeframe_is_refused(tmp_path):
    bars = gappy_bars(300, lost=0.0)
    lookbacks = build_lookbacks(bars, ["1H", "4H"], hours=200)
    write_lookbacks({"1H": lookbacks["1H"]}, tmp_path)
    with pytest.raises(DataError, match=r"holds no 4H\.csv"):
        read_lookbacks(tmp_path, ["1H", "4H"], ReadOptions("open"))
    write_lookbacks({"4H": lookbacks["1H"]}, tmp_path)
    with pytest.raises(DataError, match="not of 4H"):
        read_lookbacks(tmp_path, ["1H", "4H"], ReadOptions("open"))
