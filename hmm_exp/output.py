"""Standard streams: text that cannot be written is dropped, and lines have their colours.

sys.stdout = Output(coloured(sys.stdout))
"""

import os
import re
from collections.abc import Callable
from typing import Any, TextIO, cast


class Output:
    """A standard stream without write errors: text that cannot be written is dropped.

    Attributes
    ----------
    error
        The first error, such as a full disk or a closed pipe; None without one.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        return self._do(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Flush, or drop the text."""
        self._do(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except OSError as error:
            self.error = self.error or error
            discard(self._stream)


DIM, WINS = "2", "1;32"  # of a row: faint; bold green
_RED, _YELLOW, _GREEN = "31", "33", "32"
_LABELS = (  # parts of a line that have a colour of their own
    (re.compile(r"^(error|not promoted|would be refused|hard fault|MISSING):"), _RED),
    (re.compile(r"(^|(?<=  ))(FAILED|KILLED):"), _RED),
    (re.compile(r"^ *warning:"), _YELLOW),
    (re.compile(r"^(promoted:|would be promoted)"), _GREEN),
    (re.compile(r"(?<=  )ineligible: .*"), DIM),
)


def has_colour(stream: TextIO) -> bool:
    """Whether a stream shows colours: a terminal, unless NO_COLOR or FORCE_COLOR decides.

    As on https://no-color.org and https://force-color.org, an empty variable decides nothing.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: str) -> str:
    """A text in a colour, such as DIM."""
    return f"\x1b[{colour}m{text}\x1b[0m"


def tinted(text: str) -> str:
    """Lines with their labels in colour: errors and refusals, warnings, promotions."""
    return "\n".join(map(_tinted_line, text.split("\n")))


def _tinted_line(line: str) -> str:
    for label, colour in _LABELS:
        line = label.sub(painted(r"\g<0>", colour), line)
    return line


def coloured(stream: TextIO) -> TextIO:
    """A stream that tints what is written to it, or the stream itself where it has no colour."""
    return cast(TextIO, _Coloured(stream)) if has_colour(stream) else stream


class _Coloured:
    """A stream with tinted lines; `print` writes each line by itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(tinted(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard(stream: TextIO) -> None:
    """Redirect a stream to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
