"""Return forecasts: Student-t fits against slow twins, gains, and no look-ahead."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from hmm_exp.errors import FitError
from hmm_exp.judge import return_forecasts as ys
from hmm_exp.judge.split import BEFORE, TEST, TRAIN, VAL
from hmm_exp.judge.student_t import DF_BOUNDS, fit_mixture, log_mixture, scale_floor
from hmm_exp.judge.volatility_baselines import BarSeries, fit_ewma
from hmm_exp.stored.fields import Fields


def market(n_bars=3000, n_states=3, seed=0):
    """Uncertain state probabilities (N, K) and fat-tailed next returns (N,) that follow them."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(n_states, 0.3), n_bars)
    state = (probs.cumsum(axis=1) > rng.random((n_bars, 1))).argmax(axis=1)
    scale = 0.002 * 2.0**state
    return probs, 1e-4 * state + scale * rng.standard_t(4.0, n_bars)


def slow_log_mixture(probs, x, loc, scale, df):
    """The density as it is written, by scipy."""
    return np.log((probs * stats.t.pdf(x[:, None], df, loc, scale)).sum(axis=1))


def slow_fit(probs, x):
    """Maximum of the mixture's log-likelihood by a generic optimiser from moment starts."""
    n_states, unit = probs.shape[1], x.std()

    def objective(theta):
        loc, scale = theta[:n_states] * unit, np.exp(theta[n_states:-1]) * unit
        return -slow_log_mixture(probs, x, loc, scale, np.exp(theta[-1])).mean()

    start = np.r_[np.zeros(n_states), np.zeros(n_states), np.log(6.0)]
    for _ in range(3):  # restarted, as BFGS with differenced gradients stops early
        end = optimize.minimize(objective, start, method="BFGS", options={"gtol": 1e-9})
        start = end.x
    loc, scale = start[:n_states] * unit, np.exp(start[n_states:-1]) * unit
    return loc, scale, np.exp(start[-1]), -end.fun * len(x)


def test_log_density_is_that_of_scipy():
    probs, x = market(500)
    loc, scale = np.array([0.0, 1e-3, -1e-3]), np.array([1e-3, 4e-3, 2e-2])
    ours = log_mixture(probs, x, loc, scale, 3.3)
    np.testing.assert_allclose(ours, slow_log_mixture(probs, x, loc, scale, 3.3), rtol=1e-12)


def test_log_density_survives_what_underflows():
    probs = np.array([[1.0, 0.0], [0.5, 0.5], [1e-320, 1.0]])
    ours = log_mixture(probs, np.full(3, 1e6), np.zeros(2), np.array([1e-3, 2e-3]), 200.0)
    one = stats.t.logpdf(1e6, 200.0, 0.0, np.array([1e-3, 2e-3]))
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours[[0, 2]], one, rtol=1e-12)


@pytest.mark.parametrize("n_states", [2, 3, 4])
def test_fit_equals_a_generic_optimiser(n_states):
    probs, x = market(2000, n_states, seed=n_states)
    fit = fit_mixture(probs, x)
    loc, scale, df, log_lik = slow_fit(probs, x)
    assert fit.history[-1] == pytest.approx(
        slow_log_mixture(probs, x, fit.loc, fit.scale, fit.df).sum(), abs=1e-6
    )
    assert fit.history[-1] == pytest.approx(log_lik, abs=1e-6)
    assert fit.history[-1] >= log_lik - 1e-7
    np.testing.assert_allclose(fit.loc, loc, atol=2e-5 * x.std())
    np.testing.assert_allclose(fit.scale, scale, rtol=1e-4)
    assert fit.df == pytest.approx(df, rel=1e-4)


@pytest.mark.parametrize("df", [2.5, 4.0, 9.0])
def test_one_state_is_the_static_student_t_of_scipy(df):
    x = 1e-4 + 0.003 * np.random.default_rng(3).standard_t(df, 4000)
    static = ys.fit_static(x)
    theirs = stats.t.fit(x)
    refined = optimize.minimize(
        lambda theta: -stats.t.logpdf(x, theta[0], theta[1] * 1e-3, theta[2] * 1e-3).mean(),
        np.array([theirs[0], theirs[1] * 1e3, theirs[2] * 1e3]),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 5000},
    ).x
    assert static.df == pytest.approx(refined[0], rel=1e-5)
    assert static.loc[0] == pytest.approx(refined[1] * 1e-3, abs=1e-5 * static.scale[0])
    assert static.scale[0] == pytest.approx(refined[2] * 1e-3, rel=1e-5)
    ours = static.log_score(np.ones((len(x), 1)), x).sum()
    assert ours >= stats.t.logpdf(x, *theirs).sum() - 1e-8


