"""Maximum-likelihood fits of hidden Markov models from many starts.

>>> fitted = fit(X, steps, 3, Search(covariance_type="diag", n_init=10, seed=42))
>>> fitted.status, fitted.restart_agreement
('tolerance', 0.8)
>>> larger, note = fit_larger(X, steps, 4, smaller=fitted)

EM (Baum et al. 1970; Rabiner 1989, section III.C) maximises the log-likelihood plus the log prior.
This objective is recorded in `history`, tested for convergence and compared between starts;
`log_lik` is without the prior.

From three states on, the best solution starts once more with the moves between states that it has
lost (`starts.released`): EM can lose a move early, and there are optima with and without it.

At the optimum more states are never less likely than fewer. If they are, EM has missed the optimum:
`fit_larger` then makes more starts and reports a remaining shortfall.

There are two engines: "native" (`em.run`) and "hmmlearn" (`em.hmmlearn`). The latter is slower,
does not bridge missing rows (a gap ends a sequence) and has no covariance floor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.em.rows import lay_out
from hmm_exp.hmm.em.run import COVAR_FLOOR, Priors, absolute_floor, announce_compilation, em
from hmm_exp.hmm.inference import filter_rows
from hmm_exp.hmm.params import GaussianParams, log_prior
from hmm_exp.hmm.restarts import EMRun, Progress, RunStart, Start, run_all_starts
from hmm_exp.hmm.starts import DEFAULT_KINDS, StartingPoint, released, starting_points, starts_from

ENGINES = ("native", "hmmlearn")
EMISSIONS = ("gaussian", "student_t")
AGREEMENT = 0.01  # nats
_BARELY = 0.02  # splits so narrow start at the likelihood of the smaller model
_OTHER_SEED = 1_000_003
_START_DF = 8.0  # of the drawn Student-t states

__all__ = [
    "AGREEMENT",
    "EMISSIONS",
    "ENGINES",
    "Fit",
    "Search",
    "Start",
    "combined",
    "fit",
    "fit_from",
    "fit_larger",
    "judge",
    "log_likelihood",
]


@dataclass(frozen=True)
class Search:
    """Settings of a fit: the starts and the EM runs from them."""

    covariance_type: str = "diag"  # "diag", "full", "tied" or "spherical"
    # "gaussian" or "student_t" ("native", diag and full only): the densities of the drawn states.
    emission: str = "gaussian"
    n_init: int = 10  # number of drawn starts
    seed: int = 0  # seed of the starts
    # Added to the variances of the starts, in units of the feature's variance.
    min_covar: float = 1e-3
    # Kinds of drawn starts, taken in turn: see `starts.starting_points`.
    kinds: Sequence[str] = DEFAULT_KINDS
    n_iter: int = 200  # most iterations of one start
    # EM stops when the objective is at most this far below its maximum, by estimate, in nats.
    # Without `accelerate` it stops after three smaller gains in a row.
    tol: float = 1e-3
    accelerate: bool = True  # leaps between EM iterations: see `em.leap` ("native" only)
    engine: str = "native"  # one of `ENGINES`
    # Most starts at a time; None takes all cores. Changes no bit. "hmmlearn" uses one.
    threads: int | None = None
    # Least variance of a feature given the features before it, relative to its variance in the data
    # ("native" only).
    covar_floor: float = COVAR_FLOOR
    priors: Priors | None = None  # hmmlearn's defaults if None ("native" only)
    params: str = "stmc"  # parameters that EM updates, by hmmlearn's letters ("native" only)


@dataclass(frozen=True, eq=False)
class Fit:
    """The best of all starts, with the record of every start."""

    params: GaussianParams  # states in no particular order
    # `log_lik`, `objective`: log-likelihood of all rows in nats, gaps and missing rows bridged,
    # from `startprob`; and the same plus the log prior.
    log_lik: float
    objective: float
    # Objective of the best start after 0, 1, 2, ... iterations, shape (n_iter + 1,).
    history: np.ndarray
    # Why the best start ended. "tolerance": within `tol` of its maximum (without acceleration, with
    # gains in [0, tol), three in a row with the native engine, one with hmmlearn's); "cap": it
    # reached `n_iter` iterations; "fall": the objective fell.
    status: str
    starts: list[Start]  # every start, in drawing order
    # Share of the polished starts whose objective is within 0.01 nat of the best one's.
    restart_agreement: float
    # Least variance of every feature given the features before it, shape (D,); None if the engine
    # has no floor.
    covar_floor: np.ndarray | None = None

    @property
    def converged(self) -> bool:
        """Whether EM stopped within the tolerance."""
        return self.status == "tolerance"

    @property
    def n_iter(self) -> int:
        """Iterations of the best start."""
        return len(self.history) - 1

    @property
    def n_polished(self) -> int:
        """Number of starts that ran to their end."""
        return sum(start.polished for start in self.starts)


def fit(
    X: np.ndarray,
    steps: np.ndarray,
    n_states: int,
    search: Search | None = None,
    *,
    volatility: np.ndarray | None = None,
    initial: GaussianParams | Sequence[GaussianParams] | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit an HMM by EM from many starts and keep the best, released once.

    Parameters
    ----------
    X
        Scaled observations, shape (T, D); a row with any NaN is missing.
    steps
        Chain steps from the previous row, shape (T,); 0 starts a sequence.
    volatility
        Ranks the rows for the quantile starts, shape (T,). None takes the norm of the row.
    initial
        Earlier solutions, used as additional starts; states are split or merged to `n_states`.
    progress
        Called in the calling thread whenever a start ends, with its index, the number of starts
        and the log-likelihood reached.

    Raises
    ------
    FitError
        Too few complete or distinct rows, or every start fails.
    """
    search = search or Search()
    X = np.ascontiguousarray(X, dtype=np.float64)
    observed = ~np.isnan(X).any(axis=1)
    points = starting_points(
        X if observed.all() else X[observed],
        None if volatility is None else np.asarray(volatility)[observed],
        n_states=n_states,
        covariance_type=search.covariance_type,
        n_init=search.n_init if n_states > 1 else 1,  # one state has one optimum
        min_covar=search.min_covar,
        seed=search.seed,
        kinds=search.kinds,
    )
    if search.emission == "student_t":
        points = [heavy_tailed(point) for point in points]
    points += starts_from(initial, n_states)
    fitted = fit_from(points, X, steps, search, progress)
    again = released(fitted.params)
    return combined(fitted, fit_from([again], X, steps, search)) if again else fitted


