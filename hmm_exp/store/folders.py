"""The folders that Hydra makes: whether they can be made, and how a refused run leaves none."""

import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from hmm_exp.errors import ConfigError

_new: list[Path] = []  # what this process has Hydra make: innermost first
_own: list[Path] = []  # of these the run's own folders; others may hold more than this run


def check_folder(option: str, folder: str, inside: str | None = None) -> None:
    """Refuse a folder that cannot be made or written; `inside` is one that Hydra makes in it.

    Nothing of that name is made: another sweep may be starting in the same place.

    Raises
    ------
    ConfigError
        It cannot be made or written; the message names `option`.
    """
    try:
        outer = Path(folder).resolve()
        place = (outer / (inside or "")).resolve()
        paths = {place, *place.parents, outer, *outer.parents}
        _new[:] = [path for path in sorted(paths, reverse=True) if not path.exists()]
        _own[:] = [path for path in _new if path in (place, outer)]
        try_folder(outer)
        try_folder(place)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{option}={folder}: cannot be made and written: {reason}") from None


def try_folder(folder: Path) -> None:
    """Raise OSError unless a folder is there or can be made, and written; nothing is left."""
    there = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    with tempfile.TemporaryDirectory(dir=there):
        pass


def remove_run_folder() -> None:
    """Take away what Hydra has made for a run, and nothing that was there before it."""
    for path in _own:
        shutil.rmtree(path, ignore_errors=True)
    for path in _new:
        with suppress(OSError):  # not empty
            path.rmdir()


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
