"""Errors of this package, and their texts as one line.

Commands print the message as one line and exit with 2; library callers catch `HmmExpError`. A
message names the value, the rule, and the place or the option to change.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

LONGEST_LINE = 300  # characters of an error line, "error: " included
_KEPT_END = 120  # characters kept at the end of a longer text, which names the remedy
_PASSWORD = re.compile(r"""(://[^\s/?#@:["<>]*):(?!\d+(?:[/?#\s]|$))[^\s"<>]*@""")  # user:word@
_WEB_LOGIN = re.compile(r"""(?i)(\bhttps?://)[^\s/?#"<>]*@""")
_SECRET = re.compile(r"(?i)([?&]\w*(?:password|passwd|pwd|token|secret)=)[^&\s]*")
_OF_THE_STORE = {"mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3"}


def counted(number: int, noun: str) -> str:
    """`1 row`, `3 rows`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def few(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are: "BTC, ETH, SOL and 12 more"."""
    shown = list(names)
    more = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {more:,} more" if more > 0 else "")


def redacted(text: str) -> str:
    """A text without the passwords in its addresses, and without the users of web addresses."""
    if "://" not in text:
        return text
    text = _WEB_LOGIN.sub(r"\1", _PASSWORD.sub(r"\1@", text))
    return _SECRET.sub(r"\1***", text)


def is_from_outside(error: BaseException) -> bool:
    """Whether the machine or the store raised an error, so that one line without trace suffices.

    Errors of the store are those of MLflow and of the libraries by which MLflow reaches it.
    """
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(modules & _OF_THE_STORE)


_REFUSALS = re.compile(
    r"(no space left on device|disk quota exceeded|read-only file system|too many open files"
    r"|file too large|no usable temporary directory found|database or disk is full"
    r"|attempt to write a readonly database|unable to open database file|disk i/o error)"
    r"(?:: '([^']+)'(?: -> '([^']+)')?)?",
    re.IGNORECASE,
)


def one_line(error: object, longest: int = LONGEST_LINE - len("error: ")) -> str:
    """Text of an error on one line: no passwords or control characters, of bounded length."""
    text = redacted(" ".join(str(error).split()))
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) <= longest:
        return text
    end = min(_KEPT_END, longest // 2)
    return f"{text[: longest - end - 5]} ... {text[-end:]}"


def refusal(error: object) -> str | None:
    """Refusal by the machine, such as a full disk, with the file; None for other errors.

    The text is searched, because an error wrapped by a library or another process has no number.
    """
    found = _REFUSALS.search(str(error))
    if found is None:
        return None
    words, source, target = found.groups()
    place = target or source
    return f"{words}: {place}" if place else words


def interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that an error is, or from which it came; None for other errors.

    Where an interrupt arrives in the middle of a library's work, its clean-up may fail on what is
    half made: that second error hides the first.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def described(error: BaseException) -> str:
    """One line for any error; errors of other libraries keep their type."""
    if interrupt_behind(error):
        return "interrupted"
    name = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
    if isinstance(error, HmmExpError):
        return one_line(error) or name
    return one_line(refusal(error) or f"{name}: {error}").rstrip(": ")


class HmmExpError(Exception):
    """Base class: an error that the user can fix. Its message contains no password."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(redacted(part) if isinstance(part, str) else part for part in parts))


class ConfigError(HmmExpError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(HmmExpError):
    """Bars or features are not usable."""


class SeveralSeriesError(DataError):
    """A table holds several series.

    Attributes
    ----------
    column
        The column that names the symbols; None where the series differ in something else.
    first
        The first name.
    """

    def __init__(self, *parts: object, column: str | None = None, first: str = "") -> None:
        super().__init__(*parts)
        self.column, self.first = column, first


class MissingColumnError(DataError):
    """A table has no column that a feature needs.

    Attributes
    ----------
    column
        Its usual name, such as "volume".
    """

    def __init__(self, *parts: object, column: str = "") -> None:
        super().__init__(*parts)
        self.column = column


class HistoryError(DataError):
    """Too few bars for the windows or the filter's burn-in."""


class FitError(HmmExpError):
    """A model cannot be fitted to these observations."""


class FeatureError(FitError):
    """A model cannot be fitted because of one feature.

    Attributes
    ----------
    feature
        Column of the observations, from 0; the message begins with "feature" and this number.
    """

    def __init__(self, *parts: object, feature: int = 0) -> None:
        super().__init__(*parts)
        self.feature = feature


@contextmanager
def features_named(columns: Sequence[str]) -> Iterator[None]:
    """Call features by the names of their columns in errors."""
    try:
        yield
    except FeatureError as error:
        number = f"feature {error.feature}"
        raise FitError(str(error).replace(number, columns[error.feature], 1)) from error


class ModelError(HmmExpError):
    """A stored model is missing, damaged or of an unknown format."""


class TrackingError(HmmExpError):
    """The tracking store or the registry refuses a request or does not answer."""


class DownloadError(HmmExpError):
    """An exchange does not answer, or refuses a request."""
