"""Resolve and check the address of the tracking store, absolute for all workers.

A SQLite store is a file. `sqlite_path` and `sqlite_uri` convert between its address and its path,
since MLflow percent-encodes its addresses and users do not.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hmm_exp.errors import TrackingError, redacted

DATABASE = "mlflow.db"
ARTIFACTS = "mlruns"
VARIABLE = "MLFLOW_TRACKING_URI"
_SQLITE = "sqlite:///"
_IS_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///(.+)", re.DOTALL)
_SERVER = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}(/.*)?|localhost(/.*)?")
_DATABASE_SERVER = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?://.+")
_EXAMPLE = "http://localhost:5000 or sqlite:///mlflow.db"


def resolve_uri(uri: str | None = None, setting: str = "tracking.uri") -> str:
    """Give the absolute tracking URI: `uri`, MLFLOW_TRACKING_URI, or SQLite in this folder.

    A login removed by `redacted` is restored from MLFLOW_TRACKING_URI.

    Errors name `setting`, the option of the address. Raises TrackingError if MLflow cannot use such
    an address; the message says what to write instead.
    """
    in_environment = os.environ.get(VARIABLE) or None
    if uri is None:
        uri, setting = in_environment, VARIABLE
    if uri is None:
        return sqlite_uri(Path.cwd() / DATABASE)
    if in_environment is not None and redacted(in_environment.strip()) == uri:
        uri = in_environment
    uri = re.sub(r"\A[A-Za-z][\w+.-]*(?=:)", lambda scheme: scheme[0].lower(), uri.strip())
    if why := _why_invalid(uri):
        shown = _without_login(uri)
        named = f"{setting} " if setting.startswith("-") else f"{setting}="
        raise TrackingError(f"{named}{shown or repr('')}: {_why_invalid(shown) or why}")
    path = sqlite_path(uri)
    return uri if path is None else sqlite_uri(path)


def sqlite_path(uri: str) -> Path | None:
    """Absolute path of a SQLite address, percent-encoded or not; None for other addresses.

    The address is decoded, as by SQLAlchemy, unless only the folder of the undecoded path exists.
    """
    found = _IS_SQLITE.fullmatch(uri)
    if found is None:
        return None
    decoded, written = Path(unquote(found[1])), Path(found[1])
    as_written = _is_folder(written.parent) and not _is_folder(decoded.parent)
    return (written if as_written else decoded).absolute()


def _is_folder(path: Path) -> bool:
    """Whether a folder exists and is accessible."""
    try:
        return path.is_dir()
    except OSError:
        return False


def sqlite_uri(path: Path) -> str:
    """Address of a SQLite file for SQLAlchemy and MLflow.

    MLflow up to 3.17 makes the folder of `x` in `sqlite:///x` without decoding `x`. It does not for
    an address that names the driver.
    """
    text = str(path.absolute())
    if not {"%", "?"} & set(text):
        return f"{_SQLITE}{text}"
    from sqlalchemy import URL

    return URL.create("sqlite+pysqlite", database=text).render_as_string()


def is_served(uri: str) -> bool:
    """Whether an address is that of a tracking server."""
    return uri.startswith(("http://", "https://"))


def _without_login(uri: str) -> str:
    """A possibly invalid address without the login; `redacted` needs a valid one."""
    start = re.match(r"(?:[a-z][\w+.-]*:/+)?", uri)
    begin = start[0] if start else ""
    return begin + re.sub(r"\A[^/@]*:[^@]*@", "", uri.removeprefix(begin))


def _why_invalid(uri: str) -> str | None:
    """Why an address is invalid and what to write instead; None if it is valid."""
    if not uri:
        return f"is empty; leave it out for {DATABASE} in this folder, or write {_EXAMPLE}"
    if re.fullmatch(r"(databricks|uc)\b.*", uri):
        return f"Databricks is not supported, its registry has no stages; write {_EXAMPLE}"
    scheme = uri.partition(":")[0]
    if scheme in ("http", "https"):
        return _of_server(uri, scheme)
    if scheme in ("sqlite", "sqlite+pysqlite"):
        return _of_sqlite(uri)
    if scheme == "postgres":
        return "the scheme is postgresql: write postgresql+psycopg2://user@host/database"
    if _DATABASE_SERVER.fullmatch(uri):
        return None
    if _SERVER.fullmatch(uri):
        return f"write http://{uri}"
    if re.match(r"[a-z][\w+.-]+:", uri) and scheme != "file":
        return f"is not an address of an MLflow store; write {_EXAMPLE}"
    return _of_folder(re.sub(r"\Afile:(//(?=/))?", "", uri))


def _of_server(uri: str, scheme: str) -> str | None:
    host = uri.removeprefix(f"{scheme}:").lstrip("/")
    if not uri.startswith(f"{scheme}://") or not host:
        return f"write {scheme}://{host or 'localhost:5000'}"
    try:
        valid = bool(urlsplit(uri).hostname) and urlsplit(uri).port != 0
    except ValueError:  # invalid port
        valid = False
    if not valid and "@" in host:
        return "its login has a character to encode, such as / as %2F or @ as %40"
    return None if valid else f"names no host and port; write {scheme}://localhost:5000"


def _of_sqlite(uri: str) -> str | None:
    path = sqlite_path(uri)
    if path is None:
        rest = uri.partition(":")[2]
        name = rest.lstrip("/") if rest.startswith("//") else rest
        if not name:
            return f"names no file; write {_SQLITE}{DATABASE}"
        return f"write {_SQLITE}{name}, and a fourth slash before an absolute path"
    if path.name == ":memory:":
        return f"a store in memory ends with its process; name a file: {_SQLITE}{DATABASE}"
    if "/~" in uri[:11] and not path.parent.is_dir():
        return f"~ is not expanded; write {_SQLITE}{Path.home()}/{DATABASE}"
    if re.search(r"\?\w+=", path.name):
        return f"a SQLite store takes no options; write {uri.partition('?')[0]}"
    return f"is a folder; write {_SQLITE}{path}/{DATABASE}" if path.is_dir() else None


def _of_folder(path: str) -> str:
    if Path(path).suffix in (".db", ".sqlite", ".sqlite3"):
        return f"write {_SQLITE}{path}"
    folder = path.rstrip("/")
    return f"MLflow 3 stores no runs in plain folders; write {_SQLITE}{folder}/{DATABASE}"
