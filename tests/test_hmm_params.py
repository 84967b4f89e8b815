"""Parameters as a value: shapes, exchange with hmmlearn, stationary distribution, priors."""

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM

from hmm_exp.errors import FitError, ModelError
from hmm_exp.hmm.params import GaussianParams, log_prior
from tests.test_hmm_inference import TYPES, random_params


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_model_goes_to_hmmlearn_and_back_unchanged(covariance_type):
    params = random_params(np.random.default_rng(0), 3, 2, covariance_type)
    model = params.to_hmmlearn()
    assert type(model) is GaussianHMM
    np.testing.assert_array_equal(model.covars_, params.full_covars())
    again = GaussianParams.from_hmmlearn(model)
    for name in ("startprob", "transmat", "means", "covars"):
        np.testing.assert_array_equal(getattr(again, name), getattr(params, name))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_model_fitted_by_hmmlearn_can_be_taken_over(covariance_type):
    rng = np.random.default_rng(1)
    X = np.concatenate([rng.normal(size=(200, 2)), 5 + 2 * rng.normal(size=(200, 2))])
    model = GaussianHMM(2, covariance_type=covariance_type, random_state=0).fit(X)
    params = GaussianParams.from_hmmlearn(model)
    assert params.to_hmmlearn().score(X) == pytest.approx(model.score(X), rel=1e-12)
    assert params.n_parameters() == sum(model._get_n_fit_scalars_per_param().values())


@pytest.mark.parametrize("covariance_type", TYPES)
def test_reordering_renames_the_states_and_changes_nothing_else(covariance_type):
    params = random_params(np.random.default_rng(2), 3, 2, covariance_type)
    order = np.array([2, 0, 1])
    moved = params.reordered(order)
    X = np.random.default_rng(3).normal(size=(50, 2))
    assert moved.to_hmmlearn().score(X) == pytest.approx(params.to_hmmlearn().score(X), rel=1e-12)
    np.testing.assert_array_equal(moved.means[0], params.means[2])
    np.testing.assert_array_equal(moved.transmat[0, 1], params.transmat[2, 0])
    np.testing.assert_array_equal(moved.full_covars()[1], params.full_covars()[0])


def test_the_stationary_distribution_stays_as_it_is():
    params = random_params(np.random.default_rng(4), 4)
    stationary = params.stationary()
    np.testing.assert_allclose(stationary @ params.transmat, stationary, atol=1e-14)
    assert stationary.sum() == pytest.approx(1.0)


def with_transmat(transmat):
    K = len(transmat)
    return GaussianParams(np.full(K, 1 / K), transmat, np.arange(K)[:, None], np.ones((K, 1)))


def test_a_transient_state_has_no_stationary_share():
    np.testing.assert_allclose(
        with_transmat([[0.5, 0.5, 0], [0, 0.9, 0.1], [0, 0.2, 0.8]]).stationary(),
        [0, 2 / 3, 1 / 3],
        atol=1e-14,
    )


@pytest.mark.parametrize(
    "transmat",
    [np.eye(2), [[1, 0, 0], [0.1, 0.8, 0.1], [0, 0, 1]], [[1 - 1e-13, 1e-13], [1e-13, 1 - 1e-13]]],
)
def test_a_chain_that_falls_apart_has_no_stationary_distribution(transmat):
    with pytest.raises(FitError, match="more than one stationary"):
        with_transmat(np.asarray(transmat)).stationary()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"startprob": [0.5, 0.6]}, "not made of distributions"),
        ({"startprob": [1.0]}, "has shape"),
        ({"means": [[0.0], [np.nan]]}, "params.means .* must be finite numbers"),
        ({"means": [[0.0], ["1.5"]]}, "params.means .* must be finite numbers"),
        ({"means": [[0.0], [True]]}, "params.means .* must be finite numbers"),
        ({"means": [[0.0], [1.0, 2.0]]}, "rows of one length"),
        ({"startprob": [1e99, 1e99]}, "not made of distributions"),
        ({"startprob": [-0.5, 1.5]}, "not made of distributions"),
        ({"transmat": [[1.0, 0.0], [0.0, 1.0]]}, "more than one stationary"),
        ({"weights": [1.0]}, "params.weights is unknown"),
        ({"covars": [[1.0], [0.0]]}, "not positive"),
        ({"covars": [1.0, 1.0]}, "has shape"),
        ({"covariance_type": "round"}, "unknown covariance type"),
    ],
)
def test_a_damaged_model_is_refused_with_its_fault(change, message):
    good = with_transmat([[0.9, 0.1], [0.1, 0.9]]).to_dict()
    with pytest.raises(ModelError, match=message):
        GaussianParams.from_dict({**good, **change})


@pytest.mark.parametrize(
    ("covars", "message"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], "not positive definite"),
        ([[1.0, 0.5], [0.4, 1.0]], "not symmetric"),
        ([[1.0, 1e99], [1e99, 1.0]], "not positive definite"),
        ([[0.0, 0.0], [0.0, 1.0]], "not positive"),
    ],
)
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_a_stored_covariance_must_be_one(kind, covars, message):
    good = [[1.0, 0.3], [0.3, 1.0]]
    stored = {
        "startprob": [0.5, 0.5],
        "transmat": [[0.9, 0.1], [0.1, 0.9]],
        "means": [[0.0, 0.0], [1.0, 1.0]],
        "covars": good if kind == "tied" else [good, good],
        "covariance_type": kind,
    }
    assert GaussianParams.from_dict(stored).covariance_type == kind
    with pytest.raises(ModelError, match=message):
        GaussianParams.from_dict(stored | {"covars": covars if kind == "tied" else [good, covars]})


def test_a_model_with_a_missing_part_names_it():
    good = with_transmat([[0.9, 0.1], [0.1, 0.9]]).to_dict()
    del good["means"]
    with pytest.raises(ModelError, match="means"):
        GaussianParams.from_dict(good)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_hmmlearns_m_step_maximises_the_likelihood_plus_this_prior(covariance_type):
    """At the one-state optimum no small change of the covariance may raise the sum."""
    X = np.random.default_rng(5).normal(size=(30, 2)) @ np.array([[1.0, 0.3], [0.0, 0.2]])
    model = GaussianHMM(1, covariance_type=covariance_type, n_iter=3).fit(X)
    best = GaussianParams.from_hmmlearn(model)

    def objective(params):
        return params.to_hmmlearn().score(X) + log_prior(params)

    for scale in (0.999, 1.001):
        changed = GaussianParams(
            best.startprob, best.transmat, best.means, best.covars * scale, covariance_type
        )
        assert objective(changed) < objective(best)
    if covariance_type in ("full", "tied"):
        bent = best.covars.copy()
        bent[..., 0, 1] *= 1.001
        bent[..., 1, 0] *= 1.001
        changed = GaussianParams(best.startprob, best.transmat, best.means, bent, covariance_type)
        assert objective(changed) < objective(best)
