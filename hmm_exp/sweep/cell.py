"""One composed config, run and recorded: alone, or as a cell of a sweep.

A process of its own (`child`) reads and fits a cell of a sweep and leaves a bundle on disk. This
process opens the run, supervises and records, so that a crash of the fit costs one cell.

Of cells that run one after the other, each is drawn and recorded while the next is fitted, and
Hydra composes the one after that meanwhile.
"""

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig

from hmm_exp import owner
from hmm_exp.config import Config
from hmm_exp.errors import (
    LONGEST_LINE,
    HmmExpError,
    TrackingError,
    described,
    one_line,
)
from hmm_exp.interrupts import interrupt_of
from hmm_exp.store.folders import remove_run_folder
from hmm_exp.store.store import Store, check_store, open_store, patiently, store_of
from hmm_exp.sweep import child, progress, terminal
from hmm_exp.sweep.search import value_of, worst
from hmm_exp.sweep.start import LOCKS, close_orphans, earlier_cell
from hmm_exp.tracking import tags, ui
from hmm_exp.tracking.bundle import LOG_FILE, PENDING, Bundle, cell_name, data_identity
from hmm_exp.tracking.provenance import ENVIRONMENT_FILE, command_line, environment
from hmm_exp.tracking.record import RunRecord, recorded, removed_on_error, status_after

if TYPE_CHECKING:
    from hmm_exp.experiment.prepare import Prepared
    from hmm_exp.experiment.result import RunResult

_LOOK_EVERY = 0.5  # seconds
log = logging.getLogger(__name__)
# For the log file alone; a child of `hmm_exp` would propagate again after Hydra sets up logging.
_stages = logging.getLogger("hmm_exp_stages")
_stages.propagate = False
_stages.setLevel(logging.INFO)


def run_cell(settings: Config) -> float | None:
    """Run one config: alone an error is raised; in a sweep it is recorded and the sweep goes on.

    Gives the cell's value to a sweeper that optimises; None when it is unknown, because the store
    does not hold the cell, and of a single run.
    """
    if settings.sweep.parent_run is None:
        _run_alone(settings)
        return None
    join_main(settings)
    cell = SweepCell(settings, HydraConfig.get().job.num + 1)
    if settings.sweep.search or settings.sweep.owner != owner.this_process():
        return cell.run()
    _turns.take(cell)
    return None


def record_last() -> None:
    """Record the cell that this process ran last, where it is not recorded yet."""
    _turns.end()


def join_main(settings: Config) -> None:
    """In a process of a launcher: end when the main process ends, and work in its folder."""
    if settings.sweep.owner != owner.this_process():
        _end_with(settings.sweep.owner)
        with suppress(OSError):  # for paths as the user wrote them, where the folder is shared
            os.chdir(HydraConfig.get().runtime.cwd)


def _run_alone(settings: Config) -> None:
    from hmm_exp.experiment.first_use import compile_beside
    from hmm_exp.experiment.prepare import prepare
    from hmm_exp.registry import promotion
    from hmm_exp.sweep.verdict import verdict_lines

    try:
        with progress.busy("checking settings and data", settings.quiet):
            check_store(settings.tracking)
            prepared = prepare(settings)
        store = open_store(settings.tracking)
        close_orphans(store)
    except (HmmExpError, KeyboardInterrupt):
        remove_run_folder()
        raise
    _show_reading(prepared)
    with tempfile.TemporaryDirectory() as folder:
        log_file = Path(folder) / LOG_FILE
        with recorded(RunRecord(store, settings, log_file)) as record, _logged(log_file):
            compile_beside()
            run_id = record.start(data_identity(prepared) | {tags.COMMAND: command_line()})
            with removed_on_error(store, run_id):
                store.client.log_text(run_id, environment(), ENVIRONMENT_FILE)
            result = _fitted_alone(prepared, Path(folder), record)
    terminal.print_run(result)
    print(f"run {run_id}: {ui.ui_link(store, run_id=run_id)}")
    run = store.client.get_run(run_id)
    print(*verdict_lines(store.client, run, [run], {}), sep="\n")
    if settings.promote:
        decision = promotion.promote(
            store.client, run_id, registry_name=settings.registry.name, gate=settings.gate
        )
        print(*decision.lines(settings.registry.name), sep="\n")
    print(result.regime_now)


def _show_reading(prepared: "Prepared") -> None:
    """Print what was read, and warnings about it."""
    lines = [] if prepared.config.quiet else prepared.what_was_read
    warnings = [f"warning: {text}" for text in prepared.source.report.get("warnings", [])]
    for line in [*lines, *warnings]:
        print(line, file=sys.stderr, flush=True)


