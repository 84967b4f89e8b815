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


def is_of_the_store(error: BaseException) -> bool:
    """Whether MLflow raised an error, or a library by which MLflow reaches its store."""
    return any(kind.__module__.split(".")[0] in _OF_THE_STORE for kind in type(error).__mro__)


def one_line(error: object, longest: int = LONGEST_LINE - len("error: ")) -> str:
    """Text of an error on one line: no passwords or control characters, of bounded length."""
    text = redacted(" ".join(str(error).split()))
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) <= longest:
        return text
    return f"{text[: longest - _KEPT_END - 5]} ... {text[-_KEPT_END:]}"


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
