r"""Trading rules: invested or in cash at every close, by regime and by three simple alternatives.

>>> rules = learn_rules(bars, regimes, train, ewma, RuleOptions(delays=(1, 5)))
>>> rules.positions(bars, regimes)          # (M, N), decided at every close, 0 cash to 1 invested

The position p_i is decided at the close of bar i, from bars up to i. With delay d it earns the
simple return R_{i+d} = C_{i+d} / C_{i+d-1} - 1: delay 1 is the next bar. The rows are

    hold             1
    regime           1 in the invested states of that delay, else 0; an unknown regime is cash
    regime_target    the same times min(1, target / volatility_i)
    average          1 where C_i is above the mean of the last 200 closes, else 0
    ewma             1 where volatility_i is below its median on train, else 0

with volatility_i = sqrt(bars a year * s_i) and s_i the exponentially weighted variance of log
returns known at close i (J.P. Morgan/Reuters, RiskMetrics Technical Document, 4th ed. 1996, section
5.2). Its decay is the fitted one of the EWMA forecast (`volatility_baselines.py`), since the .94 of
RiskMetrics is of daily bars. Volatility targets: Moreira & Muir (2017, Journal of Finance 72), here
without leverage. The 200-bar average: Faber (2007, Journal of Wealth Management 9).

*Invested states* of delay d have a positive mean of R_{i+d} over the train bars i with that regime,
where bar i + d is in train too: the return that the position would earn, never that of bar i.

All that is learned (states, decay, median, target) comes from train and is stored in the detector.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hmm_exp.judge.volatility_baselines import Ewma, ewma_variances
from hmm_exp.stored.fields import Fields

AVERAGE = 200  # bars of the moving average
HOLD = "hold"
STRATEGIES = {  # by name in the files: name for a reader
    HOLD: "buy and hold",
    "regime": "regime",
    "regime_target": "regime, volatility target",
    "average": f"{AVERAGE}-bar average",
    "ewma": "low EWMA volatility",
}
_YEAR = 365.25 * 86_400e9  # ns


@dataclass(frozen=True, eq=False)
class PricedBars:
    """Base bars as trading rules read them, in time order.

    Attributes
    ----------
    time
        Close of every bar, nanoseconds since 1970 UTC, shape (N,).
    close
        Closing prices, shape (N,).
    log_return
        ln(C_i / C_{i-1}), shape (N,), NaN for the first bar and across a gap.
    """

    time: np.ndarray
    close: np.ndarray
    log_return: np.ndarray

    @cached_property
    def simple_return(self) -> np.ndarray:
        """C_i / C_{i-1} - 1 of every bar, shape (N,), across gaps too; 0 for the first."""
        return np.append(0.0, self.close[1:] / self.close[:-1] - 1.0)

    @cached_property
    def above_average(self) -> np.ndarray:
        """1 where the close is above the mean of the last `AVERAGE` closes, shape (N,)."""
        return _above_average(self.close)

    def volatility(self, decay: float, initial: float, per_year: float) -> np.ndarray:
        """Yearly EWMA volatility, shape (N,), kept; a variance below 1e-16 counts as 1e-16."""
        key = decay, initial, per_year
        if key not in self._volatilities:
            variance = ewma_variances(self.log_return, decay, initial)
            self._volatilities[key] = np.sqrt(per_year * np.maximum(variance, 1e-16))
        return self._volatilities[key]

    @cached_property
    def _volatilities(self) -> dict[tuple[float, float, float], np.ndarray]:
        return {}


@dataclass(frozen=True)
class RuleOptions:
    """What the user decides: delays in bars, and the one-way cost of a trade in basis points."""

    delays: tuple[int, ...] = (1, 5)
    cost_bp: float = 10.0


@dataclass(frozen=True)
class TradingRules:
    """Everything that the positions rest on, learned on train.

    Attributes
    ----------
    invested
        States in which the regime rows are invested, by delay: bars from a decision to the return
        that it earns.
    decay, initial
        Of the EWMA variance: weight of the past per bar, and (log return)^2 before the first bar.
    threshold
        Median EWMA volatility on train, a year.
    target
        Volatility of buy and hold on train, a year.
    bars_per_year
        Of the train bars; it scales volatilities.
    cost_bp
        Cost of a trade one way, basis points of the traded value.
    """

    invested: Mapping[int, tuple[int, ...]]
    decay: float
    initial: float
    threshold: float
    target: float
    bars_per_year: float
    cost_bp: float

    @property
    def delays(self) -> tuple[int, ...]:
        """Delays in bars, each at least 1."""
        return tuple(self.invested)

    @property
    def rows(self) -> list[tuple[str, int]]:
        """Strategy and delay of every row; buy and hold comes first, once."""
        others = [name for name in STRATEGIES if name != HOLD]
        return [(HOLD, self.delays[0]), *((name, d) for name in others for d in self.delays)]

    def positions(self, bars: PricedBars, regimes: np.ndarray) -> np.ndarray:
        """Positions decided at every close, 0 to 1, shape (M, N); row m is `rows[m]`.

        Column i depends on bars and regimes up to i only, bit for bit.

        Parameters
        ----------
        regimes
            State known at every close, shape (N,); -1 if unknown.
        """
        volatility = self.volatility(bars)
        share = np.minimum(1.0, self.target / volatility)
        inside = {d: np.isin(regimes, self.invested[d]).astype(np.float64) for d in self.delays}
        decided = {
            HOLD: np.ones(len(regimes)),
            "average": bars.above_average,
            "ewma": (volatility < self.threshold).astype(np.float64),
        }
        by_delay = {"regime": inside, "regime_target": {d: inside[d] * share for d in inside}}
        return np.stack([by_delay[n][d] if n in by_delay else decided[n] for n, d in self.rows])

    def volatility(self, bars: PricedBars) -> np.ndarray:
        """EWMA volatility known at every close, a year, shape (N,)."""
        return bars.volatility(self.decay, self.initial, self.bars_per_year)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        invested = {str(delay): list(states) for delay, states in self.invested.items()}
        return asdict(self) | {"delays": list(self.delays), "invested": invested}

    @classmethod
    def from_stored(cls, stored: Fields, n_states: int) -> "TradingRules":
        """The inverse of `to_dict` for a model of `n_states` states. Raises ModelError."""
        positive = ("decay", "initial", "threshold", "target", "bars_per_year")
        stored.only(["delays", "invested", "cost_bp", *positive])
        if not (delays := stored.wholes("delays", least=1)):
            raise stored.fault("delays", "must hold a delay")
        inside = stored.part("invested")
        inside.only(list(map(str, delays)))
        invested = {delay: inside.wholes(str(delay), least=0) for delay in delays}
        for delay, states in invested.items():
            if any(state >= n_states for state in states):
                raise inside.fault(str(delay), f"must be states below {n_states}")
        numbers = {name: stored.number(name, above=0.0) for name in positive}
        if not numbers["decay"] < 1.0:
            raise stored.fault("decay", "must be below 1")
        if (cost_bp := stored.number("cost_bp")) < 0.0:
            raise stored.fault("cost_bp", "must not be below 0")
        return cls(invested=invested, cost_bp=cost_bp, **numbers)


def learn_rules(
    bars: PricedBars,
    regimes: np.ndarray,
    train: np.ndarray,
    ewma: Ewma,
    options: RuleOptions,
) -> TradingRules:
    """Learn invested states, threshold and target on the train bars.

    Parameters
    ----------
    regimes
        State known at every close, shape (N,); -1 if unknown.
    train
        Mask of the train bars, shape (N,).
    ewma
        The fitted EWMA forecast of the same train bars.
    """
    per_year = bars_per_year(bars.time[train])
    volatility = bars.volatility(ewma.decay, ewma.initial, per_year)
    on_train = np.flatnonzero(train)
    known = on_train[on_train > 0]  # the first bar has no return
    return TradingRules(
        invested={delay: _invested(bars, regimes, train, delay) for delay in options.delays},
        decay=ewma.decay,
        initial=ewma.initial,
        threshold=float(np.median(volatility[train])),
        target=float(np.std(bars.simple_return[known], ddof=1) * np.sqrt(per_year)),
        bars_per_year=per_year,
        cost_bp=options.cost_bp,
    )


def bars_per_year(time: np.ndarray) -> float:
    """Bars a year: steps between closes over their span in years of 365.25 days.

    Parameters
    ----------
    time
        Nanoseconds, increasing, at least two.
    """
    return float((len(time) - 1) / ((time[-1] - time[0]) / _YEAR))


def _invested(
    bars: PricedBars, regimes: np.ndarray, train: np.ndarray, delay: int
) -> tuple[int, ...]:
    """States whose earned return has a positive mean on train."""
    decided, earned = slice(None, -delay), slice(delay, None)
    counted = train[decided] & train[earned] & (regimes[decided] >= 0)
    states, returns = regimes[decided][counted], bars.simple_return[earned][counted]
    return tuple(int(k) for k in np.unique(states) if returns[states == k].mean() > 0.0)


def _above_average(close: np.ndarray) -> np.ndarray:
    """1 where the close is above the mean of the last `AVERAGE` closes, shape (N,)."""
    above = np.zeros(len(close))
    if len(close) >= AVERAGE:
        windows = np.lib.stride_tricks.sliding_window_view(close, AVERAGE)
        above[AVERAGE - 1 :] = close[AVERAGE - 1 :] > windows.mean(axis=1)
    return above
