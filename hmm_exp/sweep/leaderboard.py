"""The leaderboard of a sweep and the choice of its winner.

Inside one observation space an information criterion ranks the cells. A walk forward, whose
validation bars are out of sample for every fit, is ranked by its return forecast on them instead.
Between the winners of the spaces the return forecast decides, on the validation bars that all of
them score. A cell without a score is skipped, with the reason. Nothing here reads test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.config import SelectionConfig
from hmm_exp.errors import TrackingError
from hmm_exp.experiment.rule import Option, by_rule
from hmm_exp.judge.unscored import unusual, why_no_gain
from hmm_exp.judge.wording import from_next, signed
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import densities_of, read_validation, unscored_of
from hmm_exp.tracking.runs import called, lacks, status_of, sweep_cells, tried
from hmm_exp.tracking.ui import GAIN_COLUMNS

_BASELINES = {"return_gain_val": "static", "ewma_gain_val": "ewma"}  # of `selection.across`


@dataclass(frozen=True)
class Choice:
    """The winning run of a sweep, or None, and the reasons as sentences."""

    run_id: str | None
    reasons: list[str]


def leaderboard(cells: list[Run]) -> pd.DataFrame:
    """Table of a sweep's cells, best first inside each space, failed cells last."""
    table = pd.DataFrame([_row(run) for run in cells])
    order = ["status", "space", "rank", "then"]
    return table.sort_values(order, na_position="last").drop(columns=order)


def choose(client: MlflowClient, sweep_id: str, cells: list[Run] | None = None) -> Choice:
    """Choose a sweep's winner among its eligible cells, by train and validation only.

    `cells` spares reading them again where they were read already.
    """
    cells = sweep_cells(client, sweep_id) if cells is None else cells
    finished = [run for run in cells if run.info.status == "FINISHED"]
    passed_over = [
        f"{called(run)} (run {run.info.run_id}) does not take part: {why}"
        for run in finished
        if (why := lacks(run))
    ]
    choice = _choose(client, finished)
    return Choice(choice.run_id, [*passed_over, *choice.reasons])


def _choose(client: MlflowClient, finished: list[Run]) -> Choice:
    eligible = [run for run in finished if not lacks(run) and tags.FAULTS not in run.data.tags]
    if not eligible:
        return Choice(
            None, [f"none of the {len(finished)} finished cells is eligible{_fault(finished)}"]
        )
    spaces: dict[str, list[Run]] = {}
    for run in eligible:
        spaces.setdefault(run.data.tags[tags.OBSERVATION_SPACE], []).append(run)
    if len(spaces) > 1:
        return _best_across(client, list(spaces.values()), finished)
    winner = _best_inside(eligible, finished)
    return Choice(winner.run.info.run_id, [winner.reason])


def _fault(finished: list[Run]) -> str:
    """The first hard fault of the cells, in words; empty without any."""
    faults = ((called(run), run.data.tags.get(tags.FAULTS)) for run in finished)
    return next((f": {name}: {text.split('; ')[0]}" for name, text in faults if text), "")


@dataclass(frozen=True)
class _Winner:
    run: Run
    reason: str

    @property
    def name(self) -> str:
        return self.run.data.tags[tags.CELL]


def _row(run: Run) -> dict[str, object]:
    metrics, run_tags = run.data.metrics, run.data.tags
    failed = run.info.status != "FINISHED"
    status, reason = status_of(run), run_tags.get(tags.STATUS_REASON)
    seconds = sum(value for name, value in metrics.items() if name.startswith("seconds_"))
    why = f"{status}: {reason}" if reason else status
    criterion = run.data.params.get("selection.within", "bic")
    notes = ["residuals reject"] if metrics.get("residuals_reject") else []
    notes += [f"no score of {', '.join(missing)}"] if (missing := unusual(unscored_of(run))) else []
    return {
        "cell": called(run),
        "K": metrics.get("n_states"),
        "bic": metrics.get("bic"),
        **({} if criterion == "bic" else {criterion: metrics.get(criterion)}),
        "val_ll/bar": metrics.get("log_lik_val_per_bar"),
        **{column: metrics.get(name) for column, name in GAIN_COLUMNS.items()},
        "eligible": why
        if failed
        else lacks(run) or run_tags.get(tags.FAULTS, ", ".join(["yes", *notes])),
        "s": None if failed else seconds,
        "run": run.info.run_id,
        "space": run_tags.get(tags.OBSERVATION_SPACE, ""),
        "status": failed,
        "rank": _negative(metrics.get(_across(run))) if _walks(run) else metrics.get(criterion),
        "then": _negative(metrics.get("log_lik_val_per_bar")),
    }


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _walks(run: Run) -> bool:
    return run.data.params.get("split.kind") == "walk_forward"


def _across(run: Run) -> str:
    """Metric that decides between spaces, and between walks."""
    return run.data.params.get("selection.across", "return_gain_val")


def _scored(runs: list[Run]) -> list[Run]:
    """Runs that have the metric of `_across`."""
    return [run for run in runs if _across(run) in run.data.metrics]


