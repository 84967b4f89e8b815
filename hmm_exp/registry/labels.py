"""Label matching: a new champion's states keep the labels of the old champion's states.

Every model numbers its states by volatility, so that the state called "turbulent" may get another
number in a new model. States are matched by the assignment with the most shared rows. The labels
are kept only if the paths agree beyond chance, by Cohen's kappa (1960, Educational and
Psychological Measurement 20): 0 for independent paths, 1 for equal ones, at any state shares.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient

from hmm_exp.detector.pooled import PooledDetector
from hmm_exp.hmm.states import agreement, labels
from hmm_exp.registry.comparison import same_market
from hmm_exp.registry.evidence import Evidence, Incumbent
from hmm_exp.tracking.read import read_regimes

LEAST_KAPPA = 0.4  # at least moderate agreement (Landis & Koch 1977, Biometrics 33)
LEAST_ROWS = 100


@dataclass(frozen=True)
class LabelMatch:
    """Labels of a candidate's states, and where they come from."""

    labels: tuple[str, ...]  # one per state, calm to turbulent
    story: str  # "kept from version 3: ..." or "fresh: ...", with the reason
    # Whether labels of an existing champion were lost, which users of labels must know.
    flagged: bool


def name_states(
    client: MlflowClient, evidence: Evidence, incumbent: Incumbent | None
) -> LabelMatch:
    """Label a candidate's states after the champion's, on rows labelled by both runs."""
    fresh = evidence.labels
    if isinstance(evidence.detector, PooledDetector):
        return LabelMatch(fresh, "fresh: those of a pool are by volatility", flagged=False)
    if incumbent is None:
        return LabelMatch(fresh, "fresh: the first version", flagged=False)
    old, champion = incumbent.detector, incumbent.champion
    version = f"version {champion.version}"
    if old is None:
        return LabelMatch(fresh, f"fresh: {version} fails its smoke test", flagged=True)
    if not same_market(evidence.run.data.tags, champion.tags):
        return LabelMatch(fresh, f"fresh: {version} is of another market", flagged=True)
    if old.n_states != len(fresh):
        story = f"fresh: {len(fresh)} states after the {old.n_states} of {version}"
        return LabelMatch(fresh, story, flagged=True)
    paths = _shared_paths(
        read_regimes(client, champion.run_id) if champion.run_id else None,
        read_regimes(client, evidence.run),
    )
    return match_labels(*paths, old.labels, version, fresh)


def match_labels(
    old: np.ndarray,
    new: np.ndarray,
    old_labels: tuple[str, ...],
    version: str,
    fresh: tuple[str, ...] = (),
) -> LabelMatch:
    """Transfer labels between two state paths of the same rows and number of states.

    Parameters
    ----------
    old, new
        States of the champion and of the candidate, shape (T,).
    old_labels
        Labels of the champion.
    version
        Name of the champion, for the story.
    fresh
        Labels of the candidate if the match is too weak; by default those by volatility.
    """
    n_states = len(old_labels)
    fresh = fresh or labels(n_states)
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
    """State paths at the candidate's rows in the common period; the champion's latest state."""
    if old is None or new is None or old.empty or new.empty:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    rows = new.loc[old.index[0] : old.index[-1]]
    latest = old.index.searchsorted(rows.index, side="right") - 1
    paths = np.column_stack([old["state"].to_numpy()[latest], rows["state"].to_numpy()])
    known = paths[np.isfinite(paths).all(axis=1)].astype(np.int64)
    return known[:, 0], known[:, 1]


def _kappa(share: float, new: np.ndarray, old: np.ndarray, match: tuple[int, ...]) -> float:
    """Agreement beyond that of independent paths with the same state shares."""
    K = len(match)
    new_share = np.bincount(new, minlength=K) / len(new)
    old_share = np.bincount(old, minlength=K) / len(old)
    by_chance = float(new_share @ old_share[list(match)])
    return (share - by_chance) / (1.0 - by_chance) if by_chance < 1.0 else share