@settings(max_examples=30, deadline=None)
@example(seed=6103, n_states=1, n_bars=20, zeros=0.625)  # whose extrapolation leaps far
@given(
    seed=st.integers(0, 10_000),
    n_states=st.integers(1, 5),
    n_bars=st.integers(20, 300),
    zeros=st.floats(0.0, 0.7),
)
def test_no_step_of_the_fit_lowers_the_likelihood(seed, n_states, n_bars, zeros):
    probs, x = market(n_bars, n_states, seed)
    x = np.where(np.random.default_rng(seed).random(n_bars) < zeros, 0.0, x)
    fit = fit_mixture(probs, x)
    assert np.diff(fit.history).min() > -1e-7
    assert (fit.scale >= scale_floor(x)).all()
    assert DF_BOUNDS[0] <= fit.df <= DF_BOUNDS[1]


def test_tails_end_at_the_bounds_of_df():
    rng = np.random.default_rng(4)
    assert ys.fit_static(rng.standard_cauchy(3000)).df == pytest.approx(DF_BOUNDS[0])
    assert ys.fit_static(rng.uniform(-1.0, 1.0, 3000)).df == pytest.approx(DF_BOUNDS[1])


@pytest.mark.parametrize("seed", [19, 74, 110, 213])
def test_a_fit_ends_where_rounding_hides_what_df_could_gain(seed):
    """On these Gaussian returns no step of df raised the likelihood, and the fit went on."""
    x = 0.003 * np.random.default_rng(seed).standard_normal(2000)
    fit = ys.fit_static(x)
    assert fit.df > 30.0
    ours = fit.log_score(np.ones((2000, 1)), x).sum()
    for df in (0.9 * fit.df, 1.1 * fit.df):
        assert stats.t.logpdf(x, df, fit.loc, fit.scale).sum() <= ours + 1e-6


