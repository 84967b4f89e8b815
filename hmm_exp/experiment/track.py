"""What a model, or one after the other, said at every row and bar: the input of all judging."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from hmm_exp.experiment.unscored import Unscored
from hmm_exp.experiment.yardstick import Yardstick

SCORES = ["model", "static", "ewma"]
VARIANCES = [f"{name}_variance" for name in SCORES]
# Log scores in nats, variance forecasts up to a factor, pseudo-residual of the next return.
BAR_COLUMNS = [*SCORES, *VARIANCES, "return_residual"]


@dataclass(frozen=True, eq=False)
class Track:
    """What a model, or one after the other, said at every row and bar.

    Attributes
    ----------
    probs
        Filtered probabilities of every row, shape (T, K); NaN where no model had spoken yet.
    log_lik
        ln p(x_t | x_1..t-1) of every row in nats of scaled features, shape (T,), NaN as above.
    smoothed
        Probabilities in hindsight, shape (T, K).
    bar_probs
        Filtered probabilities known at the close of every base bar, shape (N, K).
    residuals
        Forecast pseudo-residuals of every feature of every row, shape (T, D).
    bars
        Forecasts of every base bar's next return, columns `BAR_COLUMNS`, NaN for those that have
        no fit; None without base returns.
    yardstick
        Densities of the next return that the scores come from; None without a fit, and after a
        walk, which has many.
    unscored
        Why scores are missing.
    """

    probs: np.ndarray
    log_lik: np.ndarray
    smoothed: np.ndarray
    bar_probs: np.ndarray
    residuals: np.ndarray
    bars: pd.DataFrame | None
    yardstick: Yardstick | None = None
    unscored: Unscored = field(default_factory=dict)

    @property
    def scores(self) -> pd.DataFrame | None:
        """Log predictive densities `model, static, ewma` of the next return, nats."""
        return None if self.bars is None else self.bars[SCORES]

    @property
    def spoken(self) -> np.ndarray:
        """Mask of the rows that have probabilities, shape (T,)."""
        return np.isfinite(self.probs[:, 0])


def most_probable(probs: np.ndarray) -> np.ndarray:
    """Most probable state of every row, shape (T,); -1 where there are no probabilities."""
    known = np.isfinite(probs[:, 0])
    return np.where(known, np.where(known[:, None], probs, 0.0).argmax(axis=1), -1)
