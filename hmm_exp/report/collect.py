"""Read the content of a report from the store: a sweep with its winner, or one run."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hmm_exp.errors import TrackingError
from hmm_exp.experiment.source import STRATEGY_FILE
from hmm_exp.judge.gains import GainEstimate, estimate_gain
from hmm_exp.report.course import Course
from hmm_exp.store.run_ids import full_run_id
from hmm_exp.sweep.leaderboard import criteria_by_states, leaderboard
from hmm_exp.sweep.verdict import StatesTried, states_tried
from hmm_exp.tracking import tags
from hmm_exp.tracking.provenance import ENVIRONMENT_FILE
from hmm_exp.tracking.read import (
    REGIMES_FILE,
    REPORT_FILE,
    by_time,
    read_bytes,
    read_scores,
    read_table,
    read_text,
)
from hmm_exp.tracking.runs import (
    called,
    current_cells,
    lacks,
    sweep_cells,
    sweep_named,
    sweep_parent,
)


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """A finished run with the tables of its artifacts."""

    run: Run
    regimes: pd.DataFrame  # rows of `regimes.csv`, index `available_at`
    scores: pd.DataFrame | None  # output of `read_scores`, None without base returns
    tables: dict[str, pd.DataFrame]  # the wide tables of `diagnostics.csv` by name, states in order
    residuals: pd.DataFrame | None  # rows of `residuals.csv`, None if the run has none
    data: dict[str, Any]  # the run's data report
    # Rows of `strategy.csv` and the PNG of its figure, None if the run has none.
    strategies: pd.DataFrame | None = None
    strategy_figure: bytes | None = None

    @property
    def name(self) -> str:
        """Name of the cell."""
        return called(self.run)

    @property
    def labels(self) -> list[str]:
        """Names of the states, calm to turbulent."""
        return list(self.tables["transition_matrix"].index)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the run."""
        return self.run.data.metrics

    @cached_property
    def probs(self) -> pd.DataFrame:
        """Filtered probabilities of every row, one column per state."""
        return self.regimes[[f"p_state_{k}" for k in range(len(self.labels))]]

    @property
    def course(self) -> Course:
        """What the timeline shows."""
        return Course(self.labels, self.regimes, self.probs, self.scores)


@dataclass(frozen=True)
class RunnerUp:
    """The best other cell, and the winner's gain over it on bars scored by both."""

    name: str
    behind: GainEstimate


@dataclass(frozen=True, eq=False)
class Subject:
    """The subject of a report: a sweep or a run."""

    main: Run  # the sweep's parent run, or the run
    cells: list[Run]  # current cells of the sweep, or the run itself
    model: RecordedRun | None  # the winner, or the run; None without a winner
    states: StatesTried | None = None  # numbers of states tried; None without a model
    rival: RunnerUp | None = None  # none without another eligible cell, or without scores of both
    environment: str = ""
    command: str = ""
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    criteria: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def is_sweep(self) -> bool:
        """Whether this is a sweep."""
        return self.main.data.tags.get(tags.KIND) == "sweep"

    @property
    def unfinished(self) -> list[Run]:
        """Cells without a result."""
        return [run for run in self.cells if run.info.status != "FINISHED"]


def read_sweep(client: MlflowClient, sweep_id: str) -> Subject:
    """Read a finished sweep, or the `latest`. Raises TrackingError if it is unknown."""
    sweep_id = sweep_named(client, sweep_id)
    parent = sweep_parent(client, sweep_id)
    attempt = parent.data.tags.get(tags.ATTEMPT, "1")
    cells = current_cells(sweep_cells(client, sweep_id), attempt)
    winner = next(
        (run for run in cells if run.info.run_id == parent.data.tags.get(tags.WINNER)), None
    )
    if winner is not None and lacks(winner):
        winner = None  # the leaderboard names the missing artifact
    model = None if winner is None else _read_model(client, winner)
    return Subject(
        main=parent,
        cells=cells,
        model=model,
        states=None if winner is None else states_tried(client, winner, cells),
        rival=None if model is None else _rival(client, model, cells),
        table=leaderboard(cells) if cells else pd.DataFrame(),
        criteria=criteria_by_states(cells),
        environment=_environment(client, parent),
        command=parent.data.tags.get(tags.COMMAND, ""),
    )


