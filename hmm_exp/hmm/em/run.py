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

With `accelerate` quasi-Newton steps between the iterations (`leap`) end far closer to the optimum
in fewer E steps; `history` then is no longer hmmlearn's.

The E step is `e_step.e_step`. Iterations in which that loses a probability below the range of a
float64 use `e_step_log.e_step`. The M step is `update.update`.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hmm_exp.compiling import announce, call, entry, kernel
from hmm_exp.errors import FitError
from hmm_exp.hmm.em import e_step, e_step_log
from hmm_exp.hmm.em.leap import Leaps, make_leaps, shorten
from hmm_exp.hmm.em.parts import parts_for, plan_for
from hmm_exp.hmm.em.progress import follow
from hmm_exp.hmm.em.rows import PaddedRows, lay_out
from hmm_exp.hmm.em.scratch import Scratch, make_forward, make_scratch
from hmm_exp.hmm.em.student_t import TailSteps, log_tail, update_tails, withdraw
from hmm_exp.hmm.em.update import KINDS, EMParams, Prior, Stats
from hmm_exp.hmm.loops import copy
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.simd import aligned_zeros

COVAR_FLOOR = 1e-8  # of the data's variance
PATIENCE = 3  # successive gains below `tol`: a single one is often a plateau

_SURE = 2  # successive estimates that little is left
_CERTAIN = 1e-3  # of `tol`, because estimates are often too small at first

_STATUS = ("tolerance", "cap", "fall")
_TOLERANCE, _CAP, _FALL, _LOST, _IN_LOGS = range(5)
# Counts of a run: updates; E steps; those in logs; successive small gains or estimates; whether the
# current model is that of a leap.
_UPDATES, _E_STEPS, _LOG_STEPS, _SMALL, _LEAPT = range(5)
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
        "tolerance": the objective is within `tol` of its maximum by the estimate of `leap` or,
        without acceleration, after `PATIENCE` successive gains below `tol`; "cap": `n_iter`
        updates; "fall": the objective fell, and `params` are those before the fall.
    mass
        Expected number of observed rows in every state, shape (K,).
    floor_hits
        Whether the covariance floor raises a feature of a state of `params`, shape (K, D).
    n_e_steps, n_log_domain
        Number of E steps, those of withdrawn leaps included, and of those in the log domain.
    """

    params: GaussianParams
    log_lik: float
    objective: float
    history: np.ndarray
    objective_history: np.ndarray
    status: str
    mass: np.ndarray
    floor_hits: np.ndarray
    n_e_steps: int
    n_log_domain: int

    @property
    def converged(self) -> bool:
        """Whether EM stopped within the tolerance."""
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
    accelerate: bool = False,
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
        Nats. With acceleration the run ends when the objective is at most this far below its
        maximum, by estimate; without, an update that gains less counts as no gain.
    covar_floor
        Least variance of a feature given the features before it, relative to its variance in the
        data. (hmmlearn's `min_covar` is no floor: it affects the starting covariances only.)
    priors
        hmmlearn's defaults if None.
    params
        Parameters to update, by hmmlearn's letters: (s)tartprob, (t)ransmat, (m)eans, (c)ovars,
        which include `df`.
    accelerate
        Leap ahead after every iteration (see `leap`), and withdraw leaps that lower the objective.
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
    model = _model(start, rows.centre)
    best = _model(start, rows.centre)
    prior = _prior(priors or Priors(), start, rows.centre, params)
    floor = absolute_floor(rows, start.covariance_type, covar_floor)
    buffers = _buffers(len(rows.missing) - 1, start, model, n_iter)
    follow(buffers.counts, buffers.history)
    parts = parts_for(rows, model, prior, floor, accelerate, buffers)
    run = partial(_run, parts, rows, model, best, prior, floor, tol, accelerate, buffers)
    status = run(log_domain, False)
    while status == _IN_LOGS:
        i = buffers.counts[_UPDATES]
        forward = _whole(buffers.forward, rows, model)
        buffers.history[i] = e_step_log.e_step(rows, model, forward, buffers.stats)
        status = run(log_domain, True)
    n_updates = int(buffers.counts[_UPDATES])
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
        n_e_steps=int(buffers.counts[_E_STEPS]),
        n_log_domain=int(buffers.counts[_LOG_STEPS]),
    )


def announce_compilation() -> bool:
    """Log one line to `hmm_exp.hmm` if the next fit has to compile; gives whether it did."""
    return announce(_run)


def compile_plan(start: GaussianParams) -> None:
    """Compile the part of a fit that plans leaps, for models of this kind."""
    centre = np.zeros(start.n_features)
    model, prior = _model(start, centre), _prior(Priors(), start, centre, "stmc")
    plan_for(model, prior, _buffers(1, start, model, n_iter=1))


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

    forward: np.ndarray  # see `make_forward`
    scratch: Scratch
    stats: Stats
    hits: np.ndarray  # (K, D), of the current model
    best_hits: np.ndarray  # (K, D)
    best_mass: np.ndarray  # (K,)
    tail_steps: TailSteps
    history: np.ndarray  # (n_iter + 1,)
    objective: np.ndarray  # (n_iter + 1,)
    plain: np.ndarray  # memory of the model that an EM iteration made, before a leap
    plain_hits: np.ndarray  # (K, D)
    leaps: Leaps
    counts: np.ndarray  # see `_UPDATES`


@entry(_nrt=False)
def _run(parts, rows, model, best, prior, floor, tol, accelerate, buffers, log_domain, resumed):
    """Iterate until `best` is final; return a status, or `_IN_LOGS` to ask for that E step."""
    counts = buffers.counts
    i = counts[_UPDATES]
    stats = buffers.stats
    if not resumed:
        call(parts.whiten, (model, floor, buffers.hits))
    while True:
        if not resumed:
            exact = False
            if not log_domain:
                forward, scratch = buffers.forward, buffers.scratch
                sweep = rows, model, forward, scratch
                buffers.history[i] = call(parts.filter, (-1, *sweep))
                raised = call(parts.smooth, (parts.filter, *sweep, stats))
                exact = raised <= e_step.MOST_RAISED
            if not exact:
                counts[_LOG_STEPS] += 1
                return _IN_LOGS
        resumed = False
        counts[_E_STEPS] += 1
        objective = buffers.history[i] + call(parts.log_prior, (model, prior))
        buffers.objective[i] = objective
        gain = objective - buffers.objective[i - 1] if i > 0 else np.inf
        if i > 0 and not gain >= -_ROUNDING * abs(objective):
            if counts[_LEAPT]:
                counts[_LEAPT] = 0
                shorten(buffers.leaps)
                _copy_model(buffers.plain, buffers.plain_hits, model.flat, buffers.hits)
            elif not (np.isfinite(objective) and withdraw(model, buffers.tail_steps)):
                return _FALL
            continue
        if not np.isfinite(objective):
            return _LOST
        _copy_model(model.flat, buffers.hits, best.flat, buffers.best_hits)
        copy(stats.mass, buffers.best_mass)
        if not accelerate:
            counts[_SMALL] = counts[_SMALL] + 1 if gain < tol else 0
            if counts[_SMALL] >= PATIENCE:
                return _TOLERANCE
        if i == buffers.history.size - 1:
            return _CAP
        call(parts.update, (model, stats, prior))
        call(parts.whiten, (model, floor, buffers.hits))
        update_tails(model, stats, prior, buffers.hits, buffers.tail_steps)
        if accelerate:
            left = call(parts.plan, (best, model, stats, prior, buffers.leaps))
            counts[_SMALL] = counts[_SMALL] + 1 if left < _CERTAIN * tol else 0
            if counts[_SMALL] >= _SURE:
                return _TOLERANCE
            _copy_model(model.flat, buffers.hits, buffers.plain, buffers.plain_hits)
            call(parts.take, (model, prior, buffers.leaps))
            call(parts.whiten, (model, floor, buffers.hits))
            counts[_LEAPT] = 1
        i += 1
        counts[_UPDATES] = i


@kernel
def _copy_model(source, source_hits, target, target_hits):
    """Copy the memory of a model and its features at the floor."""
    copy(source, target)
    for k in range(source_hits.shape[0]):
        copy(source_hits[k], target_hits[k])


def _steps(X: np.ndarray, steps: np.ndarray | None) -> np.ndarray:
    if steps is not None:
        return steps
    one_sequence = np.ones(len(X), dtype=np.int64)
    one_sequence[:1] = 0
    return one_sequence


def _model(params: GaussianParams, centre: np.ndarray) -> EMParams:
    """A copy of the parameters in the kernels' shapes."""
    K, D = params.means.shape
    df = np.zeros(0) if params.df is None else params.df
    parts = {
        "startprob": params.startprob,
        "transmat": params.transmat,
        "means": params.means - centre,
        "covars": params.full_covars(),
        "whiten": np.zeros((K, D, D)),
        "shift": np.zeros((K, D)),
        "log_norm": np.zeros(K),
        "df": df,
        "log_tail": np.array([log_tail.py_func(value, D) for value in df]),
    }
    return EMParams(
        **_in_one_piece(parts),
        kind=np.array([KINDS.index(params.covariance_type)]),
        heavy_tailed=None if params.df is None else True,
    )


