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
from hmm_exp.server.leftover import postmaster

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
        self._programs = find_programs(self._made_by())

    @property
    def uri(self) -> str:
        """Address for SQLAlchemy, without the password: see `environment`."""
        return f"postgresql+psycopg2://{NAME}@127.0.0.1:{self.port}/{NAME}"

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of a client needs."""
        return {"PGPASSFILE": str(self.folder / "pgpass")}

    def __enter__(self) -> "Postgres":
        if not self._data.exists():
            self._make()
        elif postmaster(self._data) is not None:
            raise TrackingError(f"{self._data} is in use: stop the server that works there first")
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        started = self._control("start", "-l", str(self._data / "server.log"), "-o", options)
        if started.returncode != 0:
            raise TrackingError(f"PostgreSQL does not start: {self._last_words()}")
        if self._client("psql", "-d", NAME, "-c", "select 1").returncode != 0:
            made = self._client("createdb", NAME)
            if made.returncode != 0:
                raise TrackingError(f"no database: {_last_line(made.stderr)}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        """Stop it; a number in a stale `postmaster.pid` may be that of any process by now."""
        if postmaster(self._data) is not None:
            self._control("stop", "-m", "fast")

    @property
    def _data(self) -> Path:
        return self.folder / "database"

    def _made_by(self) -> str | None:
        """Major version of PostgreSQL that made the database, None where there is none yet."""
        if not self._data.exists():
            return None
        try:
            return (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise TrackingError(
                f"{self._data} is no PostgreSQL database: move it away, or take another --folder"
            ) from None

    def _make(self) -> None:
        """Make a database that asks everybody for a password, beside its place, and rename it."""
        part = self._data.with_name(f"{self._data.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # left by a start that was cut off
        part.mkdir(parents=True, mode=0o700)
        try:
            self._make_in(part)
            part.rename(self._data)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            (self.folder / "pgpass").unlink(missing_ok=True)
            raise

    def _make_in(self, data: Path) -> None:
        password = secrets.token_urlsafe(24)
        _write_private(self.folder / "pgpass", f"127.0.0.1:*:*:{NAME}:{password}\n")
        said = self.folder / "password"
        _write_private(said, password)
        if os.geteuid() == 0:
            for path in (data, said):
                shutil.chown(path, _ACCOUNT)
        words = ("-D", str(data), "-U", NAME, "--pwfile", str(said), "-A", "scram-sha-256")
        try:
            made = self._run(_as_account(), "initdb", *words, "-E", "UTF8", "--locale=C")
        finally:
            said.unlink()
        if made.returncode != 0:
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


def find_programs(major: str | None = None) -> Path:
    """Folder of PostgreSQL's own programs, the newest where there are several.

    Parameters
    ----------
    major
        Version that they must have, such as "15": that of the database they work on.

    Raises
    ------
    TrackingError
        When there are none, none of this version, or root has nobody to run them as.
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
    fitting = [path for path in found if major in (None, str(int(_version(path))))]
    if not fitting:
        raise TrackingError(
            f"the database was made by PostgreSQL {major}, and {max(map(_version, found)):g} is "
            f"installed: apt-get install postgresql-{major}, or move it over with pg_dump"
        )
    return max(fitting, key=_version)


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
