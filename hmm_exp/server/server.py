"""A shared store: an MLflow server with a private PostgreSQL and the artifacts.

    with SharedStore(Path("mlruns/server"), port=5000) as store:
        store.wait()

Clients reach runs, models and artifacts at one address and need nothing else.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from hmm_exp.errors import TrackingError
from hmm_exp.server import leftover
from hmm_exp.server.leftover import FolderInUse
from hmm_exp.server.postgres import Postgres

_ANSWERS_WITHIN = 180.0  # seconds; the first start creates the tables
_ENDS_WITHIN = 10.0
# Avoids seven processes of 170 MB for jobs on traces and prompts, which are unused here.
_LIGHT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class SharedStore:
    """Server and database in one folder: `database/`, `artifacts/`, logs.

    Parameters
    ----------
    workers
        Processes that answer requests.
    options
        More options of `mlflow server`, such as `--allowed-hosts`.
    stop_leftover
        Whether to end leftover processes of a killed server first.

    Raises
    ------
    TrackingError
        PostgreSQL or its Python driver is not installed, the port cannot be used, the folder is
        already served, or MLflow or PostgreSQL does not start.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        workers: int = 2,
        options: tuple[str, ...] = (),
        stop_leftover: bool = False,
    ) -> None:
        if find_spec("psycopg2") is None:
            raise TrackingError("PostgreSQL needs a driver: pip install 'hmm_exp[server]'")
        self.folder, self.port = folder.absolute(), port
        self.database = Postgres(folder)
        self._words = ("--workers", str(workers), *options)
        self._stop_leftover = stop_leftover
        self._server: subprocess.Popen | None = None
        self._opened = ExitStack()

    @property
    def uri(self) -> str:
        """Address for clients: MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        """Log of the MLflow server."""
        return self.folder / "mlflow.log"

    def __enter__(self) -> "SharedStore":
        """Check the folder and the port, then start PostgreSQL and MLflow."""
        if self.folder.exists() and not self.folder.is_dir():
            raise TrackingError(f"--folder {self.folder} is a file")
        self._clear_folder()
        check_port(self.port)
        with ExitStack() as opened:
            opened.enter_context(_locked(self.folder))
            opened.enter_context(self.database)
            opened.callback(leftover.forget, self.folder)
            opened.callback(self._stop)
            self._start()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def wait(self) -> None:
        """Wait for the MLflow server. Raises TrackingError when it ends, always a fault."""
        assert self._server is not None
        status = self._server.wait()
        raise TrackingError(f"mlflow server ended with status {status}: see {self.log_file}")

    def _clear_folder(self) -> None:
        """Refuse a folder in use; end leftover processes if requested."""
        others = FolderInUse.of(self.folder)
        if others.main:
            raise TrackingError(f"{self.folder} is already served by {others.main}")
        if others.left and not self._stop_leftover:
            raise TrackingError(
                f"a killed hmm-server left {others.in_words()} running in {self.folder}: "
                "--stop-leftover ends them first"
            )
        others.end()

    def _start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--serve-artifacts", *self._words]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        command += ["--backend-store-uri", self.database.uri]
        with self.log_file.open("a") as log:
            self._server = subprocess.Popen(
                command,
                cwd=self.folder,
                env=_LIGHT | os.environ | self.database.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only this process, which stops both
            )
        leftover.write_record(self.folder, self._server.pid)
        until = time.monotonic() + _ANSWERS_WITHIN
        while not _is_up(self.uri):
            if self._server.poll() is not None or time.monotonic() > until:
                raise TrackingError(f"mlflow server does not start: see {self.log_file}")
            time.sleep(0.1)

    def _stop(self) -> None:
        """End the process group of the server and its workers."""
        if self._server is None:
            return
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal_number)
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(_ENDS_WITHIN)


def check_port(port: int) -> None:
    """Raise TrackingError if a port of loopback cannot be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # like the server
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise TrackingError(f"--port {port} is reserved for root: use 1024 or above") from None
        except OSError as error:
            text = f"--port {port} is taken ({error.strerror}): use another"
            raise TrackingError(text) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder; create it first, and remove it again if it stays empty."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "server.lock"
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise TrackingError(f"another hmm-server is starting in {folder}") from None
    finally:
        if [*folder.iterdir()] == [lock]:
            lock.unlink()
            if is_new:
                folder.rmdir()


def _is_up(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5):
            return True
    except OSError:
        return False
