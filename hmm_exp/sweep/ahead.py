"""Fit the first cells of a sweep while its main process still opens the store.

    ahead = Ahead(cells, prepare=channel.close)     # a copy of this process begins to fit them
    ahead.take(prepared)    # ends the copy; the fit of a cell, or None if there is none yet

What happens to the copy costs nothing but its work: a cell that it could not fit is fitted later,
by the process that is watched.
"""

import io
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, cast

from hmm_exp.config import Config
from hmm_exp.experiment.prepare import Prepared, prepare
from hmm_exp.judge.split import WalkForward
from hmm_exp.parallel import cores
from hmm_exp.sweep.beside import work_beside

if TYPE_CHECKING:
    from hmm_exp.experiment.run import Fitted


class Ahead:
    """Fits of cells by a copy of this process, until the first of them is taken.

    Raises OSError if the copy cannot be made.

    Parameters
    ----------
    prepare
        Called in the copy first, to close what only the original may use.
    """

    def __init__(self, cells: list[Config], prepare: Callable[[], None]) -> None:
        self._made: dict[str, bytes] = {}  # by fingerprint
        self._left = ExitStack()
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when a fit is taken
        self._file = self._left.enter_context(file)
        work = partial(_fit_all, cells, self._file)
        self._copy = work_beside(work, within=None, prepare=prepare, done=lambda reason: None)
        self._left.callback(self._end)

    def take(self, prepared: Prepared) -> "Fitted | None":
        """The fit of a cell, if it was made; what it printed is printed here."""
        self._left.close()
        if prepared.fingerprint not in self._made:
            return None
        made = io.BytesIO(self._made.pop(prepared.fingerprint))
        fit, printed = _WithRows(made, prepared).load()
        with suppress(OSError):  # the disk of the log is full
            os.write(sys.stderr.fileno(), printed)
        return cast("Fitted", fit)

    def _end(self) -> None:
        """End the copy and read what it left."""
        self._copy.kill()
        self._copy.wait()
        self._file.seek(0)
        with suppress(EOFError, pickle.UnpicklingError):  # the last may be cut off
            while True:
                self._made |= pickle.load(self._file)


class _WithoutRows(pickle.Pickler):
    """Leaves out the prepared rows of a fit, which are prepared once more where it is taken."""

    def persistent_id(self, obj: object) -> str | None:
        return "rows" if isinstance(obj, Prepared) else None


class _WithRows(pickle.Unpickler):
    """Puts prepared rows in their place."""

    def __init__(self, file: IO[bytes], prepared: Prepared) -> None:
        super().__init__(file)
        self._prepared = prepared

    def persistent_load(self, pid: str) -> Prepared:
        return self._prepared


def _fit_all(cells: list[Config], file: IO[bytes]) -> None:
    """Fit cells and append each to a file; those that fail, and walks forward, are left out."""
    from hmm_exp.experiment.run import fitted

    with tempfile.TemporaryFile() as printed:
        print_to(printed.fileno())
        for settings in cells:
            start = printed.seek(0, os.SEEK_END)
            with suppress(Exception):  # the cell meets it again
                prepared = prepare(_with_a_core_less(settings))
                if isinstance(prepared.split, WalkForward):
                    continue
                fit = fitted(prepared, partial(print, file=sys.stderr, flush=True))
                printed.seek(start)
                made = io.BytesIO()
                _WithoutRows(made).dump((fit, printed.read()))
                pickle.dump({prepared.fingerprint: made.getvalue()}, file)
                file.flush()


def _with_a_core_less(settings: Config) -> Config:
    """Settings that leave a core to the process that opens the store; the fits are the same."""
    threads = settings.compute.threads or max(1, cores() - 1)
    return replace(settings, compute=replace(settings.compute, threads=threads))


def print_to(target: int) -> None:
    """Redirect standard output and error of this process to an open file."""
    with suppress(OSError):  # the disk of the log before is full
        sys.stdout.flush()
        sys.stderr.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
