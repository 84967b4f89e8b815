"""Judge a fitted model: its outputs for every row and bar, then tables and metrics from them.

    output = model_output(prepared, candidate.posterior)
    assessment = assess(prepared, candidate, output)

A `ModelOutput` is computed once and holds all that judging needs, of one model or of the successive
refits of a walk forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.errors import FitError
from hmm_exp.experiment.candidate import Candidate
from hmm_exp.experiment.decided import decided_regimes, planted_delay, regime_metrics
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.hmm.criteria import bic_next
from hmm_exp.hmm.posterior import Posterior
from hmm_exp.hmm.rows import largest_column
from hmm_exp.judge.added_gain import AddedGains, added_gains
from hmm_exp.judge.gains import gain_metrics
from hmm_exp.judge.next_bar import next_bar_table
from hmm_exp.judge.residuals import (
    ResidualEffects,
    forecast_residuals,
    predicted_probs,
    rejections,
    residual_effects,
    return_residuals,
)
from hmm_exp.judge.return_forecasts import (
    GAINS,
    SCORES,
    Baselines,
    ReturnDensities,
    fit_baselines,
    fit_return_densities,
    part_means,
    per_bar,
    scores_of_bars,
    summarise,
    take_rows,
)
from hmm_exp.judge.split import SPLIT_NAMES, TEST, TRAIN, VAL, WalkForward, part_names
from hmm_exp.judge.states import (
    YEAR,
    StateSummary,
    diagnostics_table,
    persistence_metrics,
    raw_covars,
    raw_means,
)
from hmm_exp.judge.unscored import RETURN, Unscored, fitted, in_words, why_no_return
from hmm_exp.judge.variance import (
    losses_of_bars,
    next_parkinson,
    shapes_of_bars,
    variance_gains,
)
from hmm_exp.uncertainty.estimates import StandardErrors

VARIANCES = [f"{name}_variance" for name in ("model", "static", "ewma")]
# Log scores in nats, variance forecasts up to a factor, pseudo-residual of the next return.
BAR_COLUMNS = [*SCORES, *VARIANCES, "return_residual"]
NEXT_RETURN = "next_return"


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """Outputs of one model, or of successive refits, per row and bar.

    Attributes
    ----------
    probs
        Filtered probabilities of every row, shape (T, K); NaN before the first model.
    predicted
        State probabilities p(z_t | x_1..t-1) before every row, shape (T, K).
    log_lik
        ln p(x_t | x_1..t-1) of every row in nats of scaled features, shape (T,), NaN as above.
    smoothed
        Smoothed probabilities, shape (T, K).
    regimes
        Decided regime of every row, shape (T,); -1 while it is not decided.
    bar_probs
        Filtered probabilities known at the close of every base bar, shape (N, K).
    residuals
        Forecast pseudo-residuals of every feature, shape (T, D); NaN on train rows.
    bars
        Forecasts of every base bar's next return, columns `BAR_COLUMNS`; NaN where a forecast has
        no fit, and residuals also where the return is on train. None without base returns.
    densities
        Densities of the next return by state, from which the scores come; None without a fit, and
        for a walk, which has many.
    unscored
        Reasons for missing scores.
    """

    probs: np.ndarray
    predicted: np.ndarray
    log_lik: np.ndarray
    smoothed: np.ndarray
    regimes: np.ndarray
    bar_probs: np.ndarray
    residuals: np.ndarray
    bars: pd.DataFrame | None
    densities: ReturnDensities | None = None
    unscored: Unscored = field(default_factory=dict)

    @cached_property
    def scores(self) -> pd.DataFrame | None:
        """Log predictive densities of the next return, nats, columns `SCORES`."""
        return None if self.bars is None else self.bars[[*SCORES]]

    @property
    def has_probs(self) -> np.ndarray:
        """Mask of the rows that have probabilities, shape (T,)."""
        return np.isfinite(self.probs[:, 0])


@dataclass(frozen=True, eq=False)
class Assessment:
    """Tables and metrics of one model, or of the successive refits of a walk.

    Attributes
    ----------
    summary
        States, transitions and means in raw units; its path holds the rows with a regime.
    probs
        Filtered probabilities of every row, shape (T, K); NaN before the first model.
    scores
        Per base bar `available_at, split` and log predictive densities of its next return,
        `model_score, static_score, ewma_score` and so on in nats; NaN where a forecast has no fit;
        with bars also their `close`. None without base returns.
    next_bar
        Per-state table of the next bar's return by part; empty without returns.
    diagnostics
        Tidy `table, row, column, value`.
    metrics
        Persistence, return forecasts with their errors, variance forecasts and residuals.
    residuals
        Pseudo-residuals out of sample by name, the features and last the next return.
    unscored
        Reasons for missing scores.
    objections
        Sentences: why scores are missing, and what the residuals of the next return reject.
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
        """Filtered label of every row, shape (T,); -1 before the first model."""
        return most_probable(self.probs)


