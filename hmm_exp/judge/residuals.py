r"""Forecast pseudo-residuals: standard normal and independent under a correct model.

>>> z = feature_residuals(params, X, steps, filtered.probs)          # (T, D)
>>> effects = residual_effects(z[:, 0])
>>> rejections("close_logret_current_1H", effects)
['close_logret_current_1H: squared residuals remember the last rows, 0.31 (limit 0.20)']

The forecast distribution function at the observed value is uniform under the model; its normal
quantile is the pseudo-residual (Zucchini, MacDonald & Langrock 2016, section 6.2.3):

    u_t = P(X_t <= x_t | x_1..t-1),      z_t = Phi^-1(u_t).

For feature d of row t the forecast is the mixture of the states' marginals, weighted with the
*predicted* probabilities p(z_t | x_1..t-1). For the next base return it is the mixture of the
return densities with the probabilities known at the bar's close. The smaller tail of u is computed,
so residuals are exact far beyond eight deviations.

With 20,000 rows a significance test rejects every model, so effects are judged by size: the
distance of z from normal (Kolmogorov-Smirnov distance, share beyond three deviations), and the
autocorrelation of z and z^2 over five rows. Features of rolling windows share bars with their
neighbours and fail the latter: the model takes them as independent given the state. For the same
reason BIC on such features favours ever more states.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from hmm_exp.hmm import inference
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.rows import finite_rows, missing_rows
from hmm_exp.judge.return_forecasts import ReturnDensities, mix
from hmm_exp.judge.tails import student_t_tail

LAGS = 5
FAR = 3.0  # deviations: a normal variable exceeds them in .27 % of rows
LEAST = 50  # fewer residuals are not measured

_TINY = 1e-300  # smallest tail, at 37 deviations


@dataclass(frozen=True)
class ResidualEffects:
    """Deviations of residuals from independent standard normal ones."""

    n: int  # number of residuals
    ks: float  # Kolmogorov-Smirnov distance from the normal distribution, 0 to 1
    tail_share: float  # share beyond three deviations; .0027 if normal
    memory: float  # largest absolute autocorrelation of z in the first `LAGS` lags
    square_memory: float  # the same for z^2, see `cut_squares`

    def metrics(self, name: str) -> dict[str, float]:
        """Metrics `residual_{effect}_{name}`."""
        return {
            f"residual_{key}_{name}": value for key, value in asdict(self).items() if key != "n"
        }


@dataclass(frozen=True)
class ResidualLimits:
    """Effect sizes at which residuals reject a model, on top of three standard errors.

    A Student-t with three degrees of freedom has a KS distance of .05, as has a normal forecast
    with a deviation one fifth too small. An autocorrelation of .2 means that an earlier row
    explains 4 % of the variance.
    """

    ks: float = 0.05
    tail_share: float = 0.02
    memory: float = 0.20
    square_memory: float = 0.20


def feature_residuals(
    params: GaussianParams, X: np.ndarray, steps: np.ndarray, probs: np.ndarray
) -> np.ndarray:
    """Pseudo-residuals of every feature of every row, shape (T, D); NaN for missing rows.

    Parameters
    ----------
    params
        The model, of any covariance type.
    X
        Scaled features, shape (T, D); a row with NaN is missing.
    steps
        Chain steps from the row before, shape (T,); 0 starts from the stationary distribution.
    probs
        Filtered probabilities p(z_t | x_1..t) of the same rows, shape (T, K).

    Raises
    ------
    FitError
        If the chain has no unique stationary distribution.
    """
    return forecast_residuals(params, X, predicted_probs(params, steps, probs))


def forecast_residuals(params: GaussianParams, X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`feature_residuals` from `predicted_probs`, shape (T, K); each row depends on itself only."""
    scale = np.sqrt(np.diagonal(params.full_covars(), axis1=1, axis2=2))  # (K, D)
    observed = ~missing_rows(X)
    residuals = np.full(X.shape, np.nan)
    X, weights = (np.compress(observed, rows, axis=0) for rows in (X, weights))
    for d in range(X.shape[1]):
        z = (X[:, d, None] - params.means[:, d]) / scale[:, d]  # (n, K)
        smaller = ndtr(-np.abs(z)) if params.df is None else _by_state(params.df, z)
        residuals[observed, d] = _normal_quantile(weights, *_tails(z, smaller))
    return residuals


