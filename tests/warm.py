"""Starts of `python -m hmm_exp.train` as forks of a process that has its imports loaded.

    python -m tests.warm

reads one JSON request per line (`folder`, `words`, `environment`, `out`, `err`) and answers each
with the exit status of the fork. The fork is the main process of the command: it has its own
folder, environment, streams and end, and starts its own child processes as fresh interpreters.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = "hmm_exp.train"
WITHIN = 300  # seconds for one start
IMPORTS = (
    *("mlflow.store.tracking.sqlalchemy_store", "scipy.signal", "sklearn.preprocessing"),
    *("hmm_exp.callback", "hmm_exp.experiment.run", "hmm_exp.report.collect"),
    *("hmm_exp.report.page", "hmm_exp.sweep.cell", "hmm_exp.sweep.finish", "hmm_exp.sweep.start"),
)


def environment_of_a_user(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | more


class Warm:
    """The parent's handle of the process that forks."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        more = {"PYTHONPATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            env=environment_of_a_user(**more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Start the command with words in a folder and wait for its end."""
        with tempfile.TemporaryDirectory() as kept:
            out, err = Path(kept) / "out", Path(kept) / "err"
            request = {
                "folder": str(folder),
                "words": list(map(str, words)),
                "environment": environment_of_a_user(),
                "out": str(out),
                "err": str(err),
            }
            print(json.dumps(request), file=self._process.stdin, flush=True)
            readable, _, _ = select.select([self._process.stdout], [], [], WITHIN + 60)
            status = int(self._process.stdout.readline()) if readable else None
            assert status is not None, "the start did not end"
            return subprocess.CompletedProcess(words, status, out.read_text(), err.read_text())

    def close(self) -> None:
        self._process.communicate()


def load() -> None:
    """Import what a sweep imports before its first cell."""
    for name in IMPORTS:
        importlib.import_module(name)
    sys.modules.pop(MODULE, None)  # runs as the main module
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
    sys.argv = [MODULE, *request["words"]]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    sys.path[0] = request["folder"]


def serve() -> dict | None:
    """Fork for each request; returns it in the fork, and None at the end in the parent."""
    requests = os.fdopen(os.dup(0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    while line := requests.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(request)
            return request
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    return None


if __name__ == "__main__":
    load()
    if serve() is not None:
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
