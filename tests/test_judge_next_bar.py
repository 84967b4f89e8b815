"""Detection delay: against a bar-by-bar twin, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exp.judge.next_bar import DetectionDelay, detection_delay, named_as_planted


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
