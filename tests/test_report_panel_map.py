"""The regimes of a panel on one scale and one time axis, and what symbols have in common."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from hmm_exp.report.panel_map import (
    NO_BAR,
    UNKNOWN,
    common_rises,
    regime_map,
    similar_order,
)
from tests.small_panel import symbol_days


@pytest.mark.parametrize("n_states", range(2, 9))
def test_regimes_of_any_number_share_the_scale_from_calm_to_turbulent(n_states):
    found = regime_map({"A": symbol_days(range(n_states), n_states)})
    np.testing.assert_allclose(found.positions[0], np.linspace(0, 1, n_states), rtol=1e-6)
    assert found.turbulent.tolist() == [0] * (n_states - 1) + [1]
    assert found.calm.tolist() == [1] + [0] * (n_states - 1)


def test_a_single_regime_is_in_the_middle_and_neither_calm_nor_turbulent():
    found = regime_map({"A": symbol_days([0, 0], 1), "B": symbol_days([0, 1], 2)})
    assert found.positions[0].tolist() == [0.5, 0.5]
    assert found.scaled.tolist() == [1, 1]
    assert found.turbulent.tolist() == [0, 1]


def test_unknown_regimes_and_days_without_bars_count_nowhere():
    found = regime_map({"A": symbol_days([-1, -1, 1], 2), "B": symbol_days([1], 2)})
    assert found.regimes.tolist() == [[UNKNOWN, UNKNOWN, 1], [1, NO_BAR, NO_BAR]]
    assert found.scaled.tolist() == [1, 0, 1]
    assert np.isnan(found.positions[0, :2]).all()


def test_weekends_are_left_out_of_the_axis_and_long_holes_are_not():
    week = symbol_days([0, 1, 0], 2, first="2024-01-04")  # Thursday to Saturday
    later = symbol_days([1], 2, first="2024-01-09")
    assert len(regime_map({"A": week, "B": later}).days) == 4
    far = symbol_days([1], 2, first="2024-03-01")
    found = regime_map({"A": week, "B": far})
    assert len(found.days) == 58
    assert (np.diff(found.days).astype(int) == 1).all()
    assert found.scaled.sum() == 4


def test_shares_of_a_day_ignore_the_future():
    random = np.random.default_rng(0)
    paths = random.integers(-1, 3, (6, 80))
    other = paths.copy()
    other[:, 50:] = random.integers(-1, 3, (6, 30))
    one, two = (
        regime_map({f"S{i}": symbol_days(path) for i, path in enumerate(each)})
        for each in (paths, other)
    )
    assert (one.regimes != two.regimes).any()
    for name in ("turbulent", "scaled", "calm", "positions"):
        np.testing.assert_array_equal(getattr(one, name)[..., :50], getattr(two, name)[..., :50])


def test_similar_symbols_are_neighbours():
    random = np.random.default_rng(1)
    kinds = [np.repeat(random.integers(0, 3, 40), 5) for _ in range(3)]
    paths = {f"S{i}": np.where(random.random(200) < 0.1, 1, kinds[i % 3]) for i in range(12)}
    order = similar_order(regime_map({name: symbol_days(path) for name, path in paths.items()}))
    assert sorted(order) == [*range(12)]
    groups = [i % 3 for i in order]
    assert sum(a != b for a, b in itertools.pairwise(groups)) == 2


@pytest.mark.parametrize("n_symbols", [0, 1, 2, 3])
def test_symbols_without_a_common_day_have_an_order_and_nothing_in_common(n_symbols):
    days = {f"S{i}": symbol_days([0, 1, 2], first=f"202{i}-05-01") for i in range(n_symbols)}
    found = regime_map(days)
    assert sorted(similar_order(found)) == [*range(n_symbols)]
    assert common_rises(found) == []


def jumps(random: np.random.Generator, n_symbols: int, n_days: int = 300) -> np.ndarray:
    """Independent paths of two regimes."""
    turns = random.random((n_symbols, n_days)) < random.uniform(0.02, 0.2, (n_symbols, 1))
    return np.cumsum(turns, axis=1) % 2


def test_a_day_on_which_many_symbols_rise_is_found_with_their_names():
    paths = jumps(np.random.default_rng(2), 40)
    paths[:25, 199:201] = [0, 1]
    found = regime_map({f"S{i}": symbol_days(path, 2) for i, path in enumerate(paths)})
    (rise,) = [one for one in common_rises(found) if one.day == found.days[200]]
    assert set(rise.rows) >= set(range(25))
    assert rise.compared == 40
    assert rise.share == len(rise.rows) / 40
    assert rise.expected < 10


def test_independent_symbols_show_an_unusual_day_in_at_most_five_of_a_hundred_panels():
    random = np.random.default_rng(4)
    shown = 0
    for _ in range(100):
        paths = jumps(random, 12, 120)
        found = regime_map({f"S{i}": symbol_days(path, 2) for i, path in enumerate(paths)})
        shown += bool(common_rises(found))
    assert shown <= 5


def test_hoeffdings_bound_holds_for_symbols_of_different_rates():
    random = np.random.default_rng(5)
    for n in (2, 5, 30):
        rates = random.random(n) ** 3
        exact = np.array([1.0])
        for rate in rates:  # of the number of changes: one symbol after the other
            exact = np.convolve(exact, [1.0 - rate, rate])
        mean = rates.sum()
        for k in range(int(np.ceil(mean + 1)), n + 1):
            assert exact[k:].sum() <= binom.sf(k - 1, n, mean / n) + 1e-12


def test_a_rise_is_one_from_the_last_known_regime_of_the_last_week():
    paths = {f"S{i}": symbol_days([0] * 30 + [-1] * 3 + [1] + [1] * 30, 2) for i in range(20)}
    found = regime_map(paths)
    (rise,) = common_rises(found)
    assert rise.day == found.days[33]
    late = {name: symbol_days([0] * 30 + [-1] * 9 + [1] * 30, 2) for name in paths}
    assert common_rises(regime_map(late)) == []


def test_a_single_regime_and_unknown_ones_are_not_compared():
    days = {f"S{i}": symbol_days([0] * 20 + [1] * 20, 2) for i in range(9)}
    days |= {"one": symbol_days([0] * 40, 1), "unknown": symbol_days([-1] * 40, 3)}
    (rise,) = common_rises(regime_map(days))
    assert rise.compared == 9
