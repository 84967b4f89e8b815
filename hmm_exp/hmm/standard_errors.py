"""Standard errors and intervals of a fitted Gaussian hidden Markov model.

>>> errors = standard_errors(params, X, steps)
>>> errors.means.error, errors.means.lower, errors.means.upper      # (K, D) each
>>> errors.transmat.robust                                          # (K, K), sandwich
>>> errors.reason
'no error for transitions at probability 0: 0 to 2'

*Observed information.* `error` comes from the inverse of minus the exact Hessian of the
log-likelihood (Efron & Hinkley 1978, Biometrika 65) on the unconstrained scales of
`gaussian_scores`, and by the delta method. The initial distribution is fixed.

*Sandwich.* `robust` also holds where the model is not the truth (Huber 1967; White 1982,
Econometrica 50): H^-1 S H^-1 with H the Hessian and S the sum of the outer products of the rows'
scores. If the rows' scores depend on each other, as for features of overlapping windows, S has the
weights 1 - j / window of Newey & West (1987, Econometrica 55) for scores j rows apart.

*Intervals* are symmetric for means, on the logit scale for probabilities and on the log scale for
standard deviations, transformed back. They come from the observed information; with a window, from
the sandwich alone, and `error` is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtri

from hmm_exp.hmm.gaussian_scores import derivatives
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.stored.fields import Fields

LEVEL = 0.95
Interval = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
_MOST_SCORES = 1 << 27  # of rows by parameters, 1 GB
_SINGULAR = 1e-10  # least eigenvalue of the information, scaled to a diagonal of ones


@dataclass(frozen=True, eq=False)
class Estimates:
    """Parameters of one kind with errors and intervals, arrays of one shape, NaN where missing.

    Attributes
    ----------
    value
        The estimates.
    error, robust
        Standard errors from the observed information and from the sandwich.
    lower, upper
        Ends of the intervals.
    """

    value: np.ndarray
    error: np.ndarray
    robust: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True, eq=False)
class StandardErrors:
    """Errors of all parameters of a model.

    Attributes
    ----------
    transmat, means, deviations
        Transition probabilities (K, K), means (K, D) and standard deviations (K, D), in the units
        of the observations.
    level
        Coverage of the intervals.
    window
        Rows over which scores count as dependent; 1 for none.
    reason
        Why errors are missing, in words; empty where none is.
    """

    transmat: Estimates
    means: Estimates
    deviations: Estimates
    level: float = LEVEL
    window: int = 1
    reason: str = ""

    @property
    def parts(self) -> tuple[Estimates, Estimates, Estimates]:
        """Transition probabilities, means and deviations."""
        return self.transmat, self.means, self.deviations

    def in_units(self, mean: np.ndarray, scale: np.ndarray) -> "StandardErrors":
        """The same errors for features times `scale` plus `mean`, shapes (D,)."""
        return replace(
            self,
            means=_moved(self.means, mean, scale),
            deviations=_moved(self.deviations, 0.0, scale),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the estimates; a missing error is 0."""
        flat = {
            name: np.concatenate([getattr(part, name).ravel() for part in self.parts])
            for name in ("error", "robust")
        }
        known = {name: np.nan_to_num(values).tolist() for name, values in flat.items()}
        return {"level": self.level, "window": self.window, "reason": self.reason, **known}

    @classmethod
    def from_dict(cls, values: dict[str, Any], params: GaussianParams) -> "StandardErrors":
        """Inverse of `to_dict` for the model's parameters. Raises ModelError."""
        stored = Fields(values, "standard_errors")
        stored.only(["level", "window", "reason", "error", "robust"])
        level = stored.number("level", above=0.0)
        if not level < 1:
            raise stored.fault("level", "must be below 1")
        error, robust = (_read_errors(stored, name, params) for name in ("error", "robust"))
        estimates = estimates_of(params, error, robust, stored.whole("window", least=1), level)
        return replace(estimates, reason=stored.text("reason", longest=10_000))


def standard_errors(
    params: GaussianParams,
    X: np.ndarray,
    steps: np.ndarray,
    window: int = 1,
    level: float = LEVEL,
) -> StandardErrors:
    """Errors of a sound model fitted to these rows.

    Parameters
    ----------
    X
        Scaled observations that the model was fitted to, shape (T, D); a row with a NaN is missing.
    steps
        Chain steps from the row before, shape (T,), as in `inference`.
    window
        Rows over which scores depend on each other, at least as long as the windows of the
        features; 1 for independent rows.
    level
        Coverage of the intervals.
    """
    if params.df is not None:
        return without_errors(params, "not available for Student-t states")
    if (n_scores := _n_rows(steps) * params.n_parameters()) > _MOST_SCORES:
        return without_errors(params, f"{n_scores:,} scores need too much memory")
    with np.errstate(over="ignore", invalid="ignore"):  # no derivative of an impossible row
        slopes = derivatives(params, X, steps)
    if (fault := _fault(-slopes.hessian)) is not None:
        return without_errors(params, fault)
    inverse = np.linalg.inv(-slopes.hessian)
    sandwich = inverse @ outer_products(slopes.scores, window) @ inverse
    robust = _deviations(slopes.natural, sandwich)
    error = np.full_like(robust, np.nan) if window > 1 else _deviations(slopes.natural, inverse)
    estimates = estimates_of(params, error, robust, window, level)
    return replace(estimates, reason=_bounds_in_words(params.transmat, slopes.fixed))


