"""EM against hmmlearn, against enumeration of all paths, and the SIMD E step against its twin."""

import logging
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from hmm_exp.errors import FitError
from hmm_exp.hmm.em import scratch
from hmm_exp.hmm.em.rows import lay_out
from hmm_exp.hmm.em.run import PATIENCE, Priors, em
from hmm_exp.hmm.params import COVARIANCE_TYPES, GaussianParams
from tests import reference

UPDATES = 30


def steps_of(lengths) -> np.ndarray:
    """Chain steps of sequences of these lengths."""
    steps = np.ones(sum(lengths), dtype=np.int64)
    steps[np.cumsum([0, *lengths[:-1]])] = 0
    return steps


def regimes(rng, n_rows: int, n_features: int) -> np.ndarray:
    """Rows whose location and scale change every 20 rows."""
    state = rng.integers(0, 3, n_rows // 20 + 1).repeat(20)[:n_rows, None]
    return rng.normal(size=(n_rows, n_features)) * (1 + state) + 2.0 * state - 1.0


def sticky(n_states: int, stay: float = 0.95) -> np.ndarray:
    """A transition matrix with `stay` on its diagonal."""
    if n_states == 1:
        return np.ones((1, 1))
    move = (1 - stay) / (n_states - 1)
    return np.full((n_states, n_states), move) + (stay - move) * np.eye(n_states)


def start_for(rng, X, n_states: int, covariance_type: str = "diag", **parts) -> GaussianParams:
    """Random observed rows as means, the overall covariance for all states."""
    D = X.shape[1]
    seen = X[~np.isnan(X).any(axis=1)]
    covar = np.atleast_2d(np.cov(seen.T)) + 1e-3 * np.eye(D)
    covars = {
        "diag": np.tile(np.diag(covar), (n_states, 1)),
        "full": np.tile(covar, (n_states, 1, 1)),
        "tied": covar,
        "spherical": np.full(n_states, np.trace(covar) / D),
    }
    start = GaussianParams(
        startprob=np.full(n_states, 1 / n_states),
        transmat=sticky(n_states),
        means=seen[rng.choice(len(seen), n_states, replace=False)],
        covars=covars[covariance_type],
        covariance_type=covariance_type,
    )
    return replace(start, **parts)


def fit_hmmlearn(X, lengths, start: GaussianParams, n_iter: int, **priors):
    """A plain hmmlearn model after `n_iter` updates from `start`."""
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    model = start.to_hmmlearn()
    model.init_params = ""
    model.n_iter = model.monitor_.n_iter = n_iter
    model.tol = model.monitor_.tol = -np.inf
    model.implementation = "scaling"
    for name, value in priors.items():
        setattr(model, name, value)
    with threadpool_limits(1):  # small sums take longer on many threads
        return model.fit(X, lengths)


def assert_same_run(X, steps, start, rtol=1e-10, **options) -> None:
    """The SIMD E step equals its twin in the log domain, without falling back to it."""
    fast = em(X, steps, start, tol=-np.inf, **options)
    slow = em(X, steps, start, tol=-np.inf, log_domain=True, **options)
    assert fast.n_log_domain == 0
    np.testing.assert_allclose(fast.history, slow.history, rtol=rtol)
    np.testing.assert_allclose(fast.params.transmat, slow.params.transmat, atol=1e-8)
    np.testing.assert_allclose(fast.params.startprob, slow.params.startprob, atol=1e-8)
    np.testing.assert_allclose(fast.params.means, slow.params.means, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(fast.mass, slow.mass, rtol=1e-7, atol=1e-7)


# Against hmmlearn.


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(
    ("n_states", "n_features", "lengths"),
    [(1, 1, [400]), (2, 3, [1500]), (3, 12, [1, 900, 2, 600]), (10, 2, [700, 801, 500])],
)
def test_em_has_the_likelihoods_of_hmmlearn(covariance_type, n_states, n_features, lengths):
    rng = np.random.default_rng(1)
    X = regimes(rng, sum(lengths), n_features)
    start = start_for(rng, X, n_states, covariance_type)
    theirs = fit_hmmlearn(X, lengths, start, UPDATES)
    ours = em(X, steps_of(lengths), start, n_iter=UPDATES, tol=-np.inf)
    np.testing.assert_allclose(ours.history[:-1], theirs.monitor_.history, rtol=1e-9)
    np.testing.assert_allclose(ours.params.means, theirs.means_, rtol=1e-6, atol=1e-6)
    covars = GaussianParams.from_hmmlearn(theirs).covars
    np.testing.assert_allclose(ours.params.covars, covars, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.params.transmat, theirs.transmat_, atol=1e-6)
    np.testing.assert_allclose(ours.history[-1], theirs.score(X, lengths), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    covariance_type=st.sampled_from(COVARIANCE_TYPES),
    n_states=st.integers(1, 10),
    n_features=st.integers(1, 12),
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4),
)
def test_em_has_the_likelihoods_of_hmmlearn_whatever_the_data(
    seed, covariance_type, n_states, n_features, lengths
):
    rng = np.random.default_rng(seed)
    lengths = [*lengths, 40 * n_states * (n_features + 1)]
    X = regimes(rng, sum(lengths), n_features)
    start = start_for(rng, X, n_states, covariance_type)
    theirs = fit_hmmlearn(X, lengths, start, 6)
    ours = em(X, steps_of(lengths), start, n_iter=5, tol=-np.inf)
    assume(ours.mass.min() > 5 * n_features)  # a collapsing state amplifies the last digit
    np.testing.assert_allclose(ours.history, theirs.monitor_.history, rtol=1e-9)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_all_of_hmmlearns_priors_are_honoured(covariance_type):
    rng = np.random.default_rng(2)
    X = regimes(rng, 600, 2) + 5.0
    start = start_for(rng, X, 3, covariance_type)
    priors = {
        "startprob_prior": 1.5,
        "transmat_prior": 2.0 + 20.0 * np.eye(3),
        "means_prior": np.array([1.0, -1.0]),
        "means_weight": 7.0,
        "covars_prior": np.eye(2) + 2.0 if covariance_type in ("full", "tied") else 3.0,
        "covars_weight": 12.0,
    }
    theirs = fit_hmmlearn(X, [600], start, 15, **priors)
    ours = em(X, None, start, n_iter=15, tol=-np.inf, priors=Priors(**priors))
    np.testing.assert_allclose(ours.history[:-1], theirs.monitor_.history, rtol=1e-9)
    np.testing.assert_allclose(ours.params.means, theirs.means_, rtol=1e-7)
    assert (np.diff(ours.objective_history) > -1e-9).all()


# Against enumeration.


@pytest.mark.parametrize("log_domain", [False, True])
@pytest.mark.parametrize(
    "steps", [[0, 1, 1, 1, 1, 1, 1], [0, 1, 3, 1, 0, 1, 2], [0, 0, 4, 1, 1, 0, 0]]
)
def test_gaps_and_missing_rows_are_missing_observations(steps, log_domain):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(7, 2)) * 2
    X[2, 0] = X[5, 1] = np.nan
    start = start_for(rng, X, 2, transmat=np.array([[0.8, 0.2], [0.3, 0.7]]))
    start = replace(start, startprob=np.array([0.35, 0.65]))
    result = em(X, np.array(steps), start, n_iter=1, tol=-np.inf, log_domain=log_domain)

    log_lik, filled, place = reference.fill_gaps(reference.log_density(start, X), steps)
    model = (start.startprob, start.transmat, log_lik, filled)
    total = logsumexp(reference.enumerate_paths(*model).log_joint)
    assert result.history[0] == pytest.approx(total, rel=1e-12)

    pairs = reference.expected_pairs(*model)
    smoothed = reference.smoothed_probs(*model)
    begins = smoothed[filled == 0].sum(axis=0)
    observed = ~np.isnan(X).any(axis=1)
    weight = smoothed[place][observed]
    means = weight.T @ X[observed] / weight.sum(axis=0)[:, None]
    np.testing.assert_allclose(
        result.params.transmat, pairs / pairs.sum(axis=1, keepdims=True), rtol=1e-11
    )
    np.testing.assert_allclose(result.params.startprob, begins / begins.sum(), rtol=1e-11)
    np.testing.assert_allclose(result.params.means, means, rtol=1e-10)


