"""The recursions against every path, against hmmlearn, and against the future."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.errors import FitError
from hmm_exp.hmm import density
from hmm_exp.hmm.density import density_of, log_density
from hmm_exp.hmm.inference import (
    advance,
    filter,
    filter_rows,
    path_entropy,
    predict,
    smooth,
    smooth_filtered,
    viterbi,
)
from hmm_exp.hmm.params import GaussianParams
from tests import reference

TYPES = ("diag", "full", "tied", "spherical")


def random_params(rng, n_states=3, n_features=2, covariance_type="diag", sticky=5.0):
    K, D = n_states, n_features
    root = rng.normal(size=(K, D, D))
    full = np.einsum("kij,klj->kil", root, root) + 0.3 * np.eye(D)
    variances = np.diagonal(full, axis1=1, axis2=2)
    covars = {"full": full, "tied": full[0], "diag": variances, "spherical": variances[:, 0]}
    return GaussianParams(
        rng.dirichlet(np.ones(K)),
        np.stack([rng.dirichlet(np.ones(K) + sticky * row) for row in np.eye(K)]),
        rng.normal(size=(K, D)),
        covars[covariance_type],
        covariance_type,
    )


def random_rows(rng, T, D, missing=0.1):
    X = rng.normal(size=(T, D)) * 1.5
    X[rng.random(T) < missing, rng.integers(D)] = np.nan
    return X


def random_steps(rng, T):
    steps = rng.choice([0, 1, 1, 1, 1, 1, 1, 2, 3, 25], T)
    steps[0] = 0
    return steps


@st.composite
def chains(draw):
    """startprob, transmat, log densities and steps of a small chain, hard cases included."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    K, T = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    startprob = rng.dirichlet(np.ones(K))
    transmat = rng.dirichlet(np.full(K, draw(st.sampled_from([0.05, 1.0, 10.0]))), K)
    if draw(st.booleans()):
        startprob = np.eye(K)[rng.integers(K)]
    log_lik = rng.normal(size=(T, K)) * draw(st.sampled_from([0.1, 3.0, 60.0]))
    log_lik += rng.normal(size=(T, 1)) * draw(st.sampled_from([0.0, 1e4]))
    log_lik[rng.random(T) < 0.2] = 0.0
    steps = draw(st.lists(st.sampled_from([0, 1, 1, 1, 2, 3, 25]), min_size=T, max_size=T))
    return startprob, transmat, log_lik, np.array([0, *steps[1:]])


@settings(max_examples=150, deadline=None)
@given(chains())
def test_recursions_agree_with_the_enumeration_of_every_path(chain):
    paths = reference.enumerate_paths(*chain)
    total = np.logaddexp.reduce(paths.log_joint)
    close = {"rtol": 1e-10, "atol": 1e-10}

    filtered, smoothed, decoded = filter(*chain), smooth(*chain), viterbi(*chain)

    np.testing.assert_allclose(filtered.probs, reference.filtered_probs(*chain), **close)
    np.testing.assert_allclose(filtered.log_lik.sum(), total, **close)
    np.testing.assert_allclose(smoothed.probs, reference.smoothed_probs(*chain), **close)
    np.testing.assert_allclose(smoothed.log_lik, total, **close)
    np.testing.assert_allclose(decoded.log_prob, paths.log_joint.max(), **close)
    found = np.flatnonzero((paths.paths == decoded.states).all(axis=1))
    np.testing.assert_allclose(paths.log_joint[found], paths.log_joint.max(), **close)
    np.testing.assert_allclose(path_entropy(*chain), reference.path_entropy(*chain), **close)


@settings(max_examples=50, deadline=None)
@given(chains())
def test_expected_transitions_agree_with_the_enumeration_of_every_path(chain):
    startprob, transmat, log_lik, steps = chain
    steps = np.minimum(steps, 1)
    np.testing.assert_allclose(
        smooth(startprob, transmat, log_lik, steps).pairs,
        reference.expected_pairs(startprob, transmat, log_lik, steps),
        atol=1e-10,
    )