def read_run(client: MlflowClient, run_id: str) -> Subject:
    """Read a finished run or cell. Raises TrackingError if there is none."""
    run_id = full_run_id(client, run_id)
    try:
        run = client.get_run(run_id)
    except MlflowException:
        raise TrackingError(f"no run {run_id} in this store") from None
    if run.data.tags.get(tags.KIND) == "sweep":
        raise TrackingError(f"run {run_id} is a sweep: use --sweep {run.data.tags[tags.SWEEP_ID]}")
    if run.data.tags.get(tags.KIND) == "symbol":
        symbol, sweep_id = run.data.tags[tags.SYMBOL], run.data.tags[tags.SWEEP_ID]
        raise TrackingError(f"run {run_id} is symbol {symbol} of a panel: use --sweep {sweep_id}")
    if run.info.status != "FINISHED" or tags.CELL not in run.data.tags:
        why = run.data.tags.get(tags.STATUS_REASON, "")
        raise TrackingError(f"run {run_id} is {run.info.status}{f': {why}' if why else ''}")
    if why := lacks(run):
        raise TrackingError(f"run {run_id} has an {why}")
    origin = run
    if parent := run.data.tags.get(tags.PARENT_RUN):
        origin = client.get_run(parent)
    return Subject(
        main=run,
        cells=[run],
        model=_read_model(client, run),
        states=states_tried(client, run, [run]),
        criteria=criteria_by_states([run]),
        environment=_environment(client, origin),
        command=origin.data.tags.get(tags.COMMAND, ""),
    )


def _environment(client: MlflowClient, run: Run) -> str:
    return read_text(client, run, ENVIRONMENT_FILE) or ""


def _read_model(client: MlflowClient, run: Run) -> RecordedRun:
    regimes = read_table(client, run, REGIMES_FILE)
    diagnostics = read_table(client, run, "diagnostics.csv")
    if regimes is None or diagnostics is None:
        raise TrackingError(f"run {run.info.run_id} has lost its {REGIMES_FILE} or diagnostics.csv")
    return RecordedRun(
        run=run,
        regimes=by_time(regimes),
        scores=read_scores(client, run),
        tables={str(name): _wide(rows) for name, rows in diagnostics.groupby("table", sort=False)},
        residuals=read_table(client, run, "residuals.csv"),
        data=json.loads(read_text(client, run, REPORT_FILE) or "{}"),
        strategies=_strategies(client, run),
        strategy_figure=read_bytes(client, run, "plots/strategy.png"),
    )


def _strategies(client: MlflowClient, run: Run) -> pd.DataFrame | None:
    """The strategy table; a column without any value has lost its type in the file."""
    table = read_table(client, run, STRATEGY_FILE)
    if table is None:
        return None
    table = table.fillna({"invested": "", "note": ""})
    empty = table.columns[table.isna().all()]
    return table.astype(dict.fromkeys(empty, float))


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """One table of the tidy diagnostics, rows and columns in their written order."""
    wide = rows.pivot(index="row", columns="column", values="value")
    return wide.loc[rows["row"].unique(), rows["column"].unique()]


def _rival(client: MlflowClient, winner: RecordedRun, cells: list[Run]) -> RunnerUp | None:
    """Compare the winner with the best other eligible cell, by gain on validation."""
    others = [
        run
        for run in cells
        if run.info.status == "FINISHED"
        and run.info.run_id != winner.run.info.run_id
        and tags.FAULTS not in run.data.tags
        and not lacks(run)
        and "return_gain_val" in run.data.metrics
    ]
    if winner.scores is None or not others:
        return None
    best = max(others, key=lambda run: run.data.metrics["return_gain_val"])
    scores = read_scores(client, best)
    if scores is None:
        return None
    lead = winner.scores["model_score"] - scores["model_score"].reindex(winner.scores.index)
    found = estimate_gain(lead[winner.scores["split"] == "val"].to_numpy())
    return None if found is None else RunnerUp(called(best), found)
