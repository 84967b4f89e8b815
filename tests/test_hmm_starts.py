"""Starts of every kind are valid, different, and independent of how many are drawn."""

import numpy as np
import pytest

from hmm_exp.errors import FitError
from hmm_exp.hmm.params import COVARIANCE_TYPES, GaussianParams
from hmm_exp.hmm.starts import (
    KINDS,
    merge,
    nearest_pair,
    occupancy,
    split,
    starting_points,
    starts_from,
)
from tests.test_hmm_fit import PLANTED, planted

OPTIONS = {"n_states": 3, "covariance_type": "diag", "n_init": 4, "min_covar": 1e-3, "seed": 0}


def drawn(X, **changes):
    return starting_points(X, None, **{**OPTIONS, **changes})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_every_kind_gives_valid_and_different_starts(kind, covariance_type):
    X, _ = planted(500)
    points = drawn(X, kinds=(kind,), covariance_type=covariance_type)
    assert [point.kind for point in points] == [kind] * 4
    means = np.array([point.params.means for point in points])
    assert len(np.unique(means.round(12), axis=0)) == 4 or kind == "kmeans"
    for point in points:
        stay = np.diagonal(point.params.transmat)
        assert ((stay >= 0.95) & (stay <= 0.99)).all()
        assert np.linalg.eigvalsh(point.params.full_covars()).min() > 0


def test_kinds_are_taken_in_turn():
    X, _ = planted(200)
    assert [p.kind for p in drawn(X)] == ["quantile", "random"] * 2
    assert [p.kind for p in drawn(X, kinds=KINDS, n_init=6)] == [*KINDS, "quantile"]
    with pytest.raises(FitError, match="unknown kind of start 'best'"):
        drawn(X, kinds=("best",))


def test_random_responsibilities_are_moments_of_all_rows():
    X, _ = planted(2000)
    params = drawn(X, kinds=("random",), n_init=1, covariance_type="full", min_covar=0.0)[0].params
    np.testing.assert_allclose(params.means, np.tile(X.mean(axis=0), (3, 1)), atol=0.2)
    np.testing.assert_allclose(params.covars, np.tile(np.cov(X.T), (3, 1, 1)), atol=0.3)


def test_random_responsibilities_are_those_of_the_seed():
    X = np.random.default_rng(1).normal(size=(10_000, 2)) * [1.0, 5.0] + [3.0, -2.0]
    only = {"kinds": ("random",), "n_init": 1, "min_covar": 0.0}
    params = drawn(X, covariance_type="full", **only)[0].params
    (child,) = np.random.SeedSequence(OPTIONS["seed"]).spawn(1)
    weight = np.random.default_rng(child).exponential(size=(len(X), 3))
    weight /= weight.sum(axis=1, keepdims=True)
    for k in range(3):
        np.testing.assert_allclose(params.means[k], np.average(X, axis=0, weights=weight[:, k]))
        covars = np.cov(X.T, aweights=weight[:, k], ddof=0)
        np.testing.assert_allclose(params.covars[k], covars, rtol=1e-9)


def test_rows_of_equal_volatility_keep_their_order():
    X, _ = planted(300)
    volatility = np.repeat([2.0, 1.0], 150)
    options = OPTIONS | {"n_states": 4, "n_init": 1, "kinds": ("quantile",)}
    means = starting_points(X, volatility, **options)[0].params.means
    quarters = [X[150:225], X[225:], X[:75], X[75:150]]
    np.testing.assert_allclose(means, [rows.mean(axis=0) for rows in quarters])


def test_starts_move_with_the_units_of_the_data():
    X, _ = planted(300)
    units = np.array([1e-4, 1e3])
    for one, other in zip(drawn(X, kinds=KINDS), drawn(X * units, kinds=KINDS), strict=True):
        np.testing.assert_allclose(other.params.means, one.params.means * units, rtol=1e-9)
        np.testing.assert_allclose(other.params.covars, one.params.covars * units**2, rtol=1e-9)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_barely_split_state_is_the_same_model(covariance_type):
    X, _ = planted(300)
    small = drawn(X, n_states=2, covariance_type=covariance_type)[0].params
    large = split(small, 0, apart=1e-9)
    assert large.n_states == 3
    assert large.to_hmmlearn().score(X) == pytest.approx(small.to_hmmlearn().score(X), abs=1e-5)
    again = merge(large, 0, 2)
    for name in ("startprob", "transmat", "means", "covars"):
        np.testing.assert_allclose(getattr(again, name), getattr(small, name), atol=1e-6)


def test_the_nearest_states_are_found_and_merged_by_their_moments():
    params = GaussianParams(
        [0.2, 0.3, 0.5],
        [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]],
        [[0.0], [5.0], [0.5]],
        [[1.0], [1.0], [1.0]],
    )
    assert nearest_pair(params) == (0, 2)
    merged = merge(params, 0, 2)
    weight = occupancy(params)
    share = weight[2] / (weight[0] + weight[2])
    assert merged.means[0, 0] == pytest.approx(0.5 * share)
    assert merged.covars[0, 0] == pytest.approx(1 + 0.25 * share * (1 - share))
    assert merged.startprob == pytest.approx([0.7, 0.3])
    np.testing.assert_allclose(merged.transmat.sum(axis=1), 1.0)
    assert occupancy(merged)[1] == pytest.approx(weight[1])


def test_earlier_solutions_become_starts():
    assert starts_from(None, 3) == []
    assert [p.kind for p in starts_from(PLANTED, 3)] == ["split", "split"]
    assert [p.params.n_states for p in starts_from(PLANTED, 5)] == [5, 5]
    one = starts_from([PLANTED, split(PLANTED, 1)], 2)
    assert [(p.kind, p.params.n_states) for p in one] == [("given", 2), ("merged", 2)]


def test_a_start_from_a_solution_can_leave_its_zeros():
    stuck = GaussianParams([1.0, 0.0], np.eye(2), [[0.0], [1.0]], [[1.0], [2.0]])
    params = starts_from(stuck, 2)[0].params
    assert (params.startprob == 0.5).all()
    assert (params.transmat > 0).all()
