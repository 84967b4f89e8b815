"""Criteria by hand and against hmmlearn; the one-state null."""

import math

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM

from hmm_exp.errors import FitError
from hmm_exp.hmm.criteria import bic_next, criteria, single_gaussian
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.inference import path_entropy, smooth
from tests.test_hmm_inference import TYPES, random_params


def test_criteria_by_hand():
    assert criteria(-100.0, 7, 50, 3.0) == {
        "aic": pytest.approx(214.0),
        "bic": pytest.approx(200 + 7 * math.log(50)),
        "hqc": pytest.approx(200 + 14 * math.log(math.log(50))),
        "icl": pytest.approx(200 + 7 * math.log(50) + 6.0),
    }


def test_bic_of_the_next_return_by_hand():
    scores = np.array([-1.0, np.nan, -2.0, 0.5, np.nan])
    assert bic_next(scores, 1) == pytest.approx(5.0 + 3 * math.log(3))
    assert bic_next(scores, 3) == pytest.approx(5.0 + 13 * math.log(3))
    assert bic_next(np.full(4, np.nan), 2) is None


@pytest.mark.parametrize("covariance_type", TYPES)
def test_aic_and_bic_are_hmmlearns_own(covariance_type):
    params = random_params(np.random.default_rng(0), 3, 2, covariance_type)
    model = params.to_hmmlearn()
    X = model.sample(300, random_state=1)[0]
    log_lik = log_density(params, X)
    steps = np.ones(300, dtype=int)
    total = smooth(params.startprob, params.transmat, log_lik, steps).log_lik
    ours = criteria(total, params.n_parameters(), 300, 0.0)
    assert ours["aic"] == pytest.approx(model.aic(X), abs=1e-8)
    assert ours["bic"] == pytest.approx(model.bic(X), abs=1e-8)


def test_path_entropy_is_the_formula_of_expected_complete_likelihood():
    params = random_params(np.random.default_rng(2), 3, 2)
    X = params.to_hmmlearn().sample(500, random_state=3)[0]
    log_lik, steps = log_density(params, X), np.ones(500, dtype=int)
    chain = params.startprob, params.transmat, log_lik, steps
    smoothed = smooth(*chain)
    by_formula = (
        smoothed.log_lik
        - smoothed.probs[0] @ np.log(params.startprob)
        - (smoothed.pairs * np.log(params.transmat)).sum()
        - (smoothed.probs * log_lik).sum()
    )
    assert path_entropy(*chain) == pytest.approx(by_formula, abs=1e-8)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_null_is_hmmlearns_one_state_fit(covariance_type):
    X = np.random.default_rng(4).normal(size=(200, 3)) @ np.diag([1.0, 2.0, 0.5])
    gaps = np.concatenate([X, np.full((5, 3), np.nan)])
    log_lik, n_parameters = single_gaussian(gaps, covariance_type)
    model = GaussianHMM(1, covariance_type=covariance_type, n_iter=2).fit(X)
    assert log_lik == pytest.approx(model.score(X), abs=1e-8)
    assert n_parameters == sum(model._get_n_fit_scalars_per_param().values())


def test_the_null_of_collinear_features_is_finite():
    x = np.random.default_rng(5).normal(size=(100, 1))
    log_lik, _ = single_gaussian(np.hstack([x, x, x]), "full")
    assert np.isfinite(log_lik)


def test_a_null_without_rows_is_refused():
    with pytest.raises(FitError, match="no row is complete"):
        single_gaussian(np.full((3, 2), np.nan))
