"""Pseudo-residuals: against plain formulas, normal under the truth, blind to the future."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hmm_exp.hmm import inference
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.params import COVARIANCE_TYPES, HEAVY_TAILED, GaussianParams
from hmm_exp.judge.residuals import (
    LAGS,
    ResidualEffects,
    ResidualLimits,
    autocorrelation,
    feature_residuals,
    predicted_probs,
    rejections,
    residual_effects,
    residual_shapes,
    return_residuals,
)
from hmm_exp.judge.return_forecasts import ReturnDensities

TRANSMAT = np.array([[0.97, 0.02, 0.01], [0.05, 0.90, 0.05], [0.02, 0.08, 0.90]])


def model(covariance_type, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3, 2, 2)) * np.array([0.3, 1.0, 3.0])[:, None, None]
    full = root @ root.transpose(0, 2, 1) + 0.2 * np.eye(2)
    covars = {
        "full": full,
        "diag": np.diagonal(full, axis1=1, axis2=2).copy(),
        "tied": full[1],
        "spherical": full[:, 0, 0],
    }[covariance_type]
    means = np.array([[0.0, 1.0], [1.0, -1.0], [-2.0, 3.0]])
    return GaussianParams(np.full(3, 1 / 3), TRANSMAT, means, covars, covariance_type)


def sample(params, n, seed=0):
    """Rows of the model in sequences of 500, and their chain steps."""
    rng = np.random.default_rng(seed)
    steps = np.ones(n, dtype=np.int64)
    steps[::500] = 0
    states = np.empty(n, dtype=int)
    for t in range(n):
        chances = params.stationary() if steps[t] == 0 else params.transmat[states[t - 1]]
        states[t] = rng.choice(3, p=chances)
    factor = np.linalg.cholesky(params.full_covars())
    X = params.means[states] + np.einsum("tij,tj->ti", factor[states], rng.normal(size=(n, 2)))
    return X, steps


def filtered(params, X, steps):
    density = log_density(params, X)
    return inference.filter(params.stationary(), params.transmat, density, steps).probs


@pytest.mark.parametrize(
    ("covariance_type", "df"),
    [(kind, None) for kind in COVARIANCE_TYPES]
    + [(kind, [2.5, 6.0, 80.0]) for kind in HEAVY_TAILED],
)
def test_residuals_are_quantiles_of_the_plain_forecast(covariance_type, df):
    params = replace(model(covariance_type), df=None if df is None else np.array(df))
    X, steps = sample(params, 60)
    steps[[20, 40]] = 3, 0
    X[30, 1] = np.nan
    probs = filtered(params, X, steps)
    residuals = feature_residuals(params, X, steps, probs)
    assert np.isnan(residuals[30]).all()
    for t in (0, 1, 19, 20, 31, 40, 41, 59):
        weights = params.stationary()
        if steps[t]:
            weights = probs[t - 1] @ np.linalg.matrix_power(params.transmat, steps[t])
        for d in range(2):
            z = (X[t, d] - params.means[:, d]) / np.sqrt(params.full_covars()[:, d, d])
            u = weights @ (stats.norm.cdf(z) if df is None else stats.t.cdf(z, df))
            assert residuals[t, d] == pytest.approx(stats.norm.ppf(u), abs=1e-9)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_residuals_of_the_true_model_are_independent_and_normal(covariance_type):
    params = model(covariance_type)
    X, steps = sample(params, 6000)
    residuals = feature_residuals(params, X, steps, filtered(params, X, steps))
    for z in residuals.T:
        effects = residual_effects(z)
        assert effects.ks < 1.95 / math.sqrt(6000)  # exceeded once in a thousand samples
        assert max(effects.memory, effects.square_memory) < 4.0 / math.sqrt(6000)
        assert effects.tail_share < 0.006
        assert rejections("x", effects) == []


def test_a_model_without_the_regimes_is_rejected():
    truth = model("diag")
    X, steps = sample(truth, 6000)
    one = GaussianParams(
        np.ones(1), np.ones((1, 1)), X.mean(axis=0)[None], X.var(axis=0)[None], "diag"
    )
    effects = residual_effects(feature_residuals(one, X, steps, np.ones((6000, 1)))[:, 0])
    reasons = rejections("return", effects)
    assert effects.square_memory > 0.2
    assert any("squared residuals remember" in reason for reason in reasons)
    assert all(reason.startswith("return: ") for reason in reasons)


def test_predictions_take_every_chain_step():
    params = model("diag")
    probs = np.random.default_rng(1).dirichlet(np.ones(3), 5)
    predicted = predicted_probs(params, np.array([0, 1, 4, 0, 25]), probs)
    for t, n in ((1, 1), (2, 4), (4, 25)):
        expected = probs[t - 1] @ np.linalg.matrix_power(TRANSMAT, n)
        np.testing.assert_allclose(predicted[t], expected, atol=1e-14)
    np.testing.assert_allclose(predicted[[0, 3]], np.tile(params.stationary(), (2, 1)))


def test_extremes_keep_their_distance_on_both_sides():
    params = GaussianParams(np.ones(1), np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1)))
    X = np.array([[-30.0], [-12.0], [-5.0], [5.0], [12.0], [30.0]])
    z = feature_residuals(params, X, np.ones(6, dtype=np.int64), np.ones((6, 1)))
    np.testing.assert_allclose(z, X, rtol=1e-12)
    far = feature_residuals(params, 50 * X, np.ones(6, dtype=np.int64), np.ones((6, 1)))
    assert np.isfinite(far).all()


def test_feature_residuals_ignore_the_future():
    params = model("full")
    X, steps = sample(params, 400)
    residuals = feature_residuals(params, X, steps, filtered(params, X, steps))
    rng = np.random.default_rng(2)
    for now in (0, 1, 250, 398):
        changed = X.copy()
        changed[now + 1 :] = 10 * rng.normal(size=(399 - now, 2))
        again = feature_residuals(params, changed, steps, filtered(params, changed, steps))
        np.testing.assert_array_equal(again[: now + 1], residuals[: now + 1])


def test_the_residual_of_a_row_does_not_let_the_row_choose_its_state():
    params = model("diag")
    X, steps = sample(params, 50)
    probs = filtered(params, X, steps)
    other = probs.copy()
    other[-1] = [1.0, 0.0, 0.0]
    np.testing.assert_array_equal(
        feature_residuals(params, X, steps, other), feature_residuals(params, X, steps, probs)
    )


def mixture_returns(n, seed=3):
    rng = np.random.default_rng(seed)
    densities = ReturnDensities(np.array([1e-4, -2e-4]), np.array([0.002, 0.01]), 3.5)
    probs = rng.dirichlet([0.5, 0.5], n)
    states = (rng.random(n) < probs[:, 1]).astype(int)
    returns = densities.loc[states] + densities.scale[states] * rng.standard_t(3.5, n)
    return densities, probs, returns


def test_return_residuals_are_quantiles_of_the_students_mixture():
    densities, probs, returns = mixture_returns(40)
    returns[3], probs[5] = np.nan, np.nan
    z = return_residuals(densities, probs, returns)
    assert np.flatnonzero(np.isnan(z)).tolist() == [3, 5]
    for i in (0, 4, 20, 39):
        u = probs[i] @ stats.t.cdf(returns[i], 3.5, densities.loc, densities.scale)
        assert z[i] == pytest.approx(stats.norm.ppf(u), abs=1e-9)


def test_return_residuals_of_the_true_mixture_are_normal_and_of_gaussians_are_not():
    densities, probs, returns = mixture_returns(5000)
    right = residual_effects(return_residuals(densities, probs, returns))
    assert right.ks < 1.95 / math.sqrt(5000)
    assert right.tail_share < 0.006
    thin = ReturnDensities(densities.loc, densities.scale * 1.2, 200.0)
    wrong = residual_effects(return_residuals(thin, probs, returns))
    assert wrong.tail_share > 0.01


def test_return_residuals_ignore_the_future():
    densities, probs, returns = mixture_returns(300)
    z = return_residuals(densities, probs, returns)
    changed, changed_probs = returns.copy(), probs.copy()
    changed[200:], changed_probs[200:] = 1.0, 0.5
    again = return_residuals(densities, changed_probs, changed)
    np.testing.assert_array_equal(again[:200], z[:200])


def test_effects_are_those_of_independent_formulas():
    z = np.random.default_rng(4).standard_t(4, 3000)
    effects = residual_effects(z)
    assert effects.ks == pytest.approx(stats.kstest(z, "norm").statistic, abs=1e-12)
    assert effects.tail_share == np.mean(np.abs(z) > 3)
    squares = np.minimum(z**2, 9.0)
    for x, found in ((z, effects.memory), (squares, effects.square_memory)):
        x = x - x.mean()
        lags = [abs(sum(x[k:] * x[:-k]) / (len(x) - k) / x.var()) for k in range(1, LAGS + 1)]
        assert found == pytest.approx(max(lags), rel=1e-9)


def test_autocorrelation_pairs_only_rows_that_exist():
    x = np.array([1.0, -1.0, np.nan, 1.0, -1.0, 1.0, np.nan])
    deviation = x - np.nanmean(x)
    pairs = deviation[1:] * deviation[:-1]
    expected = np.nanmean(pairs) / np.nanmean(deviation**2)
    assert autocorrelation(x, 1) == pytest.approx(expected)
    assert autocorrelation(np.ones(10), 3).tolist() == [0.0, 0.0, 0.0]
    assert autocorrelation(np.array([1.0, 2.0]), 4)[1:].tolist() == [0.0, 0.0, 0.0]


def test_missing_residuals_change_no_distribution():
    z = np.random.default_rng(5).normal(size=500)
    holed = np.append(z, np.full(100, np.nan))
    ours, plain = residual_effects(holed), residual_effects(z)
    assert list(vars(ours).values()) == pytest.approx(list(vars(plain).values()), rel=1e-12)
    assert residual_effects(z[:49]) is None
    assert residual_effects(np.full(100, np.nan)) is None


def test_every_limit_is_named_when_it_is_crossed_and_chance_is_allowed_for():
    calm = ResidualEffects(n=10_000, ks=0.06, tail_share=0.02, memory=0.22, square_memory=0.1)
    assert rejections("x", calm) == []
    wild = ResidualEffects(n=10_000, ks=0.07, tail_share=0.03, memory=0.24, square_memory=0.24)
    assert len(rejections("x", wild)) == 4
    assert rejections("x", wild, ResidualLimits(0.5, 0.5, 0.5, 0.5)) == []
    few = ResidualEffects(n=100, ks=0.15, tail_share=0.05, memory=0.4, square_memory=0.4)
    assert rejections("x", few) == []


def test_effects_have_flat_names():
    effects = ResidualEffects(n=100, ks=0.1, tail_share=0.2, memory=0.3, square_memory=0.4)
    assert effects.metrics("next_return") == {
        "residual_ks_next_return": 0.1,
        "residual_tail_share_next_return": 0.2,
        "residual_memory_next_return": 0.3,
        "residual_square_memory_next_return": 0.4,
    }


def test_shapes_of_residuals_are_their_quantiles_and_memory():
    z = np.random.default_rng(0).normal(size=20_000)
    z[5] = np.nan
    shapes = residual_shapes({"next_return": z, "short": z[:10]}, lags=7)
    assert set(shapes["series"]) == {"next_return"}
    quantiles = shapes[shapes["kind"] == "quantile"]
    middle = quantiles["x"].abs() < 2
    assert np.abs(quantiles["value"] - quantiles["x"])[middle].max() < 0.05
    memory = shapes[shapes["kind"] == "memory"]
    assert memory["x"].tolist() == list(range(1, 8))
    assert np.array_equal(memory["value"], autocorrelation(z, 7))


def test_shapes_of_too_few_residuals_are_an_empty_table():
    assert residual_shapes({"short": np.zeros(3)}).columns.tolist() == [
        *("series", "kind", "x", "value")
    ]


def test_the_quantiles_of_a_figure_reach_as_far_as_the_series():
    z = np.random.default_rng(3).standard_normal(1000)
    shapes = residual_shapes({"a": z})
    x = shapes.loc[shapes["kind"] == "quantile", "x"]
    reach = stats.norm.isf(0.5 / 1000)
    assert (x.min(), x.max()) == pytest.approx((-reach, reach))


def test_shapes_reach_four_deviations_at_most_and_cut_squares():
    z = np.random.default_rng(6).standard_normal(40_000)
    shapes = residual_shapes({"a": z}, lags=3).set_index("kind")
    assert (shapes.loc["quantile", "x"].min(), shapes.loc["quantile", "x"].max()) == (-4.0, 4.0)
    squares = shapes.loc["square_memory", "value"]
    np.testing.assert_array_equal(squares, autocorrelation(np.minimum(z**2, 9.0), 3))


@pytest.mark.parametrize("name", ["ks", "tail_share", "memory", "square_memory"])
def test_every_limit_has_three_standard_errors_of_room(name):
    quiet = {"ks": 0.0, "tail_share": 0.0, "memory": 0.0, "square_memory": 0.0}
    room = {"ks": 0.05 + 0.075, "tail_share": 0.02 + 3.0 * math.sqrt(0.02 / 400)}
    limit = room.get(name, 0.20 + 0.15)
    below, above = (
        rejections("x", ResidualEffects(n=400, **(quiet | {name: limit + change})))
        for change in (-1e-6, 1e-6)
    )
    assert below == []
    (reason,) = above
    assert reason.startswith("x: ")
    assert f"{limit:.3g} (limit {getattr(ResidualLimits(), name):g})" in reason


def test_fifty_residuals_are_enough_and_have_shapes():
    z = np.random.default_rng(7).standard_normal(50)
    assert residual_effects(z).n == 50
    assert set(residual_shapes({"a": z, "b": z[:49]})["series"]) == {"a"}


def test_autocorrelation_ends_with_the_last_pair():
    x = np.array([3.0, -1.0, 2.0, 0.0])
    d = x - x.mean()
    expected = [d[k:] @ d[:-k] / (4 - k) / np.mean(d**2) for k in (1, 2, 3)]
    np.testing.assert_allclose(autocorrelation(x, 5), [*expected, 0.0, 0.0])