@settings(max_examples=50, deadline=None)
@given(chains())
def test_a_gap_is_the_same_as_missing_rows_written_out(chain):
    startprob, transmat, log_lik, steps = chain
    long, single, place = reference.fill_gaps(log_lik, steps)

    gap, rows = smooth(*chain), smooth(startprob, transmat, long, single)

    np.testing.assert_allclose(gap.probs, rows.probs[place], atol=1e-11)
    np.testing.assert_allclose(gap.pairs, rows.pairs, atol=1e-10)
    np.testing.assert_allclose(gap.pairs.sum(), steps.sum(), atol=1e-9)
    np.testing.assert_allclose(
        filter(*chain).probs, filter(startprob, transmat, long, single).probs[place], atol=1e-11
    )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_densities_agree_with_scipy_and_missing_rows_get_zeros(covariance_type):
    rng = np.random.default_rng(1)
    params = random_params(rng, 3, 4, covariance_type)
    X = random_rows(rng, 50, 4, missing=0.3)
    ours = log_density(params, X)
    np.testing.assert_allclose(ours, reference.log_density(params, X), rtol=1e-11)
    assert (ours[np.isnan(X).any(axis=1)] == 0).all()


def test_a_singular_covariance_is_refused():
    params = GaussianParams([1.0], [[1.0]], [[0.0, 0.0]], [np.ones((2, 2))], "full")
    with pytest.raises(FitError, match="not positive definite"):
        density_of(params)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_posteriors_and_paths_agree_with_hmmlearn_over_several_sequences(covariance_type):
    rng = np.random.default_rng(2)
    params = random_params(rng, 4, 3, covariance_type)
    model = params.to_hmmlearn()
    lengths = [700, 1, 299, 1000]
    X = model.sample(2000, random_state=3)[0]
    steps = np.ones(2000, dtype=int)
    steps[np.cumsum([0, *lengths[:-1]])] = 0
    chain = (params.startprob, params.transmat, log_density(params, X), steps)

    total, posteriors = model.score_samples(X, lengths)
    log_prob, states = model.decode(X, lengths)
    smoothed, decoded = smooth(*chain), viterbi(*chain)

    np.testing.assert_allclose(smoothed.log_lik, total, rtol=0, atol=1e-9)
    np.testing.assert_allclose(smoothed.probs, posteriors, rtol=0, atol=1e-9)
    np.testing.assert_allclose(decoded.log_prob, log_prob, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(decoded.states, states)


def test_real_returns_agree_with_hmmlearn(shared_data):
    returns = np.loadtxt(shared_data / "dax_log_returns.csv", delimiter=",", skiprows=1, usecols=-1)
    X = ((returns - returns.mean()) / returns.std())[:, None]
    params = GaussianParams(
        [0.5, 0.5], [[0.99, 0.01], [0.03, 0.97]], [[0.05], [-0.1]], [[0.4], [2.6]]
    )
    steps = np.ones(len(X), dtype=int)
    chain = (params.startprob, params.transmat, log_density(params, X), steps)
    total, posteriors = params.to_hmmlearn().score_samples(X)
    log_prob, states = params.to_hmmlearn().decode(X)
    np.testing.assert_allclose(smooth(*chain).probs, posteriors, rtol=0, atol=1e-9)
    np.testing.assert_allclose(smooth(*chain).log_lik, total, rtol=0, atol=1e-9)
    np.testing.assert_allclose(viterbi(*chain).log_prob, log_prob, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(viterbi(*chain).states, states)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(TYPES), st.integers(1, 60))
def test_filter_ignores_the_future(seed, covariance_type, known):
    rng = np.random.default_rng(seed)
    params = random_params(rng, 3, 3, covariance_type)
    X, steps = random_rows(rng, 60, 3), random_steps(rng, 60)

    def run(X, steps):
        return filter(params.startprob, params.transmat, log_density(params, X), steps)

    whole = run(X, steps)
    rewritten, other_steps = X.copy(), steps.copy()
    rewritten[known:] = rng.normal(size=(60 - known, 3)) * 100
    other_steps[known:] = rng.integers(0, 26, 60 - known)
    longer = np.concatenate([X, random_rows(rng, 7, 3)])
    for other in (
        run(rewritten, other_steps),
        run(X[:known], steps[:known]),
        run(longer, np.concatenate([steps, random_steps(rng, 7)])),
    ):
        assert other.probs[:known].tobytes() == whole.probs[:known].tobytes()
        assert other.log_lik[:known].tobytes() == whole.log_lik[:known].tobytes()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 59))
