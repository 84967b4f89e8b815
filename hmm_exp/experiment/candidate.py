"""Fit one number of states and measure it: the unit that selection compares."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hmm_exp.config import Config
from hmm_exp.errors import FitError, features_named
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm import inference
from hmm_exp.hmm.criteria import criteria
from hmm_exp.hmm.cross_validation import cross_validate
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.fit import Fit, Search, fit, fit_larger
from hmm_exp.hmm.health import HealthLimits, condition_numbers, hard_faults
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.posterior import Posterior
from hmm_exp.hmm.rows import missing_rows
from hmm_exp.hmm.states import posterior_spread, volatility_order
from hmm_exp.judge.split import TEST, VAL
from hmm_exp.market.bars import timeframe_step


@dataclass(frozen=True, eq=False)
class Candidate:
    """A fit, states in order, with its measures on train and validation."""

    fit: Fit  # of the train rows, states calm first
    # Log-likelihood in nats of scaled features: `train` from the fitted startprob, `val` and `test`
    # conditional on the rows before. A part without rows is left out.
    log_lik: dict[str, float]
    n_rows: dict[str, int]  # observed (complete) rows of every part
    criteria: dict[str, float]  # `aic bic hqc icl` on train
    occupancy: np.ndarray  # smoothed share of every state on train, shape (K,)
    max_condition_number: float
    faults: list[str]  # hard faults in words; an empty list makes the candidate eligible
    # State probabilities of every row of the table; None where they are no longer needed.
    posterior: Posterior | None
    note: str | None = None  # a note about the fit, in words

    @property
    def params(self) -> GaussianParams:
        """Parameters, states calm first."""
        return self.fit.params

    @property
    def n_states(self) -> int:
        """Number of states."""
        return self.params.n_states

    def metrics(self, grid: Sequence[int]) -> dict[str, float]:
        """Metrics of the fit, some of them not finite; `grid` holds the numbers of states tried."""
        fit, metrics = self.fit, dict(self.criteria)
        metrics |= {
            "n_params": self.params.n_parameters(),
            "n_rows_train": self.n_rows["train"],
            "n_states": self.n_states,
            "n_features": self.params.n_features,
            "n_iter": fit.n_iter,
            "n_polished": fit.n_polished,
            "converged": fit.converged,
            "restart_agreement": fit.restart_agreement,
            "min_occupancy": float(self.occupancy.min()),
            "max_condition_number": self.max_condition_number,
        }
        return metrics | ({"grid_edge": self.n_states == grid[-1]} if len(grid) > 1 else {})


def train_steps(steps: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Chain steps of a run of rows taken out of a table; its first row opens a sequence."""
    inside = steps[rows].copy()
    inside[0] = 0
    return inside


def fit_candidate(
    prepared: Prepared,
    n_states: int,
    rows: np.ndarray | None = None,
    initial: GaussianParams | None = None,
    smaller: Fit | None = None,
) -> Candidate:
    """Fit `n_states` states on train rows (or on `rows`, a mask) and measure the fit.

    With `initial`, parameters close to the optimum, EM starts from them and from
    `split.refit_starts` fresh points instead of `model.n_init`. With `smaller`, a fit of fewer
    states to the same rows, also from its states split. Raises FitError when no start leads to a
    model.
    """
    rows = prepared.train if rows is None else rows
    X, steps = prepared.X[rows], train_steps(prepared.table.steps, rows)
    options = fit_options(prepared, rows)
    note = None
    with features_named(prepared.recipe.columns):
        if initial is None:
            fitted, note = fit_larger(X, steps, n_states, smaller=smaller, **options)
        else:
            n_init = prepared.config.split.refit_starts
            options["search"] = replace(options["search"], n_init=n_init)
            fitted = fit(X, steps, n_states=n_states, initial=initial, **options)
    fitted = replace(fitted, params=_ordered(prepared, fitted.params, rows))
    return measure(prepared, fitted, rows, note)


def fit_options(prepared: Prepared, rows: np.ndarray) -> dict[str, Any]:
    """Options of `hmm.fit.fit` for these rows (a mask), as configured."""
    place = prepared.volatility
    return {
        "search": search_of(prepared.config),
        "volatility": None if place is None else prepared.X[rows, place],
    }


def search_of(config: Config) -> Search:
    """Starts and EM runs of a fit, as configured."""
    model = config.model
    return Search(
        covariance_type=config.covariance.type,
        emission=model.emission,
        n_init=model.n_init,
        n_iter=model.n_iter,
        tol=model.tol,
        min_covar=model.min_covar,
        seed=model.random_state,
        engine=model.engine,
        threads=config.compute.threads,
    )


