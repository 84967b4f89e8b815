"""The detector: bars in, regimes out, the same object in training, on file, live and served.

It bundles what a fit learned (feature recipe, scaler, hidden Markov model with its states in
order, labels) with what its answers rest on (bar length, stamps, gaps, the history it needs).

    detector = hmm_exp.load_detector("models:/hmm_regime/Production")
    regimes = detector.filter(bars)  # timestamp, available_at, state, label, regime, ...

Filtered probabilities use bars up to their own row only. A sequence starts from the stationary
distribution: the fitted `startprob` belongs to the first training bar and means nothing later.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hmm_exp.detector.model import OPTIONAL, StreamModel, part_names, read_parts
from hmm_exp.detector.sent import Table, bars_sent, frame_of, indexed
from hmm_exp.errors import ConfigError, DataError, HistoryError, ModelError, few
from hmm_exp.features.build import FeatureTable, bars_in_words, build_features
from hmm_exp.features.recipe import Recipe
from hmm_exp.features.season import row_ends
from hmm_exp.hmm import inference
from hmm_exp.hmm.density import log_density
from hmm_exp.market.bars import Bars, step_in_words
from hmm_exp.market.columns import is_known
from hmm_exp.market.gaps import chain_steps, usual_step
from hmm_exp.market.load import features_from_frame
from hmm_exp.market.options import ReadOptions
from hmm_exp.stored.document import DETECTOR, FORMAT, format_of, write_document
from hmm_exp.stored.fields import Fields
from hmm_exp.uncertainty.estimates import StandardErrors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hmm_exp.detector.stream import Stream

Source = Bars | FeatureTable | Table


@dataclass(frozen=True, repr=False)
class Detector(StreamModel):
    """A fitted regime model with everything that turns bars into its observations.

    Attributes
    ----------
    recipe
        Which feature columns, from which timeframes and windows.
    scaler_mean, scaler_scale
        Mean and standard deviation of every column on train rows, shape (D,).
    params
        The HMM over scaled features; state 0 is the calmest.
    labels
        Name of every state, calm first.
    step, name
        Length of a bar it was trained on, and the instrument, as in `Bars`.
    reading
        How its bars were read in training; `filter` and everything that serves reads alike.
    min_history
        Base bars an answer needs: feature warm-up plus burn-in of the filter.
    season
        Train means by hour of the recipe's seasonal columns, shape (24, D); None without a season.
    decision
        Rule that turns filtered probabilities into the regime to act on.
    train_end
        When the last bar that the parameters know was complete, UTC; None in some older models.
    meta
        Where it comes from: fingerprint, train end and the like. Never used in computing.
    expectations
        Baseline for `hmm_exp.monitor`, see `monitor.expectations`; empty in older models.
    strategy
        Trading rules for `hmm_exp.backtest`, and where judging starts; empty in older models and
        without bars.
    errors
        Standard errors of `params`, in units of the scaled features; None in older models.
    """

    meta: dict[str, Any] = field(default_factory=dict)
    expectations: dict[str, Any] = field(default_factory=dict)
    errors: StandardErrors | None = None
    strategy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.train_end is None and "train_end" in self.meta:  # earlier versions have it there
            object.__setattr__(self, "train_end", pd.Timestamp(self.meta["train_end"]))

    @property
    def n_states(self) -> int:
        """Number of regimes."""
        return self.params.n_states

    def filter(self, source: Source) -> pd.DataFrame:
        """Regime of every row from the bars up to it: the causal answer.

        Parameters
        ----------
        source
            `Bars`; or a frame (or mapping of columns) with times, open, high, low, close, volume;
            or ready feature rows, times and the recipe's columns; or a `FeatureTable`. Names may
            have any case and the usual variants, and times may be the index. One sequence of at
            least `min_history` bars (`min_rows` feature rows), the first of which are still
            settling.

        Returns
        -------
        DataFrame
            `timestamp, available_at, state, label, regime, in_training, p_state_0 ...`, a row per
            complete bar of the recipe's finest timeframe after the feature warm-up. `label` is the
            name of `state`, the most probable one. `regime` is the number of the state that the
            decision rule takes, -1 while the rows do not decide it. `in_training` marks rows whose
            parameters know later bars; a model that does not know its training has no such column.
            Times that came in a DatetimeIndex are the index again, with its zone or without one.

        Raises
        ------
        HistoryError
            With fewer than `min_history` bars.
        DataError
            When the bars are not valid, or not of the length the model was trained on.
        """
        table = self.observe(source)
        probs = self.filtered(table).probs
        answer = self.regimes(table, probs, decided=self.decider().advance(probs))
        return indexed(answer, source, self.reading)

    def smooth(self, source: Source) -> pd.DataFrame:
        """Regime of every row from all rows, later ones too: for looking back only; as `filter`."""
        table = self.observe(source)
        return indexed(self.regimes(table, self.smoothed(table).probs), source, self.reading)

    def decode(self, source: Source) -> pd.DataFrame:
        """Most likely path through all rows (Viterbi): for looking back only.

        As `filter`, without probabilities: the path has one for the whole.
        """
        table = self.observe(source)
        answer = self.regimes(table, None, self.decoded(table).states)
        return indexed(answer, source, self.reading)

    def plot(self, source: Bars | Table) -> "Figure":
        """Draw the close coloured by regime, above the filtered probabilities.

        Parameters
        ----------
        source
            Bars, as for `filter`.

        Returns
        -------
        Figure
            Of matplotlib, without pyplot; `hmm_exp.figures.save` writes it to a file.

        Raises
        ------
        HistoryError, DataError
            As `filter`; also for bars without closes.
        ConfigError
            Where the figures of this package, or matplotlib, are not installed.
        """
        try:
            from hmm_exp.figures.timeline import regimes
        except ImportError as error:
            raise ConfigError(f"plot needs hmm_exp and matplotlib installed: {error}") from None
        bars = self._accepted(source)
        answer = self.filter(bars)
        time = pd.DatetimeIndex(answer["available_at"]).as_unit("ns")
        close = bars.frame["close"].reindex(time, method="ffill").to_numpy()
        if not np.isfinite(close).all():
            raise DataError("plot needs the close of every bar")
        return regimes(
            time.asi8,
            close,
            answer["regime"].to_numpy(),
            answer.filter(like="p_state_").to_numpy(),
            self.labels,
            subject=f"{self.name} {self.recipe.grid}",
        )

    def stream(self, history: Bars | Table | None = None, missing: str = "error") -> "Stream":
        """Filter that takes bars one by one; at every bar its answer is that of `filter`.

        Parameters
        ----------
        history
            At least `min_history` bars to begin with, as for `filter`. Without them the stream
            gives no regime until it has taken as many.
        missing
            What a bar means that is not one step on from the last: "error", or "gap".

        Raises
        ------
        HistoryError, DataError
            As `filter`.
        """
        from hmm_exp.detector.stream import Stream

        names = [part.name for part in fields(StreamModel)]
        stream = Stream(StreamModel(**{name: getattr(self, name) for name in names}), missing)
        if history is not None:
            stream.extend(self._long_enough(self._accepted(history)))
        return stream

    def observe(self, source: Source) -> FeatureTable:
        """Features of what `filter` takes, valid for this model and long enough for an answer."""
        if isinstance(source, FeatureTable):
            return source
        if not isinstance(source, Bars) and self.holds_features(frame := frame_of(source)):
            return self._ready(frame)
        return build_features(self._long_enough(self._accepted(source)), self.recipe)

    def holds_features(self, frame: pd.DataFrame) -> bool:
        """True for ready feature rows; a frame with a close is one of bars."""
        prices = set(map(str.lower, map(str, frame.columns)))
        return "close" not in prices and any(name in frame for name in self.recipe.columns)

    def reads(self, name: str) -> bool:
        """True for a name of a column that `filter` may read."""
        chosen = (self.reading.timestamp_column, self.reading.volume_column)
        return name in (*self.recipe.columns, *chosen) or is_known(name)

    def scaled(self, table: FeatureTable) -> np.ndarray:
        """Observations of the model: scaled features, shape (T, D), NaN where missing."""
        X = table.less(self.season).X
        return np.ascontiguousarray((X - self.scaler_mean) / self.scaler_scale)

    def log_density(self, table: FeatureTable) -> np.ndarray:
        """Log density of every row under every state, in nats of scaled features, shape (T, K)."""
        return log_density(self.params, self.scaled(table))

    def filtered(self, table: FeatureTable) -> inference.Filtered:
        r"""Filtered $p(z_t \mid x_1, \dots, x_t)$ and predictive log-likelihood of each row."""
        stationary = self.params.stationary()
        return inference.filter_rows(self.params, self.scaled(table), table.steps, stationary)

    def smoothed(self, table: FeatureTable) -> inference.Smoothed:
        r"""Smoothed $p(z_t \mid x_1, \dots, x_T)$: for looking back only."""
        return self._recurse(inference.smooth, table)

    def decoded(self, table: FeatureTable) -> inference.Decoded:
        """Viterbi path, the most likely one given all rows: for looking back only."""
        return self._recurse(inference.viterbi, table)

    def summary(self) -> str:
        """Table of the estimates with standard errors and intervals, in the features' units.

        `std err` comes from the observed information and `robust` from the sandwich, see
        `hmm.standard_errors`. Of a model with missing errors the last lines name the reason.
        """
        from hmm_exp.detector.summary import summary_text

        return summary_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON-ready values; floats keep every bit."""
        parts = super().to_dict()
        known = {} if self.errors is None else {"standard_errors": self.errors.to_dict()}
        known |= {"strategy": self.strategy} if self.strategy else {}
        about = {"meta": self.meta, "promise": self.expectations}
        return {"format": FORMAT, **parts, **about, **known}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Detector":
        """Read what `to_dict` gave, or gave in an earlier format. Raises ModelError."""
        stored = Fields(values)
        form = format_of(values, DETECTOR)
        names = [*part_names(form), "format", "meta"]
        optional = ["promise", "standard_errors", "strategy", *OPTIONAL]
        stored.only([*names, "promise"] if form > 1 else names, optional)
        expectations = stored.plain("promise") if "promise" in stored else {}
        _check_meta(stored.part("meta"), needs_end=bool(expectations))
        parts = read_parts(stored, form)
        errors = None
        if "standard_errors" in stored:
            errors = StandardErrors.from_dict(stored.plain("standard_errors"), parts["params"])
        strategy = stored.plain("strategy") if "strategy" in stored else {}
        meta = stored.plain("meta")
        return cls(**parts, meta=meta, expectations=expectations, errors=errors, strategy=strategy)

    def save(self, path: "str | Path") -> None:
        """Write the detector as JSON with a digest, whole or not at all."""
        write_document(path, self.to_dict())

    @classmethod
    def load(cls, path: "str | Path") -> "Detector":
        """Read a detector from its JSON file, the folder that holds it, or an MLflow model's.

        Raises
        ------
        ModelError
            There is none, it is damaged, or it is of a pool.
        """
        from hmm_exp.detector.pooled import read_detector

        found = read_detector(path)
        if not isinstance(found, Detector):
            raise ModelError(
                f"{path} holds one model of {len(found.symbols):,} symbols: "
                f"hmm_exp.load_detector gives it, and .of({found.symbols[0]!r}) its detector"
            )
        return found

    def _accepted(self, bars: Bars | Table) -> Bars:
        if not isinstance(bars, Bars):
            return bars_sent(bars, self)
        if bars.step != self.step:
            raise DataError(
                f"bars of {step_in_words(bars.step)}: the model was trained on bars of "
                f"{step_in_words(self.step)}"
            )
        return bars

    def _ready(self, frame: pd.DataFrame) -> FeatureTable:
        if missing := [name for name in self.recipe.columns if name not in frame]:
            raise DataError(f"no column {few(missing)}: send {self.input_hint}")
        if len(frame) < self.min_rows:
            raise HistoryError(
                f"{len(frame)} feature rows are too few: send at least {self.min_rows} "
                f"consecutive rows of {self.recipe.grid}"
            )
        return feature_table(frame, self.recipe, self.row_step, self.reading)

    def regimes(
        self,
        table: FeatureTable,
        probs: np.ndarray | None,
        states: np.ndarray | None = None,
        decided: np.ndarray | None = None,
    ) -> pd.DataFrame:
        """Frame of an answer about a table, as `regime_frame`."""
        return self.regime_frame(table.timestamp.array, table.available_at, probs, states, decided)

    def _long_enough(self, bars: Bars) -> Bars:
        if len(bars) < self.min_history:
            raise HistoryError(
                f"{bars_in_words(bars)}, are too few: send at least {self.min_history} consecutive "
                f"bars ({self.recipe.grid} model, windows and burn-in included)"
            )
        return bars

    def _recurse(self, recursion: Any, table: FeatureTable) -> Any:
        stationary = self.params.stationary()
        return recursion(stationary, self.params.transmat, self.log_density(table), table.steps)


