"""The MLflow store: which one, made once, and a client for it.

Default: `mlflow.db` (SQLite) and `mlruns/` in the folder where the program runs, so that a bare
`mlflow ui` or `mlflow.pyfunc.load_model` in the same folder finds everything.
"""

import logging
import os
import re
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.tracking import MlflowClient
from requests.exceptions import RequestException

from hmm_exp.config import TrackingConfig
from hmm_exp.errors import TrackingError, described, refusal
from hmm_exp.tracking.interrupts import held_back

DATABASE = "mlflow.db"
ARTIFACTS = "mlruns"
_SQLITE = "sqlite:///"
_ANSWER_WITHIN = 10  # seconds
_PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"}  # what a busy or restarting store says
_LONGEST_PAUSE = 10.0  # seconds between two tries
_LONGEST = 200  # characters of a reason
_SYSTEM_ERROR = re.compile(r"\[Errno -?\d+\] ([\w ]+)")
Result = TypeVar("Result")
log = logging.getLogger(__name__)
_lost = False  # patience ran out in this process, and the store has not answered since


class NoAnswerError(TrackingError):
    """A tracking server cannot be reached at this moment."""


@dataclass(frozen=True)
class Store:
    """An open tracking store with the experiment that holds the runs."""

    uri: str
    experiment_id: str
    experiment: str
    client: MlflowClient


def resolve_uri(uri: str | None = None) -> str:
    """Absolute tracking URI: the given one, else MLFLOW_TRACKING_URI, else SQLite in this folder.

    Absolute, because workers may run elsewhere and share nothing but the resolved text.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{DATABASE}"
    if "://" not in chosen:
        raise TrackingError(
            f"tracking.uri={chosen}: write sqlite:///{chosen}/{DATABASE} or an http(s) address "
            "(MLflow 3 keeps no runs in plain folders)"
        )
    if chosen.startswith(_SQLITE):
        return _SQLITE + str(Path(chosen.removeprefix(_SQLITE)).absolute())
    return chosen


def open_store(tracking: TrackingConfig) -> Store:
    """Open the store and its experiment, making both on first use.

    Safe when many processes start at once: the making happens under a file lock.

    Raises
    ------
    TrackingError
        When the store does not answer, is broken, or its folder cannot be written.
    """
    uri = resolve_uri(tracking.uri)
    check_store(tracking)
    _silence_mlflow()
    mlflow.set_tracking_uri(uri)
    if uri.startswith(("http://", "https://")):  # `patiently` says how long to try
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two for each run
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one line a try
    try:
        client, experiment_id = _made(uri, tracking.experiment)
    except (MlflowException, sqlite3.Error, OSError) as error:
        raise TrackingError(f"tracking store {uri}: {described(error)}") from None
    return Store(uri, experiment_id, tracking.experiment, client)


def check_store(tracking: TrackingConfig) -> None:
    """Ask the store once, with little patience; MLflow itself would retry for minutes.

    Raises
    ------
    TrackingError
        When the store does not answer or its folder cannot be written.
    """
    uri = resolve_uri(tracking.uri)
    if uri.startswith(_SQLITE):
        _check_writable(Path(uri.removeprefix(_SQLITE)).parent)
    elif uri.startswith(("http://", "https://")):
        _check_server(uri)
    else:
        _check_database(uri)


def store_of(tracking: TrackingConfig) -> Store:
    """Open the store once per process: for the cells of a sweep, whose main process made it."""
    return _opened(resolve_uri(tracking.uri), tracking.experiment)


def artifact_root(store: Store) -> Path:
    """Folder beside the database, or in this folder when a server keeps the runs."""
    if store.uri.startswith(_SQLITE):
        return Path(store.uri.removeprefix(_SQLITE)).parent / ARTIFACTS
    return Path.cwd() / ARTIFACTS


def patiently(action: Callable[[], Result], patience: float) -> Result:
    """Do something with the store, again and again while it does not answer.

    Once patience has run out, every call of this process tries once, until the store answers: a
    sweep that lost its store for good waits for it once, not in each of its cells.

    Raises
    ------
    TrackingError
        When it has not answered for `patience` seconds.
    """
    global _lost
    deadline, first = time.monotonic() + (0 if _lost else patience), 0.25
    pause = first
    while True:
        try:
            with held_back():
                result = action()
            _lost = False
            return result
        except (MlflowException, RequestException, NoAnswerError) as error:
            if isinstance(error, MlflowException) and error.error_code not in _PASSING:
                raise
            is_full = refusal(error) is not None  # waiting makes no room
            if is_full or time.monotonic() + pause > deadline:
                _lost = _lost or not is_full
                raise TrackingError(_no_answer(error)) from None
            if pause == first:
                log.warning("the tracking store does not answer; trying for %g s", patience)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def analyse(store: Store) -> None:
    """Let SQLite look at how its tables are filled: sorting many runs is far faster after that."""
    if store.uri.startswith(_SQLITE):
        with closing(sqlite3.connect(store.uri.removeprefix(_SQLITE))) as connection:
            connection.execute("PRAGMA analysis_limit=1000")  # rows of each index: a sample
            connection.execute("ANALYZE")


@cache
def git_sha() -> str | None:
    """Commit of the checkout that the package runs from, if it is one; asked for once."""
    command = ["git", "rev-parse", "HEAD"]
    folder = Path(__file__).resolve().parents[2]
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def connect(uri: str | None = None, setting: str = "--tracking-uri") -> MlflowClient:
    """Client of an existing store, for what only reads or promotes; it makes none.

    `setting` is how the user says another store. Raises TrackingError.
    """
    resolved = resolve_uri(uri)
    if resolved.startswith(_SQLITE) and not Path(resolved.removeprefix(_SQLITE)).is_file():
        raise TrackingError(
            f"no tracking store at {resolved}: run where the sweep ran, or say {setting}"
        )
    check_store(TrackingConfig(uri=resolved))
    _silence_mlflow()
    mlflow.set_tracking_uri(resolved)
    return _client(resolved)


def _silence_mlflow() -> None:
    """Keep MLflow from telling of every table it makes, and of errors that it raises too."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _no_answer(error: Exception) -> str:
    """Which store does not answer, and why: of nested errors what the system said, if it did."""
    if isinstance(error, NoAnswerError):
        return str(error)
    place = re.sub(r"//[^/@]*@", "//", mlflow.get_tracking_uri())  # without a password
    text = " ".join(str(error).split())
    system = _SYSTEM_ERROR.search(text)
    reason = refusal(error) or (system[1] if system else text[:_LONGEST])
    return f"the tracking store {place} does not answer: {reason}"


