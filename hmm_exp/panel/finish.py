"""The end of a panel: significance over all symbols, promotions, table and the parent's record."""

import csv
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import TypeVar

import pandas as pd
from mlflow.entities import Metric, Run
from mlflow.tracking import MlflowClient

from hmm_exp.config import Config, GateConfig, TrackingConfig
from hmm_exp.errors import TrackingError, counted
from hmm_exp.judge.unscored import FORECASTS
from hmm_exp.judge.wording import listed
from hmm_exp.panel.plan import model_name, name_template
from hmm_exp.panel.significance import panel_tests
from hmm_exp.panel.table import missing_row, symbol_row, symbols_table, table_lines
from hmm_exp.parallel import run_all
from hmm_exp.registry import promotion
from hmm_exp.registry.gate import PanelTest, asked_gains
from hmm_exp.registry.promotion import Decision
from hmm_exp.registry.versions import STAGE
from hmm_exp.store.store import Store, analyse, patiently, store_of
from hmm_exp.tracking import tags, ui
from hmm_exp.tracking.read import LEADERBOARD_FILE, READERS, SYMBOLS_FILE, read_text
from hmm_exp.tracking.record import log_files
from hmm_exp.tracking.runs import runs_by_id, sweep_parent, symbol_runs

Result = TypeVar("Result")
Tests = dict[str, PanelTest | None]
Tell = Callable[[str], None]
_NO_RUN = "it left no run"
_NAMED = 5  # symbols in a line


