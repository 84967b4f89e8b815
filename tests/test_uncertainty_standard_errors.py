"""Standard errors and intervals, compared with published ones and with their coverage."""

import ast
from pathlib import Path

import numpy as np
import pytest
import statsmodels.tsa.regime_switching as statsmodels_switching
from scipy.linalg import block_diag
from statsmodels.stats.sandwich_covariance import S_hac_simple
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

from benchmarks.ground_truth import draw, one_sequence
from benchmarks.standard_errors import NAMES, coverage, market
from hmm_exp.hmm.fit import Search, fit
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.simd import LANES
from hmm_exp.uncertainty.derivatives import at_bounds, derivatives
from hmm_exp.uncertainty.estimates import StandardErrors, without_errors
from hmm_exp.uncertainty.standard_errors import outer_products, standard_errors


def rates() -> np.ndarray:
    """The quarterly Federal funds rate that statsmodels tests with."""
    folder = Path(statsmodels_switching.__file__).parent
    code = ast.parse((folder / "tests" / "test_markov_regression.py").read_text())
    for node in code.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "fedfunds":
            return np.array(ast.literal_eval(node.value))
    raise AssertionError("statsmodels keeps the rate elsewhere")


@pytest.fixture(scope="module")
def federal_funds():
    """Errors of Stata's two-state model of the Federal funds rate with one variance.

    Stata starts from the stationary distribution, which follows the transitions: here a sequence
    that begins with 500 missing quarters.
    """
    transmat = [[0.9820939, 0.0179061], [0.0503587, 0.9496413]]
    means, variance = [[3.70877], [9.556793]], [[2.107562**2]]
    params = GaussianParams([0.5, 0.5], transmat, means, variance, "tied")
    X = np.append(np.nan, rates())[:, None]
    steps = np.r_[0, 500, np.ones(len(X) - 2, dtype=np.int64)]
    return standard_errors(params, X, steps)


def test_errors_of_the_federal_funds_rate_are_those_of_stata(federal_funds):
    found = [*federal_funds.transmat.error[:, 0], *federal_funds.means.error[:, 0]]
    np.testing.assert_allclose(found, [0.0104002, 0.0268434, 0.1767083, 0.2999889], rtol=1e-4)
    assert federal_funds.reason == ""


def test_errors_of_the_federal_funds_rate_are_those_of_statsmodels(federal_funds):
    model = MarkovRegression(rates(), k_regimes=2)
    theirs = model.smooth([0.9820939, 0.0503587, 3.70877, 9.556793, 2.107562**2])
    for ours, covariance in (("error", "approx"), ("robust", "robust")):
        transmat, means, deviations = (
            getattr(part, ours)
            for part in (federal_funds.transmat, federal_funds.means, federal_funds.deviations)
        )
        of_variance = 2 * 2.107562 * deviations[0, 0]
        expected = np.sqrt(np.diagonal(getattr(theirs, f"cov_params_{covariance}")))
        found = [*transmat[:, 0], *means[:, 0], of_variance]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_intervals_of_the_dax_are_those_of_fhmm(shared_data):
    """Three Student-t states; fHMM starts from the stationary distribution, here as above."""
    returns = np.loadtxt(shared_data / "dax_log_returns.csv", skiprows=1, delimiter=",", usecols=-1)
    mean, scale = returns.mean(), returns.std()
    X = np.append(np.nan, (returns - mean) / scale)[:, None]
    steps = np.r_[0, 500, np.ones(len(X) - 2, dtype=np.int64)]
    search = Search(emission="student_t", n_init=4, n_iter=2000, tol=1e-5)
    params = fit(X, steps, 3, search).params
    params = params.reordered(np.argsort(-params.covars[:, 0]))  # fHMM's: turbulent first
    errors = standard_errors(params, X, steps).in_units(np.array([mean]), np.array([scale]))
    scales, df = errors.tails
    np.testing.assert_allclose(
        [scales.lower[0, 0], scales.upper[0, 0]], [0.02354, 0.02840], rtol=0.005
    )
    means = errors.means
    np.testing.assert_allclose(
        [means.lower[2, 0], means.upper[2, 0]], [0.000964, 0.001579], rtol=0.005
    )
    assert (df.lower < [10.8, 48.7, 5.2]).all()
    assert (df.upper > [10.8, 48.7, 5.2]).all()


def test_intervals_of_two_states_cover_the_truth():
    share = coverage(market([[0.98, 0.02], [0.03, 0.97]]), n_bars=1000, n_draws=80, n_init=2)
    assert len(share) == len(NAMES)
    assert share.min() > 0.86, share
    assert share.mean() < 0.99, share


def test_one_state_has_the_errors_of_a_mean_and_a_deviation():
    X = np.random.default_rng(0).normal(size=(400, 1))
    steps = one_sequence(400)
    params = fit(X, steps, 1).params
    errors = standard_errors(params, X, steps)
    sigma = X.std()
    assert errors.means.error[0, 0] == pytest.approx(sigma / 20, rel=1e-3)
    assert errors.deviations.error[0, 0] == pytest.approx(sigma / np.sqrt(800), rel=1e-3)
    z = 1.959964
    low, high = errors.deviations.lower[0, 0], errors.deviations.upper[0, 0]
    assert np.log(high / low) == pytest.approx(2 * z / np.sqrt(800), rel=1e-3)
    assert np.isnan(errors.transmat.error).all()
    assert errors.reason == "no error for transitions at probability 1: 0 to 0"


