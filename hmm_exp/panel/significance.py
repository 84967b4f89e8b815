"""Which symbols of a panel gain on test, at a limited false discovery rate.

The winners were chosen on validation, so their gains on test are not biased by the choice.
"""

import math
from collections.abc import Callable, Mapping

import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.config import GateConfig
from hmm_exp.judge.panel import judge_panel
from hmm_exp.registry.gate import PanelTest, asked_gains
from hmm_exp.tracking.read import read_scores


def panel_tests(
    client: MlflowClient,
    winners: Mapping[str, Run],
    gate: GateConfig,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, PanelTest | None]:
    """Test the gains that the gate asks for, of the winner of every symbol.

    `tell` shows what is under way.

    None for a symbol whose gains have too few scored bars. Empty if the gate asks for no gain.
    """
    asked = asked_gains(gate)
    if not asked:
        return {}
    gains = {}
    for number, (symbol, run) in enumerate(winners.items(), 1):
        tell(f"reading the scores of symbol {number:,} of {len(winners):,}")
        gains[symbol] = _gains(client, run, asked)
    tell(f"testing the gains of {len(winners):,} symbols")
    table = judge_panel(gains, gate.fdr).drop(columns="promoted")
    n_symbols = int(table["p"].notna().sum())
    return {
        str(symbol): None if math.isnan(p) else PanelTest(p, bh, by, gate.fdr, n_symbols)
        for symbol, p, bh, by in table.itertuples(name=None)
    }


def _gains(client: MlflowClient, run: Run, asked: list[str]) -> pd.DataFrame:
    """Gains on test over baselines, one column each, by `available_at`; nats per bar.

    A baseline that the data do not allow is left out, as the gate does.
    """
    scores = read_scores(client, run)
    if scores is None:
        return pd.DataFrame(index=pd.DatetimeIndex([]))
    test = scores[scores["split"] == "test"]
    found = {
        name: test["model_score"] - test[f"{name}_score"]
        for name in asked
        if f"{name}_score" in test
    }
    allowed = {name: gain for name, gain in found.items() if gain.notna().any() or name == "static"}
    return pd.DataFrame(allowed, index=test.index)
