"""The parameters of a hidden Markov model, as one immutable value.

Shapes and names are hmmlearn's, and a Gaussian model converts to a plain
`hmmlearn.hmm.GaussianHMM`:

>>> model = params.to_hmmlearn()
>>> GaussianParams.from_hmmlearn(model).covars.shape == params.covars.shape
True
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hmm_exp.errors import FitError, ModelError
from hmm_exp.stored.fields import Fields

if TYPE_CHECKING:
    from hmmlearn.hmm import GaussianHMM

COVARIANCE_TYPES = ("diag", "full", "tied", "spherical")
HEAVY_TAILED = ("diag", "full")  # covariance types of Student-t states
DF_BOUNDS = (2.05, 200.0)  # below 2 there is no variance; above 200 it is a Gaussian
COVARS_PRIOR = 1e-2  # hmmlearn's default `covars_prior`, with `covars_weight=1`

_ARRAYS = ("startprob", "transmat", "means", "covars")
_SUM_TOLERANCE = 1e-8
_SYMMETRY_TOLERANCE = 1e-8  # of a covariance, in standard deviations
_SINGULAR = 1e-10  # second singular value of I - A below which the chain counts as reducible


@dataclass(frozen=True, eq=False)
class GaussianParams:
    """Initial distribution, transitions and state densities, Gaussian or Student-t.

    Attributes
    ----------
    startprob
        p(z_1), shape (K,).
    transmat
        p(z_t = j | z_t-1 = i) at row i, column j, shape (K, K).
    means
        Shape (K, D), in the units of the (scaled) observations.
    covars
        Shape (K, D) for "diag", (K, D, D) for "full", (D, D) for "tied", (K,) for "spherical".
        Of Student-t states the scale matrices S: the covariance is df / (df - 2) S.
    covariance_type
        One of `COVARIANCE_TYPES`.
    df
        Degrees of freedom of Student-t states, above 2, shape (K,), for `HEAVY_TAILED` covariances
        only; None for Gaussian states. A "diag" state is a multivariate t with a diagonal scale
        matrix: its features are uncorrelated, but share their large deviations.

    Raises
    ------
    FitError
        Inconsistent shapes, a number that is not finite, a distribution that does not sum to one,
        a variance that is not positive, or a df of 2 or less.
    """

    startprob: np.ndarray
    transmat: np.ndarray
    means: np.ndarray
    covars: np.ndarray
    covariance_type: str = "diag"
    df: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in self._arrays():
            value = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, value)
        _check_shapes(self)
        _check_values(self)

    @property
    def n_states(self) -> int:
        """K."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """D."""
        return self.means.shape[1]

    def n_parameters(self) -> int:
        """Free parameters p as hmmlearn counts them: K-1 + K(K-1) + KD + covariances (+ K df)."""
        K, D = self.means.shape
        covariances = n_covariance_parameters(self.covariance_type, K, D)
        return K - 1 + K * (K - 1) + K * D + covariances + (0 if self.df is None else K)

    def reordered(self, order: np.ndarray) -> "GaussianParams":
        """The same model with the old state `order[k]` as state k."""
        order = np.asarray(order)
        return replace(
            self,
            startprob=self.startprob[order],
            transmat=self.transmat[np.ix_(order, order)],
            means=self.means[order],
            covars=self.covars if self.covariance_type == "tied" else self.covars[order],
            df=None if self.df is None else self.df[order],
        )

    def covariances(self) -> np.ndarray:
        """Covariance matrix of every state, shape (K, D, D)."""
        scales = self.full_covars()
        return scales if self.df is None else scales * (self.df / (self.df - 2.0))[:, None, None]

    def full_covars(self) -> np.ndarray:
        """`covars` as matrices, shape (K, D, D)."""
        K, D = self.means.shape
        if self.covariance_type == "full":
            return self.covars.copy()
        if self.covariance_type == "tied":
            return np.tile(self.covars, (K, 1, 1))
        variances = self.covars if self.covariance_type == "diag" else self.covars[:, None]
        return np.eye(D) * np.broadcast_to(variances, (K, D))[:, None, :]

    def deviations(self) -> np.ndarray:
        """Standard deviation of every feature in every state, shape (K, D)."""
        return np.sqrt(np.diagonal(self.full_covars(), axis1=1, axis2=2))

    def stationary(self) -> np.ndarray:
        """The distribution pi with pi A = pi, shape (K,).

        Raises
        ------
        FitError
            If it is not unique: groups of states never reach each other (or less than once in
            about 1e10 steps).
        """
        K = self.n_states
        balance = np.eye(K) - self.transmat.T
        if K > 1 and np.linalg.svd(balance, compute_uv=False)[-2] < _SINGULAR:
            raise FitError("the transition matrix has more than one stationary distribution")
        system = np.vstack([balance, np.ones(K)])
        solution = np.linalg.lstsq(system, np.append(np.zeros(K), 1.0), rcond=None)[0]
        solution = np.maximum(solution, 0.0)
        return solution / solution.sum()

    def to_hmmlearn(self) -> "GaussianHMM":
        """A plain `hmmlearn.hmm.GaussianHMM`. Raises FitError for Student-t states."""
        from hmmlearn.hmm import GaussianHMM

        if self.df is not None:
            raise FitError("hmmlearn has no Student-t states")
        model = GaussianHMM(self.n_states, covariance_type=self.covariance_type)
        model.n_features = self.n_features
        model.startprob_ = self.startprob.copy()
        model.transmat_ = self.transmat.copy()
        model.means_ = self.means.copy()
        model.covars_ = self.covars
        return model

    @classmethod
    def from_hmmlearn(cls, model: "GaussianHMM") -> "GaussianParams":
        """The parameters of a fitted `GaussianHMM`."""
        covars = np.asarray(model._covars_)
        if model.covariance_type == "spherical" and covars.ndim == 2:
            covars = covars[:, 0]  # hmmlearn repeats the one variance D times after a fit
        return cls(model.startprob_, model.transmat_, model.means_, covars, model.covariance_type)

    def to_dict(self) -> dict:
        """Plain lists and numbers, exact to the bit when written as JSON."""
        return {
            "covariance_type": self.covariance_type,
            **{name: getattr(self, name).tolist() for name in self._arrays()},
        }

    @classmethod
    def from_dict(cls, data: dict) -> "GaussianParams":
        """Inverse of `to_dict`.

        Raises
        ------
        ModelError
            A field is missing or no array of numbers, the fields are inconsistent, a covariance is
            not positive definite, or the chain has no unique stationary distribution.
        """
        fields = Fields(data, "params")
        names = [*_ARRAYS, "df"] if "df" in data else _ARRAYS
        fields.only(["covariance_type", *names])
        arrays = {name: fields.array(name) for name in names}
        try:
            params = cls(**arrays, covariance_type=fields.text("covariance_type"))
            _check_definite(params)
            params.stationary()
        except FitError as error:
            raise ModelError(f"params: {error}") from None
        return params

    def _arrays(self) -> tuple[str, ...]:
        return _ARRAYS if self.df is None else (*_ARRAYS, "df")


def n_covariance_parameters(covariance_type: str, n_states: int, n_features: int) -> int:
    """Number of free parameters of all covariances."""
    K, D = n_states, n_features
    triangle = D * (D + 1) // 2
    counts = {"diag": K * D, "full": K * triangle, "tied": triangle, "spherical": K}
    return counts[covariance_type]


def check_heavy_tailed(covariance_type: str) -> None:
    """Raise FitError for covariances that Student-t states do not have."""
    if covariance_type not in HEAVY_TAILED:
        raise FitError(
            f"Student-t states with {covariance_type} covariances: one of {', '.join(HEAVY_TAILED)}"
        )


def log_prior(params: GaussianParams) -> float:
    """The log prior of hmmlearn's default `covars_prior`, in nats.

    hmmlearn's M step divides `covars_prior + scatter` by the state's mass. That maximises
    log-likelihood - 1/2 sum_k tr(P S_k^-1) with P = 0.01 I for "diag" and "spherical". For "full"
    and "tied" hmmlearn adds the scalar to every element, so there P = 0.01 in every place, and a
    tied matrix is counted once. EM never lowers the sum of the two (Dempster, Laird & Rubin 1977:
    the variant for posterior modes).
    """
    if params.covariance_type == "diag":
        return -0.5 * COVARS_PRIOR * float(np.sum(1.0 / params.covars))
    if params.covariance_type == "spherical":
        return -0.5 * COVARS_PRIOR * params.n_features * float(np.sum(1.0 / params.covars))
    return -0.5 * COVARS_PRIOR * float(np.sum(np.linalg.inv(params.covars)))


def _check_shapes(params: GaussianParams) -> None:
    """Raise FitError unless the shapes of all arrays are consistent."""
    if params.covariance_type not in COVARIANCE_TYPES:
        raise FitError(
            f"unknown covariance type {params.covariance_type!r}: one of {COVARIANCE_TYPES}"
        )
    if params.means.ndim != 2 or params.means.size == 0:
        raise FitError(f"means have shape {params.means.shape}, not (states, features)")
    K, D = params.means.shape
    covars = {"diag": (K, D), "full": (K, D, D), "tied": (D, D), "spherical": (K,)}
    wanted = {"startprob": (K,), "transmat": (K, K), "covars": covars[params.covariance_type]}
    if params.df is not None:
        check_heavy_tailed(params.covariance_type)
        wanted["df"] = (K,)
    for name, shape in wanted.items():
        if getattr(params, name).shape != shape:
            raise FitError(f"{name} has shape {getattr(params, name).shape}, not {shape}")


def _check_values(params: GaussianParams) -> None:
    """Raise FitError unless distributions sum to one and variances are positive."""
    for name in params._arrays():
        if not np.isfinite(getattr(params, name)).all():
            raise FitError(f"{name} holds a number that is not finite")
    for name in ("startprob", "transmat"):
        value = getattr(params, name)
        outside = (value < 0) | (value > 1 + _SUM_TOLERANCE)
        if outside.any() or (abs(value.sum(axis=-1) - 1) > _SUM_TOLERANCE).any():
            raise FitError(f"{name} is not made of distributions: {value.tolist()}")
    matrix = params.covariance_type in ("full", "tied")
    variances = np.diagonal(params.covars, axis1=-2, axis2=-1) if matrix else params.covars
    if (variances <= 0).any():
        raise FitError(f"a variance is not positive: {float(variances.min()):.3g}")
    if params.df is not None and (params.df <= 2.0).any():
        raise FitError(f"df is {float(params.df.min()):.3g}: must be above 2")


def _check_definite(params: GaussianParams) -> None:
    """Raise FitError unless covariance matrices are symmetric and positive definite."""
    if params.covariance_type not in ("full", "tied"):
        return
    covars = params.full_covars()
    spread = np.sqrt(np.diagonal(covars, axis1=-2, axis2=-1))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = covars / spread[:, :, None] / spread[:, None, :]
        skew = abs(scaled - scaled.swapaxes(-2, -1))
    if not (skew <= _SYMMETRY_TOLERANCE).all():
        raise FitError("covars are not symmetric")
    try:
        definite = bool(np.isfinite(np.linalg.cholesky(covars)).all())
    except np.linalg.LinAlgError:
        definite = False
    if not definite:
        raise FitError("covars are not positive definite")
