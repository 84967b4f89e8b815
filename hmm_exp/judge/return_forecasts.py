r"""Densities of the next bar's log return: by state, static Student-t, and EWMA Student-t.

>>> densities = fit_return_densities(probs[train], next_return[train])
>>> scores = score_bars(densities, fit_baselines(next_return[train]), probs, next_return)
>>> summarise(scores, split)["return_gain_test"]        # nats per bar over the static Student-t
0.044

Models of different observation spaces are compared by their forecasts of the next bar's return.
The forecast is the mixture of one Student-t per state, weighted with the filtered probabilities
p_ik known at the close of base bar i; its score in nats per bar is

    score_i = ln sum_k p_ik St(ln(C_{i+1} / C_i); loc_k, scale_k, df),

with densities fitted on train for fixed weights. There are two baselines without states: one
Student-t for all bars, and a Student-t with an EWMA scale. All three have fat tails, so a gain over
the baselines is due to the states alone. With r_i the log return of bar i, the EWMA recursion is

    s_i = decay s_{i-1} + (1 - decay) r_i^2,      r_{i+1} ~ St(0, scale sqrt(s_i), df),

the exponentially weighted variance of J.P. Morgan/Reuters, RiskMetrics Technical Document (4th
ed. 1996, section 5.2). `decay`, `scale` and `df` maximise the likelihood on train. A missing
return leaves s unchanged.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import digamma

from hmm_exp.compiling import entry, kernel
from hmm_exp.errors import FitError
from hmm_exp.judge.split import SPLIT_NAMES, TEST, TRAIN, VAL
from hmm_exp.judge.student_t import DF_BOUNDS, fit_mixture, log_constant, log_mixture, scale_floor
from hmm_exp.judge.unscored import Unscored, fitted
from hmm_exp.stored.fields import Fields

DECAY_BOUNDS = (0.5, 0.9999)
SCALE_BOUNDS = (0.01, 10.0)
DECAY_STARTS = (0.85, 0.95, 0.99)
N_PARAMETERS = 3


@dataclass(frozen=True)
class ReturnDensities:
    """Student-t density of the next base bar's log return in every state.

    Attributes
    ----------
    loc, scale
        Student-t location and scale per state, log return per bar, shape (K,).
    df
        Degrees of freedom, shared.
    """

    loc: np.ndarray
    scale: np.ndarray
    df: float

    def log_score(self, probs: np.ndarray, next_return: np.ndarray) -> np.ndarray:
        """Log predictive density of every bar's next return, nats, shape (N,).

        Parameters
        ----------
        probs
            Filtered state probabilities known at the bar's close, shape (N, K), NaN if unknown.
        next_return
            ln(C_{i+1} / C_i), shape (N,), NaN if unknown. A row's score depends on that row alone.
        """
        return log_mixture(probs, next_return, self.loc, self.scale, self.df)

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return {"loc": self.loc.tolist(), "scale": self.scale.tolist(), "df": self.df}

    @classmethod
    def from_stored(cls, stored: Fields, n_states: int) -> "ReturnDensities":
        """The inverse of `to_dict` for `n_states` states. Raises ModelError."""
        stored.only(["loc", "scale", "df"])
        loc, scale = (stored.array(name, (n_states,)) for name in ("loc", "scale"))
        if not (scale > 0).all():
            raise stored.fault("scale", "must be above 0")
        return cls(loc, scale, stored.number("df", above=0.0))


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
        s before the first return: the mean squared train return.
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
            ln(C_{i+1} / C_i) of consecutive bars, shape (N,); NaN if unknown, also in the result.
            Row i uses rows up to i alone, bit for bit.
        """
        returns = np.ascontiguousarray(next_return, dtype=np.float64)
        variances = _variances(returns, self.decay, self.initial)
        return _log_scores(returns, variances, self.scale, self.df, self.floor)

    def variance(self, next_return: np.ndarray) -> np.ndarray:
        """s_i known at every bar's close, (log return)^2 per bar, shape (N,).

        At least the square of the density's floor, so a market without movement has a variance.
        """
        returns = np.ascontiguousarray(next_return, dtype=np.float64)
        least = (self.floor / self.scale) ** 2
        return np.maximum(_variances(returns, self.decay, self.initial), least)

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, float]) -> "Ewma":
        """The inverse of `to_dict`."""
        return cls(**values)


@dataclass(frozen=True)
class Baselines:
    """The two forecasts without states: a static Student-t, and one with an EWMA scale.

    Attributes
    ----------
    static, ewma
        None if the train returns allow no fit.
    unscored
        The reason, by name.
    """

    static: ReturnDensities | None
    ewma: Ewma | None
    unscored: Unscored = field(default_factory=dict)


def fit_return_densities(probs_train: np.ndarray, next_return_train: np.ndarray) -> ReturnDensities:
    """Fit the K densities by maximum likelihood with fixed weights.

    Rows without probabilities or without a next return are left out.

    Raises
    ------
    FitError
        Too few such rows, or returns that do not vary.
    """
    scored = np.isfinite(next_return_train) & np.isfinite(probs_train).all(axis=1)
    if not scored.any():
        raise FitError("no train bar has both state probabilities and a next return")
    fit = fit_mixture(probs_train[scored], next_return_train[scored])
    return ReturnDensities(fit.loc, fit.scale, fit.df)


def fit_static(next_return_train: np.ndarray) -> ReturnDensities:
    """Fit one Student-t to all train returns. Raises FitError."""
    return fit_return_densities(np.ones((len(next_return_train), 1)), next_return_train)