def heavy_tailed(point: StartingPoint) -> StartingPoint:
    """A Gaussian start as one of Student-t states with the same scale matrices."""
    df = np.full(point.params.n_states, _START_DF)
    return point._replace(params=replace(point.params, df=df))


def fit_larger(
    X: np.ndarray,
    steps: np.ndarray,
    n_states: int,
    search: Search | None = None,
    *,
    smaller: Fit | None,
    volatility: np.ndarray | None = None,
) -> tuple[Fit, str | None]:
    """Fit `n_states` states, with a fit of fewer states to the same data as additional start.

    Returns the fit, and a note if it is less likely than the smaller one even after more starts.
    Parameters and errors are those of `fit`.
    """
    search = search or Search()
    before = None if smaller is None else smaller.params
    fitted = fit(X, steps, n_states, search, volatility=volatility, initial=before)
    if smaller is None or not _falls_short(fitted, smaller):
        return fitted, None
    other = replace(search, seed=search.seed + _OTHER_SEED)
    fitted = combined(fitted, fit(X, steps, n_states, other, volatility=volatility))
    if _falls_short(fitted, smaller):
        splits = starts_from(smaller.params, n_states, apart=_BARELY)
        fitted = combined(fitted, fit_from(splits, X, steps, search))
    return fitted, _note(fitted, smaller) if _falls_short(fitted, smaller) else None


def combined(one: Fit, other: Fit) -> Fit:
    """Combine two fits of the same data with the same number of states."""
    starts = [*one.starts, *other.starts]
    best = _best([one, other], lambda fitted: fitted)
    return replace(best, starts=starts, restart_agreement=_agreement(starts))