def model_output(
    prepared: Prepared, posterior: Posterior, baselines: Baselines | None = None
) -> ModelOutput:
    """Outputs of one model for all rows and bars, its return densities fitted on train.

    Parameters
    ----------
    posterior
        State probabilities of the prepared rows.
    baselines
        Forecasts without states, where they are fitted already.

    Raises
    ------
    FitError
        When the chain has no unique stationary distribution.
    """
    filtered, params = posterior.filtered, posterior.params
    predicted = predicted_probs(params, prepared.table.steps, filtered.probs)
    bar_probs = _known_at_close(prepared, filtered.probs)
    later = _out_of_sample(prepared.part)
    residuals = np.full(prepared.X.shape, np.nan)
    now = np.compress(later, prepared.X, axis=0), np.compress(later, predicted, axis=0)
    residuals[later] = forecast_residuals(params, *now)
    return ModelOutput(
        probs=filtered.probs,
        predicted=predicted,
        log_lik=filtered.log_lik,
        smoothed=posterior.smoothed.probs,
        regimes=decided_regimes(prepared, posterior),
        bar_probs=bar_probs,
        residuals=residuals,
        **_forecasts(prepared, bar_probs, baselines),
    )


def next_return_criterion(prepared: Prepared, posterior: Posterior) -> float:
    """`bic_next` of a fit. Raises FitError where the next return cannot be scored on train."""
    if prepared.source.next_return is None:
        raise FitError("no next-bar return is known, and bic_next is of its scores")
    on_train = np.where(prepared.target_part == TRAIN, prepared.source.next_return, np.nan)
    probs = _known_at_close(prepared, posterior.filtered.probs)
    densities = fit_return_densities(probs, on_train)
    found = bic_next(densities.log_score(probs, on_train), posterior.params.n_states)
    assert found is not None  # a fit has scored bars
    return found


def baselines_of(prepared: Prepared) -> Baselines | None:
    """Forecasts without states, fitted on the train bars; None without base returns."""
    if (series := prepared.series) is None:
        return None
    train = prepared.target_part == TRAIN
    return series.once(train.tobytes(), lambda: fit_baselines(series.part(train)))


