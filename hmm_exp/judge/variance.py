r"""QLIKE of variance forecasts of the next bar: model, static and EWMA.

>>> shapes = variance_shapes(densities, baselines, probs, series)
>>> losses = variance_losses(shapes, next_parkinson(high, low, next_return), train)
>>> variance_gains(losses)["variance_gain"]         # positive: better than the static forecast

The forecasts are, up to one factor each,

    model     sum_k p_ik scale_k^2          static    1          ewma    s_i

with s_i the EWMA variance of `volatility_baselines`. The factor, the level, is the train mean of
proxy / shape for each forecast and proxy; it minimises QLIKE. The variance of the fitted densities
would not do as a level: its df / (df - 2) explodes for fat tails (df is 3 on hourly BTC, and may be
2.05). Moments weighted by soft probabilities would pull all states towards the middle. Locations
are left out, as their squares are thousandths of the variance.

The proxies of bar i + 1 are its squared log return and Parkinson's ln(H / L)^2 / (4 ln 2), which is
several times less noisy. The loss of forecast h for proxy v is (Patton 2011, Journal of
Econometrics 160)

    QLIKE = v / h + ln h,

which ranks forecasts as the true variance would and is robust to outliers. (The form
v/h - ln(v/h) - 1 has the same differences and is undefined for a bar without movement.) Proxy and
forecast are in units of the mean train proxy, so QLIKE is 1 for the static forecast on train.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from hmm_exp.errors import FitError
from hmm_exp.judge.bar_series import BarSeries
from hmm_exp.judge.return_forecasts import Baselines, ReturnDensities, mix


def variance_shapes(
    densities: ReturnDensities | None,
    baselines: Baselines,
    probs: np.ndarray,
    series: BarSeries,
) -> pd.DataFrame:
    """Forecasts of every bar's next variance, each up to one factor.

    Parameters
    ----------
    probs
        Filtered state probabilities known at the bar's close, shape (N, K), NaN if unknown.
    series
        The base bars.

    Returns
    -------
    DataFrame
        Columns `model, static, ewma`, N rows; row i depends on bars up to i alone. A forecast
        without a fit is NaN; `static` needs no fit.
    """
    return pd.DataFrame(shapes_of_bars(densities, baselines, probs, series))


def shapes_of_bars(
    densities: ReturnDensities | None,
    baselines: Baselines,
    probs: np.ndarray,
    series: BarSeries,
) -> dict[str, np.ndarray]:
    """Columns of `variance_shapes` by name, (N,) each. Not to be changed: a series keeps some."""
    n_bars, ewma = len(series.next_return), baselines.volatility.get("ewma")
    none = np.full(n_bars, np.nan)
    return {
        "model": none if densities is None else mix(probs, densities.scale**2),
        "static": np.ones(n_bars),
        "ewma": none if ewma is None else ewma.variance(series),
    }


def next_parkinson(high: np.ndarray, low: np.ndarray, next_return: np.ndarray) -> np.ndarray:
    """Parkinson's variance of the next bar, (log return)^2 per bar, shape (N,).

    Parameters
    ----------
    high, low
        Of the base bars, shape (N,).
    next_return
        NaN where the next bar is not scored; the result is NaN there too.
    """
    variance = np.append(np.log(high[1:] / low[1:]) ** 2, np.nan) / (4.0 * math.log(2.0))
    return np.where(np.isfinite(next_return), variance, np.nan)


def variance_losses(shapes: pd.DataFrame, proxy: np.ndarray, train: np.ndarray) -> pd.DataFrame:
    """QLIKE of every forecast on every bar, each with its level fitted on train.

    Parameters
    ----------
    shapes
        From `variance_shapes`.
    proxy
        Squared return or range variance of the next bar, shape (N,), NaN if unknown. Zeros are
        valid.
    train
        Mask of bars whose target is in train, shape (N,).

    Returns
    -------
    DataFrame
        The columns of `shapes`. A row without the proxy or one of the fitted forecasts is NaN; a
        forecast without a fit is NaN on all rows.

    Raises
    ------
    FitError
        No train bar is complete, or the proxy is zero on all of them.
    """
    forecasts = {str(name): shapes[name].to_numpy() for name in shapes}
    return pd.DataFrame(losses_of_bars(forecasts, proxy, train), index=shapes.index)


def losses_of_bars(
    forecasts: Mapping[str, np.ndarray], proxy: np.ndarray, train: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of `variance_losses` by name, (N,) each, from those of `shapes`. Raises FitError."""
    known = {name: np.isfinite(forecast) for name, forecast in forecasts.items()}
    made = [mask for mask in known.values() if mask.any()]
    complete = np.logical_and.reduce([np.isfinite(proxy), *made])
    fitted = complete & train
    on_train = proxy[fitted]
    if not (on_train > 0.0).any():
        raise FitError(f"no variance on the {len(on_train)} train bars that have a forecast")
    unit, losses = on_train.mean(), {}
    gap = None if complete.all() else ~complete
    for name, forecast in forecasts.items():
        ratio = proxy / forecast
        level = ratio[fitted].mean()
        losses[name] = ratio / level + np.log(forecast * (level / unit))
        if gap is not None:
            losses[name][gap] = np.nan
    return losses


def variance_gains(
    losses: pd.DataFrame | Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Reduction of the loss per bar by the model, relative to the static and the EWMA variance.

    `variance_gain` and `ewma_variance_gain` of shape (N,), for `gains.gain_metrics`.
    """
    model, static, ewma = (np.asarray(losses[name]) for name in ("model", "static", "ewma"))
    return {"variance_gain": static - model, "ewma_variance_gain": ewma - model}
