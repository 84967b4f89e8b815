"""Make MLflow's database, where it can from a blank one that this machine keeps.

MLflow makes its tables by some seventy migrations one after the other, which takes a second. Every
store of a version of MLflow begins with the same ones, so the first is kept in the user's cache.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from hmm_exp.errors import TrackingError, described, refusal
from hmm_exp.files import written_beside
from hmm_exp.store.address import ARTIFACTS, sqlite_uri


def make_database(database: Path) -> None:
    """Create MLflow's tables in a temporary file and rename it when it is complete.

    MLflow creates them one by one and refuses a database in which some are missing. Raises
    TrackingError if the file cannot be written.
    """
    from sqlalchemy.exc import SQLAlchemyError

    # two names, because MLflow keeps a connection to each
    copy, part = (database.with_name(f"{database.name}{end}") for end in (".copy.part", ".part"))
    for name in (database, copy, part):  # SQLite would apply leftover journals to the new file
        remove_database(name)
    root = (database.parent / ARTIFACTS).as_uri()
    try:
        if _is_made_from_blank(copy, root):
            copy.replace(database)
        else:
            _open(part, root)
            _keep_blank(part)
            part.replace(database)
    except BaseException as error:
        remove_database(copy)
        remove_database(part)
        if isinstance(error, SQLAlchemyError):  # a full disk
            raise TrackingError(f"no database {database}: {described(error)}") from None
        raise


def remove_database(database: Path) -> None:
    """Remove a database and its journals."""
    for ending in ("", "-journal", "-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)


def _open(database: Path, artifact_root: str) -> None:
    """Let MLflow make the tables and the experiment that are missing."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(sqlite_uri(database), artifact_root)
    store.engine.dispose()  # closing the last connection writes everything to the file


def _is_made_from_blank(database: Path, artifact_root: str) -> bool:
    """Make a database from the blank one, if there is one that this MLflow takes."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if (content := _blank_content()) is None:
            return False
        database.write_bytes(content)
        _open(database, artifact_root)
    except (OSError, MlflowException, SQLAlchemyError) as error:
        remove_database(database)
        if refusal(error):
            raise
        return False
    return True


def _keep_blank(database: Path) -> None:
    """Keep a copy of a new database without its experiment, which names a folder."""
    with suppress(OSError, sqlite3.Error):  # a cache that cannot be written costs a second
        folder = _cache()
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(_name("*")):
            old.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as beside:
            blank = Path(shutil.copy(database, beside))
            with closing(sqlite3.connect(blank)) as connection, connection:
                connection.execute("DELETE FROM experiments")
            content = blank.read_bytes()
        with written_beside(folder / _name(_digest(content))) as part:
            part.write_bytes(content)


def _blank_content() -> bytes | None:
    """The blank database; None where there is none that is as it was written."""
    for path in _cache().glob(_name("*")):
        content = path.read_bytes()
        if path.name == _name(_digest(content)):
            return content
    return None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmm_exp"


def _name(digest: str) -> str:
    return f"mlflow-{mlflow.__version__}-{digest}.db"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
