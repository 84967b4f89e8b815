"""Follow many symbols in one process: a stream for each.

>>> streams = PanelStream.of(hmm_exp.load_detectors("hmm_regime.*"))
>>> streams.update("BTC", {"timestamp": "2024-01-01T05:00Z", "open": 1.0, ...})
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import pandas as pd

from hmm_exp.config.checks import nearest
from hmm_exp.detector.bar_lines import SymbolLines
from hmm_exp.detector.detector import Detector
from hmm_exp.detector.pipe import take_lines
from hmm_exp.detector.sent import Row, Table, bars_sent
from hmm_exp.detector.stream import Regime, Stream
from hmm_exp.errors import DataError, ModelError, few
from hmm_exp.market.bars import Bars
from hmm_exp.market.panel import registry_part, symbol_named


class PanelStream(Mapping[str, Stream]):
    """Streams by symbol, each with the answers of `detector.stream()` for the bars of its symbol.

    Parameters
    ----------
    streams
        The stream of each symbol; `PanelStream.of` makes them of detectors.
    """

    def __init__(self, streams: Mapping[str, Stream]) -> None:
        if any(isinstance(one, Detector) for one in streams.values()):
            raise TypeError("PanelStream takes streams; PanelStream.of(detectors) makes them")
        self._streams = dict(streams)
        self._n_saved: dict[tuple[Path, str], int] = {}  # bars taken when a stream was saved

    @classmethod
    def of(cls, detectors: Mapping[str, Detector], missing: str = "error") -> "PanelStream":
        """New streams of detectors; `missing` as in `Detector.stream`."""
        return cls({symbol: model.stream(missing=missing) for symbol, model in detectors.items()})

    def __getitem__(self, symbol: str) -> Stream:
        return self._streams[symbol]

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def __len__(self) -> int:
        return len(self._streams)

    def __repr__(self) -> str:
        n_live = sum(stream.latest is not None for stream in self._streams.values())
        return f"PanelStream of {len(self):,} symbols: {few(self)}\n{n_live:,} have a regime"

    def update(self, symbol: str, bar: Row) -> Regime | None:
        """Take a closed bar of a symbol and give the newest regime that it completes.

        See `Stream.update`. Raises DataError for a symbol without a model, too.
        """
        return self.stream(symbol).update(bar)

    def extend(self, symbol: str, bars: Bars | Table) -> pd.DataFrame:
        """Take many bars of a symbol at once, as `Stream.extend`, also as `Detector.filter` does.

        Raises DataError for a symbol without a model, too.
        """
        stream = self.stream(symbol)
        return stream.extend(bars if isinstance(bars, Bars) else bars_sent(bars, stream.model))

    @property
    def latest(self) -> dict[str, Regime | None]:
        """The newest regime of each symbol; None before its first one that counts."""
        return {symbol: stream.latest for symbol, stream in self._streams.items()}

    def save(self, folder: str | Path) -> None:
        """Save each stream that took bars since it was last saved there, as `BTC.json` for BTC.

        Each file is written whole or not at all. The folder is made if it is not there.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for symbol, stream in self._streams.items():
            if self._n_saved.get((place, symbol)) != stream.n_bars:
                stream.save(state_file(place, symbol))
                self._n_saved[place, symbol] = stream.n_bars

    @classmethod
    def load(cls, folder: str | Path) -> "PanelStream":
        """Read the streams that `save` wrote into a folder.

        Raises ModelError if it holds none, or one is damaged.
        """
        files = sorted(Path(folder).glob("*.json"))
        if not files:
            raise ModelError(f"no saved stream in {folder}")
        return cls({symbol_named(file.stem): Stream.load(file) for file in files})

    def stream(self, symbol: str) -> Stream:
        """The stream of a symbol. Raises DataError for one without a model."""
        stream = self._streams.get(symbol)
        if stream is None:
            raise DataError(f"no model of symbol {symbol}{nearest(symbol, self)}")
        return stream


def state_file(folder: Path, symbol: str) -> Path:
    """The file of a symbol's saved stream."""
    return folder / f"{registry_part(symbol)}.json"


def follow_symbols(
    streams: PanelStream,
    source: IO[bytes],
    write: Callable[[str, list[Regime]], None],
    pause: Callable[[], None],
    refuse: Callable[[DataError, str | None], bool],
    column: str | None = None,
) -> None:
    """Feed streams from one pipe until it ends, as `detector.pipe.follow` feeds one.

    Each line names its symbol, in `column` or in one found by name. `refuse` takes the error of a
    line and its symbol, None where that is not known; it raises to stop, or tells whether later
    lines of the symbol are left out. Those of a symbol without a stream always are, after the
    first.
    """
    lines = SymbolLines({symbol: stream.model for symbol, stream in streams.items()}, column)
    overlaps = {symbol for symbol, stream in streams.items() if stream.time is not None}
    left_out: set[str] = set()

    def take(line: str) -> None:
        found = lines.values(line)
        if found is None or found[0] in left_out:
            return
        symbol, values = found
        try:
            stream = streams.stream(symbol)
            bar, time = lines.bar(symbol, values)
            if symbol in overlaps and stream.has_taken(time):
                return
            overlaps.discard(symbol)
            write(symbol, stream.update_all(bar))
        except DataError as error:
            if refuse(error, symbol) or symbol not in streams:
                left_out.add(symbol)

    take_lines(source, take, pause, lambda error: refuse(error, None))
