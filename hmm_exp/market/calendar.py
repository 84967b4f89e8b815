"""Closed sessions and outages, by the calendar of an exchange (`data.calendar`).

The calendars are those of the library exchange_calendars, the extra `calendar` of this package.
They only describe the bars: `data.gaps` alone decides what a model makes of a missing bar.

>>> calendar_report(bars.frame["timestamp"], bars.step, "open", "UTC", "XETR")["outages"]
"""

import difflib
import warnings

import numpy as np
import pandas as pd

from hmm_exp.errors import ConfigError
from hmm_exp.market.iso import iso

_DAY = pd.Timedelta(days=1)
_SHOWN = 3  # outages in a report


def calendar_report(
    timestamp: pd.Series | pd.DatetimeIndex,
    step: pd.Timedelta,
    bar_stamp: str,
    timezone: str,
    calendar: str,
) -> dict:
    """Count the steps between bars that a closed market explains, and those that it does not.

    A daily bar belongs to the session of its date in `timezone`. A step between intraday bars is
    closed if the exchange is open for less than one bar in between.

    Parameters
    ----------
    timestamp
        Stamps of the bars, UTC, increasing, shape (T,).
    step
        Length of a bar, at most one day.
    bar_stamp
        "open" or "close": what the stamps mark.
    timezone
        IANA name of the zone of daily stamps.
    calendar
        A name that exchange_calendars knows, such as "XETR".

    Returns
    -------
    dict
        `closed`, `outages`: numbers of longer steps; `missing`: sessions (daily bars) or whole bars
        of the outages; `unit`: what `missing` counts; `first_outages`: stamps of the bars before
        the first three; `outside`: bars while the exchange is closed.

    Raises
    ------
    ConfigError
        exchange_calendars is not installed, does not know the name or the years, or a bar is
        longer than a day.
    """
    if step > _DAY:
        raise ConfigError(f"data.calendar={calendar}: a bar of {step} is longer than a session")
    stamps = pd.DatetimeIndex(timestamp)
    schedule = _schedule(calendar, stamps[0] - 7 * _DAY, stamps[-1] + 7 * _DAY)
    if step == _DAY:
        longer, missing, outside = _daily(stamps.tz_convert(timezone), schedule, bar_stamp)
    else:
        longer, missing, outside = _intraday(stamps, step, schedule, bar_stamp)
    outages = np.flatnonzero(missing > 0)
    return {
        "calendar": calendar,
        "closed": int((longer & (missing == 0)).sum()),
        "outages": len(outages),
        "missing": int(missing.sum()),
        "unit": "session" if step == _DAY else "bar",
        "first_outages": [iso(time) for time in _nanoseconds(stamps)[outages[:_SHOWN]]],
        "outside": outside,
    }


def _daily(
    stamps: pd.DatetimeIndex, schedule: pd.DataFrame, bar_stamp: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Steps of more than a day (T-1,), sessions missing in each (T-1,), bars outside sessions."""
    sessions = schedule.index
    days = stamps.tz_localize(None).normalize()
    if bar_stamp == "close":  # midnight is the end of the day before, or the date of the session
        ended = (stamps.tz_localize(None) - pd.Timedelta(1, "ns")).normalize()
        days = max(days, ended, key=lambda dates: int(dates.isin(sessions).sum()))
    number = sessions.searchsorted(days)  # sessions before each bar's date
    on_session = days.isin(sessions)
    missing = np.diff(number) - on_session[:-1]
    longer = np.diff(days) > _DAY
    return longer, np.maximum(missing, 0), int((~on_session).sum())


def _intraday(
    stamps: pd.DatetimeIndex, step: pd.Timedelta, schedule: pd.DataFrame, bar_stamp: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Steps of more than one bar (T-1,), whole bars missing in each, bars outside sessions."""
    step_ns = step.as_unit("ns").value
    begin = _nanoseconds(stamps) - (step_ns if bar_stamp == "close" else 0)
    opens, closes = _open_spells(schedule)
    ends = begin[:-1] + step_ns
    missing = _bars_between(ends, begin[1:], step_ns, opens, closes)
    spell = np.searchsorted(closes, begin, side="right")  # the one that a bar is in or before
    outside = opens[np.minimum(spell, len(opens) - 1)] >= begin + step_ns
    return begin[1:] > ends, missing, int(outside.sum())


def _bars_between(
    begin: np.ndarray, end: np.ndarray, step_ns: int, opens: np.ndarray, closes: np.ndarray
) -> np.ndarray:
    """Whole bars that fit into the open spells between two times, shape of the times."""
    first = np.searchsorted(closes, begin, side="right")
    last = np.searchsorted(opens, end, side="left") - 1
    i, j = np.clip([first, last], 0, len(opens) - 1)
    full = np.insert(np.cumsum((closes - opens) // step_ns), 0, 0)
    begin, end = np.maximum(begin, opens[i]), np.minimum(end, closes[j])
    several = (closes[i] - begin) // step_ns + full[j] - full[i + 1] + (end - opens[j]) // step_ns
    return np.where(last > first, several, np.where(last == first, (end - begin) // step_ns, 0))


def _open_spells(schedule: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Opening and closing times of all spells, nanoseconds; a break at noon closes."""

    def times(*names: str) -> np.ndarray:
        parts = [_nanoseconds(pd.DatetimeIndex(schedule[name].dropna())) for name in names]
        return np.sort(np.concatenate(parts))

    return times("open", "break_end"), times("close", "break_start")


def _schedule(name: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
    """Opens, breaks and closes (UTC) of the sessions between two days."""
    try:
        import exchange_calendars
    except ImportError:
        raise ConfigError(
            f"data.calendar={name} needs exchange_calendars: pip install 'hmm_exp[calendar]'"
        ) from None
    known = exchange_calendars.get_calendar_names()
    if name not in known:
        near = difflib.get_close_matches(name.upper(), known, n=3, cutoff=0.5)
        raise ConfigError(
            f"data.calendar={name} is no calendar of exchange_calendars"
            f"{': ' + ' or '.join(near) if near else ''}"
        )
    days = (str(first.date()), str(last.date()))
    try:
        with warnings.catch_warnings():  # its own use of pandas
            warnings.simplefilter("ignore")
            return exchange_calendars.get_calendar(name, start=days[0], end=days[1]).schedule
    except ValueError as error:  # years before or after those that it knows
        raise ConfigError(f"data.calendar={name}: {error}") from None


def _nanoseconds(times: pd.DatetimeIndex) -> np.ndarray:
    return times.as_unit("ns").asi8
