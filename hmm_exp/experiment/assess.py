"""Judging a fitted model: persistence, tables of its states, the yardstick on the next bar."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.experiment.candidate import Candidate
from hmm_exp.experiment.evaluate import StateSummary, diagnostics_table, raw_covars, raw_means
from hmm_exp.experiment.evidence import evidence, residual_objections, residual_series
from hmm_exp.experiment.next_bar import next_bar_table
from hmm_exp.experiment.persistence import persistence_metrics
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.residuals import feature_residuals, return_residuals
from hmm_exp.experiment.split import SPLIT_NAMES, TEST, TRAIN
from hmm_exp.experiment.track import BAR_COLUMNS, VARIANCES, Track, most_probable
from hmm_exp.experiment.unscored import RETURN, Unscored, fitted, in_words, why_no_return
from hmm_exp.experiment.variance import variance_shapes
from hmm_exp.experiment.yardstick import (
    Baselines,
    fit_baselines,
    fit_yardstick,
    score_bars,
    summarise,
)
from hmm_exp.hmm import recursions
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.order import labels
from hmm_exp.hmm.params import GaussianParams

YEAR = pd.Timedelta(days=365.25)
_BASELINES: dict[bytes, Baselines] = {}  # by the returns they were fitted on


@dataclass(frozen=True, eq=False)
class Assessment:
    """What the train fit, or a walk of fits, is worth.

    Attributes
    ----------
    summary
        States, transitions and means in raw units; its path holds the rows with a regime.
    probs
        Filtered probabilities of every row, shape (T, K); NaN where no model had spoken yet.
    scores
        Per base bar `available_at, split` and log predictive densities of its next return,
        `model_score, static_score, ewma_score` in nats, NaN for a forecast that has no fit, with
        bars also their `close`; None without base returns.
    next_bar
        Per-state table of the next bar's return by part; empty without returns.
    diagnostics
        Tidy `table, row, column, value`.
    metrics
        Persistence, yardstick with its errors, variance forecast and residuals; flat names.
    residuals
        Pseudo-residuals by name, the features and last the next return, on the rows and bars
        of validation and test.
    unscored
        Why scores are missing.
    objections
        Why scores are missing and what the residuals of the next return reject, in words.
    """

    summary: StateSummary
    probs: np.ndarray
    scores: pd.DataFrame | None
    next_bar: dict[str, pd.DataFrame]
    diagnostics: pd.DataFrame
    metrics: dict[str, float]
    residuals: dict[str, np.ndarray]
    unscored: Unscored
    objections: list[str]

    @property
    def states(self) -> np.ndarray:
        """Filtered label of every row, shape (T,); -1 where no model had spoken yet."""
        return most_probable(self.probs)


def follow(prepared: Prepared, params: GaussianParams, baselines: Baselines | None = None) -> Track:
    """Run a model over all rows, and score it on all bars by densities fitted on train.

    Parameters
    ----------
    baselines
        Fitted on the same train returns, where that has been done before.

    Raises
    ------
    FitError
        When the chain has no unique stationary distribution.
    """
    density = log_density(params, prepared.X)
    recursion = (params.stationary(), params.transmat, density, prepared.table.steps)
    filtered = recursions.filter(*recursion)
    bar_probs = _known_at_close(prepared, filtered.probs)
    return Track(
        probs=filtered.probs,
        log_lik=filtered.log_lik,
        smoothed=recursions.smooth(*recursion).probs,
        bar_probs=bar_probs,
        residuals=feature_residuals(params, prepared.X, prepared.table.steps, filtered.probs),
        **_scored(prepared, bar_probs, baselines),
    )


def baselines_of(prepared: Prepared) -> Baselines | None:
    """Forecasts without states, fitted on the train returns; None without base returns.

    The same returns are fitted once in a process: the cells of a sweep share them.
    """
    if prepared.source.next_return is None:
        return None
    returns = prepared.source.next_return[prepared.target_part == TRAIN]
    digest = hashlib.sha256(returns.tobytes()).digest()
    if digest not in _BASELINES:
        _BASELINES[digest] = fit_baselines(returns)
    return _BASELINES[digest]


def assess(
    prepared: Prepared, chosen: Candidate, track: Track, parts: Sequence[int] = (TRAIN, TEST)
) -> Assessment:
    """Judge a model by what it said, the per-state tables of the next bar on `parts`."""
    spoken = track.spoken
    steps = prepared.table.steps[spoken]
    summary = _summary(prepared, chosen, track.probs[spoken].argmax(axis=1), steps)
    metrics = persistence_metrics(track.probs[spoken], track.smoothed[spoken], steps)
    scores, next_bar = None, {}
    metrics |= evidence(prepared, track)
    if track.scores is not None:
        metrics |= summarise(track.scores, prepared.target_part)
        scores = _named(prepared, track.scores)
        next_bar = _next_bar(prepared, track.bar_probs, parts)
    return Assessment(
        summary=summary,
        probs=track.probs,
        scores=scores,
        next_bar=next_bar,
        diagnostics=diagnostics_table(summary, next_bar),
        metrics=metrics,
        residuals=residual_series(prepared, track),
        unscored=track.unscored,
        objections=in_words(track.unscored) + residual_objections(prepared, track),
    )


def _summary(
    prepared: Prepared, chosen: Candidate, states: np.ndarray, steps: np.ndarray
) -> StateSummary:
    params, scaler = chosen.params, prepared.scaler
    return StateSummary(
        labels=labels(params.n_states),
        columns=prepared.recipe.columns,
        transmat=params.transmat,
        stationary=params.stationary(),
        means=raw_means(params.means, scaler.mean_, scaler.scale_),
        covars=raw_covars(params.covars, params.covariance_type, params.n_states, scaler.scale_),
        states=states,
        steps=steps,
    )


def _known_at_close(prepared: Prepared, probs: np.ndarray) -> np.ndarray:
    """Probabilities of the latest complete row at every base bar's close, NaN before the first."""
    known = np.full((len(prepared.row_of_bar), probs.shape[1]), np.nan)
    seen = prepared.row_of_bar >= 0
    known[seen] = probs[prepared.row_of_bar[seen]]
    return known


