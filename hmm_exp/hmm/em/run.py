"""One EM run for a hidden Markov model with Gaussian or Student-t states, compiled.

>>> result = em(X, steps, start, n_iter=500, tol=1e-2)
>>> result.status, result.log_lik, result.params.means
('tolerance', -41234.5, array(...))

Parameters, priors and M step are those of `hmmlearn.hmm.GaussianHMM` (0.3.3): from the same start
both pass through the same log-likelihoods. In addition, missing rows and gaps are missing
observations instead of ends of sequences, covariances have a floor, and `status` tells a converged
run from one that was cut or fell.

A run uses one thread and releases the GIL, so several runs share the cores; their bits do not
depend on the number of threads.

The E step is `e_step.e_step`. Iterations in which that loses a probability below the range of a
float64 use `e_step_log.e_step`. The M step is `update.update`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hmm_exp.compiling import announce, entry, inlined
from hmm_exp.errors import FitError
from hmm_exp.hmm.em import e_step, e_step_log
from hmm_exp.hmm.em.progress import follow
from hmm_exp.hmm.em.rows import PaddedRows, aligned_zeros, lay_out
from hmm_exp.hmm.em.student_t import TailSteps, log_tail, update_tails, withdraw
from hmm_exp.hmm.em.update import KINDS, EMParams, Prior, Stats, copy, log_prior, update, whiten
from hmm_exp.hmm.params import GaussianParams

COVAR_FLOOR = 1e-8  # of the data's variance
PATIENCE = 3  # successive gains below `tol`: a single one is often a plateau

_STATUS = ("tolerance", "cap", "fall")
_TOLERANCE, _CAP, _FALL, _LOST, _IN_LOGS = range(5)
_ROUNDING = 1e-12  # of the objective: a smaller decrease is no fall


@dataclass(frozen=True)
class Priors:
    """hmmlearn's prior parameters, with its names and defaults.

    Attributes
    ----------
    startprob_prior, transmat_prior
        Dirichlet parameters, scalars or shapes (K,) and (K, K).
    means_prior, means_weight
        Mean (broadcast to (K, D)) and scalar precision of the normal prior.
    covars_prior, covars_weight
        Scale and scalar weight of the inverse gamma ("diag", "spherical") or inverse Wishart prior.
    """

    startprob_prior: ArrayLike = 1.0
    transmat_prior: ArrayLike = 1.0
    means_prior: ArrayLike = 0.0
    means_weight: float = 0.0
    covars_prior: ArrayLike = 1e-2
    covars_weight: float = 1.0


@dataclass(frozen=True, eq=False)
class EMResult:
    """Result of an EM run.

    Attributes
    ----------
    params
        The fitted parameters.
    log_lik, objective
        Log-likelihood of `params` in nats, and the same plus the log prior.
    history, objective_history
        Both after 0, 1, 2, ... updates. Entry i of `history` is hmmlearn's `monitor_.history[i]`.
        After a fall they end with the lower value, which does not belong to `params`.
    status
        "tolerance": `PATIENCE` successive gains of the objective below `tol`; "cap": `n_iter`
        updates; "fall": the objective fell, and `params` are those before the fall.
    mass
        Expected number of observed rows in every state, shape (K,).
    floor_hits
        Whether the covariance floor raises a feature of a state of `params`, shape (K, D).
    n_log_domain
        Number of E steps in the log domain.
    """

    params: GaussianParams
    log_lik: float
    objective: float
    history: np.ndarray
    objective_history: np.ndarray
    status: str
    mass: np.ndarray
    floor_hits: np.ndarray
    n_log_domain: int

    @property
    def converged(self) -> bool:
        """Whether EM stopped because its gains fell below the tolerance."""
        return self.status == "tolerance"

    @property
    def n_iter(self) -> int:
        """Number of updates."""
        return len(self.history) - 1


def em(
    X: np.ndarray | PaddedRows,
    steps: np.ndarray | None,
    start: GaussianParams,
    *,
    n_iter: int = 500,
    tol: float = 1e-2,
    covar_floor: float = COVAR_FLOOR,
    priors: Priors | None = None,
    params: str = "stmc",
    log_domain: bool = False,
) -> EMResult:
    """Run EM from `start` to a maximum of the penalised likelihood.

    Parameters
    ----------
    X
        Observations, shape (T, D); a row with any NaN is missing. Or the result of
        `lay_out(X, steps)`, made once for many starts.
    steps
        Chain steps from the row before, shape (T,): 0 starts a sequence from `startprob`, 1 is the
        neighbour, m + 1 means m missing rows in between. None is one sequence without gaps.
        Ignored if X is laid out.
    start
        Initial parameters. Zeros in startprob and transmat stay zero.
    n_iter
        Most updates.
    tol
        Gain of the penalised objective, in nats, below which an update counts as no gain.
    covar_floor
        Least variance of a feature given the features before it, relative to its variance in the
        data. (hmmlearn's `min_covar` is no floor: it affects the starting covariances only.)
    priors
        hmmlearn's defaults if None.
    params
        Parameters to update, by hmmlearn's letters: (s)tartprob, (t)ransmat, (m)eans, (c)ovars,
        which include `df`.
    log_domain
        Run every E step in the log domain: slow, for tests.

    Raises
    ------
    FitError
        Unusable observations, a start of another shape, or one with zero likelihood.
    """
    rows = X if isinstance(X, PaddedRows) else lay_out(X, _steps(X, steps))
    if start.n_features != rows.centre.size:
        raise FitError(f"start has {start.n_features} features, X has {rows.centre.size}")
    if n_iter < 0 or not covar_floor > 0:
        raise FitError(f"n_iter={n_iter} must be >= 0, covar_floor={covar_floor} positive")
    full = start.covariance_type in ("full", "tied")
    model = _model(start, rows.centre)
    best = _model(start, rows.centre)
    prior = _prior(priors or Priors(), start, rows.centre, params)
    floor = absolute_floor(rows, start.covariance_type, covar_floor)
    buffers = _buffers(rows, start.n_states, n_iter, full)
    follow(buffers.progress, buffers.history)
    status = _run(rows, model, best, prior, floor, tol, buffers, log_domain, False)
    while status == _IN_LOGS:
        i = buffers.progress[0]
        buffers.history[i] = e_step_log.e_step(rows, model, buffers.forward, buffers.stats)
        status = _run(rows, model, best, prior, floor, tol, buffers, log_domain, True)
    n_updates, _, n_log = (int(count) for count in buffers.progress)
    if status == _LOST:
        raise FitError(f"the log-likelihood of the start is {buffers.history[0]}")
    last = n_updates - 1 if status == _FALL else n_updates
    return EMResult(
        params=_params(best, rows.centre, start.covariance_type),
        log_lik=float(buffers.history[last]),
        objective=float(buffers.objective[last]),
        history=buffers.history[: n_updates + 1].copy(),
        objective_history=buffers.objective[: n_updates + 1].copy(),
        status=_STATUS[status],
        mass=buffers.best_mass,
        floor_hits=buffers.best_hits,
        n_log_domain=n_log,
    )


def announce_compilation() -> None:
    """Log one line to `hmm_exp.hmm` if the next fit has to compile."""
    announce(_run)


def absolute_floor(
    rows: PaddedRows, covariance_type: str, relative: float = COVAR_FLOOR
) -> np.ndarray:
    """Least variance of every feature given the features before it, shape (D,)."""
    floor = relative * np.where(rows.spread > 0, rows.spread, 1.0)
    if covariance_type == "spherical":
        floor[:] = floor.mean()  # one variance, one floor
    return floor


class _EMBuffers(NamedTuple):
    """Memory of an EM run, allocated once."""

    forward: np.ndarray  # ((n + 1) * K, LANES)
    scratch: e_step.Scratch
    stats: Stats
    hits: np.ndarray  # (K, D), of the current model
    best_hits: np.ndarray  # (K, D)
    best_mass: np.ndarray  # (K,)
    tail_steps: TailSteps
    history: np.ndarray  # (n_iter + 1,)
    objective: np.ndarray  # (n_iter + 1,)
    progress: np.ndarray  # updates, successive gains below `tol`, E steps in logs


@entry
def _run(rows, model, best, prior, floor, tol, buffers, log_domain, resumed):
    """Iterate until `best` is final; return a status, or `_IN_LOGS` to ask for that E step."""
    i = buffers.progress[0]
    if not resumed:
        whiten(model, floor, buffers.hits)
    while True:
        if not resumed:
            exact = False
            if not log_domain:
                buffers.history[i], exact = e_step.e_step(
                    rows, model, buffers.forward, buffers.scratch, buffers.stats
                )
            if not exact:
                buffers.progress[2] += 1
                return _IN_LOGS
        resumed = False
        objective = buffers.history[i] + log_prior(model, prior)
        buffers.objective[i] = objective
        if not np.isfinite(objective):
            return _FALL if i > 0 else _LOST
        if i > 0:
            gain = objective - buffers.objective[i - 1]
            if gain < -_ROUNDING * abs(objective):
                if withdraw(model, buffers.tail_steps):
                    continue
                return _FALL
            buffers.progress[1] = buffers.progress[1] + 1 if gain < tol else 0
        _keep(model, best, buffers)
        if buffers.progress[1] >= PATIENCE:
            return _TOLERANCE
        if i == buffers.history.size - 1:
            return _CAP
        update(model, buffers.stats, prior)
        whiten(model, floor, buffers.hits)
        update_tails(model, buffers.stats, prior, buffers.hits, buffers.tail_steps)
        i += 1
        buffers.progress[0] = i


@inlined
def _keep(model, best, buffers):
    """Store the current model as the best."""
    copy(model.startprob, best.startprob)
    copy(model.transmat.ravel(), best.transmat.ravel())
    copy(model.means.ravel(), best.means.ravel())
    copy(model.covars.ravel(), best.covars.ravel())
    copy(model.df, best.df)
    copy(buffers.hits.ravel(), buffers.best_hits.ravel())
    copy(buffers.stats.mass, buffers.best_mass)


def _steps(X: np.ndarray, steps: np.ndarray | None) -> np.ndarray:
    if steps is not None:
        return steps
    one_sequence = np.ones(len(X), dtype=np.int64)
    one_sequence[:1] = 0
    return one_sequence


def _model(params: GaussianParams, centre: np.ndarray) -> EMParams:
    """A copy of the parameters in the kernels' shapes."""
    K, D = params.means.shape
    df = np.zeros(0) if params.df is None else params.df.copy()
    return EMParams(
        startprob=params.startprob.copy(),
        transmat=params.transmat.copy(),
        means=params.means - centre,
        covars=np.ascontiguousarray(params.full_covars()),
        whiten=np.zeros((K, D, D)),
        shift=np.zeros((K, D)),
        log_norm=np.zeros(K),
        kind=np.array([KINDS.index(params.covariance_type)]),
        df=df,
        log_tail=np.array([log_tail.py_func(value, D) for value in df]),
        heavy_tailed=None if params.df is None else True,
    )


def _prior(priors: Priors, start: GaussianParams, centre: np.ndarray, updated: str) -> Prior:
    """Broadcast the prior parameters as hmmlearn does."""
    K, D = start.means.shape
    scatter = np.zeros((K, D, D))
    if start.covariance_type in ("full", "tied"):
        scatter[:] = priors.covars_prior
    else:
        scatter[:, np.arange(D), np.arange(D)] = priors.covars_prior
    return Prior(
        startprob=np.broadcast_to(_floats(priors.startprob_prior), K).copy(),
        transmat=np.broadcast_to(_floats(priors.transmat_prior), (K, K)).copy(),
        means=np.broadcast_to(_floats(priors.means_prior), (K, D)) - centre,
        scatter=scatter,
        weights=np.array([priors.means_weight, priors.covars_weight], dtype=np.float64),
        updated=np.array([letter in updated for letter in "stmc"]),
    )


def _floats(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _buffers(rows: PaddedRows, K: int, n_iter: int, full: bool) -> _EMBuffers:
    D = rows.centre.size
    n = rows.code.shape[0] - 1
    stats = Stats(
        start=np.zeros(K),
        pairs=np.zeros((K, K)),
        mass=np.zeros(K),
        weight=np.zeros(K),
        first=np.zeros((K, D)),
        second=np.zeros((K, D, D)),
        log_tail=np.zeros(K),
    )
    return _EMBuffers(
        forward=aligned_zeros((n + 1) * K),
        scratch=e_step.make_scratch(K, D, full),
        stats=stats,
        hits=np.zeros((K, D), dtype=np.bool_),
        best_hits=np.zeros((K, D), dtype=np.bool_),
        best_mass=np.zeros(K),
        tail_steps=TailSteps(np.zeros(K), np.ones(1)),
        history=np.zeros(n_iter + 1),
        objective=np.zeros(n_iter + 1),
        progress=np.zeros(3, dtype=np.int64),
    )


def _params(model: EMParams, centre: np.ndarray, covariance_type: str) -> GaussianParams:
    """The parameters in the shapes of their covariance type."""
    diagonal = np.diagonal(model.covars, axis1=1, axis2=2)
    covars = {
        "full": model.covars,
        "tied": model.covars[0],
        "diag": diagonal,
        "spherical": diagonal[:, 0],
    }[covariance_type]
    return GaussianParams(
        startprob=model.startprob,
        transmat=model.transmat,
        means=model.means + centre,
        covars=covars.copy(),
        covariance_type=covariance_type,
        df=model.df if model.df.size else None,
    )
