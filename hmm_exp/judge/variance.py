r"""Variance forecasts of the next bar, measured by QLIKE against two proxies.

What the model says of the next bar's variance, and what the two baselines say, up to one factor:

    model     sum_k p_ik scale_k^2          static    1          ewma    s_i  of `ewma.py`

The factor, the level, is fitted on train for each forecast and each proxy alike, as the mean of
proxy / shape, which minimises QLIKE. A level taken from the densities would be df / (df - 2), which
explodes where the tails are fattest (df is 3 on hourly BTC, and may be 2.05); a variance for every
state refitted by weighted moments would be drawn towards the middle wherever probabilities are
soft. Locations are left out: their squares are thousandths of the variance.

The proxies of bar i + 1 are its squared log return and Parkinson's ln(H / L)^2 / (4 ln 2), which is
several times less noisy. The loss of forecast h against proxy v is Patton's (2011, Journal of
Econometrics 160)

    QLIKE = v / h + ln h,

the one that ranks forecasts as the true variance would and hardly minds outliers. (The form
v/h - ln(v/h) - 1 has the same differences and does not exist for a bar that stood still.) Proxy and
forecast are in units of the mean proxy of train, so the losses bear no units and QLIKE is 1 for the
static forecast on train.

Example
-------
>>> shapes = variance_shapes(yardstick, baselines, probs, next_return)
>>> losses = variance_losses(shapes, next_parkinson(high, low, next_return), train)
>>> variance_gains(losses)["variance_gain"]         # positive: better than the static forecast
"""

import math

import numpy as np
import pandas as pd

from hmm_exp.compiling import entry
from hmm_exp.errors import FitError
from hmm_exp.judge.return_forecasts import Baselines, Ewma, ReturnDensities


def variance_shapes(
    yardstick: ReturnDensities | None,
    baselines: Baselines,
    probs: np.ndarray,
    next_return: np.ndarray,
) -> pd.DataFrame:
    """Forecasts of every bar's next variance, up to one factor for each.

    Parameters
    ----------
    probs
        Filtered state probabilities known at the bar's close, shape (N, K), NaN where none.
    next_return
        ln(C_{i+1} / C_i) of consecutive bars, shape (N,), NaN where none.

    Returns
    -------
    DataFrame
        Columns `model, static, ewma`, N rows; row i depends on bars up to i alone. A forecast that
        has no fit is NaN; `static` needs none.
    """
    none, ewma = np.full(len(next_return), np.nan), baselines.ewma
    return pd.DataFrame(
        {
            "model": none if yardstick is None else _mixed(probs, yardstick.scale**2),
            "static": np.ones(len(next_return)),
            "ewma": none if ewma is None else ewma_variance(ewma, next_return),
        }
    )


def ewma_variance(ewma: Ewma, next_return: np.ndarray) -> np.ndarray:
    """The recursion's s_i known at every bar's close, (log return)^2 per bar, shape (N,).

    As low as the floor of the density's scale, so that a market that stands still has a variance.
    """
    least = (ewma.floor / ewma.scale) ** 2
    returns = np.ascontiguousarray(next_return, dtype=np.float64)
    return np.maximum(_ewma_variance(returns, ewma.decay, ewma.initial), least)


def next_parkinson(high: np.ndarray, low: np.ndarray, next_return: np.ndarray) -> np.ndarray:
    """Parkinson's variance of the next bar, (log return)^2 per bar, shape (N,).

    Parameters
    ----------
    high, low
        Of the base bars, shape (N,).
    next_return
        NaN where the next bar is not scored: there the result is NaN too.
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
        Squared return or range variance of the next bar, shape (N,), NaN where none; zeros are
        legal.
    train
        Mask of bars whose target is in train, shape (N,).

    Returns
    -------
    DataFrame
        The columns of `shapes`; rows that lack the proxy or one of the forecasts that were made
        are NaN throughout, a forecast that was never made is NaN on all.

    Raises
    ------
    FitError
        No train bar is complete, or the proxy is zero on all of them.
    """
    forecasts = shapes.to_numpy()
    made = np.isfinite(forecasts).any(axis=0)
    complete = np.isfinite(forecasts[:, made]).all(axis=1) & np.isfinite(proxy)
    fitted = complete & train
    if not (proxy[fitted] > 0.0).any():
        raise FitError(f"no variance on the {int(fitted.sum())} train bars that have a forecast")
    unit = proxy[fitted].mean()
    level = (proxy[fitted, None] / forecasts[fitted]).mean(axis=0)
    losses = np.full_like(forecasts, np.nan)
    scaled = forecasts[complete] * level / unit
    losses[complete] = proxy[complete, None] / unit / scaled + np.log(scaled)
    return pd.DataFrame(losses, columns=shapes.columns, index=shapes.index)


def variance_gains(losses: pd.DataFrame) -> dict[str, np.ndarray]:
    """By how much the model's loss is lower, per bar, over the static and over the EWMA variance.

    For `significance.gain_metrics`: `variance_gain` and `ewma_variance_gain`, shape (N,) each.
    """
    model = losses["model"].to_numpy()
    return {
        "variance_gain": losses["static"].to_numpy() - model,
        "ewma_variance_gain": losses["ewma"].to_numpy() - model,
    }


def _mixed(probs: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """sum_k p_ik squares_k, one state after the other: a row's bits are its own."""
    total = probs[:, 0] * squares[0]
    for k in range(1, len(squares)):
        total = total + probs[:, k] * squares[k]
    return total


@entry
def _ewma_variance(next_return, decay, initial):
    out = np.empty(len(next_return))
    s = initial
    for i in range(len(next_return)):
        out[i] = s
        r = next_return[i]
        if not np.isnan(r):
            s = decay * s + (1.0 - decay) * r * r
    return out
