"""Run a function in a copy of this process, while this process continues.

    work_beside(write, within=60.0, prepare=channel.close, done=print)  # None, or why it failed

The child that fits the cells of a sweep draws each in a copy of itself while it fits the next. The
copy starts with the fitted model in memory and returns files only. It ends when its work is done,
at its time limit, or together with the original process.
"""

import ctypes
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

from hmm_exp.errors import described
from hmm_exp.sweep.child import how_it_ended, too_long

IS_POSSIBLE = sys.platform == "linux"  # only there can a process ask to end with its parent
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def work_beside(
    work: Callable[[], object],
    *,
    within: float | None,
    prepare: Callable[[], None],
    done: Callable[[str | None], None],
) -> "Copy":
    """Call `work` in a copy of this process; raises OSError if the copy cannot be made.

    Parameters
    ----------
    within
        Seconds after which the copy is killed; None for no limit.
    prepare
        Called in the copy first, to close what only the original may use.
    done
        Called in a thread of this process at the end, with None or the failure in one line.
    """
    ours, theirs = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(ours)
        os.close(theirs)
        raise
    if pid == 0:
        status = 1
        try:
            _end_with(parent)
            prepare()
            work()
            status = 0
        except BaseException as error:  # also SystemExit
            with suppress(Exception):
                os.write(theirs, described(error).encode())
                traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    copy = Copy(pid)
    threading.Thread(target=_watch, args=(copy, ours, within, done), daemon=True).start()
    return copy


class Copy:
    """A copy of this process."""

    def __init__(self, pid: int) -> None:
        self._pid, self._lock = pid, threading.Lock()
        self._status: int | None = None

    def kill(self) -> None:
        """End it, also where it is stopped, or waits for a disk."""
        with self._lock:
            if self._status is None:  # else another process may have its number
                os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; gives its exit status, of a signal the negative number."""
        if self._status is None:
            with suppress(ChildProcessError):  # another thread was faster
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            if self._status is None:
                self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            return self._status


def _end_with(parent: int) -> None:
    """End this process with its parent."""
    ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _watch(copy: Copy, ours: int, within: float | None, done: Callable[[str | None], None]) -> None:
    """Wait for a copy, kill it at its time limit, and report how it ended."""
    with open(ours, "rb") as channel:
        in_time = bool(select.select([channel], [], [], within)[0])
        if not in_time:
            copy.kill()
        reason = channel.read().decode()
    status = copy.wait()
    if not in_time and within is not None:
        reason = too_long(within)
    done(reason or (how_it_ended(status) if status else None))
