"""Gaps: which of them are a market's sessions, and which are holes."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.market.gaps import gap_report, looks_like_sessions

HOUR, DAY = pd.Timedelta(hours=1).value, pd.Timedelta(days=1).value
HOURS = pd.date_range("2021-01-04", "2021-12-31", freq="h", tz="UTC")
DAYS = pd.date_range("2005-01-03", "2020-12-31", freq="D", tz="UTC")


def nanoseconds(times: pd.DatetimeIndex) -> np.ndarray:
    return times.as_unit("ns").asi8


def frankfurt() -> pd.DatetimeIndex:
    """Hours from 9 to 17 of a market with summer time."""
    local = HOURS.tz_convert("Europe/Berlin")
    return HOURS[(local.hour >= 9) & (local.hour < 17) & (local.day_of_week < 5)]


SESSIONS = {
    "daily, weekends off": (DAYS[DAYS.day_of_week < 5], DAY),
    "daily, stamped at midnight in London": (
        pd.bdate_range("2015-01-01", "2020-12-31", tz="Europe/London").tz_convert("UTC"),
        DAY,
    ),
    "hourly, nights and weekends off": (frankfurt(), HOUR),
    "currencies, from Sunday to Friday evening": (
        HOURS[
            (HOURS.day_of_week < 4)
            | ((HOURS.day_of_week == 4) & (HOURS.hour < 22))
            | ((HOURS.day_of_week == 6) & (HOURS.hour >= 22))
        ],
        HOUR,
    ),
    "futures, one hour off a day": (HOURS[(HOURS.hour != 22) & (HOURS.day_of_week != 5)], HOUR),
}


def with_outages(share: float) -> pd.DatetimeIndex:
    return HOURS[np.random.default_rng(3).random(len(HOURS)) >= share]


ALWAYS_OPEN = {
    "some hours missing at random": (with_outages(0.03), HOUR),
    "half of all hours without a trade": (with_outages(0.5), HOUR),
    "one outage of five hours": (HOURS[:500].delete(slice(200, 205)), HOUR),
    "one outage of nineteen days": (HOURS.delete(slice(1000, 1000 + 19 * 24)), HOUR),
    "two days of hours": (HOURS[:48].delete([7, 8]), HOUR),
    "weeks": (pd.date_range("2010-01-01", periods=200, freq="7D", tz="UTC").delete(5), 7 * DAY),
    "no gap": (HOURS, HOUR),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_nights_and_weekends_are_sessions(name):
    times, step = SESSIONS[name]
    assert looks_like_sessions(nanoseconds(times), step)


@pytest.mark.parametrize("name", ALWAYS_OPEN)
def test_missing_bars_without_a_weekly_pattern_are_no_sessions(name):
    times, step = ALWAYS_OPEN[name]
    assert not looks_like_sessions(nanoseconds(times), step)


@pytest.mark.parametrize("gaps", ["split", "bridge"])
def test_a_hole_far_longer_than_a_closed_spell_has_its_dates(gaps):
    days = DAYS[DAYS.day_of_week < 5]
    days = days[(days < "2007-03-05") | (days > "2018-04-02")]
    report = gap_report(nanoseconds(days), DAY, gaps)
    assert report["hole_count"] == 1
    hole = {"days": 4050, "after": "2007-03-02T00:00:00Z", "until": "2018-04-03T00:00:00Z"}
    assert report["holes"] == [hole]
    assert report["sessions"]


def test_holidays_are_no_holes():
    days = DAYS[(DAYS.day_of_week < 5) & ~((DAYS.month == 12) & (DAYS.day > 20))]
    report = gap_report(nanoseconds(days), DAY, "bridge")
    assert report["hole_count"] == 0


def test_of_many_holes_the_longest_three_are_named_in_order_of_time():
    cut = [slice(200, 400), slice(1000, 1900), slice(3000, 3300), slice(5000, 6000)]
    times = HOURS.delete(np.concatenate([np.arange(len(HOURS))[part] for part in cut]))
    report = gap_report(nanoseconds(times), HOUR, "split")
    assert report["hole_count"] == 4
    assert [hole["days"] for hole in report["holes"]] == [37, 12, 41]