def fit_from(
    points: Sequence[StartingPoint],
    X: np.ndarray,
    steps: np.ndarray,
    search: Search | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit from given starting points and keep the best; parameters and errors as in `fit`."""
    search = search or Search()
    X = np.ascontiguousarray(X, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    if search.engine not in ENGINES:
        raise FitError(f"unknown engine {search.engine!r}: one of {', '.join(ENGINES)}")
    if not points:
        raise FitError("no start: n_init is 0 and there is no initial solution")
    native = search.engine == "native"
    if not native and points[0].params.df is not None:
        raise FitError(f"engine {search.engine!r} has no Student-t states: native has")
    run, floor = (_native if native else _hmmlearn)(X, steps, search, points[0].params)
    runs = run_all_starts(
        points,
        run,
        n_iter=search.n_iter,
        n_rows=len(X),
        threads=search.threads if native else 1,  # hmmlearn's warnings are global to the process
        progress=progress,
    )
    return _best_of(runs, floor)


def judge(history: np.ndarray, tol: float) -> str:
    """Status of an EM run: "tolerance" for 0 <= last gain < tol, "fall" below, "cap" above.

    hmmlearn's own flag is true in all three cases.
    """
    if len(history) < 2:
        return "cap"
    gain = history[-1] - history[-2]
    if gain < 0:
        return "fall"
    return "tolerance" if gain < tol else "cap"


def log_likelihood(params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> float:
    """ln p(x_1..T) in nats from `startprob`. Raises FitError if it is not finite."""
    total = float(filter_rows(params, X, steps).log_lik.sum())
    if not np.isfinite(total):
        raise FitError(f"the log-likelihood is {total}")
    return total


def _native(
    X: np.ndarray, steps: np.ndarray, search: Search, like: GaussianParams
) -> tuple[RunStart, np.ndarray]:
    """EM run by the compiled engine over rows laid out once, and its covariance floor."""
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
            accelerate=search.accelerate,
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
    """EM run by hmmlearn, measured as the native engine is."""
    from hmm_exp.hmm.em.hmmlearn import run_start

    def run(point: StartingPoint, n_iter: int) -> EMRun:
        params, ended = run_start(X, steps, point.params, n_iter=n_iter, tol=search.tol)
        log_lik = log_likelihood(params, X, steps)
        objective = log_lik + log_prior(params)
        status = judge(ended.objective, search.tol)
        history = np.append(ended.objective, objective)
        log_liks = np.append(ended.log_lik, log_lik)
        return EMRun(params, Start(point.kind, log_lik, objective, history, log_liks, status))

    return run, None


def _best_of(runs: list[EMRun], floor: np.ndarray | None) -> Fit:
    """The best start as a fit, with the record of all."""
    starts = [one.start for one in runs]
    polished = [one for one in runs if one.start.polished]
    if not polished:
        raise FitError(f"all {len(starts)} starts failed, the first: {starts[0].reason}")
    best = _best(polished, lambda run: run.start)
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


def _best(ended: Sequence[Any], record: Callable[[Any], Fit | Start]) -> Any:
    """Among those that agree with the best objective, prefer a converged one; ties: the first."""
    top = max(record(one).objective for one in ended)
    agreeing = [one for one in ended if record(one).objective >= top - AGREEMENT]
    return max(agreeing, key=lambda one: (record(one).converged, record(one).objective))


def _agreement(starts: list[Start]) -> float:
    """Share of the polished starts whose objective is within `AGREEMENT` of the best."""
    reached = np.array([start.objective for start in starts if start.polished])
    return float(np.mean(reached >= reached.max() - AGREEMENT))


def _falls_short(larger: Fit, smaller: Fit) -> bool:
    return larger.log_lik < smaller.log_lik - AGREEMENT


def _note(larger: Fit, smaller: Fit) -> str:
    return (
        f"{larger.params.n_states} states are {smaller.log_lik - larger.log_lik:.1f} nats less "
        f"likely than {smaller.params.n_states} after {len(larger.starts)} starts: their optimum "
        "was not found"
    )
