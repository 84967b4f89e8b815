"""Tables of a fitted model: persistence, raw units, diagnostics."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.judge import states as ev
from hmm_exp.judge import states as ps
from hmm_exp.judge.next_bar import next_bar_table


def slow_visits(states, steps):
    """Visits by walking the chain one bar at a time."""
    visits = []
    for state, step in zip(states, steps, strict=True):
        if visits and step > 0 and visits[-1][0] == state:
            visits[-1][1] += step
        else:
            visits.append([state, 1])
    return [tuple(visit) for visit in visits]


def summary(**changes):
    """A two-state, two-feature model with a short path."""
    fields = {
        "labels": ["calm", "turbulent"],
        "columns": ["a_1H", "b_1H"],
        "transmat": np.array([[0.9, 0.1], [0.25, 0.75]]),
        "stationary": np.array([0.25, 0.1]) / 0.35,
        "means": np.array([[1.0, 2.0], [3.0, 4.0]]),
        "covars": np.array([np.diag([4.0, 9.0]), np.diag([16.0, 25.0])]),
        "states": np.array([0, 0, 0, 1, 0]),
        "steps": np.array([0, 1, 1, 1, 1]),
    }
    return ev.StateSummary(**(fields | changes))


@settings(max_examples=100, deadline=None)
@given(
    path=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 1, 1, 3])), max_size=40),
)
def test_visits_are_those_of_a_slow_walk(path):
    states = np.array([state for state, _ in path], dtype=np.int64)
    steps = np.array([step for _, step in path], dtype=np.int64)
    steps[:1] = 0
    visits = ps.find_visits(states, steps)
    expected = slow_visits(states, steps)
    assert list(zip(visits.state, visits.length, strict=True)) == expected


def test_visits_end_at_sequences_and_span_missing_bars():
    visits = ps.find_visits(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 3, 4, 0, 1]))
    assert list(visits.state) == [0, 1, 1]
    assert list(visits.length) == [5, 1, 2]


def test_observed_dwell_agrees_with_the_chain_that_made_the_path():
    rng = np.random.default_rng(2)
    transmat = np.array([[0.95, 0.05], [0.2, 0.8]])
    states = np.zeros(60_000, dtype=np.int64)
    for t, draw in enumerate(rng.random(59_999), start=1):
        states[t] = draw > transmat[states[t - 1], 0]
    visits = ps.find_visits(states, np.r_[0, np.ones(59_999, dtype=np.int64)])
    np.testing.assert_allclose(ps.expected_dwell(transmat), [20.0, 5.0])
    np.testing.assert_allclose(ps.observed_dwell(visits, 2), [20.0, 5.0], rtol=0.05)
    np.testing.assert_allclose(ps.one_bar_shares(visits, 2), [0.05, 0.2], rtol=0.15)
    np.testing.assert_allclose(ps.occupancy(states, 2), [0.8, 0.2], rtol=0.05)


def test_a_state_never_seen_has_no_dwell():
    visits = ps.find_visits(np.array([0, 0]), np.array([0, 1]))
    assert np.isnan(ps.observed_dwell(visits, 2)[1])
    assert np.isnan(ps.one_bar_shares(visits, 2)[1])
    assert ps.occupancy(np.array([0, 0, -1]), 2).tolist() == [1.0, 0.0]
    assert np.isinf(ps.expected_dwell(np.eye(2))).all()


def test_persistence_metrics_by_hand():
    filtered = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    smoothed = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    metrics = ps.persistence_metrics(filtered, smoothed, np.array([0, 1, 1, 1]))
    assert metrics == {
        "mean_dwell_bars": pytest.approx(4.0 / 3.0),
        "one_bar_visit_share": pytest.approx(2.0 / 3.0),
        "posterior_entropy": pytest.approx(np.log(2.0) / 4.0),
        "revision_rate": 0.25,
        "switches_per_1000": pytest.approx(2000.0 / 3.0),
    }


def test_a_change_between_sequences_is_no_switch():
    probs = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    metrics = ps.persistence_metrics(probs, probs, np.array([0, 0, 1]))
    assert metrics["switches_per_1000"] == 0.0
    assert "switches_per_1000" not in ps.persistence_metrics(probs, probs, np.zeros(3, int))


def test_raw_moments_are_those_of_unscaled_draws():
    rng = np.random.default_rng(3)
    covars = rng.uniform(0.5, 2.0, (2, 3, 3))
    covars = covars @ np.swapaxes(covars, -1, -2)
    centre, unit = np.array([5.0, -1.0, 0.1]), np.array([100.0, 1.0, 0.01])
    means = rng.standard_normal((2, 3))
    raw_m = ev.raw_means(means, centre, unit)
    raw_c = ev.raw_covars(covars, unit)
    for k in range(2):
        draws = rng.multivariate_normal(means[k], covars[k], 200_000) * unit + centre
        np.testing.assert_allclose((draws.mean(axis=0) - raw_m[k]) / unit, 0.0, atol=0.03)
        np.testing.assert_allclose(raw_c[k], np.diag(unit) @ covars[k] @ np.diag(unit), rtol=1e-12)


def test_diagnostics_hold_every_table_once():
    returns = np.array([0.01, -0.02, 0.03, 0.05, np.nan])
    model = summary()
    table = ev.diagnostics_table(model, {"test": next_bar_table(model.states, returns, 2)})
    assert list(table.columns) == ["table", "row", "column", "value"]
    assert not table.duplicated(["table", "row", "column"]).any()
    value = table.set_index(["table", "row", "column"])["value"]
    assert value["transition_matrix", "calm", "turbulent"] == 0.1
    assert value["stationary", "calm", "share"] == pytest.approx(0.25 / 0.35)
    assert value["occupancy", "turbulent", "share"] == 0.2
    assert value["dwell", "calm", "expected_bars"] == pytest.approx(10.0)
    assert value["dwell", "calm", "observed_bars"] == 2.0
    assert value["dwell", "calm", "visits"] == 2.0
    assert value["dwell", "calm", "one_bar_share"] == 0.5
    assert value["state_means", "turbulent", "a_1H"] == 3.0
    assert value["state_deviations", "turbulent", "b_1H"] == 5.0
    assert value["next_bar_test", "turbulent", "mean"] == 0.05


def test_diagnostics_leave_out_what_does_not_exist():
    model = summary(transmat=np.eye(2), states=np.zeros(5, dtype=np.int64))
    table = ev.diagnostics_table(model)
    assert np.isfinite(table["value"]).all()
    dwell = table[table["table"] == "dwell"]
    assert set(dwell["column"][dwell["row"] == "turbulent"]) == {"visits"}


def test_visits_of_decided_regimes_are_counted_by_the_year_of_the_data():
    day = pd.date_range("2021-01-01", periods=6, freq="D", tz="UTC")
    regimes, steps = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 1, 1, 1, 1, 1])
    metrics = ev.visit_metrics(regimes, steps, day)
    assert metrics["switches_per_year"] == pytest.approx(2 / 5 * 365.25)
    assert metrics["mean_regime_visit_bars"] == 2.0
    sessions = ev.visit_metrics(regimes, steps, day + pd.to_timedelta([0, 0, 0, 5, 5, 5], "D"))
    assert sessions["switches_per_year"] == pytest.approx(2 / 10 * 365.25)
    assert ev.visit_metrics(regimes[:1], steps[:1], day[:1]) == {"mean_regime_visit_bars": 1.0}
    assert ev.visit_metrics(regimes[:0], steps[:0], day[:0]) == {}