def _scored(
    prepared: Prepared, bar_probs: np.ndarray, baselines: Baselines | None
) -> dict[str, Any]:
    """Parts of a track about the next return: `bars`, `yardstick` and `unscored`."""
    source = prepared.source
    returns = source.next_return
    if returns is None:
        assert source.frame is not None  # bars have returns
        why = why_no_return(source.frame, prepared.recipe.grid)
        return {"bars": None, "unscored": {RETURN: why}}
    known = baselines or baselines_of(prepared)
    assert known is not None
    unscored = dict(known.unscored)
    on_train = np.where(prepared.target_part == TRAIN, returns, np.nan)
    yardstick = fitted("model", unscored, fit_yardstick, bar_probs, on_train)
    bars = score_bars(yardstick, known, bar_probs, returns)
    bars[VARIANCES] = variance_shapes(yardstick, known, bar_probs, returns).to_numpy()
    bars["return_residual"] = return_residuals(yardstick, bar_probs, returns)
    return {"bars": bars[BAR_COLUMNS], "yardstick": yardstick, "unscored": unscored}


def _named(prepared: Prepared, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores as they are recorded: with the bar's time, the part of its target, and its close."""
    named = scores.rename(columns={name: f"{name}_score" for name in scores})
    named.insert(0, "available_at", prepared.source.time)
    named.insert(1, "split", [SPLIT_NAMES[p] for p in prepared.target_part])
    bars = prepared.source.bars
    return named if bars is None else named.assign(close=bars.frame["close"].to_numpy())


def _next_bar(
    prepared: Prepared, bar_probs: np.ndarray, parts: Sequence[int]
) -> dict[str, pd.DataFrame]:
    returns = prepared.source.next_return
    assert returns is not None
    # Bars a year as they come, so that sessions and weekends are not counted.
    years = (prepared.source.time[-1] - prepared.source.time[0]) / YEAR
    per_year = len(returns) / years if years > 0 else None
    return {
        SPLIT_NAMES[part]: next_bar_table(
            most_probable(bar_probs),
            returns,
            bar_probs.shape[1],
            bars_per_year=per_year,
            mask=prepared.target_part == part,
        )
        for part in parts
    }