def _fitted_alone(prepared: "Prepared", folder: Path, record: RunRecord) -> "RunResult":
    """Fit and record a single run, with live progress on a terminal."""
    from hmm_exp.experiment.run import run
    from hmm_exp.sweep.progress import ProgressThread
    from hmm_exp.tracking.pack import write_bundle

    name = cell_name(prepared.config)
    if progress.wanted(prepared.config.quiet):
        progress.start(folder, 1)
    try:
        with progress.Line(folder, 1, name) as line:
            with ProgressThread(line, line.watched) as report:

                def stage(text: str) -> None:
                    _stages.info(text)
                    report(text)

                result = run(prepared, stage)
                stage("writing")
                bundle = write_bundle(result, folder / "run", folder / LOG_FILE)
            line("recording")
            record.finish(bundle)
        log.info("%s  %s", name, terminal.summary_line(bundle.metrics, bundle.tags))
    finally:
        progress.stop()
    return result


@contextmanager
def _logged(log_file: Path) -> Iterator[None]:
    """Write the log messages of the package and the stages of the work into a file."""
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger("hmm_exp"), _stages]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


@cache
def _end_with(main: str | None) -> None:
    """End this launcher process soon after the main process: a resumed sweep repeats its cell."""

    def watch() -> None:
        while not owner.is_dead(main):
            time.sleep(_LOOK_EVERY)
        os._exit(1)  # the child sees it by itself

    threading.Thread(target=watch, name="hmm_exp.main", daemon=True).start()


class Turns:
    """Cells that take turns in this process: each is recorded while the next is fitted."""

    def __init__(self) -> None:
        self._last: SweepCell | None = None

    def take(self, cell: "SweepCell") -> None:
        """Begin a cell, and record the one before it meanwhile."""
        last, self._last = self._last, cell
        if last is not None:
            last.wait()
        cell.begin(last)
        if last is not None:
            last.record()

    def end(self) -> None:
        """End the last cell."""
        last, self._last = self._last, None
        if last is not None:
            last.wait()
            last.record()


_turns = Turns()


