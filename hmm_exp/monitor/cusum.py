r"""Detect a fall of the mean of an autocorrelated series: the CUSUM chart of Page (1954).

With the series y_t, x_t = (y_t - mean) / spread cut to +-`LARGEST`, and an allowance a,

    C_t = max(0, C_{t-1} - x_t - a),      an alarm where C_t > threshold.

`spread` is the long-run deviation, the root of the sum of all autocovariances
(`gains.hac_error`), so that sums of x over many bars have the variance of independent ones; the
plain deviation would set the threshold of a correlated series far too low. C then is nearly a
Brownian motion reflected at zero, and with drift -a it takes

    (exp(u) - 1 - u) / (2 a^2) bars,      u = 2 a threshold,

until it crosses by chance (Reynolds 1975, Technometrics 17). The threshold is that of the wanted
number of bars, or the higher one that resampled stretches of the series need.
`benchmarks/monitor.py` measures the false alarms on stationary markets.

Example
-------
>>> chart = fit_chart(log_lik_held_out, chance=0.0125)
>>> chart.path(log_lik_live).max() > chart.threshold
"""

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.optimize import brentq

from hmm_exp.compiling import entry
from hmm_exp.judge.gains import hac_error, window
from hmm_exp.judge.resampling import Draws, stretches
from hmm_exp.stored.fields import Fields

HORIZON = 1000  # bars within which a false alarm has the given chance
ALLOWANCE = 0.1  # half of the fall per bar, in long-run deviations, that is worth an alarm
LARGEST = 5.0  # deviations that one bar counts at most: no bar alone is an alarm
MIN_BARS = 100  # fewer give no chart
_N_DRAWS = 1000


@dataclass(frozen=True)
class ControlChart:
    """A CUSUM chart of one series: its mean, its spread and the threshold of an alarm."""

    mean: float  # expected mean per bar, of bars cut to `LARGEST`
    spread: float  # long-run deviation of a bar
    allowance: float  # fall of the mean per bar that does not count, in `spread`
    threshold: float  # height of the path beyond which is an alarm, in `spread`

    def path(self, y: np.ndarray) -> np.ndarray:
        """The sum C after every bar, shape (N,); a NaN leaves it unchanged.

        C_t depends on y up to t alone, bit for bit.
        """
        y = np.ascontiguousarray(y, dtype=np.float64)
        return _fall(y, self.mean, self.spread, self.allowance)

    @property
    def upwards(self) -> "ControlChart":
        """Chart of -y, for a rise."""
        return ControlChart(-self.mean, self.spread, self.allowance, self.threshold)

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_stored(cls, stored: Fields) -> "ControlChart":
        """Read what `to_dict` gave. Raises ModelError."""
        positive = ("spread", "allowance", "threshold")
        stored.only(["mean", *positive])
        return cls(stored.number("mean"), *(stored.number(name, above=0.0) for name in positive))


def fit_chart(
    y: np.ndarray, *, chance: float, allowance: float = ALLOWANCE, seed: int = 0
) -> ControlChart:
    """Fit mean, spread and threshold to a series.

    Parameters
    ----------
    y
        In time order, at least `MIN_BARS` finite values; others are left out.
    chance
        Chance of a false alarm within `HORIZON` bars.
    allowance
        Widened by the error of the mean, 1 / sqrt(n).
    seed
        Seed of the resampling.
    """
    y = y[np.isfinite(y)]
    mean, spread = float(y.mean()), _spread(y)
    y = np.clip(y, mean - LARGEST * spread, mean + LARGEST * spread)
    mean, spread = float(y.mean()), _spread(y)
    allowance += 1.0 / math.sqrt(len(y))
    chart = ControlChart(mean, spread, allowance, threshold(chance, allowance))
    return _confirmed(chart, y, chance, seed)


def threshold(chance: float, allowance: float) -> float:
    """Height that a Brownian path of unit variance, drift -allowance crosses with this chance."""
    bars = HORIZON / chance
    u = brentq(lambda u: math.exp(u) - 1.0 - u - 2.0 * allowance**2 * bars, 1e-6, 100.0)
    return float(u) / (2.0 * allowance)


def _spread(y: np.ndarray) -> float:
    return hac_error(y) * math.sqrt(len(y))


def _confirmed(chart: ControlChart, y: np.ndarray, chance: float, seed: int) -> ControlChart:
    """Raise the threshold where resampled stretches of `y` cross it too often.

    Blocks are half as long as the window of `spread`, as in `gains.estimate_gain`.
    """
    z = np.clip((y - chart.mean) / chart.spread, -LARGEST, LARGEST)
    places = stretches(Draws(len(z), window(len(z)) / 2, _N_DRAWS, seed), HORIZON)
    highest = float(np.quantile(_maxima(z, places, chart.allowance), 1.0 - chance))
    return replace(chart, threshold=max(chart.threshold, highest))


@entry
def _fall(y, mean, spread, allowance):
    out = np.empty(len(y))
    total = 0.0
    for t in range(len(y)):
        if not np.isnan(y[t]):
            x = min(max((y[t] - mean) / spread, -LARGEST), LARGEST)
            total = max(0.0, total - x - allowance)
        out[t] = total
    return out


@entry
def _maxima(z, places, allowance):
    """The highest sum C of each sample z[places[i]], (n,), eight samples at a time."""
    n, T = places.shape
    out = np.zeros(n)
    for first in range(0, n, 8):
        sums = np.zeros(8)
        last = min(n, first + 8)
        for t in range(T):
            for i in range(first, last):
                total = max(0.0, sums[i - first] - z[places[i, t]] - allowance)
                sums[i - first] = total
                out[i] = max(out[i], total)
    return out
