"""Figures of a model's quality: titles, bounded size, no overlapping texts."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from hmm_exp.figures.judged import cumulative_gain, residuals
from hmm_exp.figures.text import SEPARATOR
from tests.test_figures import HOUR, START, assert_texts_are_apart, drawn, texts


def gains(n, seed=0):
    rng = np.random.default_rng(seed)
    time = START + HOUR * np.arange(n)
    splits = {"train": time[0], "val": time[7 * n // 10], "test": time[85 * n // 100]}
    series = {"static": rng.normal(0.05, 0.3, n), "EWMA": rng.normal(-0.01, 0.3, n)}
    series["static"][: n // 50] = np.nan
    return time, series, splits


def course(figure, which=0):
    line = [line for line in drawn(figure, Line2D) if line.get_linewidth() == 1.6][which]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_every_part_starts_again_and_ends_at_its_own_sum():
    time, series, splits = gains(2000)
    figure = cumulative_gain(time, series, splits=splits)
    zero = drawn(figure, LineCollection)[0].get_segments()[0][0, 1]
    courses = [course(figure, which)[1] - zero for which in (0, 1)]  # pixels
    ends = np.concatenate([y[np.flatnonzero(np.isnan(y)) - 1] for y in courses])
    parts = [p for gain in series.values() for p in np.split(np.nan_to_num(gain), [1400, 1700])]
    sums = np.array([part.sum() for part in parts])
    np.testing.assert_allclose(ends / ends[0], sums / sums[0])


def test_the_title_holds_the_mean_gains_of_the_last_part():
    time, series, splits = gains(2000)
    series["static"][1700:], series["EWMA"][1700:] = 0.25, -0.125
    title = cumulative_gain(time, series, splits=splits).texts[0].get_text()
    assert title == "Gain on test, nats per bar: +0.2500 over static, −0.1250 over EWMA"


def test_one_lucky_week_is_named():
    time, series, splits = gains(4000)
    series["static"][3400:] = 0.0
    series["static"][3700:3720] = 1.0
    series["static"][3990] = 5.0
    figure = cumulative_gain(time, series, splits=splits)
    assert "best week: 80 % of the test gain over static" in figure.texts[1].get_text()
    series["static"][3400:] = -1.0
    figure = cumulative_gain(time, series, splits=splits)
    assert "best week" not in figure.texts[1].get_text()


def test_a_million_bars_make_few_points():
    time, series, splits = gains(1_000_000)
    x, y = course(cumulative_gain(time, series, splits=splits))
    assert len(x) == len(y) < 1000


def test_parts_without_bars_and_unscored_ones_are_drawn():
    time, series, splits = gains(300)
    series["EWMA"][:] = np.nan
    splits["test"] = time[-1] + HOUR
    figure = cumulative_gain(time, series, splits=splits)
    assert "none over static, none over EWMA" in figure.texts[0].get_text()
    assert_texts_are_apart(figure)


@pytest.mark.parametrize("n", [100, 5000, 80_000])
def test_texts_of_the_gain_are_apart(n):
    time, series, splits = gains(n)
    subject = "BINANCE_BTCUSDT.P 1H, v1, diag"
    assert_texts_are_apart(cumulative_gain(time, series, splits=splits, subject=subject))


def good(n=2000, seed=1):
    return np.random.default_rng(seed).normal(size=n)


def remembering(n=2000):
    return np.convolve(good(n + 30), np.full(30, 30**-0.5), mode="valid")[:n]


@pytest.mark.parametrize("n_series", [1, 2, 4, 6, 37])
def test_texts_of_the_residuals_are_apart(n_series):
    series = {f"log_volume_delta_current_{i}H": good(500, i) for i in range(n_series)}
    assert_texts_are_apart(residuals(series, subject="BINANCE_BTCUSDT.P 1H, v1, diag"))


def test_the_title_names_the_series_that_fails_most():
    series = {"close": good(), "parkinson": remembering(), "next return": good(seed=2)}
    figure = residuals(series)
    title = figure.texts[0].get_text()
    assert title.startswith("1 of 3 series rejected, worst is parkinson: memory")
    shown = [t.get_text() for t in texts(figure)]
    assert shown.count("rejected") == 1
    assert shown.count("within limits") == 2
    del series["parkinson"]
    assert residuals(series).texts[0].get_text() == "Residuals of all 2 series are within limits"


def test_residuals_too_few_to_judge_are_not_called_within_limits():
    few, enough = {"close": good(12)}, {"next return": good()}
    figure = residuals(few)
    assert figure.texts[0].get_text() == "Too few rows to judge the residuals"
    assert "too few rows to judge" in [t.get_text() for t in texts(figure)]
    both = residuals(few | enough)
    assert both.texts[0].get_text() == "Residuals of 1 of 2 series are within limits"


def test_of_many_series_the_worst_and_the_last_are_drawn():
    series = {f"feature {i}": good(seed=i) for i in range(9)} | {"bad": 0.5 * good(seed=20)}
    series["next return"] = good(seed=30)
    figure = residuals(series)
    shown = {t.get_text().partition(SEPARATOR)[0] for t in texts(figure)}
    assert {"bad", "next return"} <= shown
    assert len(shown & set(series)) == 6
    assert "6 of 11, the worst" in figure.texts[1].get_text()


def test_quantiles_of_normal_residuals_lie_on_the_diagonal():
    z = good(100_000)
    points = drawn(residuals({"next return": z}), Line2D)[0]
    x, y = np.asarray(points.get_xdata()), np.asarray(points.get_ydata())
    middle = slice(30, -30)
    slope = np.polyfit(x[middle], y[middle], 1)[0]
    double = drawn(residuals({"next return": 0.5 * z}), Line2D)[0]
    flat = np.polyfit(x[middle], np.asarray(double.get_ydata())[middle], 1)[0]
    assert flat / slope == pytest.approx(0.5, abs=0.01)


def test_series_without_values_leave_their_cells_empty():
    series = {"close": np.full(100, np.nan), "next return": good(100)}
    assert_texts_are_apart(residuals(series))
