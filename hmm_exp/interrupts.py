"""Ctrl-C and SIGTERM end a program, also where a library swallows what they raise.

A signal may arrive in a callback of the compiler, whose errors Python drops, or in the import of a
compiled module, which then fails for a reason of its own. So it is sent again until it is handled,
and an error that comes after it counts as the interrupt.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hmm_exp.errors import interrupt_behind

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_A_MOMENT = 0.2  # seconds until what a signal raised is handled somewhere, or was swallowed
_STOPPED = 128  # exit statuses above are those of signals
_MOST_AFTER_STOP = 5.0  # seconds
_ONE_STOP = 2.0  # seconds in which further signals mean the first, while the program ends its work
_arrived: KeyboardInterrupt | None = None
_arrived_at = 0.0  # by the clock of `time.monotonic`
_over = threading.Event()  # set once signals raise nothing any more
_over.set()


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, by which systemd, Docker and SLURM stop: ends what Ctrl-C ends."""


@contextmanager
def listening() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise an interrupt in the block; only the main thread can.

    A signal that the process was started to ignore, as in the background of a script, stays so.
    """
    global _arrived, _over
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _NUMBERS}
    hook = sys.unraisablehook
    _arrived, _over, sys.unraisablehook = None, threading.Event(), _without_interrupts
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        _over.set()
        _arrived, sys.unraisablehook = None, hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def ignore_further() -> None:
    """Ignore signals from here to the end of the block that listens: the program is ending."""
    if not _over.is_set():
        _over.set()
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)


def interrupt_of(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that an error is or came from, or that arrived before it; else None."""
    return interrupt_behind(error) or _arrived


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Exit status of a program that was stopped: 130 by Ctrl-C, 143 by SIGTERM."""
    stopped_by = signal.SIGTERM if isinstance(interrupt, TerminatedError) else signal.SIGINT
    return _STOPPED + stopped_by


def end_soon(status: int) -> None:
    """After a stop, end this process in some seconds, whatever else its end waits for.

    Further signals are ignored from here on.
    """
    if status > _STOPPED:
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        timer = threading.Timer(_MOST_AFTER_STOP, os._exit, (status,))
        timer.daemon = True
        timer.start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _arrived, _arrived_at
    if _arrived and time.monotonic() < _arrived_at + _ONE_STOP and _is_handled():
        return  # a step with the store that was cut off would hold its lock
    _arrived_at = time.monotonic()
    if _arrived is None:
        threading.Thread(target=_insist, args=(number, _over), daemon=True).start()
    _arrived = TerminatedError() if number == signal.SIGTERM else KeyboardInterrupt()
    raise _arrived


def _insist(number: int, over: threading.Event) -> None:
    """Send a signal again while nobody handles what it raised."""
    while not over.wait(_A_MOMENT):
        # another handler waits for the end of a step with the store
        if not _is_handled() and signal.getsignal(number) is _interrupt:
            os.kill(os.getpid(), number)


def _is_handled() -> bool:
    """Whether the main thread is in what an interrupt makes it do: `finally`, `except`, `with`."""
    found = sys._current_exceptions().get(threading.main_thread().ident or 0)
    error = found[1] if isinstance(found, tuple) else found  # a tuple before Python 3.12
    return interrupt_behind(error) is not None


def _without_interrupts(unraisable: "sys.UnraisableHookArgs") -> None:
    """Show what Python drops, but for an interrupt, which arrives again."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