def assess(
    prepared: Prepared,
    chosen: Candidate,
    output: ModelOutput,
    labels: Sequence[str],
    errors: StandardErrors | None = None,
) -> Assessment:
    """Judge a model by its output. The next bar is tabled for test and train, or val of a walk.

    `labels` name the states; `errors` are the standard errors of the model, in units of the scaled
    features.
    """
    parts = (VAL if isinstance(prepared.split, WalkForward) else TRAIN, TEST)
    rows = output.has_probs
    summary = _summary(prepared, chosen, output, labels)
    residuals = _residual_series(prepared, output)
    measured = {name: residual_effects(z) for name, z in residuals.items()}
    effects = {name: effect for name, effect in measured.items() if effect is not None}
    # Residuals of rolling features remember their window under any model: they only inform.
    objections = rejections(NEXT_RETURN, effects[NEXT_RETURN]) if NEXT_RETURN in effects else []
    filtered = np.compress(rows, output.probs, axis=0)
    smoothed = np.compress(rows, output.smoothed, axis=0)
    metrics = persistence_metrics(filtered, smoothed, summary.steps)
    gains = _return_gains(output) | _variance_gains(prepared, output)
    added = _added_gains(prepared, output)
    metrics |= gain_metrics(gains | added.of_strongest, prepared.target_part)
    metrics |= part_means(added.of_strongest, prepared.target_part)
    metrics |= _residual_metrics(residuals, effects, objections)
    at_close = most_probable(output.bar_probs)
    metrics |= planted_delay(prepared, at_close)
    metrics |= regime_metrics(prepared, output.regimes)
    scaler = prepared.scaler
    raw_errors = None if errors is None else errors.in_units(scaler.mean_, scaler.scale_)
    scores, next_bar = None, {}
    if output.scores is not None:
        metrics |= summarise(output.scores, prepared.target_part)
        on_train = output.scores["model"].to_numpy()[prepared.target_part == TRAIN]
        found = bic_next(on_train, output.probs.shape[1])
        metrics |= {} if found is None else {"bic_next": found}
        scores = _recorded_scores(prepared, output.scores)
        next_bar = _next_bar(prepared, at_close, output.bar_probs.shape[1], parts)
    return Assessment(
        summary=summary,
        probs=output.probs,
        scores=scores,
        next_bar=next_bar,
        diagnostics=diagnostics_table(
            summary, next_bar, raw_errors, {"added_gain": added.table(prepared.target_part)}
        ),
        metrics=metrics,
        residuals=residuals,
        unscored=output.unscored,
        objections=in_words(output.unscored) + objections + added.objections,
    )


def most_probable(probs: np.ndarray) -> np.ndarray:
    """Most probable state of every row, shape (T,); -1 where there are no probabilities."""
    known = np.isfinite(probs[:, 0])
    return np.where(known, largest_column(probs), -1)


def _out_of_sample(part: np.ndarray) -> np.ndarray:
    """Mask of validation and test."""
    return (part == VAL) | (part == TEST)


def _known_at_close(prepared: Prepared, probs: np.ndarray) -> np.ndarray:
    """Probabilities of the latest complete row at every base bar's close, NaN before the first."""
    return take_rows(probs, prepared.row_of_bar)


def _forecasts(
    prepared: Prepared, bar_probs: np.ndarray, baselines: Baselines | None
) -> dict[str, Any]:
    """Fields of a `ModelOutput` about the next return: `bars`, `densities` and `unscored`."""
    series = prepared.series
    if series is None:
        assert prepared.source.frame is not None  # bars have returns
        why = why_no_return(prepared.source.frame, prepared.recipe.grid)
        return {"bars": None, "unscored": {RETURN: why}}
    returns = series.next_return
    known = baselines or baselines_of(prepared)
    assert known is not None
    unscored = dict(known.unscored)
    on_train = np.where(prepared.target_part == TRAIN, returns, np.nan)
    densities = fitted("model", unscored, fit_return_densities, bar_probs, on_train)
    scores = scores_of_bars(densities, known, bar_probs, series)
    shapes = shapes_of_bars(densities, known, bar_probs, series)
    later = _out_of_sample(prepared.target_part)
    residuals = np.full(len(returns), np.nan)
    now = np.compress(later, bar_probs, axis=0), np.compress(later, returns)
    residuals[later] = return_residuals(densities, *now)
    columns = [*scores.values(), *shapes.values(), residuals]
    bars = pd.DataFrame(dict(zip(BAR_COLUMNS, columns, strict=True)), copy=False)
    return {"bars": bars, "densities": densities, "unscored": unscored}


def _summary(
    prepared: Prepared, chosen: Candidate, output: ModelOutput, labels: Sequence[str]
) -> StateSummary:
    params, scaler, rows = chosen.params, prepared.scaler, output.has_probs
    return StateSummary(
        labels=labels,
        columns=prepared.recipe.titles,
        transmat=params.transmat,
        stationary=params.stationary(),
        means=raw_means(params.means, scaler.mean_, scaler.scale_),
        covars=raw_covars(params.covariances(), scaler.scale_),
        df=params.df,
        states=largest_column(output.probs)[rows],
        steps=prepared.table.steps[rows],
    )


