"""Every error this package raises on purpose.

A command line prints the message as one line and exits with 2; a library caller can catch
`HmmExpError`. A message carries the value, the rule and the place or the option that decides.
"""

LONGEST_LINE = 300  # characters of an error line, "error: " included
_KEPT_END = 120  # of a longer text the end stays: it says what to do


def one_line(error: object, longest: int = LONGEST_LINE - len("error: ")) -> str:
    """Text of an error on one line: blanks joined, control characters escaped, bounded length."""
    text = " ".join(str(error).split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(text) <= longest:
        return text
    return f"{text[: longest - _KEPT_END - 5]} ... {text[-_KEPT_END:]}"


class HmmExpError(Exception):
    """Base of the family: something the user can act on."""


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
