"""Write the bundle of a finished run: the work of the process that fitted it."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.pool_result import PoolResult
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.source import SCORES_FILE
from hmm_exp.hmm.estimator import plain_estimator
from hmm_exp.market.iso import write_csv
from hmm_exp.tracking import tags
from hmm_exp.tracking.bundle import (
    ARTIFACTS,
    DETECTOR,
    LEFT_OUT_FILE,
    LOG_FILE,
    PART,
    POOL_FILE,
    RECORD,
    Bundle,
)

MOST_STEPS = 25  # of a convergence series: each is a row in the store


def write_bundle(result: RunResult, folder: Path, log_file: Path | None = None) -> Bundle:
    """Write the record of a run into `folder`, which is new, and rename it there when complete.

    On an error, a full disk for example, nothing is left of it.
    """
    return _whole(folder, lambda part: _write_record(result, part, log_file))


def write_pool_bundle(result: PoolResult, folder: Path) -> Bundle:
    """Write the record of a pool as `write_bundle` writes that of a run."""
    return _whole(folder, lambda part: _write_pool(result, part))


def _whole(folder: Path, write: Callable[[Path], None]) -> Bundle:
    """Write a bundle beside its folder and rename it there when complete."""
    part = folder.with_name(folder.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    try:
        write(part)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Bundle.read(folder)


def _write_pool(result: PoolResult, folder: Path) -> None:
    place, fits = folder / ARTIFACTS, result.fits
    place.mkdir(parents=True)
    write_csv(result.comparison.table, place / POOL_FILE)
    left_out = pd.DataFrame(result.left_out.items(), columns=["symbol", "reason"])
    write_csv(left_out, place / LEFT_OUT_FILE)
    write_csv(fits.selection, place / "selection.csv")
    result.scores.to_parquet(place / SCORES_FILE, index=False)
    joblib.dump(plain_estimator(fits.chosen.params), place / "model.joblib")
    result.detector.save(folder / DETECTOR)
    verdict = {
        tags.FAULTS: "; ".join(fits.chosen.faults),
        tags.STATUS_REASON: "; ".join([*fits.chosen.faults, *fits.warnings]),
        tags.CRITERIA_BY_STATES: fits.selection.to_json(orient="records"),
        tags.VERDICT: result.comparison.sentence,
    }
    known = {name: text[: tags.LONGEST] for name, text in verdict.items() if text}
    record = {"metrics": result.metrics, "tags": known}
    (folder / RECORD).write_text(json.dumps(record))


def _write_record(result: RunResult, folder: Path, log_file: Path | None) -> None:
    (folder / ARTIFACTS).mkdir(parents=True)
    started = time.perf_counter()
    plots = write_artifacts(result, folder / ARTIFACTS)
    result.detector.save(folder / DETECTOR)
    seconds = {"seconds_plots": plots, "seconds_write": time.perf_counter() - started - plots}
    record = {
        "metrics": result.metrics | seconds,
        "tags": _verdict(result),
        "log_lik_history": _history(result),
    }
    (folder / RECORD).write_text(json.dumps(record))
    if log_file is not None:
        shutil.copyfile(log_file, folder / ARTIFACTS / LOG_FILE)


def _history(result: RunResult) -> list[tuple[int, float]]:
    """Iteration and log-likelihood of the best start, at most MOST_STEPS of them, both ends too."""
    best = max(result.chosen.fit.starts, key=lambda start: start.objective)
    history = best.log_lik_history
    if not len(history):
        return []
    steps = np.unique(np.linspace(0, len(history) - 1, MOST_STEPS).round().astype(int))
    return [(int(step), float(history[step])) for step in steps]


def _verdict(result: RunResult) -> dict[str, str]:
    verdict: dict[str, Any] = {
        tags.FAULTS: "; ".join(result.faults),
        tags.STATUS_REASON: "; ".join([*result.faults, *result.warnings]),
        tags.UNSCORED: json.dumps(result.assessment.unscored) if result.assessment.unscored else "",
        tags.NO_ERRORS: result.no_errors,
        tags.CRITERIA_BY_STATES: result.selection.to_json(orient="records"),
        tags.REGIME_NOW: result.regime_now,
    }
    return {name: text[: tags.LONGEST] for name, text in verdict.items() if text}
