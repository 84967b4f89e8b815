"""Live progress on a terminal: one line per running cell, the sweep below, results above.

    progress.start(folder, n_cells=8)                 # main process, when `wanted`
    with progress.Line(folder, 3, "v1 K=3") as line:  # the process that runs the cell
        line("fitting 3 states: start 4 of 10, iteration 57")
    progress.stop()

Cells run in several processes that share one terminal. Only the main process draws; the others
write their lines into files in the sweep's folder. Without that folder there is no live display:
lines do nothing, and messages go to standard error.
"""

import atexit
import json
import logging
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from hmm_exp import owner
from hmm_exp.files import written_beside
from hmm_exp.hmm.em.progress import under_way
from hmm_exp.output import has_colour, tinted

PERIOD = 0.2  # seconds between two pictures
_ROW, _SAID = ".row", ".said"
_display: "Display | None" = None
_joined: Path | None = None


def wanted(quiet: bool) -> bool:
    """Whether standard error is a terminal that can show live lines."""
    return not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def start(folder: Path, n_cells: int, unit: str = "cells") -> None:
    """Start to draw the lines of cells in `folder`; leftovers of an earlier start are removed."""
    global _display
    with suppress(OSError):  # a full disk: nobody watches
        _display = Display(folder / "live", n_cells, unit)
        _join(folder)
        atexit.register(stop)


def stop() -> None:
    """Show the last messages and release the terminal."""
    global _display, _joined
    if _display is not None:
        _display.close()
        _display = _joined = None


