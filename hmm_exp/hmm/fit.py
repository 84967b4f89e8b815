"""Maximum-likelihood fits from many starts, judged honestly.

>>> fitted = fit(X, steps, n_states=3, covariance_type="diag", n_init=10, seed=42)
>>> fitted.status, fitted.restart_agreement
('tolerance', 0.8)

EM (Baum et al. 1970; Rabiner 1989, section III.C) climbs the log-likelihood plus the log prior.
That sum is what the history holds, what convergence is judged on, and what the best start is chosen
by; `log_lik` is without the prior.

Two engines do the same work: "native" (`em`) and "hmmlearn" (`em_hmmlearn`), which is slower, knows
no missing rows (a gap ends a sequence there) and has no floor under its covariances.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.em.run import COVAR_FLOOR, Priors, absolute_floor, announce_compilation, em
from hmm_exp.hmm.em.rows import lay_out
from hmm_exp.hmm.inference import filter_rows
from hmm_exp.hmm.params import GaussianParams, log_prior
from hmm_exp.hmm.restarts import RunStart, EMRun, Progress, Start, run_all_starts
from hmm_exp.hmm.starts import DEFAULT_KINDS, StartingPoint, starting_points, starts_from

ENGINES = ("native", "hmmlearn")
AGREEMENT = 0.1  # nats

__all__ = [
    "AGREEMENT",
    "ENGINES",
    "Fit",
    "Search",
    "Start",
    "combined",
    "fit",
    "fit_from",
    "judge",
    "log_likelihood",
]


@dataclass(frozen=True)
class Search:
    """How every start is runs.

    Attributes
    ----------
    n_iter
        Most iterations of one start.
    tol
        Smallest gain, in nats of the whole objective, that is worth another iteration.
    engine
        One of `ENGINES`.
    threads
        Most starts at a time; None takes all cores. Changes no bit. "hmmlearn" uses one.
    covar_floor
        Least variance of a feature given the features before it, relative to its variance in the
        data ("native" only).
    priors
        hmmlearn's defaults unless given ("native" only).
    params
        What EM may change, by hmmlearn's letters ("native" only).
    """

    n_iter: int = 200
    tol: float = 1e-3
    engine: str = "native"
    threads: int | None = None
    covar_floor: float = COVAR_FLOOR
    priors: Priors | None = None
    params: str = "stmc"


@dataclass(frozen=True, eq=False)
class Fit:
    """The best of all starts, and what the others say about it.

    Attributes
    ----------
    params
        States in no particular order.
    log_lik, objective
        Log-likelihood of all rows in nats, gaps and missing rows bridged, from `startprob`; and the
        same plus the log prior.
    history
        Objective of the best start after 0, 1, 2, ... iterations, shape (n_iter + 1,).
    status
        How the best start ended. "tolerance": its gains were in [0, tol), three in a row with the
        native engine, one with hmmlearn's; "cap": `n_iter` iterations were made; "fall": the
        objective fell.
    starts
        Every start, in the order they were drawn.
    restart_agreement
        Share of the polished starts whose objective is within 0.1 nat of the best one's.
    covar_floor
        The floor under the variance of every feature given the features before it, shape (D,);
        None when the engine has none.
    """

    params: GaussianParams
    log_lik: float
    objective: float
    history: np.ndarray
    status: str
    starts: list[Start]
    restart_agreement: float
    covar_floor: np.ndarray | None = None

    @property
    def converged(self) -> bool:
        """Whether the best start ended because there was next to nothing left to gain."""
        return self.status == "tolerance"

    @property
    def n_iter(self) -> int:
        """Iterations of the best start."""
        return len(self.history) - 1

    @property
    def n_polished(self) -> int:
        """Starts that EM carried to an end."""
        return sum(start.polished for start in self.starts)


def fit(
    X: np.ndarray,
    steps: np.ndarray,
    *,
    n_states: int,
    covariance_type: str = "diag",
    n_init: int = 10,
    n_iter: int = 200,
    tol: float = 1e-3,
    min_covar: float = 1e-3,
    seed: int = 0,
    volatility: np.ndarray | None = None,
    engine: str = "native",
    threads: int | None = None,
    initial: GaussianParams | Sequence[GaussianParams] | None = None,
    progress: Progress | None = None,
    kinds: Sequence[str] = DEFAULT_KINDS,
) -> Fit:
    """Fit a Gaussian HMM by EM from `n_init` starts and keep the best.

    Parameters
    ----------
    X
        Scaled observations, shape (T, D); a row with any NaN is missing.
    steps
        Chain steps from the previous row, shape (T,); 0 starts a sequence.
    n_iter, tol, engine, threads
        See `Search`.
    min_covar
        Added to the variances of the starting points, in units of the feature's variance.
    volatility
        Ranks the rows for the quantile starts, shape (T,). None takes the norm of the row.
    initial
        Earlier solutions to start from besides the drawn starts: as they are with `n_states`
        states, else with states split or merged.
    progress
        Called with the place of a start, their number and the log-likelihood reached, whenever one
        has ended, in the calling thread.
    kinds
        Kinds of drawn starts, taken in turn: see `starts.starting_points`.

    Raises
    ------
    FitError
        When there are too few complete or distinct rows, or every start fails.
    """
    X = np.ascontiguousarray(X, dtype=np.float64)
    observed = ~np.isnan(X).any(axis=1)
    points = starting_points(
        X if observed.all() else X[observed],
        None if volatility is None else np.asarray(volatility)[observed],
        n_states=n_states,
        covariance_type=covariance_type,
        n_init=n_init if n_states > 1 else 1,  # one state has one optimum
        min_covar=min_covar,
        seed=seed,
        kinds=kinds,
    )
    points += starts_from(initial, n_states)
    search = Search(n_iter=n_iter, tol=tol, engine=engine, threads=threads)
    return fit_from(points, X, steps, search, progress)


def combined(one: Fit, other: Fit) -> Fit:
    """Two searches of the same data for the same number of states as one."""
    starts = [*one.starts, *other.starts]
    ranks = [(fitted.objective, fitted.converged) for fitted in (one, other)]
    best = one if ranks[0] >= ranks[1] else other
    return replace(best, starts=starts, restart_agreement=_agreement(starts))


def fit_from(
    points: Sequence[StartingPoint],
    X: np.ndarray,
    steps: np.ndarray,
    search: Search | None = None,
    progress: Progress | None = None,
) -> Fit:
    """RunStart from given starting points and keep the best; parameters and errors as in `fit`."""
    search = search or Search()
    X = np.ascontiguousarray(X, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    if search.engine not in ENGINES:
        raise FitError(f"unknown engine {search.engine!r}: one of {', '.join(ENGINES)}")
    if not points:
        raise FitError("no start: n_init is 0 and there is no initial solution")
    native = search.engine == "native"
    run, floor = (_native if native else _hmmlearn)(X, steps, search, points[0].params)
    runs = run_all_starts(
        points,
        run,
        n_iter=search.n_iter,
        n_rows=len(X),
        threads=search.threads if native else 1,  # hmmlearn's warnings are the whole process's
        progress=progress,
    )
    return _best_of(runs, floor)


def judge(history: np.ndarray, tol: float) -> str:
    """How an EM run ended: "tolerance" for 0 <= last gain < tol, "fall" below, "cap" above.

    hmmlearn's own flag is true in all three cases.
    """
    if len(history) < 2:
        return "cap"
    gain = history[-1] - history[-2]
    if gain < 0:
        return "fall"
    return "tolerance" if gain < tol else "cap"


def log_likelihood(params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> float:
    """ln p(x_1..T) in nats from `startprob`. Raises FitError when it is not finite."""
    total = float(filter_rows(params, X, steps).log_lik.sum())
    if not np.isfinite(total):
        raise FitError(f"the log-likelihood is {total}")
    return total


def _native(
    X: np.ndarray, steps: np.ndarray, search: Search, like: GaussianParams
) -> tuple[RunStart, np.ndarray]:
    """RunStart with the compiled engine over rows laid out once, and its covariance floor."""
    announce_compilation()
    rows = lay_out(X, steps)

    def run(point: StartingPoint, n_iter: int) -> EMRun:
        result = em(
            rows,
            None,
            point.params,
            n_iter=n_iter,
            tol=search.tol,
            covar_floor=search.covar_floor,
            priors=search.priors,
            params=search.params,
        )
        start = Start(
            point.kind,
            result.log_lik,
            result.objective,
            result.objective_history,
            result.history,
            result.status,
        )
        return EMRun(result.params, start)

    return run, absolute_floor(rows, like.covariance_type, search.covar_floor)


def _hmmlearn(
    X: np.ndarray, steps: np.ndarray, search: Search, like: GaussianParams
) -> tuple[RunStart, None]:
    """RunStart with hmmlearn; what it reports is measured as the native engine's results are."""
    from hmm_exp.hmm.em.hmmlearn import run_start

    def run(point: StartingPoint, n_iter: int) -> EMRun:
        params, run = run_start(X, steps, point.params, n_iter=n_iter, tol=search.tol)
        log_lik = log_likelihood(params, X, steps)
        objective = log_lik + log_prior(params)
        status = judge(run.objective, search.tol)
        history = np.append(run.objective, objective)
        log_liks = np.append(run.log_lik, log_lik)
        return EMRun(params, Start(point.kind, log_lik, objective, history, log_liks, status))

    return run, None


