"""How a walk forward went, fit by fit: what each was worth, whether states and labels stayed.

>>> refit_table(walk)[["refit", "train_to", "label_agreement", "return_gain"]]
>>> drift_table(walk, columns)[["refit", "state", "dwell_bars"]]
"""

from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.experiment.evaluate import raw_means
from hmm_exp.experiment.persistence import expected_dwell
from hmm_exp.experiment.split import WalkForward
from hmm_exp.experiment.unscored import in_words
from hmm_exp.experiment.walk import Refit, Walk
from hmm_exp.experiment.yardstick import per_bar


def refit_table(walk: Walk, split: WalkForward) -> pd.DataFrame:
    """One row per fold: its bars, its fit, its labels against the fit before, its block's worth.

    `label_agreement` is the share of common rows that both models call the same under the best
    match of their states, `label_margin` by how much the next best match falls behind, `same_label`
    the share with no state renamed. `return_score, return_gain, ewma_gain` are means over the
    block in nats per bar. `refused` says why the model before went on, `unscored` why scores of
    the block are missing.
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
    """Flat names for the run record; a walk of one fit has no agreement."""
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
    if walk.track.scores is None:
        return {}
    block = walk.track.scores.iloc[refit.fold.end - 1 : refit.fold.stop - 1]
    scored = {name: values[np.isfinite(values)] for name, values in per_bar(block).items()}
    return {name: float(values.mean()) for name, values in scored.items() if len(values)}
