r"""One model for all symbols of a panel, by configuration: fitted, recorded, promoted.

    pools = Pools(finished, symbols, configurations)
    pools.run()
    print(*pools.lines(), sep="\n")

The models of the symbols come first, because the pool is compared with their winners. The child
process fits and judges a pool; this process gives it the scores of the winners as files.
"""

import csv
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from io import StringIO
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Run

from hmm_exp.config import Config
from hmm_exp.errors import HmmExpError, counted
from hmm_exp.judge.wording import signed
from hmm_exp.market.panel import PanelSymbol
from hmm_exp.panel.finish import FinishedPanel
from hmm_exp.panel.plan import model_name
from hmm_exp.registry import promotion
from hmm_exp.store.store import patiently
from hmm_exp.sweep import child
from hmm_exp.tracking import tags
from hmm_exp.tracking.bundle import LEFT_OUT_FILE, PENDING, Bundle, cell_name
from hmm_exp.tracking.read import read_scores, read_text
from hmm_exp.tracking.record import LONGEST_NAME, RunRecord, recorded
from hmm_exp.tracking.runs import all_runs, called, current_cells, sweep_cells

Result = TypeVar("Result")
_NAMED = 5  # symbols in lines
_EXACT = (tags.FINGERPRINT, tags.OBSERVATION_SPACE, tags.DATA_DIGEST)


