"""A seeded hourly market with planted regimes, for a first run without a file or a network.

Regimes persist for some hundred hours and differ in volatility; their drifts are small, up when
calm and down when turbulent, so that nobody can live on them. Within a bar the price walks in many
moves, so high and low belong to the path; the size of a bar's moves is Student-t like; volume rises
with volatility.

>>> bars = make_market(n_bars=2_000, seed=1)
>>> bars.states  # 0 is the calmest
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError
from hmm_exp.market.bars import OHLCV, Bars
from hmm_exp.market.clean import span_report, stamped_frame
from hmm_exp.market.gaps import gap_report

_HOUR = 3_600_000_000_000  # ns
_START = pd.Timestamp("2021-01-01", tz="UTC").as_unit("ns").value
_FIRST_PRICE = 20_000.0
_VOLATILITY = (0.002, 0.014)  # of an hourly log return, calmest and wildest regime
_DWELL = (200.0, 100.0)  # mean hours in a regime
_DRIFT = (6e-5, -1.2e-4)  # mean of an hourly log return
_TAIL = 16.0  # degrees of freedom of a bar's Student-t scale
_WALK = 24  # price moves within a bar
_VOLUME = 1_000.0  # usual hourly volume
_VOLUME_RISE = 0.8  # log volume per log volatility
_VOLUME_OF_BAR = 0.2  # log volume per log of a bar's own size in its regime
_VOLUME_NOISE = 0.1  # hourly shock of the log volume
_VOLUME_MEMORY = 0.95  # share of the shocks that lasts to the next hour


def make_market(
    n_bars: int = 26_280,
    n_regimes: int = 3,
    seed: int = 7,
    *,
    volatility: tuple[float, float] = _VOLATILITY,
    tail: float = _TAIL,
) -> Bars:
    """Hourly bars from 2021-01-01 UTC whose true regimes are known.

    Parameters
    ----------
    n_bars
        Number of bars, at least 2; the default is three years of hours.
    n_regimes
        Number of regimes, at least 1. `Bars.states` numbers them by volatility, calm first.
    seed
        The same seed gives the same market.
    volatility
        Of an hourly log return in the calmest and the wildest regime.
    tail
        Degrees of freedom of the Student-t returns in a regime, above 2.

    Raises
    ------
    ConfigError
        A number is below its least.
    """
    if n_bars < 2 or n_regimes < 1:
        raise ConfigError(
            f"a market of {n_bars} bars and {n_regimes} regimes: needs at least 2 and 1"
        )
    rng = np.random.default_rng(seed)
    states = _regimes(rng, n_bars, _spread(_DWELL, n_regimes))
    usual = _spread(volatility, n_regimes)[states]
    scale = usual * tail_factors(rng, n_bars, tail)
    drift = _spread(_DRIFT, n_regimes)[states]
    return bars_of(MarketPlan(states, usual, scale, drift, unit_moves(rng, n_bars)), rng, seed)


@dataclass(frozen=True, eq=False)
class MarketPlan:
    """What every bar of a market is made of, T bars."""

    states: np.ndarray  # regime, shape (T,)
    volatility: np.ndarray  # what is usual now, of a log return, shape (T,); volume follows it
    scale: np.ndarray  # of the bar itself, log return, shape (T,)
    drift: np.ndarray  # mean log return, shape (T,)
    moves: np.ndarray  # standard normal moves within the bar, from `unit_moves`, shape (T, 24)

    @property
    def log_return(self) -> np.ndarray:
        """Log return of every bar, shape (T,)."""
        return self.scale * self.moves.sum(axis=1) / np.sqrt(_WALK) + self.drift


def tail_factors(rng: np.random.Generator, n_bars: int, df: float) -> np.ndarray:
    """Factors (T,) that make normal moves Student-t with `df` degrees and unit variance."""
    return np.sqrt((df - 2) / rng.chisquare(df, n_bars))


def unit_moves(rng: np.random.Generator, n_bars: int) -> np.ndarray:
    """Standard normal moves within the bars, shape (T, 24)."""
    return rng.standard_normal((n_bars, _WALK))


def bars_of(plan: MarketPlan, rng: np.random.Generator, seed: int) -> Bars:
    """Hourly bars from 2021-01-01 UTC after a plan; `rng` makes the noise of the volume.

    `seed` is recorded.
    """
    volume = _volume(rng, plan.volatility, plan.scale)
    return _as_bars(np.column_stack([_prices(plan), volume]), plan.states, seed)


def _spread(ends: tuple[float, float], n_regimes: int) -> np.ndarray:
    """Values of the regimes, calm first: evenly apart, in ratio where both ends are positive."""
    if n_regimes == 1:
        return np.array([np.mean(ends)])
    return np.geomspace(*ends, n_regimes) if min(ends) > 0 else np.linspace(*ends, n_regimes)


def _regimes(rng: np.random.Generator, n_bars: int, dwell: np.ndarray) -> np.ndarray:
    """A Markov chain's states (T,): geometric dwell times, then a neighbour or, rarer, a leap."""
    K = len(dwell)
    if K == 1:
        return np.zeros(n_bars, dtype=np.int64)
    leaps = _leaps(K)
    visits: list[int] = []
    hours: list[int] = []
    state, total = int(rng.integers(K)), 0
    while total < n_bars:
        visits.append(state)
        hours.append(int(rng.geometric(1 / dwell[state])))
        total += hours[-1]
        state = int(rng.choice(K, p=leaps[state]))
    return np.repeat(visits, hours)[:n_bars]