def held_out(prepared: Prepared, n_states: int) -> dict[str, float]:
    """Blocked cross-validation on train: deviance `cv` of held-out rows and its error `cv_error`.

    -2 times the held-out log-likelihood, on the scale of the other criteria. The embargo is the
    feature warm-up, within which windows overlap. Raises FitError.
    """
    rows = prepared.train
    per_row = max(1, round(timeframe_step(prepared.recipe.grid) / prepared.base_step))
    result = cross_validate(
        prepared.X[rows],
        train_steps(prepared.table.steps, rows),
        n_states,
        n_blocks=prepared.config.selection.cv_blocks,
        embargo=-(-prepared.recipe.warmup(prepared.base_step) // per_row),
        **fit_options(prepared, rows),
    )
    scale = 2.0 * int(result.n_rows.sum())
    return {"cv": -scale * result.mean, "cv_error": scale * result.standard_error}


class FittedRows(NamedTuple):
    """The rows of a fit, under its model."""

    density: np.ndarray  # log density under every state, nats, shape (T, K)
    observed: np.ndarray  # mask of the complete rows, shape (T,)
    steps: np.ndarray  # chain steps, shape (T,); 0 starts a sequence


def measured(
    fitted: Fit, rows: FittedRows, config: Config, recipe: Recipe, note: str | None = None
) -> Candidate:
    """A fit with the measures that its own rows give."""
    params = fitted.params
    on_train = inference.filter(params.startprob, params.transmat, rows.density, rows.steps)
    smoothed = inference.smooth_filtered(on_train, params.transmat, rows.steps)
    entropy = inference.entropy_filtered(on_train, params.transmat, rows.steps)
    occupancy, n_rows = smoothed.probs[rows.observed].mean(axis=0), int(rows.observed.sum())
    limits = HealthLimits(
        min_occupancy=config.selection.min_occupancy,
        min_dwell=HealthLimits.min_dwell * recipe.repeats,
        min_covar=config.model.min_covar,
    )
    return Candidate(
        fit=fitted,
        log_lik={"train": smoothed.log_lik},
        n_rows={"train": n_rows},
        criteria=criteria(smoothed.log_lik, params.n_parameters(), n_rows, entropy),
        occupancy=occupancy,
        max_condition_number=float(condition_numbers(params).max()),
        faults=hard_faults(
            params,
            occupancy,
            n_rows,
            fitted.status,
            limits,
            covar_floor=fitted.covar_floor,
            features=recipe.columns,
        ),
        posterior=None,
        note=note,
    )


def measure(
    prepared: Prepared, fitted: Fit, rows: np.ndarray, note: str | None = None
) -> Candidate:
    """A fit, states in order, with its measures on prepared rows; `rows` is the mask of train."""
    posterior = Posterior(fitted.params, prepared.X, prepared.table.steps)
    observed = ~missing_rows(prepared.X)
    steps = train_steps(prepared.table.steps, rows)
    own = FittedRows(posterior.density[rows], observed[rows], steps)
    candidate = measured(fitted, own, prepared.config, prepared.recipe, note)
    later = {"val": prepared.part == VAL, "test": prepared.part == TEST}
    n_rows = candidate.n_rows | {name: int((mask & observed).sum()) for name, mask in later.items()}
    log_lik = candidate.log_lik | conditional(prepared, posterior, n_rows)
    return replace(candidate, log_lik=log_lik, n_rows=n_rows, posterior=posterior)


def conditional(
    prepared: Prepared, posterior: Posterior, n_rows: dict[str, int]
) -> dict[str, float]:
    """Log-likelihood of validation and test given all rows before."""
    try:
        log_lik = posterior.filtered.log_lik
    except FitError:
        return {}
    return {
        name: float(log_lik[prepared.part == part].sum())
        for name, part in (("val", VAL), ("test", TEST))
        if n_rows[name]
    }


def _ordered(prepared: Prepared, params: GaussianParams, rows: np.ndarray) -> GaussianParams:
    returns = None if prepared.row_return is None else prepared.row_return[rows]
    steps = train_steps(prepared.table.steps, rows)
    return ordered(params, prepared.X[rows], steps, prepared.volatility, returns)


def ordered(
    params: GaussianParams,
    X: np.ndarray,
    steps: np.ndarray,
    volatility: int | None,
    returns: np.ndarray | None,
) -> GaussianParams:
    """States by mean volatility; without a feature that measures it, by the spread of returns.

    `volatility` is the column of X (T, D) that measures it; `returns` (T,) are those at the close
    of the rows.
    """
    if volatility is not None:
        return params.reordered(volatility_order(params.means[:, volatility]))
    if returns is None:
        return params.reordered(volatility_order(np.linalg.norm(params.means, axis=1)))
    probs = inference.smooth(params.startprob, params.transmat, log_density(params, X), steps).probs
    return params.reordered(volatility_order(posterior_spread(probs, returns)))
