"""Open the MLflow store, create it on first use, and give clients for it.

Default: `mlflow.db` (SQLite) and `mlruns/` in the current folder, so that a bare `mlflow ui` or
`mlflow.pyfunc.load_model` in the same folder finds everything.
"""

import atexit
import logging
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests.exceptions import RequestException

from hmm_exp.config import TrackingConfig
from hmm_exp.errors import TrackingError, described, one_line, refusal
from hmm_exp.store.address import ARTIFACTS, is_served, resolve_uri, sqlite_path
from hmm_exp.store.creation import make_database
from hmm_exp.store.health import NoAnswerError, check_answer, check_writable, reason
from hmm_exp.store.relocation import check_name, check_place

_PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"}  # of a busy or restarting store
_LONGEST_PAUSE = 10.0  # seconds between two tries
Result = TypeVar("Result")
log = logging.getLogger(__name__)
_lost = False  # patience has run out in this process and the store is still silent


@dataclass(frozen=True)
class Store:
    """An open tracking store and the experiment for the runs."""

    uri: str
    experiment_id: str
    experiment: str
    client: MlflowClient


def open_store(tracking: TrackingConfig) -> Store:
    """Open the store and its experiment; create both on first use.

    Many processes may start at once: creation happens under a file lock. Raises TrackingError if
    the store does not answer, is broken, or its folder cannot be written.
    """
    uri = resolve_uri(tracking.uri)
    check_store(tracking)
    _point_mlflow_at(uri)
    if is_served(uri):  # `patiently` retries instead
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one line a try
    try:
        client, experiment_id = _open_experiment(uri, tracking.experiment)
    except (MlflowException, sqlite3.Error, OSError) as error:
        raise TrackingError(f"tracking store {uri}: {described(error)}") from None
    return Store(uri, experiment_id, tracking.experiment, client)


def check_store(tracking: TrackingConfig) -> None:
    """Check the store once with a short timeout; MLflow would retry for minutes.

    Raises TrackingError if the store does not answer, is unusable, was moved, or its folder cannot
    be written.
    """
    uri = resolve_uri(tracking.uri)
    path = sqlite_path(uri)
    if path is not None:
        check_name(path)
        check_writable(path.parent)
    if path is None or path.exists():
        check_answer(uri)
    if path is not None and path.exists():
        check_place(path)


def store_of(tracking: TrackingConfig) -> Store:
    """Open the store once per process, for the cells of a sweep."""
    return _opened(resolve_uri(tracking.uri), tracking.experiment)


def artifact_root(store: Store) -> Path:
    """Artifact folder next to the database, or in the current folder for a server."""
    database = sqlite_path(store.uri)
    return (Path.cwd() if database is None else database.parent) / ARTIFACTS


def patiently(action: Callable[[], Result], patience: float) -> Result:
    """Call `action`, and retry while the store does not answer.

    After patience has run out once, each call of this process tries only once until the store
    answers: a sweep that loses its store waits once, not in every cell. Raises TrackingError if the
    store did not answer for `patience` seconds.
    """
    global _lost
    deadline, first = time.monotonic() + (0 if _lost else patience), 0.25
    pause = first
    while True:
        try:
            with _deferred_signals():
                result = action()
            _lost = False
            return result
        except (MlflowException, RequestException, NoAnswerError) as error:
            if isinstance(error, MlflowException) and error.error_code not in _PASSING:
                raise
            is_full = refusal(error) is not None  # waiting does not help
            if is_full or time.monotonic() + pause > deadline:
                _lost = _lost or not is_full
                raise TrackingError(_no_answer(error)) from None
            if pause == first:
                log.warning("the tracking store does not answer; trying for %g s", patience)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def analyse(store: Store) -> None:
    """Update SQLite's table statistics, which makes sorting many runs far faster.

    Where another process writes for long, the next sweep updates them.
    """
    database = sqlite_path(store.uri)
    if database is not None:
        with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=1.0)) as connection:
            connection.execute("PRAGMA analysis_limit=1000")  # rows of each index: a sample
            connection.execute("ANALYZE")


