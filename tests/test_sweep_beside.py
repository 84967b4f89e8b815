"""Work in a copy of a process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hmm_exp.sweep import beside
from tests.conftest import ROOT
from tests.watching import until

pytestmark = pytest.mark.skipif(not beside.IS_POSSIBLE, reason="copies are made on Linux alone")


def outcome(work, within: float | None = 60.0) -> str | None:
    """What is told at the end of some work."""
    told, ended = [], threading.Event()

    def done(reason: str | None) -> None:
        told.append(reason)
        ended.set()

    beside.work_beside(work, within=within, prepare=lambda: None, done=done)
    assert ended.wait(60)
    return told[0]


def test_it_changes_files_and_not_this_process(tmp_path):
    values = [1]

    def work() -> None:
        values.append(2)
        (tmp_path / "values").write_text(str(values))

    assert outcome(work) is None
    assert (tmp_path / "values").read_text() == "[1, 2]"
    assert values == [1]


def fails() -> None:
    raise ValueError("no such regime")


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (fails, "ValueError: no such regime"),
        (lambda: sys.exit(3), "SystemExit: 3"),
        (lambda: os._exit(3), "its process ended with exit status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "its process was ended by SIGKILL (out of"),
        (lambda: time.sleep(60), "no end after 0.2 s (sweep.cell_timeout): killed"),
        (lambda: os.kill(os.getpid(), signal.SIGSTOP), "no end after 0.2 s (sweep.cell_timeout)"),
    ],
)
def test_a_failure_is_told_in_one_line(work, reason):
    within = 0.2 if reason.startswith("no end") else 60.0
    told = outcome(work, within)
    assert told is not None
    assert told.startswith(reason)
    assert "\n" not in told


def test_it_ends_with_the_process_it_is_a_copy_of():
    """A sweep that is killed leaves nothing behind that draws."""
    program = (
        "import time; from hmm_exp.sweep.beside import work_beside\n"
        "def work():\n    import os; print(os.getpid(), flush=True); time.sleep(600)\n"
        "work_beside(work, within=None, prepare=lambda: None, done=print); time.sleep(600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        copy = int(process.stdout.readline())
        process.kill()
    until(lambda: not Path(f"/proc/{copy}").exists() or is_zombie(copy))


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked for its status."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
