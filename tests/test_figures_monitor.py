"""The figure of a monitored model is readable at any number of states and titled by its alarm."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.figures.monitor import monitor
from hmm_exp.figures.palette import regime_colors
from tests.test_figures import assert_texts_are_apart, colors_in, labels, posterior


def frames(n_states, n_rows=2000, peak=0.5, with_bars=True):
    """Rows and bars whose highest chart reaches `peak` thresholds."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2024-01-01", periods=n_rows, freq="h", tz="UTC", unit="ns")
    states = np.arange(n_rows) // 50 % n_states
    chart = np.linspace(0, peak, n_rows)
    rows = pd.DataFrame(posterior(states, n_states), index=time).add_prefix("p_state_")
    rows = rows.assign(
        log_lik=rng.normal(-2, 1, n_rows), log_lik_promised=-2.0, log_lik_chart=chart
    )
    for k in range(n_states if n_states > 1 else 0):
        rows[f"p_state_{k}_chart"] = 0.1 * chart
    if not with_bars:
        return rows, pd.DataFrame(index=time[:0])
    bars = pd.DataFrame({"score": rng.normal(3, 1, n_rows), "score_promised": 3.0}, index=time)
    return rows, bars.assign(score_chart=0.5 * chart, gain=0.1)


@pytest.mark.parametrize("n_states", range(1, 9))
def test_no_text_overlaps_and_regimes_have_their_colours(n_states):
    figure = monitor(*frames(n_states), labels(n_states), subject="BINANCE_BTCUSDT.P 1H, v1, diag")
    assert_texts_are_apart(figure)
    assert set(regime_colors(n_states)) <= colors_in(figure)


@pytest.mark.parametrize("n_rows", [1, 2, 30])
def test_few_rows_are_drawn(n_rows):
    assert_texts_are_apart(monitor(*frames(2, n_rows), labels(2)))


def test_without_returns_there_is_no_score():
    figure = monitor(*frames(3, with_bars=False), labels(3))
    assert_texts_are_apart(figure)
    assert not any("next-bar" in text.get_text() for text in figure.texts)


def test_the_title_says_when_it_alarmed():
    quiet = monitor(*frames(3, peak=0.5), labels(3)).texts[0].get_text()
    loud = monitor(*frames(3, peak=2.0), labels(3)).texts[0].get_text()
    assert quiet == "No alarm: the highest chart reached 50 % of its threshold"
    assert loud == "Alarm at 2024-02-11T16:00:00Z: log-likelihood differs from expectation"
