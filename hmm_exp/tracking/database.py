"""A database of runs, looked at before MLflow opens it.

MLflow makes its tables in whatever database it is given, tries a locked or broken one for minutes,
and brings an old schema up to date unasked. Here each of them is refused, and nothing is written.
"""

import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

from hmm_exp.errors import TrackingError, one_line
from hmm_exp.tracking.address import sqlite_path

ANSWER_WITHIN = 10.0  # seconds
_KNOWN = "alembic_version"  # the table in which MLflow keeps the revision of its schema
_OTHER = "name another with MLFLOW_TRACKING_URI, tracking.uri or --tracking-uri"


class NoAnswerError(TrackingError):
    """A tracking server or database does not answer at this moment."""


def check_database(uri: str) -> None:
    """Look at a SQLite file or a database server without writing anything.

    Raises
    ------
    TrackingError
        When it does not answer, is locked or broken, or holds something else than runs of the
        installed MLflow.
    """
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
        raise TrackingError(f"{name} holds no MLflow runs but tables of its own ({some}): {_OTHER}")
    elif path is not None:
        raise TrackingError(f"{name} is empty: remove it, or {_OTHER}")


def check_writable(folder: Path) -> None:
    """Make a folder where there is none, and see that files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrackingError(f"cannot write to {folder}: {error.strerror}") from None


def _check_file(path: Path) -> None:
    """Refuse a file that holds nothing, and one of another user: SQLite writes even to read."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise TrackingError(f"tracking database {path}: {error.strerror}") from None
    if not size:
        raise TrackingError(f"tracking database {path} is an empty file: remove it, or {_OTHER}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise TrackingError(f"cannot write to tracking database {path}: Permission denied")
    check_writable(path.parent)  # its journal lies there


def _contents(uri: str, path: Path | None) -> tuple[str | None, list[str]]:
    """Revision of MLflow's schema, None without one, and the names of all tables."""
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
    """Refuse the schema of another MLflow, an older one with the way to bring it up to date."""
    import mlflow
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
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


def _refusal(name: str, error: Exception, is_file: bool) -> TrackingError:
    """What the database answers, without the statement that SQLAlchemy adds."""
    text = one_line(str(getattr(error, "orig", None) or error).splitlines()[0])
    if "is locked" in text:
        return NoAnswerError(f"{name} is locked by another program, for {ANSWER_WITHIN:g} s so far")
    if is_file:
        return TrackingError(f"{name} cannot be used: {text}; a broken one can be moved away")
    return NoAnswerError(f"{name} does not answer: {text}")
