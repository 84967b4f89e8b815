"""A private PostgreSQL in a folder, on loopback: the database behind a shared store.

    with Postgres(Path("mlruns/server")) as database:
        print(database.uri)

PostgreSQL refuses to run as root; root runs it as the user `postgres`, which its packages make.
"""

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from hmm_exp.errors import TrackingError

NAME = "mlflow"  # of the database and of its owner
_ACCOUNT = "postgres"  # who runs it for root
_PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
_WITHIN = "120"  # seconds for a start, which after a crash repairs first


class Postgres:
    """A PostgreSQL that keeps its files in `folder/database`, made at the first start.

    Its password lies in `folder/pgpass`, which the owner alone can read and libpq is told of, so
    that it is in no address, process list or log.

    Raises
    ------
    TrackingError
        Here when PostgreSQL is not installed; on entering when it does not start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.port = free_port()
        self._programs = find_programs()

    @property
    def uri(self) -> str:
        """Address for SQLAlchemy, without the password: see `environment`."""
        return f"postgresql+psycopg2://{NAME}@127.0.0.1:{self.port}/{NAME}"

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of a client needs."""
        return {"PGPASSFILE": str(self.folder / "pgpass")}

    def __enter__(self) -> "Postgres":
        if not (self._data / "PG_VERSION").is_file():
            self._make()
        elif self._control("status").returncode == 0:
            raise TrackingError(f"{self._data} is in use: stop the server that works there first")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        started = self._control("start", "-l", str(self._data / "server.log"), "-o", options)
        if started.returncode != 0:
            raise TrackingError(f"PostgreSQL does not start: {self._last_words()}")
        if self._client("psql", "-d", NAME, "-c", "select 1").returncode != 0:
            made = self._client("createdb", NAME)
            if made.returncode != 0:
                self._control("stop", "-m", "fast")
                raise TrackingError(f"no database: {' '.join(made.stderr.split())}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._control("stop", "-m", "fast")

    @property
    def _data(self) -> Path:
        return self.folder / "database"

    def _make(self) -> None:
        """Make the files of a database that asks everybody for a password."""
        shutil.rmtree(self._data, ignore_errors=True)  # left by a start that was cut off
        self._data.mkdir(parents=True, mode=0o700)
        password = secrets.token_urlsafe(24)
        _write_private(self.folder / "pgpass", f"127.0.0.1:*:*:{NAME}:{password}\n")
        said = self.folder / "password"
        _write_private(said, password)
        if os.geteuid() == 0:
            for path in (self._data, said):
                shutil.chown(path, _ACCOUNT)
        words = ("-D", str(self._data), "-U", NAME, "--pwfile", str(said), "-A", "scram-sha-256")
        made = self._run(_as_account(), "initdb", *words, "-E", "UTF8", "--locale=C")
        said.unlink()
        if made.returncode != 0:
            shutil.rmtree(self._data)
            hint = f" (root runs it as {_ACCOUNT}, who must get there)" if _as_account() else ""
            raise TrackingError(f"no database in {self._data}{hint}: {_last_line(made.stderr)}")

    def _control(self, *words: str) -> subprocess.CompletedProcess[str]:
        # A pipe would stay open in the server that pg_ctl leaves behind.
        silent = _as_account() | {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self._run(silent, "pg_ctl", "-D", str(self._data), "-w", "-t", _WITHIN, *words)

    def _client(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        address = ("-w", "-h", "127.0.0.1", "-p", str(self.port), "-U", NAME)
        return self._run({"env": os.environ | self.environment}, program, *address, *words)

    def _run(
        self, options: dict[str, Any], program: str, *words: str
    ) -> subprocess.CompletedProcess[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [str(self._programs / program), *words]
        return subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, text=True, **(pipes | options)
        )

    def _last_words(self) -> str:
        log = self._data / "server.log"
        return _last_line(log.read_text(errors="replace")) if log.is_file() else "it left no log"


def find_programs() -> Path:
    """Folder of PostgreSQL's own programs, the newest where there are several.

    Raises
    ------
    TrackingError
        When there are none, or root has nobody to run them as.
    """
    found = [path for place in _PLACES for path in Path("/").glob(place) if _holds_all(path)]
    on_path = shutil.which("initdb")
    if on_path and _holds_all(Path(on_path).parent):
        found.append(Path(on_path).parent)
    if not found:
        raise TrackingError(
            "PostgreSQL is not installed (no initdb on the path): apt-get install postgresql, or "
            "keep runs in SQLite, which needs no server"
        )
    if os.geteuid() == 0 and not _has_account():
        raise TrackingError(f"PostgreSQL does not run as root, and there is no user {_ACCOUNT}")
    return max(found, key=_version)


def free_port() -> int:
    """Give a port of loopback on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _holds_all(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("initdb", "pg_ctl", "psql", "createdb"))


def _version(folder: Path) -> float:
    text = subprocess.run(
        [str(folder / "pg_ctl"), "--version"], capture_output=True, text=True
    ).stdout
    numbers = [word for word in text.split() if word.replace(".", "", 1).isdigit()]
    return float(numbers[0]) if numbers else 0.0


def _has_account() -> bool:
    import pwd  # not on Windows

    return any(entry.pw_name == _ACCOUNT for entry in pwd.getpwall())


def _as_account() -> dict[str, Any]:
    """Options of `subprocess` with which PostgreSQL consents to run."""
    if os.geteuid() != 0:
        return {}
    return {"user": _ACCOUNT, "group": _ACCOUNT, "extra_groups": []}


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it gives no reason"
