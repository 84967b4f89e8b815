r"""Forecast pseudo-residuals: standard normal and independent where the model is right.

The forecast distribution of what comes next, taken at what came, is uniform under the model; its
normal quantile is the pseudo-residual (Zucchini, MacDonald & Langrock 2016, section 6.2.3):

    u_t = P(X_t <= x_t | x_1..t-1),      z_t = Phi^-1(u_t).

For feature d of row t the forecast is the mixture of the states' Gaussian marginals, weighted with
the *predicted* probabilities p(z_t | x_1..t-1); for the next base return it is the yardstick's
mixture of Student-t with the probabilities known at the bar's close. The smaller tail of u is the
one computed, so residuals are exact far beyond eight deviations.

At 20,000 rows every test rejects every model, so effects are judged by size: how far the
distribution of z is from normal (Kolmogorov-Smirnov distance, share beyond three deviations), and
how much of its level and of its size (z^2) can be told from the five rows before. Features of
rolling windows share bars with their neighbours and cannot pass the latter: that is no fault of the
test, but of a model which takes them for independent given the state, and it is why BIC on them
asks for ever more states.

Example
-------
>>> z = feature_residuals(params, X, steps, filtered.probs)          # (T, D)
>>> effects = residual_effects(z[:, 0])
>>> rejections("close_logret_current_1H", effects)
['close_logret_current_1H: squared residuals remember the last rows, 0.31 (limit 0.20)']
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtr

from hmm_exp.hmm import inference
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.judge.return_forecasts import ReturnDensities

LAGS = 5
FAR = 3.0  # deviations: .27 % of a normal variable lie beyond
LEAST = 50  # residuals that effects can be measured on

_TINY = 1e-300  # tail beyond which z stops, at 37 deviations


@dataclass(frozen=True)
class ResidualEffects:
    """How residuals differ from independent standard normal ones.

    Attributes
    ----------
    n
        Residuals.
    ks
        Largest distance between their distribution and the normal one, 0 to 1.
    tail_share
        Share beyond three deviations; .0027 if normal.
    memory
        Largest absolute autocorrelation of z in the first `LAGS` lags.
    square_memory
        The same of z^2, see `cut_squares`.
    """

    n: int
    ks: float
    tail_share: float
    memory: float
    square_memory: float

    def metrics(self, name: str) -> dict[str, float]:
        """Flat names of a run record: `residual_{effect}_{name}`."""
        return {
            f"residual_{key}_{name}": value for key, value in asdict(self).items() if key != "n"
        }


@dataclass(frozen=True)
class ResidualLimits:
    """Effects beyond which residuals reject a model, on top of three errors of chance.

    A KS distance of .05 is that of a Student-t with three degrees of freedom, or of a deviation
    that is a fifth too small; an autocorrelation of .2 lets 4 % of the variance be told from a row
    before.
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
        Scaled features, shape (T, D), rows with a NaN missing.
    steps
        Chain steps from the row before, shape (T,); 0 starts from the stationary distribution.
    probs
        Filtered probabilities p(z_t | x_1..t) of the same rows, shape (T, K).

    Raises
    ------
    FitError
        When the chain has no unique stationary distribution.
    """
    return forecast_residuals(params, X, predicted_probs(params, steps, probs))


def forecast_residuals(params: GaussianParams, X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`feature_residuals` from `predicted_probs`, shape (T, K); each row depends on itself only."""
    deviation = np.sqrt(np.diagonal(params.full_covars(), axis1=1, axis2=2))  # (K, D)
    observed = ~np.isnan(X).any(axis=1)
    residuals = np.full(X.shape, np.nan)
    for d in range(X.shape[1]):
        z = (X[observed, d, None] - params.means[:, d]) / deviation[:, d]  # (n, K)
        residuals[observed, d] = _normal_quantile(weights[observed], *_tails(z, ndtr(-np.abs(z))))
    return residuals


def predicted_probs(params: GaussianParams, steps: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """p(z_t | x_1..t-1) of every row from the filtered probabilities, shape (T, K).

    Row t is made of row t - 1 of `probs`, `steps[t]` chain steps on; the first row of a sequence is
    the stationary distribution. Raises FitError when that is not unique.
    """
    predicted = np.tile(params.stationary(), (len(probs), 1))
    for n in np.unique(steps[1:]):
        rows = np.flatnonzero(steps[1:] == n) + 1
        if n > 0:
            predicted[rows] = inference.predict(params.transmat, probs[rows - 1], int(n))
    return predicted


def return_residuals(
    yardstick: ReturnDensities | None, probs: np.ndarray, next_return: np.ndarray
) -> np.ndarray:
    """Pseudo-residuals of every bar's next return, shape (N,); NaN where there is no forecast.

    Parameters
    ----------
    probs
        Filtered state probabilities known at the bar's close, shape (N, K), NaN where none.
    next_return
        ln(C_{i+1} / C_i), shape (N,), NaN where none.
    """
    residuals = np.full(len(next_return), np.nan)
    if yardstick is None:
        return residuals
    scored = np.isfinite(next_return) & np.isfinite(probs).all(axis=1)
    z = (next_return[scored, None] - yardstick.loc) / yardstick.scale
    tails = _tails(z, stdtr(yardstick.df, -np.abs(z)))
    residuals[scored] = _normal_quantile(probs[scored], *tails)
    return residuals


def residual_effects(residuals: np.ndarray) -> ResidualEffects | None:
    """Effect sizes of one series of residuals (T,), NaN left out; None with fewer than `LEAST`."""
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
    """What a figure of residuals is drawn from, small enough to be kept with a run.

    Returns
    -------
    DataFrame
        Columns `series, kind, x, value`. Of kind `quantile`, x is a normal quantile and value that
        of the residuals; of kinds `memory` and `square_memory`, x is a lag in rows and value an
        autocorrelation. A series of fewer than `LEAST` residuals has no rows.
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
    """Squares of residuals, at most `FAR` squared, so that single rows do not decide; NaN stays."""
    return np.minimum(residuals**2, FAR**2)


def autocorrelation(x: np.ndarray, n_lags: int) -> np.ndarray:
    """Autocorrelations of lags 1..n_lags, shape (n_lags,), over pairs of rows that both exist.

    Zero for a series without variation, and for a lag without pairs.
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
    """Effects of a series that are too large for the model to be right, in words; [] if none.

    Every limit is widened by three standard errors of chance: 1.5 / sqrt(n) for a KS distance and
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


def _tails(z: np.ndarray, smaller: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(Z <= z) and P(Z > z) of a symmetric distribution, from the smaller of the two."""
    larger, below = 1.0 - smaller, z < 0.0
    return np.where(below, smaller, larger), np.where(below, larger, smaller)


def _normal_quantile(weights: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Phi^-1 of the mixture's distribution function, from both its tails, (n, K) each."""
    below, above = _mixture(weights, lower), _mixture(weights, upper)
    tail = np.maximum(np.minimum(below, above), _TINY)
    return np.where(below < above, ndtri(tail), -ndtri(tail))


def _mixture(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """sum_k weights[:, k] values[:, k], one state after the other: a row's bits are its own."""
    total = weights[:, 0] * values[:, 0]
    for k in range(1, weights.shape[1]):
        total = total + weights[:, k] * values[:, k]
    return total


def _ks_distance(z: np.ndarray) -> float:
    """Largest distance between the empirical and the normal distribution function."""
    uniform = ndtr(np.sort(z))
    n = len(uniform)
    steps = np.arange(n)
    return float(max((uniform - steps / n).max(), ((steps + 1) / n - uniform).max()))