@dataclass
class Pools:
    """The pools of a panel whose symbols are judged."""

    finished: FinishedPanel
    symbols: Sequence[PanelSymbol]
    configurations: Sequence[Config]
    runs: list[Run] = field(default_factory=list)  # recorded pools
    left_out: dict[str, str] = field(default_factory=dict)  # reasons by symbol
    failures: list[str] = field(default_factory=list)

    @cached_property
    def _cells(self) -> list[Run]:
        """Cells of all symbols that count."""
        client, sweep = self.finished.store.client, self.finished.settings.sweep
        found = self._ask(lambda: sweep_cells(client, self.finished.sweep_id))
        return current_cells(found, str(sweep.attempt))

    def run(self) -> None:
        """Fit and record the pool of every configuration; a failure costs one."""
        with tempfile.TemporaryDirectory() as folder:
            own = self._own_scores(Path(folder))
            for configuration in self.configurations:
                cell = self._cell(configuration)
                try:
                    self.runs.append(self._recorded(cell, own))
                except HmmExpError as error:
                    self.failures.append(f"no pool of {cell_name(cell)}: {error}")

    def lines(self) -> list[str]:
        """What the pool shows, and whether it is promoted, in sentences."""
        lines = [
            f"{symbol} is not in the pool: {reason}"
            for symbol, reason in [*self.left_out.items()][:_NAMED]
        ]
        if (more := len(self.left_out) - _NAMED) > 0:
            lines.append(f"and {counted(more, 'symbol')} more are not in it, see {LEFT_OUT_FILE}")
        if (best := self.best) is None:
            return [*lines, *(self._why_none() if self.runs else [])]
        gain = best.data.metrics.get("return_gain_val")
        shown = "" if gain is None else f", gain {signed(gain)} on validation in the mean"
        n_symbols = int(best.data.metrics["n_symbols"])
        lines.append(
            f"pool of {counted(n_symbols, 'symbol')}: {called(best)} of "
            f"{counted(len(self.runs), 'configuration')}{shown} (run {best.info.run_id})"
        )
        lines.append(best.data.tags[tags.VERDICT])
        client = self.finished.store.client
        client.set_tag(self.finished.parent.info.run_id, tags.POOL, best.info.run_id)
        return lines + self._promoted(best)

    @property
    def best(self) -> Run | None:
        """The pool without faults that gains most on validation; None if all have faults."""
        across = self.finished.settings.selection.across
        eligible = [run for run in self.runs if tags.FAULTS not in run.data.tags]
        return max(
            eligible, key=lambda run: run.data.metrics.get(across, float("-inf")), default=None
        )

    def _why_none(self) -> list[str]:
        return [f"no pool is eligible: {called(r)}: {r.data.tags[tags.FAULTS]}" for r in self.runs]

    def _promoted(self, best: Run) -> list[str]:
        """Ask the gate for the best pool."""
        settings, client = self.finished.settings, self.finished.store.client
        if settings.promote is False:
            return []
        try:
            decision = promotion.promote(
                client, best.info.run_id, registry_name=self.model, gate=settings.gate
            )
        except HmmExpError as error:
            self.failures.append(f"the pool is not promoted: {error}")
            return []
        return decision.lines(self.model)

    def _cell(self, configuration: Config) -> Config:
        """Settings of a pool's run, a child of the panel's."""
        panel = self.finished.settings
        sweep = replace(
            panel.sweep,
            parent_run=self.finished.parent.info.run_id,
            symbol=None,
            symbols=None,
            configurations=None,
        )
        return replace(
            configuration,
            pool=False,
            registry=replace(configuration.registry, name=self.model),
            sweep=sweep,
            sweep_id=panel.sweep_id,
            tracking=panel.tracking,
        )

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return model_name(self.finished.settings.registry.name, tags.POOL)

    def _own_scores(self, folder: Path) -> dict[str, Path]:
        """Files with the validation scores of the winners, by symbol."""
        files = {}
        for number, (symbol, run) in enumerate(self.finished.winners.items()):
            scores = self._ask(partial(read_scores, self.finished.store.client, run.info.run_id))
            if scores is not None:
                val = scores[scores["split"] == "val"]
                files[symbol] = folder / f"{number}.parquet"
                val[["split", "model_score", "static_score"]].to_parquet(files[symbol])
        return files

    def _recorded(self, cell: Config, own: dict[str, Path]) -> Run:
        """The run of a pool: that of an earlier start of the panel, or a new one."""
        client, known = self.finished.store.client, self._identity(cell)
        among = f"tags.{tags.SWEEP_ID} = '{cell.sweep_id}' and tags.{tags.KIND} = '{tags.POOL}'"
        for run in self._ask(lambda: all_runs(client, among)):
            same = run.data.tags.get(tags.FINGERPRINT) == known[tags.FINGERPRINT]
            if same and run.info.status == "FINISHED":
                read = partial(read_text, client, run.info.run_id, LEFT_OUT_FILE)
                self._note_left_out(self._ask(read) or "")
                return run
        folder = Path(str(cell.sweep.folder))
        log_file = folder / "logs" / f"pool.{known[tags.FINGERPRINT]}.{cell.sweep.attempt}.log"
        record = RunRecord(self.finished.store, cell, log_file)
        with recorded(record):
            run_id = record.start(known)
            client.update_run(run_id, name=f"pool {cell_name(cell)}"[:LONGEST_NAME])
            place = folder / PENDING / known[tags.FINGERPRINT]
            bundle = self._fitted(cell, own, place, log_file)
            record.finish(bundle)
        return self._ask(lambda: client.get_run(run_id))

    def _fitted(self, cell: Config, own: dict[str, Path], place: Path, log_file: Path) -> Bundle:
        """Bundle of a pool: of an earlier start that could not record it, or a new one."""
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            settings = {
                one.symbol: replace(
                    cell,
                    data=one.settings(cell.data),
                    sweep=replace(cell.sweep, symbol=one.symbol),
                )
                for one in self.symbols
            }
            tell = self.finished.tell
            child.worker().ask("pool", settings, own, place, log_file, on_progress=tell)
        bundle = Bundle.read(place)
        self._note_left_out((bundle.artifacts / LEFT_OUT_FILE).read_text())
        return bundle

    def _note_left_out(self, table: str) -> None:
        self.left_out |= {row["symbol"]: row["reason"] for row in csv.DictReader(StringIO(table))}

    def _identity(self, cell: Config) -> dict[str, str]:
        """Tags that are known before the fit, from the cells of the same configuration."""
        name = cell_name(cell)
        cells = {
            run.data.tags[tags.SYMBOL]: run.data.tags
            for run in self._cells
            if run.data.tags.get(tags.CELL) == name
        }
        if not cells:
            raise HmmExpError("no symbol has a cell of it")
        first = next(iter(cells.values()))
        exact = {tag: _digest({s: of.get(tag) for s, of in cells.items()}) for tag in _EXACT}
        space = first.get(tags.OBSERVATION_SPACE, "").partition("#")[0]
        return exact | {
            tags.KIND: tags.POOL,
            tags.CELL: name,
            tags.INSTRUMENT: tags.POOL,
            tags.TIMEFRAME: first.get(tags.TIMEFRAME, ""),
            tags.OBSERVATION_SPACE: f"{space}#{exact[tags.OBSERVATION_SPACE][:6]}",
        }

    def _ask(self, step: Callable[[], Result]) -> Result:
        return patiently(step, self.finished.settings.tracking.patience)


def _digest(values: dict[str, str | None]) -> str:
    text = json.dumps(["pool", values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
