r"""The strategy table: what every trading rule earned on judged bars, against buy and hold.

>>> table = judge_strategies(rules, positions, bars, Judged(first=9000, part="test"), labels)
>>> table.rows[["strategy", "delay", "sharpe", "sharpe_difference", "sharpe_p"]]

With p_i the position decided at close i and delay d, the position during bar j is h_j = p_{j-d}.
All strategies start in cash, h = 0 before the first judged bar. Cash earns nothing. The net return
is

    r_j = h_j R_j - cost |h_j - h_{j-1}|,        R_j = C_j / C_{j-1} - 1, across gaps too,

with the cost paid one way at the bar of the change. Of n judged bars, with Y the years from the
close before the first to the close of the last and a = n / Y bars a year:

    return        (prod (1 + r_j))^(1 / Y) - 1, geometric, a year
    volatility    sqrt(a) sd(r), sd with n - 1
    sharpe        sqrt(a) mean(r) / sd(r), Sharpe (1994, Journal of Portfolio Management 21)
    sortino       sqrt(a) mean(r) / sqrt(mean(min(r, 0)^2)), Sortino & Price (1994, Journal of
                  Investing 3), target zero
    max_drawdown  least of W_j / max(1, W_1 ... W_j) - 1, with wealth W_j = prod_{i <= j} (1 + r_i)
    turnover      sum |h_j - h_{j-1}| / Y, in units of the wealth
    switches      changes between cash and any investment / Y, the first purchase included

A ratio without deviation is unknown. Wealth that is lost stays lost. The differences and their
p-values are those of `strategy_gains.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.judge.gains import MIN_BARS
from hmm_exp.judge.strategy import HOLD, PricedBars, TradingRules, bars_per_year
from hmm_exp.judge.strategy_gains import MEASURES, differences

EQUAL, CASH = "equals buy and hold", "equals cash"
_BP = 1e-4
_OF_RUN = ["return", "sharpe", "max_drawdown", "turnover"]


@dataclass(frozen=True)
class Judged:
    """The judged bars: from `first` to the last bar; `part` names them."""

    first: int  # at least 1: its return needs the close before
    part: str


@dataclass(frozen=True, eq=False)
class StrategyTable:
    """The table and the series behind it.

    Attributes
    ----------
    rows
        Rows of `strategy.csv`: `strategy, delay`, the measures, `return_difference, return_low,
        return_high, return_p` and the same of `sharpe`, `invested` (labels), `note`, and what was
        judged: `part, bars, cost_bp, first, last`.
    time
        Close of the judged bars, nanoseconds since 1970 UTC, shape (n,).
    net, held
        Net simple returns and positions of every row, shape (M, n).
    """

    rows: pd.DataFrame
    time: np.ndarray
    net: np.ndarray
    held: np.ndarray

    def metrics(self) -> dict[str, float]:
        """Metrics of a run: buy and hold, and the regime row of the first delay."""
        names = self.rows["strategy"].tolist()
        measured = {name: self.rows[name].to_numpy() for name in _OF_RUN}
        regime, hold = (
            {name: values[names.index(strategy)] for name, values in measured.items()}
            for strategy in ("regime", HOLD)
        )
        by_regime = [name.startswith("regime") for name in names]
        p_values = [self.rows[f"{name}_p"].to_numpy()[by_regime] for name in MEASURES]
        found = {
            "strategy_regime_return_test": regime["return"],
            "strategy_regime_sharpe_test": regime["sharpe"],
            "strategy_regime_drawdown_test": regime["max_drawdown"],
            "strategy_regime_turnover_test": regime["turnover"],
            "strategy_hold_sharpe_test": hold["sharpe"],
            "strategy_p_value": np.fmin.reduce(p_values, axis=None),
        }
        return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def judge_strategies(
    rules: TradingRules,
    positions: np.ndarray,
    bars: PricedBars,
    judged: Judged,
    labels: Sequence[str],
) -> StrategyTable | None:
    """Judge positions on the bars from `judged.first` on.

    Parameters
    ----------
    positions
        Decided at every close, shape (M, N), row m of `rules.rows[m]`.
    labels
        Names of the states.

    Returns
    -------
    StrategyTable or None
        None with fewer than `MIN_BARS` judged bars.
    """
    first = judged.first
    if len(bars.close) - first < MIN_BARS:
        return None
    held = np.stack([_held(p, d)[first:] for p, (_, d) in zip(positions, rules.rows, strict=True)])
    trades = np.abs(np.diff(held, axis=1, prepend=0.0))
    net = held * bars.simple_return[first:] - _BP * rules.cost_bp * trades
    per_year = bars_per_year(bars.time[first - 1 :])
    time = bars.time[first:]
    every = [measures(r, h, per_year) for r, h in zip(net, held, strict=True)]
    names, delays = zip(*rules.rows, strict=True)
    columns: dict[str, Any] = {"strategy": names, "delay": delays}
    columns |= {name: [row[name] for row in every] for name in every[0]}
    found = differences(net, per_year)
    for place, measure in enumerate(MEASURES):
        columns[f"{measure}_difference"] = found.estimate[:, place]
        columns[f"{measure}_low"] = found.low[:, place]
        columns[f"{measure}_high"] = found.high[:, place]
        columns[f"{measure}_p"] = found.p_value[:, place]
    columns["invested"] = [_states(rules, *row, labels) for row in rules.rows]
    columns["note"] = ["", *(_note(h) for h in held[1:])]
    columns |= {"part": judged.part, "bars": len(time), "cost_bp": rules.cost_bp}
    columns["first"], columns["last"] = pd.to_datetime(time[[0, -1]], utc=True)
    return StrategyTable(pd.DataFrame(columns), time, net, held)


def measures(net: np.ndarray, held: np.ndarray, per_year: float) -> dict[str, float]:
    """Measures of one strategy, by name; NaN where unknown.

    Parameters
    ----------
    net
        Net simple returns, shape (n,).
    held
        Positions during the bars, shape (n,); in cash before.
    per_year
        Bars a year.
    """
    years = len(net) / per_year
    course = wealth(net)
    mean, deviation = net.mean(), net.std(ddof=1)
    downside = np.sqrt(np.mean(np.minimum(net, 0.0) ** 2))
    trades = np.abs(np.diff(held, prepend=0.0))
    inside = held > 0.0
    return {
        "return": float(course[-1] ** (1.0 / years) - 1.0),
        "volatility": float(np.sqrt(per_year) * deviation),
        "sharpe": _ratio(np.sqrt(per_year) * mean, deviation),
        "sortino": _ratio(np.sqrt(per_year) * mean, downside),
        "max_drawdown": float(drawdown(course).min()),
        "turnover": float(trades.sum() / years),
        "switches": float(np.count_nonzero(np.diff(inside, prepend=False)) / years),
    }


def wealth(net: np.ndarray) -> np.ndarray:
    """Wealth after every bar, 1 before the first, from net returns (..., n)."""
    return np.cumprod(np.maximum(1.0 + net, 0.0), axis=-1)


def drawdown(course: np.ndarray) -> np.ndarray:
    """Loss from the highest wealth so far, 0 to -1, from the wealth (..., n)."""
    return course / np.maximum(np.maximum.accumulate(course, axis=-1), 1.0) - 1.0


def _held(position: np.ndarray, delay: int) -> np.ndarray:
    """Position during every bar: that of `delay` closes before, cash at first."""
    return np.concatenate([np.zeros(delay), position])[: len(position)]


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 1e-15 else float("nan")


def _states(rules: TradingRules, strategy: str, delay: int, labels: Sequence[str]) -> str:
    """Labels of the invested states of a regime row; empty for the others."""
    if not strategy.startswith("regime"):
        return ""
    return ", ".join(labels[state] for state in rules.invested[delay])


def _note(held: np.ndarray) -> str:
    if not held.any():
        return CASH
    return EQUAL if (held == 1.0).all() else ""
