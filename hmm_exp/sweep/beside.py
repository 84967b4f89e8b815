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
) -> None:
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
        copy = os.fork()
    except OSError:
        os.close(ours)
        os.close(theirs)
        raise
    if copy == 0:
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
    threading.Thread(target=_watch, args=(copy, ours, within, done), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process with its parent."""
    ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _watch(copy: int, ours: int, within: float | None, done: Callable[[str | None], None]) -> None:
    """Wait for a copy, kill it at its time limit, and report how it ended."""
    with open(ours, "rb") as channel:
        in_time = bool(select.select([channel], [], [], within)[0])
        if not in_time:
            os.kill(copy, signal.SIGKILL)  # also what is stopped, or waits for a disk
        reason = channel.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    if not in_time and within is not None:
        reason = too_long(within)
    done(reason or (how_it_ended(status) if status else None))
