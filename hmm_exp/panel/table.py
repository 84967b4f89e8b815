"""The table of a panel: one row a symbol, for `symbols.csv`, the terminal and the page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.entities import Run

from hmm_exp.judge.wording import signed
from hmm_exp.registry.gate import PanelTest
from hmm_exp.registry.promotion import Decision
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import SYMBOLS_FILE
from hmm_exp.tracking.runs import called

MOST_ROWS = 20  # on the terminal
_GAINS = {
    "gain_val": "return_gain_val",
    "gain_test": "return_gain_test",
    "ewma_gain_test": "ewma_gain_test",
}
_COLUMNS = [
    *("symbol", "status", "winner", "K", *_GAINS, "p_value", "q_bh", "q_by", "promoted", "reason"),
    *("model", "version", "regime", "since", "probability", "cells", "run"),
]
_SHOWN: dict[
    str, Callable[[Any], str]
] = {  # columns on the terminal, and how their numbers are written
    "symbol": str,
    "winner": str,
    "gain_val": signed,
    "gain_test": signed,
    "p_value": "{:.2g}".format,
    "q_bh": "{:.2g}".format,
    "promoted": str,
    "regime": str,
}


def symbol_row(
    run: Run,
    winner: Run | None,
    test: PanelTest | None,
    decision: Decision | None,
    model: str,
) -> dict[str, Any]:
    """Row of a symbol: its winner, the test of its gains, what became of it, its regime now."""
    metrics = winner.data.metrics if winner else {}
    now = {
        name: run.data.tags.get(f"{tags.NOW}.{name}") for name in ("regime", "since", "probability")
    }
    return {
        "symbol": run.data.tags[tags.SYMBOL],
        "status": _status(run) if winner else "no winner",
        "winner": called(winner) if winner else None,
        "K": metrics.get("n_states"),
        **{column: metrics.get(name) for column, name in _GAINS.items()},
        "p_value": test.p_value if test else None,
        "q_bh": test.q_bh if test else None,
        "q_by": test.q_by if test else None,
        **_outcome(run, winner, decision),
        "model": model,
        "version": decision.version if decision else None,
        **now,
        "cells": int(run.data.tags.get(tags.N_CELLS, 0)),
        "run": run.info.run_id,
    }


def missing_row(symbol: str, reason: str, model: str) -> dict[str, Any]:
    """Row of a symbol without a run."""
    about = {"symbol": symbol, "status": "failed", "promoted": "no", "reason": reason}
    return about | {"model": model, "cells": 0}


def symbols_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of all symbols, promoted ones first, then by adjusted p-value and gain on test."""
    table = pd.DataFrame(rows, columns=_COLUMNS)
    table["K"] = table["K"].map("{:.0f}".format, na_action="ignore")
    keys = pd.DataFrame(
        {
            "order": ~table["promoted"].isin(["yes", "already"]),
            "q": table["q_bh"].astype(float),
            "gain": -table["gain_test"].astype(float),
        }
    )
    places = keys.sort_values(["order", "q", "gain"], na_position="last", kind="stable").index
    return table.loc[places].reset_index(drop=True)


def table_lines(table: pd.DataFrame, run_id: str) -> list[str]:
    """The first rows for the terminal, and where all of them are."""
    shown = table[list(_SHOWN)].head(MOST_ROWS)
    texts = {name: shown[name].map(form, na_action="ignore") for name, form in _SHOWN.items()}
    lines = (
        pd.DataFrame(texts)
        .fillna("")
        .rename(columns={"p_value": "p", "q_bh": "q"})
        .to_string(index=False)
    )
    more = len(table) - len(shown)
    rest = [f"and {more:,} more symbols, in {SYMBOLS_FILE} of run {run_id}"] if more else []
    return [lines, *rest]


def _status(run: Run) -> str:
    return "finished" if run.info.status == "FINISHED" else "failed"


def _outcome(run: Run, winner: Run | None, decision: Decision | None) -> dict[str, str]:
    """Whether the winner is in Production, and why not."""
    if winner is None:
        return {"promoted": "no", "reason": _why_none(run)}
    if decision is None:
        return {"promoted": "no", "reason": "promote=false"}
    if decision.noop:
        return {"promoted": "already", "reason": ""}
    if decision.dry_run and not decision.refused:
        return {"promoted": "would be", "reason": ""}
    if decision.promoted:
        return {"promoted": "yes", "reason": ""}
    return {"promoted": "no", "reason": "; ".join(decision.reasons)}


def _why_none(run: Run) -> str:
    """Why a symbol has no winner: it did not finish, or the last line of its verdict."""
    verdict = run.data.tags.get(tags.VERDICT, "").splitlines()
    why = run.data.tags.get(tags.STATUS_REASON)
    return why or (verdict[-1] if verdict else "its process is gone")
