"""One model of many symbols: a detector for each, with the same HMM and a scaler of its own.

    pool = hmm_exp.load_detector("models:/hmm_regime.pool/Production")
    regimes = pool.filter({"BTC": btc_bars, "ETH": eth_bars})     # symbol, timestamp, state, ...
    stream = pool.of("BTC").stream(btc_bars)

Its file holds the parts that all symbols share once, and those of every symbol: scaler, season, bar
length, reading of bars, history needed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hmm_exp.config import nearest
from hmm_exp.detector.detector import Detector, Source
from hmm_exp.detector.files import Newest
from hmm_exp.detector.sent import Table, frame_of
from hmm_exp.errors import DataError, HmmExpError, ModelError, counted
from hmm_exp.features.recipe import Recipe
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.market.iso import iso
from hmm_exp.stored.document import (
    DETECTOR,
    FORMAT,
    OtherFileError,
    detector_file,
    read_document,
    where_instead,
    write_document,
)
from hmm_exp.stored.fields import Fields

SYMBOL = "symbol"
KIND = "pool"  # in the file; that of a single detector names no kind
_SHARED = ("recipe", "params", "labels", "decision", "standard_errors")


@dataclass(frozen=True, eq=False, repr=False)
class PooledDetector:
    """One fitted regime model of many symbols.

    Attributes
    ----------
    detectors
        The detector of every symbol; all have one model, one recipe, one set of labels and one
        decision rule.
    name
        Name of the pool.

    Raises
    ------
    ModelError
        There is no symbol, or two have different models.
    """

    detectors: Mapping[str, Detector]
    name: str = "pool"

    def __post_init__(self) -> None:
        if not self.detectors:
            raise ModelError("a pool without symbols")
        shared = _shared(self._first)
        for symbol, detector in self.detectors.items():
            same = detector.params is self._first.params and detector.labels == self.labels
            if not same and _shared(detector) != shared:
                raise ModelError(f"{symbol} has another model than {self.symbols[0]}")

    def __repr__(self) -> str:
        K = self.n_states
        ends = [one.train_end for one in self.detectors.values() if one.train_end is not None]
        end = iso(max(ends)) if ends else "an unknown time"
        shown = ", ".join(self.symbols[:3]) + (", ..." if len(self.symbols) > 3 else "")
        return (
            f"PooledDetector {self.name}: {counted(K, 'state')} ({', '.join(self.labels)}) of "
            f"{', '.join(self.recipe.columns[:3])}{', ...' * (len(self.recipe.columns) > 3)}\n"
            f"{counted(len(self.symbols), 'symbol')} ({shown}), trained until {end}; needs up to "
            f"{self.min_history:,} bars of history; decides by {self._first.decision}"
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbols."""
        return tuple(self.detectors)

    @property
    def params(self) -> GaussianParams:
        """The common HMM over the scaled features of every symbol."""
        return self._first.params

    @property
    def recipe(self) -> Recipe:
        """The common feature columns."""
        return self._first.recipe

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of every state, calm first."""
        return self._first.labels

    @property
    def n_states(self) -> int:
        """Number of regimes."""
        return self.params.n_states

    @property
    def min_history(self) -> int:
        """Base bars of a symbol after which every symbol has an answer."""
        return max(one.min_history for one in self.detectors.values())

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of an answer, in order."""
        return (SYMBOL, *self._first.columns)

    @property
    def bar_columns(self) -> tuple[str, ...]:
        """Names of the columns that a caller sends: symbol, time, four prices, volume."""
        return (SYMBOL, *self._first.bar_columns)

    @property
    def input_hint(self) -> str:
        """What a caller may send, in words."""
        return f"{SYMBOL} and {self._first.input_hint}"

    def reads(self, name: str) -> bool:
        """True for a name of a column that `filter` may read."""
        return name.lower() == SYMBOL or any(one.reads(name) for one in self.detectors.values())

    def of(self, symbol: str) -> Detector:
        """The detector of a symbol, as that of any single run. Raises DataError."""
        if symbol not in self.detectors:
            raise DataError(
                f"symbol {symbol!r} is not in the pool of "
                f"{counted(len(self.symbols), 'trained symbol')}"
                f"{nearest(symbol, self.symbols)}"
            )
        return self.detectors[symbol]

    def filter(self, source: Mapping[str, Source] | Table) -> pd.DataFrame:
        """Regime of every row of every symbol, from the symbol's own bars up to it.

        Parameters
        ----------
        source
            Bars by symbol, each as `Detector.filter` takes them; or one long table with a column
            `symbol`.

        Returns
        -------
        DataFrame
            That of `Detector.filter` with `symbol` first, one symbol under the other.

        Raises
        ------
        DataError
            A symbol was not trained, rows have none, or as `Detector.filter`; names the symbol.
        HistoryError
            As `Detector.filter`; names the symbol.
        """
        return self.each(source, Detector.filter)

    def latest(self, source: Mapping[str, Source] | Table) -> pd.DataFrame:
        """The last row of every symbol, with `since` when its state, and its regime, have held.

        Parameters and errors are those of `filter`; columns `since` and `regime_since` come last.
        """
        rows = []
        for symbol, part in self.parts(source).items():
            newest = Newest()
            newest.see(_named(symbol, lambda d, p: d.filter(p), self.of(symbol), part))
            since = {"since": newest.since, "regime_since": newest.regime_since}
            rows.append({SYMBOL: symbol, **(newest.row or {}), **since})
        return pd.DataFrame(rows)

    def each(
        self, source: Mapping[str, Source] | Table, answer: Callable[[Detector, Any], pd.DataFrame]
    ) -> pd.DataFrame:
        """Answers of every symbol's detector, one under the other, with `symbol` first."""
        frames = []
        for symbol, part in self.parts(source).items():
            frame = _named(symbol, answer, self.of(symbol), part)
            frame.insert(0, SYMBOL, symbol)
            frames.append(frame)
        own_index = all(isinstance(frame.index, pd.DatetimeIndex) for frame in frames)
        return pd.concat(frames, ignore_index=not own_index)

    def parts(self, source: Mapping[str, Source] | Table) -> dict[str, Any]:
        """What `filter` takes, by symbol. Raises DataError."""
        if isinstance(source, Mapping) and not any(map(_is_symbol, source)):
            parts = {str(symbol): part for symbol, part in source.items()}
        else:
            parts = dict(_by_symbol(frame_of(source)))
        if not parts:
            raise DataError("no symbol and no bars")
        for symbol in parts:
            self.of(symbol)
        return parts

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON-ready values; floats keep every bit."""
        symbols = {}
        for symbol, detector in self.detectors.items():
            values = detector.to_dict()
            symbols[symbol] = {
                name: value for name, value in values.items() if name not in (*_SHARED, "format")
            }
        return {
            "format": FORMAT,
            "kind": KIND,
            "name": self.name,
            "shared": _shared(self._first),
            "symbols": symbols,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PooledDetector":
        """Read what `to_dict` gave. Raises ModelError."""
        stored = Fields(values)
        stored.only(["format", "kind", "name", "shared", "symbols"])
        shared = stored.part("shared")
        shared.only(["recipe", "params", "labels"], _SHARED)
        detectors: dict[str, Detector] = {}
        for symbol, own in stored.plain("symbols").items():
            plain = Fields(own, f"symbols.{symbol}")
            for name in _SHARED:
                if name in plain:
                    raise ModelError(f"symbols.{symbol}.{name}: it is shared by all symbols")
            try:
                whole = {"format": FORMAT, **stored.plain("shared"), **own}
                detector = Detector.from_dict(whole)
            except ModelError as error:
                raise ModelError(f"symbols.{symbol}: {error}") from None
            first = next(iter(detectors.values()), detector)
            detectors[symbol] = replace(detector, params=first.params, recipe=first.recipe)
        return cls(detectors, stored.text("name"))

    def save(self, path: str | Path) -> None:
        """Write the pool as JSON with a digest, whole or not at all."""
        write_document(path, self.to_dict())

    @property
    def _first(self) -> Detector:
        return next(iter(self.detectors.values()))


def read_detector(path: str | Path) -> Detector | PooledDetector:
    """Read a detector or a pool from its file, its folder, or an MLflow model's folder.

    Raises ModelError if there is none, or it is damaged.
    """
    source = detector_file(Path(path))
    try:
        return read_document(source, DETECTOR, _of_kind)
    except OtherFileError as error:
        raise ModelError(f"{error}; {where_instead(source)}") from None


def _of_kind(values: dict[str, Any]) -> Detector | PooledDetector:
    is_pool = values.get("kind") == KIND
    return PooledDetector.from_dict(values) if is_pool else Detector.from_dict(values)


def _shared(detector: Detector) -> dict[str, Any]:
    """The parts that all symbols share, as JSON holds them."""
    values = detector.to_dict()
    return {name: values[name] for name in _SHARED if name in values}


def _is_symbol(name: object) -> bool:
    return str(name).lower() == SYMBOL


def _by_symbol(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of every symbol of a long table, in their order. Raises DataError."""
    names = [name for name in frame.columns if _is_symbol(name)]
    if len(names) != 1:
        there = ", ".join(map(str, frame.columns[:8]))
        raise DataError(f"{counted(len(names), 'column')} named {SYMBOL}, one is needed: {there}")
    symbols = frame[names[0]]
    empty = symbols.isna() | (symbols.astype(str).str.strip() == "")
    if empty.any():
        first = int(empty.to_numpy().argmax()) + 1
        raise DataError(f"{counted(int(empty.sum()), 'row')} without a symbol, first row {first}")
    rest = frame.drop(columns=names)
    for symbol, rows in rest.groupby(symbols.astype(str).to_numpy(), sort=False):
        yield str(symbol), rows


def _named(
    symbol: str, answer: Callable[[Detector, Any], pd.DataFrame], detector: Detector, part: Any
) -> pd.DataFrame:
    """An answer; an error names the symbol."""
    try:
        return answer(detector, part)
    except HmmExpError as error:
        raise type(error)(f"{symbol}: {error}") from None
