"""Labels that stay: a new champion's states take the names of the old one's that they match.

States are numbered by volatility in every model. What was called "turbulent" yesterday may get
another number under a new model; whoever acts on labels should not notice. The match is the
assignment of states with the most shared rows in common, and it counts only when the paths agree by
more than chance: Cohen's kappa (1960, Educational and Psychological Measurement 20), 0 for
independent paths and 1 for equal ones, however unequal the states' shares.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient

from hmm_exp.hmm.states import agreement, labels
from hmm_exp.registry.comparison import same_market
from hmm_exp.registry.evidence import Evidence, Incumbent
from hmm_exp.tracking.read import read_regimes

LEAST_KAPPA = 0.4  # moderate agreement and better (Landis & Koch 1977, Biometrics 33)
LEAST_ROWS = 100


@dataclass(frozen=True)
class LabelMatch:
    """Names of a candidate's states, calm first, and how it came to them.

    Attributes
    ----------
    labels
        One per state.
    story
        "kept from version 3: ..." or "fresh: ...", the reason in words.
    flagged
        There was a champion, and its labels could not be kept: who acts on labels should look.
    """

    labels: tuple[str, ...]
    story: str
    flagged: bool


def name_states(
    client: MlflowClient, evidence: Evidence, incumbent: Incumbent | None
) -> LabelMatch:
    """Name a candidate's states after the champion's on the rows that both runs have labelled."""
    n_states = evidence.detector.n_states
    if incumbent is None:
        return LabelMatch(labels(n_states), "fresh: the first version", flagged=False)
    old, champion = incumbent.detector, incumbent.champion
    version = f"version {champion.version}"
    if old is None:
        return LabelMatch(
            labels(n_states), f"fresh: {version} does not answer any more", flagged=True
        )
    if not same_market(evidence.run.data.tags, champion.tags):
        return LabelMatch(labels(n_states), f"fresh: {version} is of another market", flagged=True)
    if old.n_states != n_states:
        story = f"fresh: {n_states} states after the {old.n_states} of {version}"
        return LabelMatch(labels(n_states), story, flagged=True)
    paths = _shared_paths(
        read_regimes(client, champion.run_id) if champion.run_id else None,
        read_regimes(client, evidence.run.info.run_id),
    )
    return continued(*paths, old.labels, version)


def continued(
    old: np.ndarray, new: np.ndarray, old_labels: tuple[str, ...], version: str
) -> LabelMatch:
    """Carry labels over from one state path to another of the same rows and number of states.

    Parameters
    ----------
    old, new
        States of the champion and of the candidate, shape (T,).
    version
        What to call the champion.
    """
    n_states = len(old_labels)
    fresh = labels(n_states)
    if len(new) < LEAST_ROWS:
        story = f"fresh: {len(new)} rows shared with {version}, {LEAST_ROWS} are needed"
        return LabelMatch(fresh, story, flagged=True)
    match = agreement(new, old, n_states, n_states)
    assert match is not None
    kappa = _kappa(match.share, new, old, match.match)
    measured = f"kappa {kappa:.2f}, {match.share:.1%} of {match.n_rows:,} shared rows"
    if kappa < LEAST_KAPPA:
        story = f"fresh: too weak a match with {version} ({measured})"
        return LabelMatch(fresh, story, flagged=True)
    names = tuple(old_labels[state] for state in match.match)
    return LabelMatch(names, f"kept from {version} ({measured})", flagged=False)


def _shared_paths(
    old: pd.DataFrame | None, new: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray]:
    """States of both at the candidate's rows, the champion's latest, within what both cover."""
    if old is None or new is None or old.empty or new.empty:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = new.loc[old.index[0] : old.index[-1]]
    latest = old.index.searchsorted(rows.index, side="right") - 1
    paths = np.column_stack([old["state"].to_numpy()[latest], rows["state"].to_numpy()])
    known = paths[np.isfinite(paths).all(axis=1)].astype(np.int64)
    return known[:, 0], known[:, 1]


def _kappa(share: float, new: np.ndarray, old: np.ndarray, match: tuple[int, ...]) -> float:
    """Agreement beyond that of independent paths with the same shares of states."""
    K = len(match)
    new_share = np.bincount(new, minlength=K) / len(new)
    old_share = np.bincount(old, minlength=K) / len(old)
    by_chance = float(new_share @ old_share[list(match)])
    return (share - by_chance) / (1.0 - by_chance) if by_chance < 1.0 else share
