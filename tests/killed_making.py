"""Processes that are killed while they make a store, one after the other in the same folder.

    python -m tests.killed_making <folder> '<JSON list of sizes>'

Each is killed by SIGKILL as soon as its database has that many bytes; one more is left to end.
Prints, as a JSON list, the exit status of each, which is negative for a signal.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  imported once, not by every child

from hmm_exp.config import TrackingConfig
from hmm_exp.store.address import DATABASE
from hmm_exp.store.store import open_store


def end_of(folder: Path, size: int | None) -> int:
    """Signal (negative) or exit status that ended a process which makes the store."""
    started = time.time()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            open_store(TrackingConfig(uri=f"sqlite:///{folder / DATABASE}"))
            os._exit(0)
        os._exit(1)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if size is not None and written(folder, started) >= size:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(ended[1])


def written(folder: Path, since: float) -> int:
    """Bytes of the database, or of the one beside that is to become it, if written to since."""
    sizes = [0]
    for name in (DATABASE, f"{DATABASE}.part"):
        with suppress(OSError):  # not there, or renamed now
            place = (folder / name).stat()
            sizes += [place.st_size] if place.st_mtime >= since else []
    return max(sizes)


if __name__ == "__main__":
    sizes: list[int | None] = [*json.loads(sys.argv[2]), None]
    print(json.dumps([end_of(Path(sys.argv[1]), size) for size in sizes]))