def _best_inside(runs: list[Run], finished: list[Run]) -> _Winner:
    """The winner of one space, whose runs all walk or all do not.

    `finished` are all finished cells of the sweep, of which some are not eligible.
    """
    if len(runs) == 1:
        name, space = (runs[0].data.tags[tag] for tag in (tags.CELL, tags.OBSERVATION_SPACE))
        only = f"{name} is the only eligible cell of space {space}"
        refused = "" if _walks(runs[0]) else _edge(runs[0], runs, finished)
        return _Winner(runs[0], only + refused)
    return _best_walk(runs) if _walks(runs[0]) else _best_fit(runs, finished)


def _best_walk(runs: list[Run]) -> _Winner:
    """The walk with the highest score on validation; by likelihood where none has a score."""
    scored = _scored(runs)
    metric = _across(runs[0]) if scored else "log_lik_val_per_bar"
    worth = {run.info.run_id: run.data.metrics.get(metric, -math.inf) for run in scored or runs}
    best = max(scored or runs, key=lambda run: worth[run.info.run_id])
    value, *others = sorted(worth.values(), reverse=True)
    margin = f", {from_next(value - others[0])}" if others else ""
    name, space = (best.data.tags[tag] for tag in (tags.CELL, tags.OBSERVATION_SPACE))
    return _Winner(
        best,
        f"{name} has the highest out-of-sample {metric} of {len(worth)} walk{'s' * bool(others)} "
        f"in space {space}: {signed(value)} nats per bar{margin}",
    )


def _best_fit(runs: list[Run], finished: list[Run]) -> _Winner:
    """The fit that the sweep's rule takes, by criteria on train and validation likelihood."""
    selection = _selection(runs[0])
    best = runs[by_rule([_option(run) for run in runs], selection, _null(runs[0], selection))]
    space, name = (best.data.tags[tag] for tag in (tags.OBSERVATION_SPACE, tags.CELL))
    why = _why(best, runs, selection) + _edge(best, runs, finished) + _doubt(best, runs)
    return _Winner(best, f"{name} is the best cell of space {space}: {why}")


def _why(best: Run, runs: list[Run], selection: SelectionConfig) -> str:
    criterion = selection.within
    by_criterion = sorted(runs, key=lambda run: run.data.metrics[criterion])
    value, name = best.data.metrics[criterion], criterion.upper()
    if selection.rule == "one_se":
        return f"fewest parameters within one error of the lowest CV of {len(runs)} cells"
    if selection.rule == "elbow":
        return f"the elbow of {name} over {len(runs)} cells, {value:.1f}"
    if best is not by_criterion[0]:
        near = (
            f"{criterion.upper()} within {selection.near_tie:g} of the lowest of {len(runs)} cells"
        )
        return f"{near}, and a higher validation log-likelihood"
    margin = by_criterion[1].data.metrics[criterion] - value
    lowest = f"lowest {criterion.upper()} of {len(runs)} cells, {value:.1f}"
    return f"{lowest}, {from_next(margin, 1, 'below')}"


def _edge(best: Run, runs: list[Run], finished: list[Run]) -> str:
    """Whether more states were tried: not at all, or only by cells that were refused."""
    n_states, space = best.data.metrics["n_states"], best.data.tags[tags.OBSERVATION_SPACE]
    tried = {run.data.metrics["n_states"] for run in runs}
    if n_states < max(tried):
        return ""
    refused = [
        run
        for run in finished
        if run.data.tags.get(tags.OBSERVATION_SPACE) == space
        and run.data.metrics.get("n_states", 0.0) > n_states
        and tags.FAULTS in run.data.tags
    ]
    if not refused:
        return "; no cell tried more states" if len(tried) > 1 else ""
    refused.sort(key=lambda run: run.data.metrics["n_states"])
    return "; " + ", ".join(filter(None, (_refused(run, best) for run in refused)))


def _refused(run: Run, best: Run) -> str:
    """A refused cell with its distance from the best: `K=4: BIC 63 higher, not converged`."""
    criterion = _selection(best).within
    if criterion not in run.data.metrics:
        return ""
    more = run.data.metrics[criterion] - best.data.metrics[criterion]
    fault = run.data.tags[tags.FAULTS].split("; ")[0].split(":")[0]
    which = f"{abs(more):.0f} {'higher' if more > 0 else 'lower'}" if round(more) else "equal"
    return f"K={run.data.metrics['n_states']:g}: {criterion.upper()} {which}, {fault}"


def _doubt(best: Run, runs: list[Run]) -> str:
    """Doubts about the number of states: repeated values, or another choice by the next return."""
    doubts = [text] if (text := best.data.tags.get(tags.BIC_DOUBT)) else []
    scored = [run for run in runs if "bic_next" in run.data.metrics]
    other = min(scored, key=lambda run: run.data.metrics["bic_next"], default=best)
    n_states = other.data.metrics["n_states"]
    if _selection(best).within == "bic_next":
        doubts = []
    elif n_states != best.data.metrics["n_states"]:
        doubts.append(
            f"selection=next_return would choose K={n_states:g}, which "
            f"hmm-promote --run {other.info.run_id} promotes"
        )
    return "".join(f"; {doubt}" for doubt in doubts)


