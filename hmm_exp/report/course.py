"""What the charts of a report show: plain tables, without MLflow and Bokeh."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MOST_ROWS = 120_000  # of the timeline; beyond it only every second, third ... bar is kept
UNKNOWN = 255  # missing state or probability
_CERTAIN = 250  # code of probability 1
_POINTS = 1_500  # points of the cumulative gain per part
GAINS = {"static": "ink", "ewma": "grey"}
CRITERIA = ("bic", "aic", "hqc", "icl", "cv")


@dataclass(frozen=True, eq=False)
class Course:
    """The regimes of a run and its scores over time."""

    labels: list[str]  # names of the K states, calm to turbulent
    regimes: pd.DataFrame  # T rows of `regimes.csv`, index `available_at`
    probs: pd.DataFrame  # filtered probabilities, shape (T, K)
    scores: pd.DataFrame | None  # output of `read_scores`, None without base returns


@dataclass(frozen=True)
class PageChart:
    """A chart for the page: its JSON and the facts that `report.js` needs."""

    item: dict[str, Any]
    about: dict[str, Any]


@dataclass(frozen=True)
class PageCharts:
    """The charts of a page: of the model, if there is one, and of the criteria by space."""

    timeline: PageChart | None
    criteria: dict[str, PageChart]


def bars_with_regimes(course: Course) -> pd.DataFrame:
    """Regime known at the close of every base bar, or of every model row without prices.

    Columns: `close` (float32, if recorded), `state` (the decided regime) and `p0 ...` in 1/250
    (uint8); `UNKNOWN` before the first regime.
    """
    scores = course.scores
    rows = course.regimes
    n_states = len(course.labels)
    known = pd.DataFrame(index=rows.index)
    decided = rows["regime"] if "regime" in rows else rows["state"]  # none in earlier versions
    known["state"] = decided.where(decided >= 0, UNKNOWN).astype(np.float32)
    shares = np.rint(_CERTAIN * course.probs.to_numpy(np.float64))
    for k in range(n_states):
        known[f"p{k}"] = shares[:, k]
    if scores is not None and "close" in scores:
        places = known.index.searchsorted(scores.index, side="right") - 1
        known = known.take(np.maximum(places, 0)).set_axis(scores.index)
        known[places < 0] = np.nan
    compact = known.fillna(UNKNOWN).astype(np.uint8)
    if scores is not None and "close" in scores:
        compact["close"] = scores["close"].to_numpy(np.float32)
    return compact.iloc[:: -(-len(compact) // MOST_ROWS)]


def gains_of(course: Course) -> pd.DataFrame:
    """Gain of every bar over each measurable baseline in `GAINS`, nats, NaN if not scored."""
    if course.scores is None:
        return pd.DataFrame()
    model_score = course.scores["model_score"]
    gains = pd.DataFrame({name: model_score - course.scores[f"{name}_score"] for name in GAINS})
    return gains.dropna(axis=1, how="all")


def cumulative_gains(course: Course) -> pd.DataFrame | None:
    """Cumulative gains from zero in every part, thinned, NaN between parts."""
    gains = gains_of(course)
    if course.scores is None or gains.empty:
        return None
    parts = []
    for _, rows in gains.fillna(0.0).groupby(course.scores["split"], sort=False):
        sums = rows.cumsum()
        shown = sums.iloc[:: -(-len(sums) // _POINTS)]
        parts += [shown, sums.iloc[-1:], sums.iloc[-1:] * np.nan]
    return pd.concat(parts)
