r"""Densities of the next bar's log return by state, and their scores against forecasts without.

>>> densities = fit_return_densities(probs[train], series.next_return[train])
>>> scores = score_bars(densities, fit_baselines(series.part(train)), probs, series)
>>> summarise(scores, split)["return_gain_test"]        # nats per bar over the static Student-t
0.044

Models of different observation spaces are compared by their forecasts of the next bar's return.
The forecast is the mixture of one Student-t per state, weighted with the filtered probabilities
p_ik known at the close of base bar i; its score in nats per bar is

    score_i = ln sum_k p_ik St(ln(C_{i+1} / C_i); loc_k, scale_k, df),

with densities fitted on train for fixed weights. The baselines have no states: one Student-t for
all bars, and the volatility forecasts of `volatility_baselines.py`. All have fat tails, so a gain
over the baselines is due to the states alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hmm_exp.errors import FitError
from hmm_exp.hmm.rows import finite_rows
from hmm_exp.judge.bar_series import BarSeries
from hmm_exp.judge.split import SPLIT_NAMES, TEST, TRAIN, VAL
from hmm_exp.judge.student_t import fit_mixture, log_mixture
from hmm_exp.judge.unscored import Unscored, fitted
from hmm_exp.judge.volatility_baselines import (
    VOLATILITY,
    VolatilityBaseline,
    fit_volatility,
)
from hmm_exp.stored.fields import Fields

SCORES = ("model", "static", *VOLATILITY)
_BASELINES: dict[bytes, "Baselines"] = {}  # by the bars they were fitted on
GAINS = ("return_gain", *(f"{name}_gain" for name in VOLATILITY))  # over all but the model


@dataclass(frozen=True, eq=False)
class ReturnDensities:
    """Student-t density of the next base bar's log return in every state.

    Attributes
    ----------
    loc, scale
        Student-t location and scale per state, log return per bar, shape (K,).
    df
        Degrees of freedom, shared.
    """

    loc: np.ndarray
    scale: np.ndarray
    df: float

    def log_score(self, probs: np.ndarray, next_return: np.ndarray) -> np.ndarray:
        """Log predictive density of every bar's next return, nats, shape (N,).

        Parameters
        ----------
        probs
            Filtered state probabilities known at the bar's close, shape (N, K), NaN if unknown.
        next_return
            ln(C_{i+1} / C_i), shape (N,), NaN if unknown. A row's score depends on that row alone.
        """
        return log_mixture(probs, next_return, self.loc, self.scale, self.df)

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return {"loc": self.loc.tolist(), "scale": self.scale.tolist(), "df": self.df}

    @classmethod
    def from_stored(cls, stored: Fields, n_states: int) -> "ReturnDensities":
        """The inverse of `to_dict` for `n_states` states. Raises ModelError."""
        stored.only(["loc", "scale", "df"])
        loc, scale = (stored.array(name, (n_states,)) for name in ("loc", "scale"))
        if not (scale > 0).all():
            raise stored.fault("scale", "must be above 0")
        return cls(loc, scale, stored.number("df", above=0.0))


@dataclass(frozen=True)
class Baselines:
    """The forecasts without states.

    Attributes
    ----------
    static
        None if the train returns allow no fit.
    volatility
        Those of `VOLATILITY` that have a fit, by name.
    unscored
        Reasons for the missing ones, by name.
    """

    static: ReturnDensities | None
    volatility: Mapping[str, VolatilityBaseline]
    unscored: Unscored = field(default_factory=dict)


def fit_return_densities(probs_train: np.ndarray, next_return_train: np.ndarray) -> ReturnDensities:
    """Fit the K densities by maximum likelihood with fixed weights.

    Rows without probabilities or without a next return are left out.

    Raises
    ------
    FitError
        Too few such rows, or returns that do not vary.
    """
    scored = np.isfinite(next_return_train) & finite_rows(probs_train)
    if not scored.any():
        raise FitError("no train bar has both state probabilities and a next return")
    fit = fit_mixture(
        np.compress(scored, probs_train, axis=0), np.compress(scored, next_return_train)
    )
    return ReturnDensities(fit.loc, fit.scale, fit.df)


def fit_static(next_return_train: np.ndarray) -> ReturnDensities:
    """Fit one Student-t to all train returns. Raises FitError."""
    return fit_return_densities(np.ones((len(next_return_train), 1)), next_return_train)


def fit_baselines(train: BarSeries) -> Baselines:
    """Fit each baseline to all train bars, in time order; each may fail on its own.

    A process fits the same bars once: the cells of a sweep share them.
    """
    if train.digest not in _BASELINES:
        _BASELINES[train.digest] = _fit_baselines(train)
    return _BASELINES[train.digest]


def _fit_baselines(train: BarSeries) -> Baselines:
    unscored: Unscored = {}
    static = fitted("static", unscored, fit_static, train.next_return)
    found = {name: fitted(name, unscored, fit_volatility, name, train) for name in VOLATILITY}
    return Baselines(static, {name: fit for name, fit in found.items() if fit}, unscored)


def score_bars(
    densities: ReturnDensities | None, baselines: Baselines, probs: np.ndarray, series: BarSeries
) -> pd.DataFrame:
    """Log predictive densities of every base bar's next return, nats.

    Returns
    -------
    DataFrame
        Columns `SCORES`, N rows. `model` is NaN where probabilities or return are missing, the
        others where the return is missing; a forecast without a fit is NaN on all rows. Row i
        depends only on bars up to i + 1, its target.
    """
    return pd.DataFrame(scores_of_bars(densities, baselines, probs, series))


def scores_of_bars(
    densities: ReturnDensities | None, baselines: Baselines, probs: np.ndarray, series: BarSeries
) -> dict[str, np.ndarray]:
    """Columns of `score_bars` by name, shape (N,) each. Not to be changed: a series keeps some."""
    returns = series.next_return
    scores = dict.fromkeys(SCORES, np.full(len(returns), np.nan))
    if densities is not None:
        scores["model"] = densities.log_score(probs, returns)
    if (static := baselines.static) is not None:
        scores["static"] = series.once(
            (static, "log_score"), lambda: static.log_score(np.ones((len(returns), 1)), returns)
        )
    for name, baseline in baselines.volatility.items():
        scores[name] = baseline.log_score(series)
    return scores


def summarise(
    scores: pd.DataFrame,
    split: np.ndarray,
    counted: np.ndarray | None = None,
    parts: Sequence[int] = (TRAIN, VAL, TEST),
) -> dict[str, float]:
    """Mean scores and gains per part, nats per bar.

    Parameters
    ----------
    scores
        From `score_bars`.
    split
        Code (`TRAIN`, `VAL`, `TEST`) of the part of the target bar i + 1, shape (N,).
    counted
        Bars to count, shape (N,); by default all. To compare observation spaces, pass the bars
        that every space scores.
    parts
        Codes of the parts to report.

    Returns
    -------
    dict
        `return_score_{split}`, `return_gain_{split}` (over the static Student-t) and the gain
        over each volatility forecast, such as `ewma_gain_{split}`; metrics without a scored bar
        are left out.
    """
    return part_means(per_bar(scores), split, counted, parts)


def part_means(
    values: Mapping[str, np.ndarray],
    split: np.ndarray,
    counted: np.ndarray | None = None,
    parts: Sequence[int] = (TRAIN, VAL, TEST),
) -> dict[str, float]:
    """Means `{name}_{split}` of series (N,) over their known bars; arguments as in `summarise`."""
    means: dict[str, float] = {}
    inside = {part: split == part for part in parts}
    if counted is not None:
        inside = {part: mask & counted for part, mask in inside.items()}
    for name, series in values.items():
        for part, mask in inside.items():
            known = series[mask]
            known = known[np.isfinite(known)]
            if len(known):
                means[f"{name}_{SPLIT_NAMES[part]}"] = float(known.mean())
    return means


def per_bar(scores: pd.DataFrame) -> dict[str, np.ndarray]:
    """Score and gains of every bar by name, nats, shape (N,) each; NaN where not scored."""
    model, *others = (scores[name].to_numpy() for name in SCORES)
    gains = zip(GAINS, others, strict=True)
    return {"return_score": model, **{name: model - other for name, other in gains}}


def next_returns(close: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """ln(C_{i+1} / C_i) where bar i + 1 is the next chain step, else NaN; shape (N,).

    Parameters
    ----------
    close
        Closing prices of the base bars, shape (N,).
    steps
        Chain steps from the bar before, shape (N,): 1 for neighbours, 0 starts a sequence.
    """
    returns = np.full(len(close), np.nan)
    returns[:-1] = np.where(steps[1:] == 1, np.diff(np.log(close)), np.nan)
    return returns


def known_at_close(base_time: np.ndarray, row_time: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of the latest row at the close of every base bar; NaN before the first row.

    Parameters
    ----------
    base_time, row_time
        `available_at` of the base bars (N,) and of the rows (T,), increasing, int64 ns.
    values
        Values of the rows, such as filtered probabilities, shape (T, K) or (T,).
    """
    return take_rows(values, np.searchsorted(row_time, base_time, side="right") - 1)


def take_rows(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`values[rows]` with NaN for negative rows."""
    known = rows >= 0
    if not known.any():
        return np.full((len(rows), *values.shape[1:]), np.nan)
    taken = np.take(values, np.where(known, rows, 0), axis=0).astype(np.float64, copy=False)
    taken[~known] = np.nan
    return taken


def mix(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """sum_k weights[:, k] values[..., k], shape (T,); values (K,) or (T, K).

    Summed state by state, so that the bits of a row depend on that row alone.
    """
    total = weights[:, 0] * values[..., 0]
    for k in range(1, weights.shape[1]):
        total = total + weights[:, k] * values[..., k]
    return total