# The lanes against their twin.


@pytest.mark.parametrize("n_rows", [3, 8, 57, 64, 65, 1000, 1003])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_lanes_agree_with_the_twin_at_any_length(n_rows, covariance_type):
    rng = np.random.default_rng(n_rows)
    X = regimes(rng, n_rows, 2)
    start = start_for(rng, X, min(3, n_rows), covariance_type)
    assert_same_run(X, None, start, n_iter=10)


@pytest.mark.parametrize(
    "transmat",
    [
        sticky(3, 1 - 1e-6),
        np.roll(np.eye(3), 1, axis=1),
        np.eye(3),
        np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.1, 0.0, 0.9]]),
        np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]]),
    ],
    ids=["sticky", "permutation", "identity", "ring", "left to right"],
)
def test_lanes_agree_with_the_twin_when_the_chain_never_forgets(transmat):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(1500, 2))  # the data do not separate the states
    start = start_for(rng, X, 3, transmat=transmat, means=0.01 * rng.normal(size=(3, 2)))
    assert_same_run(X, None, start, n_iter=8)


def test_lanes_agree_with_the_twin_over_gaps_missing_rows_and_many_sequences():
    rng = np.random.default_rng(5)
    X = regimes(rng, 1200, 3)
    X[rng.random(1200) < 0.2] = np.nan
    X[400:700] = np.nan
    steps = rng.choice([0, 1, 2, 25], p=[0.05, 0.85, 0.08, 0.02], size=1200)
    assert_same_run(X, steps, start_for(rng, X, 4), n_iter=10)


