r"""The best of many: whether a sweep's winner beats the baseline by more than its being chosen.

M cells with gains d_mi over one baseline on the same n bars. The best mean gain is compared with
what the best of M worthless cells reaches, their dependence kept by drawing the same bars of all:

    White (2000, Econometrica 68)    V  = max_m mean_m
                                     V* = max_m (mean*_m - mean_m)
    Hansen (2005, JBES 23), "SPA"    T  = max_m mean_m / w_m, at least 0
                                     T* = max_m (mean*_m - g_m) / w_m, at least 0

with w_m the bootstrap error of mean_m, and g_m = mean_m unless the cell is hopeless, that is
mean_m < -w_m sqrt(2 ln ln n): then 0. White's is conservative when many bad cells were tried,
Hansen's less so. Both p-values are (1 + draws at least as large) / (1 + draws).

Example
-------
>>> check = reality_check(np.array([cell.gain for cell in cells]))      # (M, N)
>>> check.best, check.p_white
"""

import math
from dataclasses import dataclass

import numpy as np

from hmm_exp.experiment.bootstrap import bootstrap_means
from hmm_exp.experiment.significance import MIN_BARS, window

_STILL = 1e-9  # errors below it are rounding: such a cell equals the baseline


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
    draws = bootstrap_means(common, window(n_bars) / 2, seed=seed, n_draws=n_draws)
    best = int(means.argmax())
    return RealityCheck(
        best=best,
        n_cells=n_cells,
        n_bars=n_bars,
        gain=float(means[best]),
        p_white=_p_value(means.max(), (draws - means).max(axis=1)),
        p_spa=_p_spa(means, draws, n_bars),
    )


def _p_spa(means: np.ndarray, draws: np.ndarray, n_bars: int) -> float:
    """Hansen's consistent p-value."""
    error = np.maximum(draws.std(axis=0), _STILL)
    hopeless = means < -error * math.sqrt(2.0 * math.log(math.log(n_bars)))
    centred = draws - np.where(hopeless, 0.0, means)
    statistic = max(float((means / error).max()), 0.0)
    return _p_value(statistic, np.maximum((centred / error).max(axis=1), 0.0))


def _p_value(statistic: float, worthless: np.ndarray) -> float:
    return float((1 + np.count_nonzero(worthless >= statistic)) / (1 + len(worthless)))
