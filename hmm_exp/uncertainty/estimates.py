"""Estimated parameters with their standard errors and intervals, as a detector stores them.

>>> errors = StandardErrors.from_dict(stored, params)
>>> errors.means.error, errors.means.lower, errors.means.upper      # (K, D) each

*Intervals* are symmetric for means, on the logit scale for probabilities and on the log scale for
standard deviations, scales and df, transformed back. They come from the observed information; with
a window, from the sandwich alone, and `error` is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from hmm_exp.errors import one_line
from hmm_exp.hmm.params import DF_BOUNDS, GaussianParams
from hmm_exp.stored.fields import Fields

LEVEL = 0.95
Interval = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


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
    tails
        Of Student-t states the roots of the scale matrices' diagonals (K, D) and the df (K,); empty
        for Gaussian states.
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
    tails: tuple[Estimates, ...] = ()
    level: float = LEVEL
    window: int = 1
    reason: str = ""

    @property
    def parts(self) -> tuple[Estimates, ...]:
        """Transition probabilities, means, deviations, and of Student-t states scales and df."""
        return self.transmat, self.means, self.deviations, *self.tails

    def in_units(self, mean: np.ndarray, scale: np.ndarray) -> "StandardErrors":
        """The same errors for features times `scale` plus `mean`, shapes (D,)."""
        return replace(
            self,
            means=_moved(self.means, mean, scale),
            deviations=_moved(self.deviations, 0.0, scale),
            tails=tuple(_moved(part, 0.0, scale) for part in self.tails[:1]) + self.tails[1:],
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
        One after the other in the order of `StandardErrors.parts`; NaN where missing.
    """
    kinds = _kinds(params)
    ends = np.cumsum([value.size for value, _ in kinds])[:-1]
    quantile, parts = NormalDist().inv_cdf(0.5 + level / 2), []
    for (value, interval), *pair in zip(
        kinds, np.split(error, ends), np.split(robust, ends), strict=True
    ):
        own, sandwich = (part.reshape(value.shape) for part in pair)
        used = np.where(np.isnan(own), sandwich, own)
        parts.append(Estimates(value, own, sandwich, *interval(value, used * quantile)))
    transmat, means, deviations, *tails = parts
    return StandardErrors(transmat, means, deviations, tuple(tails), level, window)


def without_errors(params: GaussianParams, reason: str) -> StandardErrors:
    """A model's estimates with no errors at all, for one reason, of which a line is kept."""
    missing = np.full(_n_natural(params), np.nan)
    return replace(estimates_of(params, missing, missing), reason=one_line(f"no errors: {reason}"))


def _kinds(params: GaussianParams) -> list[tuple[np.ndarray, Interval]]:
    """Values of every kind of parameter, and the scale of its intervals."""
    kinds: list[tuple[np.ndarray, Interval]] = [
        (params.transmat, _logit),
        (params.means, _identity),
        (params.deviations(), _log),
    ]
    if params.df is not None:
        kinds += [(params.scales(), _log), (params.df, _log_df)]
    return kinds


def _n_natural(params: GaussianParams) -> int:
    return sum(value.size for value, _ in _kinds(params))


def _identity(value: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return value - half, value + half


def _log(value: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = np.exp(half / value)
    return value / spread, value * spread


def _log_df(value: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = _log(value, half)
    return np.maximum(lower, DF_BOUNDS[0]), np.minimum(upper, DF_BOUNDS[1])


def _logit(value: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        odds, spread = value / (1.0 - value), np.exp(half / (value * (1.0 - value)))
        return 1.0 / (1.0 + spread / odds), 1.0 / (1.0 + 1.0 / (odds * spread))


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
    errors = stored.array(name, (_n_natural(params),))
    if (errors < 0).any():
        raise stored.fault(name, "must hold no number below 0")
    return np.where(errors == 0, np.nan, errors)
