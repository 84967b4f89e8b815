"""One canonical order of states, calm first, and what the states are called."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


def volatility_order(volatility_means: np.ndarray) -> np.ndarray:
    """Old index of every new state, shape (K,), by rising mean volatility; ties keep their order.

    For `GaussianParams.reordered` and, applied to columns, for probabilities.
    """
    return np.argsort(volatility_means, kind="stable")


def posterior_spread(probs: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Posterior-weighted standard deviation of returns in every state, shape (K,).

    Volatility by which to order states when no feature measures it. `probs` (T, K) are smoothed or
    filtered probabilities, `returns` (T,) the log returns of the same rows, NaN where unknown. A
    state without weight gets infinity and goes last.
    """
    known = np.isfinite(returns)
    probs, returns = probs[known], returns[known]
    weight = probs.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (probs * returns[:, None]).sum(axis=0) / weight
        square = (probs * (returns[:, None] - mean) ** 2).sum(axis=0) / weight
    return np.where(weight > 0, np.sqrt(square), np.inf)


def labels(n_states: int) -> tuple[str, ...]:
    """Names of the states, calm first.

    >>> labels(3)
    ('calm', 'normal', 'turbulent')
    """
    named = {1: ("normal",), 2: ("calm", "turbulent"), 3: ("calm", "normal", "turbulent")}
    return named.get(n_states) or tuple(f"vol-{k}" for k in range(1, n_states + 1))


@dataclass(frozen=True)
class Agreement:
    """Two label paths, A and B, over their common rows.

    Attributes
    ----------
    n_rows
        Rows with a label in both.
    match
        State of B that is matched with every state of A; -1 for one left over when A has more.
    share
        Share of the rows whose labels are matched.
    margin
        By how much the next best match has a lower share; `share` when there is no other match.
    same_share
        Share of the rows with the same label, none renamed.
    """

    n_rows: int
    match: tuple[int, ...]
    share: float
    margin: float
    same_share: float

    @property
    def renamed(self) -> bool:
        """Whether the match gives any state another index."""
        return any(b not in (a, -1) for a, b in enumerate(self.match))


def agreement(a: np.ndarray, b: np.ndarray, n_a: int, n_b: int) -> Agreement | None:
    """Match the states of two label paths of the same rows.

    Parameters
    ----------
    a, b
        Labels 0..n_a-1 and 0..n_b-1, shape (T,); a negative one is no label.

    Returns
    -------
    Agreement or None
        None without a row that has both labels.
    """
    both = (a >= 0) & (b >= 0)
    n_rows = int(both.sum())
    if n_rows == 0:
        return None
    counts = np.bincount(a[both] * n_b + b[both], minlength=n_a * n_b).reshape(n_a, n_b)
    pairs = _best(counts)
    most = int(counts[pairs].sum())
    match = np.full(n_a, -1)
    match[pairs[0]] = pairs[1]
    return Agreement(
        n_rows=n_rows,
        match=tuple(match.tolist()),
        share=most / n_rows,
        margin=(most - _next_best(counts, pairs)) / n_rows,
        same_share=int(np.trace(counts)) / n_rows,
    )


def _best(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return linear_sum_assignment(weights, maximize=True)


def _next_best(counts: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> int:
    """Rows in common under the best assignment that lacks one of `pairs`; 0 when none is left."""
    forbidden = -1 - int(counts.sum())
    rest = []
    for pair in zip(*pairs, strict=True):
        barred = counts.copy()
        barred[pair] = forbidden
        rest.append(int(barred[_best(barred)].sum()))
    return max(0, *rest)
