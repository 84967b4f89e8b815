r"""What regimes add to a volatility forecast: state densities scaled by that forecast.

>>> found = added_gains(densities, baselines, probs, series, train)
>>> found.gains[found.strongest]           # over the baseline that is best on train, nats per bar

A volatility forecast often beats the regimes, and somebody who has it asks what they add to it.
With s_i a baseline's forecast of the next volatility, divided by its geometric mean on train, the
model

    r_{i+1} ~ sum_k p_ik St(loc_k s_i^b, c_k s_i^b, df)

is that of `return_forecasts` for b = 0 and scales every state by the whole forecast for b = 1. The
exponent is the one of `EXPONENTS` with the highest likelihood on train. It is found by a climb from
b = 1/2 to the next exponent as long as that is likelier, since the likelihood has one peak in b. At
a maximum in the densities its slope in b is that with the densities unchanged, which gives the
direction. For each exponent y_i = r_{i+1} / s_i^b has the mixture of `student_t.py`, whose fit
starts from that of the exponent before, each state's density scaled by its mean of s_i^b.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hmm_exp.hmm.rows import column_sums, finite_rows
from hmm_exp.judge.bar_series import BarSeries
from hmm_exp.judge.return_forecasts import Baselines, ReturnDensities, part_means
from hmm_exp.judge.student_t import (
    MixtureFit,
    Problem,
    Secants,
    Weights,
    fit_from,
    log_likelihood,
    scale_floor,
)
from hmm_exp.judge.unscored import FORECASTS, Unscored, fitted
from hmm_exp.parallel import run_all

EXPONENTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
FIRST = 0.5  # the exponent from which a climb starts
SLOPE_STEP = 0.01  # of the exponent; a peak nearer than that is likelier than both neighbours
TOLERANCE = 1e-3  # largest change by a map: an error of the log-likelihood below .1 nats


@dataclass(frozen=True, eq=False)
class AddedGains:
    """Gains of the model with each volatility forecast over that forecast.

    Attributes
    ----------
    gains
        Nats per bar, shape (N,), NaN where not scored, by name of the baseline.
    exponents
        b, by name.
    strongest
        The baseline with the highest mean score on the model's train bars; None without a fit.
    unfitted
        Reasons for missing gains, by name.
    """

    gains: dict[str, np.ndarray]
    exponents: dict[str, float]
    strongest: str | None
    unfitted: Unscored

    @property
    def objections(self) -> list[str]:
        """Sentences about missing gains."""
        return [
            f"no added gain over {FORECASTS[name]}: {why}" for name, why in self.unfitted.items()
        ]

    @property
    def of_strongest(self) -> dict[str, np.ndarray]:
        """`added_gain`, the gain over the strongest baseline; empty without one."""
        return {"added_gain": self.gains[self.strongest]} if self.strongest else {}

    def table(self, split: np.ndarray) -> pd.DataFrame:
        """One row per baseline: `exponent`, mean gain by part, 1 for the `strongest`.

        `split` is the code of the part of every bar's target, shape (N,).
        """
        rows = {
            name: {
                "exponent": self.exponents[name],
                **{part.removeprefix("_"): x for part, x in part_means({"": gain}, split).items()},
                "strongest": float(name == self.strongest),
            }
            for name, gain in self.gains.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")


def added_gains(
    densities: ReturnDensities,
    baselines: Baselines,
    probs: np.ndarray,
    series: BarSeries,
    train: np.ndarray,
    threads: int | None = 1,
) -> AddedGains:
    """Fit the model with every volatility forecast on train and score all bars.

    Parameters
    ----------
    densities
        Densities of the next return by state, fitted on the same train bars.
    probs
        Filtered state probabilities known at the bar's close, shape (N, K), NaN if unknown.
    train
        Mask of the bars whose target is in train, shape (N,).
    threads
        Most forecasts at a time; None takes all cores.
    """
    returns, unfitted = series.next_return, Unscored()
    used = train & np.isfinite(returns) & finite_rows(probs)
    rows = TrainRows(np.compress(used, probs, axis=0), np.compress(used, returns), densities)
    volatility = {name: np.sqrt(b.variance(series)) for name, b in baselines.volatility.items()}
    score = {name: b.log_score(series) for name, b in baselines.volatility.items()}
    on_train = {name: np.compress(used, forecast) for name, forecast in volatility.items()}

    def fit_chain(names: list[str]) -> dict[str, Added]:
        """Fits of a volatility, then by hour; each starts from the one before."""
        chain: dict[str, Added] = {}
        for name in names:
            start = next(iter(chain.values()), None)
            added = fitted(name, unfitted, fit_added, rows, on_train[name], start)
            if added is not None:
                chain[name] = added
        return chain

    kinds = dict.fromkeys(name.removesuffix("_hour") for name in volatility)
    chains = [[name for name in volatility if name.removesuffix("_hour") == kind] for kind in kinds]
    found = {name: x for chain in run_all(fit_chain, chains, threads) for name, x in chain.items()}
    found = {name: found[name] for name in volatility if name in found}
    gains = {
        name: added.log_score(probs, returns, volatility[name]) - score[name]
        for name, added in found.items()
    }
    means = {name: float(np.compress(used, score[name]).mean()) for name in volatility}
    strongest = max(means, key=means.__getitem__, default=None)
    exponents = {name: added.exponent for name, added in found.items()}
    return AddedGains(gains, exponents, strongest if strongest in gains else None, unfitted)


@dataclass(frozen=True)
class Added:
    """Densities by state that follow a volatility forecast.

    Attributes
    ----------
    exponent
        b.
    densities
        loc_k, c_k and df.
    level
        Geometric mean of the volatility on train, log return per bar.
    secants
        Of the fit, for that of a similar volatility.
    """

    exponent: float
    densities: ReturnDensities
    level: float
    secants: Secants = ()

    def log_score(
        self, probs: np.ndarray, next_return: np.ndarray, volatility: np.ndarray
    ) -> np.ndarray:
        """Log predictive density of every bar's next return, nats, shape (N,).

        Parameters
        ----------
        probs
            Filtered state probabilities known at the bar's close, shape (N, K), NaN if unknown.
        next_return
            ln(C_{i+1} / C_i), shape (N,), NaN if unknown.
        volatility
            Forecast of a baseline known at the bar's close, log return per bar, shape (N,). A
            row's score depends on that row alone.
        """
        shift = self.exponent * (np.log(volatility) - math.log(self.level))
        return self.densities.log_score(probs, next_return * np.exp(-shift)) - shift


class TrainRows:
    """Train rows of a model, laid out once for many fits.

    Parameters
    ----------
    probs
        Filtered state probabilities, shape (T, K), complete, rows summing to one.
    next_return
        Next returns, shape (T,), complete.
    densities
        The model's densities of these returns, as fitted.
    """

    def __init__(
        self, probs: np.ndarray, next_return: np.ndarray, densities: ReturnDensities
    ) -> None:
        self.weights, self.next_return, self.densities = Weights(probs), next_return, densities
        self.floor, self.mass = scale_floor(next_return), column_sums(probs)
        self.log_lik = float(densities.log_score(probs, next_return).sum())

    def fit(self, x: np.ndarray, start: MixtureFit) -> MixtureFit:
        """Fit densities of observations x (T,) from given parameters. Raises FitError."""
        return fit_from(self._problem(x), start)

    def log_lik_of(self, x: np.ndarray, fit: MixtureFit) -> float:
        """Log-likelihood of observations x (T,), nats."""
        return log_likelihood(self._problem(x), fit)

    def means(self, x: np.ndarray) -> np.ndarray:
        """Mean of x (T,) in every state, shape (K,); 0 for a state without rows."""
        return x @ self.weights.probs / np.maximum(self.mass, 1e-300)

    def _problem(self, x: np.ndarray) -> Problem:
        return Problem(self.weights, x, self.floor, TOLERANCE)


def fit_added(rows: TrainRows, volatility: np.ndarray, start: Added | None = None) -> Added:
    """Fit the densities and the exponent by maximum likelihood on train.

    Parameters
    ----------
    volatility
        A baseline's forecast of the next volatility at every row, log return per bar, shape (T,).
    start
        The fit of a similar volatility, to begin from.

    Raises
    ------
    FitError
        A fit does not converge.
    """
    logs = np.log(volatility)
    shift = logs - logs.mean()  # of sum zero, so that the fits have the likelihood of the returns
    by_state = rows.means(shift)
    fits = {0: _as_fit(rows.densities, log_lik=rows.log_lik)}
    first = EXPONENTS.index(start.exponent if start else FIRST)
    starts = fits | ({first: _as_fit(start.densities, start.secants)} if start else {})

    def scaled(exponent: float) -> np.ndarray:
        return rows.next_return * np.exp(-exponent * shift)

    def log_lik(place: int) -> float:
        if place not in fits:
            nearest = min(starts, key=lambda other: abs(other - place))
            ahead = EXPONENTS[place] - EXPONENTS[nearest]
            expected = _narrowed(starts[nearest], ahead * by_state)
            fits[place] = starts[place] = rows.fit(scaled(EXPONENTS[place]), expected)
        return float(fits[place].history[-1])

    def rises(place: int) -> bool:
        """Whether the likelihood of the same densities rises with the exponent."""
        here = log_lik(place)
        return rows.log_lik_of(scaled(EXPONENTS[place] + SLOPE_STEP), fits[place]) > here

    best = _climb(log_lik, first, len(EXPONENTS), 1 if rises(first) else -1)
    found = fits[best]
    densities = ReturnDensities(found.loc, found.scale, found.df)
    return Added(EXPONENTS[best], densities, math.exp(logs.mean()), found.secants)


def _as_fit(
    densities: ReturnDensities, secants: Secants = (), log_lik: float = math.nan
) -> MixtureFit:
    history = np.array([log_lik])
    return MixtureFit(densities.loc, densities.scale, densities.df, history, secants)


def _narrowed(fit: MixtureFit, shift: np.ndarray) -> MixtureFit:
    """A fit to x as a start for x exp(-shift), with the mean shift of every state, shape (K,)."""
    factor = np.exp(-shift)
    return replace(fit, loc=fit.loc * factor, scale=fit.scale * factor)


def _climb(height: Callable[[int], float], start: int, n_places: int, step: int) -> int:
    """The peak among places 0, 1, ... that is reached from `start` in steps of 1 or -1."""
    place = start
    while 0 <= place + step < n_places and height(place + step) > height(place):
        place += step
    return place