def predicted_probs(params: GaussianParams, steps: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """p(z_t | x_1..t-1) of every row from the filtered probabilities, shape (T, K).

    Row t is row t - 1 of `probs` advanced by `steps[t]` chain steps; the first row of a sequence is
    the stationary distribution. Raises FitError if that is not unique.
    """
    predicted = np.tile(params.stationary(), (len(probs), 1))
    if (steps[1:] == 1).all():  # without the copies of some rows
        predicted[1:] = inference.predict(params.transmat, probs[:-1], 1)
        return predicted
    for n in np.unique(steps[1:]):
        rows = np.flatnonzero(steps[1:] == n) + 1
        if n > 0:
            before = np.take(probs, rows - 1, axis=0)
            predicted[rows] = inference.predict(params.transmat, before, int(n))
    return predicted


def return_residuals(
    densities: ReturnDensities | None, probs: np.ndarray, next_return: np.ndarray
) -> np.ndarray:
    """Pseudo-residuals of every bar's next return, shape (N,); NaN without a forecast.

    Parameters
    ----------
    probs
        Filtered state probabilities known at the bar's close, shape (N, K), NaN if unknown.
    next_return
        ln(C_{i+1} / C_i), shape (N,), NaN if unknown.
    """
    residuals = np.full(len(next_return), np.nan)
    if densities is None:
        return residuals
    scored = np.isfinite(next_return) & finite_rows(probs)
    z = (np.compress(scored, next_return)[:, None] - densities.loc) / densities.scale
    tails = _tails(z, student_t_tail(densities.df, z))
    residuals[scored] = _normal_quantile(np.compress(scored, probs, axis=0), *tails)
    return residuals


def residual_effects(residuals: np.ndarray) -> ResidualEffects | None:
    """Effect sizes of one series (T,) without its NaN; None for fewer than `LEAST` residuals."""
    z = residuals[np.isfinite(residuals)]
    if len(z) < LEAST:
        return None
    return ResidualEffects(
        n=len(z),
        ks=_ks_distance(z),
        tail_share=float(np.mean(np.abs(z) > FAR)),
        memory=float(np.abs(autocorrelation(residuals, LAGS)).max()),
        square_memory=float(np.abs(autocorrelation(cut_squares(residuals), LAGS)).max()),
    )


def residual_shapes(series: Mapping[str, np.ndarray], lags: int = 20) -> pd.DataFrame:
    """Quantiles and autocorrelations of residuals, the data of their figure.

    Returns
    -------
    DataFrame
        Columns `series, kind, x, value`. For kind `quantile`, x is a normal quantile and value the
        quantile of the residuals; for `memory` and `square_memory`, x is a lag in rows and value
        an autocorrelation. A series of fewer than `LEAST` residuals has no rows.
    """
    columns = ["series", "kind", "x", "value"]
    lag, parts = np.arange(1.0, lags + 1.0), []
    for name, residuals in series.items():
        z = residuals[np.isfinite(residuals)]
        if len(z) < LEAST:
            continue
        reach = min(-float(ndtri(0.5 / len(z))), 4.0)
        normal = np.linspace(-reach, reach, 61)
        kinds = {
            "quantile": (normal, np.quantile(z, ndtr(normal))),
            "memory": (lag, autocorrelation(residuals, lags)),
            "square_memory": (lag, autocorrelation(cut_squares(residuals), lags)),
        }
        parts += [
            (np.full(len(x), name), np.full(len(x), kind), x, value)
            for kind, (x, value) in kinds.items()
        ]
    if not parts:
        return pd.DataFrame(columns=columns)
    whole = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
    return pd.DataFrame(dict(zip(columns, whole, strict=True)))


def cut_squares(residuals: np.ndarray) -> np.ndarray:
    """Squares of residuals, at most `FAR` squared to limit the weight of a row; NaN stays."""
    return np.minimum(residuals**2, FAR**2)


def autocorrelation(x: np.ndarray, n_lags: int) -> np.ndarray:
    """Autocorrelations at lags 1..n_lags over complete pairs of rows, shape (n_lags,).

    Zero for a constant series and for a lag without pairs.
    """
    seen = np.isfinite(x)
    deviation = np.where(seen, x - x[seen].mean(), 0.0)
    variance = float(np.mean(deviation[seen] ** 2))
    result = np.zeros(n_lags)
    for lag in range(1, min(n_lags, len(x) - 1) + 1):
        pairs = np.count_nonzero(seen[lag:] & seen[:-lag])
        if pairs and variance > 0.0:
            result[lag - 1] = deviation[lag:] @ deviation[:-lag] / pairs / variance
    return result


def rejections(
    name: str, effects: ResidualEffects, limits: ResidualLimits | None = None
) -> list[str]:
    """Describe the effects of a series that exceed their limits; [] if none does.

    Every limit is widened by three standard errors: 1.5 / sqrt(n) for a KS distance and
    3 / sqrt(n) for an autocorrelation.
    """
    limits = limits or ResidualLimits()
    chance = effects.n**-0.5
    tail_chance = 3.0 * (limits.tail_share / effects.n) ** 0.5
    found = (
        ("residuals are not normal, KS distance", effects.ks, limits.ks, 1.5 * chance),
        ("share beyond three deviations", effects.tail_share, limits.tail_share, tail_chance),
        ("residuals remember the last rows,", effects.memory, limits.memory, 3.0 * chance),
        (
            "squared residuals remember the last rows,",
            effects.square_memory,
            limits.square_memory,
            3.0 * chance,
        ),
    )
    return [
        f"{name}: {what} {effect:.3g} (limit {limit:g})"
        for what, effect, limit, room in found
        if effect > limit + room
    ]


def _by_state(df: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Student-t tails of z (n, K) with the df of every state, (n, K)."""
    return np.column_stack([student_t_tail(own, z[:, k]) for k, own in enumerate(df.tolist())])


def _tails(z: np.ndarray, smaller: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(Z <= z) and P(Z > z) of a symmetric distribution, from the smaller of the two."""
    larger, below = 1.0 - smaller, z < 0.0
    return np.where(below, smaller, larger), np.where(below, larger, smaller)


def _normal_quantile(weights: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Phi^-1 of the mixture's distribution function, from both its tails, (n, K) each."""
    below, above = mix(weights, lower), mix(weights, upper)
    tail = np.maximum(np.minimum(below, above), _TINY)
    return np.where(below < above, ndtri(tail), -ndtri(tail))


def _ks_distance(z: np.ndarray) -> float:
    """Largest distance between the empirical and the normal distribution function."""
    uniform = ndtr(np.sort(z))
    n = len(uniform)
    steps = np.arange(n)
    return float(max((uniform - steps / n).max(), ((steps + 1) / n - uniform).max()))
