"""Read bars from a pipe and write a regime for each closed bar; a killed process can go on.

The state is saved before the first line and whenever the input pauses, after the rows up to it were
written. A process that was killed loads it, cuts from its output file what the state does not know,
and leaves out bars that it has: the feed may begin again anywhere before.
"""

import json
import re
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pandas as pd

from hmm_exp.detector.bar_lines import BarLines, HeaderError
from hmm_exp.detector.model import StreamModel
from hmm_exp.detector.stream import Regime, Stream
from hmm_exp.errors import ConfigError, DataError, ModelError
from hmm_exp.market.iso import iso

_READ = 1 << 16  # bytes at once: what is there, without waiting for more
_TIMES = ("timestamp", "available_at")
_NAIVE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
_PAUSES_EVERY = 2.0  # seconds
_LONGEST = 1 << 20  # bytes of a line
_TAIL = 4 << 20  # bytes of an output file that one read can have led to, and more


def follow(
    stream: Stream,
    source: IO[bytes],
    write: Callable[[list[Regime]], None],
    pause: Callable[[], None],
    refuse: Callable[[DataError], None],
) -> None:
    """Feed a stream from a pipe until it ends.

    Bars that the stream has taken before are left out until the first newer one comes. `source`
    gives lines of CSV under a header, or JSON objects. `write` takes the regimes of one bar, oldest
    first. `pause` is called before the first line, whenever all lines that have come were taken,
    every few seconds while more keep coming, and at the end, also after an error, except one of
    writing. `refuse` takes the error of a line that is no bar or of a bar that may not follow, and
    raises to stop. Raises HeaderError, without asking `refuse`, if the first line cannot be used.
    """
    model = stream.model
    lines = BarLines(model.reading, model.name, model.recipe.needs)
    overlaps = stream.time is not None

    def take(line: str) -> None:
        nonlocal overlaps
        bar = lines.bar(line)
        overlaps = overlaps and (bar is None or stream.has_taken(bar[lines.names[0]]))
        if bar is not None and not overlaps:
            write(stream.update_all(bar))

    take_lines(source, take, pause, refuse)


def take_lines(
    source: IO[bytes],
    take: Callable[[str], None],
    pause: Callable[[], None],
    refuse: Callable[[DataError], Any],
) -> None:
    """Give the lines of a pipe to `take` until it ends, with `pause` and `refuse` as in `follow`.

    Raises HeaderError that `take` raises.
    """
    try:
        pause()
        paused = time.monotonic()
        for batch in _batches(source):
            for line in batch:
                try:
                    take(_text_of(line))
                except HeaderError:
                    raise
                except DataError as error:
                    refuse(error)
            if time.monotonic() - paused >= _PAUSES_EVERY or _is_idle(source):
                pause()
                paused = time.monotonic()
    except OSError:  # a row that may not be written: the state stays at those before it
        raise
    except BaseException:
        pause()
        raise
    pause()


def rewind(path: Path, latest: Regime | None) -> bool:
    """Cut from an output what comes after a regime or is half-written; False where it is empty.

    Raises ConfigError when a whole line of it is no regime.
    """
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("r+b") as file:
        start = max(0, path.stat().st_size - _TAIL)
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
        while lines and (not lines[-1].endswith(b"\n") or _is_after(lines[-1], latest, path)):
            lines.pop()
        file.truncate(start + sum(map(len, lines)))
        return start + sum(map(len, lines)) > 0


def resumed(state: Path, fresh: Stream) -> Stream:
    """The stream saved at `state`, with the options of a fresh one of the same model.

    Raises ModelError when it was saved by another model, or one that reads bars in another way.
    """
    stream = Stream.load(state)
    if stream.model.train_end is None:  # a state of an earlier version has none
        stream.model = replace(stream.model, train_end=fresh.model.train_end)
    was, now = stream.model.to_dict(), fresh.model.to_dict()
    readings = was.pop("reading"), now.pop("reading")
    if was != now:
        raise ModelError(
            f"{state} was saved with another model ({stream.model.name}, up to {stream.time}): "
            "give that model, or another --state"
        )
    for option, value in readings[0].items():
        if option != "bad_rows" and value != readings[1][option]:
            raise ModelError(
                f"{state} was saved with data.{option}={value}, not {readings[1][option]}: read as "
                "before, or give another --state"
            )
    stream.missing = fresh.missing
    return stream