def _selection(run: Run) -> SelectionConfig:
    rule = {
        name.removeprefix("selection."): value
        for name, value in run.data.params.items()
        if name.startswith("selection.")
    }
    return SelectionConfig(
        within=rule["within"],
        rule=rule["rule"],
        near_tie=float(rule["near_tie"]),
        elbow=float(rule["elbow"]),
    )


def _option(run: Run) -> Option:
    metrics = run.data.metrics
    return Option(metrics["n_params"], metrics, metrics.get("log_lik_val_per_bar", -math.inf))


def _null(run: Run, selection: SelectionConfig) -> float | None:
    """Criterion of the run's one-state model."""
    alone = (row for row in tried(run) if row["n_states"] == 1)
    return next((row.get(selection.within) for row in alone), None)


def _best_across(client: MlflowClient, spaces: list[list[Run]], finished: list[Run]) -> Choice:
    """Best mean score on the validation bars that the best scored cells of all spaces score.

    A space without a scored cell takes no part.
    """
    found = [_best_scored(runs, finished) for runs in spaces]
    winners = [winner for winner, _ in found if winner is not None]
    inside = [winner.reason for winner in winners] + [why for _, why in found if why]
    if len({runs[0].data.tags[tags.DATA_DIGEST] for runs in spaces}) > 1:
        return Choice(None, [*inside, "no winner: the spaces hold different data"])
    if not winners:
        return Choice(None, [*inside, f"no winner: none of {len(spaces)} spaces has a scored cell"])
    if len(winners) == 1:
        verdict = f"{winners[0].name} wins: only its space of {len(spaces)} has a scored cell"
        return Choice(winners[0].run.info.run_id, [*inside, verdict])
    metric = _across(winners[0].run)
    scores = [_validation_scores(client, winner.run) for winner in winners]
    common = common_scores(scores, metric)
    if common.empty:
        return Choice(None, [*inside, "no winner: no validation bar is scored in every space"])
    means = common.mean().to_numpy()
    best = int(np.argmax(means))
    ranked = np.sort(means)[::-1]
    verdict = (
        f"{winners[best].name} wins across {len(winners)} spaces: {metric} "
        f"{signed(means[best])} nats per bar, {from_next(ranked[0] - ranked[1])}, "
        f"on {len(common):,} common validation bars"
    )
    return Choice(winners[best].run.info.run_id, [*inside, verdict])


def _best_scored(runs: list[Run], finished: list[Run]) -> tuple[_Winner | None, str | None]:
    """The best scored cell of a space, and why a better cell without a score is skipped."""
    best, scored = _best_inside(runs, finished), _scored(runs)
    if best.run in scored:
        return best, None
    across = _across(best.run)
    why = why_no_gain(unscored_of(best.run), _BASELINES.get(across, "model"))
    passed = f"{best.name} cannot compete between spaces: {why or 'no validation bar is scored'}"
    return (_best_inside(scored, finished) if scored else None), passed


def _validation_scores(client: MlflowClient, run: Run) -> pd.DataFrame:
    scores = read_validation(client, run)
    if scores is None:
        raise TrackingError(f"run {run.info.run_id} has lost its scores.parquet")
    return scores


def _score_column(scores: pd.DataFrame, name: str) -> pd.Series:
    baseline = _BASELINES.get(name)
    return scores["model_score"] - (scores[f"{baseline}_score"] if baseline else 0.0)


def common_scores(scores: Sequence[pd.DataFrame], metric: str) -> pd.DataFrame:
    """Scores of several models on the bars that all of them score, one column each.

    Parameters
    ----------
    scores
        Of each: index `available_at`; `model_score, static_score, ewma_score`, nats.
    metric
        One of `selection.across`.
    """
    return pd.concat([_score_column(score, metric) for score in scores], axis=1).dropna()


def criteria_by_states(cells: list[Run]) -> pd.DataFrame:
    """Criteria of every number of states tried: columns space, covariance, n_states, bic ..."""
    rows = []
    for run in cells:
        space = run.data.tags.get(tags.OBSERVATION_SPACE, "").split("#")[0]
        covariance = densities_of(run)
        if space and covariance:
            rows += [{"space": space, "covariance": covariance, **row} for row in tried(run)]
    return pd.DataFrame(rows)


def won_place(cells: list[Run], choice: Choice) -> tuple[str, str, int] | None:
    """Space, covariance and number of states of the winner, as in `criteria_by_states`."""
    for run in cells:
        if run.info.run_id == choice.run_id:
            space = run.data.tags[tags.OBSERVATION_SPACE].split("#")[0]
            return space, densities_of(run) or "", int(run.data.metrics["n_states"])
    return None
