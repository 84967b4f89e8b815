"""Agreement of two label paths: up to names, with its margin."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.hmm.states import agreement


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_permuted_states_agree_fully_and_the_match_undoes_them(order):
    states = np.random.default_rng(0).integers(0, 3, 300)
    found = agreement(states, np.array(order)[states], 3, 3)
    assert found.share == 1.0
    assert found.match == order
    assert found.renamed == (order != (0, 1, 2))
    assert found.same_share == np.mean(np.array(order)[states] == states)


def test_the_margin_is_what_the_next_best_match_lacks():
    a = np.array([0, 0, 0, 0, 1, 1])
    b = np.array([0, 0, 0, 1, 1, 1])
    found = agreement(a, b, 2, 2)
    assert found.share == pytest.approx(5 / 6)
    assert found.margin == pytest.approx(4 / 6)  # the other match has one row


def test_unrelated_labels_have_no_margin():
    a = np.array([0, 0, 1, 1])
    b = np.array([0, 1, 0, 1])
    assert agreement(a, b, 2, 2).margin == 0.0


def test_rows_without_a_label_do_not_count():
    found = agreement(np.array([-1, 0, 1]), np.array([0, 0, -1]), 2, 2)
    assert (found.n_rows, found.share) == (1, 1.0)
    assert agreement(np.array([-1]), np.array([0]), 1, 1) is None


def test_a_state_too_many_is_left_over():
    found = agreement(np.array([0, 1, 1, 2]), np.array([1, 0, 0, 0]), 3, 2)
    assert found.match == (1, 0, -1)
    assert found.share == 0.75


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_share_and_margin_are_those_of_all_assignments(n_a, n_b, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, n_a, 40), rng.integers(0, n_b, 40)
    if n_a <= n_b:
        maps = [dict(enumerate(p)) for p in permutations(range(n_b), n_a)]
    else:
        maps = [{p[j]: j for j in range(n_b)} for p in permutations(range(n_a), n_b)]
    shares = sorted(np.mean([m.get(i) == j for i, j in zip(a, b, strict=True)]) for m in maps)
    found = agreement(a, b, n_a, n_b)
    assert found.share == pytest.approx(shares[-1])
    assert found.margin == pytest.approx(shares[-1] - (shares[-2] if len(shares) > 1 else 0.0))