def names_in(path: Path | None, model: StreamModel) -> tuple[str, ...]:
    """Columns to write: those of the header that a file of an earlier version has, else all.

    Raises ConfigError when the model does not give one of them.
    """
    if path is None or not path.exists() or not path.stat().st_size:
        return model.columns
    with path.open(encoding="utf-8") as file:
        names = tuple(file.readline().strip().split(","))
    if unknown := [name for name in names if name not in model.columns]:
        raise ConfigError(
            f"{path} has the column {unknown[0][:40]!r}, which the model does not give: move the "
            "file away"
        )
    return names


def times_in(path: Path | None) -> Callable[[pd.Timestamp], str]:
    """How to write times: as the rows of a file of an earlier version, else as `iso`."""
    if path is None or not path.exists():
        return iso
    with path.open(encoding="utf-8", errors="replace") as file:
        is_naive = _NAIVE.search(file.read(_READ))
    return _naive if is_naive else iso


def check_fresh(path: Path) -> None:
    """Raise ConfigError where a new stream would write behind the rows of another."""
    if path.exists() and path.stat().st_size:
        raise ConfigError(
            f"{path} holds rows already: go on from their state with --state, or move it away"
        )


def _batches(source: IO[bytes]) -> Iterator[list[bytes]]:
    """Lines with their ends as they come, of a long one the beginning; a last one may lack its."""
    begun = bytearray()
    read = getattr(source, "read1", source.read)
    while block := read(_READ):
        *ends, rest = block.split(b"\n")
        lines = [end + b"\n" for end in ends]
        if lines:
            lines[0] = bytes(begun) + lines[0]
            begun.clear()
        begun += rest
        del begun[_LONGEST + 1 :]
        yield lines
    if begun.strip():
        yield [bytes(begun)]


def _is_idle(source: IO[bytes]) -> bool:
    """Whether no input waits; True where that is not known, as for a file in memory."""
    try:
        return not select.select([source], [], [], 0)[0]
    except (OSError, ValueError):
        return True


def _text_of(line: bytes) -> str:
    """Text of a line. Raises DataError for one without an end or too long for a bar."""
    if len(line) > _LONGEST:
        raise DataError(f"the line {line[:60]!r} has more than {_LONGEST:,} bytes")
    if not line.endswith(b"\n"):
        raise DataError(
            f"the last line {line[:60]!r} has no end: it may be cut, so it was left out"
        )
    return line.decode("utf-8-sig", errors="replace")


def _is_after(line: bytes, latest: Regime | None, path: Path) -> bool:
    """Whether a line of output is of a later row than `latest`; a header is of none."""
    text = line.decode(errors="replace").strip()
    if text.startswith("timestamp,available_at,"):
        return False
    try:
        known = json.loads(text)["available_at"] if text.startswith("{") else text.split(",")[1]
        time = pd.to_datetime(datetime.fromisoformat(known), utc=True)
    except (ValueError, TypeError, LookupError, RecursionError):
        raise ConfigError(
            f"{path} has the line {text[:60]!r}, which is no regime: move it away"
        ) from None
    return latest is None or time > latest.available_at


class RegimeLines:
    """Columns of regimes as lines of text: CSV under a header, or JSON objects.

    The header is written unless the file is `headed` already. `text_of` writes a time.
    """

    def __init__(
        self,
        file: IO[str],
        names: Sequence[str],
        as_json: bool,
        headed: bool,
        text_of: Callable[[pd.Timestamp], str] = iso,
    ) -> None:
        self._file, self._names, self._as_json = file, names, as_json
        self._text_of = text_of
        if not headed and not as_json:
            file.write(",".join(self._names) + "\n")

    def write(self, regimes: list[Regime], symbol: str | None = None) -> None:
        """Write a line for each regime and flush; `symbol` is the value of a column of that name.

        In CSV a cell is empty where the regime's model does not give the column.
        """
        for regime in regimes:
            times = {name: self._text_of(getattr(regime, name)) for name in _TIMES}
            row = {"symbol": symbol} | regime.to_dict() | times
            if self._as_json:
                line = json.dumps({name: row[name] for name in self._names if name in row})
            else:
                line = ",".join(_cell(row.get(name, "")) for name in self._names)
            self._file.write(line + "\n")
        self._file.flush()


def _cell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)  # as in other CSV files


def _naive(time: pd.Timestamp) -> str:
    """UTC without its zone, as earlier versions wrote it."""
    return time.tz_convert(None).isoformat(sep=" ")
