r"""Backtest a model's trading rules on bars after its training and validation.

The rules were learned on train and are stored in the detector (`judge/strategy.py`); nothing is
learned here. Earlier bars of the file only warm up the windows and the filter.

Example
-------
>>> table = backtest_bars(detector, bars)
>>> print(*in_words(table.rows), sep="\n")
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ConfigError, DataError, ModelError
from hmm_exp.judge.gains import MIN_BARS
from hmm_exp.judge.return_forecasts import next_returns
from hmm_exp.judge.strategy import AVERAGE, PricedBars, TradingRules
from hmm_exp.judge.strategy_table import Judged, StrategyTable, judge_strategies
from hmm_exp.market.bars import Bars
from hmm_exp.market.gaps import chain_steps
from hmm_exp.market.iso import iso
from hmm_exp.stored.fields import Fields


@dataclass(frozen=True)
class BacktestOptions:
    """What differs from training; None keeps what the model was trained with."""

    cost_bp: float | None = None  # one way, basis points
    delays: tuple[int, ...] | None = None  # bars, some of those of the training
    target: float | None = None  # volatility a year
    since: pd.Timestamp | None = None  # judge only bars after this instant, UTC


@dataclass(frozen=True, eq=False)
class Backtest:
    """The table, and the regime decided at every judged close, shape (n,); -1 if undecided."""

    table: StrategyTable
    regimes: np.ndarray


def backtest_bars(
    detector: Detector, bars: Bars, options: BacktestOptions | None = None
) -> Backtest:
    """Judge a detector's trading rules on the bars after its training and validation.

    Raises
    ------
    ModelError
        When the detector has no trading rules.
    ConfigError
        When a delay is not one of its training.
    HistoryError, DataError
        When there are too few bars to warm up, or fewer than `MIN_BARS` to judge.
    """
    options = options or BacktestOptions()
    rules, after = rules_of(detector)
    rules = _changed(rules, options)
    priced, regimes = _priced(bars), _regimes(detector, bars)
    first = _first_judged(detector, bars, rules, after, options.since)
    judged = Judged(first, "bars after training and validation")
    positions = rules.positions(priced, regimes)
    table = judge_strategies(rules, positions, priced, judged, detector.labels)
    assert table is not None  # the number of bars was checked
    return Backtest(table, regimes[first:])


def rules_of(detector: Detector) -> tuple[TradingRules, pd.Timestamp]:
    """The stored rules, and the end of the bars that anything was learned or chosen on."""
    if not detector.strategy:
        raise ModelError(
            f"the model of {detector.name} has no trading rules: it is of an earlier version or "
            "was trained without bars; train it again"
        )
    stored = Fields(detector.strategy, "strategy")
    stored.only(["judged_after", "rules"])
    rules = TradingRules.from_stored(stored.part("rules"), detector.n_states)
    return rules, pd.Timestamp(stored.time("judged_after"))


def _changed(rules: TradingRules, options: BacktestOptions) -> TradingRules:
    """The rules with the user's cost, delays and target."""
    delays = rules.delays if options.delays is None else options.delays
    for delay in delays:
        if delay not in rules.invested:
            known = ", ".join(map(str, rules.delays))
            raise ConfigError(
                f"--delays {delay}: the model knows its invested states for delays of {known}; "
                f"strategy.delays=[{delay}] in training adds another"
            )
    return replace(
        rules,
        invested={delay: rules.invested[delay] for delay in delays},
        cost_bp=rules.cost_bp if options.cost_bp is None else options.cost_bp,
        target=options.target or rules.target,
    )


def _priced(bars: Bars) -> PricedBars:
    close = bars.frame["close"].to_numpy()
    steps = chain_steps(bars.time, bars.step.value, bars.gaps)
    return PricedBars(bars.time, close, np.append(np.nan, next_returns(close, steps)[:-1]))


def _regimes(detector: Detector, bars: Bars) -> np.ndarray:
    """Decided regime known at every close, shape (N,); -1 while it is not decided."""
    rows = detector.filter(bars)
    at = pd.DatetimeIndex(rows["available_at"]).as_unit("ns").asi8
    latest = at.searchsorted(bars.time, side="right") - 1
    return np.where(latest >= 0, rows["regime"].to_numpy()[latest], -1)


def _first_judged(
    detector: Detector,
    bars: Bars,
    rules: TradingRules,
    after: pd.Timestamp,
    since: pd.Timestamp | None,
) -> int:
    """First judged bar: after training, validation and --from, and with all windows full."""
    start = after if since is None else max(after, since)
    warm = max(detector.min_history, AVERAGE) + max(rules.delays) - 1
    later = int(bars.time.searchsorted(start.value, side="right"))
    n_judged = len(bars) - max(later, warm)
    if n_judged < MIN_BARS:
        raise DataError(
            f"{max(n_judged, 0)} bars to judge, at least {MIN_BARS} are needed: those after "
            f"{iso(start)} (training, validation and --from) and after {warm} bars of warm-up "
            f"count, and the last one is of {iso(bars.time[-1])}; send newer bars"
        )
    return max(later, warm)
