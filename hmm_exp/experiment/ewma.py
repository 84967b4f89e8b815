r"""A one-line volatility forecast to be measured against: Student-t with an EWMA scale.

With r_i the log return of bar i, known at its close,

    s_i = decay s_{i-1} + (1 - decay) r_i^2,      r_{i+1} ~ St(0, scale sqrt(s_i), df),

the exponentially weighted variance of J.P. Morgan/Reuters, RiskMetrics Technical Document (4th
ed. 1996, section 5.2) under a fat-tailed density. `decay`, `scale` and `df` are those of maximum
likelihood on train; the recursion then runs on. Where a return is missing, s carries over.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma

from hmm_exp.compiling import entry
from hmm_exp.errors import FitError
from hmm_exp.experiment.student_t import DF_BOUNDS, log_constant, scale_floor

DECAY_BOUNDS = (0.5, 0.9999)
SCALE_BOUNDS = (0.01, 10.0)
DECAY_STARTS = (0.85, 0.95, 0.99)
N_PARAMETERS = 3


@dataclass(frozen=True)
class Ewma:
    """Student-t with an exponentially weighted scale.

    Attributes
    ----------
    decay
        Weight of the past in the recursion, per bar.
    scale
        Student-t scale in units of sqrt(s).
    df
        Degrees of freedom.
    initial
        s before the first return: the mean square of the train returns.
    floor
        Smallest Student-t scale.
    """

    decay: float
    scale: float
    df: float
    initial: float
    floor: float

    def log_score(self, next_return: np.ndarray) -> np.ndarray:
        """Log predictive density of every bar's next return, nats, shape (N,).

        Parameters
        ----------
        next_return
            ln(C_{i+1} / C_i) of consecutive bars, shape (N,); NaN, also in the result, where
            there is none. Row i uses rows up to i alone, bit for bit.
        """
        return _log_scores(np.ascontiguousarray(next_return), *self._values())

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, float]) -> "Ewma":
        """The inverse of `to_dict`."""
        return cls(**values)

    def _values(self) -> tuple[float, ...]:
        return self.decay, self.scale, self.df, self.initial, self.floor


def fit_ewma(next_return_train: np.ndarray) -> Ewma:
    """Fit decay, scale and df by maximum likelihood on the train bars, in time order.

    L-BFGS-B with exact gradients from several decays; the best end is kept.

    Raises
    ------
    FitError
        Too few returns, or returns that do not vary.
    """
    returns = np.ascontiguousarray(next_return_train, dtype=np.float64)
    present = returns[np.isfinite(returns)]
    if len(present) <= N_PARAMETERS:
        raise FitError(f"{len(present)} train returns are too few for an EWMA Student-t")
    fixed = (float(np.mean(present**2)), scale_floor(present))
    bounds = [_logit_pair(DECAY_BOUNDS), _log_pair(SCALE_BOUNDS), _log_pair(DF_BOUNDS)]
    options = {"ftol": 1e-13, "gtol": 1e-7, "maxiter": 200}
    ends = [
        minimize(
            _objective,
            np.array([_logit(decay), math.log(0.7), math.log(4.0)]),
            args=(returns, len(present), fixed),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options=options,
        )
        for decay in DECAY_STARTS
    ]
    best = min(ends, key=lambda end: float(end.fun))
    return Ewma(*_parameters(best.x), *fixed)


def _objective(
    theta: np.ndarray, returns: np.ndarray, n_present: int, fixed: tuple[float, float]
) -> tuple[float, np.ndarray]:
    """Minus the mean log-likelihood and its gradient in (logit decay, ln scale, ln df)."""
    decay, scale, df = _parameters(theta)
    log_lik, by_scale, by_decay, by_df = _log_lik(returns, decay, scale, df, *fixed)
    by_df += 0.5 * n_present * (digamma(0.5 * (df + 1.0)) - digamma(0.5 * df) - 1.0 / df)
    gradient = np.array([by_decay * decay * (1.0 - decay), by_scale, by_df * df])
    return -log_lik / n_present, -gradient / n_present


def _parameters(theta: np.ndarray) -> tuple[float, float, float]:
    return 1.0 / (1.0 + math.exp(-theta[0])), math.exp(theta[1]), math.exp(theta[2])


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))


def _logit_pair(bounds: tuple[float, float]) -> tuple[float, float]:
    return _logit(bounds[0]), _logit(bounds[1])


def _log_pair(bounds: tuple[float, float]) -> tuple[float, float]:
    return math.log(bounds[0]), math.log(bounds[1])


@entry
def _log_scores(next_return, decay, scale, df, initial, floor):
    peak = log_constant(df)
    out = np.empty(len(next_return))
    s = initial
    for i in range(len(next_return)):
        r = next_return[i]
        width = max(scale * math.sqrt(s), floor)
        z = r / width
        out[i] = peak - math.log(width) - 0.5 * (df + 1.0) * math.log(1.0 + z * z / df)
        if not math.isnan(r):
            s = decay * s + (1.0 - decay) * r * r
    return out


@entry
def _log_lik(returns, decay, scale, df, initial, floor):
    """Log-likelihood; its derivatives by ln scale, decay and (the rows' part) df."""
    peak = log_constant(df)
    s, ds = initial, 0.0  # ds = d s / d decay
    log_lik = by_scale = by_decay = by_df = 0.0
    for i in range(len(returns)):
        r = returns[i]
        if math.isnan(r):
            continue
        width = max(scale * math.sqrt(s), floor)
        z = (r / width) ** 2
        log_term = math.log(1.0 + z / df)
        log_lik += peak - math.log(width) - 0.5 * (df + 1.0) * log_term
        uz = (df + 1.0) / (df + z) * z
        by_df += 0.5 * (uz / df - log_term)
        if width > floor:
            by_scale += uz - 1.0
            by_decay += (uz - 1.0) * 0.5 * ds / s
        ds = s - r * r + decay * ds
        s = decay * s + (1.0 - decay) * r * r
    return log_lik, by_scale, by_decay, by_df
