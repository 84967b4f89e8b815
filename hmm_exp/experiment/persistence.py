"""How long regimes last and how sure their labels are.

A visit is a stay in one state without a seen change. Its length is counted in chain steps, so
that it compares with the expected dwell 1 / (1 - a_kk): bars missing inside a visit belong to it,
bars missing where the label has changed belong to none. A new sequence opens a new visit.
"""

from typing import NamedTuple

import numpy as np


class Visits(NamedTuple):
    """Visits in time order."""

    state: np.ndarray  # (V,) int64
    length: np.ndarray  # (V,) int64, chain steps


def find_visits(states: np.ndarray, steps: np.ndarray) -> Visits:
    """Cut a label path into visits.

    Parameters
    ----------
    states
        Label of every row, shape (T,), filtered for what can be seen live.
    steps
        Chain steps from the row before, shape (T,); 0 opens a sequence.
    """
    if len(states) == 0:
        return Visits(np.empty(0, np.int64), np.empty(0, np.int64))
    opens = np.r_[True, (states[1:] != states[:-1]) | (steps[1:] == 0)]
    first = np.flatnonzero(opens)
    last = np.r_[first[1:], len(states)] - 1
    clock = np.cumsum(steps)  # chain time, standing still where a sequence opens
    return Visits(states[first].astype(np.int64), clock[last] - clock[first] + 1)


def dwell_lengths(visits: Visits, n_states: int) -> list[np.ndarray]:
    """Lengths of every state's visits, bars: K arrays, empty for a state never seen."""
    return [visits.length[visits.state == state] for state in range(n_states)]


def observed_dwell(visits: Visits, n_states: int) -> np.ndarray:
    """Mean visit per state, bars, shape (K,); NaN for a state never visited."""
    count, total = _counts(visits, n_states)
    return np.divide(total, count, out=np.full(n_states, np.nan), where=count > 0)


def expected_dwell(transmat: np.ndarray) -> np.ndarray:
    """Mean visit of the chain, 1 / (1 - a_kk) chain steps, shape (K,); inf when absorbing."""
    leave = 1.0 - np.diag(transmat)
    return np.divide(1.0, leave, out=np.full(len(leave), np.inf), where=leave > 0.0)


def one_bar_shares(visits: Visits, n_states: int) -> np.ndarray:
    """Share of one-bar visits per state, shape (K,); NaN for a state never visited."""
    count, _ = _counts(visits, n_states)
    single = np.bincount(visits.state[visits.length == 1], minlength=n_states)
    return np.divide(single, count, out=np.full(n_states, np.nan), where=count > 0)


def occupancy(states: np.ndarray, n_states: int) -> np.ndarray:
    """Share of the rows that carry each label, shape (K,). A negative label is no label."""
    count = np.bincount(states[states >= 0], minlength=n_states)
    return count / max(int(count.sum()), 1)


def mean_entropy(probs: np.ndarray) -> float:
    """Mean entropy of the state probabilities (T, K), nats per row: 0 when always sure."""
    logs = np.log(probs, out=np.zeros_like(probs), where=probs > 0.0)
    return float(-(probs * logs).sum(axis=1).mean())


def revision_rate(filtered_states: np.ndarray, smoothed_states: np.ndarray) -> float:
    """Share of rows whose filtered label the smoothed one overturns in hindsight."""
    return float(np.mean(filtered_states != smoothed_states))


def persistence_metrics(
    filtered: np.ndarray, smoothed: np.ndarray, steps: np.ndarray
) -> dict[str, float]:
    """One number each, for the run record; what does not exist is left out.

    Parameters
    ----------
    filtered, smoothed
        State probabilities, shape (T, K), T at least 1.
    steps
        Chain steps from the row before, shape (T,).

    Returns
    -------
    dict
        `mean_dwell_bars`, `one_bar_visit_share`, `posterior_entropy` (filtered, nats per row),
        `revision_rate`, and `switches_per_1000` chain steps where there is a step at all.
    """
    states = filtered.argmax(axis=1)
    visits = find_visits(states, steps)
    metrics = {
        "mean_dwell_bars": float(visits.length.mean()),
        "one_bar_visit_share": float(np.mean(visits.length == 1)),
        "posterior_entropy": mean_entropy(filtered),
        "revision_rate": revision_rate(states, smoothed.argmax(axis=1)),
    }
    rate = switches_per_1000(states, steps)
    return metrics if rate is None else metrics | {"switches_per_1000": rate}


def switches_per_1000(states: np.ndarray, steps: np.ndarray) -> float | None:
    """Changes of the label per 1000 chain steps; None where there is no step."""
    linked = steps[1:] > 0
    if not linked.any():
        return None
    switches = np.count_nonzero((states[1:] != states[:-1]) & linked)
    return 1000.0 * switches / float(steps[1:].sum())


def _counts(visits: Visits, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Number and total length of every state's visits."""
    count = np.bincount(visits.state, minlength=n_states)
    return count, np.bincount(visits.state, weights=visits.length, minlength=n_states)
