"""Unusable input gives a clear error, or a fit with its faults named; never NaN."""

import numpy as np
import pytest

from hmm_exp.errors import FitError
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.fit import Fit
from hmm_exp.hmm.health import hard_faults
from hmm_exp.hmm.inference import smooth
from hmm_exp.hmm.params import COVARIANCE_TYPES
from tests.test_hmm_fit import fit

N_STATES = 3


def rows(n_rows=600, seed=0):
    """Three features, two regimes that last 50 rows."""
    rng = np.random.default_rng(seed)
    scale = np.where(np.arange(n_rows) // 50 % 2, 2.0, 0.5)[:, None]
    X = rng.normal(size=(n_rows, 3)) * scale
    return (X - X.mean(axis=0)) / X.std(axis=0)


def one_sequence(n_rows):
    steps = np.ones(n_rows, dtype=np.int64)
    steps[0] = 0
    return steps


def faults_of(fitted: Fit, X, steps) -> list[str]:
    """Hard faults as a run finds them."""
    params = fitted.params
    density = log_density(params, X)
    observed = ~np.isnan(X).any(axis=1)
    probs = smooth(params.startprob, params.transmat, density, steps).probs[observed]
    occupancy = probs.mean(axis=0)
    return hard_faults(
        params, occupancy, int(observed.sum()), fitted.status, covar_floor=fitted.covar_floor
    )


def assert_sound(fitted: Fit) -> None:
    """No NaN, and covariances that are positive definite."""
    assert np.isfinite(fitted.log_lik)
    assert np.isfinite(fitted.history).all()
    params = fitted.params
    for values in (params.startprob, params.transmat, params.means, params.covars):
        assert np.isfinite(values).all()
    assert (np.linalg.eigvalsh(fitted.params.full_covars()) > 0).all()


def with_sum(X):
    return np.c_[X, X.sum(axis=1)]


def with_constant(X):
    return np.c_[X[:, :2], np.zeros(len(X))]


def with_outlier(X):
    X[300, 1] = 1e6
    return X


def with_standardised_outlier(X):
    X = with_outlier(X)
    return (X - X.mean(axis=0)) / X.std(axis=0)


FAULTY = {
    "outlier of 1e6 sigma": (with_outlier, "holds 0.17% of the rows"),
    "outlier, standardised": (with_standardised_outlier, "holds 0.17% of the rows"),
    "50 rows": (lambda X: X[:50], "rests on"),
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_fit_names_what_is_wrong(name, covariance_type):
    spoil, reason = FAULTY[name]
    X = spoil(rows())
    steps = one_sequence(len(X))
    fitted = fit(X, steps, n_states=N_STATES, covariance_type=covariance_type, n_init=4)
    assert_sound(fitted)
    faults = faults_of(fitted, X, steps)
    assert any(reason in fault for fault in faults), faults


@pytest.mark.parametrize("spoil", [with_sum, with_constant])
@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_a_feature_that_follows_from_others_is_refused_where_it_matters(spoil, covariance_type):
    X = spoil(rows())
    reason = f"feature {X.shape[1] - 1} is constant or follows from the features before it"
    with pytest.raises(FitError, match=reason):
        fit(X, one_sequence(600), n_states=2, covariance_type=covariance_type)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_a_constant_feature_is_held_up_by_the_floor(covariance_type):
    X, steps = with_constant(rows()), one_sequence(600)
    fitted = fit(X, steps, n_states=2, covariance_type=covariance_type, n_init=4)
    assert_sound(fitted)
    faults = faults_of(fitted, X, steps)
    named = any("feature 2 of state 0 has variance" in fault for fault in faults)
    assert named == (covariance_type == "diag"), faults  # one variance for all does not collapse


def test_features_that_follow_from_others_do_no_harm_to_independent_ones():
    X, steps = with_sum(rows()), one_sequence(600)
    fitted = fit(X, steps, n_states=2, n_init=4)
    assert_sound(fitted)
    assert fitted.converged


@pytest.mark.parametrize("covariance_type", ["diag", "full", "spherical"])
def test_a_block_of_missing_rows_is_no_fault(covariance_type):
    X, steps = rows(2000), one_sequence(2000)
    X[700:1100] = np.nan
    fitted = fit(X, steps, n_states=2, covariance_type=covariance_type, n_init=4)
    assert_sound(fitted)
    assert faults_of(fitted, X, steps) == []


@pytest.mark.parametrize("engine", ["native", "hmmlearn"])
@pytest.mark.parametrize(
    ("X", "reason"),
    [
        (np.ones((100, 2)), "3 states from 1 distinct rows: use fewer states"),
        (np.tile([[0.0], [1.0]], (50, 1)), "3 states from 2 distinct rows"),
        (np.full((100, 2), np.nan), "at least 3 complete rows, got 0"),
        (rows(2), "at least 3 complete rows, got 2"),
        (np.where(np.arange(300).reshape(100, 3) == 77, np.inf, rows(100)), "infinite value"),
        (np.where(np.arange(300).reshape(100, 3) == 77, -np.inf, rows(100)), "infinite value"),
    ],
    ids=["one distinct row", "two distinct rows", "all missing", "two rows", "inf", "-inf"],
)
def test_what_cannot_be_fitted_is_refused_with_the_reason(X, reason, engine):
    with pytest.raises(FitError, match=reason):
        fit(X, one_sequence(len(X)), n_states=N_STATES, engine=engine)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_more_states_than_the_data_support_are_named(covariance_type):
    X, steps = rows(200), one_sequence(200)
    fitted = fit(X, steps, n_states=12, covariance_type=covariance_type, n_init=3)
    assert_sound(fitted)
    faults = faults_of(fitted, X, steps)
    assert any("rests on" in fault for fault in faults), faults


def test_a_single_distinct_row_has_one_state_at_most():
    X = np.ones((100, 2))
    fitted = fit(X, one_sequence(100), n_states=1)
    assert_sound(fitted)
    assert faults_of(fitted, X, one_sequence(100))