def _leaps(n_regimes: int) -> np.ndarray:
    """Where a regime goes when it ends, (K, K): neighbours most, the farther the rarer."""
    if n_regimes == 1:
        return np.zeros((1, 1))
    away = np.abs(np.subtract.outer(np.arange(n_regimes), np.arange(n_regimes)))
    chance = np.where(away > 0, 1 / np.maximum(away, 1) ** 2, 0.0)
    return chance / chance.sum(axis=1, keepdims=True)


def _prices(plan: MarketPlan) -> np.ndarray:
    """Open, high, low, close (T, 4) of a walk whose bars open where the last one closed."""
    moves = plan.moves * (plan.scale / np.sqrt(_WALK))[:, None]
    moves += plan.drift[:, None] / _WALK
    close = np.cumsum(moves.sum(axis=1))  # log price over the first one
    opens = np.concatenate([[0.0], close[:-1]])
    inside = opens[:, None] + np.cumsum(moves[:, :-1], axis=1)
    path = _FIRST_PRICE * np.exp(np.column_stack([opens, inside, close]))
    return np.column_stack([path[:, 0], path.max(axis=1), path.min(axis=1), path[:, -1]])


def _volume(rng: np.random.Generator, volatility: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Volume (T,): up with the regime's volatility, less with the bar's own, noise that lasts."""
    regime = _VOLUME_RISE * np.log(volatility / np.sqrt(np.prod(_VOLATILITY)))
    bar = _VOLUME_OF_BAR * np.log(scale / volatility)
    shocks = rng.standard_normal(len(scale)).tolist()
    noise = list(accumulate(shocks, lambda before, new: _VOLUME_MEMORY * before + new))
    return _VOLUME * np.exp(regime + bar + _VOLUME_NOISE * np.array(noise))


def _as_bars(ohlcv: np.ndarray, states: np.ndarray, seed: int) -> Bars:
    stamps = _START + _HOUR * np.arange(len(states))
    report = {
        "name": "synthetic",
        "seed": seed,
        "rows_read": len(stamps),
        "rows_used": len(stamps),
        **span_report(stamps, _HOUR, "open"),
        "normalised": [],
        "dropped": {},
        "gaps": gap_report(stamps, _HOUR, "split"),
    }
    frame = stamped_frame(stamps, ohlcv, list(OHLCV), _HOUR, "open")
    return Bars(frame, pd.Timedelta(hours=1), "open", "split", "synthetic", report, states)
