"""Trading rules of a run: learned on train, judged on bars that nothing was chosen on.

    rules = rules_of(prepared, regimes, prepared.split.train_end)
    table = judge_run(prepared, rules, positions_of(prepared, rules, regimes), labels)

A walk learns its rules anew at every refit, from the past of that refit.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from hmm_exp.experiment.assess import baselines_of
from hmm_exp.experiment.decided import at_close
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.source import Source
from hmm_exp.judge.split import TEST, VAL, WalkForward
from hmm_exp.judge.strategy import PricedBars, RuleOptions, TradingRules, learn_rules
from hmm_exp.judge.strategy_table import Judged, StrategyTable, judge_strategies

_PRICED: WeakKeyDictionary[Source, PricedBars] = WeakKeyDictionary()


def judge_run(
    prepared: Prepared, rules: TradingRules, positions: np.ndarray, labels: Sequence[str]
) -> StrategyTable | None:
    """Judge positions (M, N) on test; None where it is too short.

    A single walk with a fixed number of states chooses nothing on validation, which then is judged
    too.
    """
    config, walks = prepared.config, isinstance(prepared.split, WalkForward)
    is_fixed = walks and len(config.state_grid) == 1 and config.sweep.parent_run is None
    judged = np.isin(prepared.split.of(prepared.source.time), (VAL, TEST) if is_fixed else (TEST,))
    bars = priced_bars(prepared)
    if bars is None or not judged.any():
        return None
    part = "validation and test" if is_fixed else "test"
    how = f"{part}, rules learned anew at every refit" if walks else part
    return judge_strategies(rules, positions, bars, Judged(int(judged.argmax()), how), labels)


def stored_rules(rules: TradingRules, prepared: Prepared, train_end: pd.Timestamp) -> dict:
    """The rules for a detector, with the instant after which nothing was learned or chosen."""
    after = max(train_end, prepared.split.val_end)
    return {"judged_after": after.isoformat(), "rules": rules.to_dict()}


def rules_of(prepared: Prepared, regimes: np.ndarray, end: pd.Timestamp) -> TradingRules | None:
    """Trading rules from the bars of train up to `end`; None without bars or without an EWMA.

    Parameters
    ----------
    regimes
        Decided regime of every row, shape (T,); -1 while it is not decided.
    """
    bars, baselines = priced_bars(prepared), baselines_of(prepared)
    if bars is None or baselines is None or "ewma" not in baselines.volatility:
        return None
    time, options = prepared.source.time, prepared.config.strategy
    train = np.asarray((time > prepared.split.train_start) & (time <= end))
    return learn_rules(
        bars,
        at_close(prepared, regimes),
        train,
        baselines.volatility["ewma"].ewma,
        RuleOptions(tuple(options.delays), options.cost_bp),
    )


def positions_of(prepared: Prepared, rules: TradingRules, regimes: np.ndarray) -> np.ndarray:
    """Positions decided at every base bar's close, shape (M, N)."""
    bars = priced_bars(prepared)
    assert bars is not None
    return rules.positions(bars, at_close(prepared, regimes))


def priced_bars(prepared: Prepared) -> PricedBars | None:
    """The base bars as trading rules read them; None for a ready table of features.

    One object for one source, so that the cells of a sweep share what it keeps.
    """
    source = prepared.source
    if source.bars is None or source.log_return is None:
        return None
    if source not in _PRICED:
        close = source.bars.frame["close"].to_numpy()
        _PRICED[source] = PricedBars(source.bars.time, close, source.log_return)
    return _PRICED[source]