@dataclass(frozen=True)
class FinishedPanel:
    """A panel whose jobs have run, as the store holds it."""

    settings: Config
    store: Store
    parent: Run
    symbols: dict[str, Run]  # runs of the symbols, by name
    winners: dict[str, Run]  # winning cells of the symbols that have one; no other cell is read
    names: list[str]  # all symbols of the panel
    tell: Tell  # shows what is under way

    @classmethod
    def read(
        cls, settings: Config, names: list[str], tell: Tell = lambda text: None
    ) -> "FinishedPanel":
        """Read a panel. Raises TrackingError.

        `names` are the symbols of the command. One of an earlier start counts too if it has a
        winner.
        """
        sweep_id, patience = str(settings.sweep_id), settings.tracking.patience
        store = patiently(lambda: store_of(settings.tracking), patience)
        client = store.client
        runs = patiently(lambda: symbol_runs(client, sweep_id), patience)
        parent = patiently(lambda: sweep_parent(client, sweep_id), patience)
        known = {run.data.tags[tags.SYMBOL]: run for run in runs}
        chosen = {s: run.data.tags[tags.WINNER] for s, run in known.items() if _has_winner(run)}
        cells = patiently(lambda: runs_by_id(client, [*chosen.values()]), patience)
        winners = {symbol: cells[run_id] for symbol, run_id in chosen.items() if run_id in cells}
        names = sorted({*names, *chosen})
        symbols = {name: known[name] for name in names if name in known}
        return cls(settings, store, parent, symbols, winners, names, tell)

    @classmethod
    def recorded(
        cls, client: MlflowClient, parent: Run, uri: str | None, gate: GateConfig, registry: str
    ) -> "FinishedPanel":
        """A panel as its parent run records it, for another decision."""
        experiment = client.get_experiment(parent.info.experiment_id).name
        sweep_id = parent.data.tags[tags.SWEEP_ID]
        settings = Config(gate=gate, sweep_id=sweep_id)
        settings.tracking = TrackingConfig(uri=uri, experiment=experiment)
        settings.registry.name = name_template(registry)
        settings.sweep.attempt = int(parent.data.tags.get(tags.ATTEMPT, "1"))
        names = [run.data.tags[tags.SYMBOL] for run in symbol_runs(client, sweep_id)]
        return cls.read(settings, sorted(names))

    @property
    def sweep_id(self) -> str:
        """Id of the panel."""
        return str(self.settings.sweep_id)

    @property
    def complete(self) -> bool:
        """Whether every cell of every symbol finished."""
        return not self.unfinished

    @property
    def unfinished(self) -> dict[str, str]:
        """Symbols without a run, or with a cell that did not finish, and why."""
        found = {name: _NO_RUN for name in self.names if name not in self.symbols}
        for symbol, run in self.symbols.items():
            if run.info.status != "FINISHED":
                found[symbol] = run.data.tags.get(tags.STATUS_REASON, "its process is gone")
        return found

    def test(self) -> Tests:
        """Test the gains of all winners, and record the figures on the runs of the symbols."""
        client, gate = self.store.client, self.settings.gate
        tests = self._ask(lambda: panel_tests(client, self.winners, gate, self.tell))
        now = int(time.time() * 1000)
        for symbol, test in tests.items():
            if test is not None:
                figures = {"p_value": test.p_value, "q_bh": test.q_bh, "q_by": test.q_by}
                metrics = [Metric(name, float(x), now, 0) for name, x in figures.items()]
                place = self.symbols[symbol].info.run_id
                self._ask(partial(client.log_batch, place, metrics))
        return tests

    def promote(self, tests: Tests, dry_run: bool = False) -> tuple[dict[str, Decision], list[str]]:
        """Ask the gate for every winner; gives decisions by symbol, and failures of the store."""
        decisions: dict[str, Decision] = {}
        failures: list[str] = []
        if self.settings.promote is False:
            return decisions, failures
        is_asked = bool(asked_gains(self.settings.gate))
        for number, (symbol, run) in enumerate(self.winners.items(), 1):
            self.tell(f"asking the gate for symbol {number:,} of {len(self.names):,}")
            test = tests.get(symbol)
            if is_asked and test is None:
                reason = "too few scored test bars for a test of its gains"
                decisions[symbol] = Decision(reasons=[reason])
                continue
            try:
                decisions[symbol] = promotion.promote(
                    self.store.client,
                    run.info.run_id,
                    registry_name=self._model(symbol),
                    gate=self.settings.gate,
                    dry_run=dry_run,
                    panel=test,
                )
            except TrackingError as error:
                failures.append(f"{symbol} is not promoted: {error}")
        return decisions, failures

    def table(self, tests: Tests, decisions: dict[str, Decision]) -> pd.DataFrame:
        """Rows of `symbols.csv`."""
        missing = [name for name in self.names if name not in self.symbols]
        rows = [missing_row(name, _NO_RUN, self._model(name)) for name in missing]
        rows += [
            symbol_row(
                run,
                self.winners.get(symbol),
                tests.get(symbol),
                decisions.get(symbol),
                self._model(symbol),
            )
            for symbol, run in self.symbols.items()
        ]
        return symbols_table(rows)

    def verdict(self, table: pd.DataFrame, tests: Tests) -> list[str]:
        """What the panel shows, in sentences."""
        gate, n_symbols = self.settings.gate, len(self.names)
        now = int(table["version"].notna().sum())
        lines = [f"{now:,} of {counted(n_symbols, 'symbol')} in {STAGE}"]
        if self.settings.promote is False:
            lines = ["nothing is promoted (promote=false)"]
        tested = [test for test in tests.values() if test]
        if tested:
            chosen = sum(test.q_bh <= gate.fdr for test in tested)
            strict = sum(test.q_by <= gate.fdr for test in tested)
            rivals = listed([FORECASTS[name] for name in asked_gains(gate)])
            lines = [
                f"{chosen:,} of {counted(len(tested), 'tested symbol')} forecast test bars better "
                f"than {rivals}; on average at most {gate.fdr:.0%} of such are false (gate.fdr, "
                f"Benjamini-Hochberg); {strict:,} by Benjamini-Yekutieli, which allows any "
                "dependence",
                *lines,
            ]
        elif not asked_gains(gate):
            lines.append("the gate asks for no gain: promotions have no false discovery rate")
        regimes = Counter(table["regime"].dropna())
        if regimes:
            lines.append(
                "regimes now: " + ", ".join(f"{label} {n:,}" for label, n in regimes.most_common())
            )
        return lines

    def record(self, table: pd.DataFrame, lines: list[str]) -> None:
        """Write the parent's files, tags and status, and the panel's view in the UI."""
        self._ask(lambda: self._write(table, lines))
        place = (self.store.experiment_id, self.sweep_id)
        self._ask(lambda: ui.save_view(self.store.client, *place, [*self.winners.values()]))
        analyse(self.store)

    def describe(self, table: pd.DataFrame, lines: list[str]) -> None:
        """Write the parent's page in the UI."""
        run_id = self.parent.info.run_id
        page = ui.panel_page(self.parent, table, lines)
        self._ask(lambda: self.store.client.set_tag(run_id, tags.NOTE, page[: tags.LONGEST]))

    def failure_lines(self) -> list[str]:
        """Name symbols that did not finish, each with its reason."""
        unfinished = self.unfinished
        lines = [f"NOT FINISHED: {name}: {why}" for name, why in list(unfinished.items())[:_NAMED]]
        more = len(unfinished) - len(lines)
        return lines + ([f"and {more:,} more symbols did not finish"] if more > 0 else [])

    def links(self) -> list[str]:
        """Where to compare, and how to go on."""
        link = ui.ui_link(self.store, sweep_id=self.sweep_id)
        lines = [f"compare: {ui.ui_command(self.store)}{link}"]
        if not self.complete:
            lines.append(
                f"repeat the command with sweep_id={self.sweep_id} to try unfinished symbols again"
            )
        return lines

    def table_lines(self, table: pd.DataFrame) -> list[str]:
        """The table for the terminal."""
        return table_lines(table, self.parent.info.run_id)

    def _model(self, symbol: str) -> str:
        return model_name(self.settings.registry.name, symbol)

    def _write(self, table: pd.DataFrame, lines: list[str]) -> None:
        client, run_id = self.store.client, self.parent.info.run_id
        with tempfile.TemporaryDirectory() as folder:
            table.to_csv(Path(folder) / SYMBOLS_FILE, index=False)
            self.write_leaderboard(Path(folder) / LEADERBOARD_FILE)
            log_files(client, run_id, Path(folder))
        client.set_tag(run_id, tags.VERDICT, "\n".join(lines)[: tags.LONGEST])
        client.set_tag(run_id, tags.N_SYMBOLS, str(len(self.names)))
        if asked_gains(self.settings.gate):
            client.set_tag(run_id, tags.FDR, f"{self.settings.gate.fdr:g}")
        client.set_terminated(run_id, "FINISHED" if self.complete else "FAILED")

    def write_leaderboard(self, path: Path) -> None:
        """Write the leaderboards of all symbols as one; none without a judged cell."""
        client, runs = self.store.client, [*self.symbols.values()]
        self.tell(f"reading the leaderboards of {len(runs):,} symbols")
        boards = run_all(lambda run: read_text(client, run, LEADERBOARD_FILE), runs, READERS)
        rows = [
            {"symbol": symbol} | row
            for symbol, board in zip(self.symbols, boards, strict=True)
            for row in csv.DictReader(StringIO(board or ""))
        ]
        if not rows:
            return
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(chain.from_iterable(rows))))
            writer.writeheader()
            writer.writerows(rows)

    def _ask(self, step: Callable[[], Result]) -> Result:
        return patiently(step, self.settings.tracking.patience)


def _has_winner(run: Run) -> bool:
    return tags.WINNER in run.data.tags
