"""How far two label paths of the same rows tell the same story, up to the names of the states.

>>> before, after = np.array([0, 0, 1, 1, 1]), np.array([1, 1, 0, 0, 1])
>>> agreement(before, after, 2, 2)
Agreement(n_rows=5, match=(1, 0), share=0.8, margin=0.6, same_share=0.2)

The match of states is the one-to-one assignment with the most rows in common (Kuhn 1955, Naval
Research Logistics Quarterly 2; Munkres 1957). Its margin over the next best assignment, which has
to differ in at least one pair (Murty 1968, Operations Research 16), says how sure it is.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


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
