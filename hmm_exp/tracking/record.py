"""The record of one run in MLflow: opened before the fit, finished or failed after it.

    with recorded(RunRecord(store, settings, log_file)) as record:
        record.start(tags)
        record.finish(bundle)       # an error in the block closes the run as FAILED or KILLED

Plain client calls, no fluent state, so that cells may run in any process or thread. A run is
RUNNING while the process in its owner tag lives; it is FINISHED only after all of it is stored.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from hmm_exp import owner
from hmm_exp.config import Config
from hmm_exp.detector.pooled import read_detector
from hmm_exp.errors import described, refusal
from hmm_exp.interrupts import interrupt_of
from hmm_exp.serving.mlflow_model import log_detector
from hmm_exp.store.store import Store, git_sha, patiently
from hmm_exp.tracking import tags
from hmm_exp.tracking.bundle import LOG_FILE, Bundle, cell_name, identity, params
from hmm_exp.tracking.cell_page import cell_page, cell_title, failed_page
from hmm_exp.tracking.dataset import log_dataset
from hmm_exp.tracking.ui import history_key, in_millinats

Result = TypeVar("Result")
LONGEST_NAME = 250  # of a run, the column of MLflow's table


class RunRecord:
    """The MLflow run of one config, from its start to its end.

    A cell of a sweep waits `tracking.patience` seconds for a store that does not answer, and leaves
    a run even when it fails before its start. A single run does neither.

    Attributes
    ----------
    run_id
        None before `start`.
    known
        Tags from before the fit.
    unrecorded
        After `fail`: why the store does not hold the failure, in words; empty when it does.
    is_finished
        Whether the store holds all of it.
    """

    def __init__(self, store: Store, settings: Config, log_file: Path) -> None:
        self.store, self.settings, self.log_file = store, settings, log_file
        self.in_sweep = settings.sweep.parent_run is not None
        self.run_id: str | None = None
        self.known: dict[str, str] = {}
        self.unrecorded = ""
        self.is_finished = False

    def start(self, known: dict[str, str] | None = None) -> str:
        """Open the run with these tags; gives its id."""
        known = {tags.LOG: str(self.log_file)} | (known or {}) if self.in_sweep else known
        self.known = identity(self.settings) | (known or {})

        def step() -> str:
            self.run_id = start_run(self.store, self.settings, known)
            return self.run_id

        return self._ask(step)

    def finish(self, bundle: Bundle) -> None:
        """Store all that a bundle holds, close the run as FINISHED and remove the bundle."""
        assert self.run_id is not None
        run_id, tries = self.run_id, count()

        def step() -> None:
            finish_run(self.store, run_id, bundle, self.known, next(tries) > 0)
            self.is_finished = True
            bundle.remove()

        self._ask(step)

    def fail(self, error: BaseException) -> None:
        """Close a run that is not finished as FAILED or KILLED, as far as the store lets it."""
        if self.is_finished:  # an interrupt waits for the end of a step
            return
        try:
            run_id = self.start() if self.run_id is None and self.in_sweep else self.run_id
            if run_id is not None:
                self._ask(lambda: fail_run(self.store, run_id, error, self.log_file))
        except Exception as second:
            also = "" if refusal(second) else f": {described(second)}"
            self.unrecorded = f"; not recorded{also}"

    def _ask(self, step: Callable[[], Result]) -> Result:
        return patiently(step, self.settings.tracking.patience) if self.in_sweep else step()


@contextmanager
def recorded(record: RunRecord) -> Iterator[RunRecord]:
    """Close the run of a record as FAILED or KILLED when the block raises."""
    try:
        yield record
    except BaseException as error:  # also SystemExit
        record.fail(error)
        raise


def start_run(store: Store, settings: Config, data_tags: dict[str, str] | None = None) -> str:
    """Open a run with its parameters, its dataset and identifying tags; gives its id.

    A run whose parameters the store does not take is removed again, where the store lets it.
    """
    known = identity(settings) | (data_tags or {}) | {tags.OWNER: owner.this_process()}
    known[tags.NOTE] = cell_title(store.experiment_id, known)
    if sha := git_sha():
        known[tags.GIT_SHA] = sha
    name = cell_name(settings)[:LONGEST_NAME]
    run = store.client.create_run(store.experiment_id, tags=known, run_name=name)
    with removed_on_error(store, run.info.run_id):
        store.client.log_batch(
            run.info.run_id, params=[Param(name, text) for name, text in params(settings).items()]
        )
        log_dataset(store.client, run.info.run_id, settings, known)
    return run.info.run_id


@contextmanager
def removed_on_error(store: Store, run_id: str) -> Iterator[None]:
    """Close and delete a run that cannot be opened whole, as far as the store lets it."""
    try:
        yield
    except Exception:
        with suppress(Exception):  # the first error is the one to report
            store.client.set_terminated(run_id, "KILLED")
            store.client.delete_run(run_id)
        raise


def finish_run(
    store: Store, run_id: str, bundle: Bundle, known: dict[str, str], again: bool = False
) -> None:
    """Store all that a bundle holds, then close the run as FINISHED.

    `known` are tags from before the fit. `again` after a try that was cut off: of its model, unlike
    of the rest, there would be two. Where a disk is full no file of the run is left, and no model
    that was only begun.
    """
    started = time.perf_counter()
    log_files(store.client, run_id, bundle.artifacts)
    try:
        if not (again and _has_model(store, run_id)):
            log_detector(store.experiment_id, run_id, read_detector(bundle.detector))
    except Exception as error:
        if refusal(error):
            with suppress(Exception):  # the first error is the one to report
                _has_model(store, run_id)
        raise
    metrics = dict(bundle.metrics)
    metrics["seconds_track"] = metrics.pop("seconds_write", 0.0) + time.perf_counter() - started
    about = known | bundle.tags
    page = cell_page(store.experiment_id, run_id, about, metrics)[: tags.LONGEST]
    history = history_key(about[tags.OBSERVATION_SPACE])
    metrics |= in_millinats(metrics)
    store.client.log_batch(
        run_id,
        metrics=[Metric(name, float(value), _now(), 0) for name, value in metrics.items()]
        + [Metric(history, value, _now(), step) for step, value in bundle.log_lik_history],
        tags=[RunTag(name, text) for name, text in (bundle.tags | {tags.NOTE: page}).items()],
    )
    store.client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))


def log_files(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Log the files of a folder as artifacts.

    Where a disk is full all of them are removed again: one of them may be cut off.
    """
    try:
        client.log_artifacts(run_id, str(folder))
    except Exception as error:
        if refusal(error):
            _remove_artifacts(client, run_id, [path.name for path in folder.iterdir()])
        raise


