"""The end of a sweep: leaderboard, winner, gate, promotion, and the parent's record.

It reads the store by `sweep_id`, so it sees cells that ran in other processes or on other machines.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Run, RunStatus

from hmm_exp.config import Config
from hmm_exp.errors import TrackingError
from hmm_exp.registry import promotion
from hmm_exp.store.store import Store, analyse, patiently, store_of
from hmm_exp.sweep import child, leaderboard, luck, terminal
from hmm_exp.sweep.leaderboard import Choice
from hmm_exp.sweep.search import caveat
from hmm_exp.sweep.start import close_orphans
from hmm_exp.sweep.verdict import verdict_lines
from hmm_exp.tracking import tags, ui
from hmm_exp.tracking.bundle import LOG_FILE
from hmm_exp.tracking.read import LEADERBOARD_FILE
from hmm_exp.tracking.record import log_files
from hmm_exp.tracking.runs import called, current_cells, sweep_cells, sweep_members, sweep_parent

DRAW_BIC = "hmm_exp.figures.search:save_bic_by_space"
Result = TypeVar("Result")


@dataclass(frozen=True)
class FinishedSweep:
    """A sweep whose cells have run, as the store holds it."""

    settings: Config
    store: Store
    # `parent`, `cells`: the sweep's own run, and the cells that count: finished ones, and those of
    # the last start.
    parent: Run
    cells: list[Run]

    @classmethod
    def read(cls, settings: Config) -> "FinishedSweep":
        """Close the runs that nobody works on and read the sweep. Raises TrackingError."""
        sweep_id, patience = str(settings.sweep_id), settings.tracking.patience
        store = patiently(lambda: store_of(settings.tracking), patience)
        patiently(lambda: close_left(store, sweep_id), patience)
        cells = patiently(lambda: sweep_cells(store.client, sweep_id), patience)
        parent = patiently(lambda: sweep_parent(store.client, sweep_id), patience)
        return cls(settings, store, parent, current_cells(cells, str(settings.sweep.attempt)))

    @property
    def sweep_id(self) -> str:
        """Id of the sweep."""
        return str(self.settings.sweep_id)

    @property
    def complete(self) -> bool:
        """Whether every cell of the grid finished."""
        return not self._failed and self._n_missing <= 0

    def print_leaderboard(self, winner: str | None) -> None:
        """Print the cells, best first; `winner` is the run that was chosen."""
        if self.cells:
            table = leaderboard.leaderboard(self.cells)
            print(f"\n{terminal.leaderboard_lines(table, winner)}\n")

    def print_failures(self) -> None:
        """Name the cells that did not finish."""
        for run, reason in zip(self._failed, self.failures, strict=True):
            print(f"{run.info.status}: {called(run)} (run {run.info.run_id}): {reason}")
            log = run.data.tags.get(tags.LOG, f"{self.settings.sweep.folder}/logs")
            print(f"  log: {log}, and {LOG_FILE} of the run")
        if self._n_missing > 0:
            print(f"MISSING: {self._n_missing} of {self.settings.sweep.n_cells} cells left no run")

    @property
    def failures(self) -> list[str]:
        """Why each cell that did not finish did not."""
        return [
            run.data.tags.get(tags.STATUS_REASON, "its process is gone") for run in self._failed
        ]

    @property
    def _failed(self) -> list[Run]:
        return [run for run in self.cells if run.info.status != "FINISHED"]

    @property
    def _n_missing(self) -> int:
        if self.settings.sweep.search:  # a search that did not end ends the sweep
            return 0
        return (self.settings.sweep.n_cells or 0) - len(self.cells)

    def choose(self) -> Choice:
        """Choose the winner; none from an incomplete sweep where `sweep.require_all` is set."""
        choice = self._ask(lambda: leaderboard.choose(self.store.client, self.sweep_id, self.cells))
        if self.settings.sweep.require_all and not self.complete:
            return Choice(None, ["not every cell finished: no winner (sweep.require_all=true)"])
        return choice

    def weigh(self, choice: Choice) -> tuple[list[str], list[str]]:
        """Record how likely the winner's gain is by luck; gives notes on it, and the verdict.

        Without a winner there is no verdict.
        """
        client = self.store.client
        found = self._ask(lambda: luck.weigh_choice(client, self.cells, choice.run_id))
        self._ask(lambda: luck.write_luck(client, self.parent.info.run_id, found))
        tried_by_search = caveat(self.parent.data.tags, found.n_tried) if found.check else ""
        notes = [*found.lines, *filter(None, [tried_by_search])]
        notes += [*luck.missing_scores(self.cells), *luck.shortfalls(self.cells)]
        if (winner := self.winner(choice)) is None:
            return notes, []
        return notes, self._ask(lambda: verdict_lines(client, winner, self.cells, found.metrics))

    def promote(self, choice: Choice) -> tuple[list[str], bool]:
        """Ask the gate and print its decision; gives the lines, and whether it could be asked."""
        was_asked = True
        try:
            lines = self._decision(choice)
        except TrackingError as error:
            lines = [f"not promoted: {error}; hmm-promote --sweep {self.sweep_id} tries again"]
            was_asked = False
        print(*lines, sep="\n")
        return lines, was_asked

    def record(self, choice: Choice, complete: bool) -> None:
        """Write the parent's files, tags and status, and the sweep's view in the UI."""
        store, cells, place = self.store, self.cells, (self.store.experiment_id, self.sweep_id)
        if self.settings.sweep.search:  # until now its trials
            tried, run_id = str(len(cells)), self.parent.info.run_id
            self._ask(lambda: store.client.set_tag(run_id, tags.N_CELLS, tried))
        self._ask(lambda: _write_parent(store, self.parent, cells, choice, complete))
        self._ask(lambda: ui.save_view(store.client, *place, cells, choice.run_id))
        analyse(store)

    def describe(self, choice: Choice, notes: list[str]) -> None:
        """Write the parent's page in the UI; last, because it names the report if there is one."""
        self._ask(lambda: self._write_page(choice, notes))

    def print_links(self, choice: Choice, complete: bool) -> None:
        """Print where to compare the cells, how to go on, and the winner's regime now."""
        link = ui.ui_link(self.store, sweep_id=self.sweep_id)
        print(f"compare: {ui.ui_command(self.store)}{link}")
        if not complete:
            print(f"repeat the command with sweep_id={self.sweep_id} to try unfinished cells again")
        if winner := self.winner(choice):
            print(winner.data.tags.get(tags.REGIME_NOW, ""))

    def _ask(self, step: Callable[[], Result]) -> Result:
        return patiently(step, self.settings.tracking.patience)

    def winner(self, choice: Choice) -> Run | None:
        """The run that was chosen."""
        return next((run for run in self.cells if run.info.run_id == choice.run_id), None)

    def _decision(self, choice: Choice) -> list[str]:
        settings = self.settings
        if choice.run_id is None:
            return ["nothing to promote"]
        if settings.promote is False:
            return [f"winner: run {choice.run_id}; not promoted (promote=false)"]
        name = settings.registry.name
        decision = promotion.promote(
            self.store.client, choice.run_id, registry_name=name, gate=settings.gate
        )
        return decision.lines(name)

    def _write_page(self, choice: Choice, notes: list[str]) -> None:
        client, run_id = self.store.client, self.parent.info.run_id
        page = ui.sweep_page(
            self.parent,
            self.winner(choice),
            leaderboard.leaderboard(self.cells) if self.cells else None,
            [*choice.reasons[::-1], *notes],  # the last one decided
            any(item.path == ui.REPORT for item in client.list_artifacts(run_id)),
        )
        client.set_tag(run_id, tags.NOTE, page[: tags.LONGEST])


