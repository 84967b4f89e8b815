"""A child process for cells: an error, a hang, an exit or a kill costs one cell.

    outcome = worker().ask("prepare", settings, log_file, within=60.0)

Each process that runs cells (the main one, a joblib or Ray worker, a cluster job) starts one child
early and keeps it from cell to cell, so that imports and compiled code are loaded once. A child
that dies, hangs or runs out of memory is replaced. It is a fresh interpreter: a fork would inherit
locks of threads, open databases and the pipes by which joblib sees that a worker died. The child
never opens the store, which therefore holds no half-finished cell.
"""

import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hmm_exp.config import Config
from hmm_exp.errors import HmmExpError

log = logging.getLogger(__name__)
_TICK = 0.5  # seconds between two looks at the clock
_START_WITHIN = 300.0  # seconds for imports on a slow disk
_HELP_WITHIN = 60.0  # seconds


class CellError(HmmExpError):
    """A cell failed in its child process; the message is one line."""


class Worker:
    """The parent's handle of its child process."""

    def __init__(self) -> None:
        self._channel, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hmm_exp.sweep.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # results are printed by this process alone
                process_group=0,  # Ctrl-C is for this process, which decides what it means
            )
        self._ready, self._stopping = False, threading.Lock()
        self._clock = _Deadline(None)  # of the last request
        self._on_progress: Callable[[str], None] = lambda text: None
        self._is_asked = False
        self._answer: tuple[str, Any] | None = None
        self._written: dict[str, str | None] = {}  # reason of failure or None, by folder

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(
        self,
        name: str,
        *arguments: Any,
        within: float | None = None,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> Any:
        """Send a request to the child and wait for its answer; see `send` and `answer`."""
        self.send(name, *arguments, within=within, on_progress=on_progress)
        return self.answer()

    def send(
        self,
        name: str,
        *arguments: Any,
        within: float | None = None,
        on_progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Send a request to the child, which takes one at a time.

        `within` seconds, without start-up and compiling; None waits for as long as it takes.
        """
        self._on_progress = on_progress
        self._is_asked = True
        with self._stopped_on_error():
            if not self._ready:
                self._clock = _Deadline(_START_WITHIN)
                self._wait()
                self._ready = True
            with suppress(OSError):  # a dead child is seen by what it does not answer
                self._channel.send((name, arguments))
        self._clock = _Deadline(within)

    def answer(self) -> Any:
        """Wait for the answer to the last request.

        Raises CellError when the cell fails, runs out of memory, dies, or is killed because its
        time is over. After all but the first the child is gone, and `worker()` gives another.
        """
        with self._stopped_on_error():
            return self._wait()

    def work_ahead(self, cells: list[Config]) -> None:
        """Let the child load what a fit needs and fit cells, in order, until the first request."""
        with suppress(OSError):  # a dead child is seen by what it does not answer
            self._channel.send(("work_ahead", (cells,)))

    def load(self, *modules: str) -> None:
        """Let the child load modules for a later `call`."""
        with suppress(OSError):  # a dead child is seen by what it does not answer
            self._channel.send(("load", modules))

    def has_written(self, folder: Path, within: float | None) -> bool:
        """Wait until the bundle of a fit is written; False when the child ended in a later request.

        Raises CellError when the bundle could not be written, or not within some seconds.
        """
        if not self._is_asked:
            self._clock = _Deadline(within)
        while str(folder) not in self._written:
            try:
                if not self._receive(_TICK) and self._clock.left() <= 0.0:
                    self.stop()
            except (EOFError, OSError):
                if self._is_asked:
                    self._process.wait()  # until then `worker` would take it for alive
                    return False
                raise CellError(self._how_it_ended()) from None
        if reason := self._written.pop(str(folder)):
            raise CellError(reason)
        return True

    def stop(self) -> None:
        """Kill the process; its unfinished work leaves only a log and a `.part` folder."""
        with self._stopping:
            self._process.kill()
            self._process.wait()
            self._channel.close()

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @contextmanager
    def _stopped_on_error(self) -> Iterator[None]:
        try:
            yield
        except _CellFailedError as failure:
            raise CellError(str(failure)) from None
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> Any:
        while self._answer is None:
            left = self._clock.left()
            try:
                if not self._receive(min(_TICK, max(0.0, left))) and left <= 0.0:
                    self.stop()
            except (EOFError, OSError):
                raise CellError(self._how_it_ended()) from None
        (kind, content), self._answer = self._answer, None
        self._is_asked = False
        if kind == "failed":
            raise _CellFailedError(content)
        if kind == "damaged":
            raise CellError(content)
        return content

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        over = self._clock.left() <= 0.0
        return too_long(self._clock.within) if over else how_it_ended(status)

    def _receive(self, within: float) -> bool:
        """Take one message, if there is one within some seconds."""
        if not self._channel.poll(within):
            return False
        kind, content = self._channel.recv()
        if kind == "progress":
            self._on_progress(content)
        elif kind == "compiling":
            self._clock.stand(content)
        elif kind == "log":
            logging.getLogger(content[0]).log(content[1], content[2])
        elif kind == "written":
            folder, reason = content
            self._written[folder] = reason
        else:  # "ready", "done", "failed", "damaged"
            self._answer = kind, content
        return True


class _Deadline:
    """Time left for a request; the clock stops while the child compiles."""

    def __init__(self, within: float | None) -> None:
        self.within = math.inf if within is None else within
        self._end = time.monotonic() + self.within
        self._stopped_at: float | None = None

    def left(self) -> float:
        """Seconds left."""
        return self._end - (self._stopped_at or time.monotonic())

    def stand(self, still: bool) -> None:
        """Stop the clock, or let it go on."""
        if self._stopped_at is not None:
            self._end += time.monotonic() - self._stopped_at
        self._stopped_at = time.monotonic() if still else None


class _CellFailedError(Exception):
    """The cell failed and the child can go on."""


_current: Worker | None = None


def worker() -> Worker:
    """The child of this process, started if there is none."""
    global _current
    if _current is None or _current.gone:
        _current = Worker()
    return _current


def prepare_help(*modules: str) -> None:
    """Let the child of this process, if there is one, load modules for `helped`."""
    if _current is not None:
        _current.load(*modules)


def helped(name: str, *arguments: Any) -> Callable[[], Any]:
    """Begin to call a function, `"module:function"`, in the child of this process if there is one.

    Gives what waits for the result. Arguments and result are pickled. At the end of a sweep the
    child is idle, and has loaded what draws. Without a child, or where it fails, the function is
    called here.
    """
    if _current is None or _current.gone:
        return lambda: resolve_name(name)(*arguments)
    helper, thread = _current, ThreadPoolExecutor(1)  # a child that stands still takes no request
    asked = thread.submit(helper.ask, "call", name, *arguments)
    thread.shutdown(wait=False)

    def result() -> Any:
        try:
            return asked.result(_HELP_WITHIN)
        except TimeoutError:
            helper.stop()
        except Exception:  # whatever it is, here it fails for its own reason
            log.debug("the child did not help", exc_info=True)
        return resolve_name(name)(*arguments)

    return result


def dismiss() -> None:
    """Stop the child of this process, if there is one."""
    global _current
    if _current is not None:
        _current.stop()
        _current = None


def too_long(within: float) -> str:
    """Message for a process that was killed after its time limit, in seconds."""
    return f"no end after {within:g} s (sweep.cell_timeout): killed"


def how_it_ended(status: int) -> str:
    """Message for the exit status of a process; a negative one is a signal."""
    if status >= 0:
        return f"its process ended with exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    hint = " (out of memory?)" if name == "SIGKILL" and hasattr(os, "fork") else ""
    return f"its process was ended by {name}{hint}"
