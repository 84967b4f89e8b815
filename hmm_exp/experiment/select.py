"""Choose the number of states of one run, on train and validation only."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hmm_exp.config import SelectionConfig
from hmm_exp.experiment.candidate import Candidate
from hmm_exp.experiment.rule import Option, by_rule
from hmm_exp.experiment.walk import Walk
from hmm_exp.judge.return_forecasts import summarise
from hmm_exp.judge.split import VAL


def select(
    candidates: Sequence[Candidate], config: SelectionConfig, null: float | None = None
) -> Candidate:
    """Choose among eligible candidates by `config.rule`, on the criterion `config.within`.

    Candidates with a hard fault are left out unless all have one; the faults of the returned one
    then explain why it is not eligible.

    `null` is the criterion of one state; see `by_rule`.
    """
    pool = [candidate for candidate in candidates if not candidate.faults] or list(candidates)
    options = [
        Option(c.params.n_parameters(), c.criteria, c.log_lik.get("val", -math.inf)) for c in pool
    ]
    return pool[by_rule(options, config, null)]


def select_walk(walks: Sequence[Walk], target_part: np.ndarray, config: SelectionConfig) -> Walk:
    """Highest out-of-sample return score on validation bars, of walks that end in a healthy model.

    A walk without a score is passed over; when none has one, the highest out-of-sample likelihood
    of the validation rows decides.
    """
    pool = [walk for walk in walks if not walk.candidate.faults] or walks
    found = [validation_scores(walk, target_part).get(config.across) for walk in pool]
    scores = {place: score for place, score in enumerate(found) if score is not None}
    if scores:
        return pool[max(scores, key=scores.__getitem__)]
    return max(pool, key=lambda walk: walk.candidate.log_lik.get("val", -math.inf))


def validation_scores(walk: Walk, target_part: np.ndarray) -> dict[str, float]:
    """Return scores of the walk on validation bars, out of sample; empty without returns."""
    if walk.output.scores is None:
        return {}
    return summarise(walk.output.scores, target_part, parts=(VAL,))


def selection_table(
    candidates: Sequence[Candidate], chosen: Candidate, null: dict[str, float]
) -> pd.DataFrame:
    """Row per number of states, K=1 as the null first: criteria, likelihoods, choice."""
    rows = [{"n_states": 1, **null, "eligible": False, "chosen": False, "reason": "the null"}]
    rows = [] if any(candidate.n_states == 1 for candidate in candidates) else rows
    for candidate in candidates:
        rows.append(
            {
                "n_states": candidate.n_states,
                "log_lik_train": candidate.log_lik["train"],
                "n_params": candidate.params.n_parameters(),
                **candidate.criteria,
                "log_lik_val": candidate.log_lik.get("val"),
                "converged": candidate.fit.converged,
                "restart_agreement": candidate.fit.restart_agreement,
                "min_occupancy": float(candidate.occupancy.min()),
                "eligible": not candidate.faults,
                "chosen": candidate is chosen,
                "reason": "; ".join([*candidate.faults, candidate.note or ""]).strip("; "),
            }
        )
    return pd.DataFrame(rows)
