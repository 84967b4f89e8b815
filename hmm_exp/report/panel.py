"""Read the content of a panel's page from the store: its symbols, their cells and their regimes.

>>> subject = read_panel(client, "latest")
>>> html = panel_page(subject)  # of `panel_page`
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

from hmm_exp.errors import TrackingError
from hmm_exp.experiment.days import DAYS_FILE, LABELS
from hmm_exp.panel.table import SYMBOLS_FILE
from hmm_exp.parallel import run_all
from hmm_exp.report.panel_map import SymbolDays
from hmm_exp.tracking import tags
from hmm_exp.tracking.provenance import ENVIRONMENT_FILE
from hmm_exp.tracking.read import LEADERBOARD_FILE, READERS, read_table, read_text
from hmm_exp.tracking.runs import is_panel, sweep_named, sweep_parent, symbol_runs

TEXTS = (  # columns of `SYMBOLS_FILE`; the others are numbers
    *("symbol", "status", "winner", "promoted", "reason", "model", "version", "regime", "since"),
    "run",
)
NUMBERS = (
    *("K", "gain_val", "gain_test", "ewma_gain_test", "p_value", "q_bh", "q_by", "probability"),
    "cells",
)
CELL_TEXTS = ("symbol", "cell", "eligible", "run")


@dataclass(frozen=True, eq=False)
class PanelSubject:
    """The subject of a panel's page.

    Attributes
    ----------
    main
        The panel's own run.
    symbols
        A row a symbol, columns `TEXTS` and `NUMBERS`; gains in nats per bar.
    days
        Regimes of the winners by symbol; none of a symbol without a winner.
    verdicts
        Sentences of the verdict by symbol.
    cells
        Leaderboard of all cells, with their `symbol`.
    fdr
        Largest false discovery rate of the promotions; None if their gate asks for no gain.
    """

    main: Run
    symbols: pd.DataFrame
    days: dict[str, SymbolDays]
    verdicts: dict[str, list[str]]
    cells: pd.DataFrame
    fdr: float | None = None
    environment: str = ""
    command: str = ""


def read_panel(client: MlflowClient, sweep_id: str) -> PanelSubject:
    """Read a finished panel, or the `latest`.

    Raises TrackingError if there is none, if it is a sweep of one symbol, or if a file is lost.
    """
    sweep_id = sweep_named(client, sweep_id)
    parent = sweep_parent(client, sweep_id)
    if not is_panel(parent):
        raise TrackingError(f"sweep {sweep_id} has one symbol: it is no panel")
    run_id = parent.info.run_id
    table = read_table(client, run_id, SYMBOLS_FILE, texts=TEXTS)
    if table is None:
        raise TrackingError(f"panel {sweep_id} has no {SYMBOLS_FILE}: it did not end")
    runs = {run.info.run_id: run for run in symbol_runs(client, sweep_id)}
    shown = table.set_index("symbol")["run"]
    own = {str(symbol): runs[run] for symbol, run in shown.items() if run in runs}
    days = run_all(lambda run: read_days(client, run), [*own.values()], threads=READERS)
    cells = read_table(client, run_id, LEADERBOARD_FILE, texts=CELL_TEXTS)
    return PanelSubject(
        main=parent,
        symbols=_typed(table),
        days={symbol: one for symbol, one in zip(own, days, strict=True) if one is not None},
        verdicts={
            symbol: run.data.tags.get(tags.VERDICT, "").splitlines() for symbol, run in own.items()
        },
        cells=pd.DataFrame({"symbol": []}) if cells is None else cells,
        fdr=float(rate) if (rate := parent.data.tags.get(tags.FDR)) else None,
        environment=read_text(client, run_id, ENVIRONMENT_FILE) or "",
        command=parent.data.tags.get(tags.COMMAND, ""),
    )


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """All columns of the page: texts, empty if missing, and numbers, NaN if missing."""
    table = table.reindex(columns=[*TEXTS, *NUMBERS])
    return table.assign(
        **{name: table[name].fillna("").astype(str) for name in TEXTS},
        **{name: pd.to_numeric(table[name]).astype(float) for name in NUMBERS},
    )


def read_days(client: MlflowClient, run: Run) -> SymbolDays | None:
    """Read the regimes of a symbol by day; None if its run has none."""
    root = run.info.artifact_uri or ""
    if root.startswith("file:"):  # MLflow takes 20 times as long to copy it
        path = Path(local_file_uri_to_path(root)) / DAYS_FILE
        return _days(path) if path.is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            uri = f"{root.rstrip('/')}/{DAYS_FILE}"
            place = {"dst_path": folder, "tracking_uri": client.tracking_uri}
            path = Path(download_artifacts(artifact_uri=uri, **place))
        except (MlflowException, OSError):
            if any(item.path == DAYS_FILE for item in client.list_artifacts(run.info.run_id)):
                raise
            return None
        return _days(path)


def _days(path: Path) -> SymbolDays:
    table = pa.parquet.ParquetFile(path).read()
    labels: Sequence[Any] = json.loads((table.schema.metadata or {}).get(LABELS, b"[]"))
    column = {name: table.column(name) for name in ("day", "close", "regime", "split")}
    return SymbolDays(
        labels=[str(label) for label in labels],
        day=column["day"].to_numpy().astype("M8[D]"),
        close=column["close"].to_numpy().astype(np.float32),
        regime=column["regime"].to_numpy().astype(np.int8),
        split=column["split"].to_numpy(),
    )