@pytest.mark.parametrize(
    ("seed", "n_rows", "n_states"), [(11, 5575, 1), (1, 2000, 2), (2, 5575, 3)]
)
def test_gaussian_returns_of_several_widths_settle(seed, n_rows, n_states):
    """Tails end at a large df, with a likelihood within a nat of the Gaussian one."""
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.standard_normal(n_rows)
    probs = rng.dirichlet(np.full(n_states, 0.3), n_rows)
    x *= 1.0 + (rng.random((n_rows, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    fit = ys.fit_return_densities(probs, x)
    assert 20.0 < fit.df <= DF_BOUNDS[1]
    normal = np.log((probs * stats.norm.pdf(x[:, None], fit.loc, fit.scale)).sum(axis=1)).sum()
    assert fit.log_score(probs, x).sum() >= normal - 1.0


def test_an_ewma_of_gaussian_returns_settles_at_the_bound_of_df():
    x = 0.1 * np.random.default_rng(11).standard_normal(5575)
    assert fit_ewma(x).df > 50.0


def test_a_state_of_equal_returns_keeps_a_width():
    rng = np.random.default_rng(5)
    still = rng.random(2000) < 0.5
    x = np.where(still, 0.0, 0.01 * rng.standard_t(4.0, 2000))
    fit = ys.fit_return_densities(np.c_[still, ~still].astype(float), x)
    assert fit.scale[0] == scale_floor(x)
    assert np.isfinite(fit.log_score(np.c_[still, ~still].astype(float), x)).all()


def test_a_state_without_weight_keeps_the_moments_of_all_rows():
    probs, x = market(1000, 2)
    fit = ys.fit_return_densities(np.c_[probs, np.zeros(1000)], x)
    without = ys.fit_return_densities(probs, x)
    np.testing.assert_allclose(fit.scale[:2], without.scale, rtol=1e-5)
    assert 0.3 * x.std() < fit.scale[2] < x.std()


def test_rows_without_probabilities_or_return_do_not_count_in_the_fit():
    probs, x = market(600)
    holed_probs, holed_x = np.r_[np.full((5, 3), np.nan), probs], np.r_[np.full(5, 0.5), x]
    holed_probs = np.insert(holed_probs, 100, 1.0 / 3.0, axis=0)
    holed_x = np.insert(holed_x, 100, np.nan)
    assert (
        ys.fit_return_densities(holed_probs, holed_x).to_dict()
        == ys.fit_return_densities(probs, x).to_dict()
    )


@pytest.mark.parametrize(
    ("probs", "x", "message"),
    [
        (np.full((9, 2), np.nan), np.arange(9.0), "no train bar has both"),
        (np.full((5, 2), 0.5), np.arange(5.0), "5 returns are too few for 5"),
        (np.full((9, 2), 0.5), np.full(9, 0.1), "all 9 returns equal 0.1"),
    ],
)
def test_what_cannot_be_fitted_says_so(probs, x, message):
    with pytest.raises(FitError, match=message):
        ys.fit_return_densities(probs, x)


def test_scores_ignore_the_future():
    probs, x = market(2000)
    train = np.arange(2000) < 1200
    densities, baselines = (
        ys.fit_return_densities(probs[train], x[train]),
        ys.fit_baselines(BarSeries(x[train])),
    )
    scores = ys.score_bars(densities, baselines, probs, BarSeries(x))
    rng = np.random.default_rng(6)
    for now in (1200, 1201, 1500, 1998):
        changed_probs, changed = probs.copy(), x.copy()
        changed_probs[now + 1 :] = rng.dirichlet(np.ones(3), 1999 - now)
        changed[now + 1 :] = rng.standard_normal(1999 - now)
        again = ys.score_bars(densities, baselines, changed_probs, BarSeries(changed))
        known = slice(now + 1)
        shorter = ys.score_bars(densities, baselines, probs[known], BarSeries(x[known]))
        kept = scores.iloc[: now + 1]
        pd.testing.assert_frame_equal(again.iloc[: now + 1], kept, check_exact=True)
        pd.testing.assert_frame_equal(shorter, kept, check_exact=True)


def test_the_same_rows_give_the_same_bits():
    probs, x = market(1000)
    assert (
        ys.fit_return_densities(probs, x).to_dict() == ys.fit_return_densities(probs, x).to_dict()
    )


def test_true_probabilities_gain_and_constant_ones_do_not():
    probs, x = market(8000)
    train = np.arange(8000) < 6000
    split = np.where(train, TRAIN, TEST)
    baselines = ys.fit_baselines(BarSeries(x[train]))
    gains = []
    for weights in (probs, np.full_like(probs, 1.0 / 3.0)):
        densities = ys.fit_return_densities(weights[train], x[train])
        scores = ys.score_bars(densities, baselines, weights, BarSeries(x))
        gains.append(ys.summarise(scores, split)["return_gain_test"])
    assert gains[0] > 0.08
    assert abs(gains[1]) < 0.01


def test_fat_tails_do_not_pass_for_regimes_on_real_bars(shared_data):
    bars = pd.read_csv(shared_data / "BINANCE_BTCUSDT.P, 60.csv", usecols=["close"])
    x = np.diff(np.log(bars["close"].to_numpy()))
    constant = np.tile([0.7, 0.3], (len(x), 1))
    densities, static = ys.fit_return_densities(constant, x), ys.fit_static(x)
    gain = densities.log_score(constant, x) - static.log_score(np.ones((len(x), 1)), x)
    assert -1e-9 <= gain.mean() < 0.01  # two Gaussians would "gain" more than .1


def test_summary_counts_scored_bars_of_the_split_alone():
    scores = pd.DataFrame(
        {
            "model": [np.nan, 2.0, 4.0, 6.0, 9.0],
            "static": [1.0, 1.0, 1.0, 2.0, 9.0],
            "ewma": [1.0, 1.5, 3.5, 8.0, 9.0],
            "range_ewma": [np.nan, np.nan, np.nan, 5.0, 9.0],
            "ewma_hour": np.nan,
            "range_ewma_hour": np.nan,
        }
    )
    split = np.array([TRAIN, TRAIN, TRAIN, VAL, BEFORE])
    assert ys.summarise(scores, split) == {
        "return_score_train": 3.0,
        "return_gain_train": 2.0,
        "ewma_gain_train": 0.5,
        "return_score_val": 6.0,
        "return_gain_val": 4.0,
        "ewma_gain_val": -2.0,
        "range_ewma_gain_val": 1.0,
    }
    common = np.array([True, True, False, False, True])
    only = ys.summarise(scores, split, counted=common)
    assert only == {"return_score_train": 2.0, "return_gain_train": 1.0, "ewma_gain_train": 0.5}
    assert ys.summarise(scores, split, parts=(TEST,)) == {}


def test_stored_densities_score_the_same_bits():
    probs, x = market(800)
    densities = ys.fit_return_densities(probs, x)
    stored = Fields(json.loads(json.dumps(densities.to_dict())))
    back = ys.ReturnDensities.from_stored(stored, len(densities.loc))
    np.testing.assert_array_equal(back.log_score(probs, x), densities.log_score(probs, x))


def test_next_returns_stop_at_gaps_and_at_the_end():
    close = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    returns = ys.next_returns(close, np.array([0, 1, 3, 1, 0]))
    np.testing.assert_array_equal(np.isnan(returns), [False, True, False, True, True])
    np.testing.assert_allclose(returns[[0, 2]], np.log(2.0))


def test_a_bar_knows_the_latest_row_complete_at_its_close():
    base, rows = np.arange(1, 9), np.array([3, 6])
    known = ys.known_at_close(base, rows, np.array([[0.1, 0.9], [0.7, 0.3]]))
    assert np.isnan(known[:2]).all()
    np.testing.assert_array_equal(known[2:5, 0], 0.1)
    np.testing.assert_array_equal(known[5:, 0], 0.7)
