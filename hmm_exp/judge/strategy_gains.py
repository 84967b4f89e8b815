r"""Differences of strategies from buy and hold: intervals, and p-values for the whole family.

>>> found = differences(net, per_year)                    # (M, n): row 0 is buy and hold
>>> found.estimate[1], found.p_value[1]

Two measures of every row, from net returns r_t of the judged bars and per_year bars a year:

    mean     per_year (mean(r) - mean(r_hold))
    Sharpe   sqrt(per_year) (mean(r) / sd(r) - mean(r_hold) / sd(r_hold))

The Sharpe ratio is a smooth function of means, so its error is the mean of its influence function
(Jobson & Korkie 1981, Journal of Finance 36; Ledoit & Wolf 2008, Journal of Empirical Finance 15),

    psi_t = sqrt(per_year) (z_t - S / 2 (z_t^2 - 1)),     z_t = (r_t - mean) / sd,  S = mean / sd,

and a difference of Sharpe ratios has the difference of both. Both measures therefore are means of
series, which the stationary bootstrap of `gains.py` resamples jointly (Politis & Romano 1994), with
its block length; intervals hold 95 % of the resampled errors.

*Family.* All rows and both measures are tested together, since a reader picks the best of them.
With estimates t_m, resampled errors e_m and s_m the standard deviation of series m, the adjusted
p-value of the upper side is the chance of max_m e_m / s_m >= t_m / s_m: the studentised single-step
maximum of Romano & Wolf (2005, Econometrica 73), which for the best row is White's reality check
(2000). `gains.py` explains why s_m scales and not the error of the mean. A row that equals buy and
hold differs by nothing and counts; the Sharpe ratio of a row that is always in cash is unknown and
does not.
"""

from dataclasses import dataclass

import numpy as np

from hmm_exp.judge.gains import bootstrap_errors, quantiles, window

MEASURES = ("return", "sharpe")
N_DRAWS = 10_000
SHARE = 0.95  # of the resampled errors inside an interval
_STILL = 1e-12  # a smaller deviation is rounding: the row equals buy and hold


@dataclass(frozen=True, eq=False)
class Differences:
    """Differences from buy and hold, arrays of shape (M, 2), columns `MEASURES`, NaN if unknown.

    Attributes
    ----------
    estimate
        A year, of simple returns; of Sharpe ratios.
    low, high
        Its 95 % interval.
    p_value
        One-sided, of a gain, adjusted for the family.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray


def differences(
    net: np.ndarray, per_year: float, *, seed: int = 0, n_draws: int = N_DRAWS
) -> Differences:
    """Compare strategies with buy and hold.

    Parameters
    ----------
    net
        Net simple returns of the judged bars, shape (M, n); row 0 is buy and hold, whose own
        differences are NaN.
    per_year
        Bars a year.
    """
    means, sharpes = per_year * net, np.stack([_sharpe_series(row, per_year) for row in net])
    series = np.stack([means[1:] - means[0], sharpes[1:] - sharpes[0]], axis=2)  # (M-1, n, 2)
    flat = series.transpose(1, 0, 2).reshape(net.shape[1], -1)
    known = np.isfinite(flat).all(axis=0)
    found = np.full((4, flat.shape[1]), np.nan)
    found[:, known] = _compare(np.ascontiguousarray(flat[:, known]), seed, n_draws)
    none = np.full((1, len(MEASURES)), np.nan)
    return Differences(*(np.vstack([none, part.reshape(-1, len(MEASURES))]) for part in found))


def _compare(series: np.ndarray, seed: int, n_draws: int) -> np.ndarray:
    """Estimates, interval ends and adjusted p-values of means of series (n, F), shape (4, F)."""
    estimate = series.mean(axis=0)
    errors = bootstrap_errors(series, estimate, window(len(series)) / 2, seed, n_draws)
    low, high = quantiles(errors, [0.5 * (1 - SHARE), 0.5 * (1 + SHARE)])
    spread = series.std(axis=0)
    differs = spread > _STILL
    best = (errors[:, differs] / spread[differs]).max(axis=1, initial=0.0)
    reached = np.array([np.count_nonzero(best >= t) for t in estimate / np.maximum(spread, _STILL)])
    p_value = np.where(differs, (1 + reached) / (1 + n_draws), 1.0)
    return np.stack([estimate, estimate + low, estimate + high, p_value])


def _sharpe_series(net: np.ndarray, per_year: float) -> np.ndarray:
    """A series whose mean is the yearly Sharpe ratio and whose deviations are its influence."""
    mean, deviation = net.mean(), net.std(ddof=1)
    if not deviation > _STILL:
        return np.full(len(net), np.nan)
    z, ratio = (net - mean) / net.std(), mean / deviation
    return np.sqrt(per_year) * (ratio + z - 0.5 * ratio * (z**2 - 1.0))
