"""Bars from a pipe, a regime for each closed bar out at once; a killed process can go on.

The state is saved whenever the input pauses, after the rows up to it were written. A process that
was killed loads it, cuts from its output file what the state does not know, and leaves out bars
that it has: the feed may begin again anywhere before.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pandas as pd

from hmm_exp.errors import ConfigError, DataError, ModelError
from hmm_exp.stream.lines import BarLines
from hmm_exp.stream.live import Regime, Stream

_READ = 1 << 16  # bytes at once: what is there, without waiting for more
_TAIL = 4 << 20  # bytes of an output file that one read can have led to, and more


def follow(
    stream: Stream,
    source: IO[bytes],
    write: Callable[[list[Regime]], None],
    pause: Callable[[], None],
    refuse: Callable[[DataError], None],
) -> None:
    """Feed a stream from a pipe until it ends.

    Bars that the stream has taken before are left out until the first newer one comes.

    Parameters
    ----------
    stream
        Takes the bars.
    source
        Lines of CSV under a header, or JSON objects; column names as in files of bars.
    write
        Takes the regimes of one bar, oldest first.
    pause
        Called whenever all lines that have come were taken, also on the way out of an error,
        but for one of writing.
    refuse
        Told of a bar that is not valid or may not follow; raises to stop.
    """
    lines = BarLines(stream.model.stamp, stream.model.name)
    overlaps = stream.time is not None
    try:
        for batch in _batches(source):
            for line in batch:
                try:
                    bar = lines.bar(line)
                    overlaps = overlaps and (bar is None or stream.has_taken(bar["timestamp"]))
                    if bar is not None and not overlaps:
                        write(stream.update_all(bar))
                except DataError as error:
                    refuse(error)
            pause()
    except OSError:  # a row that may not be written: the state stays at those before it
        raise
    except BaseException:
        pause()
        raise
    pause()


def rewind(path: Path, latest: Regime | None) -> bool:
    """Cut from an output what comes after a regime or is half-written; False where it is empty."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("r+b") as file:
        start = max(0, path.stat().st_size - _TAIL)
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
        while lines and (not lines[-1].endswith(b"\n") or _is_after(lines[-1], latest)):
            lines.pop()
        file.truncate(start + sum(map(len, lines)))
        return start + sum(map(len, lines)) > 0


def resumed(state: Path, fresh: Stream) -> Stream:
    """The stream saved at `state`, with the options of a fresh one of the same model.

    Raises ModelError when it was saved by another model.
    """
    stream = Stream.load(state)
    if stream.model.to_dict() != fresh.model.to_dict():
        raise ModelError(
            f"{state} was saved with another model ({stream.model.name}, up to {stream.time}): "
            "give that model, or another --state"
        )
    stream.missing = fresh.missing
    return stream


def check_fresh(path: Path) -> None:
    """Raise ConfigError where a new stream would write behind the rows of another."""
    if path.exists() and path.stat().st_size:
        raise ConfigError(
            f"{path} holds rows already: go on from their state with --state, or move it away"
        )


def _batches(source: IO[bytes]) -> Iterator[list[str]]:
    """Whole lines as they come; a last one that was cut off is refused."""
    rest = b""
    read = getattr(source, "read1", source.read)
    while block := read(_READ):
        *lines, rest = (rest + block).split(b"\n")
        yield [line.decode("utf-8-sig", errors="replace") for line in lines]
    if rest.strip():
        raise DataError(
            f"the last line {rest[:60]!r} has no end: it may be cut, so it was left out"
        )


def _is_after(line: bytes, latest: Regime | None) -> bool:
    """Whether a line of output is of a later row than `latest`; a header is of none."""
    text = line.decode(errors="replace").strip()
    if not text.startswith("{") and not text[:1].isdigit():
        return False
    known = json.loads(text)["available_at"] if text.startswith("{") else text.split(",")[1]
    return latest is None or pd.Timestamp(known, tz="UTC") > latest.available_at
