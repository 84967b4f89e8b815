r"""Whether a gain is more than luck: its standard error under autocorrelation, and a lower bound.

A gain is a series d_i, i = 1..n: by how much one forecast scores better than another on bar i, in
nats or in units of loss. Its mean over the long-run error is the statistic of Diebold & Mariano
(1995, Journal of Business & Economic Statistics 13), with the weights of Newey & West (1987)

    error^2 = (1/n) sum_{|j| < S} (1 - |j| / S) c_j,      c_j the autocovariances of d,

which is the mean square of all sums over S neighbours, so it costs O(n).

The window is fixed, S = 3 sqrt(n). Automatic ones (Newey & West 1994, Andrews 1991) look at the
first dozen autocorrelations, and gains of regimes fool them: each autocorrelation is near .1, but
they last for hundreds of bars. On hourly BTC the long-run variance is twice the variance by ten
lags and five to nine times by 3 sqrt(n). A window of ten lags lets 13 % to 20 % of worthless
such gains pass a test of 2.5 %. A long window makes the error itself uncertain; critical values
that know of it pay for that (Kiefer & Vogelsang 2005, Econometric Theory 21; Lazarus, Lewis, Stock
& Watson 2018, Journal of Business & Economic Statistics 36). They are simulated, for fat tails,
skewness and slow regimes in the gain: see `critical_values.py`.

Example
-------
>>> estimate = estimate_gain(scores["model"] - scores["static"])
>>> estimate.mean, estimate.error, estimate.bound      # bound > 0: better than luck
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.errors import ConfigError
from hmm_exp.experiment.bootstrap import bootstrap_interval
from hmm_exp.experiment.critical_values import BARS, MULTIPLIERS, NORMAL
from hmm_exp.experiment.split import SPLIT_NAMES, TEST, VAL

HORIZON = 3.0  # window S in units of sqrt(n)
MIN_BARS = BARS[0]  # fewer carry no error worth the name
LEVEL = 0.025
ROUNDING = 1e-9  # least error: a gain below it is rounding


@dataclass(frozen=True)
class GainEstimate:
    """A mean gain with its uncertainty, in the units of the gain.

    Attributes
    ----------
    n_bars
        Bars that were scored.
    mean
        Mean gain per bar; positive is better.
    error
        Its standard error under autocorrelation.
    bound
        One-sided lower bound: above zero in at most `level` of worthless gains.
    low, high
        95 % interval of the block bootstrap.
    """

    n_bars: int
    mean: float
    error: float
    bound: float
    low: float
    high: float

    def metrics(self, name: str) -> dict[str, float]:
        """Flat names of a run record: `{name}`, `{name}_error`, `_bound`, `_low`, `_high`."""
        return {
            name: self.mean,
            f"{name}_error": self.error,
            f"{name}_bound": self.bound,
            f"{name}_low": self.low,
            f"{name}_high": self.high,
        }


def estimate_gain(
    gain: np.ndarray, *, level: float = LEVEL, seed: int = 0, n_draws: int = 1000
) -> GainEstimate | None:
    """Mean of a gain with its error, lower bound and bootstrap interval.

    Parameters
    ----------
    gain
        Gain per bar in time order, shape (N,). NaN (not scored) is left out, and the bars on
        both sides of it count as neighbours.
    level
        Of the lower bound, one-sided: .05, .025 or .01.
    seed, n_draws
        Of the bootstrap.

    Returns
    -------
    GainEstimate or None
        None with fewer than `MIN_BARS` scored bars.
    """
    gain = np.asarray(gain, dtype=np.float64)
    gain = gain[np.isfinite(gain)]
    if len(gain) < MIN_BARS:
        return None
    mean, error = float(gain.mean()), hac_error(gain)
    low, high = bootstrap_interval(gain, window(len(gain)) / 2, seed=seed, n_draws=n_draws)
    bound = mean - bound_multiplier(len(gain), level) * error
    return GainEstimate(len(gain), mean, error, bound, low, high)


def gain_metrics(
    gains: Mapping[str, np.ndarray],
    split: np.ndarray,
    parts: Sequence[int] = (VAL, TEST),
    **how,
) -> dict[str, float]:
    """Metrics of several gains on several parts: `{gain}_{part}` and what belongs to it.

    Parameters
    ----------
    gains
        Gain per bar by name, such as `return_gain`, each of shape (N,).
    split
        Code of the part that every bar's target is in, shape (N,).
    parts
        Codes of the parts to report; one with fewer than `MIN_BARS` scored bars is left out.
    **how
        As for `estimate_gain`.
    """
    metrics: dict[str, float] = {}
    for name, gain in gains.items():
        for part in parts:
            estimate = estimate_gain(np.asarray(gain)[split == part], **how)
            if estimate is not None:
                metrics |= estimate.metrics(f"{name}_{SPLIT_NAMES[part]}")
    return metrics


def hac_error(gain: np.ndarray, lags: int | None = None) -> float:
    """Newey-West standard error of the mean of a complete series (n,).

    Parameters
    ----------
    gain
        In time order, complete.
    lags
        Window S: autocovariances of up to S - 1 bars count. By default 3 sqrt(n).
    """
    n = len(gain)
    lags = window(n) if lags is None else lags
    deviation = np.ascontiguousarray(gain - gain.mean())
    return max(math.sqrt(_squared_window_sums(deviation, lags) / lags) / n, ROUNDING)


def window(n_bars: int) -> int:
    """The window S for a series of n bars."""
    return min(math.ceil(HORIZON * math.sqrt(n_bars)), n_bars)


def bound_multiplier(n_bars: int, level: float = LEVEL) -> float:
    """How many errors the one-sided lower bound lies below the mean of n bars.

    Linear in 1 / sqrt(n) between the simulated numbers of bars, and on to the normal quantile of
    infinitely many. Below the least number it stays what it is there.

    Raises
    ------
    ConfigError
        For a level that was not simulated.
    """
    if level not in MULTIPLIERS:
        raise ConfigError(f"level {level} has no simulated critical values: {list(MULTIPLIERS)}")
    places = [0.0, *(1.0 / math.sqrt(n) for n in reversed(BARS))]
    values = [NORMAL[level], *reversed(MULTIPLIERS[level])]
    return float(np.interp(1.0 / math.sqrt(n_bars), places, values))


@entry
def _squared_window_sums(x, width):
    """Sum of squares of the sums over `width` neighbours, those at the ends shorter."""
    n = len(x)
    inside = total = 0.0
    for t in range(n + width - 1):
        if t < n:
            inside += x[t]
        if t >= width:
            inside -= x[t - width]
        total += inside * inside
    return total
