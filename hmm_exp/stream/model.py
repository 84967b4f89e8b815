"""What a stream must know of a fitted model: how bars become observations, and the chain."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.errors import ModelError
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.timeframes import timeframe_step


@dataclass(frozen=True, eq=False)
class StreamModel:
    """The computing parts of a detector, which adds answers about whole tables.

    A saved stream carries them with it.

    Attributes
    ----------
    recipe
        Which feature columns, from which timeframes and windows.
    scaler_mean, scaler_scale
        Mean and standard deviation of every column, shape (D,).
    params
        The Gaussian HMM over scaled features.
    labels
        Name of every state, calm first.
    step, name
        Length of a base bar, and the instrument, as in `Bars`.
    reading
        How its bars were read in training, and so are read wherever it serves.
    min_history
        Base bars before the first answer: windows and the filter's burn-in.
    """

    recipe: Recipe
    scaler_mean: np.ndarray
    scaler_scale: np.ndarray
    params: GaussianParams
    labels: tuple[str, ...]
    step: pd.Timedelta
    reading: ReadOptions
    name: str
    min_history: int

    @property
    def stamp(self) -> str:
        """What a time of its bars marks, "open" or "close"."""
        return self.reading.bar_stamp

    @property
    def gaps(self) -> str:
        """What a missing bar means, "split" or "bridge"."""
        return self.reading.gaps

    @property
    def row_step(self) -> pd.Timedelta:
        """Time between two rows of the answer."""
        return timeframe_step(self.recipe.grid)

    def regime_frame(
        self,
        timestamp: Any,
        available_at: pd.DatetimeIndex,
        probs: np.ndarray | None,
        states: np.ndarray | None = None,
    ) -> pd.DataFrame:
        """Frame of an answer from probabilities, shape (T, K), or from states alone."""
        if states is None:
            assert probs is not None
            states = probs.argmax(axis=1)
        columns = {
            "timestamp": timestamp,
            "available_at": available_at,
            "state": states,
            "label": np.asarray(self.labels, dtype=object)[states],
        }
        shares = () if probs is None else probs.T
        return pd.DataFrame(columns | {f"p_state_{k}": p for k, p in enumerate(shares)})

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON; floats keep every bit."""
        return {
            "recipe": self.recipe.to_dict(),
            "scaler_mean": self.scaler_mean.tolist(),
            "scaler_scale": self.scaler_scale.tolist(),
            "params": self.params.to_dict(),
            "labels": list(self.labels),
            "step_seconds": self.step.total_seconds(),
            "reading": self.reading.to_dict(),
            "name": self.name,
            "min_history": self.min_history,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StreamModel":
        """Read what `to_dict` gave. Raises ModelError when `values` is not its work."""
        try:
            return cls(**read_parts(values))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the model of the saved stream is damaged: {error}") from error


def read_parts(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of a `StreamModel` from what `to_dict` gave; raises KeyError for a missing one."""
    reading = values["reading"] if "reading" in values else _first_reading(values)
    return {
        "recipe": Recipe.from_dict(values["recipe"]),
        "scaler_mean": np.array(values["scaler_mean"], dtype=np.float64),
        "scaler_scale": np.array(values["scaler_scale"], dtype=np.float64),
        "params": GaussianParams.from_dict(values["params"]),
        "labels": tuple(values["labels"]),
        "step": pd.Timedelta(seconds=values["step_seconds"]),
        "reading": ReadOptions.from_dict(reading),
        **{name: values[name] for name in ("name", "min_history")},
    }


def _first_reading(values: dict[str, Any]) -> dict[str, Any]:
    """Read options of a model stored before they had a place of their own."""
    return ReadOptions(values["stamp"], values["gaps"]).to_dict()
