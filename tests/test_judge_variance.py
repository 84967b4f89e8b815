"""Variance forecasts: levels, losses and proxies against plain formulas, and the future unseen."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from hmm_exp.errors import FitError
from hmm_exp.judge.return_forecasts import Baselines, ReturnDensities
from hmm_exp.judge.variance import (
    next_parkinson,
    variance_gains,
    variance_losses,
    variance_shapes,
)
from hmm_exp.judge.volatility_baselines import BarSeries, Ewma, VolatilityBaseline

CALM, WILD = 0.002, 0.010
EWMA = Ewma(decay=0.94, scale=0.7, df=4.0, initial=3e-5, floor=1e-5)


def market(n=6000, seed=0):
    """Probabilities that know the next bar's regime well, and its normal return."""
    rng = np.random.default_rng(seed)
    wild = (np.cumsum(rng.random(n) < 0.01) % 2).astype(bool)
    returns = np.where(wild, WILD, CALM) * rng.standard_normal(n)
    sure = np.where(wild, 0.95, 0.05)
    return np.column_stack([1.0 - sure, sure]), returns


def forecasts(probs, returns):
    densities = ReturnDensities(np.zeros(2), np.array([CALM, WILD]), 3.0)
    static = ReturnDensities(np.zeros(1), np.array([0.004]), 3.0)
    baselines = Baselines(static, {"ewma": VolatilityBaseline(EWMA)})
    return variance_shapes(densities, baselines, probs, BarSeries(returns))


def test_shapes_are_the_plain_formulas():
    probs, returns = market(300)
    returns[[50, 51]] = np.nan
    shapes = forecasts(probs, returns)
    np.testing.assert_allclose(shapes["model"], probs @ [CALM**2, WILD**2], rtol=1e-14)
    assert (shapes["static"] == 1.0).all()
    s = EWMA.initial
    for i, r in enumerate(returns):
        assert shapes["ewma"][i] == pytest.approx(s, rel=1e-12)
        s = s if math.isnan(r) else EWMA.decay * s + (1 - EWMA.decay) * r**2


def test_a_market_that_stands_still_keeps_a_variance():
    variance = EWMA.variance(np.zeros(5000))
    assert variance.min() == (EWMA.floor / EWMA.scale) ** 2 > 0


def test_parkinson_is_of_the_next_bar_and_only_where_that_is_scored():
    high, low = np.array([10.0, 12.0, 11.0, 9.0]), np.array([9.0, 10.0, 11.0, 6.0])
    variance = next_parkinson(high, low, np.array([0.1, 0.0, np.nan, np.nan]))
    scale = 4.0 * math.log(2.0)
    expected = [math.log(1.2) ** 2 / scale, 0.0, np.nan, np.nan]
    np.testing.assert_allclose(variance, expected, rtol=1e-14)


def test_parkinson_of_a_fine_walk_is_its_variance():
    rng = np.random.default_rng(1)
    path = np.cumsum(0.001 * rng.standard_normal((4000, 400)), axis=1)
    high, low = (np.exp(f(path, axis=1)) for f in (np.max, np.min))
    variance = next_parkinson(high, low, np.zeros(4000))[:-1].mean()
    assert variance == pytest.approx(400e-6, rel=0.1)


def test_losses_are_qlike_in_units_of_train():
    probs, returns = market(500)
    shapes, proxy = forecasts(probs, returns), returns**2
    train = np.arange(500) < 300
    losses = variance_losses(shapes, proxy, train)
    unit = proxy[:300].mean()
    for name in shapes:
        h = shapes[name].to_numpy()
        level = np.mean(proxy[:300] / h[:300])
        expected = [
            v / (level * x) + math.log(level * x / unit) for v, x in zip(proxy, h, strict=True)
        ]
        np.testing.assert_allclose(losses[name], expected, rtol=1e-10, atol=1e-12)
    assert losses["static"][:300].mean() == pytest.approx(1.0, abs=1e-12)


def test_the_level_is_the_one_of_least_loss_on_train():
    probs, returns = market(800)
    shapes, proxy = forecasts(probs, returns), returns**2
    ours = variance_losses(shapes, proxy, np.ones(800, dtype=bool)).mean()
    for name in shapes:
        h = shapes[name].to_numpy()

        def loss(log_level, h=h):
            forecast = h * math.exp(log_level)
            return np.mean(proxy / forecast + np.log(forecast / proxy.mean()))

        best = optimize.minimize_scalar(loss, bounds=(-20, 20), method="bounded")
        assert ours[name] == pytest.approx(best.fun, abs=1e-6)


def test_a_forecast_and_any_multiple_of_it_are_the_same():
    probs, returns = market(400)
    shapes, train = forecasts(probs, returns), np.arange(400) < 300
    losses = variance_losses(shapes, returns**2, train)
    again = variance_losses(shapes * [2.0, 3.0, 1e6], 1e-4 * returns**2, train)
    np.testing.assert_allclose(again, losses, rtol=1e-9, atol=1e-9)


def test_the_true_variance_beats_every_wrong_one():
    probs, returns = market(20_000, seed=2)
    train = np.arange(20_000) < 10_000
    truth = np.where(probs[:, 1] > 0.5, WILD**2, CALM**2)
    losses = variance_losses(
        pd.DataFrame({"true": truth, "root": truth**0.5, "late": np.roll(truth, 40)}),
        returns**2,
        train,
    )[~train].mean()
    assert losses["true"] + 0.02 < losses[["root", "late"]].min()


def test_gains_are_differences_of_losses_and_positive_where_the_model_knows():
    probs, returns = market()
    train = np.arange(6000) < 4000
    losses = variance_losses(forecasts(probs, returns), returns**2, train)
    gains = variance_gains(losses)
    np.testing.assert_array_equal(gains["variance_gain"], losses["static"] - losses["model"])
    np.testing.assert_array_equal(gains["ewma_variance_gain"], losses["ewma"] - losses["model"])
    assert gains["variance_gain"][~train].mean() > 0.3
    assert gains["ewma_variance_gain"][~train].mean() > 0.02


def test_zero_proxies_count_and_missing_ones_leave_the_row_out():
    probs, returns = market(400)
    returns[[10, 350]] = 0.0
    returns[20] = np.nan
    probs[30] = np.nan
    losses = variance_losses(forecasts(probs, returns), returns**2, np.arange(400) < 300)
    assert losses.index[losses.isna().any(axis=1)].tolist() == [20, 30]
    assert losses.loc[[20, 30]].isna().all(axis=None)
    assert np.isfinite(losses.loc[[10, 350]]).all(axis=None)


def test_losses_ignore_the_future():
    probs, returns = market(1000)
    train = np.arange(1000) < 600
    losses = variance_losses(forecasts(probs, returns), returns**2, train)
    rng = np.random.default_rng(3)
    for now in (600, 777, 998):
        later_probs, later = probs.copy(), returns.copy()
        later_probs[now + 1 :] = rng.dirichlet(np.ones(2), 999 - now)
        later[now + 1 :] = rng.standard_normal(999 - now)
        again = variance_losses(forecasts(later_probs, later), later**2, train)
        pd.testing.assert_frame_equal(again[: now + 1], losses[: now + 1], check_exact=True)


def test_train_bars_that_never_move_are_an_error():
    probs, returns = market(100)
    returns[:50] = 0.0
    with pytest.raises(FitError, match="no variance on the 50 train bars"):
        variance_losses(forecasts(probs, returns), returns**2, np.arange(100) < 50)
