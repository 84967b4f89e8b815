"""One symbol of a panel: its cells one after the other, then the choice among them.

The symbol has a run of its own, the parent of its cells. The process that supervises the cells
chooses and records, so that all symbols of a panel are judged side by side; the end of the panel
adds what needs all of them.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Run, RunTag

from hmm_exp import owner
from hmm_exp.config import Config
from hmm_exp.errors import LONGEST_LINE, counted, described, one_line
from hmm_exp.judge.wording import signed
from hmm_exp.market.panel import PanelSymbol
from hmm_exp.panel.plan import Job
from hmm_exp.store.store import Store, patiently
from hmm_exp.sweep import child, leaderboard
from hmm_exp.sweep.cell import SweepCell, Turns
from hmm_exp.sweep.child import CellError
from hmm_exp.sweep.finish import FinishedSweep
from hmm_exp.sweep.leaderboard import Choice
from hmm_exp.tracking import tags
from hmm_exp.tracking.bundle import Bundle
from hmm_exp.tracking.read import LEADERBOARD_FILE
from hmm_exp.tracking.record import fail_run, log_files
from hmm_exp.tracking.runs import called, current_cells, runs_of_symbol

_OF_WINNER = {tags.WINNER, tags.REGIME_NOW, tags.STATUS_REASON}
_OF_WINNER |= {f"{tags.NOW}.{name}" for name in ("regime", "since", "probability")}
Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass
class SymbolCell(SweepCell):
    """One cell of a symbol; the line about it is that of its symbol."""

    symbol: str = ""
    # Fingerprints of cells that an earlier start finished, and the settings of all by fingerprint.
    finished: set[str] = field(default_factory=set)
    reopen: Callable[[], None] = lambda: None  # before anything of the symbol changes
    seen: dict[str, Config] = field(default_factory=dict)
    digests: set[str] = field(default_factory=set)  # of the data as read now
    failure: str | None = None
    is_new: bool = False  # whether this start of the panel ran it

    @property
    def name(self) -> str:
        """Name for the progress line."""
        return f"{self.symbol} {super().name}"

    def is_superseded(self, store: Store) -> bool:
        """A later start of the panel is noticed by the job, once for every symbol."""
        return False

    def is_done(self, store: Store, space: dict[str, str]) -> bool:
        """Whether an earlier start of this panel, or of this job, finished the cell."""
        fingerprint = space[tags.FINGERPRINT]
        self.seen[fingerprint] = self.settings
        self.digests.add(space[tags.DATA_DIGEST])
        if fingerprint in self.finished:
            return True
        self.is_new = True
        self.reopen()
        return False

    def to_record(self, bundle: Bundle) -> Bundle:
        """Leave the EM iterations out: of every observation space they would be another metric."""
        return replace(bundle, log_lik_history=[])

    def report(self, bundle: Bundle) -> None:
        """Print nothing."""

    def report_failure(self, error: BaseException, unrecorded: str) -> None:
        """Keep the reason for the symbol's line."""
        self.is_new = True
        self.failure = f"{described(error)} (log: {self.log_file}){unrecorded}"


