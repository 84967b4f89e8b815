r"""Significance over many symbols: a p-value per symbol, and control of the false discovery rate.

>>> table = judge_panel({"BTC": gains_of_btc, "ETH": gains_of_eth}, fdr=0.05)
>>> table.loc["BTC", "p"], table.loc["BTC", "promoted"]

Each value is a table of gains: one row per bar, one column per gain that the gate asks for, as in
`gains.py`. One symbol in memory suffices: a mapping may load its values when they are asked for.

*Symbol.* "All gains are above zero" is the alternative to "at least one is not". The largest
p-value of the gains tests it, whatever their dependence (Berger 1982, Technometrics 24).

*Gain.* The p-value of one gain is the larger of two, both from t = mean / error with `hac_error`:

1. The share of bootstrap samples with t* >= t, where t* is the error of a resampled mean over the
   HAC error of the same sample. Gonçalves & Vogelsang (2011, Econometric Theory 27) show for blocks
   of one length that this "naive" studentisation reproduces the uncertainty of the HAC error.
2. The level at which the lower bound of `estimate_gain` is zero, so that a gain with a p-value
   below .05, .025 or .01 has a lower bound above zero at that level. Between and beyond the
   simulated levels, the quantile of Student's t with 1.5 n / S degrees of freedom, those of a
   Bartlett window (Lazarus, Lewis, Stock & Watson 2018), is linear in t.

The bootstrap alone is too optimistic far from the centre: of 50 worthless symbols of 4,000 bars it
promotes some in 9 % of panels at a rate of 5 %, and of 11,000 worthless gains of 1,000 bars .25 %
have a p-value up to .1 %. The second p-value is based on the worst of eight kinds of worthless
gains and corrects this. The first one follows the tails and skewness of the gain itself.

*Bootstrap.* A sample is that of the stationary bootstrap (Politis & Romano 1994), with the block
length of `gains.py`. Its blocks are common to all symbols: block k of draw b starts at the same
instant of the panel's calendar for every symbol, and its length comes from the same random number.
A bar represents the instants within one usual step (the median spacing) up to its own. A symbol
without such a bar passes on to the next block, and each symbol takes blocks until its sample has as
many bars as its series. So spans, gaps and steps may differ. Symbols with equal bars have equal
samples, and a symbol whose bars represent equally many instants has the samples of its own
stationary bootstrap. The random numbers are a function of seed, draw and block (SplitMix64: Steele,
Lea & Flood 2014, OOPSLA). A symbol's p-value therefore needs the calendar, not the other symbols,
and memory does not grow with their number.

*Error of a sample.* It is based on sums over `_CELLS`-ths of the window. Its weights are those of
`hac_error` on average over the position of the cells; of 4,000 bars it deviates by .6 %.

*Tail.* With fewer than ten exceedances, p < .001 of 10,000 draws, a generalised Pareto distribution
of the largest 2.5 % of the draws gives the p-value (Knijnenburg, Wessels, Reinders & Shmulevich
2009, Bioinformatics 25). Its shape is at least zero, since a finite end point would make p zero.
The fit is to squares: those of a normal statistic have an exponential tail, those of Student's t a
Pareto tail. Without squares, a normal p-value of .00001 becomes six times too large.

*Panel.* Benjamini & Hochberg (1995, JRSS B 57) limit the expected share of false promotions for
independent or positively dependent p-values, Benjamini & Yekutieli (2001, Annals of Statistics 29)
for any dependence. Both need the p-values alone. Where no symbol has a gain, every promotion is
false, and the limit is that of the chance to promote anything.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, genpareto
from scipy.stats import t as student_t

from hmm_exp.compiling import entry, kernel
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.judge.gains import MIN_BARS, MULTIPLIERS, ROUNDING, bound_multiplier, hac_error, window

N_DRAWS = 10_000
_CELLS = 16  # sums per window in the error of a sample
_FEW = 10  # exceedances below which the tail is fitted
_TAIL = 0.025  # share of the draws that the tail is fitted to


def judge_panel(
    gains: Mapping[str, pd.DataFrame], fdr: float = 0.05, *, seed: int = 0, n_draws: int = N_DRAWS
) -> pd.DataFrame:
    """Choose the symbols whose gains are all above zero, at a limited false discovery rate.

    Parameters
    ----------
    gains
        Per symbol the gain per bar, one column per gain, index the instants of the bars in time
        order. NaN: not scored. Every value is read twice.
    fdr
        Largest expected share of false promotions.
    seed, n_draws
        Of the bootstrap.

    Returns
    -------
    DataFrame
        As `promotions`, index the symbols.

    Raises
    ------
    ConfigError
        `fdr` is not between 0 and 1.
    DataError
        The instants of a symbol are not in time order.
    """
    calendar = calendar_of(table.index for table in gains.values())
    found = {
        symbol: symbol_p_value(gains[symbol], calendar, seed=seed, n_draws=n_draws)
        for symbol in gains
    }
    return promotions(pd.Series(found, name="p", dtype=float), fdr)


def promotions(p_values: pd.Series, fdr: float = 0.05) -> pd.DataFrame:
    """Table of adjusted p-values (q) and promotions.

    Parameters
    ----------
    p_values
        By symbol. A symbol without one (NaN) is not promoted and does not count.
    fdr
        Largest q of a promotion by Benjamini & Hochberg.

    Returns
    -------
    DataFrame
        Columns `p`, `q_bh` and `q_by` (Benjamini & Yekutieli), `promoted`; same index.

    Raises
    ------
    ConfigError
        `fdr` is not between 0 and 1.
    """
    if not 0.0 < fdr < 1.0:
        raise ConfigError(f"gate.fdr={fdr}: must be above 0 and below 1")
    known = p_values.dropna()
    q = {name: false_discovery_control(known, method=name) for name in ("bh", "by")}
    table = pd.DataFrame({"p": known, "q_bh": q["bh"], "q_by": q["by"]}).reindex(p_values.index)
    return table.assign(promoted=table["q_bh"] <= fdr)


def calendar_of(indexes: Iterable[pd.Index]) -> pd.DatetimeIndex:
    """All instants at which at least one symbol has a bar, in time order."""
    instants = (pd.DatetimeIndex(index).as_unit("ns") for index in indexes)
    calendar = next(instants, pd.DatetimeIndex([]))
    for index in instants:
        calendar = calendar.union(index)
    return calendar


def symbol_p_value(
    gains: pd.DataFrame, calendar: pd.DatetimeIndex, *, seed: int = 0, n_draws: int = N_DRAWS
) -> float:
    """P-value of "all gains of this symbol are above zero": the largest of their p-values.

    Parameters
    ----------
    gains
        As in `judge_panel`.
    calendar
        Instants of the panel, from `calendar_of`.
    seed, n_draws
        Of the bootstrap; symbols with the same numbers share their blocks.

    Returns
    -------
    float
        NaN if a gain has fewer than `MIN_BARS` scored bars, or if there is no gain.

    Raises
    ------
    DataError
        The instants are not in time order, or not in the calendar.
    """
    index = pd.DatetimeIndex(gains.index).as_unit("ns")
    if not (index.is_monotonic_increasing and index.is_unique):
        raise DataError("the instants of a panel's gains must rise from bar to bar")
    if len(missing := index.difference(calendar)):
        raise DataError(f"{len(missing)} bars are not in the panel's calendar, first {missing[0]}")
    found = []
    for _, gain in gains.items():
        scored = np.isfinite(gain.to_numpy(np.float64))
        if scored.sum() < MIN_BARS:
            return math.nan
        places = _places(index.asi8[scored], calendar.as_unit("ns").asi8)
        found.append(_p_value(gain.to_numpy(np.float64)[scored], places, seed, n_draws))
    return max(found, default=math.nan)


def _p_value(gain: np.ndarray, places: np.ndarray, seed: int, n_draws: int) -> float:
    statistic = float(gain.mean()) / hac_error(gain)
    worthless = bootstrap_statistics(gain, places, seed=seed, n_draws=n_draws)
    return max(tail_p_value(statistic, worthless), bound_p_value(statistic, len(gain)))


def bound_p_value(statistic: float, n_bars: int) -> float:
    """Level at which the lower bound of a gain is zero.

    Parameters
    ----------
    statistic
        Mean gain over its `hac_error`.
    n_bars
        Scored bars.
    """
    levels = sorted(MULTIPLIERS, reverse=True)
    t = np.array([0.0, *(bound_multiplier(n_bars, level) for level in levels)])
    law = student_t(1.5 * n_bars / window(n_bars))
    z = np.array([0.0, *law.isf(levels)])
    place = int(np.clip(np.searchsorted(t, statistic), 1, len(t) - 1))
    slope = (z[place] - z[place - 1]) / (t[place] - t[place - 1])
    return float(law.sf(z[place] + slope * (statistic - t[place])))


def tail_p_value(statistic: float, draws: np.ndarray) -> float:
    """Chance of a draw of at least `statistic`: by count, or by a fitted tail if draws are few.

    Parameters
    ----------
    statistic
        The observed one, studentised.
    draws
        Statistics where there is no gain, shape (n_draws,), symmetric or skewed about zero.
    """
    count = np.count_nonzero(draws >= statistic)
    n_tail = int(_TAIL * len(draws))
    if count >= _FEW or n_tail < _FEW:
        return float((1 + count) / (1 + len(draws)))
    largest = np.square(np.sort(draws)[-n_tail - 1 :])
    threshold = 0.5 * (largest[0] + largest[1])
    excess = largest[1:] - threshold
    if excess[-1] <= ROUNDING:  # a constant gain
        return float((1 + count) / (1 + len(draws)))
    shape, _, scale = genpareto.fit(excess, floc=0.0)
    if shape <= 0.0:
        shape, scale = 0.0, excess.mean()
    beyond = genpareto.sf(statistic**2 - threshold, shape, scale=scale)
    return n_tail / len(draws) * float(beyond)


def _places(bars: np.ndarray, calendar: np.ndarray) -> np.ndarray:
    """Number of the bar that represents each instant (T,), -1 if none."""
    place = np.searchsorted(bars, calendar)
    wait = bars[np.minimum(place, len(bars) - 1)] - calendar
    represented = (wait >= 0) & (wait < np.median(np.diff(bars)))
    return np.where(represented, place, -1).astype(np.int32)


def bootstrap_statistics(
    gain: np.ndarray, places: np.ndarray, *, seed: int = 0, n_draws: int = N_DRAWS
) -> np.ndarray:
    """Studentised errors of resampled means, shape (n_draws,).

    Parameters
    ----------
    gain
        In time order, complete, shape (n,).
    places
        Bar that represents each instant of the calendar, shape (T,), -1 if none.
    seed
        With the number of the draw it determines the blocks.
    """
    n_bars = len(gain)
    cell = max(window(n_bars) // _CELLS, 1)
    shape = (window(n_bars) / 2, cell, round(window(n_bars) / cell))
    sums = np.concatenate([[0.0], np.cumsum(gain - gain.mean())])
    statistics = np.empty(n_draws)
    _fill_statistics(sums, places, shape, np.uint64(seed), statistics)
    return statistics


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64, as the constants of `_mixed`


@kernel
def _mixed(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def _uniform(state):
    """In [0, 1), with 53 bits."""
    return (_mixed(state) >> np.uint64(11)) / 9007199254740992.0


@entry
def _fill_statistics(sums, places, shape, seed, out):
    """Fill out (n_draws,) from cumulative sums (n + 1,) of deviations from the mean.

    `shape` is mean block length, bars per cell, and cells per window.
    """
    block, cell, width = shape
    n = len(sums) - 1
    n_cells = (n + cell - 1) // cell
    filled = np.zeros(width + n_cells)  # sums up to each cell, after the zeros of a first window
    inside = filled[width:]
    for draw in range(len(out)):
        state = _mixed(seed + _GOLDEN * np.uint64(draw + 1))
        mean = _fill_cells(sums, places, block, cell, state, inside) / n
        for k in range(n_cells):
            inside[k] -= mean * min((k + 1) * cell, n)
        total = 0.0
        for k in range(1, n_cells + width):
            in_window = filled[min(k + width, width + n_cells) - 1] - filled[k - 1]
            total += in_window * in_window
        out[draw] = mean / max(math.sqrt(total / width) / n, ROUNDING)


@kernel
def _fill_cells(sums, places, block, cell, state, inside):
    """Sums of one sample up to the end of each cell, and of all of it."""
    n, at, k, total = len(sums) - 1, 0, 0, 0.0
    per_log = 0.0 if block <= 1.0 else 1.0 / np.log(1.0 - 1.0 / block)
    while at < n:
        start = places[int(_uniform(state + _GOLDEN) * len(places))]
        state += _GOLDEN + _GOLDEN
        if start < 0:
            continue
        length = min(1.0 + np.floor(per_log * np.log(1.0 - _uniform(state))), float(n - at))
        end, before = at + int(length), total - sums[start]
        while k < len(inside) and min((k + 1) * cell, n) <= end:
            inside[k] = before + _circular(sums, start + min((k + 1) * cell, n) - at)
            k += 1
        total = before + _circular(sums, start + int(length))
        at = end
    return total


@kernel
def _circular(sums, end):
    n = len(sums) - 1
    return sums[end] if end <= n else sums[n] + sums[end - n]
