"""The shared store: an MLflow server over a private PostgreSQL, artifacts behind it.

    with SharedStore(Path("mlruns/server"), port=5000) as store:
        store.wait()

Runs, models and artifacts go over one address, so that a client needs nothing but the address.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from hmm_exp.errors import TrackingError
from hmm_exp.tracking.postgres import Postgres

_ANSWERS_WITHIN = 180.0  # seconds; the first start makes the tables
_ENDS_WITHIN = 10.0
# Seven processes of 170 MB for jobs on traces and prompts, which no run of this package has.
_LIGHT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class SharedStore:
    """Server and database with all they keep in one folder: `database/`, `artifacts/`, logs.

    Parameters
    ----------
    workers
        Processes that answer requests.
    options
        More words for `mlflow server`, such as `--allowed-hosts`.

    Raises
    ------
    TrackingError
        When PostgreSQL or its Python driver is not installed, the port is taken, or one of the
        two does not start.
    """

    def __init__(
        self, folder: Path, port: int, workers: int = 2, options: tuple[str, ...] = ()
    ) -> None:
        if find_spec("psycopg2") is None:
            raise TrackingError("PostgreSQL needs a driver: pip install 'hmm_exp[server]'")
        self.folder, self.port = folder.absolute(), port
        self.database = Postgres(folder)
        self._words = ("--workers", str(workers), *options)
        self._server: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        """Address for clients: MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        """What the MLflow server says."""
        return self.folder / "mlflow.log"

    def __enter__(self) -> "SharedStore":
        if _answers(self.uri):
            raise TrackingError(
                f"a server answers on port {self.port} already: take another --port"
            )
        self.database.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stop()
        finally:
            self.database.__exit__(kind, error, trace)

    def wait(self) -> None:
        """Wait until the MLflow server ends. Raises TrackingError: it does so on a fault only."""
        assert self._server is not None
        status = self._server.wait()
        raise TrackingError(f"mlflow server ended with status {status}: see {self.log_file}")

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
                start_new_session=True,  # Ctrl-C is for this process, which ends them in order
            )
        until = time.monotonic() + _ANSWERS_WITHIN
        while not _answers(self.uri):
            if self._server.poll() is not None or time.monotonic() > until:
                raise TrackingError(f"mlflow server does not start: see {self.log_file}")
            time.sleep(0.1)

    def _stop(self) -> None:
        """End the server and its workers, which are a process group of their own."""
        if self._server is None:
            return
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal_number)
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(_ENDS_WITHIN)


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5):
            return True
    except OSError:
        return False
