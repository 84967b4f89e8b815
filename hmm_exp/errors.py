"""Every error this package raises on purpose.

A command line prints the message as one line and exits with 2; a library caller can catch
`HmmExpError`. A message carries the value, the rule and the place or the option that decides.
"""

import re

LONGEST_LINE = 300  # characters of an error line, "error: " included
_KEPT_END = 120  # of a longer text the end stays: it says what to do
_PASSWORD = re.compile(r"""(://[^\s/?#@:["<>]*):(?!\d+(?:[/?#\s]|$))[^\s"<>]*@""")  # user:word@
_WEB_LOGIN = re.compile(r"""(?i)(\bhttps?://)[^\s/?#"<>]*@""")
_SECRET = re.compile(r"(?i)([?&]\w*(?:password|passwd|pwd|token|secret)=)[^&\s]*")
_OF_THE_STORE = {"mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3"}


def redacted(text: str) -> str:
    """A text without the passwords of the addresses in it; a web address loses its user too."""
    if "://" not in text:
        return text
    text = _WEB_LOGIN.sub(r"\1", _PASSWORD.sub(r"\1@", text))
    return _SECRET.sub(r"\1***", text)


def is_from_outside(error: BaseException) -> bool:
    """Whether the machine or the store raised an error: no mistake of ours, one line says it all.

    Of the store is what MLflow raises, or a library by which MLflow reaches it.
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
    """What the machine refuses, such as a full disk, and the file; None for any other error.

    The text is searched, because an error that a library wraps or that another process passes on
    has lost its number.
    """
    found = _REFUSALS.search(str(error))
    if found is None:
        return None
    words, source, target = found.groups()
    place = target or source
    return f"{words}: {place}" if place else words


def described(error: BaseException) -> str:
    """Any error as one line: one that is not of this family keeps its type."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    name = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
    if isinstance(error, HmmExpError):
        return one_line(error) or name
    return one_line(refusal(error) or f"{name}: {error}").rstrip(": ")


class HmmExpError(Exception):
    """Base of the family: something the user can act on. Its message holds no password."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(redacted(part) if isinstance(part, str) else part for part in parts))


class ConfigError(HmmExpError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(HmmExpError):
    """Bars or features that cannot be used as they are."""


class HistoryError(DataError):
    """Too few bars to answer: windows or the filter's burn-in are not filled."""


class FitError(HmmExpError):
    """A model cannot be fitted to these observations."""


class ModelError(HmmExpError):
    """A stored model is missing, damaged or of an unknown format."""


class TrackingError(HmmExpError):
    """The tracking store or the registry refuses or does not answer."""
