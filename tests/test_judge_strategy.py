"""Trading rules and their table: by loops, causal, and invested by the return really earned."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.errors import ModelError
from hmm_exp.judge.strategy import (
    AVERAGE,
    STRATEGIES,
    PricedBars,
    RuleOptions,
    TradingRules,
    bars_per_year,
    learn_rules,
)
from hmm_exp.judge.strategy_table import Judged, drawdown, judge_strategies, measures, wealth
from hmm_exp.judge.strategy_words import differences_shown, in_words, measures_shown
from hmm_exp.judge.volatility_baselines import fit_ewma
from hmm_exp.stored.fields import Fields
from tests import reference

DAY = 86_400_000_000_000
N, FIRST = 1400, 900
LABELS = ("calm", "normal", "turbulent")


def market(seed=0, n=N):
    """Daily bars with a weekend after every fifth, three regimes, and a gap of 40 days."""
    rng = np.random.default_rng(seed)
    regimes = np.repeat(rng.integers(0, 3, -(-n // 25)), 25)[:n]
    log_return = np.array([0.004, 0.012, 0.03])[regimes] * rng.standard_t(5, n)
    days = np.cumsum(1 + 2 * (np.arange(n) % 5 == 0) + 40 * (np.arange(n) == 700))
    close = 100 * np.exp(np.cumsum(log_return))
    known = np.append(np.nan, np.diff(np.log(close)))
    known[700] = np.nan
    return PricedBars(days * DAY, close, known), regimes


def rules_of(bars, regimes, delays=(1, 5), train=None):
    train = np.arange(len(regimes)) < 600 if train is None else train
    ewma = fit_ewma(bars.log_return[train])
    return learn_rules(bars, regimes, train, ewma, RuleOptions(delays))


@pytest.fixture(scope="module")
def made():
    bars, regimes = market()
    return bars, regimes, rules_of(bars, regimes)


def table_of(made, part="test"):
    bars, regimes, rules = made
    return judge_strategies(
        rules, rules.positions(bars, regimes), bars, Judged(FIRST, part), LABELS
    )


def test_every_measure_agrees_with_plain_loops(made):
    bars, regimes, rules = made
    table = table_of(made)
    for position, (_, row) in zip(
        rules.positions(bars, regimes), table.rows.iterrows(), strict=True
    ):
        slow = reference.strategy_measures(
            bars.close, bars.time, position, row["delay"], FIRST, rules.cost_bp
        )
        for name, value in slow.items():
            assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name


def test_measures_agree_with_empyrical():
    empyrical = pytest.importorskip("empyrical", reason="of the extra dev")
    net = np.random.default_rng(3).standard_t(4, 700) * 0.01
    per_year = 251.7
    mine = measures(net, np.ones(700), per_year)
    for name, theirs in {
        "return": empyrical.annual_return,
        "volatility": empyrical.annual_volatility,
        "sharpe": empyrical.sharpe_ratio,
        "sortino": empyrical.sortino_ratio,
    }.items():
        assert mine[name] == pytest.approx(theirs(net, annualization=per_year), rel=1e-9), name
    assert mine["max_drawdown"] == pytest.approx(empyrical.max_drawdown(net), rel=1e-9)


def test_positions_agree_with_loops_over_the_past(made):
    bars, regimes, rules = made
    by_row = dict(zip(rules.rows, rules.positions(bars, regimes), strict=True))
    variance = rules.initial
    for i in range(len(regimes)):
        if np.isfinite(bars.log_return[i]):
            past = rules.decay * variance
            variance = past + (1 - rules.decay) * bars.log_return[i] ** 2
        volatility = (variance * rules.bars_per_year) ** 0.5
        inside = float(regimes[i] in rules.invested[5])
        assert by_row["regime", 5][i] == inside
        share = min(1, rules.target / volatility)
        assert by_row["regime_target", 5][i] == pytest.approx(inside * share, rel=1e-12)
        assert by_row["ewma", 1][i] == (volatility < rules.threshold)
        if i >= AVERAGE - 1:
            mean = bars.close[i - AVERAGE + 1 : i + 1].mean()
            assert by_row["average", 1][i] == (bars.close[i] > mean)
        else:
            assert by_row["average", 1][i] == 0


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, N - 1), seed=st.integers(0, 99))
def test_positions_ignore_the_future(made, cut, seed):
    bars, regimes, rules = made
    other, other_regimes = market(seed + 1)
    later = np.arange(N) > cut
    rewritten = PricedBars(
        bars.time,
        np.where(later, 7 * other.close, bars.close),
        np.where(later, 3 * other.log_return, bars.log_return),
    )
    changed = rules.positions(rewritten, np.where(later, other_regimes, regimes))
    kept = slice(None, cut + 1)
    assert np.array_equal(changed[:, kept], rules.positions(bars, regimes)[:, kept])
    shorter = PricedBars(bars.time[kept], bars.close[kept], bars.log_return[kept])
    assert np.array_equal(rules.positions(shorter, regimes[kept]), changed[:, kept])


def test_what_is_learned_ignores_bars_after_train(made):
    bars, regimes, rules = made
    later = np.arange(N) >= 600
    close = np.where(later, 3 * bars.close[::-1], bars.close)
    rewritten = PricedBars(bars.time, close, np.where(later, -bars.log_return, bars.log_return))
    assert rules_of(rewritten, np.where(later, 2 - regimes, regimes)) == rules


def test_a_state_is_chosen_by_the_return_its_position_earns_not_by_its_own():
    """The bar itself rises in state 1; the next one falls, and the fifth rises after state 0."""
    n = 600
    regimes = np.where(np.arange(n) % 6 == 0, 1, 0)
    simple = np.full(n, 0.0005)
    simple[regimes == 1] = 0.05
    simple[np.roll(regimes, 1) == 1] = -0.04
    simple += 1e-5 * np.random.default_rng(0).standard_normal(n)
    bars = PricedBars(
        np.arange(n) * DAY, np.cumprod(1 + simple), np.append(np.nan, np.log1p(simple[1:]))
    )
    rules = rules_of(bars, regimes, (1, 5, 6), np.arange(n) < 500)
    assert 1 not in rules.invested[1]
    assert 0 in rules.invested[1]
    assert 1 in rules.invested[6]
    for delay, states in rules.invested.items():
        for state in (0, 1):
            earned = [
                simple[i + delay]
                for i in range(500 - delay)
                if regimes[i] == state and i + delay > 0
            ]
            assert (state in states) == (np.mean(earned) > 0)


def test_an_unknown_regime_is_cash_and_teaches_nothing(made):
    bars, regimes, _ = made
    unknown = np.where(np.arange(N) % 2, -1, regimes)
    rules = rules_of(bars, unknown)
    by_row = dict(zip(rules.rows, rules.positions(bars, unknown), strict=True))
    assert not by_row["regime", 1][unknown == -1].any()
    assert all(state >= 0 for states in rules.invested.values() for state in states)


def test_all_states_equal_buy_and_hold_and_none_equals_cash(made):
    bars, regimes, rules = made
    rows = table_of((bars, regimes, replace(rules, invested={1: (0, 1, 2), 5: ()}))).rows
    by_row = rows.set_index(["strategy", "delay"])
    assert by_row.loc[("regime", 1), "note"] == "equals buy and hold"
    assert by_row.loc[("regime", 1), "return"] == by_row.loc[("hold", 1), "return"]
    assert by_row.loc[("regime", 1), "return_difference"] == 0
    cash = by_row.loc[("regime_target", 5)]
    assert cash["note"] == "equals cash"
    assert cash["return"] == cash["turnover"] == 0
    assert np.isnan(cash["sharpe"])
    assert np.isnan(cash["sharpe_p"])
    words = in_words(rows)
    assert "calm, normal, turbulent at delay 1 (equals buy and hold)" in words.invested
    assert "none at delay 5 (equals cash)" in words.invested
    assert (differences_shown(rows).iloc[0] == "equal").sum() == 2
    assert measures_shown(rows).iloc[2]["Sharpe"] == "n/a"


def test_cost_is_paid_at_the_bar_of_the_change(made):
    bars, regimes, rules = made
    free, dear = (table_of((bars, regimes, replace(rules, cost_bp=c))) for c in (0.0, 50.0))
    trades = np.abs(np.diff(dear.held, axis=1, prepend=0.0))
    assert free.net - dear.net == pytest.approx(0.005 * trades, abs=1e-15)
    assert dear.net[0, 0] == pytest.approx(free.net[0, 0] - 0.005)  # the purchase to hold


def test_a_delay_earns_the_bar_that_many_closes_later():
    n = 400
    close = np.full(n, 100.0)
    close[300:] = 110.0  # the only move is during bar 300
    bars = PricedBars(np.arange(n) * DAY, close, np.append(np.nan, np.diff(np.log(close))))
    rules = TradingRules({1: (1,), 5: (1,)}, 0.9, 1e-4, 0.2, 0.2, 365.25, 0.0)
    for decided, delay in ((299, 1), (295, 5)):
        regimes = np.where(np.arange(n) == decided, 1, 0)
        table = judge_strategies(
            rules, rules.positions(bars, regimes), bars, Judged(200, "test"), ("a", "b")
        )
        final = dict(zip(rules.rows, wealth(table.net)[:, -1], strict=True))
        assert final["regime", delay] == pytest.approx(1.1)
        assert final["regime", 6 - delay] == 1.0


def test_too_few_bars_give_no_table(made):
    bars, regimes, rules = made
    positions = rules.positions(bars, regimes)
    assert judge_strategies(rules, positions, bars, Judged(N - 99, "test"), LABELS) is None
    assert judge_strategies(rules, positions, bars, Judged(N - 100, "test"), LABELS) is not None


def test_bars_a_year_are_counted_over_their_span():
    assert bars_per_year(np.arange(501) * DAY) == pytest.approx(365.25)
    weekdays = np.array([day for day in range(7 * 52 + 1) if day % 7 < 5]) * DAY
    assert bars_per_year(weekdays) == pytest.approx(5 / 7 * 365.25)


def test_lost_wealth_stays_lost():
    net = np.array([0.1, -1.2, 0.5])
    assert wealth(net).tolist() == [1.1, 0.0, 0.0]
    assert drawdown(wealth(net)).min() == -1
    assert measures(net, np.ones(3), 252.0)["return"] == -1


def test_rules_survive_json_and_a_fault_is_named(made):
    rules = made[2]
    stored = rules.to_dict()
    assert TradingRules.from_stored(Fields(stored, "rules"), 3) == rules
    for change, message in (
        ({"delays": [1, 1]}, "rules.delays is .*distinct whole numbers"),
        ({"delays": []}, "must hold a delay"),
        ({"delays": [1, 7]}, "rules.invested.7 is missing"),
        ({"invested": {"1": [3], "5": []}}, "rules.invested.1 .*states below 3"),
        ({"decay": 1.0}, "must be below 1"),
        ({"cost_bp": -1}, "must not be below 0"),
        ({"target": 0}, "must be a number above 0"),
        ({"bonus": 1}, "rules.bonus is unknown"),
    ):
        with pytest.raises(ModelError, match=message):
            TradingRules.from_stored(Fields(stored | change, "rules"), 3)


def test_the_metrics_are_those_of_the_first_delay(made):
    table = table_of(made)
    by_row = table.rows.set_index(["strategy", "delay"])
    metrics = table.metrics()
    assert metrics["strategy_regime_sharpe_test"] == by_row.loc[("regime", 1), "sharpe"]
    assert metrics["strategy_hold_sharpe_test"] == by_row.loc[("hold", 1), "sharpe"]
    assert metrics["strategy_regime_drawdown_test"] == by_row.loc[("regime", 1), "max_drawdown"]
    assert metrics["strategy_regime_turnover_test"] == by_row.loc[("regime", 1), "turnover"]
    least = by_row.loc[["regime", "regime_target"], ["return_p", "sharpe_p"]].min(axis=None)
    assert metrics["strategy_p_value"] == least


def test_every_row_is_named_for_a_reader(made):
    rows = table_of(made).rows
    assert set(rows["strategy"]) == set(STRATEGIES)
    assert len(measures_shown(rows)) == 9
    assert len(differences_shown(rows)) == 8
