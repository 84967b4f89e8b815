"""Order and names of states."""

import numpy as np

from hmm_exp.hmm.states import labels, posterior_spread, volatility_order


def test_states_are_ordered_calm_first():
    np.testing.assert_array_equal(volatility_order(np.array([0.3, 0.1, 0.2])), [1, 2, 0])


def test_equal_states_keep_their_order():
    np.testing.assert_array_equal(volatility_order(np.array([0.2, 0.2, 0.1])), [2, 0, 1])


def test_labels_say_what_the_order_means():
    assert labels(1) == ("normal",)
    assert labels(2) == ("calm", "turbulent")
    assert labels(3) == ("calm", "normal", "turbulent")
    for n_states in (4, 7):  # the number of a label is that of its state
        assert labels(n_states) == tuple(f"vol-{state}" for state in range(n_states))


def test_spread_of_certain_states_is_the_standard_deviation_of_their_returns():
    rng = np.random.default_rng(0)
    returns = np.append(rng.normal(size=10), np.nan)
    probs = np.eye(2)[np.array([0] * 4 + [1] * 7)]
    np.testing.assert_allclose(
        posterior_spread(probs, returns), [returns[:4].std(), returns[4:10].std()]
    )


def test_a_state_without_rows_goes_last():
    probs = np.array([[0.0, 1.0], [0.0, 1.0]])
    spread = posterior_spread(probs, np.array([0.1, -0.1]))
    np.testing.assert_array_equal(volatility_order(spread), [1, 0])
