"""Figures of a run, drawn from its result."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hmm_exp import figures
from hmm_exp.experiment.decided import at_close
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.walk import Walk, walk_dwell, walk_means
from hmm_exp.figures.judged import cumulative_gain, residuals
from hmm_exp.figures.strategy import strategies
from hmm_exp.hmm.states import labels
from hmm_exp.judge.split import BEFORE, SPLIT_NAMES, TRAIN
from hmm_exp.judge.strategy_table import StrategyTable


def run_figures(result: RunResult) -> Iterator[tuple[str, Figure]]:
    """Every figure of a run by name, one at a time so that only one is in memory."""
    config, prepared = result.config, result.prepared
    space = f"{config.features.name} {config.covariance.type}"
    subject = f"{prepared.source.name} {prepared.timeframe} {space}"
    yield from _timelines(result, subject)
    summary = result.assessment.summary
    timeframe = result.prepared.recipe.grid
    yield (
        "transition_matrix",
        figures.transition_matrix(summary.transmat, summary.labels, bar=timeframe, subject=subject),
    )
    params = result.chosen.params
    spread = np.sqrt(np.diagonal(params.covariances(), axis1=1, axis2=2))
    yield (
        "state_means",
        figures.state_means(params.means, spread, summary.columns, summary.labels, subject=subject),
    )
    yield (
        "dwell_times",
        figures.dwell_times(
            summary.states, summary.transmat, summary.labels, steps=summary.steps, subject=subject
        ),
    )
    yield ("criteria", figures.criteria(result.selection, chosen=result.n_states, subject=subject))
    if result.walk is not None:
        yield "drift", _drift(result, result.walk, subject)
    starts = [start for start in result.chosen.fit.starts if len(start.history)]
    histories, polished = [s.history for s in starts], [s.polished for s in starts]
    yield "convergence", figures.convergence(histories, polished=polished, subject=subject)
    if result.assessment.residuals:
        yield "residuals", residuals(result.assessment.residuals, subject=subject)
    if gains := _gains(result):
        yield "cumulative_gain", _cumulative_gain(result, gains, subject)
    if (table := result.strategies) is not None:
        yield "strategy", _strategies(result, table, subject)
    if result.assessment.next_bar:
        yield (
            "next_bar_return",
            figures.next_bar_return(_next_bar_rows(result), summary.labels, subject=subject),
        )


def _strategies(result: RunResult, table: StrategyTable, subject: str) -> Figure:
    """Wealth and drawdown over the judged bars, with their decided regimes."""
    rows = result.regimes
    at = pd.DatetimeIndex(rows["available_at"]).as_unit("ns").asi8
    latest = np.maximum(at.searchsorted(table.time, side="right") - 1, 0)
    regimes = rows["regime"].to_numpy()[latest]
    return strategies(table, regimes, result.detector.labels, subject=subject)


def _gains(result: RunResult) -> dict[str, np.ndarray]:
    """Gain of every bar over each baseline that can be measured, nats; the last bar has none."""
    scores = result.assessment.scores
    if scores is None:
        return {}
    names = {"static": "static_score", "EWMA": "ewma_score"}
    gains = {name: scores["model_score"] - scores[column] for name, column in names.items()}
    return {name: gain.to_numpy()[:-1] for name, gain in gains.items() if gain.notna().any()}


def _cumulative_gain(result: RunResult, gains: dict[str, np.ndarray], subject: str) -> Figure:
    """Gains by the time of the bar whose return was forecast."""
    judged = result.prepared.target_part[:-1] >= TRAIN  # nothing was fitted on what is before
    scored = np.isfinite(np.stack([*gains.values()])).any(axis=0)
    judged &= np.arange(len(scored)) >= scored.argmax()  # a walk is silent at first
    starts = {name: at for name, at in _split_starts(result).items() if name != SPLIT_NAMES[BEFORE]}
    return cumulative_gain(
        result.prepared.source.time.as_unit("ns").asi8[1:][judged],
        {name: gain[judged] for name, gain in gains.items()},
        splits=starts,
        subject=subject,
    )


def _timelines(result: RunResult, subject: str) -> Iterator[tuple[str, Figure]]:
    prepared, assessment = result.prepared, result.assessment
    names = assessment.summary.labels
    splits = _split_starts(result)
    bars = prepared.source.bars
    if bars is not None:
        states = at_close(prepared, assessment.states)
        decided = at_close(prepared, result.decided)
        close = bars.frame["close"].to_numpy()
        drawn = figures.price(
            bars.time, close, decided, names, splits=splits, subject=subject, kind="decided"
        )
        yield "price", drawn
        if bars.states is not None:
            yield (
                "recovered",
                figures.recovered(
                    bars.time,
                    bars.states,
                    states,
                    names,
                    planted_labels=planted_labels(bars.states),
                    subject=subject,
                ),
            )
    time = prepared.table.available_at.as_unit("ns").asi8
    yield (
        "probabilities",
        figures.probabilities(time, assessment.probs, names, splits=splits, subject=subject),
    )


def _drift(result: RunResult, walk: Walk, subject: str) -> Figure:
    summary = result.assessment.summary
    return figures.drift(
        np.array([refit.fold.split.train_end.value for refit in walk.refits]),
        walk_means(walk),
        walk_dwell(walk),
        summary.columns,
        summary.labels,
        agreement=np.array([r.agreement.share if r.agreement else np.nan for r in walk.refits]),
        refused=np.array([bool(refit.refused) for refit in walk.refits]),
        bar=result.prepared.recipe.grid,
        subject=subject,
    )


def planted_labels(states: np.ndarray) -> tuple[str, ...]:
    """Names of the planted regimes of a synthetic market."""
    return labels(int(states.max()) + 1)


def _split_starts(result: RunResult) -> dict[str, int]:
    """First instant of every part that has rows, in nanoseconds."""
    prepared = result.prepared
    time = prepared.table.available_at.as_unit("ns").asi8
    return {
        SPLIT_NAMES[part]: int(time[(prepared.part == part).argmax()])
        for part in np.unique(prepared.part)
    }


def _next_bar_rows(result: RunResult) -> pd.DataFrame:
    """The per-state tables of train and test under each other."""
    tables = result.assessment.next_bar
    parts = {split: table for split, table in tables.items() if table["n"].sum()}
    columns = ("mean", "mean_error", "volatility", "volatility_error")
    stacked = {
        name: np.concatenate([table[name].to_numpy() for table in parts.values()])
        for name in columns
    }
    stacked["state"] = np.concatenate([table.index.to_numpy() for table in parts.values()])
    stacked["split"] = np.repeat([*parts], [len(table) for table in parts.values()])
    return pd.DataFrame(stacked)
