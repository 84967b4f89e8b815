"""The steps of the Student-t fit, one by one, against plain formulas and finite differences."""

import math

import numpy as np
import pytest
from scipy import stats

from hmm_exp.errors import FitError
from hmm_exp.judge import student_t
from hmm_exp.judge.student_t import DF_BOUNDS, MAX_DF_MOVE, fit_mixture, log_constant, scale_floor

LOC, SCALE, DF = np.array([1e-4, -5e-4]), np.array([0.002, 0.006]), 3.7


def problem_of(n=300, seed=0):
    """Two densities with soft, hard and absent weights."""
    rng = np.random.default_rng(seed)
    first = np.r_[rng.random(n - 2), 1.0, 0.0]
    probs = np.column_stack([first, 1.0 - first])
    x = 3e-4 + 0.003 * rng.standard_t(4.0, n)
    floor = scale_floor(x)
    return student_t._Problem(probs, x, floor, 100.0 * floor)


def plain_log_lik(problem, df):
    density = stats.t.pdf(problem.x[:, None], df, LOC, SCALE)
    return float(np.log((problem.probs * density).sum(axis=1)).sum())


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
    q = problem.probs * stats.t.pdf(problem.x[:, None], DF, LOC, SCALE)
    q /= q.sum(axis=1, keepdims=True)
    offset = problem.x[:, None] - LOC
    qu = q * (DF + 1.0) / (DF + (offset / SCALE) ** 2)
    expected = [q, qu, qu * offset, qu * offset**2]
    np.testing.assert_allclose(moments, [each.sum(axis=0) for each in expected], rtol=1e-10)


def test_one_map_of_locations_and_scales_is_the_formula_of_ecme():
    problem = problem_of()
    point = student_t._evaluate(problem, LOC, SCALE, DF)
    better = student_t._better_densities(problem, point)
    q = problem.probs * stats.t.pdf(problem.x[:, None], DF, LOC, SCALE)
    q /= q.sum(axis=1, keepdims=True)
    qu = q * (DF + 1.0) / (DF + ((problem.x[:, None] - LOC) / SCALE) ** 2)
    loc = (qu * problem.x[:, None]).sum(axis=0) / qu.sum(axis=0)
    scale = np.sqrt((qu * (problem.x[:, None] - loc) ** 2).sum(axis=0) / qu.sum(axis=0))
    np.testing.assert_allclose(better.loc, loc, rtol=1e-9)
    np.testing.assert_allclose(better.scale, scale, rtol=1e-9)
    assert better.df == DF
    assert better.log_lik > point.log_lik


def test_a_density_without_weight_stays_where_it_is():
    problem = problem_of()
    problem = problem._replace(probs=np.column_stack([np.ones(300), np.zeros(300)]))
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
