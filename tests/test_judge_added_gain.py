"""Regimes on top of a volatility forecast: fits against slow twins, and the future unseen."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from hmm_exp.judge.added_gain import (
    EXPONENTS,
    Added,
    TrainRows,
    _as_fit,
    _climb,
    added_gains,
    fit_added,
)
from hmm_exp.judge.return_forecasts import fit_baselines, fit_return_densities
from hmm_exp.judge.split import TEST, TRAIN
from hmm_exp.judge.volatility_baselines import BarSeries


def market(n_bars=1203, exponent=0.5, n_states=2, seed=0):
    """Probabilities, returns that follow regimes and a volatility to the power of `exponent`."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(n_states, 0.3), n_bars)
    state = (probs.cumsum(axis=1) > rng.random((n_bars, 1))).argmax(axis=1)
    logs = np.zeros(n_bars)
    for i in range(1, n_bars):
        logs[i] = 0.97 * logs[i - 1] + 0.2 * rng.standard_normal()
    scale = 0.002 * 3.0**state * np.exp(exponent * logs)
    return probs, scale * rng.standard_t(5.0, n_bars), 0.01 * np.exp(logs)


def slow_scores(probs, returns, volatility, added):
    """The mixture as it is written, row by row."""
    scores, densities = [], added.densities
    for p, r, v in zip(probs, returns, volatility, strict=True):
        factor = (v / added.level) ** added.exponent
        total = sum(
            weight * stats.t.pdf(r, densities.df, loc * factor, scale * factor)
            for weight, loc, scale in zip(p, densities.loc, densities.scale, strict=True)
        )
        scores.append(math.log(total))
    return np.array(scores)


@pytest.mark.parametrize("exponent", [0.0, 0.375, 1.0])
def test_scores_are_the_mixture_as_it_is_written(exponent):
    probs, returns, volatility = market(300)
    added = Added(exponent, fit_return_densities(probs, returns), level=0.008)
    ours = added.log_score(probs, returns, volatility)
    np.testing.assert_allclose(
        ours, slow_scores(probs, returns, volatility, added), rtol=1e-11, atol=1e-11
    )


def test_without_an_exponent_the_model_is_that_of_today():
    probs, returns, volatility = market()
    densities = fit_return_densities(probs, returns)
    added = Added(0.0, densities, level=0.01)
    expected = densities.log_score(probs, returns)
    np.testing.assert_allclose(added.log_score(probs, returns, volatility), expected, atol=1e-12)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_fit_finds_the_exponent_and_ends_at_a_peak_of_the_likelihood(exponent):
    probs, returns, volatility = market(6003, exponent)
    rows = TrainRows(probs, returns, fit_return_densities(probs, returns))
    added = fit_added(rows, volatility)
    assert abs(added.exponent - exponent) <= 0.125
    assert added.level == pytest.approx(stats.gmean(volatility), rel=1e-12)

    def log_lik(theta, at=added):
        loc, log_scale, log_df = theta[:2] * 1e-3, theta[2:4], theta[4]
        densities = replace(at.densities, loc=loc, scale=np.exp(log_scale), df=math.exp(log_df))
        return -replace(at, densities=densities).log_score(probs, returns, volatility).sum()

    found = added.densities
    theta = np.r_[found.loc * 1e3, np.log(found.scale), math.log(found.df)]
    best = optimize.minimize(log_lik, theta, method="Nelder-Mead", options={"maxiter": 400}).fun
    assert log_lik(theta) - best < 0.05


def test_the_climb_takes_the_likeliest_of_all_exponents():
    probs, returns, volatility = market(2003, 0.3, seed=4)
    rows = TrainRows(probs, returns, fit_return_densities(probs, returns))
    level, logs = stats.gmean(volatility), np.log(volatility)
    totals = []
    for exponent in EXPONENTS:
        shift = exponent * (logs - logs.mean())
        densities = fit_return_densities(probs, returns * np.exp(-shift))
        own = Added(exponent, densities, level)
        totals.append(own.log_score(probs, returns, volatility).sum())
    likeliest = EXPONENTS[int(np.argmax(totals))]
    found = fit_added(rows, volatility)
    assert found.exponent == likeliest
    for exponent in EXPONENTS:
        assert fit_added(rows, volatility, replace(found, exponent=exponent)).exponent == likeliest


@pytest.mark.parametrize("peak", range(7))
def test_a_climb_ends_at_the_peak(peak):
    assert _climb(lambda place: -abs(place - peak), 4, 7, 1 if peak > 4 else -1) == peak


