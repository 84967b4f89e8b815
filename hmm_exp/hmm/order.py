"""One canonical order of states, calm first, and what the states are called."""

import numpy as np


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