def fit_ewma(next_return_train: np.ndarray) -> Ewma:
    """Fit decay, scale and df by maximum likelihood on the train bars, in time order.

    L-BFGS-B with exact gradients from several decays; the best result is kept.

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


def fit_baselines(next_return_train: np.ndarray) -> Baselines:
    """Fit each baseline to all train returns, in time order; each may fail on its own."""
    unscored: Unscored = {}
    static = fitted("static", unscored, fit_static, next_return_train)
    ewma = fitted("ewma", unscored, fit_ewma, next_return_train)
    return Baselines(static, ewma, unscored)


def score_bars(
    densities: ReturnDensities | None,
    baselines: Baselines,
    probs: np.ndarray,
    next_return: np.ndarray,
) -> pd.DataFrame:
    """Log predictive densities of every base bar's next return, nats.

    Returns
    -------
    DataFrame
        N rows. `model` is NaN where probabilities or return are missing, `static` and `ewma` where
        the return is missing; a forecast without a fit is NaN on all rows. Row i depends only on
        bars up to i + 1, its target.
    """
    ones, none = np.ones((len(next_return), 1)), np.full(len(next_return), np.nan)
    static, ewma = baselines.static, baselines.ewma
    return pd.DataFrame(
        {
            "model": none if densities is None else densities.log_score(probs, next_return),
            "static": none if static is None else static.log_score(ones, next_return),
            "ewma": none if ewma is None else ewma.log_score(next_return),
        }
    )


def summarise(
    scores: pd.DataFrame,
    split: np.ndarray,
    counted: np.ndarray | None = None,
    parts: Sequence[int] = (TRAIN, VAL, TEST),
) -> dict[str, float]:
    """Mean scores and gains per part, nats per bar.

    Parameters
    ----------
    scores
        From `score_bars`.
    split
        Code (`TRAIN`, `VAL`, `TEST`) of the part of the target bar i + 1, shape (N,).
    counted
        Bars to count, shape (N,); by default all. To compare observation spaces, pass the bars
        that every space scores.
    parts
        Codes of the parts to report.

    Returns
    -------
    dict
        `return_score_{split}`, `return_gain_{split}` (over the static Student-t) and
        `ewma_gain_{split}`; metrics without a scored bar are left out.
    """
    metrics: dict[str, float] = {}
    for name, values in per_bar(scores).items():
        scored = np.isfinite(values) if counted is None else np.isfinite(values) & counted
        for part in parts:
            rows = scored & (split == part)
            if rows.any():
                metrics[f"{name}_{SPLIT_NAMES[part]}"] = float(values[rows].mean())
    return metrics


def per_bar(scores: pd.DataFrame) -> dict[str, np.ndarray]:
    """Score and gains of every bar by name, nats, shape (N,) each; NaN where not scored."""
    model, static, ewma = (scores[name].to_numpy() for name in ("model", "static", "ewma"))
    return {"return_score": model, "return_gain": model - static, "ewma_gain": model - ewma}


def next_returns(close: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """ln(C_{i+1} / C_i) where bar i + 1 is the next chain step, else NaN; shape (N,).

    Parameters
    ----------
    close
        Closing prices of the base bars, shape (N,).
    steps
        Chain steps from the bar before, shape (N,): 1 for neighbours, 0 starts a sequence.
    """
    returns = np.full(len(close), np.nan)
    returns[:-1] = np.where(steps[1:] == 1, np.diff(np.log(close)), np.nan)
    return returns


def known_at_close(base_time: np.ndarray, row_time: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of the latest row at the close of every base bar; NaN before the first row.

    Parameters
    ----------
    base_time, row_time
        `available_at` of the base bars (N,) and of the rows (T,), increasing, int64 ns.
    values
        Values of the rows, such as filtered probabilities, shape (T, K) or (T,).
    """
    return take_rows(values, np.searchsorted(row_time, base_time, side="right") - 1)


def take_rows(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`values[rows]` with NaN for negative rows."""
    taken = np.full((len(rows), *values.shape[1:]), np.nan)
    taken[rows >= 0] = values[rows[rows >= 0]]
    return taken


def mix(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """sum_k weights[:, k] values[..., k], shape (T,); values (K,) or (T, K).

    Summed state by state, so that the bits of a row depend on that row alone.
    """
    total = weights[:, 0] * values[..., 0]
    for k in range(1, weights.shape[1]):
        total = total + weights[:, k] * values[..., k]
    return total


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
def _variances(next_return, decay, initial):
    out = np.empty(len(next_return))
    s = initial
    for i in range(len(next_return)):
        out[i] = s
        s = _updated(s, next_return[i], decay)
    return out


@kernel
def _updated(s, r, decay):
    """The EWMA variance after the return r; a missing return changes nothing."""
    return s if math.isnan(r) else decay * s + (1.0 - decay) * r * r


@entry
def _log_scores(next_return, variances, scale, df, floor):
    peak = log_constant(df)
    out = np.empty(len(next_return))
    for i in range(len(next_return)):
        width = max(scale * math.sqrt(variances[i]), floor)
        z = next_return[i] / width
        out[i] = peak - math.log(width) - 0.5 * (df + 1.0) * math.log(1.0 + z * z / df)
    return out


@entry
def _log_lik(returns, decay, scale, df, initial, floor):
    """Log-likelihood; its derivatives in ln scale, decay and (the part of the rows) df."""
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
        s = _updated(s, r, decay)
    return log_lik, by_scale, by_decay, by_df
