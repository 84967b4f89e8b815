"""Walk forward: refit on the past at every fold and judge each model on the bars after it.

    walks, errors = walk_forward(prepare(config))     # one walk per number of states
    walks[0].output.scores, walks[0].refits[-1].agreement

Every fold scales the features, orders the states and fits the densities of the next return anew
from its past bars, and its model filters them again. A fit that fails or has a hard fault is
refused, and the model before it stays in force, as it would in use.

`walk_forward` computes the walks; `refit_table`, `drift_table` and `walk_metrics` tabulate one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from hmm_exp.errors import FitError
from hmm_exp.experiment.assess import (
    BAR_COLUMNS,
    ModelOutput,
    baselines_of,
    model_output,
    most_probable,
)
from hmm_exp.experiment.candidate import Candidate, fit_candidate
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.strategies import positions_of, rules_of
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.posterior import Posterior
from hmm_exp.hmm.states import Agreement, agreement
from hmm_exp.judge.return_forecasts import Baselines, per_bar
from hmm_exp.judge.split import SPLIT_NAMES, TEST, TRAIN, VAL, Fold, WalkForward
from hmm_exp.judge.states import expected_dwell, raw_means
from hmm_exp.judge.strategy import TradingRules
from hmm_exp.judge.unscored import Unscored, in_fits, in_words
from hmm_exp.market.iso import iso

_SLACK = 1e-3  # weight of the uniform chain in a warm start: EM never leaves a zero


@dataclass(frozen=True, eq=False)
class Refit:
    """One fold: the model in force and how it came about."""

    fold: Fold
    # `candidate`, `scaler`: the model from here on, and the scaler of its features.
    candidate: Candidate
    scaler: StandardScaler
    season: np.ndarray | None  # means by hour of its features
    # Reasons why the new fit is not used and the model before stays; empty when it is used.
    refused: list[str]
    # Agreement of the labels of both models on the new one's train rows; None for the first fit and
    # after a refusal.
    agreement: Agreement | None
    unscored: Unscored  # reasons for missing scores of the fold's block


@dataclass(frozen=True, eq=False)
class Walk:
    """All fits of one number of states, and their output out of sample."""

    refits: list[Refit]  # one per fold, in time order
    output: ModelOutput  # output for all rows and bars; NaN before the first block
    # Fold whose model answers for every row, shape (T,); -1 before the first block.
    refit_of_row: np.ndarray
    # The last model. Its `val` and `test` likelihoods are those of the whole walk, of features
    # scaled as by the first fit.
    candidate: Candidate
    fitted: Prepared  # the fold that the last model was fitted on
    # Trading rules of the last fold, None without bars, and the positions decided at every base
    # bar's close by the rules then in force, shape (M, N); cash before the first block.
    rules: TradingRules | None
    positions: np.ndarray

    @property
    def n_states(self) -> int:
        """Number of states."""
        return self.candidate.n_states


def walk_forward(
    prepared: Prepared, progress: Callable[[str], None] = lambda text: None
) -> tuple[list[Walk], list[str]]:
    """Walk with every number of states of the grid.

    Returns
    -------
    list of Walk
        By rising number of states.
    list of str
        Reasons why a number of states is missing.

    Raises
    ------
    FitError
        When no walk reaches its end.
    """
    assert isinstance(prepared.split, WalkForward)
    folds = prepared.split.folds
    walkers = [_Walker(prepared, n_states) for n_states in prepared.config.state_grid]
    errors: list[str] = []
    for fold in folds:
        known = prepared.cut(fold)
        baselines = baselines_of(known)
        for walker in list(walkers):
            progress(f"fit {fold.number + 1} of {len(folds)}, {walker.n_states} states")
            try:
                walker.step(fold, known, baselines)
            except FitError as error:
                walkers.remove(walker)
                errors.append(f"{walker.n_states} states, fit {fold.number + 1}: {error}")
        if not walkers:
            raise FitError("; ".join(errors))
    return [walker.walk() for walker in walkers], errors


def carried(
    params: GaussianParams,
    before: StandardScaler,
    after: StandardScaler,
    seasons: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> GaussianParams:
    """Parameters of a fit as the start of the next one, in the units of its scaler.

    Exact except for spherical covariances, and for means by hour (`seasons`, before and after),
    whose mean change alone is carried. The initial distribution is uniform, and the transitions
    move a little towards uniform.
    """
    factor = before.scale_ / after.scale_
    means = params.means * before.scale_ + before.mean_ - after.mean_
    if seasons[0] is not None and seasons[1] is not None:
        means += _mean_change(seasons[0], seasons[1])
    stretch = {
        "diag": factor**2,
        "full": np.outer(factor, factor),
        "tied": np.outer(factor, factor),
        "spherical": np.mean(factor**2),
    }
    even = np.full_like(params.transmat, 1.0 / params.n_states)
    return replace(
        params,
        startprob=even[0],
        transmat=(1.0 - _SLACK) * params.transmat + _SLACK * even,
        means=means / after.scale_,
        covars=params.covars * stretch[params.covariance_type],
    )


class _Walker:
    """A walk in progress: the model in force and the output so far."""

    def __init__(self, prepared: Prepared, n_states: int) -> None:
        n_rows, n_bars = len(prepared.table), len(prepared.row_of_bar)
        self.prepared, self.n_states = prepared, n_states
        self.refits: list[Refit] = []
        self.fitted = prepared  # the last model's rows
        self.posterior: Posterior | None = None
        self.states = np.full(n_rows, -1)  # of the model in force
        self.refit_of_row = np.full(n_rows, -1)
        self.probs = np.full((n_rows, n_states), np.nan)
        self.predicted, self.smoothed = self.probs.copy(), self.probs.copy()
        self.log_lik = np.full(n_rows, np.nan)
        self.regimes = np.full(n_rows, -1)
        self.observed = np.zeros(n_rows, dtype=bool)  # not missing for its model
        self.bar_probs = np.full((n_bars, n_states), np.nan)
        self.residuals = np.full(prepared.X.shape, np.nan)
        self.bars = np.full((n_bars, len(BAR_COLUMNS)), np.nan)
        self.rules: TradingRules | None = None
        self.positions = np.zeros((0, n_bars))

    def step(self, fold: Fold, known: Prepared, baselines: Baselines | None) -> None:
        """Fit at a fold, or keep the model before, and store the output of its block."""
        before = self.refits[-1] if self.refits else None
        candidate, output, refused = self._attempt(known, baselines, before)
        agreed = None
        if output is None:
            assert before is not None
            known = known.scaled_by(before.scaler, before.season)
            candidate = before.candidate
            posterior = Posterior(candidate.params, known.X, known.table.steps)
            output = model_output(known, posterior, baselines)
        else:
            assert candidate is not None
            agreed = self._agreement(fold, known, output) if before else None
            self.fitted, self.posterior = known, candidate.posterior
            candidate = replace(candidate, posterior=None)
        scaling = known.scaler, known.season
        self.refits.append(Refit(fold, candidate, *scaling, refused, agreed, output.unscored))
        self._store(fold, known, output)

    def walk(self) -> Walk:
        """The walk so far."""
        has_returns = self.prepared.source.next_return is not None
        output = ModelOutput(
            probs=self.probs,
            predicted=self.predicted,
            log_lik=self.log_lik,
            smoothed=self.smoothed,
            regimes=self.regimes,
            bar_probs=self.bar_probs,
            residuals=self.residuals,
            bars=pd.DataFrame(self.bars, columns=BAR_COLUMNS) if has_returns else None,
            unscored=in_fits([(iso(r.fold.split.train_end), r.unscored) for r in self.refits]),
        )
        return Walk(
            self.refits,
            output,
            self.refit_of_row,
            self._candidate(),
            self.fitted,
            self.rules,
            self.positions,
        )

    def _attempt(
        self, known: Prepared, baselines: Baselines | None, before: Refit | None
    ) -> tuple[Candidate | None, ModelOutput | None, list[str]]:
        """The new fit and its output; or None twice, and the reasons for the refusal."""
        start = None
        if before and self.prepared.config.split.warm:
            seasons = before.season, known.season
            start = carried(before.candidate.params, before.scaler, known.scaler, seasons)
        try:
            candidate = fit_candidate(known, self.n_states, initial=start)
            if before and candidate.faults and not before.candidate.faults:
                return None, None, candidate.faults
            assert candidate.posterior is not None
            return candidate, model_output(known, candidate.posterior, baselines), []
        except FitError as error:
            if before is None:
                raise
            return None, None, [str(error)]

    def _agreement(self, fold: Fold, known: Prepared, output: ModelOutput) -> Agreement | None:
        """Agreement of both models' labels on the train rows of the new one."""
        rows = fold.rows(self.prepared.table.available_at)
        train = known.part == TRAIN
        now = most_probable(output.probs)
        return agreement(self.states[rows][train], now[train], self.n_states, self.n_states)

    def _store(self, fold: Fold, known: Prepared, output: ModelOutput) -> None:
        """Store a model's output for its block, and for the return that leads into it."""
        rows = fold.rows(self.prepared.table.available_at)
        self.states[:] = -1
        self.states[rows] = most_probable(output.probs)
        inside = known.part == VAL
        block = np.flatnonzero(inside) + rows.start
        units = np.log(self.prepared.scaler.scale_ / known.scaler.scale_).sum()
        self.refit_of_row[block] = fold.number
        self.probs[block] = output.probs[inside]
        self.predicted[block] = output.predicted[inside]
        self.smoothed[block] = output.smoothed[inside]
        self.regimes[block] = output.regimes[inside]
        self.residuals[block] = output.residuals[inside]
        self.log_lik[block] = output.log_lik[inside] + units
        self.observed[block] = ~np.isnan(known.X[inside]).any(axis=1)
        bars, local = slice(fold.end - 1, fold.stop), slice(fold.end - 1 - fold.first, None)
        self.bar_probs[bars] = output.bar_probs[local]
        if output.bars is not None:
            self.bars[bars] = output.bars.to_numpy()[local]
        self.rules = rules_of(known, output.regimes, known.split.train_end)
        if self.rules:
            decided = positions_of(known, self.rules, output.regimes)
            if not len(self.positions):
                self.positions = np.zeros((len(decided), self.positions.shape[1]))
            self.positions[:, bars] = decided[:, local]

    def _candidate(self) -> Candidate:
        """The last model, its likelihoods out of sample replaced by those of the walk."""
        last = replace(self.refits[-1].candidate, posterior=self.posterior)
        observed = self.observed & np.isfinite(self.log_lik)
        log_lik, n_rows = {"train": last.log_lik["train"]}, {"train": last.n_rows["train"]}
        for part in (VAL, TEST):
            rows = observed & (self.prepared.part == part)
            n_rows[SPLIT_NAMES[part]] = int(rows.sum())
            if rows.any():
                log_lik[SPLIT_NAMES[part]] = float(self.log_lik[rows].sum())
        return replace(last, log_lik=log_lik, n_rows=n_rows)


