"""Names of states: by volatility, or by a feature where the volatility is about equal."""

import numpy as np
import pytest

from hmm_exp.features.recipe import FEATURES, SETS
from hmm_exp.hmm.states import labels
from hmm_exp.judge.naming import _WORDS, state_names, state_traits

RANGE, VWAP, RETURN = (
    "high_low_range_pct_current_1H",
    "close_over_vwap_1H",
    "close_logret_current_1H",
)


def named(means, spread, columns, ordered_by):
    means, spread = np.array(means, float), np.broadcast_to(spread, np.shape(means)).astype(float)
    return state_names(state_traits(means, spread, columns, ordered_by), n_states=len(means))


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 6])
def test_states_that_differ_in_volatility_have_the_plain_names(n_states):
    means = np.column_stack([np.arange(n_states), 5.0 * (-1.0) ** np.arange(n_states)])
    assert named(means, 1.0, [RANGE, VWAP], 0) == labels(n_states)


def test_equal_volatility_on_both_sides_of_vwap_is_named_by_the_side():
    means = [[0.004, 1.0], [0.009, 0.95], [0.0091, 1.06], [0.02, 1.0]]
    assert named(means, [0.002, 0.03], [RANGE, VWAP], 0) == (
        "vol-0",
        "vol-1 below VWAP",
        "vol-2 above VWAP",
        "vol-3",
    )


def test_a_side_that_both_states_share_is_a_matter_of_degree():
    above = named([[0.01, 1.12], [0.01, 1.03]], [0.01, 0.02], [RANGE, VWAP], 0)
    assert above == ("vol-0 more above VWAP", "vol-1 less above VWAP")
    below = named([[0.01, 0.88], [0.01, 0.97]], [0.01, 0.02], [RANGE, VWAP], 0)
    assert below == ("vol-0 more below VWAP", "vol-1 less below VWAP")


def test_two_equal_states_are_not_called_calm_and_turbulent():
    assert named([[1.0, -1.0], [1.1, 1.0]], 1.0, [RANGE, RETURN], 0) == (
        "vol-0 falling",
        "vol-1 rising",
    )
    assert named([[1.0], [1.1]], 1.0, [RANGE], 0) == ("vol-0", "vol-1")


def test_a_feature_that_differs_less_than_the_volatility_names_nothing():
    assert named([[1.0, 0.9], [1.4, 1.2]], 1.0, [RANGE, VWAP], 0) == ("vol-0", "vol-1")


def test_the_feature_that_differs_most_names_the_states():
    means = [[1.0, 0.0, 0.5], [1.0, 1.0, 3.5]]
    names = named(means, 1.0, [RANGE, RETURN, "volume_rvol_20_1H"], 0)
    assert names == ("vol-0 low volume", "vol-1 high volume")


def test_of_three_equal_states_the_middle_one_has_no_words():
    means = [[1.0, -1.0], [1.1, 0.05], [1.2, 1.0], [3.0, 0.0]]
    assert named(means, 1.0, [RANGE, RETURN], 0) == (
        "vol-0 falling",
        "vol-1",
        "vol-2 rising",
        "vol-3",
    )


def test_two_separate_pairs_of_equal_states_are_both_named():
    means = [[1.0, -1.0], [1.1, 1.0], [4.0, 2.0], [4.1, -2.0]]
    assert named(means, 1.0, [RANGE, RETURN], 0) == (
        "vol-0 falling",
        "vol-1 rising",
        "vol-2 rising",
        "vol-3 falling",
    )


def test_without_a_column_of_volatility_the_spread_of_returns_decides():
    means = [[0.9], [1.1]]
    assert named(means, 0.05, [VWAP], np.array([0.01, 0.02])) == ("calm", "turbulent")
    equal = named(means, 0.05, [VWAP], np.array([0.010, 0.012]))
    assert equal == ("vol-0 below VWAP", "vol-1 above VWAP")
    assert named(means, 0.05, [VWAP], None) == ("calm", "turbulent")


def test_several_timeframes_are_told_apart():
    columns = ["log_range_current_1H", "close_over_vwap_1H", "close_over_vwap_4H"]
    means = [[-5.0, 1.0, 0.9], [-5.0, 1.0, 1.1]]
    assert named(means, 0.05, columns, 0) == ("vol-0 below VWAP 4H", "vol-1 above VWAP 4H")


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.template)
@pytest.mark.parametrize("window", [20, 144])
def test_every_feature_has_words(feature, window):
    column = feature.column(window, "1H")
    ordering = "log_range_current_4H"
    title = f"{column} less hour mean" if feature.seasonal else column
    low, high = named([[0.0, -3.0], [0.0, 3.0]], 1.0, [ordering, title], 0)
    assert low != high
    assert feature.template.partition("_{")[0] not in low
    assert "{" not in low + high


def test_a_column_of_another_name_is_named_as_it_is():
    assert named([[0.0, 1.0], [0.0, 9.0]], 1.0, [RANGE, "funding_rate"], 0) == (
        "vol-0 low funding_rate",
        "vol-1 high funding_rate",
    )


def test_words_know_every_feature_and_no_other():
    assert set(_WORDS) == {feature.template for columns in SETS.values() for feature in columns}


def test_successive_models_keep_the_words_that_all_of_them_give():
    side, swapped = ("below VWAP", "above VWAP", ""), ("above VWAP", "below VWAP", "")
    assert state_names(side, side) == ("vol-0 below VWAP", "vol-1 above VWAP", "vol-2")
    assert state_names(swapped, side) == ("vol-0", "vol-1", "vol-2")
    assert state_names(None, side) == ("vol-0", "vol-1", "vol-2")
    assert state_names(side, None, n_states=3) == labels(3)
