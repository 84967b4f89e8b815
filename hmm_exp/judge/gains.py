r"""Significance of a log score gain: HAC error, lower bound, bootstrap interval, reality check.

>>> estimate = estimate_gain(scores["model"] - scores["static"])        # one gain per bar
>>> estimate.mean, estimate.error, estimate.bound      # bound > 0: better than luck
>>> check = reality_check(np.array([cell.gain for cell in cells]))      # (M, N)
>>> check.best, check.p_spa

A gain is a series d_i, i = 1..n: the difference in score of two forecasts on bar i, in nats or in
units of loss. Its mean over its long-run error is the statistic of Diebold & Mariano (1995, Journal
of Business & Economic Statistics 13).

*Error.* With the weights of Newey & West (1987),

    error^2 = (1/n) sum_{|j| < S} (1 - |j| / S) c_j,      c_j the autocovariances of d,

which is the mean square of all sums over S neighbours, so it costs O(n). The window is fixed,
S = 3 sqrt(n). Automatic windows (Newey & West 1994, Andrews 1991) are based on the first dozen
autocorrelations. Gains of regimes have autocorrelations near .1 that last for hundreds of bars: on
hourly BTC the long-run variance is twice the variance by ten lags and five to nine times by
3 sqrt(n). With ten lags, 12 to 20 % of such worthless gains pass a test of 2.5 %.

*Bound.* A long window makes the error uncertain, and the critical values account for that (Kiefer &
Vogelsang 2005, Econometric Theory 21; Lazarus, Lewis, Stock & Watson 2018, Journal of Business &
Economic Statistics 36). `MULTIPLIERS` is simulated by `python -m benchmarks.critical_values` as the
worst of eight kinds of worthless gains: independent normal, Student-t with three degrees of freedom
and chi-square; autoregressions of .3, .7 and .9; slowly varying volatility; and a mean that changes
sign every 50 bars, with autocorrelations near .1 and a long-run variance of five times the
variance. The last kind decides up to 5,000 bars, so independent gains of 1,000 bars pass less often
than `level`: 3 to 4 % for 5 %, and 1 to 1.5 % for 2.5 %. No test separates a slower component from
a gain in few bars: of 1,200 bars with a change every 200, 8 % of samples pass 2.5 %.

*Bootstrap.* A sample of n bars consists of blocks with uniform starts and geometric lengths; the
series is circular (Politis & Romano 1994, Journal of the American Statistical Association 89).
Block sums come from cumulative sums, so a sample costs its number of blocks, not of bars. The mean
block length is S / 2, which weighs slow autocorrelations as the window does; the rule of Politis &
White (2004) misses autocorrelations that are faint and last. Intervals of 95 % cover the mean of
1,200 independent bars in 93 % of samples, and in 88 % if the gain depends on slow regimes.

*Reality check.* M cells have gains over one baseline on the same n bars. Their best mean is
compared with the best of M worthless cells; joint resampling keeps the dependence of the cells:

    White (2000, Econometrica 68)    V  = max_m mean_m
                                     V* = max_m e_m
    Hansen (2005, JBES 23), "SPA"    T  = max_m mean_m / s_m, at least 0
                                     T* = max_m (e_m + h_m) / s_m, at least 0

with e_m the error of a resampled mean, s_m the standard deviation of cell m's gain, and h_m = 0
unless the cell is hopeless, mean_m < -w_m sqrt(2 ln ln n) with w_m the bootstrap's standard error:
then h_m = mean_m. White's test is conservative if many bad cells were tried, Hansen's less so.
Hansen divides by w_m, which is so uncertain with a few dozen blocks that 12 to 14 % of worthless
sweeps pass 5 %; s_m scales the cells as well. Both p-values are (1 + draws at least as large) /
(1 + draws). Of worthless sweeps of 12 cells and 1,200 bars, 5 % of independent and 7 to 8 % of
slowly autocorrelated ones fall below .05.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.errors import ConfigError
from hmm_exp.judge.resampling import Draws, block_means, drawn_blocks
from hmm_exp.judge.split import SPLIT_NAMES, TEST, VAL

BARS = (100, 200, 500, 1000, 2000, 5000, 20_000)
MULTIPLIERS = {  # level: one value for each of BARS; their simulation error is .02 to .05
    0.05: (4.28, 3.51, 2.48, 2.15, 1.99, 1.83, 1.75),
    0.025: (5.31, 4.66, 3.12, 2.68, 2.38, 2.22, 2.12),
    0.01: (6.65, 5.90, 4.10, 3.38, 2.95, 2.63, 2.49),
}
NORMAL = {0.05: 1.6449, 0.025: 1.9600, 0.01: 2.3263}  # of infinitely many bars
HORIZON = 3.0  # window S in units of sqrt(n)
MIN_BARS = BARS[0]  # fewer give no usable error
LEVEL = 0.025
ROUNDING = 1e-9  # least error: a smaller gain is rounding
LEAST_KEPT = 0.25  # share of the variance below which blocks are too long for the series
_STILL = 1e-9  # a smaller deviation is rounding: the cell equals the baseline


@dataclass(frozen=True)
class GainEstimate:
    """A mean gain with its uncertainty, in the units of the gain."""

    n_bars: int  # scored bars
    mean: float  # mean gain per bar; positive is better
    error: float  # its standard error under autocorrelation
    bound: float  # one-sided lower bound; above zero for at most `level` of worthless forecasts
    low: float  # 95 % interval of the block bootstrap
    high: float  # 95 % interval of the block bootstrap

    def metrics(self, name: str) -> dict[str, float]:
        """Metrics `{name}`, `{name}_error`, `_bound`, `_low`, `_high`."""
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
        Gain per bar in time order, shape (N,). Unscored bars (NaN) are left out; the bars on
        either side count as neighbours.
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
        intervals = bootstrap_intervals(series, window(n) / 2, seed=seed, n_draws=n_draws)
        for i, gain, (low, high) in zip(places, series, intervals, strict=True):
            mean, error = float(gain.mean()), hac_error(gain)
            bound = mean - bound_multiplier(n, level) * error
            found[i] = GainEstimate(n, mean, error, bound, low, high)
    return found


def gain_metrics(
    gains: Mapping[str, np.ndarray], split: np.ndarray, parts: Sequence[int] = (VAL, TEST), **how
) -> dict[str, float]:
    """Metrics of several gains on several parts: `{gain}_{part}` and its uncertainty.

    Parameters
    ----------
    gains
        Gain per bar by name, such as `return_gain`, each of shape (N,).
    split
        Code of the part of every bar's target, shape (N,).
    parts
        Codes of the parts to report; a part with fewer than `MIN_BARS` scored bars is left out.
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