def test_lanes_agree_with_the_twin_on_outliers_of_300_sigma():
    rng = np.random.default_rng(6)
    X = regimes(rng, 900, 2)
    X[rng.choice(900, 9, replace=False)] *= 300
    assert_same_run(X, None, start_for(rng, X, 3), n_iter=15)
    narrow = start_for(rng, X, 3, covars=np.ones((3, 2)), means=rng.normal(size=(3, 2)))
    assert_same_run(X, None, narrow, n_iter=3)


def left_to_right() -> tuple[np.ndarray, GaussianParams]:
    """Rows that first fit the second state by 1,800 nats, then the first: it must be waited for."""
    X = np.r_[np.full(3, 60.0), np.zeros(40), np.full(40, 60.0)][:, None]
    start = GaussianParams(
        startprob=np.array([1.0, 0.0]),
        transmat=np.array([[0.9, 0.1], [0.0, 1.0]]),
        means=np.array([[0.0], [60.0]]),
        covars=np.ones((2, 1)),
    )
    return X + 0.1 * np.sin(np.arange(83))[:, None], start


def test_a_path_lost_to_underflow_is_found_in_the_log_domain():
    X, start = left_to_right()
    result = em(X, None, start, n_iter=1, tol=-np.inf)
    log_lik = reference.log_density(start, X)
    with np.errstate(divide="ignore"):
        log_transmat = np.log(start.transmat)
    forward = np.where(start.startprob > 0, 0.0, -np.inf) + log_lik[0]
    for row in log_lik[1:]:
        forward = logsumexp(forward[:, None] + log_transmat, axis=0) + row
    assert result.n_log_domain > 0
    assert result.history[0] == pytest.approx(logsumexp(forward), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_states=st.integers(2, 6),
    n_rows=st.integers(9, 400),
    zeros=st.floats(0, 0.7),
    far=st.sampled_from([1.0, 30.0, 300.0, 3000.0]),
)
def test_em_is_right_with_forbidden_transitions_and_far_rows(seed, n_states, n_rows, zeros, far):
    rng = np.random.default_rng(seed)
    X = regimes(rng, n_rows, 1)
    X[rng.random(n_rows) < 0.05] *= far
    transmat = rng.dirichlet(np.ones(n_states), n_states)
    transmat[(rng.random(transmat.shape) < zeros) & ~np.eye(n_states, dtype=bool)] = 0
    transmat /= transmat.sum(axis=1, keepdims=True)
    start = start_for(rng, X, n_states, transmat=transmat, covars=np.ones((n_states, 1)))
    start = replace(start, startprob=np.eye(n_states)[0])
    fast = em(X, None, start, n_iter=1, tol=-np.inf)
    slow = em(X, None, start, n_iter=1, tol=-np.inf, log_domain=True)
    assert fast.history[0] == pytest.approx(slow.history[0], rel=1e-12)
    np.testing.assert_allclose(fast.params.transmat, slow.params.transmat, atol=1e-9)
    # Moments about a common centre lose digits as the square of distance over a state's spread.
    lost = 1e-15 * np.ptp(X) ** 2 / slow.params.covars.min()
    apart = 1e-12 * abs(slow.history[1]) + lost
    assert fast.history[1] == pytest.approx(slow.history[1], rel=0, abs=2 * apart)


