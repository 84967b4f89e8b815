"""The record of one run in MLflow: opened before the fit, finished or failed after it.

Plain client calls, no fluent state, so that cells may run in any process or thread.
"""

import subprocess
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from mlflow.entities import Metric, Param, RunStatus, RunTag

from hmm_exp.config import Config, flat
from hmm_exp.errors import HmmExpError
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.run import RunResult
from hmm_exp.tracking import tags
from hmm_exp.tracking.serving import log_detector
from hmm_exp.tracking.store import Store

_LONGEST_TAG = 5_000


def cell_name(settings: Config) -> str:
    """Name of a cell in words: observation, covariance, number of states."""
    grid = settings.state_grid
    states = f"K={grid[0]}" if len(grid) == 1 else f"K={grid[0]}..{grid[-1]}"
    space = f"{settings.features.name}@{settings.timeframe.name}"
    return f"{space} {settings.covariance.type} {states}"


def start_run(store: Store, settings: Config, prepared: Prepared | None = None) -> str:
    """Open a run with its parameters and identifying tags; gives its id."""
    run = store.client.create_run(
        store.experiment_id,
        tags=_identity(settings) | (_data_identity(prepared) if prepared else {}),
        run_name=cell_name(settings),
    )
    params = [
        Param(name, str(value)[:_LONGEST_TAG])
        for name, value in flat(settings).items()
        if value is not None and not name.startswith("sweep.")
    ]
    store.client.log_batch(run.info.run_id, params=params)
    return run.info.run_id


def finish_run(store: Store, run_id: str, result: RunResult) -> None:
    """Log everything a run holds and close it as FINISHED."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_artifacts(result, Path(folder))
        store.client.log_artifacts(run_id, folder)
    log_detector(run_id, result.detector)
    metrics = result.metrics | {"seconds_track": time.perf_counter() - started}
    store.client.log_batch(
        run_id,
        metrics=[Metric(name, float(value), _now(), 0) for name, value in metrics.items()],
        tags=[RunTag(name, text[:_LONGEST_TAG]) for name, text in _verdict(result).items()],
    )
    store.client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))


def fail_run(store: Store, run_id: str, error: BaseException) -> str:
    """Close a run as FAILED with the reason; gives the reason in one line."""
    reason = one_line(error)
    store.client.set_tag(run_id, tags.STATUS_REASON, reason[:_LONGEST_TAG])
    status = RunStatus.KILLED if isinstance(error, KeyboardInterrupt) else RunStatus.FAILED
    store.client.set_terminated(run_id, RunStatus.to_string(status))
    return reason


def one_line(error: BaseException) -> str:
    """Give an error as one line; one that is not ours keeps its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, HmmExpError) else f"{type(error).__name__}: {text}"


def _identity(settings: Config) -> dict[str, str]:
    identity = {
        tags.KIND: "cell",
        tags.CELL: cell_name(settings),
        tags.FEATURE_SET: settings.features.name,
        tags.DATA_KIND: settings.data.kind,
        tags.SWEEP_ID: settings.sweep_id,
        tags.PARENT_RUN: settings.sweep.parent_run,
        tags.GIT_SHA: git_sha(),
    }
    return {name: text for name, text in identity.items() if text}


def _data_identity(prepared: Prepared) -> dict[str, str]:
    return {
        tags.FINGERPRINT: prepared.fingerprint,
        tags.OBSERVATION_SPACE: prepared.observation_space,
        tags.TIMEFRAME: prepared.timeframe,
        tags.DATA_DIGEST: prepared.source.digest,
        tags.INSTRUMENT: prepared.source.name,
    }


def _verdict(result: RunResult) -> dict[str, str]:
    verdict = {
        tags.FAULTS: "; ".join(result.faults),
        tags.STATUS_REASON: "; ".join([*result.faults, *result.warnings]),
        tags.CRITERIA_BY_STATES: result.selection.to_json(orient="records"),
        tags.REGIME_NOW: result.regime_now,
    }
    return {name: text for name, text in verdict.items() if text}


@lru_cache(maxsize=1)
def git_sha() -> str | None:
    """Commit of the checkout that the package runs from, if it is one."""
    command = ["git", "rev-parse", "HEAD"]
    folder = Path(__file__).resolve().parents[2]
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _now() -> int:
    return int(time.time() * 1000)
