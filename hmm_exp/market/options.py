"""Options for reading a table of bars or features, shared by training and serving.

>>> options = ReadOptions("open", timezone="US/Eastern")
>>> read_bars("bars.csv", options)
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from hmm_exp.errors import ConfigError

BAR_STAMPS = ("open", "close")
_OF_THE_MACHINE = ("localtime", "posixrules", "Factory")  # another zone on another machine
GAPS = ("split", "bridge")
BAD_ROWS = ("error", "drop")


@dataclass(frozen=True)
class ReadOptions:
    """How to read a table.

    Attributes
    ----------
    bar_stamp
        "open" or "close": what a time in the table marks.
    gaps
        "split" or "bridge", see `hmm_exp.market.gaps`.
    bad_rows
        "error" refuses a table with bad rows, "drop" leaves them out and counts them.
    timezone
        IANA name of the zone of times that name none themselves, such as "US/Eastern".
    timestamp_column, volume_column
        Columns of the times and of the volume; None finds them by their usual names.

    Raises
    ------
    ConfigError
        A value is none of the choices, or the zone is unknown.
    """

    bar_stamp: str
    gaps: str = "split"
    bad_rows: str = "error"
    timezone: str = "UTC"
    timestamp_column: str | None = None
    volume_column: str | None = None

    def __post_init__(self) -> None:
        check_choice("data.bar_stamp", self.bar_stamp, BAR_STAMPS)
        check_choice("data.gaps", self.gaps, GAPS)
        check_choice("data.bad_rows", self.bad_rows, BAD_ROWS)
        check_timezone(self.timezone)

    @classmethod
    def of(cls, settings: Any) -> "ReadOptions":
        """Take the fields of these names from an object such as `DataConfig`."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ReadOptions":
        """Invert `to_dict`. Raises KeyError, TypeError or ConfigError for anything else."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def time(self) -> str:
        """Name under which a caller sends the time of a bar."""
        return self.timestamp_column or "timestamp"

    @property
    def volume(self) -> str:
        """Name under which a caller sends the volume of a bar."""
        return self.volume_column or "volume"

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return asdict(self)


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`; else raise ConfigError with the option's name."""
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}: choose {' or '.join(choices)}")
    return value


@cache
def check_timezone(name: str) -> ZoneInfo:
    """Return the zone of an IANA name; raise ConfigError for an unknown one."""
    try:
        if name in _OF_THE_MACHINE:
            raise KeyError(name)
        return ZoneInfo(name)
    except (KeyError, TypeError, ValueError, OSError):  # OSError: the name of a folder of zones
        raise ConfigError(
            f"data.timezone is {name!r}: name a zone such as UTC, US/Eastern or Europe/Berlin"
        ) from None