def _residual_series(prepared: Prepared, output: ModelOutput) -> dict[str, np.ndarray]:
    """Pseudo-residuals out of sample by name: features of rows, then the next return of bars."""
    later = _out_of_sample(prepared.part)
    series = dict(zip(prepared.recipe.columns, output.residuals[later].T, strict=True))
    if output.bars is not None:
        bars = _out_of_sample(prepared.target_part)
        series[NEXT_RETURN] = output.bars["return_residual"].to_numpy()[bars]
    return {name: z for name, z in series.items() if np.isfinite(z).any()}


def _residual_metrics(
    residuals: dict[str, np.ndarray], effects: dict[str, ResidualEffects], objections: list[str]
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, effect in effects.items():
        metrics |= effect.metrics(name)
    if NEXT_RETURN in residuals:
        metrics["residuals_reject"] = float(bool(objections))
    return metrics


def _return_gains(output: ModelOutput) -> dict[str, np.ndarray]:
    """Log score gains over the baselines, nats per bar."""
    if output.bars is None:
        return {}
    values = per_bar(output.bars)
    return {name: values[name] for name in GAINS}


def _added_gains(prepared: Prepared, output: ModelOutput) -> AddedGains:
    """Gains of the model with a volatility forecast; none for a walk and without densities."""
    baselines = baselines_of(prepared)
    if output.densities is None or prepared.series is None or baselines is None:
        return AddedGains({}, {}, None, {})
    train, threads = prepared.target_part == TRAIN, prepared.config.compute.threads
    return added_gains(
        output.densities, baselines, output.bar_probs, prepared.series, train, threads
    )


def _variance_gains(prepared: Prepared, output: ModelOutput) -> dict[str, np.ndarray]:
    """QLIKE gains against the squared return and, with bars, against the Parkinson range.

    The level of a forecast is fitted on train bars; a walk has no forecast there, and no gain.
    """
    returns, source = prepared.source.next_return, prepared.source
    if output.bars is None or returns is None:
        return {}
    proxies = {"": returns**2}
    if source.bars is not None:
        frame = source.bars.frame
        high, low = frame["high"].to_numpy(), frame["low"].to_numpy()
        proxies["parkinson_"] = next_parkinson(high, low, returns)
    shapes = {name.removesuffix("_variance"): output.bars[name].to_numpy() for name in VARIANCES}
    train = prepared.target_part == TRAIN
    gains: dict[str, np.ndarray] = {}
    for proxy, values in proxies.items():
        try:
            losses = losses_of_bars(shapes, values, train)
        except FitError:
            continue
        gains |= {f"{proxy}{name}": gain for name, gain in variance_gains(losses).items()}
    return gains


def _recorded_scores(prepared: Prepared, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with the bar's time, the part of its target, and its close."""
    columns = {"available_at": prepared.source.time, "split": part_names(prepared.target_part)}
    columns |= {f"{name}_score": scores[name].to_numpy() for name in scores}
    if (bars := prepared.source.bars) is not None:
        columns["close"] = bars.frame["close"].to_numpy()
    return pd.DataFrame(columns, index=scores.index, copy=False)


def _next_bar(
    prepared: Prepared, states: np.ndarray, n_states: int, parts: Sequence[int]
) -> dict[str, pd.DataFrame]:
    returns = prepared.source.next_return
    assert returns is not None
    # Bars a year as they come, so that sessions and weekends are not counted.
    years = (prepared.source.time[-1] - prepared.source.time[0]) / YEAR
    per_year = len(returns) / years if years > 0 else None
    return {
        SPLIT_NAMES[part]: next_bar_table(
            states,
            returns,
            n_states,
            bars_per_year=per_year,
            mask=prepared.target_part == part,
        )
        for part in parts
    }
