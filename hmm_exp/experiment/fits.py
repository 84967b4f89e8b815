"""Fit every number of states of a run, once or in a walk forward, and choose one.

fits = fit_grid(prepared)          # or fit_walks(prepared)
fits.chosen.params, fits.selection
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from hmm_exp.config import Config
from hmm_exp.errors import FitError, counted
from hmm_exp.experiment.assess import next_return_criterion
from hmm_exp.experiment.candidate import (
    Candidate,
    fit_candidate,
    fit_options,
    held_out,
    search_of,
    train_steps,
)
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.select import select, select_walk, selection_table, validation_scores
from hmm_exp.experiment.walk import Walk, walk_forward
from hmm_exp.hmm.criteria import criteria, single_gaussian
from hmm_exp.hmm.fit import fit
from hmm_exp.judge.split import VAL

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Fits:
    """All fits of a run and the one that was chosen."""

    # `candidates`, `chosen`: every number of states, and the one selected; of a walk its last
    # model.
    candidates: list[Candidate]
    chosen: Candidate
    fitted: Prepared  # the rows that the chosen model was fitted on, with their scaler
    # `refit`, `scaler`: the fit on train and validation, or None, and the scaler of the served
    # model.
    refit: Candidate | None
    scaler: StandardScaler
    season: np.ndarray | None  # means by hour of the served model
    null: dict[str, float]  # criteria of one state
    selection: pd.DataFrame  # rows of `selection.csv`
    # Fits that failed or are not used, and a choice at the edge of the grid, in words.
    warnings: list[str]
    walk: Walk | None = None  # the chosen walk forward; None for single fits

    @property
    def served(self) -> Candidate:
        """The model of the detector."""
        return self.refit or self.chosen

    def metrics(self) -> dict[str, float]:
        """Metrics of the chosen fit; those that do not exist are not finite."""
        metrics = self.chosen.metrics(self.fitted.config.state_grid)
        metrics["bic_null"] = self.null["bic"]
        for part, log_lik in self.chosen.log_lik.items():
            metrics[f"log_lik_{part}"] = log_lik
            metrics[f"log_lik_{part}_per_bar"] = log_lik / self.chosen.n_rows[part]
        return metrics


def fit_grid(prepared: Prepared, progress: Progress) -> Fits:
    """Fit every number of states on train, choose one, refit it if configured. Raises FitError."""
    candidates, warnings = _candidates(prepared, progress)
    null, rule = _null(prepared), prepared.config.selection
    chosen = select(candidates, rule, null.get(rule.within))
    candidates = [c if c is chosen else replace(c, posterior=None) for c in candidates]
    refit, served = _refit(prepared, chosen, warnings, progress)
    table = selection_table(candidates, chosen, null)
    warnings += edge_warning(prepared.config, chosen)
    warnings += _choice_warnings(prepared, candidates, chosen)
    scaling = served.scaler, served.season
    return Fits(candidates, chosen, prepared, refit, *scaling, null, table, warnings)


def fit_walks(prepared: Prepared, progress: Progress) -> Fits:
    """Walk forward with every number of states and choose one walk. Raises FitError."""
    walks, warnings = walk_forward(prepared, progress)
    walk = select_walk(walks, prepared.target_part, prepared.config.selection)
    candidates, null = [other.candidate for other in walks], _null(walk.fitted)
    scores = pd.DataFrame([validation_scores(other, prepared.target_part) for other in walks])
    table = selection_table(candidates, walk.candidate, null)
    table = table.join(scores.set_axis(table.index[-len(walks) :]))
    fitted, chosen = walk.fitted, walk.candidate
    warnings += edge_warning(prepared.config, chosen)
    scaling = fitted.scaler, fitted.season
    return Fits(candidates, chosen, fitted, None, *scaling, null, table, warnings, walk)


def _candidates(prepared: Prepared, progress: Progress) -> tuple[list[Candidate], list[str]]:
    """Fit every number of states; the errors name those that cannot be fitted."""
    candidates: list[Candidate] = []
    errors = []
    for n_states in prepared.config.state_grid:
        progress(f"fitting {n_states} states")
        smaller = candidates[-1].fit if candidates else None
        try:
            candidate = fit_candidate(prepared, n_states, smaller=smaller)
            candidate = _cross_validated(prepared, candidate, progress)
            candidates.append(_with_next_return(prepared, candidate))
        except FitError as error:
            errors.append(f"{n_states} states: {error}")
    if not candidates:
        raise FitError("; ".join(errors))
    notes = [f"{c.n_states} states: {c.note}" for c in candidates if c.note]
    return candidates, errors + notes


def _cross_validated(prepared: Prepared, candidate: Candidate, progress: Progress) -> Candidate:
    """Add the criterion `cv` where the selection asks for it."""
    if not prepared.config.selection.cv_blocks:
        return candidate
    progress(f"cross-validating {candidate.n_states} states")
    extra = held_out(prepared, candidate.n_states)
    return replace(candidate, criteria=candidate.criteria | extra)


def _with_next_return(prepared: Prepared, candidate: Candidate) -> Candidate:
    """Add the criterion `bic_next` where several candidates are compared, or it decides."""
    decides = prepared.config.selection.within == "bic_next"
    if not decides and len(prepared.config.state_grid) == 1:
        return candidate
    assert candidate.posterior is not None
    try:
        found = next_return_criterion(prepared, candidate.posterior)
    except FitError:
        if decides:
            raise
        return candidate
    return replace(candidate, criteria=candidate.criteria | {"bic_next": found})


def _refit(
    prepared: Prepared, chosen: Candidate, warnings: list[str], progress: Progress
) -> tuple[Candidate | None, Prepared]:
    """Refit on train and validation when configured, with its rows; not used if degenerate."""
    if prepared.config.model.refit == "train":
        return None, prepared
    progress(f"refitting {chosen.n_states} states on train and validation")
    rows = prepared.train | (prepared.part == VAL)
    wider = prepared.rescaled(rows)
    try:
        refit = fit_candidate(wider, chosen.n_states, rows)
    except FitError as error:
        warnings.append(f"the refit failed and is not used: {error}")
        return None, prepared
    if refit.faults:
        warnings.append(f"the refit is degenerate and not used: {'; '.join(refit.faults)}")
        return None, prepared
    return refit, wider


def edge_warning(config: Config, chosen: Candidate) -> list[str]:
    """A warning where the largest number of states tried is the best."""
    if len(config.state_grid) == 1 or chosen.n_states != config.state_grid[-1]:
        return []
    return [f"the best number of states, {chosen.n_states}, is the largest tried"]


def _choice_warnings(
    prepared: Prepared, candidates: list[Candidate], chosen: Candidate
) -> list[str]:
    """Doubts about a number of states that BIC chose."""
    if len(candidates) == 1 or prepared.config.selection.within == "bic_next":
        return []
    doubts = [prepared.bic_doubt] if prepared.bic_doubt else []
    scored = [c for c in candidates if not c.faults and "bic_next" in c.criteria]
    other = min(scored, key=lambda c: c.criteria["bic_next"], default=chosen)
    if other.n_states != chosen.n_states:
        doubts.append(
            f"selection=next_return would choose {counted(other.n_states, 'state')}: "
            f"model.n_states={other.n_states} fits that number"
        )
    return doubts


def _null(prepared: Prepared) -> dict[str, float]:
    """Criteria of the one-state model."""
    rows = prepared.train
    options = fit_options(prepared, rows)
    steps = train_steps(prepared.table.steps, rows)
    return null_criteria(prepared.X[rows], steps, prepared.config, options["volatility"])


def null_criteria(
    X: np.ndarray, steps: np.ndarray, config: Config, volatility: np.ndarray | None
) -> dict[str, float]:
    """Criteria of the one-state model of train rows; arguments as in `hmm.fit.fit`."""
    if config.model.emission == "student_t":
        one = fit(X, steps, 1, search_of(config), volatility=volatility)
        log_lik, n_params = one.log_lik, one.params.n_parameters()
    else:
        log_lik, n_params = single_gaussian(X, config.covariance.type, config.model.min_covar)
    n_rows = int((~np.isnan(X).any(axis=1)).sum())
    return {
        "log_lik_train": log_lik,
        "n_params": n_params,
        **criteria(log_lik, n_params, n_rows, path_entropy=0.0),
    }
