"""Coarser bars never know what is not complete."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.errors import ConfigError, HistoryError
from hmm_exp.market.clean import bars_from_frame
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.resample import push_bar, resample
from hmm_exp.market.synthetic import make_market

MARKET = make_market(400)
TIMEFRAMES = st.sampled_from(["2H", "4H", "12H", "1D"])


def without(bars, keep):
    """The bars where `keep` is true, as if the others had never come."""
    return replace(bars, frame=bars.frame[keep], states=bars.states[keep])


def by_pandas(bars, timeframe):
    rule = timeframe.replace("H", "h")
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    bins = bars.frame.resample(rule, closed="right", label="right").agg(how).dropna()
    return bins[bins.index <= bars.frame.index[-1]]


@settings(max_examples=25, deadline=None)
@given(TIMEFRAMES, st.integers(30, 400), st.integers(0, 10_000), st.floats(0.3, 1.0))
def test_bins_agree_with_pandas_on_any_set_of_bars(timeframe, n, seed, share):
    keep = np.random.default_rng(seed).random(400) < share
    keep[n:], keep[:30] = False, True
    bars = without(MARKET, keep)
    ours, theirs = resample(bars, timeframe), by_pandas(bars, timeframe)
    assert list(ours.frame.index) == list(theirs.index)
    np.testing.assert_allclose(ours.ohlcv, theirs.to_numpy(), rtol=1e-14)


@settings(max_examples=25, deadline=None)
@given(TIMEFRAMES, st.integers(30, 400), st.integers(0, 10_000))
def test_resampling_ignores_the_future_bit_for_bit(timeframe, n, seed):
    rng = np.random.default_rng(seed)
    keep = rng.random(400) < 0.8
    keep[:30] = True
    whole = without(MARKET, keep)
    past = whole.frame.index <= MARKET.frame.index[n - 1]
    cut = resample(without(whole, past), timeframe)
    rewritten = whole.frame.copy()
    prices = ["open", "high", "low", "close", "volume"]
    rewritten.loc[~past, prices] *= rng.uniform(0.5, 2.0)
    for other in (whole, replace(whole, frame=rewritten)):
        earlier = resample(other, timeframe).frame.iloc[: len(cut)]
        pd.testing.assert_frame_equal(earlier, cut.frame, check_exact=True)


@settings(max_examples=15, deadline=None)
@given(TIMEFRAMES, st.integers(0, 10_000))
def test_a_stream_of_bars_gives_the_bits_of_the_batch(timeframe, seed):
    keep = np.random.default_rng(seed).random(400) < 0.6
    keep[:30] = True
    bars = without(MARKET, keep)
    batch = resample(bars, timeframe)
    place, total = np.zeros(2, np.int64), np.empty(5)
    edges, bins, counts = np.empty(2, np.int64), np.empty((2, 5)), np.empty(2, np.int64)
    seen = []
    for time, bar in zip(bars.time, bars.ohlcv, strict=True):
        n = push_bar(place, total, batch.step.value, time, bar, edges, bins, counts)
        seen += [(edge, *row) for edge, row in zip(edges[:n], bins[:n].tolist(), strict=True)]
    expected = [(e, *row) for e, row in zip(batch.time, batch.ohlcv.tolist(), strict=True)]
    assert seen == expected


@pytest.mark.parametrize(("stamp", "first"), [("open", "00:00"), ("close", "04:00")])
def test_a_coarser_stamp_follows_the_convention_of_the_source(stamp, first):
    frame = MARKET.frame.copy()
    if stamp == "close":
        frame["timestamp"] = frame.index
    bars = resample(bars_from_frame(frame, ReadOptions(stamp)), "4H")
    assert bars.frame["timestamp"].iloc[0].strftime("%H:%M") == first
    assert bars.frame.index[0].strftime("%H:%M") == "04:00"


def test_a_trailing_incomplete_bin_does_not_exist():
    assert len(resample(without(MARKET, np.arange(400) < 47), "1D")) == 1
    assert len(resample(without(MARKET, np.arange(400) < 48), "1D")) == 2


def test_a_late_bar_completes_the_bin_before_it_and_its_own():
    keep = np.ones(400, dtype=bool)
    keep[46:71] = False  # the next bar is the last of the third day
    bars = resample(without(MARKET, keep), "1D")
    assert bars.report["partial_bins"] == 2
    assert bars.report["first_partial"] == "2021-01-02T00:00:00Z"
    assert resample(replace(without(MARKET, keep), gaps="bridge"), "1D").report["partial_bins"] == 0


def test_planted_states_are_those_at_the_close():
    bars = resample(MARKET, "4H")
    np.testing.assert_array_equal(bars.states, MARKET.states[3::4])


def test_the_own_timeframe_returns_the_bars():
    assert resample(MARKET, "1H") is MARKET


@pytest.mark.parametrize(
    ("timeframe", "line"),
    [
        ("15min", r"15min is finer than the bars \(1H\); set timeframe=1H or coarser"),
        ("90min", r"90min is no whole multiple of the bars \(1H\)"),
        ("4h", r"unknown timeframe '4h'"),
    ],
)
def test_a_timeframe_that_cannot_be_made_says_what_to_set(timeframe, line):
    with pytest.raises(ConfigError, match=line):
        resample(MARKET, timeframe)


def test_too_few_bars_for_one_bin_are_an_error():
    with pytest.raises(HistoryError, match="no complete bar of 1D in 5"):
        resample(without(MARKET, np.arange(400) < 5), "1D")