@dataclass(frozen=True)
class RealityCheck:
    """Test of the best of M cells against luck."""

    best: int  # row of the cell with the highest mean gain
    # `n_cells`, `n_bars`: cells tried, and bars scored by all of them.
    n_cells: int
    n_bars: int
    gain: float  # mean gain of the best
    # `p_white`, `p_spa`: p-values of White (2000) and Hansen (2005): probability of such a best
    # gain if all cells are worthless.
    p_white: float
    p_spa: float


def reality_check(gains: np.ndarray, *, seed: int = 0, n_draws: int = 1000) -> RealityCheck | None:
    """Test the best of M cells by the stationary bootstrap.

    Parameters
    ----------
    gains
        Gain per bar of every cell tried, including rejected cells that have a score, shape
        (M, N). A bar with NaN in any cell is left out of all.

    Returns
    -------
    RealityCheck or None
        None without cells or with fewer than `MIN_BARS` common bars.
    """
    gains = np.asarray(gains, dtype=np.float64)
    common = np.ascontiguousarray(gains[:, np.isfinite(gains).all(axis=0)].T)  # (n, M)
    n_bars, n_cells = common.shape
    if n_cells == 0 or n_bars < MIN_BARS:
        return None
    means = common.mean(axis=0)
    errors = bootstrap_errors(common, means, window(n_bars) / 2, seed, n_draws)
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
    """Hansen's consistent p-value, with every cell scaled by its `spread`."""
    limit = errors.std(axis=0) * math.sqrt(2.0 * math.log(math.log(n_bars)))
    hopeless = np.where(means < -limit, means, 0.0)
    statistic = max(float((means / spread).max()), 0.0)
    return _p_value(statistic, np.maximum(((errors + hopeless) / spread).max(axis=1), 0.0))


def _p_value(statistic: float, worthless: np.ndarray) -> float:
    return float((1 + np.count_nonzero(worthless >= statistic)) / (1 + len(worthless)))


