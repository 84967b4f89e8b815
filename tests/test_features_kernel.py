"""The stepping kernel against the formulas, written out plainly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.compiling import njit
from hmm_exp.features.kernel import N_FEATURES, advance, advance_all, new_state, slide

(LOGRET, VOLUME_DELTA, PARKINSON, ZSCORE, RVOL, OVER_VWAP, LOG_VWAP, RANGE, BODY, LOG_RANGE) = (
    range(N_FEATURES)
)


def random_bars(n, seed=0):
    """Valid OHLCV, shape (n, 5)."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    open_ = np.r_[100.0, close[:-1]]
    high = np.maximum(open_, close) * (1 + 0.01 * rng.random(n))
    low = np.minimum(open_, close) * (1 - 0.01 * rng.random(n))
    return np.column_stack([open_, high, low, close, rng.lognormal(3, 1, n)])


def computed(ohlcv, window=5, vwap_window=12, linked=None):
    """Values of bars that follow one another, unless `linked` says otherwise, shape (T, 10)."""
    if linked is None:
        linked = np.arange(len(ohlcv)) > 0
    values = np.empty((len(ohlcv), N_FEATURES))
    advance_all(new_state(window, vwap_window), ohlcv, linked, values)
    return values


def by_formula(ohlcv, w, vwap_w):
    """The ten features of the last bar, straight from their definitions."""
    o, h, l, c, v = ohlcv[-max(w, vwap_w) - 1 :].T  # noqa: E741
    r = np.diff(np.log(c))
    typical = (h + l + c) / 3
    vwap = (typical * v)[-vwap_w:].sum() / v[-vwap_w:].sum()
    return [
        r[-1],
        np.log(1 + v[-1]) - np.log(1 + v[-2]),
        np.sqrt(np.mean(np.log(h / l)[-w:] ** 2) / (4 * np.log(2))),
        (r[-1] - r[-w:].mean()) / r[-w:].std(ddof=1),
        v[-1] / v[-w:].mean(),
        c[-1] / vwap,
        np.log(c[-1] / vwap),
        (h[-1] - l[-1]) / o[-1],
        (c[-1] - o[-1]) / o[-1],
        np.log(np.log(h[-1] / l[-1])),
    ]


@pytest.mark.parametrize(("window", "vwap_window"), [(5, 12), (12, 5), (2, 1), (20, 100)])
def test_every_feature_follows_its_formula(window, vwap_window):
    ohlcv = random_bars(260)
    values = computed(ohlcv, window, vwap_window)
    for t in range(max(window, vwap_window), 260):
        expected = by_formula(ohlcv[: t + 1], window, vwap_window)
        np.testing.assert_allclose(values[t], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.0, math.e, 0.0),
        (100.0, 100.0 * math.exp(math.exp(-5.0)), -5.0),
        (50.0, 50.0, math.nan),
        (1.0, math.nextafter(1.0, 2.0), math.log(2.0**-52)),
    ],
)
def test_log_range_is_that_of_one_bar_and_missing_where_high_equals_low(low, high, expected):
    found = computed(np.array([[low, high, low, high, 1.0]]))[0, LOG_RANGE]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_feature_appears_with_the_first_full_window():
    first = np.isfinite(computed(random_bars(40), window=5, vwap_window=12)).argmax(axis=0)
    assert first.tolist() == [1, 1, 4, 5, 4, 11, 11, 0, 0, 0]


def test_one_bar_at_a_time_gives_the_bits_of_the_batch():
    ohlcv = random_bars(100)
    state, values = new_state(5, 12), np.empty(N_FEATURES)
    for t, expected in enumerate(computed(ohlcv)):
        advance(state, *ohlcv[t], t > 0, values)
        assert values.tobytes() == expected.tobytes()


def test_values_of_short_windows_depend_on_their_bars_alone():
    ohlcv = random_bars(100)
    short = [LOGRET, VOLUME_DELTA, PARKINSON, ZSCORE, RVOL, RANGE, BODY, LOG_RANGE]
    late = computed(ohlcv[61:], window=5)
    assert late[5:, short].tobytes() == computed(ohlcv, window=5)[66:, short].tobytes()


def test_equal_returns_have_no_zscore():
    ohlcv = random_bars(40)
    ohlcv[10:, 3] = 0.1 * 2.0 ** np.arange(30)  # every return is ln 2 to the bit
    zscore = computed(ohlcv, window=5)[:, ZSCORE]
    assert np.isfinite(zscore[5:15]).all()
    assert np.isnan(zscore[15:]).all()


def test_volume_features_are_missing_where_their_window_has_none():
    ohlcv = random_bars(60)
    ohlcv[:20, 4] = 1e15 / 3  # whatever a running sum would leave behind
    ohlcv[20:40, 4] = 0.0
    values = computed(ohlcv, window=5, vwap_window=12)
    assert np.isfinite(values[11:24, RVOL]).all()
    assert np.isnan(values[24:40, RVOL]).all()
    assert np.isfinite(values[11:31, OVER_VWAP]).all()
    assert np.isnan(values[31:40, [OVER_VWAP, LOG_VWAP]]).all()
    assert np.isfinite(values[40:]).all()


def test_after_a_gap_differences_are_missing_and_windows_go_on():
    ohlcv = random_bars(60)
    linked = np.arange(60) > 0
    linked[30] = False
    values, gapless = computed(ohlcv, linked=linked), computed(ohlcv)
    assert np.isnan(values[30]).nonzero()[0].tolist() == [LOGRET, VOLUME_DELTA, ZSCORE]
    untouched = [PARKINSON, RVOL, OVER_VWAP, LOG_VWAP, RANGE, BODY]
    assert values[:, untouched].tobytes() == gapless[:, untouched].tobytes()
    r = np.diff(np.log(ohlcv[:, 3]))
    last_five = np.r_[r[26:29], r[30:32]]  # the return of bar 30 does not exist
    expected = (r[31] - last_five.mean()) / last_five.std(ddof=1)
    np.testing.assert_allclose(values[32, ZSCORE], expected, rtol=1e-12)


def test_flat_bars_are_legal():
    values = computed(np.tile([5.0, 5.0, 5.0, 5.0, 1.0], (20, 1)))
    assert values[-1, [PARKINSON, RANGE, BODY, LOG_VWAP]].tolist() == [0, 0, 0, 0]


@njit
def _slide(block, slot, value):
    return slide(block, slot, value)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(0, 1e12, allow_subnormal=False), min_size=1, max_size=80),
    window=st.integers(1, 25),
)
def test_a_sliding_sum_is_that_of_its_window_and_exactly_zero_for_zeros(values, window):
    block = np.zeros(window + 2)
    for t, value in enumerate(values):
        expected = math.fsum(values[max(0, t + 1 - window) : t + 1])
        assert _slide(block, t % window, value) == pytest.approx(expected, rel=1e-14, abs=0)
