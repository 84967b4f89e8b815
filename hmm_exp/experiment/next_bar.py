r"""What the bar after each state did: mean, volatility, hit rate and Sharpe, each with its error.

Standard errors, n returns r with mean m, variance v, fourth central moment m4:

    mean        sqrt(v / n)
    volatility  sqrt((m4 - v^2) / n) / (2 sqrt(v))        delta method, fat tails included
    hit rate    sqrt(p (1 - p) / n)                       p = share of r > 0
    Sharpe      sqrt((1 + S^2 / 2) / n)                   Lo 2002, iid returns

Annualised Sharpe and its error are those per bar times sqrt(bars per year).
"""

import math

import numpy as np
import pandas as pd

COLUMNS = (
    *("n", "mean", "mean_error", "volatility", "volatility_error", "hit_rate", "hit_rate_error"),
    *("sharpe", "sharpe_error", "sharpe_annual", "sharpe_annual_error"),
)


def next_bar_table(
    states: np.ndarray,
    next_return: np.ndarray,
    n_states: int,
    *,
    bars_per_year: float | None = None,
    mask: np.ndarray | None = None,
) -> pd.DataFrame:
    """Statistics of the next bar's log return per state.

    Parameters
    ----------
    states
        Filtered label known at the close of every base bar, shape (N,); negative where none.
    next_return
        ln(C_{i+1} / C_i), shape (N,), NaN where none.
    n_states
        Number of states, the rows of the table.
    bars_per_year
        For the annualised Sharpe; None leaves its columns NaN.
    mask
        Bars that count, such as those of train, shape (N,); by default all.

    Returns
    -------
    DataFrame
        One row per state (index `state`), columns `COLUMNS`. NaN where a statistic does not
        exist: no return, errors of a single one, Sharpe without volatility.
    """
    counted = np.isfinite(next_return)
    if mask is not None:
        counted &= mask
    rows = [
        _statistics(next_return[counted & (states == state)], bars_per_year)
        for state in range(n_states)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS), index=pd.RangeIndex(n_states, name="state"))
    return table.astype({"n": np.int64})


def _statistics(returns: np.ndarray, bars_per_year: float | None) -> dict[str, float]:
    """The row of one state; what does not exist is left out."""
    n = len(returns)
    row: dict[str, float] = {"n": n}
    if n == 0:
        return row
    hit_rate = float(np.mean(returns > 0.0))
    row |= {"mean": float(np.mean(returns)), "hit_rate": hit_rate}
    if n == 1:
        return row
    volatility = float(np.std(returns, ddof=1))
    row |= {
        "mean_error": volatility / math.sqrt(n),
        "volatility": volatility,
        "hit_rate_error": math.sqrt(hit_rate * (1.0 - hit_rate) / n),
    }
    if np.ptp(returns) == 0.0:
        return row
    row["volatility_error"] = _volatility_error(returns)
    return row | _sharpe(row["mean"] / volatility, n, bars_per_year)


def _volatility_error(returns: np.ndarray) -> float:
    squares = (returns - returns.mean()) ** 2
    variance = float(squares.mean())
    spread = max(float(np.mean(squares**2)) - variance**2, 0.0)
    return math.sqrt(spread / len(returns)) / (2.0 * math.sqrt(variance))


def _sharpe(sharpe: float, n: int, bars_per_year: float | None) -> dict[str, float]:
    error = math.sqrt((1.0 + 0.5 * sharpe**2) / n)
    row = {"sharpe": sharpe, "sharpe_error": error}
    if bars_per_year is not None:
        year = math.sqrt(bars_per_year)
        row |= {"sharpe_annual": sharpe * year, "sharpe_annual_error": error * year}
    return row