# End of a run.


def test_one_small_gain_does_not_end_a_run():
    rng = np.random.default_rng(7)
    X = regimes(rng, 500, 2)
    result = em(X, None, start_for(rng, X, 3), n_iter=500, tol=1e-3)
    gains = np.diff(result.objective_history)
    assert result.status == "tolerance"
    assert result.converged
    assert (gains[-PATIENCE:] < 1e-3).all()
    assert (gains[-PATIENCE:] >= -1e-8).all()
    assert gains[-PATIENCE - 1] >= 1e-3


def test_the_cap_is_reported_as_what_it_is():
    rng = np.random.default_rng(7)
    X = regimes(rng, 500, 2)
    result = em(X, None, start_for(rng, X, 3), n_iter=4, tol=1e-3)
    assert result.status == "cap"
    assert not result.converged
    assert result.n_iter == 4
    assert len(result.history) == 5


def test_the_result_has_the_log_likelihood_of_its_parameters():
    rng = np.random.default_rng(8)
    X = regimes(rng, 500, 2)
    for n_iter in (0, 5, 500):
        result = em(X, None, start_for(np.random.default_rng(8), X, 3), n_iter=n_iter)
        assert result.log_lik == pytest.approx(result.params.to_hmmlearn().score(X), rel=1e-11)


def test_a_fall_keeps_what_was_better():
    rng = np.random.default_rng(9)
    X = regimes(rng, 500, 1)
    X = np.c_[X, X + 0.05 * rng.normal(size=(500, 1))]
    start = start_for(rng, X, 3, "full")
    result = em(X, None, start, covar_floor=0.3)  # far above what the data want: no M step
    assert result.status == "fall"
    assert not result.converged
    assert result.objective == result.objective_history[-2] > result.objective_history[-1]
    assert result.floor_hits.any()
    refit = em(X, None, result.params, covar_floor=0.3, n_iter=0)
    assert refit.log_lik == pytest.approx(result.log_lik, rel=1e-12)


def test_the_floor_leaves_a_spherical_model_spherical():
    rng = np.random.default_rng(9)
    X = regimes(rng, 500, 2) * [1.0, 3.0]
    result = em(X, None, start_for(rng, X, 3, "spherical"), covar_floor=1.0, n_iter=20)
    assert result.floor_hits.any()
    assert result.log_lik == pytest.approx(result.params.to_hmmlearn().score(X), rel=1e-11)


def test_what_holds_a_state_up_is_named():
    rng = np.random.default_rng(10)
    X = np.c_[regimes(rng, 600, 1), rng.normal(size=600)]
    X = np.c_[X, X.mean(axis=1)]  # the third feature follows from the first two
    result = em(X, None, start_for(rng, X, 2, "full"), n_iter=100)
    assert result.floor_hits.tolist() == [[False, False, True]] * 2
    assert np.isfinite(result.history).all()
    assert np.linalg.eigvalsh(result.params.covars).min() > 0
    assert not em(X, None, start_for(rng, X, 2, "diag"), n_iter=20).floor_hits.any()


