"""Starting points of EM: drawn from the data, or made from earlier solutions.

>>> points = starting_points(X, None, n_states=3, covariance_type="diag", n_init=10, ...)
>>> points += starts_from(smaller, n_states=3)      # states split or merged

EM finds the nearest local optimum, so a fit depends on its starts. Regimes of markets differ mostly
in volatility and are persistent. Rows ranked by volatility and cut at jittered quantiles, with a
transition matrix that stays with a probability of .95 to .99, are close to the optimum; random
starts guard against other kinds of data. `benchmarks/starts.py` measures every kind.

A solution with fewer states, one of which is split, has about the likelihood of that solution, so
that more states seldom fit worse than fewer (Ueda et al. 2000 split and merge for mixtures).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hmm_exp.errors import FeatureError, FitError
from hmm_exp.hmm.health import bhattacharyya
from hmm_exp.hmm.params import GaussianParams

KINDS = ("quantile", "random", "block", "rows", "kmeans")
DEFAULT_KINDS = ("quantile", "random")
N_SPLITS = 3  # states of a solution that are split in turn, the most frequent first
APART = 0.4  # variances of the halves of a split state are 1 -+ this times its own

_STICKY = (0.95, 0.99)
_LEAST_SHARE = 0.1  # of an even share, so that no quantile bin is empty
_SPREAD = 3.0  # starts from random rows scale the common covariance by up to this, either way
_BLOCKS_PER_STATE = 5
_REDUNDANT = 1e-8  # share of a feature's variance that is its own
_CHUNK = 4_096  # rows at a time, so that their products stay in the processor's cache
_LOST = 1e-4  # probability of a transition that hardly happens
_OF_LOST = 10.0  # share of a lost move in a released solution, over that of another
_STICKY_LEAST = 0.01
_SOFT = 1e-4  # weight of even probabilities mixed into a transition matrix
_STAY = 0.95  # share of a split state's persistence that stays within each half


class StartingPoint(NamedTuple):
    """Initial parameters of an EM run.

    `kind` is one of `KINDS`, or "given", "split", "merged" or "released".
    """

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
    kinds: Sequence[str] = DEFAULT_KINDS,
) -> list[StartingPoint]:
    """Draw `n_init` starts of alternating kinds; start i does not depend on n_init.

    Parameters
    ----------
    X
        Observed rows in order, shape (N, D).
    volatility
        Increasing with the volatility of every row, shape (N,). None takes the norm of the row in
        standard deviations.
    min_covar
        Added to every variance, in units of the feature's variance over all rows.
    kinds
        Any of

        - "quantile": rows ranked by volatility and cut at quantiles, jittered but the first time;
        - "random": random responsibilities of every row;
        - "block": stretches of time assigned to the states at random;
        - "rows": random rows as means, the covariance of all rows scaled at random;
        - "kmeans": clusters of rows.

    Raises
    ------
    FitError
        Fewer distinct rows than states, a feature that follows from others if covariances are full
        matrices, or a volatility that is not finite.
    """
    _check_rows(X, n_states)
    rows = _Rows(X, volatility)
    if covariance_type in ("full", "tied"):
        _check_features(rows)
    ridge = min_covar * rows.scale**2
    points = []
    for i, child in enumerate(np.random.SeedSequence(seed).spawn(n_init)):
        rng = np.random.default_rng(child)
        kind = kinds[i % len(kinds)]
        means, covars = _drawn(kind, rows, n_states, rng, jitter=i >= len(kinds))
        shaped = shape_covars(covars, covariance_type, ridge)
        start = np.full(n_states, 1.0 / n_states)
        params = GaussianParams(start, _sticky(n_states, rng), means, shaped, covariance_type)
        points.append(StartingPoint(kind, params))
    return points


def starts_from(
    solutions: GaussianParams | Sequence[GaussianParams] | None, n_states: int, apart: float = APART
) -> list[StartingPoint]:
    """Make starting points of `n_states` states from earlier solutions.

    A solution with as many states is a start itself ("given"). With fewer states, its most frequent
    states are split in turn, one start each ("split"); with more, its nearest states are merged
    ("merged"). Probabilities of zero become positive, as EM could not change them.
    """
    if solutions is None:
        return []
    if isinstance(solutions, GaussianParams):
        solutions = [solutions]
    points = []
    for params in solutions:
        if params.n_states < n_states:
            splits = _all_splits(params, n_states, apart)
            points += [StartingPoint("split", _softened(larger)) for larger in splits]
            continue
        kind = "given" if params.n_states == n_states else "merged"
        while params.n_states > n_states:
            params = merge(params, *nearest_pair(params))
        points.append(StartingPoint(kind, _softened(params)))
    return points


def released(params: GaussianParams) -> StartingPoint | None:
    """A solution whose lost moves prevail as a starting point; None if none is lost.

    EM can lose a move between states early, while the densities are still wrong, and find an
    optimum without it. Of what leaves a state, a lost move gets ten times the share of one that is
    left. Staying probabilities and densities are kept.
    """
    K = params.n_states
    apart = ~np.eye(K, dtype=bool)
    lost = apart & (params.transmat < _LOST)
    if K < 3 or not lost.any():
        return None
    stay = np.clip(np.diagonal(params.transmat), _STICKY_LEAST, _STICKY[1])
    shares = np.where(lost, _OF_LOST, apart)
    transmat = np.diag(stay) + (1 - stay[:, None]) * shares / shares.sum(axis=1, keepdims=True)
    even = np.full(K, 1.0 / K)
    return StartingPoint("released", replace(params, startprob=even, transmat=transmat))


def shape_covars(
    covars: np.ndarray, covariance_type: str, ridge: float | np.ndarray = 0.0
) -> np.ndarray:
    """Convert full covariances (K, D, D) to a type, with `ridge` added to every variance."""
    covars = covars + ridge * np.eye(covars.shape[-1])
    variances = np.diagonal(covars, axis1=1, axis2=2)
    if covariance_type == "diag":
        return variances
    if covariance_type == "spherical":
        return variances.mean(axis=1)
    return covars.mean(axis=0) if covariance_type == "tied" else covars


def split(params: GaussianParams, k: int, apart: float = APART) -> GaussianParams:
    """Split state k into a calmer state in its place and a more volatile one at the end.

    The variances are 1 - apart and 1 + apart times the variance of k. With "tied" covariances the
    means lie `apart` standard deviations to either side instead.
    """
    K = params.n_states
    origin = np.append(np.arange(K), k)
    startprob = params.startprob[origin]
    startprob[[k, K]] /= 2
    transmat = params.transmat[np.ix_(origin, origin)]
    transmat[:, [k, K]] /= 2
    stay = params.transmat[k, k]
    transmat[[k, K], [k, K]] = stay * _STAY
    transmat[[k, K], [K, k]] = stay * (1 - _STAY)
    means, covars = params.means[origin], params.covars
    if params.covariance_type == "tied":
        away = apart * np.sqrt(np.diagonal(covars))
        means[k], means[K] = means[k] - away, means[K] + away
    else:
        covars = covars[origin]
        covars[k], covars[K] = covars[k] * (1 - apart), covars[K] * (1 + apart)
    return replace(
        params,
        startprob=startprob,
        transmat=transmat,
        means=means,
        covars=covars,
        df=None if params.df is None else params.df[origin],
    )


def merge(params: GaussianParams, i: int, j: int) -> GaussianParams:
    """Merge states i and j into one with the moments of their mixture, in the place of i."""
    weight = occupancy(params)
    kept = np.delete(np.arange(params.n_states), j)
    share = weight[[i, j]] / max(weight[[i, j]].sum(), np.finfo(float).tiny)
    means, covars = params.means[kept], params.full_covars()
    place = int(np.searchsorted(kept, i))
    means[place] = share @ params.means[[i, j]]
    away = params.means[[i, j]] - means[place]
    covars[i] = np.einsum("k,kij->ij", share, covars[[i, j]] + away[:, :, None] * away[:, None, :])
    transmat = params.transmat.copy()
    transmat[i] = share @ params.transmat[[i, j]]
    transmat[:, i] += transmat[:, j]
    startprob = params.startprob.copy()
    startprob[i] += startprob[j]
    kind = params.covariance_type
    shaped = params.covars if kind == "tied" else shape_covars(covars[kept], kind)
    df = params.df
    if df is not None:
        df = df.copy()
        df[i] = share @ df[[i, j]]
        df = df[kept]
    return GaussianParams(startprob[kept], transmat[np.ix_(kept, kept)], means, shaped, kind, df)


def nearest_pair(params: GaussianParams) -> tuple[int, int]:
    """The two states with the least Bhattacharyya distance, the lower first."""
    distance = bhattacharyya(params)
    distance[np.tril_indices(params.n_states)] = np.inf
    i, j = np.unravel_index(np.argmin(distance), distance.shape)
    return int(i), int(j)


def occupancy(params: GaussianParams) -> np.ndarray:
    """Stationary distribution, shape (K,); uniform if the chain has none."""
    try:
        return params.stationary()
    except FitError:
        return np.full(params.n_states, 1.0 / params.n_states)


def _softened(params: GaussianParams) -> GaussianParams:
    """Set uniform initial probabilities, and mix a little of them into the transition matrix."""
    even = np.full(params.n_states, 1.0 / params.n_states)
    return replace(params, startprob=even, transmat=(1 - _SOFT) * params.transmat + _SOFT * even)


def _all_splits(params: GaussianParams, n_states: int, apart: float) -> list[GaussianParams]:
    """One solution per most frequent state split first; later splits take the most frequent."""
    busiest = np.argsort(-occupancy(params), kind="stable")[:N_SPLITS]
    grown = []
    for k in busiest:
        larger = split(params, int(k), apart)
        while larger.n_states < n_states:
            larger = split(larger, int(np.argmax(occupancy(larger))), apart)
        grown.append(larger)
    return grown


def _check_rows(X: np.ndarray, n_states: int) -> None:
    """Raise FitError for fewer distinct rows than states or an infinite value."""
    if len(X) < n_states:
        raise FitError(f"{n_states} states need at least {n_states} complete rows, got {len(X)}")
    if not np.isfinite(X).all():
        bad = np.argwhere(~np.isfinite(X))[0]
        raise FitError(f"complete row {bad[0]} holds an infinite value in feature {bad[1]}")
    if len(np.unique(X[: 10 * n_states], axis=0)) >= n_states:
        return
    distinct = len(np.unique(X, axis=0))
    if distinct < n_states:
        raise FitError(f"{n_states} states from {distinct} distinct rows: use fewer states")


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a fit with what its starts share; sums run along contiguous columns."""

    X: np.ndarray  # (N, D)
    volatility: np.ndarray | None  # (N,), increasing with that of every row

    @cached_property
    def centre(self) -> np.ndarray:
        """Mean of every feature, shape (D,)."""
        return np.ascontiguousarray(self.X.T).mean(axis=1)

    @cached_property
    def columns(self) -> np.ndarray:
        """Features less their means, one after the other, shape (D, N)."""
        return np.subtract(self.X.T, self.centre[:, None], order="C")

    @cached_property
    def scale(self) -> np.ndarray:
        """Standard deviation of every feature, one for a constant feature, shape (D,)."""
        spread = self.columns.std(axis=1)
        return np.where(spread > 0, spread, 1.0)

    @cached_property
    def standardised(self) -> np.ndarray:
        """Features in standard deviations from their means, shape (D, N)."""
        return self.columns / self.scale[:, None]

    @cached_property
    def covariance(self) -> np.ndarray:
        """Maximum-likelihood covariance, shape (D, D)."""
        return _products(self.columns, self.columns) / len(self.X)

    @cached_property
    def ranked(self) -> np.ndarray:
        """Rows from the calmest to the most volatile, shape (N,). Raises FitError."""
        volatility = self.volatility
        if volatility is None:
            volatility = np.sqrt(np.einsum("dt,dt->t", self.standardised, self.standardised))
        elif not np.isfinite(volatility).all():
            bad = int((~np.isfinite(volatility)).sum())
            raise FitError(
                f"the volatility that ranks the rows is not finite in {bad} complete rows"
            )
        order = np.argsort(volatility)
        in_order = volatility[order]
        if (in_order[1:] == in_order[:-1]).any():  # only the slower stable sort keeps their order
            return np.argsort(volatility, kind="stable")
        return order


