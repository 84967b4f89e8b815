"""Next bars by state and detection delay: by hand, by simulation, against a bar-by-bar twin."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exp.judge.next_bar import (
    COLUMNS,
    DetectionDelay,
    detection_delay,
    named_as_planted,
    next_bar_table,
)


def plain_delay(planted, labels):
    """Walk every visit bar by bar."""
    delays, missed, n = [], 0, len(planted)
    for start in range(1, n):
        if planted[start] == planted[start - 1]:
            continue
        t = start
        while t < n and planted[t] == planted[start] and labels[t] != planted[start]:
            t += 1
        if t < n and planted[t] == planted[start]:
            delays.append(t - start)
        elif t < n:
            missed += 1
    return delays, missed


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2), st.integers(1, 4)), min_size=1))
def test_delays_are_those_of_a_walk_bar_by_bar(visits):
    planted = np.repeat([v[0] for v in visits], [v[2] for v in visits])
    labels = np.roll(np.repeat([v[1] for v in visits], [v[2] for v in visits]), 1)
    delays, missed = plain_delay(planted, labels)
    found = detection_delay(planted, labels)
    assert found.n_switches == len(delays) + missed
    if found.n_switches:
        assert found.missed_share == pytest.approx(missed / found.n_switches)
    if delays:
        assert found.mean_bars == pytest.approx(np.mean(delays))
        assert found.median_bars == np.median(delays)
    else:
        assert found.mean_bars is found.median_bars is None


def test_a_label_that_lags_three_bars_has_a_delay_of_three():
    planted = np.repeat([0, 1, 0, 2], [20, 10, 15, 30])
    labels = np.concatenate([np.full(3, -1), planted[:-3]])
    assert detection_delay(planted, labels) == DetectionDelay(3, 0.0, 3.0, 3.0)


def test_a_visit_shorter_than_the_lag_is_missed_and_one_cut_by_the_end_is_left_out():
    planted = np.repeat([0, 1, 0, 1], [20, 2, 15, 2])
    labels = np.concatenate([np.zeros(3, dtype=int), planted[:-3]])
    assert detection_delay(planted, labels) == DetectionDelay(2, 0.5, 0.0, 0.0)


def test_without_a_switch_there_is_no_delay():
    none = detection_delay(np.zeros(10, dtype=int), np.zeros(10, dtype=int))
    assert none == DetectionDelay(0, None, None, None)
    assert none.metrics() == {}


def test_metrics_leave_out_what_does_not_exist():
    blind = detection_delay(np.repeat([0, 1, 0], 5), np.full(15, 2))
    assert blind.metrics() == {"missed_switch_share": 1.0}
    seeing = detection_delay(np.repeat([0, 1, 0], 5), np.repeat([0, 1, 0], 5))
    assert seeing.metrics() == {
        "detection_delay_median": 0.0,
        "detection_delay_mean": 0.0,
        "missed_switch_share": 0.0,
    }


def test_states_are_named_after_the_regime_they_fall_on_most():
    planted = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    states = np.array([3, 3, 0, 0, 0, 2, -1, -1])
    assert named_as_planted(planted, states).tolist() == [0, 0, 1, 1, 1, 1, -1, -1]
    assert named_as_planted(planted, np.full(8, -1)).tolist() == [-1] * 8


def test_next_bar_table_by_hand():
    states = np.array([0, 0, 0, 0, 1, -1, 0])
    returns = np.array([0.01, -0.02, 0.03, 0.02, 0.05, 0.9, np.nan])
    table = next_bar_table(states, returns, 3, bars_per_year=400.0)
    calm, four = table.loc[0], returns[:4]
    sharpe = four.mean() / four.std(ddof=1)
    assert tuple(table.columns) == COLUMNS
    assert list(table["n"]) == [4, 1, 0]
    assert calm["mean"] == pytest.approx(0.01)
    assert calm["mean_error"] == pytest.approx(four.std(ddof=1) / 2.0)
    assert calm["volatility"] == pytest.approx(four.std(ddof=1))
    assert calm["hit_rate"] == 0.75
    assert calm["hit_rate_error"] == pytest.approx(np.sqrt(0.75 * 0.25 / 4.0))
    assert calm["sharpe"] == pytest.approx(sharpe)
    assert calm["sharpe_error"] == pytest.approx(np.sqrt((1.0 + sharpe**2 / 2.0) / 4.0))
    assert calm["sharpe_annual"] == pytest.approx(20.0 * sharpe)
    assert calm["sharpe_annual_error"] == pytest.approx(20.0 * calm["sharpe_error"])


def test_statistics_that_do_not_exist_are_missing():
    table = next_bar_table(np.array([0, 1, 1]), np.array([0.01, 0.02, 0.02]), 3)
    present = {state: set(table.columns[table.loc[state].notna()]) for state in range(3)}
    assert present[0] == {"n", "mean", "hit_rate"}
    assert present[1] == present[0] | {"mean_error", "hit_rate_error", "volatility"}
    assert present[2] == {"n"}


def test_next_bar_mask_keeps_train_and_test_apart():
    rng = np.random.default_rng(0)
    states, returns = rng.integers(0, 2, 200), rng.standard_normal(200)
    train = np.arange(200) < 120
    masked = next_bar_table(states, returns, 2, mask=train)
    pd.testing.assert_frame_equal(masked, next_bar_table(states[:120], returns[:120], 2))


def test_errors_are_the_spread_over_many_samples():
    rng = np.random.default_rng(1)
    returns = 0.1 + rng.standard_t(12.0, (600, 400))
    tables = [next_bar_table(np.zeros(400, int), row, 1).loc[0] for row in returns]
    frame = pd.DataFrame(tables)
    for name in ("mean", "volatility", "hit_rate", "sharpe"):
        assert frame[f"{name}_error"].mean() == pytest.approx(frame[name].std(), rel=0.1)


def test_the_error_of_a_volatility_counts_fat_tails_and_is_never_negative():
    returns = np.array([0.01, -0.02, 0.03, 0.05])
    row = next_bar_table(np.zeros(4, int), returns, 1).loc[0]
    squares = (returns - returns.mean()) ** 2
    spread = (squares**2).mean() - squares.mean() ** 2
    expected = np.sqrt(spread / 4.0) / (2.0 * np.sqrt(squares.mean()))
    assert row["volatility_error"] == pytest.approx(expected)
    even = next_bar_table(np.zeros(4, int), np.array([0.01, -0.01, 0.01, -0.01]), 1).loc[0]
    assert even["volatility_error"] == pytest.approx(0.0, abs=1e-12)


def test_a_return_of_zero_is_no_hit_and_a_tie_goes_to_the_calmer_regime():
    row = next_bar_table(np.zeros(4, int), np.array([0.0, 0.0, 0.01, -0.01]), 1).loc[0]
    assert row["hit_rate"] == 0.25
    tied = named_as_planted(np.array([0, 1, 0, 1]), np.zeros(4, dtype=int))
    assert tied.tolist() == [0, 0, 0, 0]