def test_chunks_and_single_rows_give_the_bits_of_one_run(seed, cut):
    rng = np.random.default_rng(seed)
    params = random_params(rng)
    log_lik, steps = log_density(params, random_rows(rng, 60, 2)), random_steps(rng, 60)
    chain = params.startprob, params.transmat
    whole = filter(*chain, log_lik, steps)

    head = filter(*chain, log_lik[:cut], steps[:cut])
    tail = filter(*chain, log_lik[cut:], steps[cut:], carry=head.probs[-1])
    assert np.concatenate([head.probs, tail.probs]).tobytes() == whole.probs.tobytes()

    current, probs, log_prob = params.startprob.copy(), np.empty((1, 3)), np.empty(1)
    for t in range(60):
        advance(*chain, log_lik[t : t + 1], steps[t : t + 1], current, probs, log_prob)
        assert probs.tobytes() == whole.probs[t : t + 1].tobytes()
        assert current.tobytes() == probs.tobytes()
        assert log_prob[0] == whole.log_lik[t]


@pytest.mark.parametrize("threads_from", [10**6, 100])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_rows_filtered_piece_by_piece_have_the_bits_of_their_densities(
    monkeypatch, covariance_type, threads_from
):
    monkeypatch.setattr(density, "_IN_CACHE", 64)
    monkeypatch.setattr(density, "LONG", threads_from)
    rng = np.random.default_rng(11)
    params = random_params(rng, 3, 2, covariance_type)
    for T in (1, 63, 64, 65, 1000):
        X, steps = random_rows(rng, T, 2), random_steps(rng, T)
        steps[0] = 1  # opens a sequence all the same, unless it goes on
        for carry in (None, params.stationary()):
            log_lik = log_density(params, X)
            whole = filter(params.startprob, params.transmat, log_lik, steps, carry)
            pieces = filter_rows(params, X, steps, carry=carry)
            assert pieces.probs.tobytes() == whole.probs.tobytes()
            assert pieces.log_lik.tobytes() == whole.log_lik.tobytes()
    begun = filter_rows(params, X, steps, params.stationary())
    assert begun.probs.tobytes() != whole.probs.tobytes()


def test_the_first_row_starts_a_sequence_even_in_a_slice():
    rng = np.random.default_rng(4)
    params = random_params(rng)
    log_lik = log_density(params, random_rows(rng, 20, 2))
    ones = np.ones(20, dtype=int)
    opened = ones.copy()
    opened[0] = 0
    for run in (filter, smooth, viterbi):
        sliced = run(params.startprob, params.transmat, log_lik, ones)
        whole = run(params.startprob, params.transmat, log_lik, opened)
        np.testing.assert_array_equal(sliced[0], whole[0])


def test_a_missing_row_adds_exactly_nothing():
    rng = np.random.default_rng(5)
    params = random_params(rng)
    X = rng.normal(size=(30, 2))
    X[10:20, 0] = np.nan
    steps = np.ones(30, dtype=int)
    filtered = filter(params.startprob, params.transmat, log_density(params, X), steps)
    assert (filtered.log_lik[10:20] == 0).all()
    np.testing.assert_allclose(
        filtered.probs[10:20],
        [filtered.probs[9] @ np.linalg.matrix_power(params.transmat, n) for n in range(1, 11)],
        atol=1e-14,
    )


