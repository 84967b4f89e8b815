"""`GaussianHMM` has the names, likelihoods and results of hmmlearn's where they agree."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM as TheirHMM
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_limits

from hmm_exp.errors import FitError
from hmm_exp.hmm import GaussianHMM
from hmm_exp.hmm.params import COVARIANCE_TYPES, GaussianParams
from tests.test_hmm_fit import planted

LENGTHS = [400, 250, 350]


@pytest.fixture(scope="module")
def X():
    return planted(1000)[0]


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread():
    """Small sums and clusters take longer on many threads."""
    with threadpool_limits(1):
        yield


def preset(model, X):
    """Parameters by hand, for both kinds of model."""
    model.startprob_ = np.array([0.3, 0.7])
    model.transmat_ = np.array([[0.9, 0.1], [0.2, 0.8]])
    model.means_ = X[[10, 500]]
    D = X.shape[1]
    model.covars_ = {
        "diag": np.ones((2, D)),
        "full": np.tile(np.eye(D), (2, 1, 1)),
        "tied": np.eye(D),
        "spherical": np.ones(2),
    }[model.covariance_type]
    return model


def test_the_constructor_has_hmmlearns_names_and_more():
    theirs, ours = TheirHMM().get_params(), GaussianHMM().get_params()
    assert set(ours) - set(theirs) == {"n_init", "n_jobs", "accelerate"}
    assert not set(theirs) - set(ours)
    free = {"n_init", "n_jobs", "accelerate", "n_iter", "tol"}
    assert {k: ours[k] for k in ours if k not in free} == {
        k: theirs[k] for k in theirs if k not in free
    }


def test_it_follows_scikit_learns_conventions(X):
    model = GaussianHMM(2, covariance_type="full", n_init=3, random_state=1, means_weight=2.0)
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert model.fit(X) is model
    assert not hasattr(clone(model), "means_")
    assert "n_components=2" in repr(model)
    assert model.set_params(n_iter=7).n_iter == 7
    with pytest.raises(NotFittedError):
        twin.score(X)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_preset_parameters_climb_as_hmmlearns_do(X, covariance_type):
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    options = {"covariance_type": covariance_type, "init_params": "", "n_iter": 12, "tol": -np.inf}
    theirs = preset(TheirHMM(2, **options), X).fit(X, LENGTHS)
    ours = preset(GaussianHMM(2, accelerate=False, **options), X).fit(X, LENGTHS)
    np.testing.assert_allclose(ours.monitor_.history[:-1], theirs.monitor_.history, rtol=1e-10)
    for name in ("startprob_", "transmat_", "means_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-8)
    covars = GaussianParams.from_hmmlearn(theirs).full_covars()  # not their covars_: "spherical"
    np.testing.assert_allclose(ours.covars_, covars, atol=1e-8)
    assert ours.n_features == theirs.n_features
    assert ours.monitor_.iter == theirs.monitor_.iter == 12
    assert not ours.monitor_.converged
    assert ours.score(X, LENGTHS) == pytest.approx(theirs.score(X, LENGTHS), rel=1e-11)
    assert ours.bic(X, LENGTHS) == pytest.approx(theirs.bic(X, LENGTHS), rel=1e-10)
    assert ours.aic(X, LENGTHS) == pytest.approx(theirs.aic(X, LENGTHS), rel=1e-10)


@pytest.mark.parametrize("params", ["", "s", "tm", "mc", "stm"])
def test_only_the_named_parameters_change(X, params):
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    options = {"params": params, "init_params": "", "n_iter": 5, "tol": -np.inf}
    theirs = preset(TheirHMM(2, **options), X).fit(X)
    ours = preset(GaussianHMM(2, accelerate=False, **options), X).fit(X)
    for name in ("startprob_", "transmat_", "means_", "covars_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-9)


def test_covariances_alone_are_those_about_the_given_means(X):
    """hmmlearn 0.3.3 collects no counts without "m", and its covariances explode."""
    model = preset(GaussianHMM(2, params="c", init_params="", tol=1e-9, covars_prior=0.0), X)
    model.fit(X)
    away = X[:, None] - model.means_
    weight = model.smooth(X)
    expected = (weight[:, :, None] * away**2).sum(axis=0) / weight.sum(axis=0)[:, None]
    np.testing.assert_array_equal(model.means_, X[[10, 500]])
    np.testing.assert_allclose(model.covars_[:, [0, 1], [0, 1]], expected, rtol=1e-3)


def test_what_is_not_drawn_is_taken_as_it_is_set(X):
    model = preset(GaussianHMM(2, init_params="mc", n_init=3, n_iter=0), X).fit(X)
    np.testing.assert_array_equal(model.transmat_, [[0.9, 0.1], [0.2, 0.8]])
    assert not np.array_equal(model.means_, X[[10, 500]])
    assert len(model.fit_.starts) == 3
    with pytest.raises(FitError, match="transmat_ is not set"):
        GaussianHMM(2, init_params="smc").fit(X)
    with pytest.raises(FitError, match="parameters of 2"):
        preset(GaussianHMM(3, init_params=""), X).fit(X)


def test_filter_smooth_and_decode_are_what_they_say(X):
    model = GaussianHMM(2, n_init=2, random_state=0).fit(X, LENGTHS)
    theirs = model.to_hmmlearn()
    np.testing.assert_allclose(
        model.smooth(X, LENGTHS), theirs.predict_proba(X, LENGTHS), atol=1e-9
    )
    np.testing.assert_allclose(
        model.filter(X, LENGTHS)[:300], model.filter(X[:300]), atol=0
    )  # later rows change nothing
    for algorithm in ("viterbi", "map"):
        score, states = model.decode(X, LENGTHS, algorithm)
        their_score, their_states = theirs.decode(X, LENGTHS, algorithm)
        np.testing.assert_array_equal(states, their_states)
        assert score == pytest.approx(their_score, rel=1e-9)
    assert not hasattr(model, "predict_proba")
    assert not hasattr(model, "predict")
    with pytest.raises(FitError, match="unknown algorithm 'best'"):
        model.decode(X, algorithm="best")


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_there_and_back_to_hmmlearn(X, covariance_type):
    model = GaussianHMM(2, covariance_type=covariance_type, n_init=1, random_state=0).fit(X)
    again = GaussianHMM.from_hmmlearn(model.to_hmmlearn())
    assert again.covariance_type == covariance_type
    assert again.score(X) == model.score(X)
    fitted = TheirHMM(2, covariance_type=covariance_type, random_state=0).fit(X)
    assert GaussianHMM.from_hmmlearn(fitted).score(X) == pytest.approx(fitted.score(X), rel=1e-11)


def test_the_scale_of_the_data_is_no_matter(X):
    """Raw returns have variances far below `min_covar`; the likelihood only changes its unit."""
    options = {"n_init": 4, "random_state": 0, "covars_prior": 0.0, "covars_weight": 0.0}
    usual = GaussianHMM(2, **options).fit(X).score(X)
    tiny = GaussianHMM(2, **options).fit(X * 1e-4).score(X * 1e-4)
    assert tiny + X.size * np.log(1e-4) == pytest.approx(usual, abs=1e-2)


def test_missing_rows_are_allowed(X):
    gappy = X.copy()
    gappy[100:150] = np.nan
    model = GaussianHMM(2, n_init=2, random_state=0).fit(gappy)
    assert model.monitor_.converged
    assert np.isfinite(model.bic(gappy))
    assert model.filter(gappy).shape == (1000, 2)


def test_verbose_prints_a_line_per_start(X, capsys):
    GaussianHMM(2, n_init=3, verbose=True, n_iter=5).fit(X)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("of 3: log-likelihood -" in line for line in lines)


def test_rows_and_lengths_must_fit_together(X):
    with pytest.raises(FitError, match="lengths sum to 999, X has 1000 rows"):
        GaussianHMM(2).fit(X, [999])
    with pytest.raises(FitError, match="not \\(rows, features\\)"):
        GaussianHMM(2).fit(X[:, 0])


def test_the_package_is_light_until_the_estimator_is_asked_for():
    program = (
        "import sys, hmm_exp.hmm\n"
        "assert not {'sklearn', 'numba', 'hmmlearn'} & set(sys.modules)\n"
        "from hmm_exp.hmm import GaussianHMM\n"
        "assert 'hmmlearn' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
