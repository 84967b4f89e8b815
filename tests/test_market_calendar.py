"""Closed sessions and outages by the calendar of an exchange."""

import sys

import pandas as pd
import pytest

from hmm_exp.errors import ConfigError
from hmm_exp.market.calendar import calendar_report
from hmm_exp.market.iso import iso

DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)


@pytest.fixture
def calendars():
    """The library of the extra `calendar`."""
    return pytest.importorskip("exchange_calendars", reason="the extra calendar is not installed")


def sessions(first: str, last: str) -> pd.DatetimeIndex:
    """Dates of the sessions of XETR in 2019, holidays by hand."""
    closed = ["2019-04-19", "2019-04-22", "2019-05-01", "2019-06-10", "2019-10-03"]
    closed += ["2019-12-24", "2019-12-25", "2019-12-26"]
    days = pd.bdate_range(first, last)
    return days[~days.isin(pd.to_datetime(closed))]


def xetra_hours(zone: str = "Europe/Berlin") -> pd.DatetimeIndex:
    """Starts of the hourly bars of all sessions, 9:00 to 17:00 there, in UTC."""
    days = sessions("2019-01-02", "2019-12-27")
    hours = [day + hour * HOUR for day in days for hour in range(9, 17)]
    return pd.DatetimeIndex(hours).tz_localize(zone).tz_convert("UTC")


def test_weekends_and_holidays_are_closed_and_a_missing_session_is_an_outage(calendars):
    days = sessions("2019-01-02", "2019-12-27").tz_localize("UTC")
    whole = calendar_report(days, DAY, "open", "UTC", "XETR")
    assert (whole["outages"], whole["missing"], whole["outside"]) == (0, 0, 0)
    assert whole["closed"] == 51 + 3  # weekends, two of them longer; May, October and Christmas
    lacking = days.delete([20, 100, 101])
    report = calendar_report(lacking, DAY, "open", "UTC", "XETR")
    assert (report["outages"], report["missing"], report["unit"]) == (2, 3, "session")
    assert report["first_outages"] == [iso(days[place]) for place in (19, 99)]


@pytest.mark.parametrize(
    ("stamp", "zone", "shift"),
    [
        ("close", "UTC", 0 * DAY),  # the date of the session
        ("close", "UTC", DAY),  # the midnight at its end
        ("open", "Europe/Berlin", 0 * DAY),
        ("close", "Europe/Berlin", DAY),
    ],
)
def test_daily_bars_find_their_session_by_date_however_they_are_stamped(
    calendars, stamp, zone, shift
):
    days = sessions("2019-01-02", "2019-12-27").delete(50) + shift
    report = calendar_report(days.tz_localize(zone).tz_convert("UTC"), DAY, stamp, zone, "XETR")
    assert (report["outages"], report["missing"], report["outside"]) == (1, 1, 0)


@pytest.mark.parametrize("stamp", ["open", "close"])
def test_nights_are_closed_also_when_the_clocks_change_and_missing_hours_are_not(calendars, stamp):
    hours = xetra_hours() + (HOUR if stamp == "close" else 0 * HOUR)
    whole = calendar_report(hours, HOUR, stamp, "UTC", "XETR")
    assert (whole["outages"], whole["outside"]) == (0, 0)
    assert whole["closed"] == len(sessions("2019-01-02", "2019-12-27")) - 1
    report = calendar_report(hours.delete([11, 12, 800]), HOUR, stamp, "UTC", "XETR")
    assert (report["outages"], report["missing"], report["unit"]) == (2, 3, "bar")


def test_a_day_without_bars_is_an_outage_within_a_closed_step(calendars):
    hours = xetra_hours()
    report = calendar_report(hours[hours.date != hours[80].date()], HOUR, "open", "UTC", "XETR")
    assert (report["outages"], report["missing"]) == (1, 8)


def test_a_break_at_noon_is_closed(calendars):
    days = pd.to_datetime(["2019-03-04", "2019-03-05", "2019-03-06"])
    clocks = [9.5, 10.5, 13, 14, 15]
    times = pd.DatetimeIndex([day + clock * HOUR for day in days for clock in clocks])
    times = times.tz_localize("Asia/Hong_Kong").tz_convert("UTC")
    report = calendar_report(times, HOUR, "open", "UTC", "XHKG")
    assert (report["outages"], report["closed"]) == (0, 5)


def test_bars_while_the_exchange_is_closed_are_counted(calendars):
    hours = xetra_hours()
    late = hours.append(hours[hours.hour == 15][:30] + 6 * HOUR).sort_values()
    assert calendar_report(late, HOUR, "open", "UTC", "XETR")["outside"] == 30


@pytest.mark.parametrize(
    ("name", "step", "message"),
    [
        ("XETRA", DAY, "data.calendar=XETRA is no calendar of exchange_calendars: XETR"),
        ("nyse", DAY, "data.calendar=nyse is no calendar of exchange_calendars: NYSE"),
        ("XETR", 7 * DAY, "data.calendar=XETR: a bar of 7 days 00:00:00 is longer"),
    ],
)
def test_what_no_calendar_can_tell_is_one_line(calendars, name, step, message):
    days = sessions("2019-01-02", "2019-12-27").tz_localize("UTC")
    with pytest.raises(ConfigError, match=message):
        calendar_report(days, step, "open", "UTC", name)


def test_years_that_a_calendar_does_not_know_are_one_line(calendars):
    days = pd.bdate_range("1950-01-02", "1951-01-01", tz="UTC")
    with pytest.raises(ConfigError, match=r"data\.calendar=XHKG: .*1960"):
        calendar_report(days, DAY, "open", "UTC", "XHKG")


def test_without_the_library_the_line_has_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    days = sessions("2019-01-02", "2019-12-27").tz_localize("UTC")
    with pytest.raises(ConfigError, match=r"pip install 'hmm_exp\[calendar\]'"):
        calendar_report(days, DAY, "open", "UTC", "XETR")