def test_a_state_nobody_visits_keeps_its_parameters():
    rng = np.random.default_rng(11)
    X = rng.normal(size=(300, 1))
    transmat = np.array([[1.0, 0.0], [0.5, 0.5]])
    start = start_for(rng, X, 2, transmat=transmat, startprob=np.array([1.0, 0.0]))
    result = em(X, None, start, n_iter=20, tol=-np.inf)
    assert result.mass[1] < 1e-12
    assert result.params.means[1] == pytest.approx(start.means[1], rel=1e-12)
    np.testing.assert_array_equal(result.params.transmat, transmat)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda X: np.ones_like(X),
        lambda X: np.c_[X[:, :1], np.ones(len(X))],
        lambda X: np.where(np.arange(len(X))[:, None] == 25, 1e6, X),
    ],
    ids=["one distinct row", "constant feature", "outlier of 1e6 sigma"],
)
def test_bad_data_never_gives_nan(covariance_type, spoil):
    rng = np.random.default_rng(12)
    X = spoil(rng.normal(size=(50, 2)))
    result = em(X, None, start_for(rng, X, 4, covariance_type), n_iter=50)
    assert np.isfinite(result.history).all()
    assert (np.linalg.eigvalsh(result.params.full_covars()) > 0).all()


@pytest.mark.parametrize(
    ("X", "steps", "reason"),
    [
        (np.full((5, 1), np.nan), None, "every row is missing"),
        (np.array([[0.0], [np.inf], [1.0]]), None, "row 1 holds an infinite value"),
        (np.array([[0.0], [1e300], [1.0]]), None, "too large"),
        (np.zeros((4, 2)), None, "start has 1 features, X has 2"),
        (np.zeros((4, 1)), np.ones(3, dtype=np.int64), "steps of shape"),
        (np.zeros((4, 1)), np.array([0, 1, -1, 1]), "row 2 is negative"),
        (np.zeros(4), None, "not \\(rows, features\\)"),
    ],
)
def test_data_that_cannot_be_fitted_is_refused(X, steps, reason):
    start = GaussianParams([1.0], [[1.0]], [[0.0]], [[1.0]])
    with pytest.raises(FitError, match=reason):
        em(X, steps, start)


# Threads and memory.


def test_threads_change_no_bit():
    rng = np.random.default_rng(13)
    X = regimes(rng, 3000, 3)
    rows = lay_out(X, steps_of([3000]))
    starts = [start_for(rng, X, 3, "full") for _ in range(8)]
    alone = [em(rows, None, start, n_iter=20) for start in starts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda start: em(rows, None, start, n_iter=20), starts))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.history, other.history)
        np.testing.assert_array_equal(one.params.covars, other.params.covars)


@pytest.mark.parametrize("segment", [1, 64, 512])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_checkpoints_change_no_bit(covariance_type, segment, monkeypatch):
    rng = np.random.default_rng(5)
    X = regimes(rng, 3000, 2)
    X[rng.random(3000) < 0.01] = np.nan
    steps = steps_of([700, 2300])
    steps[[300, 1500]] = 7
    start = start_for(rng, X, 3, covariance_type)
    whole = em(X, steps, start, n_iter=10, tol=-np.inf)
    monkeypatch.setattr(scratch, "_MOST_WHOLE", 0)
    monkeypatch.setattr(scratch, "_SEGMENT", segment)
    parted = em(X, steps, start, n_iter=10, tol=-np.inf)
    assert parted.n_log_domain == 0
    np.testing.assert_array_equal(parted.history, whole.history)
    for name in ("startprob", "transmat", "means", "covars"):
        np.testing.assert_array_equal(getattr(parted.params, name), getattr(whole.params, name))


def test_a_long_run_takes_the_memory_of_one_observation_matrix():
    X = np.random.default_rng(14).normal(size=(200_000, 4))
    steps = steps_of([len(X)])
    start = start_for(np.random.default_rng(14), X, 4)
    em(X[:100], steps[:100], start, n_iter=1)
    tracemalloc.start()
    em(X, steps, start, n_iter=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * X.nbytes
