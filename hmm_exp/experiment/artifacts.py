"""Write the files of a run into one folder: model, scaler, tables, report, figures."""

import json
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from hmm_exp.config import flat
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.source import SCORES_FILE, STRATEGY_FILE
from hmm_exp.experiment.walk import Walk, drift_table, refit_table
from hmm_exp.hmm.estimator import plain_estimator
from hmm_exp.judge.residuals import residual_shapes
from hmm_exp.judge.split import SPLIT_NAMES, WalkForward
from hmm_exp.market.iso import arrow_table, write_csv


def write_artifacts(result: RunResult, folder: Path) -> float:
    """Write every file of a run into `folder`, which is new and private to the run.

    Returns
    -------
    float
        Seconds that the figures took.
    """
    joblib.dump(plain_estimator(result.detector.params), folder / "model.joblib")
    joblib.dump(result.scaler, folder / "scaler.joblib")
    _write_json(flat(result.config), folder / "config.json")
    (folder / "config.yaml").write_text(result.config_yaml)
    _write_json(result.metrics, folder / "metrics.json")
    _write_json(data_report(result), folder / "data_report.json")
    write_csv(result.regimes, folder / "regimes.csv")
    write_csv(result.assessment.diagnostics, folder / "diagnostics.csv")
    write_csv(result.selection, folder / "selection.csv")
    if result.walk is not None:
        _write_walk(result, result.walk, folder)
    if result.assessment.scores is not None:
        scores = arrow_table(result.assessment.scores, _naive)
        # A dictionary helps the names of parts alone: each score is another number.
        pyarrow.parquet.write_table(scores, folder / SCORES_FILE, use_dictionary=["split"])
    if result.strategies is not None:
        write_csv(result.strategies.rows, folder / STRATEGY_FILE)
    if result.assessment.residuals:
        write_csv(residual_shapes(result.assessment.residuals), folder / "residuals.csv")
    started = time.perf_counter()
    if result.config.tracking.figures:
        write_figures(result, folder / "plots")
    return time.perf_counter() - started


def write_figures(result: RunResult, folder: Path) -> None:
    """Draw every figure of a run into `folder`, which is new."""
    from hmm_exp.experiment.plots import run_figures  # matplotlib only when it draws
    from hmm_exp.figures import save

    folder.mkdir()
    for name, figure in run_figures(result):
        save(figure, folder / f"{name}.png")


def data_report(result: RunResult) -> dict[str, Any]:
    """Report of the input: rows read and dropped, features, parts."""
    table, prepared = result.prepared.table, result.prepared
    rows = {
        SPLIT_NAMES[part]: int((prepared.part == part).sum()) for part in np.unique(prepared.part)
    }
    return {
        "read": prepared.what_was_read,
        **prepared.source.report,
        "digest": prepared.source.digest,
        "features": {
            "columns": list(table.recipe.columns),
            "rows": len(table),
            "warmup_rows_dropped": table.warmup_rows,
            "missing_rows": table.less(prepared.season).n_missing,
            "lost_rows": table.lost,
            "sequences": int((table.steps == 0).sum()),
        },
        "split": prepared.split.to_dict(),
        "rows_by_split": rows,
    }


def _write_walk(result: RunResult, walk: Walk, folder: Path) -> None:
    split = result.prepared.split
    assert isinstance(split, WalkForward)
    write_csv(refit_table(walk, split), folder / "refits.csv")
    write_csv(drift_table(walk, result.prepared.recipe.titles), folder / "drift.csv")


def _naive(times: pd.Series) -> pa.Array:
    """UTC times without their zone."""
    naive = times.dt.tz_convert(None)
    whole = bool((naive == naive.dt.floor("s")).all())
    return pa.array(naive.dt.as_unit("s" if whole else "ns"))


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")