def _best_of(runs: list[EMRun], floor: np.ndarray | None) -> Fit:
    """The converged one of the starts that agree with the best objective, if there is one."""
    starts = [one.start for one in runs]
    polished = [one for one in runs if one.start.polished]
    if not polished:
        raise FitError(f"all {len(starts)} starts failed, the first: {starts[0].reason}")
    top = max(one.start.objective for one in polished)
    agreeing = [one for one in polished if one.start.objective >= top - AGREEMENT]
    best = max(agreeing, key=lambda one: (one.start.converged, one.start.objective))
    return Fit(
        params=best.params,
        log_lik=best.start.log_lik,
        objective=best.start.objective,
        history=best.start.history,
        status=best.start.status,
        starts=starts,
        restart_agreement=_agreement(starts),
        covar_floor=floor,
    )


def _agreement(starts: list[Start]) -> float:
    """Share of the polished starts that come within `AGREEMENT` of the best of them."""
    reached = np.array([start.objective for start in starts if start.polished])
    return float(np.mean(reached >= reached.max() - AGREEMENT))


_BARELY = 0.02  # splits so narrow start at the likelihood of the smaller model
_OTHER_SEED = 1_000_003


@dataclass(frozen=True, eq=False)
class FitGrid:
    """Fits by their number of states, ascending.

    Attributes
    ----------
    fits
        Those that could be made.
    failures
        Why the others could not.
    notes
        What is odd about a fit: it stays less likely than one with fewer states.
    """

    fits: dict[int, Fit] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


