"""The record of a run as a folder on disk, complete before the store hears of it.

    <folder>/record.json   name, params, tags and metrics
    <folder>/detector.json what becomes the model
    <folder>/artifacts/    the files of the run

A bundle is written beside and renamed, so that one which exists is whole. It can be recorded
now, or when the store answers again, by any process. Nothing here needs MLflow.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmm_exp.config import Config, flat
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.result import RunResult
from hmm_exp.tracking import tags

RECORD, DETECTOR, ARTIFACTS = "record.json", "detector.json", "artifacts"
LOG_FILE = "run.log"
LONGEST_TAG = tags.LONGEST


@dataclass(frozen=True)
class Bundle:
    """A finished run on disk.

    Attributes
    ----------
    tags
        What is known after the fit: faults, warnings, the regime now.
    log_lik_history
        EM iterations of the best start, and the log-likelihood of train after each, nats.
    """

    folder: Path
    metrics: dict[str, float]
    tags: dict[str, str]
    log_lik_history: list[tuple[int, float]]

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read a bundle's record; its artifacts and detector stay where they are."""
        record = json.loads((folder / RECORD).read_text())
        history = [(step, value) for step, value in record.get("log_lik_history", [])]
        return cls(folder, record["metrics"], record["tags"], history)

    @property
    def artifacts(self) -> Path:
        """Folder of the run's files."""
        return self.folder / ARTIFACTS

    @property
    def detector(self) -> Path:
        """File of the detector."""
        return self.folder / DETECTOR

    def remove(self) -> None:
        """Remove it from disk, once it is recorded."""
        shutil.rmtree(self.folder, ignore_errors=True)


def cell_name(settings: Config) -> str:
    """Name of a cell in words: observation, covariance, number of states, what else is swept."""
    grid = settings.state_grid
    states = f"K={grid[0]}" if len(grid) == 1 else f"K={grid[0]}..{grid[-1]}"
    space = f"{settings.features.name}@{settings.timeframe.name}"
    values = flat(settings)
    others = [f"{name.split('.')[-1]}={values.get(name)}" for name in settings.sweep.varied]
    return " ".join([space, settings.covariance.type, states, *others])


def identity(settings: Config) -> dict[str, str]:
    """Tags that are known from the settings alone."""
    known = {
        tags.KIND: "cell",
        tags.CELL: cell_name(settings),
        tags.FEATURE_SET: settings.features.name,
        tags.DATA_KIND: settings.data.kind,
        tags.SWEEP_ID: settings.sweep_id,
        tags.PARENT_RUN: settings.sweep.parent_run,
        tags.ATTEMPT: settings.sweep.attempt,
    }
    return {name: str(text) for name, text in known.items() if text}


def params(settings: Config) -> dict[str, str]:
    """Every setting that is set, as text that MLflow takes."""
    return {
        name: str(value)[:LONGEST_TAG]
        for name, value in flat(settings).items()
        if value is not None and not name.startswith("sweep.")
    }


MOST_STEPS = 25  # of a convergence series: each is a row in the store


def write_bundle(result: RunResult, folder: Path, log_file: Path | None = None) -> Bundle:
    """Write the record of a run into `folder`, which is new, and rename it there when complete.

    On an error, a full disk for example, nothing is left of it.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write_record(result, part, log_file)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Bundle.read(folder)


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


def data_identity(prepared: Prepared) -> dict[str, str]:
    """Tags that are known once the data is read."""
    warnings = "; ".join(prepared.source.report.get("warnings", []))[:LONGEST_TAG]
    doubtful = {tags.DATA_WARNINGS: warnings} if warnings else {}
    return doubtful | {
        tags.FINGERPRINT: prepared.fingerprint,
        tags.OBSERVATION_SPACE: prepared.observation_space,
        tags.TIMEFRAME: prepared.timeframe,
        tags.DATA_DIGEST: prepared.source.digest,
        tags.INSTRUMENT: prepared.source.name,
    }


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
        tags.CRITERIA_BY_STATES: result.selection.to_json(orient="records"),
        tags.REGIME_NOW: result.regime_now,
    }
    return {name: text[:LONGEST_TAG] for name, text in verdict.items() if text}
