"""Check, before MLflow uses a store, that it answers and is an MLflow store.

MLflow creates its tables in any database, retries a locked, broken or missing store for minutes,
and upgrades an old schema unasked. These checks refuse each case in one line and write nothing.
"""

import os
import re
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmm_exp.errors import TrackingError, one_line
from hmm_exp.store.address import is_served, sqlite_path
from hmm_exp.store.folders import try_folder

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

ANSWER_WITHIN = 10.0  # seconds
_PASSING = {500, 502, 503, 504}  # of a restarting server, or of a proxy without server
_LONGEST = 200  # characters of a reason
_SYSTEM_ERROR = re.compile(r"\[Errno -?\d+\] ([\w ]+)")
_KNOWN = "alembic_version"  # table with the revision of MLflow's schema
_OTHER = "name another database with MLFLOW_TRACKING_URI, tracking.uri or --tracking-uri"


class NoAnswerError(TrackingError):
    """A tracking server or database does not answer at the moment."""


def check_answer(uri: str) -> None:
    """Check a tracking server, a database server or an existing SQLite file.

    Raises TrackingError if it does not answer, refuses the login, is locked or broken, or is not a
    store of the installed MLflow.
    """
    if is_served(uri):
        _check_server(uri)
    else:
        _check_database(uri)


def check_file(uri: str) -> bool:
    """Check what can be checked of a SQLite file without MLflow; False for another store.

    Raises TrackingError if its folder or the file cannot be written.
    """
    path = sqlite_path(uri)
    if path is None:
        return False
    check_writable(path.parent)
    if path.exists():
        _check_file(path)
    return True


def check_writable(folder: Path) -> None:
    """Raise TrackingError if a folder cannot be made or written."""
    try:
        try_folder(folder)
    except OSError as error:
        raise TrackingError(f"cannot write to {folder}: {error.strerror}") from None


def reason(error: object) -> str:
    """Why a store does not answer: the system's reason among nested errors, if any."""
    system = _SYSTEM_ERROR.search(str(error))
    return system[1] if system else one_line(error, _LONGEST)


def _check_database(uri: str) -> None:
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    path = sqlite_path(uri)
    if path is not None:
        _check_file(path)
    name = f"tracking database {path or uri}"
    try:
        revision, tables = _contents(uri, path)
    except (ArgumentError, ValueError):  # a port that is no number
        raise TrackingError(f"tracking.uri={uri} is not an address MLflow can use") from None
    except ImportError as error:
        raise TrackingError(f"tracking.uri={uri} needs the package {error.name}") from None
    except SQLAlchemyError as error:
        raise _refusal(name, error, is_file=path is not None) from None
    if revision is not None:
        _check_revision(name, revision, uri)
    elif tables:
        some = ", ".join(sorted(tables)[:3])
        raise TrackingError(f"{name} belongs to another program (tables {some}): {_OTHER}")
    elif path is not None:
        raise TrackingError(f"{name} is empty: remove it, or {_OTHER}")


def _check_server(uri: str) -> None:
    """Request an experiment from a tracking server, which needs the login if there is one."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            params={"max_results": 1},
            max_retries=0,
            timeout=ANSWER_WITHIN,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise NoAnswerError(f"tracking server {uri} does not answer: {reason(error)}") from None
    status, text = answer.status_code, one_line(answer.text, _LONGEST)
    if status == 200 and answer.headers.get("Content-Type", "").startswith("application/json"):
        return
    if status == 401:
        raise TrackingError(
            f"tracking server {uri} refuses the login: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if status in _PASSING:
        raise NoAnswerError(f"tracking server {uri} does not answer: status {status}")
    if status == 403:
        raise TrackingError(f"tracking server {uri} refuses: {text}")
    raise TrackingError(f"{uri} is not the address of an MLflow server: status {status}, {text}")


def _check_file(path: Path) -> None:
    """Refuse an empty file and one that cannot be written: SQLite writes even to read."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise TrackingError(f"tracking database {path}: {error.strerror}") from None
    if not path.is_file():
        raise TrackingError(f"tracking database {path} is not a file: {_OTHER}")
    if not size:
        raise TrackingError(f"tracking database {path} is an empty file: remove it, or {_OTHER}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise TrackingError(f"cannot write to tracking database {path}: Permission denied")
    check_writable(path.parent)  # for the journal


def _contents(uri: str, path: Path | None) -> tuple[str | None, list[str]]:
    """Revision of MLflow's schema, None if there is none, and the names of all tables."""
    import sqlalchemy

    options: dict[str, Any] = {} if path is None else {"connect_args": {"timeout": ANSWER_WITHIN}}
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, **options)
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(connection).get_table_names()
        if _KNOWN not in tables:
            return None, tables
        query = sqlalchemy.text(f"SELECT version_num FROM {_KNOWN}")
        return connection.execute(query).scalar(), tables


def _check_revision(name: str, found: str, uri: str) -> None:
    """Refuse the schema of another MLflow version, with the remedy."""
    import mlflow
    from alembic.util import CommandError

    scripts = _revisions()
    if found == scripts.get_current_head():
        return
    try:
        scripts.get_revision(found)
    except CommandError:
        raise TrackingError(
            f"{name} was made by another MLflow than {mlflow.__version__} (schema {found}): "
            "install a newer one, or " + _OTHER
        ) from None
    raise TrackingError(
        f"{name} was made by an older MLflow than {mlflow.__version__} (schema {found}): copy it, "
        f"then run: mlflow db upgrade {shlex.quote(uri)}"
    )


@cache
def _revisions() -> "ScriptDirectory":
    """All revisions of MLflow's schema: reading them imports a file for each."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    return ScriptDirectory.from_config(_get_alembic_config(""))


def _refusal(name: str, error: Exception, is_file: bool) -> TrackingError:
    """The database's error without the statement that SQLAlchemy adds."""
    text = one_line(str(getattr(error, "orig", None) or error).splitlines()[0])
    if "is locked" in text:
        return NoAnswerError(f"{name} is locked by another program for over {ANSWER_WITHIN:g} s")
    if is_file:
        return TrackingError(f"{name} cannot be used: {text}; if it is broken, move it away")
    return NoAnswerError(f"{name} does not answer: {text}")
