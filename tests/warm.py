"""Starts of the commands as forks of a process that has their imports loaded.

    python -m tests.warm

reads one JSON request per line. A start (`module`, `folder`, `words`, `environment`, `out`, `err`)
is answered with the number of the fork, `wait` with the exit status of that number. The fork is
the main process of the command: it has its own folder, environment, streams and end. A sweep's
first child process is a fork too, made before the command runs; all further child processes are
fresh interpreters. The faults of tests/faults are in place, and wait for their seed or variable.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from hmm_exp.config import Config, DataConfig, ModelConfig

ROOT = Path(__file__).resolve().parents[1]
FAULTS = f"{ROOT / 'tests' / 'faults'}{os.pathsep}{ROOT}"  # and this checkout's package
TRAIN = "hmm_exp.train"
WITHIN = 300  # seconds for one start
IMPORTS = (
    *("mlflow.store.tracking.sqlalchemy_store", "scipy.signal", "sklearn.preprocessing"),
    *("hmm_exp.callback", "hmm_exp.experiment.run", "hmm_exp.report.collect"),
    *("hmm_exp.report.page", "hmm_exp.sweep.cell", "hmm_exp.sweep.finish", "hmm_exp.sweep.start"),
    *("hmm_exp.sweep.worker",),
)


def environment_of_a_user(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | more


class Warm:
    """The parent's handle of the process that forks."""

    def __init__(self) -> None:
        path = os.pathsep.join([FAULTS, *filter(None, [os.environ.get("PYTHONPATH")])])
        more = {"PYTHONPATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._streams = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            env=environment_of_a_user(**more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, folder: Path, *words: str, module: str = TRAIN, **environment: str) -> "Fork":
        """Start a command with words in a folder."""
        streams = Path(tempfile.mkdtemp(dir=self._streams.name))
        request = {
            "module": module,
            "folder": str(folder),
            "words": list(map(str, words)),
            "environment": environment_of_a_user(**environment),
            "out": str(streams / "out"),
            "err": str(streams / "err"),
        }
        return Fork(self, self.ask(request), streams)

    def run(
        self, folder: Path, *words: str, module: str = TRAIN, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Start a command with words in a folder and wait for its end."""
        return self.start(folder, *words, module=module, **environment).wait()

    def ask(self, request: dict) -> int:
        print(json.dumps(request), file=self._process.stdin, flush=True)
        readable, _, _ = select.select([self._process.stdout], [], [], WITHIN + 60)
        assert readable, "the start did not end"
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()
        self._streams.cleanup()


class Fork:
    """A command that runs; its number is its own until its end has been waited for."""

    def __init__(self, warm: Warm, pid: int, streams: Path) -> None:
        self._warm, self.pid, self._streams = warm, pid, streams
        self._status: int | None = None

    def output(self) -> str:
        """What it has printed."""
        out = self._streams / "out"
        return out.read_text() if out.exists() else ""

    def send_signal(self, number: int) -> None:
        if self._status is None:
            os.kill(self.pid, number)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end; it takes at most WITHIN."""
        if self._status is None:
            self._status = self._warm.ask({"wait": self.pid})
        errors = (self._streams / "err").read_text()
        return subprocess.CompletedProcess([], self._status, self.output(), errors)


class ForkedWorker:
    """The child process of a sweep, with the part of `subprocess.Popen` that the sweep uses."""

    def __init__(self, command: list[str], pass_fds: list[int], **_) -> None:
        self.returncode: int | None = None
        self._reaping = threading.Lock()  # the sweep and what waits for help end it both
        self.pid = os.fork()
        if self.pid == 0:
            (channel,) = pass_fds
            os.setpgid(0, 0)
            os.dup2(2, 1)
            os.closerange(3, channel)
            os.closerange(channel + 1, 256)
            sys.argv = command[2:]
            importlib.import_module("hmm_exp.sweep.worker").main()

    def poll(self) -> int | None:
        if self._reaping.acquire(blocking=False):  # else another thread waits for the end
            try:
                self._reap(os.WNOHANG)
            finally:
                self._reaping.release()
        return self.returncode

    def wait(self) -> int | None:
        with self._reaping:
            self._reap(0)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signal.SIGKILL)

    def _reap(self, how: int) -> None:
        if self.returncode is None:  # a process can be asked for its status once
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None


def start_worker_early() -> None:
    """Fork the sweep's first child now, as long as this process has one thread and no store."""
    from hmm_exp.sweep import child

    child.subprocess = SimpleNamespace(Popen=ForkedWorker, DEVNULL=subprocess.DEVNULL)
    child.worker()
    child.subprocess = subprocess


def load() -> None:
    """Import what a sweep imports before its first cell, and load the compiled code."""
    for name in IMPORTS:
        importlib.import_module(name)
    from hmm_exp.experiment.prepare import prepare
    from hmm_exp.experiment.run import run

    data = DataConfig(n_bars=1500, bar_stamp="open")
    run(prepare(Config(data=data, model=ModelConfig(n_states=2, n_init=1))), lambda _: None)
    assert threading.active_count() == 1, "a fork copies one thread"
    gc.freeze()  # collections in a fork leave the pages of its parent alone


def become(request: dict) -> None:
    """Turn this fork into the main process of the command."""
    signal.alarm(WITHIN)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for number, place, how in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT),
        (2, request["err"], os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(place, how), number)
    if not hasattr(sys.modules.get(request["module"]), "__path__"):  # a package's __main__ is new
        sys.modules.pop(request["module"], None)
    sys.argv = [request["module"], *request["words"]]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    sys.path[0] = request["folder"]
    if request["module"] == TRAIN and "-m" in request["words"]:
        start_worker_early()


def serve() -> dict | None:
    """Fork or wait for each request; returns it in the fork, and None at the end in the parent."""
    requests = os.fdopen(os.dup(0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    while line := requests.readline():
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif (answer := os.fork()) == 0:
            become(request)
            return request
        print(answer, file=answers, flush=True)
    return None


if __name__ == "__main__":
    load()
    if (asked := serve()) is not None:
        module, _, script = asked["module"].partition(":")
        if script:
            sys.exit(getattr(importlib.import_module(module), script)())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
