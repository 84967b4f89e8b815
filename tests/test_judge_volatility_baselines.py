"""Volatility baselines against plain loops and a generic optimiser, and the future unseen."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from hmm_exp.errors import FitError, ModelError
from hmm_exp.judge.return_forecasts import fit_static
from hmm_exp.judge.volatility_baselines import (
    LEAST_BARS,
    VOLATILITY,
    BarSeries,
    Ewma,
    VolatilityBaseline,
    _in_units,
    _log_lik,
    _objective,
    fit_ewma,
    fit_volatility,
    hour_factors,
)
from hmm_exp.stored.fields import Fields

BUSY = np.array([0.6] * 12 + [1.5] * 12)  # volatility by hour


def market(n_bars=4000, seed=1) -> BarSeries:
    """Hourly bars with slow volatility and busy afternoons, ranges of twenty steps in a bar."""
    rng = np.random.default_rng(seed)
    log_volatility = np.zeros(n_bars + 1)
    for i in range(1, n_bars + 1):
        log_volatility[i] = 0.98 * log_volatility[i - 1] + 0.15 * rng.standard_normal()
    hours = np.arange(n_bars + 1) % 24
    spread = 0.003 * np.exp(log_volatility) * BUSY[hours] * np.sqrt(rng.chisquare(8, n_bars + 1))
    steps = np.cumsum(spread[:, None] * rng.standard_normal((n_bars + 1, 20)) / 20**0.5, axis=1)
    log_range = steps.max(axis=1, initial=0.0) - steps.min(axis=1, initial=0.0)
    return BarSeries(steps[1:, -1], log_range[:-1], hours[:-1], hours[1:])


def slow_factors(series):
    """Standard deviation of the returns of each hour over that of all, as it is written."""
    known = [(r, h) for r, h in zip(series.next_return, series.next_hour, strict=True) if r == r]
    overall = sum(r * r for r, _ in known) / len(known)
    factors = {}
    for hour in {h for _, h in known}:
        own = [r * r for r, h in known if h == hour]
        factors[hour] = math.sqrt(sum(own) / len(own) / overall)
    return factors


def slow_scores(name, series, ewma, factors):
    """The forecast of every bar from the bars before, one bar at a time."""
    s, widths = ewma.initial, []
    for i in range(len(series.next_return)):
        if name.startswith("range"):
            x = series.log_range[i] / math.sqrt(4 * math.log(2))
        else:
            x = series.next_return[i - 1] if i else math.nan
        f, g = 1.0, 1.0
        if name.endswith("hour"):
            f, g = factors[series.hour[i]], factors[series.next_hour[i]]
        if not math.isnan(x):
            s = ewma.decay * s + (1 - ewma.decay) * (x / f) ** 2
        widths.append(g * max(ewma.scale * math.sqrt(s), ewma.floor))
    return stats.t.logpdf(series.next_return, ewma.df, 0.0, widths)


def holed(series: BarSeries) -> BarSeries:
    """With missing returns and ranges, and bars without movement."""
    returns, ranges = series.next_return.copy(), series.log_range.copy()
    returns[[50, 51, 399]], ranges[[0, 70, 71]], ranges[[20, 21, 300]] = np.nan, np.nan, 0.0
    return replace(series, next_return=returns, log_range=ranges)


@pytest.mark.parametrize("name", VOLATILITY)
def test_scores_are_the_recursion_and_carry_over_gaps(name):
    series = holed(market(2000))
    baseline = fit_volatility(name, series.part(slice(1500)))
    factors = slow_factors(series.part(slice(1500)))
    expected = slow_scores(name, series, baseline.ewma, factors)
    np.testing.assert_allclose(baseline.log_score(series), expected, rtol=1e-11)
    assert np.isnan(expected).sum() == 3


@pytest.mark.parametrize("name", VOLATILITY)
def test_a_fit_equals_a_generic_optimiser(name):
    series = holed(market(1500))
    baseline, factors = fit_volatility(name, series), slow_factors(series)
    known = np.isfinite(series.next_return)

    def objective(theta):
        decay = 1.0 / (1.0 + np.exp(-theta[0]))
        there = replace(baseline.ewma, decay=decay, scale=np.exp(theta[1]), df=np.exp(theta[2]))
        return -slow_scores(name, series, there, factors)[known].mean()

    found = baseline.ewma
    theta = np.array([np.log(found.decay / (1 - found.decay)), np.log(found.scale)])
    theta = np.append(theta, np.log(found.df))
    assert objective(theta) == pytest.approx(-baseline.log_score(series)[known].mean(), abs=1e-12)
    np.testing.assert_allclose(optimize.approx_fprime(theta, objective, 1e-6), 0.0, atol=2e-6)
    for decay in (0.6, 0.9, 0.99):
        for scale in (0.5, 1.2):
            elsewhere = np.array([np.log(decay / (1 - decay)), np.log(scale), np.log(5.0)])
            assert objective(elsewhere) > objective(theta)


@pytest.mark.parametrize("of_range", [False, True])
def test_gradients_are_those_of_differences(of_range):
    returns, moves, _ = _in_units(holed(market(400)), of_range, None)
    n_present, fixed = int(np.isfinite(returns).sum()), (2e-5, 2e-3)

    def value(theta):
        return _objective(theta, returns, moves, n_present, fixed)[0]

    for theta in ([2.0, -0.4, 1.5], [0.3, 0.2, 3.0], [6.0, -1.5, 0.8]):
        gradient = _objective(np.array(theta), returns, moves, n_present, fixed)[1]
        central = [
            (value(np.array(theta) + step) - value(np.array(theta) - step)) / 2e-5
            for step in 1e-5 * np.eye(3)
        ]
        np.testing.assert_allclose(gradient, central, rtol=1e-6, atol=1e-8)


def test_the_return_ewma_keeps_the_likelihood_of_its_own_loop():
    """The sum runs over the returns in time order, with the arithmetic of the recursion."""
    returns = holed(market(600)).next_return
    decay, scale, df, initial, floor = 0.93, 0.7, 4.0, 1e-5, 1e-9
    s, widths, known = initial, [], returns[np.isfinite(returns)]
    for r in known:
        widths.append(scale * math.sqrt(s))
        s = decay * s + (1.0 - decay) * r * r
    total = stats.t.logpdf(known, df, 0.0, widths).sum()
    moves = np.append(np.nan, returns[:-1])
    found = _log_lik(returns, moves, decay, scale, df, initial, floor)
    assert found[0] == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("name", VOLATILITY)
def test_scores_and_variances_ignore_the_future(name):
    series = market(2000)
    baseline = fit_volatility(name, series.part(slice(1200)))
    scores, variances = baseline.log_score(series), baseline.variance(series)
    rng = np.random.default_rng(6)
    for now in (1200, 1201, 1500, 1998):
        changed = replace(
            series,
            next_return=series.next_return.copy(),
            log_range=series.log_range.copy(),
            hour=series.hour.copy(),
            next_hour=series.next_hour.copy(),
        )
        later = slice(now + 1, None)  # bar `now` is closed; its next return is the target
        changed.next_return[now:] = rng.standard_normal(2000 - now)
        changed.log_range[later] = rng.random(1999 - now)
        changed.hour[later] = changed.next_hour[later] = rng.integers(0, 24, 1999 - now)
        np.testing.assert_array_equal(baseline.log_score(changed)[:now], scores[:now])
        np.testing.assert_array_equal(baseline.variance(changed)[: now + 1], variances[: now + 1])
        shorter = series.part(slice(now + 1))
        np.testing.assert_array_equal(baseline.log_score(shorter), scores[: now + 1])


@pytest.mark.parametrize("name", VOLATILITY)
def test_a_fit_sees_its_own_bars_alone(name):
    series = market(2400)
    later = replace(series, next_return=series.next_return * np.where(np.arange(2400) < 1500, 1, 9))
    mine, theirs = (fit_volatility(name, bars.part(slice(1500))) for bars in (series, later))
    assert mine.ewma == theirs.ewma
    np.testing.assert_array_equal(mine.log_score(series), theirs.log_score(series))


def test_the_scale_at_a_bar_does_not_know_its_target():
    series = market(100)
    changed = replace(series, next_return=series.next_return.copy())
    changed.next_return[60] = 0.5
    for name in ("ewma", "range_ewma"):
        baseline = fit_volatility(name, series.part(slice(50)))
        before, after = baseline.log_score(series), baseline.log_score(changed)
        width = baseline.ewma.scale * math.sqrt(baseline.variance(series)[60])
        for scores, target in ((before, series.next_return[60]), (after, 0.5)):
            expected = stats.t.logpdf(target, baseline.ewma.df, 0.0, width)
            assert scores[60] == pytest.approx(expected, abs=1e-12)
        assert (before[61] != after[61]) == (name == "ewma")


def test_hour_factors_are_those_of_a_plain_loop():
    series = holed(market(2000))
    factors = hour_factors(series.next_return, series.next_hour)
    expected = slow_factors(series)
    np.testing.assert_allclose(factors, [expected[hour] for hour in range(24)], rtol=1e-12)
    assert factors[12:].min() > factors[:12].max()


def test_an_hour_that_train_lacks_is_missing_later():
    series = market(3000)
    open_hours = series.part(np.isin(series.next_hour, range(8, 18)))
    baseline = fit_volatility("range_ewma_hour", open_hours)
    assert np.isnan(baseline.factors).sum() == 14
    closed = ~np.isin(series.next_hour, range(8, 18))
    np.testing.assert_array_equal(np.isnan(baseline.log_score(series)), closed)
    np.testing.assert_array_equal(np.isnan(baseline.variance(series)), closed)


def test_each_kind_of_knowledge_gains_where_it_is_there():
    series = market(6000)
    later = slice(4000, None)
    static = fit_static(series.next_return[:4000])
    score = {"static": static.log_score(np.ones((6000, 1)), series.next_return)[later].mean()}
    for name in VOLATILITY:
        baseline = fit_volatility(name, series.part(slice(4000)))
        score[name] = baseline.log_score(series)[later].mean()
    assert score["static"] + 0.05 < score["ewma"]
    assert score["ewma"] + 0.01 < score["range_ewma"]
    assert score["ewma"] + 0.05 < score["ewma_hour"] < score["range_ewma_hour"] - 0.01


def test_a_market_that_stands_still_keeps_finite_scores():
    moving, still = market(500), np.zeros(5000)
    ones = np.zeros(5000, dtype=np.int64)
    pause = BarSeries(still, still, ones, ones)
    for name in ("ewma", "range_ewma"):
        assert np.isfinite(fit_volatility(name, moving).log_score(pause)).all()


def few_in_an_hour(series: BarSeries) -> BarSeries:
    rows = (series.next_hour != 7) | (np.cumsum(series.next_hour == 7) < LEAST_BARS)
    return series.part(rows)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ewma", lambda s: s.part(slice(3)), "3 train returns are too few"),
        ("ewma", lambda s: replace(s, next_return=np.full(2000, np.nan)), "0 train returns"),
        ("ewma_hour", lambda s: replace(s, next_return=np.full(2000, np.nan)), "0 train returns"),
        ("range_ewma", lambda s: replace(s, log_range=None), "have no high and low"),
        ("range_ewma", lambda s: replace(s, log_range=np.zeros(2000)), "none of 2000 train bars"),
        ("range_ewma", lambda s: replace(s, log_range=np.full(2000, np.nan)), "none of 0 train"),
        ("ewma_hour", lambda s: replace(s, next_hour=None), "bars of a day and more have no hour"),
        ("ewma_hour", few_in_an_hour, "49 train returns end in hour 7, at least 50 are needed"),
        (
            "range_ewma_hour",
            lambda s: replace(s, next_return=np.where(s.next_hour == 5, 0.0, s.next_return)),
            "all 84 train returns that end in hour 5 are zero",
        ),
    ],
)
def test_what_cannot_be_fitted_gives_the_reason(name, change, message):
    with pytest.raises(FitError, match=message):
        fit_volatility(name, change(market(2000)))


@pytest.mark.parametrize("name", VOLATILITY)
def test_a_stored_baseline_scores_the_same_bits(name):
    series = market(2000)
    if name.endswith("hour"):
        series = series.part(series.next_hour > 2)
    baseline = fit_volatility(name, series)
    stored = Fields(json.loads(json.dumps(baseline.to_dict(), allow_nan=False)))
    again = VolatilityBaseline.from_stored(stored)
    np.testing.assert_array_equal(again.log_score(series), baseline.log_score(series))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": [1.0] * 23}, "factors"),
        ({"factors": [-1.0] * 24}, "factors.* must not be below 0"),
        ({"of_range": 1}, "of_range"),
        ({"ewma": {"decay": 1.0, "scale": 1.0, "df": 3.0, "initial": 1.0, "floor": 1.0}}, "decay"),
        ({"more": 1}, "more is unknown"),
    ],
)
def test_a_damaged_baseline_is_refused(change, message):
    stored = VolatilityBaseline(Ewma(0.9, 0.7, 4.0, 1e-5, 1e-9)).to_dict() | change
    with pytest.raises(ModelError, match=message):
        VolatilityBaseline.from_stored(Fields(stored))


def test_the_digest_tells_series_apart():
    series = market(50)
    others = [
        series.part(slice(49)),
        replace(series, log_range=None),
        replace(series, next_hour=None),
        replace(series, next_return=series.next_return[::-1]),
    ]
    assert len({bars.digest for bars in [series, *others]}) == 5
    assert market(50).digest == series.digest


def test_the_same_bars_give_the_same_bits():
    returns = market(1000).next_return
    assert fit_ewma(returns) == fit_ewma(returns)


def test_ranges_and_hours_beat_the_return_ewma_on_real_bars(shared_data):
    """Train is the first 70 % of hourly BTC; the gains are of later bars."""
    import pandas as pd

    bars = pd.read_csv(shared_data / "BINANCE_BTCUSDT.P, 60.csv")
    n_train = round(0.7 * len(bars))
    hour = (bars["time"].to_numpy() // 3600) % 24
    returns = np.append(np.diff(np.log(bars["close"].to_numpy())), np.nan)
    log_range = np.log(bars["high"] / bars["low"]).to_numpy()
    series = BarSeries(returns, log_range, hour, np.append(hour[1:], 0))
    score = {
        name: fit_volatility(name, series.part(slice(n_train - 1))).log_score(series)[n_train:-1]
        for name in VOLATILITY
    }
    gain = {name: (score[name] - score["ewma"]).mean() for name in VOLATILITY}
    assert gain["range_ewma"] == pytest.approx(0.0276, abs=0.001)
    assert gain["ewma_hour"] == pytest.approx(0.0205, abs=0.001)
    assert gain["range_ewma_hour"] == pytest.approx(0.0388, abs=0.001)