def estimates_of(
    params: GaussianParams,
    error: np.ndarray,
    robust: np.ndarray,
    window: int = 1,
    level: float = LEVEL,
) -> StandardErrors:
    """Estimates with intervals, from standard errors on the natural scales.

    Parameters
    ----------
    error, robust
        Of K K transition probabilities, K D means and K D deviations, one after the other; NaN
        where missing.
    """
    K, D = params.means.shape
    ends = [K * K, K * K + K * D]
    errors, robusts = np.split(error, ends), np.split(robust, ends)

    def part(place: int, value: np.ndarray, interval: Interval) -> Estimates:
        pair = (errors[place].reshape(value.shape), robusts[place].reshape(value.shape))
        used = np.where(np.isnan(pair[0]), pair[1], pair[0])
        return Estimates(value, *pair, *interval(value, used * ndtri(0.5 + level / 2)))

    return StandardErrors(
        part(0, params.transmat, _logit),
        part(1, params.means, _identity),
        part(2, params.deviations(), _log),
        level,
        window,
    )


def without_errors(params: GaussianParams, reason: str) -> StandardErrors:
    """A model's estimates with no errors at all, for one reason."""
    K, D = params.means.shape
    missing = np.full(K * K + 2 * K * D, np.nan)
    return replace(estimates_of(params, missing, missing), reason=f"no errors: {reason}")


def outer_products(slopes: np.ndarray, window: int = 1) -> np.ndarray:
    """Sum of the outer products of scores (T, P), with Newey-West weights within a window, (P, P).

    The weighted sum is the mean of the outer products of all sums over `window` neighbours.
    """
    if window == 1:
        return slopes.T @ slopes
    padded = np.pad(slopes, ((window, window - 1), (0, 0))).cumsum(axis=0)
    sums = padded[window:] - padded[:-window]
    return sums.T @ sums / window


def _identity(value: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return value - half, value + half


def _log(value: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = np.exp(half / value)
    return value / spread, value * spread


def _logit(value: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, spread = logit(value), half / (value * (1.0 - value))
        return expit(centre - spread), expit(centre + spread)


def _moved(part: Estimates, mean: np.ndarray | float, scale: np.ndarray) -> Estimates:
    return Estimates(
        part.value * scale + mean,
        part.error * scale,
        part.robust * scale,
        part.lower * scale + mean,
        part.upper * scale + mean,
    )


def _read_errors(stored: Fields, name: str, params: GaussianParams) -> np.ndarray:
    """Errors as stored: NaN for 0."""
    errors = stored.array(name, (params.transmat.size + 2 * params.means.size,))
    if (errors < 0).any():
        raise stored.fault(name, "must hold no number below 0")
    return np.where(errors == 0, np.nan, errors)


def _n_rows(steps: np.ndarray) -> int:
    """Rows with the missing bars of gaps."""
    return len(steps) + int(np.maximum(steps[1:] - 1, 0).sum())


def _fault(information: np.ndarray) -> str | None:
    """Why the information cannot be inverted, in words."""
    if not np.isfinite(information).all():
        return "the information matrix is not finite"
    diagonal = np.diagonal(information)
    if (diagonal > 0).all():
        scale = np.sqrt(diagonal)
        if np.linalg.eigvalsh(information / np.outer(scale, scale))[0] > _SINGULAR:
            return None
    return "the information matrix is not positive definite: the fit is at no maximum"


def _deviations(natural: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard errors of the natural parameters by the delta method; NaN for fixed ones."""
    variance = np.einsum("np,pq,nq->n", natural, covariance, natural)
    return np.sqrt(np.where(natural.any(axis=1), variance, np.nan))


def _bounds_in_words(transmat: np.ndarray, fixed: np.ndarray) -> str:
    """Which transitions have no error."""
    sentences = []
    for bound in (0, 1):
        at_bound = fixed & ((transmat > 0.5) == bound)
        if at_bound.any():
            names = ", ".join(f"{i} to {j}" for i, j in np.argwhere(at_bound))
            sentences.append(f"no error for transitions at probability {bound}: {names}")
    return "; ".join(sentences)
