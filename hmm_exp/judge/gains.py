r"""Resampled means of dependent series: the stationary bootstrap.

A draw of n bars is put together from blocks of neighbours whose starts are uniform and whose
lengths are geometric; the end of the series is followed by its start (Politis & Romano 1994,
Journal of the American Statistical Association 89). Block sums come from cumulative sums, so a
draw costs its number of blocks and not of bars.

The rule of Politis & White (2004) for the mean block length reads the first autocorrelations, and
misses what is faint and lasts; the caller says how long blocks are, for gains half of the window
of `significance.window`: the two then weigh slow autocorrelations alike.

Intervals of 95 % hold the mean of 1,200 independent bars in 93 % of samples, and in 88 % where slow
regimes are in the gain; what decides over a model is `significance.GainEstimate.bound`.

Example
-------
>>> bootstrap_interval(gain, block=100)
(0.031, 0.058)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.errors import ConfigError
from hmm_exp.judge.split import SPLIT_NAMES, TEST, VAL

LEAST_KEPT = 0.25  # share of the variance below which blocks are too long for the series


def bootstrap_interval(
    x: np.ndarray, block: float, *, share: float = 0.95, seed: int = 0, n_draws: int = 1000
) -> tuple[float, float]:
    """Interval of the mean of a complete series (n,): quantiles of `mean_errors` about it.

    Parameters
    ----------
    x
        In time order, complete.
    block
        Mean block length, bars, at least 1.
    share
        Of the draws inside the interval.
    """
    return _intervals([x], block, share=share, seed=seed, n_draws=n_draws)[0]


def _intervals(
    series: Sequence[np.ndarray], block: float, *, share: float = 0.95, seed: int, n_draws: int
) -> list[tuple[float, float]]:
    """`bootstrap_interval` of several series of one length, with the same resampled bars."""
    means = np.array([x.mean() for x in series])
    errors = _errors(np.column_stack(series), means, block, seed, n_draws)
    tails = [0.5 * (1.0 - share), 0.5 * (1.0 + share)]
    ends = [mean + np.quantile(error, tails) for mean, error in zip(means, errors.T, strict=True)]
    return [(float(low), float(high)) for low, high in ends]


def mean_errors(x: np.ndarray, block: float, *, seed: int = 0, n_draws: int = 1000) -> np.ndarray:
    """By how much resampled means miss the mean, (n_draws, M), arguments as in `bootstrap_means`.

    Widened by 1 / sqrt(1 - 2 block / n): blocks of a series about its own mean vary by so much less
    than those about the true mean.
    """
    return _errors(x, x.mean(axis=0), block, seed, n_draws)


def _errors(x: np.ndarray, centre: np.ndarray, block: float, seed: int, n_draws: int) -> np.ndarray:
    draws = _draws(x, centre, block, seed, n_draws)
    kept = max(1.0 - 2.0 * block / len(x), LEAST_KEPT)
    return (draws - centre) / np.sqrt(kept)


def bootstrap_means(
    x: np.ndarray, block: float, *, seed: int = 0, n_draws: int = 1000
) -> np.ndarray:
    """Means of `n_draws` resamples of M series, the same bars in all of them; (n_draws, M).

    Parameters
    ----------
    x
        Series in time order, complete, shape (n, M).
    block
        Mean block length, bars, at least 1.
    """
    return _draws(x, x.mean(axis=0), block, seed, n_draws)


def _draws(x: np.ndarray, centre: np.ndarray, block: float, seed: int, n_draws: int) -> np.ndarray:
    sums = np.zeros((len(x) + 1, x.shape[1]))
    np.cumsum(x - centre, axis=0, out=sums[1:])
    means = np.empty((n_draws, x.shape[1]))
    _fill_means(sums, block, np.random.default_rng(seed), means)
    return means + centre


def resampled(
    x: np.ndarray,
    block: float,
    length: int,
    *,
    seed: int | np.random.Generator = 0,
    n_draws: int = 1000,
) -> np.ndarray:
    """Stretches of `length` bars like those of a complete series (n,), shape (n_draws, length)."""
    out = np.empty((n_draws, length))
    _fill_stretches(np.ascontiguousarray(x), block, np.random.default_rng(seed), out)
    return out


@entry
def _fill_stretches(x, block, rng, out):
    """Neighbour after neighbour, and with chance 1 / block a jump to anywhere."""
    n = len(x)
    for draw in range(len(out)):
        at = int(rng.random() * n)
        for t in range(out.shape[1]):
            out[draw, t] = x[at]
            at = int(rng.random() * n) if rng.random() * block < 1.0 else (at + 1) % n


@entry
def _fill_means(sums, block, rng, means):
    """One resample after the other; sums (n + 1, M) are cumulative and start at zero."""
    n, M = len(sums) - 1, sums.shape[1]
    per_log = 0.0 if block <= 1.0 else 1.0 / np.log(1.0 - 1.0 / block)
    for draw in range(len(means)):
        means[draw] = 0.0
        left = n
        while left > 0:
            start = int(rng.random() * n)
            length = min(1.0 + np.floor(per_log * np.log(1.0 - rng.random())), float(left))
            left -= int(length)
            end = start + int(length)
            around = end > n  # at most once, as a block is at most n long
            for m in range(M):
                total = sums[min(end, n), m] - sums[start, m]
                means[draw, m] += total + sums[end - n, m] if around else total
        for m in range(M):
            means[draw, m] /= n


BARS = (100, 200, 500, 1000, 2000, 5000, 20_000)
MULTIPLIERS = {  # level: one value for each of BARS; their simulation error is .02 to .05
    0.05: (4.28, 3.51, 2.48, 2.15, 1.99, 1.83, 1.75),
    0.025: (5.31, 4.66, 3.12, 2.68, 2.38, 2.22, 2.12),
    0.01: (6.65, 5.90, 4.10, 3.38, 2.95, 2.63, 2.49),
}
NORMAL = {0.05: 1.6449, 0.025: 1.9600, 0.01: 2.3263}  # of infinitely many bars


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
    return estimate_gains([gain], level=level, seed=seed, n_draws=n_draws)[0]


def estimate_gains(
    gains: Sequence[np.ndarray], *, level: float = LEVEL, seed: int = 0, n_draws: int = 1000
) -> list[GainEstimate | None]:
    """`estimate_gain` of several gains; those scored on equally many bars share their draws."""
    scored = [np.asarray(gain, dtype=np.float64) for gain in gains]
    scored = [gain[np.isfinite(gain)] for gain in scored]
    found: list[GainEstimate | None] = [None] * len(scored)
    for n in {len(gain) for gain in scored if len(gain) >= MIN_BARS}:
        places = [i for i, gain in enumerate(scored) if len(gain) == n]
        series = [scored[i] for i in places]
        intervals = _intervals(series, window(n) / 2, seed=seed, n_draws=n_draws)
        for i, gain, (low, high) in zip(places, series, intervals, strict=True):
            mean, error = float(gain.mean()), hac_error(gain)
            bound = mean - bound_multiplier(n, level) * error
            found[i] = GainEstimate(n, mean, error, bound, low, high)
    return found


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
    masks = {part: split == part for part in parts}
    found = {
        part: estimate_gains([np.asarray(gain)[mask] for gain in gains.values()], **how)
        for part, mask in masks.items()
    }
    for i, name in enumerate(gains):
        for part in parts:
            estimate = found[part][i]
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


_STILL = 1e-9  # deviations below it are rounding: such a cell equals the baseline


@dataclass(frozen=True)
class RealityCheck:
    """How lucky the best of M cells would have to be.

    Attributes
    ----------
    best
        Row of the cell with the highest mean gain.
    n_cells, n_bars
        Cells tried, and bars that all of them score.
    gain
        Mean gain of the best.
    p_white, p_spa
        Share of samples of worthless cells whose best does as well, after White and Hansen.
    """

    best: int
    n_cells: int
    n_bars: int
    gain: float
    p_white: float
    p_spa: float


def reality_check(gains: np.ndarray, *, seed: int = 0, n_draws: int = 1000) -> RealityCheck | None:
    """Test the best of M cells by the stationary bootstrap.

    Parameters
    ----------
    gains
        Gain per bar of every cell tried, also the failed and ugly ones that have a score, shape
        (M, N); a bar with NaN in any cell is left out of all.

    Returns
    -------
    RealityCheck or None
        None without a cell, or with fewer than `MIN_BARS` common bars.
    """
    gains = np.asarray(gains, dtype=np.float64)
    common = np.ascontiguousarray(gains[:, np.isfinite(gains).all(axis=0)].T)  # (n, M)
    n_bars, n_cells = common.shape
    if n_cells == 0 or n_bars < MIN_BARS:
        return None
    means = common.mean(axis=0)
    errors = mean_errors(common, window(n_bars) / 2, seed=seed, n_draws=n_draws)
    best = int(means.argmax())
    return RealityCheck(
        best=best,
        n_cells=n_cells,
        n_bars=n_bars,
        gain=float(means[best]),
        p_white=_p_value(means.max(), errors.max(axis=1)),
        p_spa=_p_spa(means, errors, np.maximum(common.std(axis=0), _STILL), n_bars),
    )


def _p_spa(means: np.ndarray, errors: np.ndarray, spread: np.ndarray, n_bars: int) -> float:
    """Hansen's consistent p-value, every cell in units of `spread`."""
    limit = errors.std(axis=0) * math.sqrt(2.0 * math.log(math.log(n_bars)))
    hopeless = np.where(means < -limit, means, 0.0)
    statistic = max(float((means / spread).max()), 0.0)
    return _p_value(statistic, np.maximum(((errors + hopeless) / spread).max(axis=1), 0.0))


def _p_value(statistic: float, worthless: np.ndarray) -> float:
    return float((1 + np.count_nonzero(worthless >= statistic)) / (1 + len(worthless)))