def feature_table(
    frame: pd.DataFrame, recipe: Recipe, row_step: pd.Timedelta, options: ReadOptions
) -> FeatureTable:
    """Feature table from ready rows with a `timestamp` column, or indexed by `available_at`."""
    ready = frame.index.name == "available_at"
    rows = frame if ready else features_from_frame(frame, options, fewest=1)[0]
    values = rows[list(recipe.columns)].astype(np.float64)
    complete = values.notna().all(axis=1).to_numpy()
    if not complete.any():
        raise DataError(f"no feature row is complete in {', '.join(recipe.columns)}")
    first = int(complete.argmax())
    time = pd.DatetimeIndex(values.index).as_unit("ns").asi8[first:]
    _check_grid(time, row_step, recipe)
    return FeatureTable(
        frame=values.iloc[first:],
        timestamp=rows["timestamp"].iloc[first:],
        steps=chain_steps(time, row_step.value, options.gaps),
        warmup_rows=first,
        n_missing=int((~complete[first:]).sum()),
        recipe=recipe,
        ends=row_ends(recipe, time),
    )


def _check_grid(time_ns: np.ndarray, row_step: pd.Timedelta, recipe: Recipe) -> None:
    """Refuse rows finer than the columns in use: each would stand in the chain many times."""
    if len(time_ns) < 2 or (usual := usual_step(time_ns)) >= row_step.value:
        return
    raise DataError(
        f"rows come every {step_in_words(pd.Timedelta(usual, unit='ns'))} and the finest column "
        f"in use is of {recipe.grid}: keep a column of the rows' own timeframe (features, "
        f"timeframe), or build a table with {recipe.grid} as its finest"
    )


def _check_meta(meta: Fields, needs_end: bool) -> None:
    """Refuse what cannot be where a model comes from; the monitor starts where training ended."""
    if "fingerprint" in meta:
        meta.text("fingerprint")
    if "refit" in meta:
        meta.truth("refit")
    if needs_end or "train_end" in meta:
        meta.time("train_end")
