"""Rules that choose a number of states from the criteria of several fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmm_exp.config import SelectionConfig


@dataclass(frozen=True)
class Option:
    """What a rule reads of a fit: free parameters, criteria on train, validation log-likelihood."""

    n_params: float
    criteria: Mapping[str, float]
    log_lik_val: float


def by_rule(options: Sequence[Option], config: SelectionConfig, null: float | None = None) -> int:
    """Index of the option that `config.rule` takes on the criterion `config.within`.

    lowest
        The lowest criterion; of those less than `config.near_tie` above it, the one with the
        highest validation log-likelihood.
    one_se
        The fewest parameters with a cross-validated deviance within one error of the lowest
        (Breiman, Friedman, Olshen & Stone 1984, section 3.4.3).
    elbow
        The last option before one that gains less than the share `config.elbow` of the whole gain.

    Parameters
    ----------
    null
        Criterion of one state, from which the elbow rule measures the whole gain; by default that
        of the smallest option.
    """
    order = sorted(range(len(options)), key=lambda i: options[i].n_params)
    pool = [options[i] for i in order]
    values = [option.criteria[config.within] for option in pool]
    match config.rule:
        case "one_se":
            return order[_within_one_error(pool)]
        case "elbow":
            return order[_elbow(values, values[0] if null is None else null, config.elbow)]
        case _:
            limit = min(values) + config.near_tie
            best = int(np.argmin(values))
            near = [i for i in range(len(pool)) if i == best or values[i] < limit]
            return order[max(near, key=lambda i: pool[i].log_lik_val)]


def _within_one_error(pool: Sequence[Option]) -> int:
    best = min(pool, key=lambda option: option.criteria["cv"])
    limit = best.criteria["cv"] + best.criteria["cv_error"]
    return next(i for i, option in enumerate(pool) if option.criteria["cv"] <= limit)


def _elbow(values: Sequence[float], null: float, share: float) -> int:
    available = null - min(values)
    for i in range(1, len(values)):
        if values[i - 1] - values[i] < share * available:
            return i - 1
    return len(values) - 1