def close_left(store: Store, sweep_id: str) -> None:
    """Close the runs that a launcher left RUNNING when it returned: nobody works on them.

    A cell whose worker was lost and that the launcher gave to another leaves such a run, and so
    does a run whose making the store confirmed to nobody.
    """
    for run in sweep_members(store.client, sweep_id, "RUNNING"):
        store.client.set_terminated(run.info.run_id, "KILLED")
    close_orphans(store)


def _write_parent(
    store: Store, parent: Run, cells: list[Run], choice: Choice, succeeded: bool
) -> None:
    """Write leaderboard, figure, verdict and status of the parent run."""
    run_id = parent.info.run_id
    with tempfile.TemporaryDirectory() as folder:
        if cells:
            leaderboard.leaderboard(cells).to_csv(Path(folder) / LEADERBOARD_FILE, index=False)
        criteria = leaderboard.criteria_by_states(cells)
        if not criteria.empty:
            (Path(folder) / "plots").mkdir()
            won = leaderboard.won_place(cells, choice)
            child.helped(DRAW_BIC, Path(folder) / "plots" / "bic.png", criteria, won)()
        log_files(store.client, run_id, Path(folder))
    store.client.set_tag(run_id, tags.VERDICT, "\n".join(choice.reasons)[: tags.LONGEST])
    if choice.run_id:
        store.client.set_tag(run_id, tags.WINNER, choice.run_id)
    status = RunStatus.FINISHED if succeeded else RunStatus.FAILED
    store.client.set_terminated(run_id, RunStatus.to_string(status))
