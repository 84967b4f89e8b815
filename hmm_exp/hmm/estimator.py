"""`GaussianHMM` and `StudentTHMM`: the fitting engine with hmmlearn's interface, for use outside of
the harness.

>>> model = GaussianHMM(3, covariance_type="full", n_init=10, random_state=0).fit(X, lengths)
>>> model.filter(X)         # p(z_t | x_1..t), known at the time
>>> model.smooth(X)         # p(z_t | x_1..T), uses all rows
>>> model.decode(X)         # the most probable path, uses all rows
>>> model.to_hmmlearn()     # a plain hmmlearn.hmm.GaussianHMM

Constructor and fitted attributes are those of `hmmlearn.hmm.GaussianHMM`, so it can replace that
class in a script. The differences are intended: it makes `n_init` starts, runs until convergence
(`n_iter` and `tol` have other defaults), treats rows with NaN as missing, and has no `predict` or
`predict_proba`, whose names hide that they look ahead.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hmm_exp.errors import FitError
from hmm_exp.hmm import inference
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.em.run import Priors
from hmm_exp.hmm.fit import Fit, Search, fit_from, heavy_tailed
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.starts import StartingPoint, starting_points

_PARTS = {"s": "startprob", "t": "transmat", "m": "means", "c": "covars"}
_ALGORITHMS = ("viterbi", "map")


@dataclass(frozen=True)
class ConvergenceReport:
    """Convergence of the best start, with the names of hmmlearn's `ConvergenceMonitor`.

    Attributes
    ----------
    history
        Log-likelihood after 0, 1, 2, ... iterations, in nats.
    iter
        Number of iterations.
    converged
        Whether the gains fell below the tolerance; hmmlearn's is also true at the cap and after a
        fall.
    status
        "tolerance", "cap" or "fall".
    tol, n_iter
        The limits.
    """

    history: list[float]
    iter: int
    converged: bool
    status: str
    tol: float
    n_iter: int


class GaussianHMM(BaseEstimator):
    """Hidden Markov model with Gaussian states, fitted from many starts.

    Parameters
    ----------
    n_components
        Number of states.
    covariance_type
        "diag", "full", "tied" or "spherical".
    min_covar
        Added to the variances of the starting points, in units of the feature's variance.
    startprob_prior, transmat_prior, means_prior, means_weight, covars_prior, covars_weight
        As in hmmlearn: Dirichlet, normal and inverse gamma or Wishart priors.
    algorithm
        Algorithm of `decode`: "viterbi", or "map" for the most probable state of every row.
    random_state
        Seed of the starts.
    n_iter
        Most iterations of a start.
    tol
        A start ends when the objective is at most this far below its maximum, by estimate, in
        nats. Without `accelerate` it ends after three smaller gains in a row.
    verbose
        Print a line per start.
    params
        Letters of the parameters that EM updates: (s)tartprob, (t)ransmat, (m)eans, (c)ovars.
    init_params
        Letters of those that `fit` draws. Set the others beforehand as `startprob_` and so on.
    implementation
        Accepted for compatibility, without effect: the engine uses scaled probabilities, and logs
        where they would underflow.
    n_init
        Number of starts, half by quantiles of volatility and half at random; one if `fit` draws
        nothing.
    n_jobs
        Threads; None takes all cores. Changes no bit.
    accelerate
        Leap between the iterations of EM: fewer of them, and a closer optimum. False climbs
        through hmmlearn's own log-likelihoods.

    Attributes
    ----------
    startprob_, transmat_, means_, covars_
        As in hmmlearn; `covars_` has shape (K, D, D) for every covariance type.
    n_features
        Number of features.
    monitor_
        `ConvergenceReport` of the best start.
    fit_
        `hmm_exp.hmm.fit.Fit`, with the record of every start.
    """

    def __init__(
        self,
        n_components: int = 1,
        covariance_type: str = "diag",
        min_covar: float = 1e-3,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        means_prior: Any = 0,
        means_weight: float = 0,
        covars_prior: Any = 1e-2,
        covars_weight: float = 1,
        algorithm: str = "viterbi",
        random_state: Any = None,
        n_iter: int = 500,
        tol: float = 1e-3,
        verbose: bool = False,
        params: str = "stmc",
        init_params: str = "stmc",
        implementation: str = "log",
        n_init: int = 10,
        n_jobs: int | None = None,
        accelerate: bool = True,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation
        self.n_init = n_init
        self.n_jobs = n_jobs
        self.accelerate = accelerate

    @property
    def covars_(self) -> np.ndarray:
        """Covariance matrix of every state, shape (K, D, D)."""
        return self._model().full_covars()

    @covars_.setter
    def covars_(self, covars: np.ndarray) -> None:
        self._covars_ = np.array(covars, dtype=np.float64)

    def fit(self, X: np.ndarray, lengths: Sequence[int] | None = None) -> "GaussianHMM":
        """Fit the parameters by maximum penalised likelihood.

        Parameters
        ----------
        X
            Observations, shape (T, D); a row with NaN is missing.
        lengths
            Rows of every sequence, one after another; None is one sequence.

        Raises
        ------
        FitError
            Too few rows for the model, or a parameter that is neither drawn nor set.
        """
        X, steps = _rows(X, lengths)
        fitted = fit_from(self._points(X), X, steps, self._search(), self._progress())
        self.fit_ = fitted
        self._take(fitted.params)
        self.monitor_ = _monitor(fitted, self.tol, self.n_iter)
        return self

    def score(self, X: np.ndarray, lengths: Sequence[int] | None = None) -> float:
        """Log-likelihood of the rows in nats, every sequence from `startprob_`."""
        return float(self._filtered(X, lengths).log_lik.sum())

    def bic(self, X: np.ndarray, lengths: Sequence[int] | None = None) -> float:
        r"""$-2L + p \ln n$ with n observed rows; lower is better (Schwarz 1978)."""
        n_rows = int((~np.isnan(np.asarray(X, dtype=np.float64)).any(axis=1)).sum())
        return -2 * self.score(X, lengths) + self._model().n_parameters() * float(np.log(n_rows))

    def aic(self, X: np.ndarray, lengths: Sequence[int] | None = None) -> float:
        """$-2L + 2p$; lower is better (Akaike 1974)."""
        return -2 * self.score(X, lengths) + 2 * self._model().n_parameters()

    def filter(self, X: np.ndarray, lengths: Sequence[int] | None = None) -> np.ndarray:
        r"""$p(z_t \mid x_1, \dots, x_t)$, shape (T, K); a row does not depend on later rows."""
        return self._filtered(X, lengths).probs

    def smooth(self, X: np.ndarray, lengths: Sequence[int] | None = None) -> np.ndarray:
        r"""$p(z_t \mid x_1, \dots, x_T)$, shape (T, K), given all rows."""
        return inference.smooth(*self._chain(X, lengths)).probs

    def decode(
        self, X: np.ndarray, lengths: Sequence[int] | None = None, algorithm: str | None = None
    ) -> tuple[float, np.ndarray]:
        r"""Score and states given all rows, as in hmmlearn.

        "viterbi": $\ln p(z, x)$ and the most probable path z, shape (T,). "map": sum of the largest
        smoothed probabilities, and the states they belong to.
        """
        algorithm = algorithm or self.algorithm
        if algorithm not in _ALGORITHMS:
            raise FitError(f"unknown algorithm {algorithm!r}: one of {', '.join(_ALGORITHMS)}")
        if algorithm == "map":
            probs = self.smooth(X, lengths)
            return float(probs.max(axis=1).sum()), probs.argmax(axis=1)
        decoded = inference.viterbi(*self._chain(X, lengths))
        return decoded.log_prob, decoded.states

    def to_hmmlearn(self) -> Any:
        """A plain `hmmlearn.hmm.GaussianHMM` with the fitted parameters."""
        return self._model().to_hmmlearn()

    @classmethod
    def from_hmmlearn(cls, model: Any) -> "GaussianHMM":
        """The same model and settings as a fitted `hmmlearn.hmm.GaussianHMM`."""
        shared = {
            name: value for name, value in model.get_params().items() if name in cls().get_params()
        }
        return cls(**shared)._take(GaussianParams.from_hmmlearn(model))

    def _take(self, params: GaussianParams) -> "GaussianHMM":
        self.n_features = params.n_features
        self.startprob_, self.transmat_ = params.startprob, params.transmat
        self.means_, self._covars_ = params.means, params.covars
        return self

    def _model(self) -> GaussianParams:
        """The current parameters."""
        check_is_fitted(self, ["startprob_", "transmat_", "means_", "_covars_"])
        params = GaussianParams(
            self.startprob_, self.transmat_, self.means_, self._covars_, self.covariance_type
        )
        if params.n_states != self.n_components:
            raise FitError(f"n_components={self.n_components}, parameters of {params.n_states}")
        return params

    def _chain(self, X: np.ndarray, lengths: Sequence[int] | None) -> tuple[np.ndarray, ...]:
        """Arguments of the recursions."""
        X, steps = _rows(X, lengths)
        model = self._model()
        return model.startprob, model.transmat, log_density(model, X), steps

    def _filtered(self, X: np.ndarray, lengths: Sequence[int] | None) -> inference.Filtered:
        return inference.filter_rows(self._model(), *_rows(X, lengths))

    def _points(self, X: np.ndarray) -> list[StartingPoint]:
        """Drawn starts, with the parameters set beforehand."""
        if not set(self.init_params) & set(_PARTS):
            return [StartingPoint("given", self._model())]
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        points = starting_points(
            X[~np.isnan(X).any(axis=1)],
            None,
            n_states=self.n_components,
            covariance_type=self.covariance_type,
            n_init=self.n_init,
            min_covar=self.min_covar,
            seed=int(seed),
        )
        preset = self._preset()
        return [point._replace(params=replace(point.params, **preset)) for point in points]

    def _preset(self) -> dict[str, Any]:
        """Parameters set beforehand, by name."""
        preset: dict[str, Any] = {}
        for letter, name in _PARTS.items():
            if letter in self.init_params:
                continue
            place = "_covars_" if name == "covars" else f"{name}_"
            if not hasattr(self, place):
                raise FitError(f"init_params={self.init_params!r} but {name}_ is not set")
            preset[name] = getattr(self, place)
        return preset

    def _search(self) -> Search:
        priors = Priors(
            startprob_prior=self.startprob_prior,
            transmat_prior=self.transmat_prior,
            means_prior=self.means_prior,
            means_weight=self.means_weight,
            covars_prior=self.covars_prior,
            covars_weight=self.covars_weight,
        )
        return Search(
            n_iter=self.n_iter,
            tol=self.tol,
            threads=self.n_jobs,
            priors=priors,
            params=self.params,
            accelerate=self.accelerate,
        )

    def _progress(self) -> Any:
        if not self.verbose:
            return None
        return lambda i, n, log_lik: print(
            f"start {i + 1} of {n}: log-likelihood {log_lik:.4f}", file=sys.stderr
        )


class StudentTHMM(GaussianHMM):
    r"""Hidden Markov model with Student-t states, fitted from many starts.

    Parameters are those of `GaussianHMM`; `covariance_type` is "diag" or "full", and the letter (c)
    of `params` includes `df_`. hmmlearn has no such model.

    Attributes
    ----------
    covars_
        Scale matrices, shape (K, D, D): the covariance is $\nu / (\nu - 2)$ times as large.
    df_
        Degrees of freedom $\nu$, shape (K,), from 2.05 to 200, where a state is nearly Gaussian.
    """

    def _take(self, params: GaussianParams) -> "StudentTHMM":
        if params.df is None:
            raise FitError("a model of Gaussian states has no df")
        self.df_ = params.df
        super()._take(params)
        return self

    def _model(self) -> GaussianParams:
        check_is_fitted(self, ["df_"])
        return replace(super()._model(), df=self.df_)

    def _points(self, X: np.ndarray) -> list[StartingPoint]:
        points = super()._points(X)
        return [point if point.kind == "given" else heavy_tailed(point) for point in points]


def plain_estimator(params: GaussianParams) -> Any:
    """An estimator with these parameters: hmmlearn's `GaussianHMM`, or `StudentTHMM`."""
    if params.df is None:
        return params.to_hmmlearn()
    return StudentTHMM(params.n_states, covariance_type=params.covariance_type)._take(params)


def _rows(X: Any, lengths: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Observations, and chain steps of sequences with the given lengths."""
    X = np.ascontiguousarray(X, dtype=np.float64)
    if X.ndim != 2:
        raise FitError(f"observations have shape {X.shape}, not (rows, features)")
    sequences = np.array([len(X)] if lengths is None else lengths, dtype=np.int64)
    if sequences.sum() != len(X) or (sequences < 1).any():
        raise FitError(f"lengths sum to {sequences.sum()}, X has {len(X)} rows")
    steps = np.ones(len(X), dtype=np.int64)
    steps[np.cumsum(np.append(0, sequences[:-1]))] = 0
    return X, steps


def _monitor(fitted: Fit, tol: float, n_iter: int) -> ConvergenceReport:
    best = next(start for start in fitted.starts if start.history is fitted.history)
    return ConvergenceReport(
        history=best.log_lik_history.tolist(),
        iter=fitted.n_iter,
        converged=fitted.converged,
        status=fitted.status,
        tol=tol,
        n_iter=n_iter,
    )