@contextmanager
def busy(text: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show one line of work outside of a sweep; what is yielded shows another in its place."""
    watched = wanted(quiet)

    def tell(text: str) -> None:
        if watched:
            print(f"\r\x1b[K{text} ...", end="", file=sys.stderr, flush=True)

    tell(text)
    try:
        yield tell
    finally:
        if watched:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Row:
    """One running cell: number, name, stage, start (Unix seconds), process."""

    number: int
    name: str
    text: str
    since: float
    owner: str


class Line:
    """The live line of one cell, written by the process that runs it."""

    def __init__(self, folder: Path, number: int, name: str) -> None:
        _join(folder)
        self.number, self.name = number, name
        self.skipped = False
        self._since = time.time()
        self._owner = owner.this_process()

    @property
    def watched(self) -> bool:
        """Whether there is a live display."""
        return _joined is not None

    def __call__(self, text: str) -> None:
        """Show the stage of the cell."""
        if _joined is not None:
            row = Row(self.number, self.name, text, self._since, self._owner)
            with suppress(OSError), written_beside(_file(_joined, _ROW)) as part:
                part.write_text(json.dumps(asdict(row)))  # an error: nobody watches any more

    def __enter__(self) -> "Line":
        self("preparing")
        return self

    def __exit__(self, *error: object) -> None:
        if _joined is not None:
            with suppress(OSError):
                _file(_joined, _ROW).unlink(missing_ok=True)
            _say({"seconds": None if self.skipped else time.time() - self._since})


class Console(logging.StreamHandler):
    """Log handler that writes to standard error, above the live lines if there are any."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__()
        if quiet:
            self.setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a message to the process that draws, or write it."""
        if not _say({"line": self.format(record)}):
            super().emit(record)


class Display(threading.Thread):
    """Draws five times a second, in a thread of the main process."""

    def __init__(self, folder: Path, n_cells: int, unit: str = "cells") -> None:
        super().__init__(name="hmm_exp.live", daemon=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.n_cells, self.unit = folder, n_cells, unit
        self.n_done = 0
        self.seconds: list[float] = []  # of cells that were run
        self._begun = time.time()
        self._read: dict[Path, int] = {}  # bytes of every file of messages that were shown
        self._height = 0
        self._side_by_side = 1
        self._shown = tinted if has_colour(sys.stderr) else str
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Draw until `close`."""
        while not self._over.wait(PERIOD):
            self._draw(self._picture)

    def close(self) -> None:
        """Show the last messages, erase the live lines, and remove the folder."""
        self._over.set()
        self.join()
        self._draw(lambda: [])
        shutil.rmtree(self.folder, ignore_errors=True)

    def _draw(self, picture: Callable[[], list[str]]) -> None:
        """Write messages over the old lines, and the new lines below, in one write."""
        news = self._news()
        lines = picture()
        back = f"\r\x1b[{self._height - 1}A" if self._height > 1 else "\r"
        text = "".join(f"{line}\n" for line in news) + "\n".join(lines)
        self._height = len(lines)
        with suppress(OSError):
            print(f"{back}\x1b[J{text}", end="", file=sys.stderr, flush=True)

    def _news(self) -> list[str]:
        """Messages since the last call; counts the cells that ended."""
        lines = []
        for file in sorted(self.folder.glob(f"*{_SAID}")):
            for news in self._unread(file):
                if "line" in news:
                    lines += self._shown(news["line"]).splitlines()
                else:
                    self.n_done += 1
                    self.seconds += [] if news["seconds"] is None else [news["seconds"]]
        return lines

    def _unread(self, file: Path) -> list[dict]:
        seen = self._read.get(file, 0)
        with file.open("rb") as stream:
            stream.seek(seen)
            whole = stream.read().rpartition(b"\n")[0]  # a line may be under way
        if not whole:
            return []
        self._read[file] = seen + len(whole) + 1
        return [json.loads(line) for line in whole.splitlines()]

    def _picture(self) -> list[str]:
        """One line for each running cell, as many as there is room for, and the sweep's own."""
        now, size = time.time(), shutil.get_terminal_size()
        rows = self._rows()
        self._side_by_side = max(self._side_by_side, len(rows))
        lines = []
        for row in rows:
            place = f"[{row.number}/{self.n_cells}] " if self.n_cells > 1 else ""
            lines.append(f"{place}{row.name}  {duration(now - row.since)}  {row.text}")
        room = max(1, size.lines - 3)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"... and {len(lines) - room + 1} more cells"]
        if self.n_cells > 1:
            lines.append(self._sum(rows, now))
        return [line[: size.columns - 1] for line in lines]

    def _rows(self) -> list[Row]:
        rows = []
        for file in self.folder.glob(f"*{_ROW}"):
            with suppress(OSError):  # the cell has ended since
                row = Row(**json.loads(file.read_text()))
                rows += [] if owner.is_dead(row.owner) else [row]
        return sorted(rows, key=lambda row: row.number)

    def _sum(self, rows: list[Row], now: float) -> str:
        words = f"{self.n_done} of {self.n_cells} {self.unit} done, {duration(now - self._begun)}"
        if not rows and not self.n_done:
            return f"{words}, starting"
        left = self._left(rows, now)
        return words if left is None else f"{words}, about {duration(left)} left"

    def _left(self, rows: list[Row], now: float) -> float | None:
        """Seconds until the end, if cells take as long as the median so far."""
        if not self.seconds:
            return None
        usual = median(self.seconds)
        waiting = max(0, self.n_cells - self.n_done - len(rows))
        begun = sum(max(0.0, usual - (now - row.since)) for row in rows)
        return (waiting * usual + begun) / self._side_by_side


def duration(seconds: float) -> str:
    """A time span in at most two units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole // 60 % 60:02} min"


def _join(folder: Path) -> None:
    """Write messages into the folder of a sweep that has a live display."""
    global _joined
    place = folder / "live"
    _joined = place if place.is_dir() else None


def _say(news: dict) -> bool:
    """Leave a message for the process that draws; False when there is none."""
    if _joined is None:
        return False
    try:
        with _file(_joined, _SAID).open("a") as file:
            file.write(json.dumps(news) + "\n")
    except OSError:
        return False
    return True


def _file(folder: Path, ending: str) -> Path:
    """This process's own file."""
    return folder / f"{socket.gethostname()}-{os.getpid()}{ending}"


class ProgressThread:
    """Report the current stage and, if `watched`, the progress of the EM runs from a thread.

    `tell` takes a few words, from either thread.
    """

    def __init__(self, tell: Callable[[str], None], watched: bool = True) -> None:
        self._tell, self._watched = tell, watched
        self._stage = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hmm_exp.progress", daemon=True)

    def __call__(self, stage: str) -> None:
        """Start a new stage."""
        self._stage = stage
        self._tell(stage)

    def __enter__(self) -> "ProgressThread":
        if self._watched:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._watched:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(PERIOD):
            if climbs := under_way():
                self._tell(f"{self._stage}: {climbs[0]}")
