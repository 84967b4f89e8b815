r"""The best of many: whether a sweep's winner beats the baseline by more than its being chosen.

M cells with gains d_mi over one baseline on the same n bars. The best mean gain is compared with
what the best of M worthless cells reaches, their dependence kept by drawing the same bars of all:

    White (2000, Econometrica 68)    V  = max_m mean_m
                                     V* = max_m e_m
    Hansen (2005, JBES 23), "SPA"    T  = max_m mean_m / s_m, at least 0
                                     T* = max_m (e_m + h_m) / s_m, at least 0

with e_m the error of a resampled mean, s_m the standard deviation of cell m's gain, and h_m = 0
unless the cell is hopeless, that is mean_m < -w_m sqrt(2 ln ln n) with w_m the bootstrap's standard
error: then h_m = mean_m. White's is conservative when many bad cells were tried, Hansen's less so.
Hansen divides by w_m, which from a few dozen blocks is so uncertain that 12 to 14 % of worthless
sweeps passed 5 %; s_m puts cells on one scale just as well.

Both p-values are (1 + draws at least as large) / (1 + draws). Of worthless sweeps of 12 cells and
1,200 bars, 5 % of independent and 7 to 8 % of slowly autocorrelated ones fall below .05.

Example
-------
>>> check = reality_check(np.array([cell.gain for cell in cells]))      # (M, N)
>>> check.best, check.p_white
"""

import math
from dataclasses import dataclass

import numpy as np

from hmm_exp.experiment.bootstrap import mean_errors
from hmm_exp.experiment.significance import MIN_BARS, window

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
