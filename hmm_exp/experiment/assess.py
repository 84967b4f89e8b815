"""Judging a fitted model: persistence, tables of its states, the yardstick on the next bar."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hmm_exp.experiment.candidate import Candidate
from hmm_exp.experiment.evaluate import StateSummary, diagnostics_table, raw_covars, raw_means
from hmm_exp.experiment.next_bar import next_bar_table
from hmm_exp.experiment.persistence import persistence_metrics
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.split import SPLIT_NAMES, TEST, TRAIN
from hmm_exp.experiment.yardstick import fit_baselines, fit_yardstick, score_bars, summarise
from hmm_exp.hmm import recursions
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.order import labels

YEAR = pd.Timedelta(days=365.25)


@dataclass(frozen=True, eq=False)
class Assessment:
    """What the train fit is worth.

    Attributes
    ----------
    summary
        States, transitions and means in raw units.
    probs
        Filtered probabilities of every row, shape (T, K).
    scores
        Per base bar `available_at, split` and log predictive densities of its next return,
        `model_score, static_score, ewma_score` in nats; None without base returns.
    next_bar
        Per-state table of the next bar's return for "train" and "test"; empty without returns.
    diagnostics
        Tidy `table, row, column, value`.
    metrics
        Persistence and yardstick, flat names.
    """

    summary: StateSummary
    probs: np.ndarray
    scores: pd.DataFrame | None
    next_bar: dict[str, pd.DataFrame]
    diagnostics: pd.DataFrame
    metrics: dict[str, float]


def assess(prepared: Prepared, chosen: Candidate) -> Assessment:
    """Judge the train fit of the chosen number of states on all parts."""
    params, steps = chosen.params, prepared.table.steps
    density = log_density(params, prepared.X)
    recursion = (params.stationary(), params.transmat, density, steps)
    probs = recursions.filter(*recursion).probs
    smoothed = recursions.smooth(*recursion).probs
    summary = _summary(prepared, chosen, probs.argmax(axis=1))
    metrics = persistence_metrics(probs, smoothed, steps)
    scores, next_bar = None, {}
    if prepared.source.next_return is not None:
        bar_probs = _known_at_close(prepared, probs)
        scores, gains = _yardstick(prepared, bar_probs)
        next_bar = _next_bar(prepared, bar_probs)
        metrics |= gains
    return Assessment(
        summary=summary,
        probs=probs,
        scores=scores,
        next_bar=next_bar,
        diagnostics=diagnostics_table(summary, next_bar),
        metrics=metrics,
    )


def _summary(prepared: Prepared, chosen: Candidate, states: np.ndarray) -> StateSummary:
    params, scaler = chosen.params, prepared.scaler
    return StateSummary(
        labels=labels(params.n_states),
        columns=prepared.recipe.columns,
        transmat=params.transmat,
        stationary=params.stationary(),
        means=raw_means(params.means, scaler.mean_, scaler.scale_),
        covars=raw_covars(params.covars, params.covariance_type, params.n_states, scaler.scale_),
        states=states,
        steps=prepared.table.steps,
    )


def _known_at_close(prepared: Prepared, probs: np.ndarray) -> np.ndarray:
    """Probabilities of the latest complete row at every base bar's close, NaN before the first."""
    known = np.full((len(prepared.row_of_bar), probs.shape[1]), np.nan)
    seen = prepared.row_of_bar >= 0
    known[seen] = probs[prepared.row_of_bar[seen]]
    return known


def _yardstick(prepared: Prepared, bar_probs: np.ndarray) -> tuple[pd.DataFrame, dict[str, float]]:
    returns, part = prepared.source.next_return, prepared.target_part
    assert returns is not None
    on_train = np.where(part == TRAIN, returns, np.nan)
    yardstick = fit_yardstick(bar_probs, on_train)
    scores = score_bars(yardstick, fit_baselines(on_train[part == TRAIN]), bar_probs, returns)
    gains = summarise(scores, part)
    named = scores.rename(columns={name: f"{name}_score" for name in scores})
    named.insert(0, "available_at", prepared.source.time)
    named.insert(1, "split", [SPLIT_NAMES[p] for p in part])
    return named, gains


def _next_bar(prepared: Prepared, bar_probs: np.ndarray) -> dict[str, pd.DataFrame]:
    returns = prepared.source.next_return
    assert returns is not None
    known = np.isfinite(bar_probs[:, 0])
    states = np.where(known, np.nan_to_num(bar_probs).argmax(axis=1), -1)
    # Bars a year as they come, so that sessions and weekends are not counted.
    years = (prepared.source.time[-1] - prepared.source.time[0]) / YEAR
    per_year = len(returns) / years if years > 0 else None
    return {
        name: next_bar_table(
            states,
            returns,
            bar_probs.shape[1],
            bars_per_year=per_year,
            mask=prepared.target_part == part,
        )
        for name, part in (("train", TRAIN), ("test", TEST))
    }
