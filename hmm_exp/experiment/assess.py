"""What a model, or one after the other, said at every row and bar: the input of all judging."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.errors import FitError
from hmm_exp.experiment.candidate import Candidate
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.hmm import inference
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.states import labels
from hmm_exp.judge.gains import gain_metrics
from hmm_exp.judge.next_bar import detection_delay, named_as_planted, next_bar_table
from hmm_exp.judge.residuals import (
    feature_residuals,
    rejections,
    residual_effects,
    return_residuals,
)
from hmm_exp.judge.return_forecasts import (
    Baselines,
    ReturnDensities,
    fit_baselines,
    fit_return_densities,
    per_bar,
    score_bars,
    summarise,
    take_rows,
)
from hmm_exp.judge.split import SPLIT_NAMES, TEST, TRAIN, VAL
from hmm_exp.judge.states import (
    StateSummary,
    diagnostics_table,
    persistence_metrics,
    raw_covars,
    raw_means,
)
from hmm_exp.judge.unscored import RETURN, Unscored, fitted, in_words, why_no_return
from hmm_exp.judge.variance import next_parkinson, variance_gains, variance_losses, variance_shapes

SCORES = ["model", "static", "ewma"]
VARIANCES = [f"{name}_variance" for name in SCORES]
# Log scores in nats, variance forecasts up to a factor, pseudo-residual of the next return.
BAR_COLUMNS = [*SCORES, *VARIANCES, "return_residual"]


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """What a model, or one after the other, said at every row and bar.

    Attributes
    ----------
    probs
        Filtered probabilities of every row, shape (T, K); NaN where there is no model yet.
    log_lik
        ln p(x_t | x_1..t-1) of every row in nats of scaled features, shape (T,), NaN as above.
    smoothed
        Probabilities in hindsight, shape (T, K).
    bar_probs
        Filtered probabilities known at the close of every base bar, shape (N, K).
    residuals
        Forecast pseudo-residuals of every feature of every row, shape (T, D).
    bars
        Forecasts of every base bar's next return, columns `BAR_COLUMNS`, NaN for those that have
        no fit; None without base returns.
    yardstick
        Densities of the next return that the scores come from; None without a fit, and after a
        walk, which has many.
    unscored
        Why scores are missing.
    """

    probs: np.ndarray
    log_lik: np.ndarray
    smoothed: np.ndarray
    bar_probs: np.ndarray
    residuals: np.ndarray
    bars: pd.DataFrame | None
    yardstick: ReturnDensities | None = None
    unscored: Unscored = field(default_factory=dict)

    @property
    def scores(self) -> pd.DataFrame | None:
        """Log predictive densities `model, static, ewma` of the next return, nats."""
        return None if self.bars is None else self.bars[SCORES]

    @property
    def has_probs(self) -> np.ndarray:
        """Mask of the rows that have probabilities, shape (T,)."""
        return np.isfinite(self.probs[:, 0])


def most_probable(probs: np.ndarray) -> np.ndarray:
    """Most probable state of every row, shape (T,); -1 where there are no probabilities."""
    known = np.isfinite(probs[:, 0])
    return np.where(known, np.where(known[:, None], probs, 0.0).argmax(axis=1), -1)


NEXT_RETURN = "next_return"


def evidence(prepared: Prepared, track: ModelOutput) -> dict[str, float]:
    """Metrics by flat names; what does not exist is left out."""
    return {
        **_gains(prepared, track),
        **_variance(prepared, track),
        **_residuals(prepared, track),
        **_delay(prepared, track),
    }


def residual_series(prepared: Prepared, track: ModelOutput) -> dict[str, np.ndarray]:
    """Pseudo-residuals out of sample by name: features of rows, then the next return of bars."""
    later = (prepared.part == VAL) | (prepared.part == TEST)
    columns = zip(prepared.recipe.columns, track.residuals[later].T, strict=True)
    series = dict(columns)
    if track.bars is not None:
        bars = (prepared.target_part == VAL) | (prepared.target_part == TEST)
        series[NEXT_RETURN] = track.bars["return_residual"].to_numpy()[bars]
    return {name: z for name, z in series.items() if np.isfinite(z).any()}


def residual_objections(prepared: Prepared, track: ModelOutput) -> list[str]:
    """Give what the residuals of the next return reject, in words.

    Those of rolling features remember their window whatever the model, so they only inform.
    """
    z = residual_series(prepared, track).get(NEXT_RETURN)
    effects = None if z is None else residual_effects(z)
    return [] if effects is None else rejections(NEXT_RETURN, effects)


def _gains(prepared: Prepared, track: ModelOutput) -> dict[str, float]:
    if track.bars is None:
        return {}
    values = per_bar(track.bars)
    gains = {name: values[name] for name in ("return_gain", "ewma_gain")}
    return gain_metrics(gains, prepared.target_part)


def _variance(prepared: Prepared, track: ModelOutput) -> dict[str, float]:
    """QLIKE gains against the squared return and, with bars, against the Parkinson range.

    A forecast's level is fitted on train bars; a walk, which has said nothing there, has none.
    """
    returns, source = prepared.source.next_return, prepared.source
    if track.bars is None or returns is None:
        return {}
    proxies = {"": returns**2}
    if source.bars is not None:
        frame = source.bars.frame
        high, low = frame["high"].to_numpy(), frame["low"].to_numpy()
        proxies["parkinson_"] = next_parkinson(high, low, returns)
    shapes = track.bars[VARIANCES].set_axis(SCORES, axis=1)
    train = prepared.target_part == TRAIN
    metrics: dict[str, float] = {}
    for proxy, values in proxies.items():
        try:
            losses = variance_losses(shapes, values, train)
        except FitError:
            continue
        gains = {f"{proxy}{name}": gain for name, gain in variance_gains(losses).items()}
        metrics |= gain_metrics(gains, prepared.target_part)
    return metrics


def _residuals(prepared: Prepared, track: ModelOutput) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, z in residual_series(prepared, track).items():
        effects = residual_effects(z)
        if effects is not None:
            metrics |= effects.metrics(name)
    if NEXT_RETURN in residual_series(prepared, track):
        metrics["residuals_reject"] = float(bool(residual_objections(prepared, track)))
    return metrics


def _delay(prepared: Prepared, track: ModelOutput) -> dict[str, float]:
    """Bars from a planted switch to the label that follows it."""
    bars = prepared.source.bars
    if bars is None or bars.states is None:
        return {}
    found = most_probable(track.bar_probs)
    delay = detection_delay(bars.states, named_as_planted(bars.states, found))
    return delay.metrics()


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
        Filtered probabilities of every row, shape (T, K); NaN where there is no model yet.
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
        """Filtered label of every row, shape (T,); -1 where there is no model yet."""
        return most_probable(self.probs)


def model_output(
    prepared: Prepared, params: GaussianParams, baselines: Baselines | None = None
) -> ModelOutput:
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
    filtered = inference.filter(*recursion)
    bar_probs = _known_at_close(prepared, filtered.probs)
    return ModelOutput(
        probs=filtered.probs,
        log_lik=filtered.log_lik,
        smoothed=inference.smooth(*recursion).probs,
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
    prepared: Prepared, chosen: Candidate, track: ModelOutput, parts: Sequence[int] = (TRAIN, TEST)
) -> Assessment:
    """Judge a model by what it said, the per-state tables of the next bar on `parts`."""
    has_probs = track.has_probs
    steps = prepared.table.steps[has_probs]
    summary = _summary(prepared, chosen, track.probs[has_probs].argmax(axis=1), steps)
    metrics = persistence_metrics(track.probs[has_probs], track.smoothed[has_probs], steps)
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
        covars=raw_covars(params.full_covars(), scaler.scale_),
        states=states,
        steps=steps,
    )


def _known_at_close(prepared: Prepared, probs: np.ndarray) -> np.ndarray:
    """Probabilities of the latest complete row at every base bar's close, NaN before the first."""
    return take_rows(probs, prepared.row_of_bar)


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
    yardstick = fitted("model", unscored, fit_return_densities, bar_probs, on_train)
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
