"""The computing parts of a fitted model: features, scaler, parameters, reading of bars."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from hmm_exp.detector.decision import ARGMAX, Decider, Decision
from hmm_exp.errors import ConfigError, ModelError, few
from hmm_exp.features.recipe import Recipe
from hmm_exp.features.season import HOURS
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.rows import largest_column
from hmm_exp.market.bars import PRICES, step_in_words, timeframe_step
from hmm_exp.market.iso import iso
from hmm_exp.market.options import ReadOptions
from hmm_exp.stored.fields import LARGEST, Fields

_LONGEST_STEP = pd.Timedelta(days=366)  # of a bar of any timeframe


@dataclass(frozen=True, eq=False, repr=False)
class StreamModel:
    """The computing parts of a detector, which adds answers about whole tables.

    A saved stream carries them with it.
    """

    recipe: Recipe  # which feature columns, from which timeframes and windows
    # `scaler_mean`, `scaler_scale`: mean and standard deviation of every column, shape (D,).
    scaler_mean: np.ndarray
    scaler_scale: np.ndarray
    params: GaussianParams  # the HMM over scaled features
    labels: tuple[str, ...]  # name of every state, calm first
    # `step`, `name`: length of a base bar, and the instrument, as in `Bars`.
    step: pd.Timedelta
    reading: ReadOptions  # how its bars were read in training, and so are read wherever it serves
    name: str
    min_history: int  # base bars before the first answer: windows and the filter's burn-in
    # Train means by hour of the seasonal columns, shape (24, D), taken off before the scaler: NaN
    # for an unseen hour, zero in other columns. None without a season.
    season: np.ndarray | None = None
    decision: Decision = ARGMAX  # from probabilities to the regime; older models have this one
    # `available_at` of the last bar that the parameters know, UTC; None where it is not known.
    train_end: pd.Timestamp | None = None

    def __repr__(self) -> str:
        K = self.params.n_states
        end = "an unknown time" if self.train_end is None else iso(self.train_end)
        return (
            f"{type(self).__name__} {self.name} {step_in_words(self.step)}: {K} "
            f"state{'' if K == 1 else 's'} ({', '.join(self.labels)}) of "
            f"{few(self.recipe.columns)}\n"
            f"trained until {end}; needs {self.min_history:,} bars of history; decides by "
            f"{self.decision}"
        )

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

    @property
    def min_rows(self) -> int:
        """Feature rows an answer needs when the features come ready: the burn-in alone."""
        bars_per_row = max(1, round(self.row_step / self.step))
        return max(1, (self.min_history - self.recipe.warmup(self.step)) // bars_per_row)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a filtered answer, in order."""
        known = () if self.train_end is None else ("in_training",)
        probs = (f"p_state_{k}" for k in range(self.params.n_states))
        return ("timestamp", "available_at", "state", "label", "regime", *known, *probs)

    @property
    def bar_columns(self) -> tuple[str, ...]:
        """Names of the columns of bars that a caller sends: time, four prices, volume.

        Those that no feature uses may be left out, see `Recipe.needs`.
        """
        return (self.reading.time, *PRICES, self.reading.volume)

    @property
    def input_hint(self) -> str:
        """What a caller may send, in words."""
        time, *bar = self.bar_columns
        return f"{time} with {', '.join(bar)}, or {time} with {few(self.recipe.columns)}"

    def decider(self) -> Decider:
        """A decider by the model's rule that has seen no row."""
        return self.decision.decider(self.params.n_states, self.min_rows)

    def regime_frame(
        self,
        timestamp: Any,
        available_at: pd.DatetimeIndex,
        probs: np.ndarray | None,
        states: np.ndarray | None = None,
        decided: np.ndarray | None = None,
    ) -> pd.DataFrame:
        """Frame of an answer from probabilities, shape (T, K), or from states alone.

        With decided regimes, shape (T,), it has their columns too.
        """
        if states is None:
            assert probs is not None
            states = largest_column(probs)
        columns = {
            "timestamp": timestamp,
            "available_at": available_at,
            "state": states,
            "label": pd.Series(self.labels).array.take(states),
        }
        if decided is not None:
            columns["regime"] = decided
            if self.train_end is not None:
                columns["in_training"] = np.asarray(available_at <= self.train_end)
        shares = () if probs is None else probs.T
        return pd.DataFrame(columns | {f"p_state_{k}": p for k, p in enumerate(shares)})

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON; floats keep every bit."""
        known: dict[str, Any] = {}
        if self.season is not None:
            known["season"] = _by_column(self.season, self.recipe)
        if self.train_end is not None:
            known["train_end"] = iso(self.train_end)
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
            "decision": self.decision.to_dict(),
            **known,
        }


def read_model(values: dict[str, Any], form: int) -> StreamModel:
    """Read what `StreamModel.to_dict` gave, or gave in the format `form`. Raises ModelError."""
    stored = Fields(values, "model")
    stored.only(part_names(form), OPTIONAL)
    return StreamModel(**read_parts(stored, form))


OPTIONAL = ("season", "decision", "train_end")  # parts that a stored model may lack


def part_names(form: int) -> list[str]:
    """Names of a stored model's parts in a format."""
    names = ["recipe", "scaler_mean", "scaler_scale", "params", "labels", "step_seconds"]
    return [*names, "name", "min_history", *(["stamp", "gaps"] if form == 1 else ["reading"])]


