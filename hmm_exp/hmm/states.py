"""Order and names of the states, calm first, and agreement of two label paths.

>>> params.reordered(volatility_order(posterior_spread(probs, returns)))
>>> before, after = np.array([0, 0, 1, 1, 1]), np.array([1, 1, 0, 0, 1])
>>> agreement(before, after, 2, 2)
Agreement(n_rows=5, match=(1, 0), share=0.8, margin=0.6, same_share=0.2)

Agreement is measured after the one-to-one matching of states with the most rows in common (Kuhn
1955, Naval Research Logistics Quarterly 2; Munkres 1957). Its margin over the next best matching,
which differs in at least one pair (Murty 1968, Operations Research 16), measures its certainty.
"""

from dataclasses import dataclass

import numpy as np


def volatility_order(volatility_means: np.ndarray) -> np.ndarray:
    """Order of the states by rising mean volatility, shape (K,); ties keep their order.

    For `GaussianParams.reordered` and the columns of probabilities.
    """
    return np.argsort(volatility_means, kind="stable")


def posterior_spread(probs: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Posterior-weighted standard deviation of returns in every state, shape (K,).

    A volatility to order the states by if no feature measures it. `probs` (T, K) are smoothed or
    filtered probabilities, `returns` (T,) the log returns of the same rows, NaN if unknown. A state
    without weight gets infinity and comes last.
    """
    known = np.isfinite(returns)
    probs, returns = probs[known], returns[known]
    weight = probs.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (probs * returns[:, None]).sum(axis=0) / weight
        square = (probs * (returns[:, None] - mean) ** 2).sum(axis=0) / weight
    return np.where(weight > 0, np.sqrt(square), np.inf)


def labels(n_states: int) -> tuple[str, ...]:
    """Names of states that differ in volatility, calm first; from four on their numbers.

    >>> labels(3)
    ('calm', 'normal', 'turbulent')
    >>> labels(4)
    ('vol-0', 'vol-1', 'vol-2', 'vol-3')
    """
    named = {1: ("normal",), 2: ("calm", "turbulent"), 3: ("calm", "normal", "turbulent")}
    return named.get(n_states) or tuple(f"vol-{k}" for k in range(n_states))


@dataclass(frozen=True)
class Agreement:
    """Agreement of two label paths, A and B, over their common rows."""

    n_rows: int  # rows with a label in both
    # State of B matched with every state of A; -1 for an unmatched state if A has more.
    match: tuple[int, ...]
    share: float  # share of the rows with matched labels
    margin: float  # difference of `share` from the next best matching; `share` if there is no other
    same_share: float  # share of the rows with the same label, without matching

    @property
    def renamed(self) -> bool:
        """Whether the matching changes the index of any state."""
        return any(b not in (a, -1) for a, b in enumerate(self.match))


def agreement(a: np.ndarray, b: np.ndarray, n_a: int, n_b: int) -> Agreement | None:
    """Match the states of two label paths of the same rows.

    Parameters
    ----------
    a, b
        Labels 0..n_a-1 and 0..n_b-1, shape (T,); negative if unknown.

    Returns
    -------
    Agreement or None
        None without a row with both labels.
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
    from scipy.optimize import linear_sum_assignment  # only where states are matched

    return linear_sum_assignment(weights, maximize=True)


def _next_best(counts: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> int:
    """Matched rows of the best assignment without one of `pairs`; 0 if there is none."""
    forbidden = -1 - int(counts.sum())
    rest = []
    for pair in zip(*pairs, strict=True):
        barred = counts.copy()
        barred[pair] = forbidden
        rest.append(int(barred[_best(barred)].sum()))
    return max(0, *rest)
