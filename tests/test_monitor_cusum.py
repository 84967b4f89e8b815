"""The chart: it sees a fall, waits for more than one bar, and never looks ahead."""

import numpy as np
import pytest

from hmm_exp.judge.resampling import Draws, stretches
from hmm_exp.monitor.cusum import ALLOWANCE, HORIZON, ControlChart, fit_chart, threshold

CHART = ControlChart(mean=2.0, spread=0.5, allowance=0.1, threshold=30.0)


def remembering(n: int, memory: float, seed: int = 0) -> np.ndarray:
    """A first-order autoregression of unit variance."""
    noise = np.random.default_rng(seed).standard_normal(n) * np.sqrt(1 - memory**2)
    series = np.empty(n)
    last = 0.0
    for t in range(n):
        series[t] = last = memory * last + noise[t]
    return series


def by_hand(chart: ControlChart, y: np.ndarray) -> list[float]:
    total, sums = 0.0, []
    for value in y:
        x = np.clip((value - chart.mean) / chart.spread, -5, 5)
        total = max(0.0, total - x - chart.allowance)
        sums.append(total)
    return sums


def test_the_path_is_pages_sum():
    y = np.random.default_rng(0).normal(1.9, 0.7, 300)
    np.testing.assert_allclose(CHART.path(y), by_hand(CHART, y), rtol=1e-12, atol=1e-12)


def test_the_path_ignores_the_future():
    y = np.random.default_rng(1).normal(1.8, 0.7, 300)
    whole = CHART.path(y)
    changed = y.copy()
    changed[150:] = -1e6
    assert np.array_equal(CHART.path(changed)[:150], whole[:150])
    assert np.array_equal(CHART.path(y[:150]), whole[:150])


def test_a_missing_bar_leaves_the_sum_as_it_is():
    y = np.array([1.0, np.nan, np.nan, 1.0])
    path = CHART.path(y)
    assert path[0] == path[1] == path[2] > 0
    assert path[3] == 2 * path[0]


def test_no_single_bar_is_an_alarm():
    path = CHART.path(np.array([2.0, -np.inf, 2.0]))
    assert 0 < path.max() < CHART.threshold / 5


def test_a_rise_is_the_fall_of_the_other_sign():
    y = np.full(50, 3.0)
    assert CHART.path(y).max() == 0
    assert CHART.upwards.path(-y)[-1] == pytest.approx(50 * (2.0 - 0.1))


def test_rarer_alarms_need_a_higher_threshold():
    heights = [threshold(chance, ALLOWANCE) for chance in (0.1, 0.01, 0.001)]
    assert heights == sorted(heights)
    u = 2 * ALLOWANCE * heights[1]
    assert (np.exp(u) - 1 - u) / (2 * ALLOWANCE**2) == pytest.approx(HORIZON / 0.01)


def test_memory_widens_the_spread():
    quiet, slow = (fit_chart(remembering(4000, m), chance=0.05) for m in (0.0, 0.9))
    assert quiet.spread == pytest.approx(1.0, rel=0.2)
    assert slow.spread == pytest.approx(np.sqrt(1.9 / 0.1), rel=0.3)


def test_series_that_remember_cry_as_rarely_as_was_asked():
    """Counted on fresh series: 5 % asked; a chart by the plain deviation cries on most of them."""
    chart = fit_chart(remembering(8000, 0.9), chance=0.05)
    plain = ControlChart(chart.mean, 1.0, chart.allowance, chart.threshold)
    fresh = [remembering(HORIZON, 0.9, seed) for seed in range(1, 61)]
    cried = np.mean([chart.path(y).max() > chart.threshold for y in fresh])
    assert cried <= 0.1
    assert np.mean([plain.path(y).max() > plain.threshold for y in fresh]) > 0.5


def test_a_fall_of_half_a_deviation_is_seen_soon():
    chart = fit_chart(remembering(8000, 0.5), chance=0.05)
    path = chart.path(remembering(1000, 0.5, seed=5) - 0.5 * chart.spread)
    assert path.argmax() > 0
    assert np.flatnonzero(path > chart.threshold)[0] < 200


def test_stretches_keep_neighbours_together():
    draws = Draws(500, 50, 20, seed=3)
    places = stretches(draws, 400)
    assert places.shape == (20, 400)
    assert np.isin(places, np.arange(500)).all()
    assert 0.95 < (np.diff(places) == 1).mean() < 0.99
    assert np.array_equal(places, stretches(draws, 400))
