"""A private PostgreSQL in a folder, on loopback: the database of a shared store.

    with Postgres(Path("mlruns/server")) as database:
        print(database.uri)

PostgreSQL refuses to run as root; root runs it as the user `postgres` of its packages.
"""

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from hmm_exp.errors import TrackingError
from hmm_exp.server.leftover import postmaster

NAME = "mlflow"  # of the database and its owner
_ACCOUNT = "postgres"  # account that runs it for root
_PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
_WITHIN = "120"  # seconds for a start, with crash recovery


class Postgres:
    """A PostgreSQL with its files in `folder/database`, created at the first start.

    Its password is in `folder/pgpass`, readable by the owner only. Clients pass that file to libpq,
    so that the password is in no address, process list or log. Raises TrackingError if PostgreSQL
    is not installed or, on entering the context, does not start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.port = free_port()
        self._programs = find_programs(self._database_version())

    @property
    def uri(self) -> str:
        """Address for SQLAlchemy without the password, which `environment` supplies."""
        return f"postgresql+psycopg2://{NAME}@127.0.0.1:{self.port}/{NAME}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for clients."""
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
            raise TrackingError(f"PostgreSQL does not start: {self._last_log_line()}")
        if self._client("psql", "-d", NAME, "-c", "select 1").returncode != 0:
            made = self._client("createdb", NAME)
            if made.returncode != 0:
                raise TrackingError(f"no database: {_last_line(made.stderr)}")

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _stop(self) -> None:
        """Stop it, if `postmaster.pid` is not stale: its number may be another process by now."""
        if postmaster(self._data) is not None:
            self._control("stop", "-m", "fast")

    @property
    def _data(self) -> Path:
        return self.folder / "database"

    def _database_version(self) -> str | None:
        """Major version of PostgreSQL that created the database, None before the first start."""
        if not self._data.exists():
            return None
        try:
            return (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise TrackingError(
                f"{self._data} is not a PostgreSQL database: move it away, or use another --folder"
            ) from None

    def _make(self) -> None:
        """Create a database with password login under a temporary name, and rename it."""
        part = self._data.with_name(f"{self._data.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # of an interrupted start
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
        password_file = self.folder / "password"
        _write_private(password_file, password)
        if os.geteuid() == 0:
            for path in (data, password_file):
                shutil.chown(path, _ACCOUNT)
        words = ["-D", str(data), "-U", NAME, "--pwfile", str(password_file)]
        words += ["-A", "scram-sha-256", "-E", "UTF8", "--locale=C"]
        try:
            made = self._run(_as_account(), "initdb", *words)
        finally:
            password_file.unlink()
        if made.returncode != 0:
            hint = f" (root runs it as {_ACCOUNT}, who needs access)" if _as_account() else ""
            raise TrackingError(f"no database in {self._data}{hint}: {_last_line(made.stderr)}")

    def _control(self, *words: str) -> subprocess.CompletedProcess[str]:
        # The server started by pg_ctl would keep a pipe open.
        options = _as_account() | {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self._run(options, "pg_ctl", "-D", str(self._data), "-w", "-t", _WITHIN, *words)

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

    def _last_log_line(self) -> str:
        log = self._data / "server.log"
        return _last_line(log.read_text(errors="replace")) if log.is_file() else "it left no log"


def find_programs(major: str | None = None) -> Path:
    """Find the folder of PostgreSQL's programs, the newest if there are several.

    `major` is the required version, such as "15": that of the database. Raises TrackingError if
    there are none, none of this version, or no account for root to run them.
    """
    found = [path for place in _PLACES for path in Path("/").glob(place) if _holds_all(path)]
    on_path = shutil.which("initdb")
    if on_path and _holds_all(Path(on_path).parent):
        found.append(Path(on_path).parent)
    if not found:
        raise TrackingError(
            "PostgreSQL is not installed (no initdb on the path): apt-get install postgresql, or "
            "use a SQLite store, which needs no server"
        )
    if os.geteuid() == 0 and not _has_account():
        raise TrackingError(f"PostgreSQL does not run as root, and there is no user {_ACCOUNT}")
    fitting = [path for path in found if major in (None, str(int(_version(path))))]
    if not fitting:
        raise TrackingError(
            f"the database was made by PostgreSQL {major}, and {max(map(_version, found)):g} is "
            f"installed: apt-get install postgresql-{major}, or migrate it with pg_dump"
        )
    return max(fitting, key=_version)


def free_port() -> int:
    """Return a free port on loopback."""
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
    """Options of `subprocess` that run PostgreSQL under an account other than root."""
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