@dataclass
class SweepCell:
    """One cell of a sweep in the process that supervises it: begun, waited for, recorded.

    A failure is recorded, and the sweep goes on.
    """

    settings: Config
    number: int

    def __post_init__(self) -> None:
        self.value: float | None = worst(self.settings.sweep.objective)
        self._open: RunRecord | None = None
        self._child: child.Worker | None = None  # that fits the cell and writes its bundle
        self.place: Path | None = None  # folder of a bundle that is not recorded yet
        self._line = ExitStack()  # ends the cell's live line
        self._lock: FileLock | None = None  # on the same cell of another trial

    def run(self) -> float | None:
        """Run and record the cell.

        Gives its `sweep.objective`, the worst of a failed cell; None when the store does not hold
        the cell.
        """
        try:
            self.begin()
            self.wait()
            self.record()
        finally:
            if self._lock is not None:
                self._lock.release()
        return None if self._open is None or self._open.unrecorded else self.value

    def begin(self, last: "SweepCell | None" = None) -> None:
        """Open the run and let the child fit.

        `last` is the cell before, not recorded yet. If it has the same data and settings, it is
        recorded first, because both bundles have the same folder.
        """
        try:
            store = store_of(self.settings.tracking)
        except TrackingError as error:
            log.error("%s  FAILED: %s", self.head, described(error))
            return
        record = self._open = RunRecord(store, self.settings, self.log_file)
        with self._reported(record):
            line = self._line.enter_context(progress.Line(self.folder, self.number, self.name))
            if self.is_superseded(store):
                return
            worker, within = child.worker(), self._within
            words = ("prepare", self.settings, self.log_file)
            space = worker.ask(*words, within=within, on_progress=line)
            self._lock_others_out(space)
            place = self.folder / PENDING / space[tags.FINGERPRINT]
            if self.is_done(store, space):
                shutil.rmtree(place, ignore_errors=True)  # of a process killed after recording it
                line.skipped = True
                return
            record.start(space)
            self.place = place
            if last is not None and last.place == self.place:
                last.record()
            if not self.place.is_dir():  # of an earlier start that could not record it
                self.place.parent.mkdir(parents=True, exist_ok=True)
                fit = ("fit", self.place, line.watched)
                worker.send(*fit, within=within, on_progress=line)
                self._child = worker

    def wait(self) -> None:
        """Wait for the fit, and for the bundle where the child itself writes it."""
        with self._line:
            if self._child is None or self._open is None or self.place is None:
                return
            with self._reported(self._open):
                is_written_beside = self._child.answer()
                if not is_written_beside and self._child.has_written(self.place, self._within):
                    self._child = None

    def record(self) -> None:
        """Record the bundle and print a line; only once.

        The bundle stays on disk when the store does not answer within the patience.
        """
        place = self.place
        if place is None or self._open is None:
            return
        with self._reported(self._open):
            is_told = self._child is None or self._child.has_written(place, self._within)
            if not is_told and not place.is_dir():
                self._fit_again(place)
            bundle = Bundle.read(place)
            try:
                self._open.finish(self.to_record(bundle))
            except TrackingError as error:
                raise TrackingError(f"{error}; the finished work is in {place}") from None
            self.value = value_of(self.settings.sweep.objective, bundle.metrics, bundle.tags)
            self.report(bundle)
        self.place = self._child = None

    def _fit_again(self, place: Path) -> None:
        """Fit in another child: the first ended in the next cell, before all was drawn."""
        log.info("%s  is fitted again: its process ended in the cell after it", self.head)
        self._child = child.worker()
        self._child.ask("prepare", self.settings, self.log_file, within=self._within)
        self._child.ask("fit", place, within=self._within)
        self._child.has_written(place, self._within)

    @contextmanager
    def _reported(self, record: RunRecord) -> Iterator[None]:
        """Record and print a failure; the sweep goes on, except after an interrupt."""
        try:
            with recorded(record):
                yield
        except (Exception, KeyboardInterrupt) as error:
            self.place = self._child = None
            if not record.is_finished:
                self.report_failure(error, record.unrecorded)
            if interrupt_of(error) or record.is_finished:
                raise

    def _lock_others_out(self, space: dict[str, str]) -> None:
        """Wait for the same cell of another trial: a search may choose one twice at a time."""
        if self.settings.sweep.search is not None:
            folder = self.folder / LOCKS
            folder.mkdir(exist_ok=True)
            self._lock = FileLock(folder / space[tags.FINGERPRINT])
            self._lock.acquire()

    @property
    def name(self) -> str:
        """Name for the progress line."""
        return cell_name(self.settings)

    @property
    def head(self) -> str:
        """Number in the sweep, and name."""
        return f"[{self.number}/{self.settings.sweep.n_cells}] {one_line(self.name, 120)}"

    @property
    def log_file(self) -> Path:
        """Log file of the cell."""
        attempt = self.settings.sweep.attempt
        return self.folder / "logs" / f"{self.number}.{attempt}.log"

    @property
    def folder(self) -> Path:
        """Folder of the sweep, or a temporary one on a machine that does not share it."""
        folder = Path(self.settings.sweep.folder or tempfile.gettempdir())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return Path(tempfile.gettempdir()) / "hmm_exp" / str(self.settings.sweep_id)
        return folder

    def is_superseded(self, store: Store) -> bool:
        """Whether a later start of the sweep has replaced this one."""
        parent_run = str(self.settings.sweep.parent_run)
        parent = patiently(lambda: store.client.get_run(parent_run), self._patience)
        newest = parent.data.tags.get(tags.ATTEMPT)
        if newest in (None, str(self.settings.sweep.attempt)):
            return False
        log.warning("%s  left to a later start of this sweep", self.head)
        return True

    def is_done(self, store: Store, space: dict[str, str]) -> bool:
        """Whether an earlier start of this sweep, or trial of this search, ran the cell."""
        sweep = self.settings.sweep
        if sweep.attempt == 1 and sweep.search is None:
            return False
        known = (store, self.settings.sweep_id, space[tags.FINGERPRINT], sweep.attempt)
        found = patiently(lambda: earlier_cell(*known), self._patience)
        if found is None:
            return False
        self.value = value_of(sweep.objective, found.data.metrics, found.data.tags)
        failed = found.info.status == "FAILED"
        log.info("%s  already %s", self.head, "failed" if failed else "fitted")
        return True

    def to_record(self, bundle: Bundle) -> Bundle:
        """What of the bundle goes into the store."""
        return bundle

    def report(self, bundle: Bundle) -> None:
        """Print the recorded cell in one line."""
        log.info("%s  %s", self.head, terminal.summary_line(bundle.metrics, bundle.tags))

    def report_failure(self, error: BaseException, unrecorded: str) -> None:
        """Print a failure in one line."""
        reason = f"{status_after(error)}: {described(error)} (log: {self.log_file}){unrecorded}"
        log.error("%s  %s", self.head, one_line(reason, LONGEST_LINE - len(self.head) - 2))
        log.debug("the full traceback", exc_info=True)

    @property
    def _patience(self) -> float:
        return self.settings.tracking.patience

    @property
    def _within(self) -> float | None:
        return self.settings.sweep.cell_timeout
