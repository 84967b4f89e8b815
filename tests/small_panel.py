"""A panel made by hand: its subject in memory, and the same in a store."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from mlflow.entities import Run, RunData, RunInfo, RunTag
from mlflow.tracking import MlflowClient

from hmm_exp.experiment.days import DAYS_FILE, LABELS
from hmm_exp.panel.table import SYMBOLS_FILE
from hmm_exp.report.panel import LEADERBOARD_FILE, NUMBERS, TEXTS, PanelSubject
from hmm_exp.report.panel_map import SymbolDays
from hmm_exp.tracking import tags

SWEEP = "20260411-093000-1a2b"
EVIL = "<b onclick=\"document.title='gone'\">&'BTC/USDT' 100 %</script>"
VERDICT = ["Three regimes, best model v1@1H diag K=3", "believe it? No: -0.01 on test"]


def symbol_days(
    regimes: Sequence[int] | np.ndarray,
    n_states: int = 3,
    first: str = "2024-01-01",
    parts: tuple[float, float] = (0.6, 0.8),
) -> SymbolDays:
    """Regimes of successive days, closes that rise by 1 % a day, three parts."""
    n_days = len(regimes)
    day = np.datetime64(first) + np.arange(n_days)
    part = np.digitize((np.arange(n_days) + 0.5) / max(n_days, 1), parts)
    return SymbolDays(
        labels=[f"vol-{k}" for k in range(n_states)],
        day=day,
        close=(100 * 1.01 ** np.arange(n_days)).astype(np.float32),
        regime=np.asarray(regimes, dtype=np.int8),
        split=np.array(["train", "val", "test"])[part],
    )


def symbol_row(name: str, days: SymbolDays | None, **others: object) -> dict[str, object]:
    """A row of `symbols.csv`; without days the symbol has no winner."""
    row: dict[str, object] = dict.fromkeys(TEXTS, "") | dict.fromkeys(NUMBERS, np.nan)
    row |= {"symbol": name, "status": "no winner", "promoted": "no", "cells": 1.0}
    row |= {"reason": "no column named close", "run": f"{abs(hash(name)):032x}"[:32]}
    if days is not None:
        last = int(days.regime[-1]) if len(days.regime) else -1
        row |= {"status": "finished", "winner": f"v1@1H diag K={len(days.labels)}", "reason": ""}
        row |= {"K": float(len(days.labels)), "model": f"hmm_regime.{len(name)}"}
        row |= {"gain_val": 0.02, "gain_test": -0.01, "ewma_gain_test": 0.001}
        row |= {"p_value": 0.2, "q_bh": 0.4, "q_by": 0.9}
        if last >= 0:
            row |= {"regime": days.labels[last], "since": "2024-02-01T05:00:00Z"}
            row |= {"probability": 0.87}
    return row | others


def panel_subject(days: dict[str, SymbolDays | None], **rows: dict[str, object]) -> PanelSubject:
    """A panel of some symbols; `rows` changes columns of a symbol's row."""
    known = {name: one for name, one in days.items() if one is not None}
    table = pd.DataFrame(
        [symbol_row(name, one, **rows.get(name, {})) for name, one in days.items()]
    )
    about = {tags.SWEEP_ID: SWEEP, tags.KIND: "sweep", tags.N_SYMBOLS: str(len(days))}
    info = RunInfo("f" * 32, "1", "user", "FINISHED", 1_775_900_000_000, None, "active")
    cells = [
        cell
        for name, one in known.items()
        for cell in _cells(name, len(one.labels), table.set_index("symbol").loc[name, "winner"])
    ]
    return PanelSubject(
        main=Run(info, RunData(tags=[RunTag(*pair) for pair in about.items()])),
        symbols=table,
        days=known,
        verdicts=dict.fromkeys(known, VERDICT),
        cells=pd.DataFrame(cells) if cells else pd.DataFrame({"symbol": []}),
        fdr=0.05,
        command="python -m hmm_exp.train -m data=panel data.path='lake/*.parquet'",
    )


def _cells(name: str, n_states: int, winner: str) -> list[dict[str, object]]:
    common = {"symbol": name, "gain_ewma": None, "eligible": "yes", "s": 0.5}
    return [
        cell | common
        for cell in (
            {"cell": winner, "K": float(n_states), "bic": -1500.0, "gain_t": 0.02, "run": "a" * 32},
            {"cell": "v1@1H full K=9", "K": 9.0, "bic": -1400.0, "gain_t": -0.01, "run": "b" * 32},
        )
    ]


def mixed_panel() -> PanelSubject:
    """Symbols of one to eight regimes with shared turns, and what is special in a panel.

    A name of HTML, a symbol without a winner, one whose regimes are all unknown, one that ends
    before the others begin, and one that is promoted.
    """
    random = np.random.default_rng(3)
    turns = np.repeat(random.integers(0, 8, 30), 12)
    days: dict[str, SymbolDays | None] = {
        f"K{k}": symbol_days(np.minimum(turns, k - 1), k) for k in range(1, 9)
    }
    days[EVIL] = symbol_days(np.where(np.arange(360) < 20, -1, turns % 3), 3)
    days["unknown"] = symbol_days(np.full(360, -1), 4)
    days["before"] = symbol_days(turns[:60] % 2, 2, first="2023-01-01")
    days["none"] = None
    won = {"promoted": "yes", "version": "2", "q_bh": 0.001, "p_value": 0.00001}
    return panel_subject(days, K3=won, before={"gain_val": 0.5})


def store_panel(client: MlflowClient, subject: PanelSubject, folder: Path, place: str) -> str:
    """Write what the page of a panel reads into an experiment; gives the id of the panel's run."""
    main = client.create_run(place, tags=dict(subject.main.data.tags)).info.run_id
    client.set_tag(main, tags.FDR, str(subject.fdr))
    client.set_tag(main, tags.COMMAND, subject.command)
    ids = {}
    for name in subject.symbols["symbol"]:
        known = {tags.KIND: "symbol", tags.SWEEP_ID: SWEEP, tags.SYMBOL: name}
        known |= {tags.PARENT_RUN: main, tags.VERDICT: "\n".join(subject.verdicts.get(name, []))}
        ids[name] = client.create_run(place, tags=known).info.run_id
        if name in subject.days:
            write_days(subject.days[name], folder / DAYS_FILE)
            client.log_artifact(ids[name], str(folder / DAYS_FILE))
    subject.symbols.assign(run=subject.symbols["symbol"].map(ids)).to_csv(
        folder / SYMBOLS_FILE, index=False
    )
    subject.cells.to_csv(folder / LEADERBOARD_FILE, index=False)
    for name in (SYMBOLS_FILE, LEADERBOARD_FILE):
        client.log_artifact(main, str(folder / name))
    client.set_terminated(main)
    return main


def write_days(days: SymbolDays, path: Path) -> None:
    """Write the regimes of a symbol by day as its run does."""
    columns = {"day": days.day, "close": days.close, "regime": days.regime, "split": days.split}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    labels = {LABELS: json.dumps([*days.labels]).encode()}
    pa.parquet.write_table(table.replace_schema_metadata(labels), path)
