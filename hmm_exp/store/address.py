"""Which tracking store: the address that is given, checked, and absolute for every worker.

A SQLite store is a file. `sqlite_path` and `sqlite_uri` are the one way between its address and
its path, because MLflow percent-encodes the addresses that it makes itself, and a user does not.
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
    """Absolute tracking URI: the given one, else MLFLOW_TRACKING_URI, else SQLite in this folder.

    An address from which `redacted` took the login gets it back from MLFLOW_TRACKING_URI.

    Parameters
    ----------
    setting
        Where the user gives the address; named in a refusal.

    Raises
    ------
    TrackingError
        When MLflow keeps no runs at such an address; says what to write instead.
    """
    in_environment = os.environ.get(VARIABLE) or None
    if uri is None:
        uri, setting = in_environment, VARIABLE
    if uri is None:
        return sqlite_uri(Path.cwd() / DATABASE)
    if in_environment is not None and redacted(in_environment.strip()) == uri:
        uri = in_environment
    uri = re.sub(r"\A[A-Za-z][\w+.-]*(?=:)", lambda scheme: scheme[0].lower(), uri.strip())
    if why := _complaint(uri):
        shown = _without_login(uri)
        named = f"{setting} " if setting.startswith("-") else f"{setting}="
        raise TrackingError(f"{named}{shown or repr('')}: {_complaint(shown) or why}")
    path = sqlite_path(uri)
    return uri if path is None else sqlite_uri(path)


def sqlite_path(uri: str) -> Path | None:
    """Absolute path of the file behind a SQLite address, percent-encoded or not; else None.

    As SQLAlchemy does, an address is decoded; one that leads nowhere decoded, but somewhere as it
    is written, is taken as written.
    """
    found = _IS_SQLITE.fullmatch(uri)
    if found is None:
        return None
    decoded, written = Path(unquote(found[1])), Path(found[1])
    as_written = _is_folder(written.parent) and not _is_folder(decoded.parent)
    return (written if as_written else decoded).absolute()


def _is_folder(path: Path) -> bool:
    """Whether a folder is there and may be reached."""
    try:
        return path.is_dir()
    except OSError:
        return False


def sqlite_uri(path: Path) -> str:
    """Address of a SQLite file that SQLAlchemy opens and for which MLflow makes no other folder.

    Before it opens `sqlite:///x`, MLflow up to 3.17 makes the folder of `x` without decoding `x`.
    It leaves an address alone that names the driver.
    """
    text = str(path.absolute())
    if not {"%", "?"} & set(text):
        return f"{_SQLITE}{text}"
    from sqlalchemy import URL

    return URL.create("sqlite+pysqlite", database=text).render_as_string()


def is_served(uri: str) -> bool:
    """Whether a tracking server keeps the runs."""
    return uri.startswith(("http://", "https://"))


def _without_login(uri: str) -> str:
    """An address that may be none, without what is before an @; `redacted` wants a sound one."""
    start = re.match(r"(?:[a-z][\w+.-]*:/+)?", uri)
    begin = start[0] if start else ""
    return begin + re.sub(r"\A[^/@]*:[^@]*@", "", uri.removeprefix(begin))


def _complaint(uri: str) -> str | None:
    """What is wrong with an address, and what to write instead; None when nothing is."""
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
        return f"is not an address that MLflow keeps runs at; write {_EXAMPLE}"
    return _of_folder(re.sub(r"\Afile:(//(?=/))?", "", uri))


def _of_server(uri: str, scheme: str) -> str | None:
    host = uri.removeprefix(f"{scheme}:").lstrip("/")
    if not uri.startswith(f"{scheme}://") or not host:
        return f"write {scheme}://{host or 'localhost:5000'}"
    try:
        sound = bool(urlsplit(uri).hostname) and urlsplit(uri).port != 0
    except ValueError:  # no number, or above 65535
        sound = False
    if not sound and "@" in host:
        return "its login holds a mark that has to be encoded, such as / as %2F or @ as %40"
    return None if sound else f"names no host and port; write {scheme}://localhost:5000"


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
    return f"MLflow 3 keeps no runs in plain folders; write {_SQLITE}{folder}/{DATABASE}"
