"""Maximum-likelihood fits from many starts, judged honestly.

>>> fitted = fit(X, steps, n_states=3, covariance_type="diag", n_init=10, seed=42)
>>> fitted.status, fitted.restart_agreement
('tolerance', 0.8)

EM (Baum et al. 1970; Rabiner 1989, section III.C) climbs the log-likelihood plus `log_prior`. That
sum is what the history holds, what convergence is judged on, and what the best start is chosen by;
`log_lik` is without the prior.
"""

from dataclasses import dataclass

import numpy as np

from hmm_exp.errors import FitError
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.params import GaussianParams, log_prior
from hmm_exp.hmm.recursions import filter
from hmm_exp.hmm.starts import StartingPoint, starting_points

AGREEMENT = 0.1  # nats


@dataclass(frozen=True, eq=False)
class Start:
    """What became of one start.

    Attributes
    ----------
    kind
        "quantile", "random" or "warm".
    log_lik
        Log-likelihood in nats where EM ended; -inf for a start that failed.
    objective
        The same plus the prior: what EM climbs.
    history
        Objective before every M step, shape (n_iter,); empty for a start that failed.
    status
        "tolerance", "cap", "fall" (see `judge`), or "failed".
    reason
        Why it failed, else empty.
    """

    kind: str
    log_lik: float
    objective: float
    history: np.ndarray
    status: str
    reason: str = ""

    @property
    def converged(self) -> bool:
        """Whether the last gain was in [0, tol)."""
        return self.status == "tolerance"


@dataclass(frozen=True, eq=False)
class Fit:
    """The best of all starts, and what the others say about it.

    Attributes
    ----------
    params
        States in no particular order.
    log_lik
        Log-likelihood of all rows in nats, gaps and missing rows bridged, from `startprob`.
    history
        Objective before every M step of the best start, shape (n_iter,).
    status
        How the best start ended: "tolerance", "cap" or "fall".
    starts
        Every start, in the order they were drawn.
    restart_agreement
        Share of the polished starts whose objective is within 0.1 nat of the best one's.
    """

    params: GaussianParams
    log_lik: float
    history: np.ndarray
    status: str
    starts: list[Start]
    restart_agreement: float

    @property
    def converged(self) -> bool:
        """Whether the last gain of the best start was in [0, tol)."""
        return self.status == "tolerance"

    @property
    def n_iter(self) -> int:
        """Iterations of the best start."""
        return len(self.history)

    @property
    def n_polished(self) -> int:
        """Starts that EM carried to an end."""
        return sum(start.status != "failed" for start in self.starts)


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
    initial: GaussianParams | None = None,
) -> Fit:
    """Fit a Gaussian HMM by EM from `n_init` starts and keep the best.

    Parameters
    ----------
    X
        Scaled observations, shape (T, D); a row with any NaN is missing.
    steps
        Chain steps from the previous row, shape (T,); 0 starts a sequence.
    tol
        Smallest gain, in nats of the whole objective, that is worth another iteration.
    min_covar
        Added to the variances of the starting points.
    volatility
        Ranks the rows for the quantile starts, shape (T,). None takes the norm of the row.
    initial
        One more start, the first, of kind "warm"; with it `n_init` may be 0.

    Raises
    ------
    FitError
        When there are too few complete rows, or every start fails.
    """
    X = np.ascontiguousarray(X, dtype=np.float64)
    steps = np.ascontiguousarray(steps, dtype=np.int64)
    observed = ~np.isnan(X).any(axis=1)
    points = starting_points(
        X[observed],
        None if volatility is None else np.asarray(volatility)[observed],
        n_states=n_states,
        covariance_type=covariance_type,
        n_init=n_init if n_states > 1 else 1,  # one state has one optimum
        min_covar=min_covar,
        seed=seed,
    )
    if initial is not None:
        points = [StartingPoint("warm", initial), *points]
    polished = [_polish(X, steps, point, n_iter, tol) for point in points]
    return _best_of(polished)


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


def _polish(
    X: np.ndarray, steps: np.ndarray, point: StartingPoint, n_iter: int, tol: float
) -> tuple[GaussianParams | None, Start]:
    """Run EM from one start; a start that fails is kept with its reason."""
    from hmm_exp.hmm.em_hmmlearn import run_start

    try:
        params, history = run_start(X, steps, point.params, n_iter=n_iter, tol=tol)
        log_lik = log_likelihood(params, X, steps)
    except FitError as error:
        failed = Start(point.kind, -np.inf, -np.inf, np.empty(0), "failed", str(error))
        return None, failed
    objective = log_lik + log_prior(params)
    return params, Start(point.kind, log_lik, objective, history, judge(history, tol))


def log_likelihood(params: GaussianParams, X: np.ndarray, steps: np.ndarray) -> float:
    """ln p(x_1..T) in nats from `startprob`. Raises FitError when it is not finite."""
    log_lik = log_density(params, X)
    total = float(filter(params.startprob, params.transmat, log_lik, steps).log_lik.sum())
    if not np.isfinite(total):
        raise FitError(f"the log-likelihood is {total}")
    return total


def _best_of(polished: list[tuple[GaussianParams | None, Start]]) -> Fit:
    """The converged one of the starts that agree with the best objective, if there is one."""
    starts = [start for _, start in polished]
    top = max(start.objective for start in starts)
    if top == -np.inf:
        raise FitError(f"all {len(starts)} starts failed, the first: {starts[0].reason}")
    agreeing = [pair for pair in polished if pair[1].objective >= top - AGREEMENT]
    params, best = max(agreeing, key=lambda pair: (pair[1].converged, pair[1].objective))
    assert params is not None
    return Fit(
        params=params,
        log_lik=best.log_lik,
        history=best.history,
        status=best.status,
        starts=starts,
        restart_agreement=len(agreeing) / sum(start.status != "failed" for start in starts),
    )