@cache
def _opened(uri: str, experiment: str) -> Store:
    return open_store(TrackingConfig(uri=uri, experiment=experiment))


def _made(uri: str, name: str) -> tuple[MlflowClient, str]:
    """Client and experiment; a database is made under a lock, already the client makes tables."""
    if not uri.startswith(_SQLITE):
        client = _client(uri)
        return client, _get_or_create(client, name, artifact_location=None)
    database = Path(uri.removeprefix(_SQLITE))
    with FileLock(f"{database}.lock"):
        if not database.exists():
            _make_tables(database)
        client = _client(uri)
        location = (database.parent / ARTIFACTS).as_uri()
        experiment_id = _get_or_create(client, name, artifact_location=location)
        with sqlite3.connect(database) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # writers do not wait for readers
        connection.close()
    return client, experiment_id


def _make_tables(database: Path) -> None:
    """Let MLflow make its tables in a file beside, renamed when it holds all of them.

    MLflow makes them one by one, and starts no more on a database in which some are missing.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.exc import SQLAlchemyError

    part = database.with_name(f"{database.name}.part")
    for name in (database, part):  # SQLite would play what is left of a lost file into the new one
        _remove_database(name)
    try:
        store = SqlAlchemyStore(f"{_SQLITE}{part}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
        store.engine.dispose()  # with its last connection SQLite has written all into the file
        part.replace(database)
    except BaseException as error:
        _remove_database(part)
        if isinstance(error, SQLAlchemyError):  # a full disk
            raise TrackingError(f"no database {database}: {described(error)}") from None
        raise


def _remove_database(database: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)


def _client(uri: str) -> MlflowClient:
    """Client of a store. Raises TrackingError for a database with which MLflow cannot work."""
    if uri.startswith(("http://", "https://")):
        return MlflowClient(uri)
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return MlflowClient(uri)
    except SQLAlchemyError as error:
        reason = refusal(error) or f"{str(error).splitlines()[0]}; a broken one can be moved away"
        raise TrackingError(f"tracking database {uri} cannot be used: {reason}") from None


def _get_or_create(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=artifact_location)
        except MlflowException:  # another process was faster on a shared server
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {name!r} is deleted: restore it or set tracking.experiment"
        )
    return experiment.experiment_id


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrackingError(f"cannot write to {folder}: {error.strerror}") from None


def _check_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_WITHIN):
            pass
    except urllib.error.HTTPError:
        pass  # something answers; MLflow will say more, a login for example
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswerError(f"tracking server {uri} does not answer: {reason}") from None


def _check_database(uri: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        with create_engine(uri).connect():
            pass
    except ArgumentError:
        raise TrackingError(f"tracking.uri={uri} is not an address MLflow can use") from None
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise TrackingError(f"tracking database {uri} does not answer: {reason}") from None
    except ImportError as error:
        raise TrackingError(f"tracking.uri={uri} needs the package {error.name}") from None
