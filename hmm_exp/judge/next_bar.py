r"""Next-bar returns by state with their errors, and the detection delay of planted switches.

>>> next_bar_table(states, next_return, n_states=2, bars_per_year=8766)
>>> detection_delay(planted, named_as_planted(planted, states)).median_bars
14.0

Standard errors, n returns r with mean m, variance v, fourth central moment m4:

    mean        sqrt(v / n)
    volatility  sqrt((m4 - v^2) / n) / (2 sqrt(v))        delta method, fat tails included
    hit rate    sqrt(p (1 - p) / n)                       p = share of r > 0
    Sharpe      sqrt((1 + S^2 / 2) / n)                   Lo 2002, iid returns

The annualised Sharpe ratio and its error are those per bar times sqrt(bars per year).

The delay of a planted switch is the number of bars from the first bar of the new regime to the
first bar whose filtered label equals it, 0 for the same bar. A switch is missed if the regime ends
before that. A last regime that is not detected before the data end is left out, as is the first
regime. A label that is right by chance counts as detected, so flickering labels have short delays:
compare the switches per 1000 bars.
"""

import math
from dataclasses import dataclass

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
        Filtered label known at the close of every base bar, shape (N,); negative if unknown.
    next_return
        ln(C_{i+1} / C_i), shape (N,), NaN where unknown.
    n_states
        Number of states, the rows of the table.
    bars_per_year
        For the annualised Sharpe ratio; None leaves its columns NaN.
    mask
        Bars to count, such as those of train, shape (N,); by default all.

    Returns
    -------
    DataFrame
        One row per state (index `state`), columns `COLUMNS`. Undefined statistics are NaN: without
        returns, errors of a single return, Sharpe ratio without volatility.
    """
    counted = np.isfinite(next_return)
    if mask is not None:
        counted &= mask
    returns, states = np.compress(counted, next_return), np.compress(counted, states)
    rows = [
        _statistics(np.compress(states == state, returns), bars_per_year)
        for state in range(n_states)
    ]
    columns = {name: np.array([row.get(name, np.nan) for row in rows]) for name in COLUMNS}
    return pd.DataFrame(columns, index=pd.RangeIndex(n_states, name="state"))


def _statistics(returns: np.ndarray, bars_per_year: float | None) -> dict[str, float]:
    """The defined statistics of one state."""
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


@dataclass(frozen=True)
class DetectionDelay:
    """Delays of all planted switches."""

    n_switches: int  # switches detected or missed
    missed_share: float | None  # share of missed switches; None without a switch
    # `median_bars`, `mean_bars`: delay of the detected switches; None if all are missed.
    median_bars: float | None
    mean_bars: float | None

    def metrics(self) -> dict[str, float]:
        """Metrics by name; undefined ones are left out."""
        named = {
            "detection_delay_median": self.median_bars,
            "detection_delay_mean": self.mean_bars,
            "missed_switch_share": self.missed_share,
        }
        return {name: value for name, value in named.items() if value is not None}


def detection_delay(planted: np.ndarray, labels: np.ndarray) -> DetectionDelay:
    """Measure how late the filtered label follows planted regimes.

    Parameters
    ----------
    planted
        True regime of consecutive bars, shape (N,).
    labels
        Filtered label of the same bars in the planted numbering (see `named_as_planted`), shape
        (N,); negative if unknown.
    """
    first = np.flatnonzero(np.diff(planted)) + 1
    end = np.append(first, len(planted))[1:]
    right = np.append(np.flatnonzero(labels == planted), len(planted))
    found = right[np.searchsorted(right, first)]
    seen = found < end
    known = seen | (end < len(planted))
    if not known.any():
        return DetectionDelay(0, None, None, None)
    missed = float(1.0 - seen[known].mean())
    if not seen.any():
        return DetectionDelay(int(known.sum()), missed, None, None)
    delay = (found - first)[seen]
    return DetectionDelay(int(known.sum()), missed, float(np.median(delay)), float(delay.mean()))


def named_as_planted(planted: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Relabel each state as the planted regime it coincides with most often, shape (N,).

    For models whose number of states differs from the planted one: several states may share a
    regime, and a regime without a state is always missed. Ties go to the calmer regime.

    Parameters
    ----------
    planted
        True regime of every bar, shape (N,).
    states
        Filtered state of every bar, shape (N,); negative values stay.
    """
    known = states >= 0
    if not known.any():
        return states.copy()
    counts = np.zeros((states.max() + 1, planted.max() + 1), dtype=np.int64)
    np.add.at(counts, (states[known], planted[known]), 1)
    return np.where(known, counts.argmax(axis=1)[np.where(known, states, 0)], states)
