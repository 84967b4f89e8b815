"""One run, from prepared rows to a judged detector, without Hydra and without MLflow.

    result = run(prepare(checked(Config())))
    result.metrics["bic"], result.detector.filter(bars)

Train fits, validation chooses the number of states, test only judges.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from sklearn.preprocessing import StandardScaler

from hmm_exp.config import Config
from hmm_exp.detector import Detector
from hmm_exp.errors import FitError
from hmm_exp.experiment.assess import Assessment, assess
from hmm_exp.experiment.candidate import Candidate, fit_candidate, train_steps
from hmm_exp.experiment.persistence import expected_dwell
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.select import select, selection_table
from hmm_exp.experiment.split import SPLIT_NAMES, VAL
from hmm_exp.hmm.burnin import burn_in
from hmm_exp.hmm.criteria import criteria, single_gaussian
from hmm_exp.hmm.order import labels

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class RunResult:
    """Everything a run found out.

    Attributes
    ----------
    prepared
        What was fitted.
    candidates, chosen
        Every number of states tried, and the one selected.
    detector
        What is promoted and served.
    scaler
        The detector's scaler as scikit-learn keeps it.
    refit
        The fit on train and validation behind the detector, or None when it is the train fit.
    assessment
        Regimes, tables and metrics of the chosen train fit.
    metrics
        Flat names, all finite; what does not exist is left out.
    faults
        Hard faults: not empty means not eligible.
    warnings
        What a reader should know and the choice does not depend on.
    """

    prepared: Prepared
    candidates: list[Candidate]
    chosen: Candidate
    detector: Detector
    scaler: StandardScaler
    refit: Candidate | None
    assessment: Assessment
    selection: pd.DataFrame
    regimes: pd.DataFrame
    metrics: dict[str, float]
    faults: list[str]
    warnings: list[str]

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return self.prepared.config

    @property
    def config_yaml(self) -> str:
        """The whole resolved settings as YAML."""
        return OmegaConf.to_yaml(OmegaConf.structured(self.config))

    @property
    def n_states(self) -> int:
        """Number of states chosen."""
        return self.chosen.n_states

    def selection_view(self) -> pd.DataFrame:
        """Selection table for a reader: what was compared and which was taken."""
        columns = ["n_states", "bic", "aic", "hqc", "icl", "log_lik_val", "min_occupancy", "chosen"]
        return self.selection[[name for name in columns if name in self.selection]]

    def state_view(self) -> pd.DataFrame:
        """One row per state for a reader: share, dwell, and what the next bar did on test."""
        summary = self.assessment.summary
        view = pd.DataFrame({"state": summary.labels, "share": self.chosen.occupancy})
        view["dwell_bars"] = expected_dwell(summary.transmat)
        for name, table in self.assessment.next_bar.items():
            view[f"next_vol_{name}"] = table["volatility"].to_numpy()
            view[f"next_mean_{name}"] = table["mean"].to_numpy()
        return view

    @property
    def seconds(self) -> float:
        """Time spent so far, all parts."""
        return sum(value for name, value in self.metrics.items() if name.startswith("seconds_"))

    @property
    def regime_now(self) -> str:
        """Regime of the last row in words: which, since when, how sure."""
        return regime_in_words(self.regimes)


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
    clock = time.perf_counter()
    candidates = _fit_grid(prepared, progress)
    chosen = select(candidates, prepared.config.selection)
    warnings: list[str] = []
    refit, scaler = _refit(prepared, chosen, warnings, progress)
    detector = _detector(prepared, refit or chosen, scaler)
    seconds_fit = time.perf_counter() - clock
    progress("evaluating")
    assessment = assess(prepared, chosen)
    null = _null(prepared)
    grid = [candidate.n_states for candidate in candidates]
    metrics = _metrics(chosen, grid, null) | assessment.metrics
    metrics |= {
        "seconds_features": prepared.seconds,
        "seconds_fit": seconds_fit,
        "seconds_evaluate": time.perf_counter() - clock - seconds_fit,
    }
    if metrics.get("grid_edge"):
        warnings.append(f"the best number of states, {chosen.n_states}, is the largest tried")
    return RunResult(
        prepared=prepared,
        candidates=candidates,
        chosen=chosen,
        detector=detector,
        scaler=scaler,
        refit=refit,
        assessment=assessment,
        selection=selection_table(candidates, chosen, null),
        regimes=regime_table(prepared, detector),
        metrics={name: float(value) for name, value in metrics.items() if np.isfinite(value)},
        faults=chosen.faults,
        warnings=warnings,
    )


def regime_table(prepared: Prepared, detector: Detector) -> pd.DataFrame:
    """Rows of `regimes.csv`: the causal answer first, then what hindsight says, named as such."""
    table = prepared.table
    regimes = detector.filter_table(table)
    split = [SPLIT_NAMES[part] for part in prepared.part]
    regimes.insert(2, "split", split)
    regimes["state_smoothed"] = detector.smoothed(table).probs.argmax(axis=1)
    regimes["state_viterbi"] = detector.decoded(table).states
    return regimes


def regime_in_words(regimes: pd.DataFrame) -> str:
    """Give the last row of a regime frame in words."""
    last = regimes.iloc[-1]
    changes = np.flatnonzero(np.diff(regimes["state"].to_numpy())) + 1
    since = regimes["available_at"].iloc[changes[-1] if len(changes) else 0]
    sure = last[f"p_state_{last['state']}"]
    return (
        f"regime at {last['available_at']:%Y-%m-%d %H:%M} UTC: {last['label']} "
        f"(state {last['state']}), since {since:%Y-%m-%d %H:%M}, probability {sure:.3f}"
    )


def _fit_grid(prepared: Prepared, progress: Progress) -> list[Candidate]:
    """Fit every number of states; one that cannot be fitted fails the run only when all do."""
    candidates, errors = [], []
    for n_states in prepared.config.state_grid:
        progress(f"fitting {n_states} states")
        try:
            candidates.append(fit_candidate(prepared, n_states))
        except FitError as error:
            errors.append(f"{n_states} states: {error}")
    if not candidates:
        raise FitError("; ".join(errors))
    return candidates


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
    source, recipe = prepared.source, prepared.recipe
    step = prepared.base_step
    detector = Detector(
        recipe=recipe,
        scaler_mean=np.array(scaler.mean_),
        scaler_scale=np.array(scaler.scale_),
        params=candidate.params,
        labels=labels(candidate.n_states),
        step=step,
        stamp=prepared.config.data.bar_stamp or "open",
        gaps=prepared.config.data.gaps,
        name=source.name,
        min_history=0,
        meta={
            "fingerprint": prepared.fingerprint,
            "train_end": prepared.split.train_end.isoformat(),
            "refit": candidate.n_rows["train"] != int(prepared.train.sum()),
        },
    )
    return replace(detector, min_history=_min_history(prepared, detector))


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


def _metrics(chosen: Candidate, grid: list[int], null: dict[str, float]) -> dict[str, Any]:
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
    if len(grid) > 1:
        metrics["grid_edge"] = chosen.n_states == max(grid)
    for part, log_lik in chosen.log_lik.items():
        metrics[f"log_lik_{part}"] = log_lik
        metrics[f"log_lik_{part}_per_bar"] = log_lik / chosen.n_rows[part]
    return metrics
