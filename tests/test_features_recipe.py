"""Columns, timeframes and windows of a feature recipe."""

import json

import pandas as pd
import pytest

from hmm_exp.errors import ConfigError, ModelError
from hmm_exp.features.recipe import Recipe, column_timeframe, select_columns

HOUR = pd.Timedelta(hours=1)


def test_columns_of_a_set_run_by_feature_then_by_timeframe_as_listed():
    assert Recipe.of_set("v1", ["4H", "1H"], window=14).columns == (
        "close_logret_current_4H",
        "close_logret_current_1H",
        "log_volume_delta_current_4H",
        "log_volume_delta_current_1H",
        "close_parkinson_14_4H",
        "close_parkinson_14_1H",
    )


def test_returns_are_the_first_column_of_v1_alone():
    assert Recipe.of_set("returns", ["4H", "1H"]).columns == (
        "close_logret_current_4H",
        "close_logret_current_1H",
    )


def test_v1v2_is_v1_followed_by_v2():
    both = Recipe.of_set("v1v2", ["1H"]).columns
    assert both == Recipe.of_set("v1", ["1H"]).columns + Recipe.of_set("v2", ["1H"]).columns
    assert both[3:] == (
        "close_ret_zscore_20_1H",
        "volume_rvol_20_1H",
        "close_over_vwap_1H",
        "close_log_ratio_vwap_1H",
        "high_low_range_pct_current_1H",
        "close_open_pct_current_1H",
    )


def test_range_is_one_column_for_each_timeframe_and_complete_from_the_first_bar_on():
    recipe = Recipe.of_set("range", ["4H", "1H"])
    assert recipe.columns == ("log_range_current_4H", "log_range_current_1H")
    assert Recipe.of_set("range", ["1H"]).warmup(HOUR) == 0
    assert recipe.needs == ("high", "low", "close")


@pytest.mark.parametrize(
    ("columns", "repeats"),
    [
        (("log_range_current_1H",), 1),
        (("log_range_current_1H", "log_range_current_4H"), 4),
        (("log_range_current_1H", "log_range_current_4H", "log_range_current_1D"), 24),
        (("close_logret_current_30min", "log_range_current_4H"), 8),
        (("log_range_current_1H", "close_logret_current_4H"), 1),
        (("close_parkinson_20_1H", "close_parkinson_20_4H"), 1),
    ],
)
def test_a_recipe_knows_how_many_rows_repeat_a_coarser_log_range(columns, repeats):
    assert Recipe.of_columns(columns).repeats == repeats


def test_rows_are_those_of_the_finest_timeframe():
    assert Recipe.of_set("v1", ["1D", "30min", "4H"]).grid == "30min"


def test_columns_by_name_keep_their_order_and_bring_their_timeframes():
    columns = ("close_over_vwap_4H", "close_parkinson_20_1H", "close_logret_current_4H")
    recipe = Recipe.of_columns(columns)
    assert recipe.columns == columns
    assert recipe.timeframes == ("4H", "1H")
    assert recipe.sources() == [("4H", 5), ("1H", 2), ("4H", 0)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe.of_set("v3", ["1H"]), "unknown feature set 'v3'"),
        (lambda: Recipe.of_set("v1", ["1h"]), "unknown timeframe '1h'"),
        (lambda: Recipe.of_set("v1", []), "no timeframe"),
        (lambda: Recipe.of_set("v1", ["1H", "60min"]), "1H and 60min are the same"),
        (lambda: Recipe.of_set("v1", ["1H"], window=1), "features.window=1"),
        (lambda: Recipe.of_set("v1", ["1H"], vwap_hours=float("nan")), "features.vwap_hours=nan"),
        (
            lambda: Recipe.of_set("v2", ["1D"], vwap_hours=12),
            "shorter than one bar of 1D, which close_over_vwap_1D needs: at least 24",
        ),
        (
            lambda: Recipe.of_columns(["close_logret_curent_1H"]),
            "did you mean close_logret_current_1H",
        ),
        (lambda: Recipe.of_columns(["close_parkinson_14_1H"]), "features.window=20"),
        (lambda: Recipe.of_columns(["rubbish"]), "unknown feature column 'rubbish'"),
        (lambda: Recipe.of_columns([]), "no feature column"),
        (lambda: Recipe.of_columns(["close_over_vwap_1H"] * 2), "given twice"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("columns", "bars"),
    [
        (["close_open_pct_current_1H"], 1),
        (["close_logret_current_1H"], 2),
        (["close_parkinson_20_1H"], 20),
        (["close_ret_zscore_20_1H"], 21),
        (["close_over_vwap_1H"], 720),
        (["close_logret_current_4H"], 2 * 4 + 3),
        (["close_logret_current_1H", "close_parkinson_20_1D"], 20 * 24 + 23),
    ],
)
def test_warmup_is_the_longest_window_at_the_worst_alignment(columns, bars):
    assert Recipe.of_columns(columns).warmup(HOUR) == bars - 1