def hac_error(gain: np.ndarray, lags: int | None = None) -> float:
    """Newey-West standard error of the mean of a complete series (n,).

    Parameters
    ----------
    gain
        In time order, complete.
    lags
        Window S: autocovariances up to lag S - 1 count. By default 3 sqrt(n).
    """
    n = len(gain)
    lags = window(n) if lags is None else lags
    deviation = np.ascontiguousarray(gain - gain.mean())
    return max(math.sqrt(_squared_window_sums(deviation, lags) / lags) / n, ROUNDING)


def window(n_bars: int) -> int:
    """The window S for a series of n bars."""
    return min(math.ceil(HORIZON * math.sqrt(n_bars)), n_bars)


def bound_multiplier(n_bars: int, level: float = LEVEL) -> float:
    """Critical value: errors between the mean of n bars and its one-sided lower bound.

    Linear in 1 / sqrt(n) between the simulated numbers of bars and the normal quantile at infinity;
    constant below the least simulated number. Raises ConfigError for a level that was not
    simulated.
    """
    if level not in MULTIPLIERS:
        raise ConfigError(f"level {level} has no simulated critical values: {list(MULTIPLIERS)}")
    places = [0.0, *(1.0 / math.sqrt(n) for n in reversed(BARS))]
    values = [NORMAL[level], *reversed(MULTIPLIERS[level])]
    return float(np.interp(1.0 / math.sqrt(n_bars), places, values))


@entry
def _squared_window_sums(x, width):
    """Sum of squared moving sums over `width` neighbours, partial windows at the ends included."""
    n = len(x)
    inside = total = 0.0
    for t in range(n + width - 1):
        if t < n:
            inside += x[t]
        if t >= width:
            inside -= x[t - width]
        total += inside * inside
    return total


def bootstrap_intervals(
    series: Sequence[np.ndarray],
    block: float,
    *,
    share: float = 0.95,
    seed: int = 0,
    n_draws: int = 1000,
) -> list[tuple[float, float]]:
    """Bootstrap intervals of the means of complete series (n,), with the same resampled bars.

    Parameters
    ----------
    series
        Each in time order, complete, of one length.
    block
        Mean block length, bars, at least 1.
    share
        Of the draws inside the interval.
    """
    means = np.array([x.mean() for x in series])
    errors = bootstrap_errors(np.column_stack(series), means, block, seed, n_draws)
    tails = [0.5 * (1.0 - share), 0.5 * (1.0 + share)]
    ends = means + quantiles(errors, tails)  # (2, M)
    return [(float(low), float(high)) for low, high in ends.T]


def quantiles(draws: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Quantiles of every column of draws (n, M), linear between two draws, (len(shares), M).

    `np.quantile` selects them along a column and takes three times as long as a sort.
    """
    ordered = np.sort(np.ascontiguousarray(draws.T), axis=1)
    place = np.array(shares) * (len(draws) - 1)
    below = np.floor(place).astype(np.intp)
    above, part = np.minimum(below + 1, len(draws) - 1), place - below
    return (ordered[:, below] + part * (ordered[:, above] - ordered[:, below])).T


def bootstrap_errors(
    x: np.ndarray, centre: np.ndarray, block: float, seed: int, n_draws: int
) -> np.ndarray:
    """Errors of jointly resampled means, shape (n_draws, M); arguments as in `bootstrap_means`.

    Widened by 1 / sqrt(1 - 2 block / n), since blocks vary less about the sample mean than about
    the true mean.
    """
    draws = bootstrap_means(x, block, centre=centre, seed=seed, n_draws=n_draws)
    kept = max(1.0 - 2.0 * block / len(x), LEAST_KEPT)
    return (draws - centre) / np.sqrt(kept)


def bootstrap_means(
    x: np.ndarray,
    block: float,
    *,
    centre: np.ndarray | None = None,
    seed: int = 0,
    n_draws: int = 1000,
) -> np.ndarray:
    """Means of `n_draws` joint resamples of M series, shape (n_draws, M).

    Parameters
    ----------
    x
        Series in time order, complete, shape (n, M).
    block
        Mean block length, bars, at least 1.
    centre
        Means of the series, shape (M,): only deviations from it are summed.
    """
    centre = x.mean(axis=0) if centre is None else centre
    sums = np.zeros((len(x) + 1, x.shape[1]))
    np.cumsum(x - centre, axis=0, out=sums[1:])
    blocks = drawn_blocks(Draws(len(x), block, n_draws, seed))
    return block_means(sums, *blocks) + centre