def fit_grid(
    X: np.ndarray, steps: np.ndarray, state_grid: Iterable[int], **options: Any
) -> FitGrid:
    """Fit every number of states; `options` are those of `fit.fit`.

    Raises
    ------
    FitError
        When not one number of states can be fitted.
    """
    grid = FitGrid()
    smaller: Fit | None = None
    for n_states in sorted(set(state_grid)):
        try:
            fitted, note = fit_larger(X, steps, smaller, n_states=n_states, **options)
        except FitError as error:
            grid.failures[n_states] = str(error)
            continue
        grid.fits[n_states] = smaller = fitted
        if note:
            grid.notes[n_states] = note
    if not grid.fits:
        raise FitError("; ".join(f"{K} states: {why}" for K, why in grid.failures.items()))
    return grid


def fit_larger(
    X: np.ndarray,
    steps: np.ndarray,
    smaller: Fit | None,
    *,
    n_states: int,
    n_init: int = 10,
    seed: int = 0,
    **options: Any,
) -> tuple[Fit, str | None]:
    """Fit `n_states`, begun also from a fit of the same data with fewer states.

    Gives the fit, and a note when it is less likely than the smaller one even after more starts.
    Options and errors are those of `fit.fit`.
    """
    before = None if smaller is None else smaller.params
    given = {"n_states": n_states, "n_init": n_init, **options}
    fitted = fit(X, steps, seed=seed, initial=before, **given)
    if smaller is None or not _falls_short(fitted, smaller):
        return fitted, None
    more = fit(X, steps, seed=seed + _OTHER_SEED, **given)
    fitted = combined(fitted, more)
    if _falls_short(fitted, smaller):
        limits = {name: options[name] for name in _SEARCHED if name in options}
        splits = starts_from(smaller.params, n_states, apart=_BARELY)
        fitted = combined(fitted, fit_from(splits, X, steps, Search(**limits)))
    return fitted, _note(fitted, smaller) if _falls_short(fitted, smaller) else None


_SEARCHED = ("n_iter", "tol", "engine", "threads")


def _falls_short(larger: Fit, smaller: Fit) -> bool:
    return larger.log_lik < smaller.log_lik - AGREEMENT


def _note(larger: Fit, smaller: Fit) -> str:
    return (
        f"{larger.params.n_states} states are {smaller.log_lik - larger.log_lik:.1f} nats less "
        f"likely than {smaller.params.n_states} after {len(larger.starts)} starts: their optimum "
        "was not found"
    )
