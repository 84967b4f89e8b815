"""Differences from buy and hold: estimates, intervals, and p-values for the whole family."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.judge.strategy_gains import differences
from hmm_exp.judge.strategy_words import verdict

PER_YEAR = 252.0


def returns(n=2000, n_rows=5, gain=0.0, seed=0):
    """Buy and hold, and rows that are invested half of the time; the last one gains."""
    rng = np.random.default_rng(seed)
    hold = 0.0003 + 0.01 * rng.standard_t(6, n)
    blocks = (rng.random((n_rows, n // 20)) < 0.5).repeat(20, axis=1)
    net = np.vstack([hold, hold * blocks])
    net[-1] += gain
    return net


def sharpe(net):
    return PER_YEAR**0.5 * net.mean(axis=-1) / net.std(axis=-1, ddof=1)


def test_estimates_are_the_differences_of_the_measures():
    net = returns()
    found = differences(net, PER_YEAR, n_draws=200)
    means = PER_YEAR * net.mean(axis=1)
    assert found.estimate[1:, 0] == pytest.approx(means[1:] - means[0], rel=1e-9)
    assert found.estimate[1:, 1] == pytest.approx(sharpe(net)[1:] - sharpe(net)[0], rel=1e-9)
    assert np.isnan(found.estimate[0]).all()
    assert (found.low[1:] < found.estimate[1:]).all()
    assert (found.estimate[1:] < found.high[1:]).all()


def test_the_error_of_a_sharpe_difference_is_that_of_fresh_markets():
    """The spread over 300 markets of one law, against the intervals of the bootstrap."""
    markets = [returns(1000, 1, seed=seed) for seed in range(300)]
    seen = np.std([np.subtract(*sharpe(net)) for net in markets])
    widths = [np.ptp([d.low[1, 1], d.high[1, 1]]) for d in (differences(m, 252.0) for m in markets)]
    assert np.mean(widths) / 3.92 == pytest.approx(seen, rel=0.15)


def test_intervals_cover_the_truth_of_independent_bars():
    """The true Sharpe ratios are known: each row is normal, the rows correlated."""
    rng, covered = np.random.default_rng(1), []
    truth = PER_YEAR**0.5 * (0.0010 / 0.008 - 0.0005 / 0.01)
    for _ in range(200):
        z = rng.standard_normal((2, 1500))
        z[1] = 0.6 * z[0] + 0.8 * z[1]
        net = np.array([[0.0005], [0.0010]]) + np.array([[0.01], [0.008]]) * z
        found = differences(net, PER_YEAR, n_draws=500)
        covered.append(found.low[1, 1] <= truth <= found.high[1, 1])
    assert 0.90 <= np.mean(covered) <= 0.98


def test_a_large_gain_is_found_and_the_others_are_not():
    found = differences(returns(gain=0.002), PER_YEAR)
    assert (found.p_value[-1] < 0.01).all()
    assert (found.p_value[1:-1] > 0.3).all()


def test_p_values_are_adjusted_for_every_row_and_measure():
    """More worthless rows make the same gain less convincing."""
    net = returns(gain=0.0007)
    alone = differences(net[[0, -1]], PER_YEAR).p_value[-1]
    crowd = np.vstack([net[:1], returns(n_rows=40, seed=3)[1:], net[-1:]])
    among = differences(crowd, PER_YEAR).p_value[-1]
    assert (among > alone).all()


def test_worthless_strategies_win_in_five_percent_of_markets():
    """Rows that differ from buy and hold by noise alone: the least favourable case."""
    rng, smallest = np.random.default_rng(5), []
    for _ in range(300):
        hold = 0.01 * rng.standard_normal(800)
        rows = hold + 0.003 * rng.standard_normal((4, 800))
        found = differences(np.vstack([hold, rows]), PER_YEAR, n_draws=500)
        smallest.append(np.nanmin(found.p_value))
    assert 0.01 <= np.mean(np.array(smallest) < 0.05) <= 0.09


def test_a_row_that_equals_buy_and_hold_differs_by_nothing():
    net = returns(n_rows=2)
    net[1] = net[0]
    found = differences(net, PER_YEAR)
    assert (found.estimate[1] == 0).all()
    assert (found.high[1] == 0).all()
    assert (found.p_value[1] == 1).all()
    same = differences(net[:2], PER_YEAR)
    assert (same.p_value[1] == 1).all()


def test_cash_has_a_mean_and_no_sharpe_ratio():
    net = returns(n_rows=2)
    net[1] = 0
    found = differences(net, PER_YEAR)
    assert found.estimate[1, 0] == pytest.approx(-PER_YEAR * net[0].mean())
    assert np.isnan(found.estimate[1, 1])
    assert np.isfinite(found.p_value[2]).all()


def test_the_same_seed_gives_the_same_bits():
    net = returns()
    first, second = (differences(net, PER_YEAR, n_draws=300) for _ in range(2))
    assert np.array_equal(first.p_value, second.p_value, equal_nan=True)
    assert np.array_equal(first.low, second.low, equal_nan=True)


def rows(*intervals):
    """Rows of a table, each with (low, high, p) for both measures."""
    lines = [{"strategy": "hold", "delay": 1, "note": "", "return": 0.05}]
    for low, high, p in intervals:
        values = {"difference": (low + high) / 2, "low": low, "high": high, "p": p}
        both = {f"{m}_{name}": x for m in ("return", "sharpe") for name, x in values.items()}
        lines.append({"strategy": "regime", "delay": len(lines), "note": ""} | both)
    return pd.DataFrame(lines)


def test_the_verdict_counts_what_covers_zero():
    assert verdict(rows((-1, 1, 0.5), (-2, 1, 0.9))) == (
        "no strategy beats buy and hold: all 4 differences cover zero"
    )
    below = verdict(rows((-1, 1, 0.5), (-2, -1, 1.0)))
    assert below == "no strategy beats buy and hold: 2 of 4 differences cover zero, 2 lie below it"
    lost = verdict(rows((-2, -1, 1.0), (-3, -1, 1.0)))
    assert lost == "no strategy beats buy and hold: all 4 differences lie below zero"


def test_the_verdict_does_not_sell_an_interval_above_zero_that_is_luck():
    text = verdict(rows((0.1, 1, 0.12), (-2, 1, 0.9)))
    assert text.startswith("no strategy beats buy and hold: 2 of 4 differences cover zero")
    assert "2 lie above it" in text
    assert "smallest adjusted p 0.12" in text


def test_the_verdict_names_what_wins_with_its_p():
    text = verdict(rows((0.1, 0.3, 0.01), (-2, 1, 0.9)))
    assert text.startswith("better than buy and hold, with all 4 differences counted: ")
    assert "regime at delay 1, mean return +20.0 % (+10.0 to +30.0), p = 0.010" in text
    assert "delay 2" not in text
    assert text.endswith("p = 0.010")


def test_the_verdict_explains_a_gain_on_a_market_that_fell():
    text = verdict(rows((0.1, 0.3, 0.01)).assign(**{"return": -0.4}))
    assert text.startswith("better than buy and hold")
    assert text.endswith("(buy and hold lost money, so any time in cash gains on its mean)")


def test_a_table_that_only_equals_buy_and_hold_has_nothing_to_count():
    equal = rows((0, 0, 1.0)).assign(note=["", "equals buy and hold"])
    assert verdict(equal) == "no strategy beats buy and hold: all equal it, or cash"