def read_parts(stored: Fields, form: int) -> dict[str, Any]:
    """Fields of a `StreamModel` from what `to_dict` gave. Raises ModelError by field and rule."""
    recipe = Recipe.from_dict(stored.plain("recipe"))
    params = GaussianParams.from_dict(stored.plain("params"))
    D = len(recipe.columns)
    if params.n_features != D:
        raise ModelError(f"params.means has {params.n_features} columns: the recipe has {D}")
    scale = stored.array("scaler_scale", (D,))
    if not (scale >= 1 / LARGEST).all():
        raise stored.fault("scaler_scale", f"must be above 0, at least {1 / LARGEST:g}")
    labels = stored.texts("labels")
    if len(labels) != params.n_states:
        raise stored.fault("labels", f"must be {params.n_states}, one for each state")
    step = _read_step(stored, recipe)
    return {
        "recipe": recipe,
        "scaler_mean": stored.array("scaler_mean", (D,)),
        "scaler_scale": scale,
        "params": params,
        "labels": labels,
        "step": step,
        "reading": _read_reading(stored, form),
        "name": stored.text("name"),
        "min_history": stored.whole("min_history", least=max(1, recipe.warmup(step))),
        "season": _read_season(stored, recipe),
        "decision": _read_decision(stored),
        "train_end": pd.Timestamp(stored.time("train_end")) if "train_end" in stored else None,
    }


def _by_column(means: np.ndarray, recipe: Recipe) -> dict[str, list[float | None]]:
    """Means by the hour of every seasonal column, None for an unseen hour."""
    return {
        recipe.columns[place]: [None if np.isnan(x) else x for x in means[:, place].tolist()]
        for place in recipe.seasonal
    }


def _read_season(stored: Fields, recipe: Recipe) -> np.ndarray | None:
    """Means by hour from what `_by_column` gave, where the recipe has a season."""
    if recipe.season is None:
        if "season" in stored:
            raise stored.fault("season", "the recipe has no season")
        return None
    by_column, names = stored.part("season"), [recipe.columns[place] for place in recipe.seasonal]
    by_column.only(names)
    means = np.zeros((HOURS, len(recipe.columns)))
    for place, name in zip(recipe.seasonal, names, strict=True):
        means[:, place] = by_column.numbers_or_null(name, HOURS)
    return means


def _read_decision(stored: Fields) -> Decision:
    return Decision.from_stored(stored.part("decision")) if "decision" in stored else ARGMAX


def _read_step(stored: Fields, recipe: Recipe) -> pd.Timedelta:
    """Length of a bar: the timeframes are made of it, or it is that of ready feature rows."""
    seconds = stored.number("step_seconds", above=0.0)
    if seconds % 1 or seconds > _LONGEST_STEP.total_seconds():
        raise stored.fault("step_seconds", "must be a whole number of seconds, at most 366 days")
    step = pd.Timedelta(seconds=int(seconds))
    for name in recipe.timeframes:
        if timeframe_step(name) > _LONGEST_STEP:
            raise ModelError(f"recipe.timeframes holds {name}: the longest bar is of 366 days")
        if step != timeframe_step(recipe.grid) and timeframe_step(name) % step:
            raise stored.fault("step_seconds", f"{name} must be a whole multiple of it")
    return step


def _read_reading(stored: Fields, form: int) -> ReadOptions:
    """Read options; before format 2 a model kept two of them and read columns by their names."""
    try:
        if form == 1:
            return ReadOptions(stored.text("stamp"), stored.text("gaps"))
        reading = stored.part("reading")
        names = [field.name for field in fields(ReadOptions)]
        reading.only(names)
        values: dict[str, Any] = {
            name: reading.text_or_none(name) if name.endswith("_column") else reading.text(name)
            for name in names
        }
        return ReadOptions(**values)
    except ConfigError as error:
        raise ModelError(f"reading: {error}") from None
