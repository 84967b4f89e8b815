"""One run, from prepared rows to a judged detector, without Hydra and without MLflow.

    result = run(prepare(checked(Config())))
    result.metrics["bic"], result.detector.filter(bars)

Train fits, validation chooses the number of states, test only judges. With `split=walk_forward`
the same holds for a walk: its bars up to val_end choose, the later ones judge, all out of sample.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hmm_exp.detector.detector import Detector
from hmm_exp.errors import FitError
from hmm_exp.experiment.assess import ModelOutput, assess, baselines_of, model_output
from hmm_exp.experiment.candidate import Candidate, fit_candidate, held_out, train_steps
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.result import RunResult, regime_in_words
from hmm_exp.experiment.select import select, select_walk, selection_table, validation_scores
from hmm_exp.experiment.source import read_options
from hmm_exp.experiment.walk import Walk, walk_forward, walk_metrics
from hmm_exp.hmm.burnin import burn_in
from hmm_exp.hmm.criteria import criteria, single_gaussian
from hmm_exp.hmm.states import labels
from hmm_exp.judge.split import SPLIT_NAMES, TEST, VAL, WalkForward
from hmm_exp.judge.states import switches_per_1000
from hmm_exp.market.bars import OHLCV
from hmm_exp.monitor.expectations import make_expectations

__all__ = ["RunResult", "regime_in_words", "regime_table", "run", "run_once", "run_walk_forward"]

Progress = Callable[[str], None]


def run(prepared: Prepared, progress: Progress = lambda text: None) -> RunResult:
    """Fit every number of states, choose one, build its detector and judge it.

    Parameters
    ----------
    progress
        Called with a few words whenever a new piece of work starts.

    Raises
    ------
    FitError
        When no number of states can be fitted, or the chain of the chosen one never forgets.
    """
    walks = isinstance(prepared.split, WalkForward)
    with threadpool_limits(limits=1, user_api="blas"):  # a few parameters: threads would only wait
        return run_walk_forward(prepared, progress) if walks else run_once(prepared, progress)


def run_once(prepared: Prepared, progress: Progress = lambda text: None) -> RunResult:
    """Fit on train alone; see `run`."""
    clock = time.perf_counter()
    candidates, warnings = _fit_grid(prepared, progress)
    null = _null(prepared)
    selection = prepared.config.selection
    chosen = select(candidates, selection, null.get(selection.within))
    refit, scaler = _refit(prepared, chosen, warnings, progress)
    detector = _detector(prepared, refit or chosen, scaler)
    seconds_fit = time.perf_counter() - clock
    progress("evaluating")
    track = model_output(prepared, chosen.params)
    assessment = assess(prepared, chosen, track)
    detector = _promising(prepared, detector, None if refit else track)
    metrics = _metrics(candidates, chosen, null, warnings) | assessment.metrics
    regimes = regime_table(prepared, detector)
    metrics |= _viterbi(prepared, regimes) | _seconds(prepared, clock, seconds_fit)
    return RunResult(
        prepared=prepared,
        candidates=candidates,
        chosen=chosen,
        detector=detector,
        scaler=scaler,
        refit=refit,
        assessment=assessment,
        selection=selection_table(candidates, chosen, null),
        regimes=regimes,
        metrics=_finite(metrics),
        faults=chosen.faults,
        warnings=warnings + assessment.objections,
    )


def run_walk_forward(prepared: Prepared, progress: Progress = lambda text: None) -> RunResult:
    """Fit again and again on the past, judge what was said of the bars after; see `run`.

    The last model of the chosen walk is the detector, and criteria and train figures are its own.
    """
    clock = time.perf_counter()
    walks, warnings = walk_forward(prepared, progress)
    walk = select_walk(walks, prepared.target_part, prepared.config.selection)
    fitted, chosen = walk.fitted, walk.candidate
    detector = _promising(fitted, _detector(fitted, chosen, fitted.scaler), None)
    seconds_fit = time.perf_counter() - clock
    progress("evaluating")
    prepared = prepared.scaled_by(fitted.scaler)
    assessment = assess(prepared, chosen, walk.track, parts=(VAL, TEST))
    null = _null(fitted)
    candidates = [other.candidate for other in walks]
    metrics = _metrics(candidates, chosen, null, warnings) | assessment.metrics
    metrics |= walk_metrics(walk) | _seconds(prepared, clock, seconds_fit)
    scores = pd.DataFrame([validation_scores(other, prepared.target_part) for other in walks])
    table = selection_table(candidates, chosen, null)
    return RunResult(
        prepared=prepared,
        candidates=candidates,
        chosen=chosen,
        detector=detector,
        scaler=fitted.scaler,
        refit=None,
        assessment=assessment,
        selection=table.join(scores.set_axis(table.index[-len(walks) :])),
        regimes=walk_regimes(prepared, detector, walk),
        metrics=_finite(metrics),
        faults=chosen.faults,
        warnings=warnings + assessment.objections + _refusals(walk),
        walk=walk,
    )


def regime_table(prepared: Prepared, detector: Detector) -> pd.DataFrame:
    """Rows of `regimes.csv`: the causal answer first, then what hindsight says, named as such."""
    table = prepared.table
    regimes = detector.filter(table)
    split = [SPLIT_NAMES[part] for part in prepared.part]
    regimes.insert(2, "split", split)
    regimes["state_smoothed"] = detector.smoothed(table).probs.argmax(axis=1)
    regimes["state_viterbi"] = detector.decoded(table).states
    return regimes


def walk_regimes(prepared: Prepared, detector: Detector, walk: Walk) -> pd.DataFrame:
    """Rows of `regimes.csv` of a walk: out of sample only, with the fit that spoke, no hindsight.

    Those of the last block are the detector's own answers.
    """
    regimes = detector.regimes(prepared.table, walk.track.probs)
    regimes.insert(2, "split", [SPLIT_NAMES[part] for part in prepared.part])
    regimes["refit"] = walk.refit_of_row
    return regimes[walk.track.has_probs].reset_index(drop=True)


def _fit_grid(prepared: Prepared, progress: Progress) -> tuple[list[Candidate], list[str]]:
    """Fit every number of states; one that cannot be fitted is named, and fails no other."""
    candidates: list[Candidate] = []
    errors = []
    for n_states in prepared.config.state_grid:
        progress(f"fitting {n_states} states")
        smaller = candidates[-1].fit if candidates else None
        try:
            candidate = fit_candidate(prepared, n_states, smaller=smaller)
            candidates.append(_cross_validated(prepared, candidate, progress))
        except FitError as error:
            errors.append(f"{n_states} states: {error}")
    if not candidates:
        raise FitError("; ".join(errors))
    notes = [f"{c.n_states} states: {c.note}" for c in candidates if c.note]
    return candidates, errors + notes


def _cross_validated(prepared: Prepared, candidate: Candidate, progress: Progress) -> Candidate:
    """Add the criterion `cv` where it is asked for."""
    if not prepared.config.selection.cv_blocks:
        return candidate
    progress(f"cross-validating {candidate.n_states} states")
    extra = held_out(prepared, candidate.n_states)
    return replace(candidate, criteria=candidate.criteria | extra)


def _refit(
    prepared: Prepared, chosen: Candidate, warnings: list[str], progress: Progress
) -> tuple[Candidate | None, StandardScaler]:
    """Fit again on train and validation when asked; a degenerate refit is not used."""
    if prepared.config.model.refit == "train":
        return None, prepared.scaler
    progress(f"refitting {chosen.n_states} states on train and validation")
    rows = prepared.train | (prepared.part == VAL)
    wider = prepared.rescaled(rows)
    try:
        refit = fit_candidate(wider, chosen.n_states, rows)
    except FitError as error:
        warnings.append(f"the refit failed and is not used: {error}")
        return None, prepared.scaler
    if refit.faults:
        warnings.append(f"the refit is degenerate and not used: {'; '.join(refit.faults)}")
        return None, prepared.scaler
    return refit, wider.scaler


def _detector(prepared: Prepared, candidate: Candidate, scaler: StandardScaler) -> Detector:
    refitted = scaler is not prepared.scaler
    train_end = prepared.split.val_end if refitted else prepared.split.train_end
    detector = Detector(
        recipe=prepared.recipe,
        scaler_mean=np.array(scaler.mean_),
        scaler_scale=np.array(scaler.scale_),
        params=candidate.params,
        labels=labels(candidate.n_states),
        step=prepared.base_step,
        reading=read_options(prepared.config.data),
        name=prepared.source.name,
        min_history=0,
        meta={
            "fingerprint": prepared.fingerprint,
            "train_end": train_end.isoformat(),
            "refit": refitted,
            "columns": _columns_read(prepared),
        },
    )
    return replace(detector, min_history=_min_history(prepared, detector))


def _columns_read(prepared: Prepared) -> dict[str, str]:
    """Columns of the file that were read as times, prices and volume; of features the times."""
    columns = prepared.source.report.get("columns", {})
    return {role: columns[role] for role in ("timestamp", *OHLCV) if role in columns}


def _promising(prepared: Prepared, detector: Detector, track: ModelOutput | None) -> Detector:
    """The detector with what it may be held to later; nothing where there is too little to go by.

    `track` is that of the very same fit, whose densities of the next return need no second fit.
    """
    source, densities = prepared.source, None
    if track is not None and track.yardstick is not None:
        baselines = baselines_of(prepared)
        assert baselines is not None
        densities = (track.yardstick, baselines.static)
    promise = make_expectations(
        detector,
        prepared.table,
        source.time,
        source.next_return,
        (prepared.split.train_start, pd.Timestamp(detector.meta["train_end"])),
        densities,
    )
    return replace(detector, promise=promise.to_dict() if promise else {})


def _min_history(prepared: Prepared, detector: Detector) -> int:
    """Base bars an answer needs: feature warm-up, and burn-in counted in bars of the row grid."""
    rows = prepared.train
    density = detector.log_density(prepared.table)[rows]
    burn = burn_in(detector.params, density, train_steps(prepared.table.steps, rows))
    bars_per_row = max(1, round(detector.row_step / detector.step))
    return detector.recipe.warmup(detector.step) + burn * bars_per_row


def _null(prepared: Prepared) -> dict[str, float]:
    """Criteria of the one-state model."""
    config = prepared.config
    X = prepared.X[prepared.train]
    log_lik, n_params = single_gaussian(X, config.covariance.type, config.model.min_covar)
    n_rows = int((~np.isnan(X).any(axis=1)).sum())
    return {
        "log_lik_train": log_lik,
        "n_params": n_params,
        **criteria(log_lik, n_params, n_rows, path_entropy=0.0),
    }


def _metrics(
    candidates: list[Candidate], chosen: Candidate, null: dict[str, float], warnings: list[str]
) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        **chosen.criteria,
        "bic_null": null["bic"],
        "n_params": chosen.params.n_parameters(),
        "n_rows_train": chosen.n_rows["train"],
        "n_states": chosen.n_states,
        "n_features": chosen.params.n_features,
        "n_iter": chosen.fit.n_iter,
        "n_polished": chosen.fit.n_polished,
        "converged": chosen.fit.converged,
        "restart_agreement": chosen.fit.restart_agreement,
        "min_occupancy": chosen.occupancy.min(),
        "max_condition_number": chosen.max_condition_number,
    }
    if len(candidates) > 1:
        metrics["grid_edge"] = chosen is candidates[-1]
    if metrics.get("grid_edge"):
        warnings.append(f"the best number of states, {chosen.n_states}, is the largest tried")
    for part, log_lik in chosen.log_lik.items():
        metrics[f"log_lik_{part}"] = log_lik
        metrics[f"log_lik_{part}_per_bar"] = log_lik / chosen.n_rows[part]
    return metrics


def _viterbi(prepared: Prepared, regimes: pd.DataFrame) -> dict[str, float]:
    """How restless the path of hindsight is, beside `switches_per_1000` of the filtered labels."""
    rate = switches_per_1000(regimes["state_viterbi"].to_numpy(), prepared.table.steps)
    return {} if rate is None else {"switches_per_1000_viterbi": rate}


def _seconds(prepared: Prepared, clock: float, seconds_fit: float) -> dict[str, float]:
    return {
        "seconds_features": prepared.seconds,
        "seconds_fit": seconds_fit,
        "seconds_evaluate": time.perf_counter() - clock - seconds_fit,
    }


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def _refusals(walk: Walk) -> list[str]:
    """Fits that were not used, in one line with the reason of the latest."""
    refused = [refit for refit in walk.refits if refit.refused]
    if not refused:
        return []
    latest = refused[-1]
    return [
        f"{len(refused)} of {len(walk.refits)} fits were refused and the model before them went "
        f"on, last at {latest.fold.split.train_end:%Y-%m-%d %H:%M}: {'; '.join(latest.refused)}"
    ]
