"""Run cases of hostile input in forks of this process, and report how they end.

    counts = counted(lambda number: Case("model=5", {}, action), range(100))

An action is what a user would start, called in a folder of its own that holds the case's files. It
ends by returning, by SystemExit, or in one of the ways that are WRONG.
"""

import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

HANGS_AFTER = 20.0  # seconds
LONGEST_LINE = 300
ACCEPTED = 77  # exit status of a case that would go on to a fit
MEMORY = 8 << 30  # bytes that a case may ask for
FINE = ("accepted", "answered", "refused in one line")
MISREAD = {78: "misread", 79: "outside the span of times"}  # exit statuses of a reading
WRONG = (
    *MISREAD.values(),
    *("traceback", "refused in several lines", "line too long", "words of a parser"),
    *("something left behind", "another exit status", "hang"),
)
PARSER = ("mismatched input", "viable", "token recognition", "extraneous input", "<EOF>", "antlr")


@dataclass(frozen=True)
class Case:
    """One input: how to show it, what to put into the folder, what to run in it."""

    shown: str
    files: dict[str, bytes]
    run: Callable[[], object]


@dataclass(frozen=True)
class Ended:
    """How a case ended; `status` is None for one that was stopped as a hang."""

    status: int | None
    output: str
    errors: str
    left: list[str]


def counted(cases: Callable[[int], Case], numbers: Iterable[int], show_all: bool) -> Counter:
    """Run cases by their numbers; count how they end and show what is wrong."""
    counts: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            case = cases(number)
            ended = forked(case, Path(folder) / str(number))
            if ended.status is None:  # once more: where others work, a slow case is no hang
                ended = forked(case, Path(folder) / str(number), within=3 * HANGS_AFTER)
            verdict = judged(ended)
            counts[verdict] += 1
            if show_all or verdict in WRONG:
                print(f"{number}: {verdict}: {case.shown[:1000]}\n  {ended!r:.2000}", flush=True)
    return counts


def forked(case: Case, folder: Path, within: float = HANGS_AFTER) -> Ended:
    """Run a case in a child of this process, in a new folder, and see how it ends."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    folder.mkdir()
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
        (home / name).write_bytes(content)
    before = set(folder.rglob("*"))
    streams = [folder.with_suffix(".out"), folder.with_suffix(".err")]
    child = os.fork()
    if child == 0:
        _live(case, folder, streams)
    status = _waited(child, within)
    output, errors = (path.read_text(errors="replace") for path in streams)
    left = sorted(str(path.relative_to(folder)) for path in set(folder.rglob("*")) - before)
    shutil.rmtree(folder)
    for path in streams:
        path.unlink()
    return Ended(status, output, errors, left)


def judged(ended: Ended) -> str:
    """One of FINE or WRONG."""
    lines = ended.errors.splitlines()
    if ended.status is None:
        return "hang"
    if "Traceback (most recent call last)" in ended.errors:
        return "traceback"
    if ended.status in (0, ACCEPTED):
        return "answered" if ended.status == 0 else "accepted"
    if ended.status != 2:
        return MISREAD.get(ended.status, "another exit status")
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return "refused in several lines"
    if len(lines[0]) > LONGEST_LINE or not lines[0].isprintable():
        return "line too long"
    if any(word in lines[0] for word in PARSER):
        return "words of a parser"
    return "something left behind" if ended.left else "refused in one line"


def _live(case: Case, folder: Path, streams: list[Path]) -> None:
    """Be the child: run the case and leave with its status."""
    status: int | str | None = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for number, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        os.chdir(folder)
        os.environ |= {"HOME": str(folder.parent / "home")}
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        case.run()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def _waited(child: int, within: float) -> int | None:
    """Exit status of a child; None for one that is stopped because it hangs."""
    deadline = time.monotonic() + within
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)