def _in_one_piece(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of arrays of floats that lie one after the other in `flat`."""
    flat = np.concatenate([part.ravel() for part in parts.values()])
    views, begin = {"flat": flat}, 0
    for name, part in parts.items():
        views[name] = flat[begin : begin + part.size].reshape(part.shape)
        begin += part.size
    return views


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


def _buffers(n: int, start: GaussianParams, model: EMParams, n_iter: int) -> _EMBuffers:
    """Allocate memory for n steps."""
    K, D = start.means.shape
    full = start.covariance_type in ("full", "tied")
    sums = {
        "start": np.zeros(K),
        "pairs": np.zeros((K, K)),
        "mass": np.zeros(K),
        "weight": np.zeros(K),
        "first": np.zeros((K, D)),
        "second": np.zeros((K, D, D)),
        "log_tail": np.zeros(K),
    }
    return _EMBuffers(
        forward=make_forward(n, K),
        scratch=make_scratch(n, K, D, full),
        stats=Stats(**_in_one_piece(sums)),
        hits=np.zeros((K, D), dtype=np.bool_),
        best_hits=np.zeros((K, D), dtype=np.bool_),
        best_mass=np.zeros(K),
        tail_steps=TailSteps(np.zeros(K), np.ones(1)),
        history=np.zeros(n_iter + 1),
        objective=np.zeros(n_iter + 1),
        plain=np.zeros_like(model.flat),
        plain_hits=np.zeros((K, D), dtype=np.bool_),
        leaps=make_leaps(K, D, start.df is not None),
        counts=np.zeros(5, dtype=np.int64),
    )


def _whole(forward: np.ndarray, rows: PaddedRows, model: EMParams) -> np.ndarray:
    """Memory for the filtered probabilities of all rows."""
    n_vectors = (len(rows.missing) - 1) * model.startprob.size
    return forward if len(forward) >= n_vectors else aligned_zeros(n_vectors)


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
