"""The record of one run in MLflow: opened before the fit, finished or failed after it.

Plain client calls, no fluent state, so that cells may run in any process or thread. A run is
RUNNING while the process in its owner tag lives; it is FINISHED only after all of it is stored.
"""

import time
from pathlib import Path

from mlflow.entities import Metric, Param, RunStatus, RunTag

from hmm_exp import errors
from hmm_exp.config import Config
from hmm_exp.detector import Detector
from hmm_exp.tracking import owner, tags
from hmm_exp.tracking.bundle import LOG_FILE, LONGEST_TAG, Bundle, cell_name, identity, params
from hmm_exp.tracking.serving import log_detector
from hmm_exp.tracking.store import Store, git_sha
from hmm_exp.tracking.view import HISTORY

LONGEST_NAME = 250  # of a run, the column of MLflow's table


def start_run(store: Store, settings: Config, data_tags: dict[str, str] | None = None) -> str:
    """Open a run with its parameters and identifying tags; gives its id."""
    known = identity(settings) | (data_tags or {}) | {tags.OWNER: owner.this_process()}
    if sha := git_sha():
        known[tags.GIT_SHA] = sha
    name = cell_name(settings)[:LONGEST_NAME]
    run = store.client.create_run(store.experiment_id, tags=known, run_name=name)
    store.client.log_batch(
        run.info.run_id, params=[Param(name, text) for name, text in params(settings).items()]
    )
    return run.info.run_id


def finish_run(store: Store, run_id: str, bundle: Bundle, again: bool = False) -> None:
    """Store all that a bundle holds, then close the run as FINISHED.

    `again` after a try that was cut off: of its model, unlike of the rest, there would be two.
    """
    started = time.perf_counter()
    store.client.log_artifacts(run_id, str(bundle.artifacts))
    if not (again and _has_model(store, run_id)):
        log_detector(store.experiment_id, run_id, Detector.load(bundle.detector))
    metrics = dict(bundle.metrics)
    metrics["seconds_track"] = metrics.pop("seconds_write", 0.0) + time.perf_counter() - started
    store.client.log_batch(
        run_id,
        metrics=[Metric(name, float(value), _now(), 0) for name, value in metrics.items()]
        + [Metric(HISTORY, value, _now(), step) for step, value in bundle.log_lik_history],
        tags=[RunTag(name, text) for name, text in bundle.tags.items()],
    )
    store.client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))


def fail_run(store: Store, run_id: str, error: BaseException, log_file: Path | None = None) -> str:
    """Close a run that did not finish, with its log and the reason, which it gives in one line."""
    reason = one_line(error)
    if log_file is not None and log_file.is_file():
        store.client.log_text(run_id, log_file.read_text(errors="replace"), LOG_FILE)
    store.client.set_tag(run_id, tags.STATUS_REASON, reason[:LONGEST_TAG])
    store.client.set_terminated(run_id, status_after(error))
    return reason


def status_after(error: BaseException) -> str:
    """Status of a run that an error ended: KILLED when the user stopped it, else FAILED."""
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def one_line(error: BaseException) -> str:
    """Give an error as one line; one that is not ours keeps its type, which stands for no text."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text, name = errors.one_line(error), type(error).__name__
    if not text:
        return name
    return text if isinstance(error, errors.HmmExpError) else f"{name}: {text}"


def _has_model(store: Store, run_id: str) -> bool:
    """Whether the run names its model, which comes last; deletes one that was only begun."""
    outputs = store.client.get_run(run_id).outputs
    named = {output.model_id for output in outputs.model_outputs} if outputs else set()
    for model in store.client.search_logged_models(
        [store.experiment_id], filter_string=f"source_run_id = '{run_id}'"
    ):
        if model.model_id not in named:
            store.client.delete_logged_model(model.model_id)
    return bool(named)


def _now() -> int:
    return int(time.time() * 1000)
