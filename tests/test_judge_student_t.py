"""The steps of the Student-t fit, one by one, against plain formulas and finite differences."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hmm_exp.compiling import entry
from hmm_exp.errors import FitError
from hmm_exp.hmm.simd import load, log, store
from hmm_exp.judge import student_t
from hmm_exp.judge.student_t import (
    DF_BOUNDS,
    MAX_DF_MOVE,
    fit_mixture,
    log_constant,
    log_mixture,
    scale_floor,
)

LOC, SCALE, DF = np.array([1e-4, -5e-4]), np.array([0.002, 0.006]), 3.7


def problem_of(n=300, seed=0):
    """Two densities with soft, hard and absent weights."""
    rng = np.random.default_rng(seed)
    first = np.r_[rng.random(n - 2), 1.0, 0.0]
    probs = np.column_stack([first, 1.0 - first])
    x = 3e-4 + 0.003 * rng.standard_t(4.0, n)
    return student_t.Problem(student_t.Weights(probs), x, scale_floor(x))


def plain_log_lik(problem, df):
    density = stats.t.pdf(problem.x[:, None], df, LOC, SCALE)
    return float(np.log((problem.weights.probs * density).sum(axis=1)).sum())


def plain_expectation(probs, x, loc, scale, df, slope_constant):
    """The E-step in whole arrays: log-likelihood, slope and curvature in df, and moments."""
    offset = x[:, None] - loc
    z = (offset / scale) ** 2
    parts = np.where(probs > 0.0, probs, 1.0) * stats.t.pdf(x[:, None], df, loc, scale)
    parts *= probs > 0.0
    q = parts / parts.sum(axis=1, keepdims=True)
    v = 1.0 / (df + z)
    u = (df + 1.0) * v
    first = 0.5 * (slope_constant - np.log1p(z / df) + u * z / df)
    second = 0.5 * z / df * (2.0 * v - u * v - u / df)
    slope = (q * first).sum(axis=1)
    curvature = (q * (second + first**2)).sum(axis=1) - slope**2
    moments = [(q * f).sum(axis=0) for f in (1.0, u, u * offset, u * offset**2)]
    return (np.log(parts.sum(axis=1)).sum(), slope.sum(), curvature.sum()), moments


@entry
def logs(x, out):
    for row in range(len(x)):
        store(out, row, log(load(x, row)))


def test_the_logarithm_of_eight_numbers_is_that_of_numpy():
    x = np.r_[np.linspace(1.0, 2.0, 999), np.geomspace(1e-300, 1e300, 1001)].reshape(-1, 8)
    out = np.empty_like(x)
    logs(x, out)
    np.testing.assert_allclose(out, np.log(x), rtol=4e-16, atol=4e-16)


@pytest.mark.parametrize("n_rows", [8, 500, 503])
@pytest.mark.parametrize("n_states", [1, 3])
def test_eight_rows_at_a_time_are_the_rows_one_by_one(n_rows, n_states):
    rng = np.random.default_rng(n_rows)
    probs = rng.dirichlet(np.full(n_states, 0.3), n_rows)
    x = 0.003 * rng.standard_t(4.0, n_rows)
    probs[3] = np.eye(n_states)[0]  # a row that is certain
    x[4] = 5.0  # far out
    loc, scale = np.linspace(-1e-3, 1e-3, n_states), np.linspace(2e-3, 8e-3, n_states)
    weights, moments = student_t.Weights(probs), np.zeros((4, n_states))
    plain, expected = plain_expectation(probs, x, loc, scale, 4.2, 0.3)
    lanes = student_t.in_lanes(x[:, None])
    ours = student_t._expectation(
        weights.logs, weights.present, lanes, loc, scale, 4.2, 0.3, moments
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-11)
    np.testing.assert_allclose(moments, expected, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("missing", ["return", "weight"])
def test_the_log_density_of_a_row_is_that_row_alone_and_missing_with_its_data(missing):
    rng = np.random.default_rng(8)
    probs, x = rng.dirichlet(np.ones(2), 27), 0.003 * rng.standard_t(4.0, 27)
    probs[5] = [1.0, 0.0]
    (x if missing == "return" else probs[:, 1])[11] = np.nan
    whole = log_mixture(probs, x, LOC, SCALE, DF)
    assert np.flatnonzero(np.isnan(whole)).tolist() == [11]
    for row in range(27):
        alone = log_mixture(probs[row : row + 1], x[row : row + 1], LOC, SCALE, DF)
        np.testing.assert_array_equal(alone, whole[row : row + 1])
        np.testing.assert_array_equal(log_mixture(probs[row:], x[row:], LOC, SCALE, DF)[:1], alone)


def test_a_state_without_probability_counts_for_nothing_however_likely_it_makes_the_row():
    ours = log_mixture(np.array([[1.0, 0.0]]), np.array([1.0]), LOC, np.array([1e-50, 1.0]), 200.0)
    expected = stats.t.logpdf(1.0, 200.0, LOC[0], 1e-50)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def point_at(df=4.0, slope=0.0, curvature=-1.0):
    return student_t._Point(LOC, SCALE, df, 0.0, np.zeros((4, 2)), slope, curvature)


@pytest.mark.parametrize("df", [2.3, DF, 30.0])
def test_derivatives_in_df_are_those_of_finite_differences(df):
    problem, h = problem_of(), 1e-3 * df
    below, here, above = (plain_log_lik(problem, df + step) for step in (-h, 0.0, h))
    point = student_t._evaluate(problem, LOC, SCALE, df)
    assert point.log_lik == pytest.approx(here, rel=1e-12)
    assert point.slope == pytest.approx((above - below) / (2.0 * h), rel=1e-4)
    assert point.curvature == pytest.approx((above - 2.0 * here + below) / h**2, rel=1e-3)


def test_moments_are_sums_of_responsibilities_and_precisions():
    problem = problem_of()
    moments = student_t._evaluate(problem, LOC, SCALE, DF).moments
    q = problem.weights.probs * stats.t.pdf(problem.x[:, None], DF, LOC, SCALE)
    q /= q.sum(axis=1, keepdims=True)
    offset = problem.x[:, None] - LOC
    qu = q * (DF + 1.0) / (DF + (offset / SCALE) ** 2)
    expected = [q, qu, qu * offset, qu * offset**2]
    np.testing.assert_allclose(moments, [each.sum(axis=0) for each in expected], rtol=1e-10)


def test_one_map_of_locations_and_scales_is_the_formula_of_ecme():
    problem = problem_of()
    point = student_t._evaluate(problem, LOC, SCALE, DF)
    better = student_t._better_densities(problem, point)
    q = problem.weights.probs * stats.t.pdf(problem.x[:, None], DF, LOC, SCALE)
    q /= q.sum(axis=1, keepdims=True)
    qu = q * (DF + 1.0) / (DF + ((problem.x[:, None] - LOC) / SCALE) ** 2)
    loc = (qu * problem.x[:, None]).sum(axis=0) / qu.sum(axis=0)
    scale = np.sqrt((qu * (problem.x[:, None] - loc) ** 2).sum(axis=0) / qu.sum(axis=0))
    np.testing.assert_allclose(better.loc, loc, rtol=1e-9)
    np.testing.assert_allclose(better.scale, scale, rtol=1e-9)
    assert better.df == DF
    assert better.log_lik > point.log_lik


def test_a_density_without_weight_stays_where_it_is():
    first = student_t.Weights(np.column_stack([np.ones(300), np.zeros(300)]))
    problem = replace(problem_of(), weights=first)
    better = student_t._better_densities(problem, student_t._evaluate(problem, LOC, SCALE, DF))
    assert (better.loc[1], better.scale[1]) == (LOC[1], SCALE[1])
    assert better.loc[0] != LOC[0]


def test_the_step_of_df_is_that_of_newton_in_its_logarithm():
    point = point_at(df=4.0, slope=0.5, curvature=-1.0)
    step = 4.0 * 0.5 / -(16.0 * -1.0 + 4.0 * 0.5)
    assert student_t._newton_df(point) == pytest.approx(4.0 * math.exp(step), rel=1e-14)


@pytest.mark.parametrize("slope", [-2.0, 2.0])
def test_df_climbs_by_the_longest_step_where_the_likelihood_is_not_concave(slope):
    moved = student_t._newton_df(point_at(df=20.0, slope=slope, curvature=1.0))
    assert moved == pytest.approx(20.0 * math.exp(math.copysign(MAX_DF_MOVE, slope)))
    steep = point_at(df=20.0, slope=1e3 * slope, curvature=-10.0 - 50.0 * slope)
    assert student_t._newton_df(steep) == pytest.approx(moved)


def test_df_stays_within_its_bounds():
    assert student_t._newton_df(point_at(df=2.1, slope=-9.0, curvature=1.0)) == DF_BOUNDS[0]
    assert student_t._newton_df(point_at(df=199.0, slope=9.0, curvature=1.0)) == DF_BOUNDS[1]


def test_a_step_of_df_that_overshoots_is_halved_until_the_likelihood_rises():
    problem = problem_of(2000)
    point = student_t._evaluate(problem, LOC, SCALE, 150.0)
    wrong = point._replace(slope=-point.slope, curvature=1.0)
    assert student_t._better_df(problem, wrong).log_lik >= point.log_lik
    better = student_t._better_df(problem, point)
    assert better.df < 150.0
    assert better.log_lik > point.log_lik


def test_the_fit_takes_few_maps():
    rng = np.random.default_rng(7)
    probs = rng.dirichlet(np.full(3, 0.3), 3000)
    state = (probs.cumsum(axis=1) > rng.random((3000, 1))).argmax(axis=1)
    fit = fit_mixture(probs, 0.002 * 2.0**state * rng.standard_t(4.0, 3000))
    assert len(fit.history) <= 30


def test_the_floor_of_a_scale_is_a_hundredth_of_the_mean_absolute_deviation():
    assert scale_floor(np.array([0.0, 1.0, 2.0, 7.0, 0.0])) == pytest.approx(0.01 * 9.0 / 5.0)
    with pytest.raises(FitError, match=r"all 3 returns equal 0\.5"):
        scale_floor(np.full(3, 0.5))


def test_one_return_more_than_parameters_is_enough():
    x = np.array([0.01, -0.02, 0.03, 0.005])
    assert np.isfinite(fit_mixture(np.ones((4, 1)), x).scale).all()
    with pytest.raises(FitError, match="3 returns are too few for 3"):
        fit_mixture(np.ones((3, 1)), x[:3])


def test_the_constant_is_the_density_at_the_centre():
    for df in (2.05, 5.0, 200.0):
        assert log_constant(df) == pytest.approx(stats.t.logpdf(0.0, df), rel=1e-12)
