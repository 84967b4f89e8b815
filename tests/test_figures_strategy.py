"""The figure of strategies is readable at any number of states, bars and prices."""

from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.figures.palette import ACCENT, INK, regime_colors
from hmm_exp.figures.strategy import strategies
from hmm_exp.judge.strategy import PricedBars, TradingRules
from hmm_exp.judge.strategy_table import Judged, judge_strategies
from tests.test_figures import assert_texts_are_apart, colors_in, labels

HOUR = 3_600_000_000_000


def drawn(n_states=3, n_bars=2000, scale=0.01, invested=(0,), subject="dax 1D v1 diag"):
    rng = np.random.default_rng(0)
    log_return = scale * rng.standard_t(4, n_bars + 300)
    regimes = np.arange(n_bars + 300) // 40 % n_states
    time = 1_700_000_000_000_000_000 + HOUR * np.arange(n_bars + 300)
    bars = PricedBars(time, np.exp(np.cumsum(log_return)), log_return)
    rules = TradingRules({1: invested, 5: (0,)}, 0.94, scale**2, 80 * scale, 50 * scale, 8766, 10)
    positions = rules.positions(bars, regimes)
    table = judge_strategies(rules, positions, bars, Judged(300, "test"), labels(n_states))
    figure = strategies(table, regimes[300:], labels(n_states), subject=subject)
    return figure, table


def title(figure):
    return figure.texts[0].get_text()


@pytest.mark.parametrize("n_states", range(1, 9))
def test_no_text_overlaps_and_regimes_have_their_colours(n_states):
    figure, _ = drawn(n_states)
    assert_texts_are_apart(figure)
    assert {*regime_colors(n_states), ACCENT, INK} <= colors_in(figure)


@pytest.mark.parametrize("n_states", [1, 3, 8])
def test_the_strip_of_regimes_has_a_key(n_states):
    figure, _ = drawn(n_states)
    shown = [text.get_text() for text in figure.texts]
    assert {*labels(n_states)} <= {*shown}
    assert any("strip: decided regime" in text for text in shown)


@pytest.mark.parametrize("n_bars", [100, 901, 40_000])
def test_few_and_many_bars_are_drawn(n_bars):
    assert_texts_are_apart(drawn(n_bars=n_bars)[0])


@pytest.mark.parametrize("scale", [1e-5, 0.001, 0.1, 0.6])
def test_wealth_of_any_size_has_its_ticks(scale):
    assert_texts_are_apart(drawn(scale=scale)[0])


def test_the_title_gives_sharpe_and_drawdown_of_both():
    figure, table = drawn()
    rows = table.rows.set_index(["strategy", "delay"])
    for name in ("regime", "hold"):
        sharpe = f"{rows.loc[(name, 1), 'sharpe']:.2f}".replace("-", "−")
        assert f"Sharpe {sharpe}, drawdown" in title(figure)


def test_the_title_says_when_the_regimes_trade_nothing():
    assert title(drawn(invested=(0, 1, 2))[0]).startswith("Regime equals buy and hold: Sharpe ")
    assert title(drawn(invested=())[0]).startswith("Regime: Sharpe unknown, drawdown 0 %;")


@pytest.mark.parametrize(
    ("sharpe", "text"), [(-0.004, "0.00"), (-0.0, "0.00"), (-0.006, "−0.01"), (0.004, "0.00")]
)
def test_a_sharpe_ratio_of_zero_has_no_sign(sharpe, text):
    table = drawn()[1]
    flat = replace(table, rows=table.rows.assign(sharpe=sharpe))
    figure = strategies(flat, np.zeros(len(table.time), dtype=int), labels(3))
    assert title(figure).count(f"Sharpe {text}, drawdown") == 2