def _mean_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Fall of the means by hour (24, D), on average over the hours that both have, shape (D,)."""
    change = before - after
    seen = ~np.isnan(change)
    return np.where(seen, change, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)


def refit_table(walk: Walk, split: WalkForward) -> pd.DataFrame:
    """One row per fold: its bars, fit, label agreement with the fit before, scores of its block.

    `label_agreement` is the share of common rows that both models call the same under the best
    match of their states, `label_margin` its lead over the next best match, `same_label` the share
    with no state renamed. `return_score`, `return_gain` and the gains over the volatility
    forecasts are means over the block in nats per bar. `refused` holds the reasons why the model
    before stayed in force, `unscored` those for missing scores of the block.
    """
    rows = [_fit_row(refit) | _block_row(walk, refit) for refit in walk.refits]
    return pd.concat([split.table(), pd.DataFrame(rows)], axis=1)


def drift_table(walk: Walk, columns: tuple[str, ...]) -> pd.DataFrame:
    """One row per fold and state of the model in force: dwell, share, means in raw units.

    `share` is the smoothed share of the train rows, `stationary` the chain's own.
    """
    means = walk_means(walk)
    rows = []
    for refit, raw in zip(walk.refits, means, strict=True):
        candidate = refit.candidate
        rows.append(
            pd.DataFrame(
                {
                    "refit": refit.fold.number,
                    "train_to": refit.fold.split.train_end,
                    "state": np.arange(candidate.n_states),
                    "dwell_bars": expected_dwell(candidate.params.transmat),
                    "share": candidate.occupancy,
                    "stationary": candidate.params.stationary(),
                    **{f"mean_{name}": raw[:, d] for d, name in enumerate(columns)},
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def walk_means(walk: Walk) -> np.ndarray:
    """State means of the model in force at every fold, in raw units, shape (folds, K, D)."""
    return np.stack(
        [
            raw_means(refit.candidate.params.means, refit.scaler.mean_, refit.scaler.scale_)
            for refit in walk.refits
        ]
    )


def walk_dwell(walk: Walk) -> np.ndarray:
    """Expected dwell of the model in force at every fold, rows, shape (folds, K)."""
    return np.stack([expected_dwell(refit.candidate.params.transmat) for refit in walk.refits])


def walk_metrics(walk: Walk) -> dict[str, float]:
    """Metrics of the run record; a walk of one fit has no agreement."""
    agreements = [refit.agreement for refit in walk.refits if refit.agreement]
    metrics = {
        "n_refits": float(len(walk.refits)),
        "n_refits_refused": float(sum(bool(refit.refused) for refit in walk.refits)),
    }
    if agreements:
        metrics |= {
            "label_agreement": float(np.mean([a.share for a in agreements])),
            "label_agreement_min": min(a.share for a in agreements),
            "label_margin_min": min(a.margin for a in agreements),
            "n_refits_renamed": float(sum(a.renamed for a in agreements)),
        }
    return metrics


def refusals(walk: Walk | None) -> list[str]:
    """Number of fits that were not used and the reason of the latest, in one line; [] if none."""
    refused = [refit for refit in walk.refits if refit.refused] if walk else []
    if not walk or not refused:
        return []
    latest = refused[-1]
    return [
        f"{len(refused)} of {len(walk.refits)} fits were refused and the model before them went "
        f"on, last at {iso(latest.fold.split.train_end)}: {'; '.join(latest.refused)}"
    ]


def _fit_row(refit: Refit) -> dict[str, Any]:
    fit, labels = refit.candidate.fit, refit.agreement
    row = {
        "log_lik_train_per_bar": refit.candidate.log_lik["train"] / refit.candidate.n_rows["train"],
        "start": next((s.kind for s in fit.starts if s.log_lik == fit.log_lik), None),
        "n_iter": fit.n_iter,
        "refused": "; ".join(refit.refused),
        "unscored": "; ".join(in_words(refit.unscored)),
    }
    if labels is None:
        return row
    return row | {
        "label_agreement": labels.share,
        "label_margin": labels.margin,
        "same_label": labels.same_share,
    }


def _block_row(walk: Walk, refit: Refit) -> dict[str, float]:
    if walk.output.scores is None:
        return {}
    block = walk.output.scores.iloc[refit.fold.end - 1 : refit.fold.stop - 1]
    scored = {name: values[np.isfinite(values)] for name, values in per_bar(block).items()}
    return {name: float(values.mean()) for name, values in scored.items() if len(values)}
