r"""The yardstick on which models of different observation spaces meet: the next bar's return.

The filtered state probabilities p_ik known at the close of base bar i weight K Student-t
densities for the log return of the bar after it,

    score_i = ln sum_k p_ik St(ln(C_{i+1} / C_i); loc_k, scale_k, df),

fitted on train with the weights fixed. Two baselines know nothing of states: one static
Student-t, and a Student-t whose scale is an exponentially weighted volatility. Fat tails are in
all three, so a gain over them is the worth of the regimes alone. Scores are in nats per bar.

Example
-------
>>> baselines = fit_baselines(next_return[train])
>>> yardstick = fit_yardstick(probs[train], next_return[train])
>>> scores = score_bars(yardstick, baselines, probs, next_return)
>>> summarise(scores, split)                                # {"return_gain_val": 0.05, ...}
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hmm_exp.errors import FitError
from hmm_exp.experiment.ewma import Ewma, fit_ewma
from hmm_exp.experiment.split import SPLIT_NAMES, TEST, TRAIN, VAL
from hmm_exp.experiment.student_t import fit_mixture, log_mixture
from hmm_exp.experiment.unscored import Unscored, fitted
from hmm_exp.stored.fields import Fields


@dataclass(frozen=True)
class Yardstick:
    """What the next base bar's log return is like in every state.

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
            Filtered state probabilities known at the bar's close, shape (N, K), NaN where none.
        next_return
            ln(C_{i+1} / C_i), shape (N,), NaN where none. Rows depend on themselves alone.
        """
        return log_mixture(probs, next_return, self.loc, self.scale, self.df)

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return {"loc": self.loc.tolist(), "scale": self.scale.tolist(), "df": self.df}

    @classmethod
    def from_stored(cls, stored: Fields, n_states: int) -> "Yardstick":
        """Read what `to_dict` gave for so many states. Raises ModelError."""
        stored.only(["loc", "scale", "df"])
        loc, scale = (stored.array(name, (n_states,)) for name in ("loc", "scale"))
        if not (scale > 0).all():
            raise stored.fault("scale", "must be above 0")
        return cls(loc, scale, stored.number("df", above=0.0))


@dataclass(frozen=True)
class Baselines:
    """The two forecasts without states: one Student-t for all time, and one with EWMA scale.

    Attributes
    ----------
    static, ewma
        None where the train returns allow no fit.
    unscored
        Why, by name.
    """

    static: Yardstick | None
    ewma: Ewma | None
    unscored: Unscored = field(default_factory=dict)


def fit_yardstick(probs_train: np.ndarray, next_return_train: np.ndarray) -> Yardstick:
    """Fit the K densities by maximum likelihood with the weights fixed.

    Rows without probabilities or without a next return are left aside.

    Raises
    ------
    FitError
        Too few such rows, or returns that do not vary.
    """
    scored = np.isfinite(next_return_train) & np.isfinite(probs_train).all(axis=1)
    if not scored.any():
        raise FitError("no train bar has both state probabilities and a next return")
    fit = fit_mixture(probs_train[scored], next_return_train[scored])
    return Yardstick(fit.loc, fit.scale, fit.df)


def fit_static(next_return_train: np.ndarray) -> Yardstick:
    """Fit one Student-t to all train returns: a yardstick of one state. Raises FitError."""
    return fit_yardstick(np.ones((len(next_return_train), 1)), next_return_train)


def fit_baselines(next_return_train: np.ndarray) -> Baselines:
    """Fit each baseline to all train returns, in time order; one may fail without the other."""
    unscored: Unscored = {}
    static = fitted("static", unscored, fit_static, next_return_train)
    ewma = fitted("ewma", unscored, fit_ewma, next_return_train)
    return Baselines(static, ewma, unscored)


def score_bars(
    yardstick: Yardstick | None, baselines: Baselines, probs: np.ndarray, next_return: np.ndarray
) -> pd.DataFrame:
    """Log predictive densities of every base bar's next return, nats.

    Returns
    -------
    DataFrame
        N rows; `model` is NaN where probabilities or return are missing, `static` and `ewma`
        where the return is, and a forecast that has no fit on all rows. Row i depends on bars up
        to i + 1 (its target) alone.
    """
    ones, none = np.ones((len(next_return), 1)), np.full(len(next_return), np.nan)
    static, ewma = baselines.static, baselines.ewma
    return pd.DataFrame(
        {
            "model": none if yardstick is None else yardstick.log_score(probs, next_return),
            "static": none if static is None else static.log_score(ones, next_return),
            "ewma": none if ewma is None else ewma.log_score(next_return),
        }
    )


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
        Code (`TRAIN`, `VAL`, `TEST`) of the part that the target bar i + 1 is in, shape (N,).
    counted
        Bars that count, shape (N,); by default all. Across observation spaces: those that
        every space scores.
    parts
        Codes of the parts to report.

    Returns
    -------
    dict
        `return_score_{split}`, `return_gain_{split}` (over the static Student-t) and
        `ewma_gain_{split}`; one without a bar that its forecasts score is left out.
    """
    metrics: dict[str, float] = {}
    for name, values in per_bar(scores).items():
        scored = np.isfinite(values) if counted is None else np.isfinite(values) & counted
        for part in parts:
            rows = scored & (split == part)
            if rows.any():
                metrics[f"{name}_{SPLIT_NAMES[part]}"] = float(values[rows].mean())
    return metrics


def per_bar(scores: pd.DataFrame) -> dict[str, np.ndarray]:
    """Score and gains of every bar by name, nats, shape (N,) each; NaN where not scored."""
    model, static, ewma = (scores[name].to_numpy() for name in ("model", "static", "ewma"))
    return {"return_score": model, "return_gain": model - static, "ewma_gain": model - ewma}


def next_returns(close: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """ln(C_{i+1} / C_i) where bar i + 1 is the next chain step, else NaN; shape (N,).

    Parameters
    ----------
    close
        Closing prices of the base bars, shape (N,).
    steps
        Chain steps from the bar before, shape (N,): 1 for neighbours, 0 opens a sequence.
    """
    returns = np.full(len(close), np.nan)
    returns[:-1] = np.where(steps[1:] == 1, np.diff(np.log(close)), np.nan)
    return returns


def known_at_close(base_time: np.ndarray, row_time: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The latest row's values at the close of every base bar; NaN before the first row.

    Parameters
    ----------
    base_time, row_time
        `available_at` of the base bars (N,) and of the rows (T,), increasing, int64 ns.
    values
        One row's values, such as filtered probabilities, shape (T, K) or (T,).
    """
    latest = np.searchsorted(row_time, base_time, side="right") - 1
    known = np.full((len(base_time), *values.shape[1:]), np.nan)
    known[latest >= 0] = values[latest[latest >= 0]]
    return known
