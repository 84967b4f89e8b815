"""One run, from prepared rows to a judged detector, without Hydra and without MLflow.

    result = run(prepare(checked(Config())))
    result.metrics["bic"], result.detector.filter(bars)

Train fits, validation chooses the number of states, test only judges. With `split=walk_forward`
the bars up to val_end choose and the later ones judge, all of them out of sample.

`run` is `evaluated(fitted(prepared))`: a sweep evaluates one run while it fits the next.
"""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
from threadpoolctl import ThreadpoolController

from hmm_exp.detector.detector import Detector
from hmm_exp.experiment.assess import ModelOutput, assess, model_output
from hmm_exp.experiment.build import build_detector, regime_table, with_expectations
from hmm_exp.experiment.decided import decided_regimes
from hmm_exp.experiment.fits import Fits, Progress, fit_grid, fit_walks
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.quiet import one_tick_states
from hmm_exp.experiment.result import RunResult, regime_in_words
from hmm_exp.experiment.strategies import judge_run, positions_of, rules_of, stored_rules
from hmm_exp.experiment.uncertainty import fit_errors
from hmm_exp.experiment.walk import refusals, walk_metrics
from hmm_exp.judge.split import WalkForward
from hmm_exp.judge.states import switches_per_1000
from hmm_exp.judge.strategy import TradingRules
from hmm_exp.judge.strategy_table import StrategyTable
from hmm_exp.uncertainty.estimates import StandardErrors

__all__ = ["Fitted", "RunResult", "evaluated", "fitted", "regime_in_words", "run"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A run that is fitted and not judged yet.

    Attributes
    ----------
    detector
        Without baseline, standard errors and trading rules.
    seconds
        Seconds of the fit.
    """

    prepared: Prepared
    fits: Fits
    detector: Detector
    seconds: float


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
    return evaluated(fitted(prepared, progress), progress)


def fitted(prepared: Prepared, progress: Progress = lambda text: None) -> Fitted:
    """Fit every number of states, choose one and build its detector; raises FitError as `run`."""
    started = time.perf_counter()
    fit = fit_walks if isinstance(prepared.split, WalkForward) else fit_grid
    with one_thread():
        fits = fit(prepared, progress)
        detector = build_detector(fits)
    return Fitted(prepared, fits, detector, time.perf_counter() - started)


def evaluated(fit: Fitted, progress: Progress = lambda text: None) -> RunResult:
    """Judge a run that is fitted."""
    started = time.perf_counter()
    progress("evaluating")
    with one_thread():
        result = judged(fit.prepared, fit.fits, fit.detector, fit_errors(fit.fits))
    seconds = {"seconds_features": fit.prepared.seconds, "seconds_fit": fit.seconds}
    seconds["seconds_evaluate"] = time.perf_counter() - started
    return replace(result, metrics=result.metrics | seconds)


def one_thread() -> AbstractContextManager:
    """For a few parameters, threads of BLAS would only wait for each other."""
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    """The libraries of NumPy and SciPy, which this module's imports load; a search takes 2 ms."""
    return ThreadpoolController()


def judged(
    prepared: Prepared,
    fits: Fits,
    detector: Detector,
    errors: tuple[StandardErrors, StandardErrors],
) -> RunResult:
    """Judge fits whose detector is built.

    Parameters
    ----------
    detector
        From `build_detector`, without baseline, standard errors and trading rules.
    errors
        Standard errors of the chosen and of the served model.
    """
    if fits.walk:
        prepared = prepared.scaled_by(fits.scaler, fits.season)
        output = fits.walk.output
    else:
        assert fits.chosen.posterior is not None
        output = model_output(prepared, fits.chosen.posterior)
    assessment = assess(prepared, fits.chosen, output, detector.labels, errors[0])
    detector = replace(with_expectations(detector, fits, output), errors=errors[1])
    rules = None if fits.walk else rules_of(prepared, output.regimes, prepared.split.train_end)
    detector = replace(detector, strategy=_served_rules(prepared, fits, detector, rules))
    regimes = regime_table(prepared, detector, fits)
    strategies = _strategies(prepared, fits, output, rules, detector.labels)

    metrics = fits.metrics() | assessment.metrics | _path_metrics(prepared, fits, regimes)
    metrics |= strategies.metrics() if strategies else {}
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
        metrics={name: float(value) for name, value in metrics.items() if np.isfinite(value)},
        faults=fits.chosen.faults,
        warnings=[
            *fits.warnings,
            *assessment.objections,
            *refusals(fits.walk),
            *([] if fits.walk else prepared.unseen_hours),
            *one_tick_states(prepared, assessment.states, detector.labels),
        ],
        walk=fits.walk,
        strategies=strategies,
        no_errors=errors[0].reason,
    )


def _served_rules(
    prepared: Prepared, fits: Fits, detector: Detector, rules: TradingRules | None
) -> dict:
    """Trading rules of the served model for its detector; empty without bars.

    `rules` are those of the chosen fit, which is served unless there is a
    refit or another end of train.
    """
    assert fits.served.posterior is not None
    end = pd.Timestamp(detector.meta["train_end"])
    if fits.walk or fits.refit or end != prepared.split.train_end:
        rules = rules_of(fits.fitted, decided_regimes(fits.fitted, fits.served.posterior), end)
    return stored_rules(rules, prepared, end) if rules else {}


def _strategies(
    prepared: Prepared,
    fits: Fits,
    output: ModelOutput,
    rules: TradingRules | None,
    labels: tuple[str, ...],
) -> StrategyTable | None:
    """The strategy table of the chosen fit or walk; None without bars or with too few."""
    if fits.walk:
        rules, positions = fits.walk.rules, fits.walk.positions
    else:
        positions = positions_of(prepared, rules, output.regimes) if rules else np.empty(0)
    return judge_run(prepared, rules, positions, labels) if rules else None


def _path_metrics(prepared: Prepared, fits: Fits, regimes: pd.DataFrame) -> dict[str, float]:
    """Metrics of a walk's refits; or the switches of the Viterbi path of a single fit."""
    if fits.walk:
        return walk_metrics(fits.walk)
    rate = switches_per_1000(regimes["state_viterbi"].to_numpy(), prepared.table.steps)
    return {} if rate is None else {"switches_per_1000_viterbi": rate}