def test_prediction_moves_the_filtered_probabilities_through_the_chain():
    rng = np.random.default_rng(6)
    params = random_params(rng, 4)
    probs = rng.dirichlet(np.ones(4), 30)
    np.testing.assert_allclose(predict(params.transmat, probs), probs @ params.transmat, atol=1e-15)
    np.testing.assert_allclose(
        predict(params.transmat, probs, 5),
        probs @ np.linalg.matrix_power(params.transmat, 5),
        atol=1e-14,
    )
    alone = np.concatenate([predict(params.transmat, probs[t : t + 1]) for t in range(30)])
    assert alone.tobytes() == predict(params.transmat, probs).tobytes()


def test_a_state_ruled_out_for_a_long_time_comes_back():
    log_lik = np.zeros((400, 2))
    log_lik[:200] = [0.0, -1000.0]
    log_lik[200:] = [-1000.0, 0.0]
    transmat = np.array([[1.0, 0.0], [1e-250, 1.0]])
    filtered = filter(np.array([0.5, 0.5]), transmat, log_lik, np.ones(400, dtype=int))
    assert filtered.probs[199, 0] == 1.0
    assert filtered.probs[-1, 1] == pytest.approx(1.0)
    assert np.isfinite(filtered.log_lik).all()


def plain_log_forward(startprob, transmat, log_lik):
    """Filtered probabilities and predictive log densities, all in logarithms."""
    log_probs, evidence = [], []
    predicted = np.log(startprob)
    for row in log_lik:
        joint = predicted + row
        evidence.append(np.logaddexp.reduce(joint))
        log_probs.append(joint - evidence[-1])
        predicted = np.logaddexp.reduce(log_probs[-1][:, None] + np.log(transmat), axis=0)
    return np.exp(log_probs), np.array(evidence)


@pytest.mark.parametrize("rare", [1e-250, 1e-199, 1e-120])
def test_rows_against_all_odds_have_the_probabilities_of_a_filter_in_logarithms(rare):
    rng = np.random.default_rng(12)
    log_lik = rng.normal(size=(60, 3))
    log_lik[:20] += [0.0, -900.0, -950.0]
    log_lik[20:40] += [-900.0, 0.0, -2.0]
    log_lik[40:] += [-900.0, -950.0, 0.0]
    transmat = np.full((3, 3), rare) + np.eye(3)
    startprob = np.full(3, 1.0 / 3.0)
    filtered = filter(startprob, transmat, log_lik, np.ones(60, dtype=int))
    probs, evidence = plain_log_forward(startprob, transmat, log_lik)
    np.testing.assert_allclose(filtered.probs, probs, rtol=1e-9, atol=1e-150)
    np.testing.assert_allclose(filtered.log_lik, evidence, rtol=1e-12, atol=1e-12)


def test_no_rows_have_no_likelihood():
    none, steps = np.empty((0, 2)), np.empty(0, dtype=int)
    chain = (np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.2, 0.8]]), none, steps)
    assert filter(*chain).probs.shape == (0, 2)
    assert smooth(*chain).log_lik == 0.0
    assert not smooth(*chain).pairs.any()
    assert path_entropy(*chain) == 0.0
    assert (viterbi(*chain).states.shape, viterbi(*chain).log_prob) == ((0,), 0.0)


def test_equally_probable_paths_end_in_the_lowest_state():
    transmat = np.full((2, 2), 0.5)
    decoded = viterbi(np.array([0.5, 0.5]), transmat, np.zeros((4, 2)), np.array([0, 1, 0, 1]))
    assert decoded.states.tolist() == [0, 0, 0, 0]
    assert decoded.log_prob == pytest.approx(4.0 * np.log(0.5))