def _check_features(rows: _Rows) -> None:
    """Raise FitError if a feature follows from the others, which makes covariances singular."""
    standardised = _products(rows.standardised, rows.standardised) / len(rows.X)
    for d in range(len(standardised)):
        others = standardised[:d, :d]
        explained = standardised[d, :d] @ np.linalg.solve(others, standardised[d, :d])
        if standardised[d, d] - explained < _REDUNDANT:
            fault = f"feature {d} is constant or follows from the features before it"
            help_ = 'leave it out, or take covariances of type "diag"'
            raise FeatureError(f"{fault}: {help_}", feature=d)


def _drawn(
    kind: str, rows: _Rows, n_states: int, rng: np.random.Generator, jitter: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Means (K, D) and full covariances (K, D, D) of one start."""
    if kind == "quantile":
        return _moments(rows, _quantile_bins(rows.ranked, n_states, rng, jitter), n_states)
    if kind == "random":
        return _random_moments(rows, n_states, rng)
    if kind == "block":
        return _moments(rows, _blocks(len(rows.X), n_states, rng), n_states)
    if kind == "rows":
        return _row_moments(rows, n_states, rng)
    if kind == "kmeans":
        return _moments(rows, _clusters(rows, n_states, rng), n_states)
    raise FitError(f"unknown kind of start {kind!r}: one of {', '.join(KINDS)}")


def _quantile_bins(
    ranked: np.ndarray, n_states: int, rng: np.random.Generator, jitter: bool
) -> np.ndarray:
    """State of every row, shape (N,), from ranks cut at even or jittered quantiles."""
    N = len(ranked)
    shares = np.full(n_states, 1.0 / n_states)
    if jitter:
        drawn = rng.dirichlet(np.full(n_states, 2.0))
        shares = _LEAST_SHARE * shares + (1 - _LEAST_SHARE) * drawn
    place = np.arange(1, n_states + 1)
    ends = np.round(np.cumsum(shares) * N).astype(int)
    ends = np.minimum(np.maximum(ends, place), N - n_states + place)  # a row for everyone
    bins = np.empty(N, dtype=np.int64)
    bins[ranked] = np.repeat(np.arange(n_states), np.diff(ends, prepend=0))
    return bins


def _blocks(N: int, n_states: int, rng: np.random.Generator) -> np.ndarray:
    """State of every row, shape (N,), from shuffled equal stretches of time."""
    n_blocks = min(N, _BLOCKS_PER_STATE * n_states)
    owner = rng.permutation(np.arange(n_blocks) % n_states)
    return owner[np.arange(N) * n_blocks // N]


def _clusters(rows: _Rows, n_states: int, rng: np.random.Generator) -> np.ndarray:
    """State of every row, shape (N,), from k-means of the standardised rows."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    seed = int(rng.integers(2**31))
    with threadpool_limits(limits=1):  # bits depend on the number of threads
        return KMeans(n_states, n_init=1, random_state=seed).fit(rows.standardised.T).labels_


def _moments(rows: _Rows, bins: np.ndarray, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (K, D) and covariance (K, D, D) of the rows of every bin."""
    order = np.argsort(bins.astype(np.int16), kind="stable")  # short integers have a quick sort
    ends = np.bincount(bins, minlength=n_states).cumsum()[:-1]
    parts = np.split(np.take(rows.columns, order, axis=1), ends, axis=1)
    means = np.stack([part.mean(axis=1) for part in parts])
    for part, mean in zip(parts, means, strict=True):
        part -= mean[:, None]
    covars = np.stack([_products(part, part) / part.shape[1] for part in parts])
    return means + rows.centre, covars


def _random_moments(
    rows: _Rows, n_states: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Moments of all rows under responsibilities drawn uniformly from the simplex."""
    D, N = rows.columns.shape
    i, j = np.tril_indices(D)
    terms, sums = np.ones((1 + D + len(i), _CHUNK)), np.zeros((n_states, 1 + D + len(i)))
    for begin in range(0, N, _CHUNK):
        x = rows.columns[:, begin : begin + _CHUNK]
        now = terms[:, : x.shape[1]]  # ones, features and their products
        now[1 : 1 + D] = x
        for d in range(D):
            place = 1 + D + d * (d + 1) // 2
            np.multiply(x[: d + 1], x[d], out=now[place : place + d + 1])
        sums += _products(_simplex(x.shape[1], n_states, rng), now)
    mass, first, second = sums[:, :1], sums[:, 1 : 1 + D], np.empty((n_states, D, D))
    second[:, i, j] = second[:, j, i] = sums[:, 1 + D :]
    means = first / mass
    covars = second / mass[:, :, None] - means[:, :, None] * means[:, None, :]
    return means + rows.centre, covars


def _simplex(n_rows: int, n_states: int, rng: np.random.Generator) -> np.ndarray:
    """Shares of the states that are uniform on the simplex, shape (K, n_rows)."""
    drawn = rng.standard_exponential((n_rows, n_states)).T
    total = drawn[0].copy()
    for more in drawn[1:]:
        total += more
    return np.divide(drawn, total, order="C")


def _row_moments(
    rows: _Rows, n_states: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random rows as means, the covariance of all rows scaled at random."""
    means = rows.X[rng.choice(len(rows.X), n_states, replace=False)]
    scale = _SPREAD ** rng.uniform(-1, 1, n_states)
    return means, scale[:, None, None] * rows.covariance


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of the rows of (I, N) and (J, N), shape (I, J), without BLAS, whose bits vary."""
    return np.einsum("it,jt->ij", a, b)


def _sticky(n_states: int, rng: np.random.Generator) -> np.ndarray:
    """A transition matrix with one drawn probability of staying, shape (K, K)."""
    if n_states == 1:
        return np.ones((1, 1))
    stay = rng.uniform(*_STICKY)
    transmat = np.full((n_states, n_states), (1 - stay) / (n_states - 1))
    np.fill_diagonal(transmat, stay)
    return transmat