@dataclass
class Symbol:
    """One symbol in the process that supervises its cells."""

    job: Job
    number: int  # in the panel, from 0
    one: PanelSymbol
    store: Store
    n_symbols: int
    _is_open: bool = False  # whether its run is RUNNING by this process

    def run(self) -> None:
        """Run and record the symbol's cells and choose among them; print one line."""
        before = self._recorded()
        parent = self._found(before) or self._created()
        try:
            self._run(parent, before)
        except Exception as error:
            with suppress(Exception):  # the first error is the one to report
                fail_run(self.store, parent.info.run_id, error)
            raise

    def _run(self, parent: Run, before: list[Run]) -> None:
        cells = self._run_cells(parent, before)
        failures = [cell.failure for cell in cells if cell.failure]
        if parent.info.status == "FINISHED" and not any(cell.is_new for cell in cells):
            log.info("%s  already fitted", self.head)
            return
        self._reopen(parent)  # also where its data can no longer be read
        finished = self._finished(parent, cells[0].digests)
        choice = self._judged(finished, cells[0].seen)
        self._report(finished, choice, failures)

    @property
    def head(self) -> str:
        """Number in the panel, and name."""
        return f"[{self.number + 1}/{self.n_symbols}] {one_line(self.one.symbol, 60)}"

    def _ask(self, step: Callable[[], Result]) -> Result:
        return patiently(step, self.job.settings.tracking.patience)

    def _recorded(self) -> list[Run]:
        """Runs of the symbol: of earlier starts, or of this job on a worker that was lost."""
        return self._ask(lambda: runs_of_symbol(self.store.client, self.sweep_id, self.one.symbol))

    @property
    def sweep_id(self) -> str:
        """Id of the panel."""
        return str(self.job.settings.sweep_id)

    def _found(self, before: list[Run]) -> Run | None:
        """The symbol's run of an earlier start; one that is not finished is RUNNING from now on."""
        found = next((run for run in before if run.data.tags.get(tags.KIND) == "symbol"), None)
        if found is not None and found.info.status != "FINISHED":
            self._reopen(found)
        return found

    def _reopen(self, parent: Run) -> None:
        """Mark the symbol's run as RUNNING: killed from now on, it is judged again."""
        if self._is_open:
            return
        client, run_id = self.store.client, parent.info.run_id
        self._ask(lambda: client.set_tag(run_id, tags.OWNER, owner.this_process()))
        self._ask(lambda: client.update_run(run_id, status="RUNNING"))
        self._is_open = True

    def _created(self) -> Run:
        self._is_open = True
        about = {
            tags.KIND: "symbol",
            tags.SYMBOL: self.one.symbol,
            tags.SWEEP_ID: self.sweep_id,
            tags.PARENT_RUN: str(self.job.settings.sweep.parent_run),
            tags.OWNER: owner.this_process(),
        }
        create = self.store.client.create_run
        place, name = self.store.experiment_id, self.one.symbol[:250]
        return self._ask(lambda: create(place, tags=about, run_name=name))

    def _run_cells(self, parent: Run, before: list[Run]) -> list[SymbolCell]:
        done = [run for run in before if run.info.status == "FINISHED"]
        finished = {run.data.tags.get(tags.FINGERPRINT, "") for run in done}
        known = (self.one.symbol, finished, partial(self._reopen, parent))
        seen: dict[str, Config] = {}
        digests: set[str] = set()
        cells: list[SymbolCell] = []
        turns = Turns()
        for place, settings in enumerate(self.job.cells_of(self.one, parent.info.run_id)):
            number = self.number * len(self.job.configurations) + place + 1
            cells.append(SymbolCell(settings, number, *known, seen, digests))
            turns.take(cells[-1])
        turns.end()
        return cells

    def _finished(self, parent: Run, digests: set[str]) -> FinishedSweep:
        """The symbol as a sweep whose cells have run, on the data as read now."""
        client, run_id = self.store.client, parent.info.run_id
        settings = self.job.cells_of(self.one, run_id)[0]
        runs = self._ask(lambda: runs_of_symbol(client, self.sweep_id, self.one.symbol))
        cells = [
            run
            for run in runs
            if run.data.tags.get(tags.KIND) == "cell"
            and run.data.tags.get(tags.DATA_DIGEST, "") in {*digests, ""}
        ]
        cells = current_cells(cells, str(settings.sweep.attempt))
        return FinishedSweep(settings, self.store, parent, cells)

    def _judged(self, finished: FinishedSweep, seen: dict[str, Config]) -> Choice:
        """Choose and weigh the winner, and record what is found on the symbol's run."""
        choice = finished.choose()
        notes, verdict = finished.weigh(choice)
        winner = finished.winner(choice)
        lines = [*verdict, *choice.reasons, *notes]
        about = {tags.VERDICT: "\n".join(lines), tags.N_CELLS: str(len(finished.cells))}
        if finished.failures:
            about[tags.STATUS_REASON] = finished.failures[0]
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            if finished.cells:
                table = leaderboard.leaderboard(finished.cells)
                table.to_csv(place / LEADERBOARD_FILE, index=False)
            if winner is not None:
                about |= {tags.WINNER: winner.info.run_id}
                about |= {tags.REGIME_NOW: winner.data.tags.get(tags.REGIME_NOW, "")}
                about |= self._shown(winner, seen, place)
            self._ask(lambda: self._write(finished, place, about))
        finished.describe(choice, notes)
        return choice

    def _shown(self, winner: Run, seen: dict[str, Config], place: Path) -> dict[str, str]:
        """Write the winner's days, and its figures into its run; gives its regime now as tags."""
        fingerprint = winner.data.tags[tags.FINGERPRINT]
        settings = seen.get(fingerprint)
        if settings is None:  # of another command, before this one resumed its sweep
            return {}
        draws = self.job.settings.tracking.figures and not settings.tracking.figures
        settings = replace(settings, tracking=replace(settings.tracking, figures=draws))
        within, began = settings.sweep.cell_timeout, time.perf_counter()
        try:
            now = child.worker().ask("show", settings, fingerprint, place, within=within)
        except CellError as error:  # not FINISHED, so that resuming tries again
            log.warning("%s  no figures: %s", self.head, error)
            return {tags.STATUS_REASON: f"no figures: {error}"}
        client, seconds = self.store.client, time.perf_counter() - began
        of_symbol = winner.data.tags[tags.PARENT_RUN]
        self._ask(lambda: client.log_metric(of_symbol, "seconds_plots", seconds))
        plots = place / "plots"
        if plots.is_dir():
            run_id = winner.info.run_id
            self._ask(lambda: client.log_artifacts(run_id, str(plots), "plots"))
            for file in plots.iterdir():
                file.unlink()
            plots.rmdir()
        return {f"{tags.NOW}.{name}": text for name, text in now.items()}

    def _write(self, finished: FinishedSweep, place: Path, about: dict[str, str]) -> None:
        client, run_id = self.store.client, finished.parent.info.run_id
        log_files(client, run_id, place)
        found = [RunTag(name, text[: tags.LONGEST]) for name, text in about.items()]
        client.log_batch(run_id, tags=found)
        for name in _OF_WINNER & set(finished.parent.data.tags) - set(about):  # of other data
            client.delete_tag(run_id, name)
        whole = finished.complete and tags.STATUS_REASON not in about
        client.set_terminated(run_id, "FINISHED" if whole else "FAILED")

    def _report(self, finished: FinishedSweep, choice: Choice, failures: list[str]) -> None:
        """Print the symbol in one line."""
        n_cells = counted(len(self.job.configurations), "cell")
        failed = f"{len(failures)} of {n_cells} failed: {failures[0]}" if failures else ""
        winner = finished.winner(choice)
        if winner is None:
            words = [failed or f"no winner: {choice.reasons[-1]}"]
        else:
            gain = winner.data.metrics.get("return_gain_val")
            words = [f"{called(winner)} of {counted(len(finished.cells), 'cell')}"]
            words += [f"gain {signed(gain)} on validation"] if gain is not None else []
            words += [failed] if failed else []
        level = logging.ERROR if failed or winner is None else logging.INFO
        text = one_line(", ".join(words), LONGEST_LINE - len(self.head) - 2)
        log.log(level, "%s  %s", self.head, text)
