"""Ctrl-C and SIGTERM wait until a step with the store is done.

    with held_back():
        store.client.log_batch(...)

An interrupt inside an SQL statement leaves its connection open, and with it the lock on a SQLite
store: this process could then close none of its runs.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back the first of these signals to the end of the block; a second one acts at once."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    known = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        known = {}  # signals are handled by the main thread alone
    waiting: list[Callable[[], Any]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        waiting.append(lambda: known[signal.Signals(number)](number, frame))
        if len(waiting) > 1:
            waiting.pop()()

    for number in known:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
        if waiting:
            waiting.pop()()
