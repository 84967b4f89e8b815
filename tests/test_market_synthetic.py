"""The planted market is legal, seeded and worth recovering."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import ConfigError
from hmm_exp.market.clean import bars_from_frame
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.synthetic import make_market


@pytest.fixture(scope="module")
def market():
    return make_market()


def log_returns(bars):
    return np.diff(np.log(bars.frame["close"]))


def test_the_same_seed_gives_the_same_bits():
    pd.testing.assert_frame_equal(make_market(500).frame, make_market(500).frame, check_exact=True)
    assert not make_market(500, seed=8).frame.equals(make_market(500).frame)


def test_three_years_of_hours_are_valid_bars(market):
    checked = bars_from_frame(market.frame, ReadOptions("open"))
    pd.testing.assert_frame_equal(checked.frame, market.frame)
    assert len(market) == 26_280
    assert market.frame["timestamp"].iloc[0] == pd.Timestamp("2021-01-01", tz="UTC")
    np.testing.assert_array_equal(market.frame["open"][1:], market.frame["close"][:-1])


@pytest.mark.parametrize("n_regimes", [2, 3, 5])
@pytest.mark.parametrize("seed", [1, 7])
def test_regimes_are_numbered_calm_first_and_last(n_regimes, seed):
    bars = make_market(n_regimes=n_regimes, seed=seed)
    spread = [log_returns(bars)[bars.states[1:] == k].std() for k in range(n_regimes)]
    assert spread == sorted(spread)
    assert spread[-1] > 2 * spread[0]
    assert 50 < len(bars) / (1 + np.count_nonzero(np.diff(bars.states))) < 250


def test_tails_are_fat_within_reason(market):
    returns = pd.Series(log_returns(market))
    assert 1 < returns.kurt() < 15
    assert 0 < returns[market.states[1:] == 2].kurt() < 5


def test_volume_rises_with_volatility(market):
    volume = market.frame["volume"].groupby(market.states).median()
    assert volume.is_monotonic_increasing
    assert volume.iloc[2] > 2 * volume.iloc[0]


def test_the_path_leaves_wicks_on_most_bars(market):
    frame = market.frame
    body = (frame["close"] - frame["open"]).abs()
    assert (frame["high"] - frame["low"] > body).mean() > 0.9


def test_one_regime_is_a_market_too():
    assert not make_market(100, n_regimes=1).states.any()


@pytest.mark.parametrize("numbers", [{"n_bars": 1}, {"n_regimes": 0}])
def test_a_market_without_bars_or_regimes_is_refused(numbers):
    with pytest.raises(ConfigError, match="needs at least 2 and 1"):
        make_market(**numbers)


def test_regimes_are_seen_in_range_smoothed_over_a_day(market):
    spread = np.log(market.frame["high"] / market.frame["low"]).rolling(20).mean().to_numpy()[20:]
    states = market.states[20:]
    middle = [np.median(spread[states == k]) for k in range(3)]
    nearest = np.argmin(np.abs(np.log(spread[:, None] / np.array(middle))), axis=1)
    assert (nearest == states).mean() > 0.8
