"""One run, from prepared rows to a judged detector, without Hydra and without MLflow.

    result = run(prepare(checked(Config())))
    result.metrics["bic"], result.detector.filter(bars)

Train fits, validation chooses the number of states, test only judges. With `split=walk_forward`
the bars up to val_end choose and the later ones judge, all of them out of sample.
"""

import time
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from hmm_exp.detector.detector import Detector
from hmm_exp.experiment.assess import assess, model_output
from hmm_exp.experiment.build import build_detector, with_expectations
from hmm_exp.experiment.fits import Fits, Progress, fit_grid, fit_walks
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.result import RunResult, regime_in_words
from hmm_exp.experiment.walk import Walk, walk_metrics
from hmm_exp.hmm.posterior import Posterior
from hmm_exp.judge.split import TEST, TRAIN, VAL, WalkForward, part_names
from hmm_exp.judge.states import switches_per_1000

__all__ = ["RunResult", "regime_in_words", "regime_table", "run"]


def run(prepared: Prepared, progress: Progress = lambda text: None) -> RunResult:
    """Fit every number of states, choose one, build its detector and judge it.

    Parameters
    ----------
    progress
        Called with a few words at the start of every stage.

    Raises
    ------
    FitError
        When no number of states can be fitted, or the chain of the chosen one never forgets.
    """
    with threadpool_limits(limits=1, user_api="blas"):  # a few parameters: threads would only wait
        return _run(prepared, progress)


def _run(prepared: Prepared, progress: Progress) -> RunResult:
    clock = time.perf_counter()
    walks = isinstance(prepared.split, WalkForward)
    fits = fit_walks(prepared, progress) if walks else fit_grid(prepared, progress)
    detector = build_detector(fits)
    seconds_fit = time.perf_counter() - clock
    progress("evaluating")
    if fits.walk:
        prepared = prepared.scaled_by(fits.scaler)
        output, parts = fits.walk.output, (VAL, TEST)
    else:
        assert fits.chosen.posterior is not None
        output, parts = model_output(prepared, fits.chosen.posterior), (TRAIN, TEST)
    assessment = assess(prepared, fits.chosen, output, parts)
    detector = with_expectations(detector, fits, None if fits.walk or fits.refit else output)
    regimes, warnings = _regimes(prepared, detector, fits), _warnings(fits)
    metrics = _metrics(fits) | assessment.metrics | _path_metrics(prepared, fits, regimes)
    seconds = {"seconds_features": prepared.seconds, "seconds_fit": seconds_fit}
    seconds["seconds_evaluate"] = time.perf_counter() - clock - seconds_fit
    return RunResult(
        prepared=prepared,
        candidates=fits.candidates,
        chosen=fits.chosen,
        detector=detector,
        scaler=fits.scaler,
        refit=fits.refit,
        assessment=assessment,
        selection=fits.selection,
        regimes=regimes,
        metrics=_finite(metrics | seconds),
        faults=fits.chosen.faults,
        warnings=warnings + assessment.objections + _refusals(fits.walk),
        walk=fits.walk,
    )


def regime_table(prepared: Prepared, detector: Detector, posterior: Posterior) -> pd.DataFrame:
    """Rows of `regimes.csv`: the causal answer first, then hindsight, named as such."""
    regimes = detector.regimes(prepared.table, posterior.filtered.probs)
    regimes.insert(2, "split", part_names(prepared.part))
    regimes["state_smoothed"] = posterior.smoothed.probs.argmax(axis=1)
    regimes["state_viterbi"] = posterior.decoded.states
    return regimes


def walk_regimes(prepared: Prepared, detector: Detector, walk: Walk) -> pd.DataFrame:
    """Rows of `regimes.csv` of a walk: out of sample only, with the number of the fit.

    Those of the last block are the detector's own answers.
    """
    regimes = detector.regimes(prepared.table, walk.output.probs)
    regimes.insert(2, "split", part_names(prepared.part))
    regimes["refit"] = walk.refit_of_row
    return regimes[walk.output.has_probs].reset_index(drop=True)


def _regimes(prepared: Prepared, detector: Detector, fits: Fits) -> pd.DataFrame:
    if fits.walk:
        return walk_regimes(prepared, detector, fits.walk)
    assert fits.served.posterior is not None
    return regime_table(prepared, detector, fits.served.posterior)


def _metrics(fits: Fits) -> dict[str, Any]:
    """Metrics of the chosen fit."""
    chosen = fits.chosen
    metrics: dict[str, Any] = {
        **chosen.criteria,
        "bic_null": fits.null["bic"],
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
    if len(fits.candidates) > 1:
        metrics["grid_edge"] = _at_edge(fits)
    for part, log_lik in chosen.log_lik.items():
        metrics[f"log_lik_{part}"] = log_lik
        metrics[f"log_lik_{part}_per_bar"] = log_lik / chosen.n_rows[part]
    return metrics


def _path_metrics(prepared: Prepared, fits: Fits, regimes: pd.DataFrame) -> dict[str, float]:
    """Metrics of a walk's refits; or the switches of the Viterbi path of a single fit."""
    if fits.walk:
        return walk_metrics(fits.walk)
    rate = switches_per_1000(regimes["state_viterbi"].to_numpy(), prepared.table.steps)
    return {} if rate is None else {"switches_per_1000_viterbi": rate}


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def _warnings(fits: Fits) -> list[str]:
    edge = f"the best number of states, {fits.chosen.n_states}, is the largest tried"
    return fits.warnings + [edge] * _at_edge(fits)


def _at_edge(fits: Fits) -> bool:
    return len(fits.candidates) > 1 and fits.chosen is fits.candidates[-1]


def _refusals(walk: Walk | None) -> list[str]:
    """Fits that were not used, in one line with the reason of the latest."""
    refused = [refit for refit in walk.refits if refit.refused] if walk else []
    if not walk or not refused:
        return []
    latest = refused[-1]
    return [
        f"{len(refused)} of {len(walk.refits)} fits were refused and the model before them went "
        f"on, last at {latest.fold.split.train_end:%Y-%m-%d %H:%M}: {'; '.join(latest.refused)}"
    ]