def test_the_gains_are_the_same_bits_with_any_number_of_threads():
    probs, series = both(2000)
    train = np.arange(2000) < 1200
    densities = fit_return_densities(probs[train], series.next_return[train])
    baselines = fit_baselines(series.part(train))
    alone, together = (
        added_gains(densities, baselines, probs, series, train, threads) for threads in (1, 2)
    )
    assert list(alone.gains) == list(together.gains) == list(baselines.volatility)
    for name, gain in alone.gains.items():
        assert gain.tobytes() == together.gains[name].tobytes()
    assert alone.strongest == together.strongest


def test_the_maps_of_an_earlier_fit_spare_a_similar_one_steps():
    probs, returns, _ = market(4003, 0.5)
    rows = TrainRows(probs, returns, fit_return_densities(probs, returns))
    start = rows.fit(returns * 1.02, rows.fit(returns, _as_fit(rows.densities)))
    fresh = rows.fit(returns * 1.05, replace(start, secants=()))
    spared = rows.fit(returns * 1.05, start)
    assert start.secants
    assert len(spared.history) < len(fresh.history)
    assert spared.history[-1] == pytest.approx(fresh.history[-1], abs=0.1)
    np.testing.assert_allclose(spared.scale, fresh.scale, rtol=5e-3)


def both(n_bars=4000, seed=2):
    """Bars with slow volatility that regimes multiply, as a series, with the probabilities."""
    probs, returns, _ = market(n_bars, 1.0, seed=seed)
    hours = np.arange(n_bars + 1) % 24
    ranges = np.abs(np.append(np.nan, returns[:-1])) * 1.3
    return probs, BarSeries(returns, ranges, hours[:-1], hours[1:])


def fitted(probs, series, train):
    densities = fit_return_densities(probs[train], series.next_return[train])
    return added_gains(densities, fit_baselines(series.part(train)), probs, series, train)


def test_regimes_that_the_volatility_does_not_know_add_to_it():
    probs, series = both(6000)
    train = np.arange(6000) < 4000
    found = fitted(probs, series, train)
    table = found.table(np.where(train, TRAIN, TEST))
    assert list(table.index) == ["ewma", "range_ewma", "ewma_hour", "range_ewma_hour"]
    assert (table["test"] > 0.05).all()
    assert "val" not in table
    assert table["strongest"].sum() == 1.0
    baselines = fit_baselines(series.part(train))
    on_train = {name: b.log_score(series)[train].mean() for name, b in baselines.volatility.items()}
    assert found.strongest == max(on_train, key=on_train.get)
    np.testing.assert_array_equal(found.of_strongest["added_gain"], found.gains[found.strongest])
    assert table.loc[found.strongest, "strongest"] == 1.0


def test_gains_ignore_the_future():
    probs, series = both(2000)
    train = np.arange(2000) < 1200
    gains = fitted(probs, series, train).gains
    rng = np.random.default_rng(6)
    for now in (1200, 1500, 1998):
        later = slice(now + 1, None)
        other_probs, other = (
            probs.copy(),
            replace(
                series, next_return=series.next_return.copy(), log_range=series.log_range.copy()
            ),
        )
        other_probs[later] = rng.dirichlet(np.ones(2), 1999 - now)
        other.next_return[later] = rng.standard_normal(1999 - now)
        other.log_range[later] = rng.random(1999 - now)
        again = fitted(other_probs, other, train).gains
        for name, gain in gains.items():
            np.testing.assert_array_equal(again[name][: now + 1], gain[: now + 1])


def test_bars_that_the_model_does_not_score_have_no_gain():
    probs, series = both(1500)
    train = np.arange(1500) < 1000
    probs[:20] = np.nan
    series.next_return[[500, 1400]] = np.nan
    for gain in fitted(probs, series, train).gains.values():
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(gain)), [*range(20), 500, 1400])


def test_a_fit_that_does_not_converge_is_named(monkeypatch):
    probs, series = both(1500)
    train = np.arange(1500) < 1000
    densities = fit_return_densities(probs[train], series.next_return[train])
    baselines = fit_baselines(series.part(train))
    monkeypatch.setattr("hmm_exp.judge.student_t.MAX_MAPS", 1)
    found = added_gains(densities, baselines, probs, series, train)
    assert (found.gains, found.strongest, found.of_strongest) == ({}, None, {})
    assert found.table(np.where(train, TRAIN, TEST)).empty
    assert found.objections[0] == (
        "no added gain over the EWMA Student-t: the Student-t fit did not converge in 1 steps"
    )
