"""Where EM begins: half the starts cut the rows by volatility, half take random rows as means.

EM finds the nearest local optimum, so a fit is as good as its starts. Regimes of markets differ
mostly in volatility and last long: rows ranked by volatility and cut at jittered quantiles, with a
transition matrix that stays at .95 to .99, begin close to the optimum; random starts guard against
data of another kind.
"""

from typing import NamedTuple

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.params import GaussianParams

_STICKY = (0.95, 0.99)
_LEAST_SHARE = 0.1  # of an even share, so that no quantile bin is empty
_SPREAD = 3.0  # random starts scale the common covariance by up to this factor, either way


class StartingPoint(NamedTuple):
    """Where one EM run begins, and how it was found: "quantile" or "random"."""

    kind: str
    params: GaussianParams


def starting_points(
    X: np.ndarray,
    volatility: np.ndarray | None,
    *,
    n_states: int,
    covariance_type: str,
    n_init: int,
    min_covar: float,
    seed: int,
) -> list[StartingPoint]:
    """Draw `n_init` starts, quantile and random ones in turn; start i does not depend on n_init.

    Parameters
    ----------
    X
        Observed rows only, shape (N, D).
    volatility
        A number per row that grows with volatility, shape (N,). None takes the norm of the row.

    Raises
    ------
    FitError
        When there are fewer rows than states, or a volatility is not finite.
    """
    if len(X) < n_states:
        raise FitError(f"{n_states} states need at least {n_states} complete rows, got {len(X)}")
    ranked = np.argsort(_volatility(X, volatility), kind="stable")
    starts = []
    for i, child in enumerate(np.random.SeedSequence(seed).spawn(n_init)):
        rng = np.random.default_rng(child)
        if i % 2 == 0:
            bins = _quantile_bins(ranked, n_states, rng, jitter=i > 0)
            means, covars = _moments(X, bins, n_states)
            kind = "quantile"
        else:
            means, covars = _random_moments(X, n_states, rng)
            kind = "random"
        shaped = shape_covars(covars, covariance_type, min_covar)
        start = np.full(n_states, 1.0 / n_states)
        transmat = _sticky(n_states, rng)
        starts.append(
            StartingPoint(kind, GaussianParams(start, transmat, means, shaped, covariance_type))
        )
    return starts


def shape_covars(covars: np.ndarray, covariance_type: str, min_covar: float) -> np.ndarray:
    """Full covariances (K, D, D) in the shape of the type, `min_covar` added to every variance."""
    covars = covars + min_covar * np.eye(covars.shape[-1])
    variances = np.diagonal(covars, axis1=1, axis2=2)
    if covariance_type == "diag":
        return variances
    if covariance_type == "spherical":
        return variances.mean(axis=1)
    return covars.mean(axis=0) if covariance_type == "tied" else covars


def _volatility(X: np.ndarray, volatility: np.ndarray | None) -> np.ndarray:
    if volatility is None:
        return np.linalg.norm(X, axis=1)
    if not np.isfinite(volatility).all():
        bad = int((~np.isfinite(volatility)).sum())
        raise FitError(f"the volatility that ranks the rows is not finite in {bad} complete rows")
    return volatility


def _quantile_bins(
    ranked: np.ndarray, n_states: int, rng: np.random.Generator, jitter: bool
) -> np.ndarray:
    """State of every row, shape (N,): rank cut at even or jittered quantiles."""
    N = len(ranked)
    shares = np.full(n_states, 1.0 / n_states)
    if jitter:
        drawn = rng.dirichlet(np.full(n_states, 2.0))
        shares = _LEAST_SHARE * shares + (1 - _LEAST_SHARE) * drawn
    place = np.arange(1, n_states + 1)
    ends = np.round(np.cumsum(shares) * N).astype(int)
    ends = np.minimum(np.maximum(ends, place), N - n_states + place)  # a row for everyone
    bins = np.empty(N, dtype=int)
    bins[ranked] = np.searchsorted(ends, np.arange(N), side="right")
    return bins


def _moments(X: np.ndarray, bins: np.ndarray, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (K, D) and covariance (K, D, D) of the rows of every bin."""
    means = np.stack([X[bins == k].mean(axis=0) for k in range(n_states)])
    return means, np.stack([_covariance(X[bins == k]) for k in range(n_states)])


def _random_moments(
    X: np.ndarray, n_states: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random rows as means, the covariance of all rows scaled at random."""
    means = X[rng.choice(len(X), n_states, replace=False)]
    scale = _SPREAD ** rng.uniform(-1, 1, n_states)
    return means, scale[:, None, None] * _covariance(X)


def _covariance(X: np.ndarray) -> np.ndarray:
    """Maximum-likelihood covariance, shape (D, D)."""
    centred = X - X.mean(axis=0)
    return np.einsum("ti,tj->ij", centred, centred) / len(X)


def _sticky(n_states: int, rng: np.random.Generator) -> np.ndarray:
    """A transition matrix that stays with one drawn probability, shape (K, K)."""
    if n_states == 1:
        return np.ones((1, 1))
    stay = rng.uniform(*_STICKY)
    transmat = np.full((n_states, n_states), (1 - stay) / (n_states - 1))
    np.fill_diagonal(transmat, stay)
    return transmat