def fail_run(store: Store, run_id: str, error: BaseException, log_file: Path | None = None) -> str:
    """Close a failed run with its log and its reason; gives the reason in one line.

    It is closed first: on a full disk that may succeed where the rest does not.
    """
    reason = described(error)
    store.client.set_terminated(run_id, status_after(error))
    store.client.set_tag(run_id, tags.STATUS_REASON, reason[: tags.LONGEST])
    about = store.client.get_run(run_id).data.tags
    page = failed_page(store.experiment_id, about, status_after(error), reason)
    store.client.set_tag(run_id, tags.NOTE, page[: tags.LONGEST])
    if log_file is not None and log_file.is_file():
        with tempfile.TemporaryDirectory() as folder:
            text = log_file.read_text(errors="replace")
            (Path(folder) / LOG_FILE).write_text(text)
            log_files(store.client, run_id, Path(folder))
    return reason


def status_after(error: BaseException) -> str:
    """Status after an error: KILLED when the user stopped the run, else FAILED."""
    return "KILLED" if interrupt_of(error) else "FAILED"


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


def _remove_artifacts(client: MlflowClient, run_id: str, names: list[str]) -> None:
    with suppress(Exception):  # the first error is the one to report
        place = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
        for name in names:
            with suppress(Exception):  # it was not reached
                place.delete_artifacts(name)


def _now() -> int:
    return int(time.time() * 1000)
