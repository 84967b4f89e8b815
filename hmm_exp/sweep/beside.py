"""Work in a copy of this process, which goes on meanwhile.

    done = lambda reason: print(reason or "written")
    work_beside(write, within=60.0, done=done)

The child that fits the cells of a sweep draws each in a copy of itself while it fits the next. The
copy shares what the fit left in memory and gives back files alone. It ends with its work, at the
end of its time, or with the process it is a copy of.
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

IS_POSSIBLE = sys.platform == "linux"  # where a process can be told to end with another
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def work_beside(
    work: Callable[[], object],
    *,
    within: float | None,
    prepare: Callable[[], None],
    done: Callable[[str | None], None],
) -> None:
    """Call `work` in a copy of this process; raises OSError where none can be made.

    Parameters
    ----------
    within
        Seconds after which the copy is killed; None for no limit.
    prepare
        Called in the copy first: it must not use what belongs to this process.
    done
        Called in a thread of this process at the end, with the reason of a failure in one line.
    """
    ours, theirs = os.pipe()
    parent = os.getpid()
    copy = os.fork()
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
    """Wait for the end of a copy, or end it when its time is over, and tell."""
    with open(ours, "rb") as channel:
        in_time = bool(select.select([channel], [], [], within)[0])
        if not in_time:
            os.kill(copy, signal.SIGKILL)  # also what is stopped, or waits for a disk
        reason = channel.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    if not in_time and within is not None:
        reason = too_long(within)
    done(reason or (how_it_ended(status) if status else None))
