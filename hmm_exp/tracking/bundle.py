"""The record of a run as a folder on disk, complete before it goes into the store.

    <folder>/record.json   name, params, tags and metrics
    <folder>/detector.json what becomes the model
    <folder>/artifacts/    the files of the run

A bundle is written under another name and renamed, so that an existing one is whole. Any process
can record it, now or when the store answers again. Nothing here needs MLflow.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hmm_exp.config import Config, flat
from hmm_exp.config.used import used
from hmm_exp.tracking import tags

if TYPE_CHECKING:
    from hmm_exp.experiment.prepare import Prepared

RECORD, DETECTOR, ARTIFACTS = "record.json", "detector.json", "artifacts"
LOG_FILE = "run.log"
PENDING, PART = "pending", ".part"  # folder of bundles in that of a sweep; ending while written
# Of a pool: the table of its comparison; symbols that are not in it, and why.
POOL_FILE, LEFT_OUT_FILE = "pool.csv", "left_out.csv"


@dataclass(frozen=True)
class Bundle:
    """A finished run on disk."""

    folder: Path
    metrics: dict[str, float]
    tags: dict[str, str]  # what is known after the fit: faults, warnings, the regime now
    # EM iterations of the best start, and the log-likelihood of train after each, nats.
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
    """Name of a cell: observation space, covariance, number of states, other swept settings."""
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
        tags.SYMBOL: settings.sweep.symbol,
    }
    return {name: str(text) for name, text in known.items() if text}


def params(settings: Config) -> dict[str, str]:
    """Every setting that the run uses, as MLflow params; the artifact `config.json` has all."""
    return {
        name: str(value)[: tags.LONGEST]
        for name, value in used(settings).items()
        if not name.startswith("sweep.")
    }


def data_identity(prepared: "Prepared") -> dict[str, str]:
    """Tags that are known once the data is read."""
    warnings = "; ".join(prepared.source.report.get("warnings", []))[: tags.LONGEST]
    doubts = {tags.DATA_WARNINGS: warnings, tags.BIC_DOUBT: prepared.bic_doubt}
    return {name: text for name, text in doubts.items() if text} | {
        tags.DATA_READ: "\n".join(prepared.what_was_read)[: tags.LONGEST],
        tags.FINGERPRINT: prepared.fingerprint,
        tags.OBSERVATION_SPACE: prepared.observation_space,
        tags.TIMEFRAME: prepared.timeframe,
        tags.DATA_DIGEST: prepared.source.digest,
        tags.INSTRUMENT: prepared.source.name,
    }