def test_smoothing_leaves_the_filtered_probabilities_and_keeps_sequences_apart():
    rng = np.random.default_rng(13)
    params = random_params(rng)
    log_lik, steps = rng.normal(size=(12, 3)), np.array([0, 1, 1, 0, 1, 3, 1, 0, 0, 1, 2, 1])
    chain = params.startprob, params.transmat
    filtered = filter(*chain, log_lik, steps)
    kept = filtered.probs.copy()
    whole = smooth_filtered(filtered, params.transmat, steps)
    assert filtered.probs.tobytes() == kept.tobytes()
    parts = [
        smooth(*chain, log_lik[rows], steps[rows])
        for rows in (slice(0, 3), slice(3, 7), slice(7, 8), slice(8, 12))
    ]
    np.testing.assert_array_equal(whole.probs, np.concatenate([part.probs for part in parts]))
    np.testing.assert_allclose(whole.pairs, sum(part.pairs for part in parts), rtol=1e-12)


def test_an_impossible_row_is_minus_infinity_and_leaves_the_prediction():
    log_lik = np.array([[-1.0, -2.0], [-np.inf, -np.inf], [-1.0, -2.0]])
    transmat = np.array([[0.9, 0.1], [0.2, 0.8]])
    chain = (np.array([0.5, 0.5]), transmat, log_lik, np.ones(3, dtype=int))
    filtered = filter(*chain)
    assert filtered.log_lik[1] == -np.inf
    np.testing.assert_allclose(filtered.probs[1], filtered.probs[0] @ transmat)
    assert np.isfinite(smooth(*chain).probs).all()
    assert viterbi(*chain).log_prob == -np.inf


def test_extreme_outliers_do_not_underflow():
    rng = np.random.default_rng(7)
    params = random_params(rng, 3, 2)
    X = rng.normal(size=(200, 2))
    X[::10] = 1e6
    chain = (params.startprob, params.transmat, log_density(params, X), np.ones(200, dtype=int))
    assert np.isfinite(filter(*chain).log_lik).all()
    np.testing.assert_allclose(smooth(*chain).probs.sum(axis=1), 1.0, atol=1e-12)
    assert smooth(*chain).log_lik == pytest.approx(params.to_hmmlearn().score(X), rel=1e-12)


@pytest.mark.slow
def test_ten_million_rows_do_not_underflow_or_drift():
    rng = np.random.default_rng(8)
    log_lik = np.tile(rng.normal(size=(1000, 2)) * 5 - 300, (10_000, 1))
    transmat = np.array([[0.99, 0.01], [0.02, 0.98]])
    steps = np.ones(len(log_lik), dtype=np.int64)
    probs, evidence = filter(np.array([0.5, 0.5]), transmat, log_lik, steps)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_array_equal(probs[-1000:], probs[1_000_000:1_001_000])
    # The first block starts elsewhere; from then on every block must tell the same.
    np.testing.assert_allclose(evidence[-1000:].sum() * 9_999, evidence[1000:].sum(), rtol=1e-12)
    del probs
    smoothed = smooth(np.array([0.5, 0.5]), transmat, log_lik, steps)
    np.testing.assert_allclose(smoothed.probs.sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(smoothed.pairs.sum(), len(log_lik) - 1, rtol=1e-9)
    del smoothed
    assert np.isfinite(viterbi(np.array([0.5, 0.5]), transmat, log_lik, steps).log_prob)


def test_parameters_survive_json_to_the_bit():
    params = random_params(np.random.default_rng(9), 3, 2, "full")
    again = GaussianParams.from_dict(json.loads(json.dumps(params.to_dict())))
    for name in ("startprob", "transmat", "means", "covars"):
        assert getattr(again, name).tobytes() == getattr(params, name).tobytes()