def test_vwap_window_counts_whole_bars_of_the_timeframe():
    recipe = Recipe.of_set("v2", ["1min", "7H", "1D"])
    assert [recipe.vwap_window(timeframe) for timeframe in recipe.timeframes] == [43_200, 102, 30]


def test_a_recipe_survives_json():
    recipe = Recipe.of_set("v1v2", ["1H", "4H"], window=7, vwap_hours=96.5)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ({"window": 10**7}, "window=10000000: must be a whole number, .* at most 100000"),
        ({"vwap_hours": 1e9}, "vwap_hours=1000000000.0: must be above 0 and at most 100000"),
        ({"vwap_hours": 1e308}, "above 0 and at most 100000"),
        ({"vwap_hours": float("inf")}, "must be above 0"),
    ],
)
def test_windows_that_no_memory_holds_are_refused(windows, message):
    with pytest.raises(ConfigError, match=message):
        Recipe.of_set("v2", ["1H", "4H"], **windows)


def test_a_damaged_stored_recipe_is_a_model_error():
    with pytest.raises(ModelError, match="timeframes"):
        Recipe.from_dict({"columns": ["close_over_vwap_1H"]})


@pytest.mark.parametrize(
    ("column", "timeframe"),
    [("close_over_vwap_4H", "4H"), ("a_15min", "15min"), ("close_parkinson_20", None)],
)
def test_a_suffix_names_the_timeframe(column, timeframe):
    assert column_timeframe(column) == timeframe


NAMES = ["close_logret_current_1H", "close_over_vwap_1H", "close_over_vwap_4H"]


@pytest.mark.parametrize(
    ("include", "exclude", "kept"),
    [
        ([], [], NAMES),
        (["*_1H"], [], NAMES[:2]),
        ([], ["*_4H"], NAMES[:2]),
        (["*vwap*", "*logret*"], ["*_4H"], NAMES[:2]),
    ],
)
def test_patterns_select_columns_in_their_order(include, exclude, kept):
    assert select_columns(NAMES, include, exclude) == kept


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (["*_2H"], [], "features.include pattern '\\*_2H' matches no column"),
        ([], ["*_2H"], "features.exclude pattern"),
        ([], ["*"], "leave no column"),
    ],
)
def test_a_pattern_without_effect_and_an_empty_selection_are_refused(include, exclude, message):
    with pytest.raises(ConfigError, match=message):
        select_columns(NAMES, include, exclude)


@pytest.mark.parametrize(
    ("columns", "overlaps"),
    [
        (["log_range_current_1H", "close_logret_current_1H"], False),
        (["log_range_current_4H"], False),
        (["log_range_current_1H", "log_range_current_4H"], True),
        (["close_logret_current_1H", "close_parkinson_20_1H"], True),
    ],
)
def test_rows_share_bars_in_windows_and_in_coarser_timeframes(columns, overlaps):
    assert Recipe.of_columns(columns).overlaps == overlaps


@pytest.mark.parametrize(
    ("name", "timeframe"), [("range", "31D"), ("v1", "60D"), ("returns", "90D")]
)
def test_the_window_of_a_price_that_no_column_uses_may_be_shorter_than_a_bar(name, timeframe):
    assert Recipe.of_set(name, [timeframe]).vwap_window(timeframe) == 1