@cache
def git_sha() -> str | None:
    """Commit of the checkout that contains this package, None outside a checkout."""
    command = ["git", "rev-parse", "HEAD"]
    folder = Path(__file__).resolve().parents[2]
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def connect(
    uri: str | None = None, setting: str = "--tracking-uri", *, artifacts: bool = True
) -> MlflowClient:
    """Give a client of an existing store, for reading and promoting.

    `setting` is the option with which the user names another store. A moved store is refused if
    `artifacts` are needed. Raises TrackingError if the store does not exist, or `check_store`
    refuses it.
    """
    resolved = resolve_uri(uri, setting)
    path = sqlite_path(resolved)
    if path is not None and not path.is_file():
        raise TrackingError(
            f"no tracking store at {resolved}: run in the folder of the sweep, or use {setting}"
        )
    if artifacts or path is None:
        check_store(TrackingConfig(uri=resolved))
    else:
        check_answer(resolved)
    _point_mlflow_at(resolved)
    return _client(resolved)


def _point_mlflow_at(uri: str) -> None:
    """Make MLflow use a store, without its log of created tables and raised errors."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(uri)


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Defer the first SIGINT or SIGTERM to the end of the block; a second one acts at once."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    known = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        known = {}  # only the main thread handles signals
    waiting: list[Callable[[], Any]] = []

    def defer(number: int, frame: FrameType | None) -> None:
        waiting.append(lambda: known[signal.Signals(number)](number, frame))
        if len(waiting) > 1:
            waiting.pop()()

    for number in known:
        signal.signal(number, defer)
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
        if waiting:
            waiting.pop()()


def _no_answer(error: Exception) -> str:
    """Name the silent store and the reason, of nested errors that of the system."""
    if isinstance(error, NoAnswerError):
        return str(error)
    why = refusal(error) or reason(error)
    return f"the tracking store {mlflow.get_tracking_uri()} does not answer: {why}"


@cache
def _opened(uri: str, experiment: str) -> Store:
    return open_store(TrackingConfig(uri=uri, experiment=experiment))


def _open_experiment(uri: str, name: str) -> tuple[MlflowClient, str]:
    """Client and experiment; under a lock, since creating a client creates tables."""
    database = sqlite_path(uri)
    if database is None:
        client = _client(uri)
        return client, _get_or_create(client, name, artifact_location=None)
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if not database.exists():
            make_database(database)
        client = _client(uri)
        location = (database.parent / ARTIFACTS).as_uri()
        experiment_id = _get_or_create(client, name, artifact_location=location)
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # readers do not block writers
        connection.close()
    return client, experiment_id


def _client(uri: str) -> MlflowClient:
    """Client of a store. Raises TrackingError if MLflow cannot use the database."""
    if is_served(uri):
        return MlflowClient(uri)
    from sqlalchemy.exc import SQLAlchemyError

    if database := sqlite_path(uri):
        _settle_at_exit(database)
    try:
        return MlflowClient(uri)
    except (MlflowException, SQLAlchemyError) as error:
        why = refusal(error) or f"{one_line(error)}; if it is broken, move it away"
        place = sqlite_path(uri) or uri
        raise TrackingError(f"tracking database {place} cannot be used: {why}") from None


@cache
def _settle_at_exit(database: Path) -> None:
    """When this process ends, let the database's file alone hold all, for who copies only that.

    SQLite keeps the latest changes in a file beside it as long as a connection is open.
    """

    def settle() -> None:
        if database.is_file():
            with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=0.1)) as link:
                link.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    atexit.register(settle)


def _get_or_create(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=artifact_location)
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise  # no other process has just created it
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {name!r} is deleted: restore it or set tracking.experiment"
        )
    return experiment.experiment_id