def test_a_transition_that_never_happens_has_no_error():
    pairs = np.array([[50.0, 4.0, 1e-9], [3.0, 90.0, 2.0], [0.0, 0.001, 70.0]])
    assert at_bounds(pairs).tolist() == [[False, False, True], [False] * 3, [True] * 3]


def test_an_error_is_missing_only_for_the_transition_at_its_bound():
    transmat = np.array([[0.95, 0.05, 0.0], [0.04, 0.92, 0.04], [0.0, 0.05, 0.95]])
    means, covars = [[-3.0], [0.0], [3.0]], np.ones((3, 1))
    params = GaussianParams(np.full(3, 1 / 3), transmat, means, covars)
    X, _ = draw(params, 3000, np.random.default_rng(4))
    steps = one_sequence(3000)
    fitted = fit(X, steps, 3, Search(n_init=2), initial=params).params
    fitted = fitted.reordered(np.argsort(fitted.means[:, 0]))
    errors = standard_errors(fitted, X, steps)
    missing = np.isnan(errors.transmat.lower)
    assert missing.sum() == 2
    assert errors.reason == "no error for transitions at probability 0: 0 to 2, 2 to 0"
    assert errors.transmat.value[missing].max() < 1e-5
    assert np.isfinite(errors.means.error).all()


def test_a_state_without_rows_leaves_no_error():
    truth = market([[0.98, 0.02], [0.03, 0.97]])
    X, _ = draw(truth, 300, np.random.default_rng(4))
    absent = GaussianParams(
        np.append(truth.startprob, 0.0),
        block_diag(truth.transmat, 1.0),
        np.append(truth.means, [[0.0]], axis=0),
        np.append(truth.covars, [[1.0]], axis=0),
    )
    errors = standard_errors(absent, X, one_sequence(300))
    assert "not positive definite" in errors.reason
    assert np.isnan(errors.means.error).all()


def test_an_impossible_row_leaves_no_error():
    X = np.array([[0.0], [1.0], [1e200], [0.5], [-0.5]])
    params = GaussianParams([1.0], [[1.0]], [[0.0]], [[1.0]])
    errors = standard_errors(params, X, one_sequence(5))
    assert errors.reason == "no errors: the information matrix is not finite"
    for part in errors.parts:
        for array in (part.error, part.robust, part.lower, part.upper):
            assert np.isnan(array).all()
    assert np.array_equal(errors.means.value, params.means)


def test_a_window_gives_the_sandwich_of_newey_and_west_alone():
    scores = np.random.default_rng(0).normal(size=(200, 3)).cumsum(axis=0)
    expected = S_hac_simple(scores, nlags=11)
    np.testing.assert_allclose(outer_products(scores, 12), expected, rtol=1e-10)
    X = np.random.default_rng(0).normal(size=(300, 1))
    params = GaussianParams([1.0], [[1.0]], [[X.mean()]], [[X.var()]])
    errors = standard_errors(params, X, one_sequence(300), window=12)
    assert np.isnan(errors.means.error).all()
    half = errors.means.upper - errors.means.value
    np.testing.assert_allclose(half, 1.959964 * errors.means.robust, rtol=1e-6)


@pytest.mark.parametrize("window", [2, 90, 400, 1000])
def test_sums_over_windows_are_those_of_every_window(window):
    scores = np.random.default_rng(0).normal(size=(1000, 3))
    filled = np.pad(scores, ((window - 1, window - 1), (0, 0)))
    sums = np.lib.stride_tricks.sliding_window_view(filled, window, axis=0).sum(axis=2)
    np.testing.assert_allclose(outer_products(scores, window), sums.T @ sums / window, rtol=1e-9)


def test_derivatives_are_the_same_bits_with_any_number_of_threads():
    X = np.random.default_rng(0).normal(size=(300, 3)) * np.repeat([1.0, 4.0], 150)[:, None]
    covars = np.stack([np.eye(3), 16.0 * np.eye(3)])
    params = GaussianParams([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], np.zeros((2, 3)), covars, "full")
    alone, together = (derivatives(params, X, one_sequence(300), threads) for threads in (1, 3))
    assert alone.scores.shape[1] > 2 * LANES  # three blocks of directions
    for one, other in zip(alone, together, strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_long_reason_for_no_errors_is_kept_in_a_line():
    params = GaussianParams([1.0], [[1.0]], [[0.0]], [[1.0]])
    reason = "; ".join(f"state {k} rests on 1 row for its 50 parameters" for k in range(500))
    errors = without_errors(params, reason)
    again = StandardErrors.from_dict(errors.to_dict(), params)
    assert again.reason == errors.reason
    assert errors.reason.startswith("no errors: state 0 rests on 1 row")
    assert len(errors.reason) < 300


def test_errors_follow_the_units():
    X = np.random.default_rng(0).normal(size=(300, 1))
    params = GaussianParams([1.0], [[1.0]], [[X.mean()]], [[X.var()]])
    raw = standard_errors(params, X, one_sequence(300))
    scaled = standard_errors(
        GaussianParams([1.0], [[1.0]], [[(X.mean() - 7) / 2]], [[X.var() / 4]]),
        (X - 7) / 2,
        one_sequence(300),
    ).in_units(np.array([7.0]), np.array([2.0]))
    for ours, expected in zip(scaled.parts, raw.parts, strict=True):
        for name in ("value", "error", "robust", "lower", "upper"):
            np.testing.assert_allclose(getattr(ours, name), getattr(expected, name), rtol=1e-10)
