"""Which column holds the times, by name and by what it holds."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import DataError
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.time_column import time_column

N = 300
TIMES = pd.date_range("2024-01-01", periods=N, freq="h", tz="UTC")
EPOCHS = TIMES.as_unit("s").asi8
OPEN, CLOSE = ReadOptions("open"), ReadOptions("close")


def column_of(options=OPEN, **columns):
    return time_column(pd.DataFrame(columns), options)


def assert_holds_times(times, expected=TIMES):
    np.testing.assert_array_equal(times.stamps.ns, expected.as_unit("ns").asi8)


def test_a_column_of_row_numbers_is_passed_over_for_one_that_holds_times():
    times = column_of(time=np.arange(N), date=TIMES)
    assert times.name == "date"
    assert times.stamps.notes == ["'time' holds no times: 'date' is read"]
    assert_holds_times(times)


@pytest.mark.parametrize("values", [np.arange(N), ["AAPL"] * N, [None] * N, np.linspace(1, 2, N)])
def test_without_any_times_the_option_is_named(values):
    with pytest.raises(
        DataError, match=r"no column of times: 'time' begins .* data.timestamp_column"
    ):
        column_of(time=values)
    with pytest.raises(
        DataError, match=r"no column of times.* there are when.* data.timestamp_column"
    ):
        column_of(when=TIMES)


def test_a_chosen_column_is_read_whatever_its_name():
    options = ReadOptions("open", timestamp_column="when")
    assert_holds_times(column_of(options, when=EPOCHS, time=np.arange(N)))


CLOCKS = {
    "text": TIMES.strftime("%H:%M:%S"),
    "AM and PM": TIMES.strftime("%I:%M %p"),
    "HHMMSS": TIMES.strftime("%H%M%S").astype(int),
    "HHMM": TIMES.strftime("%H%M").astype(int),
    "hours": TIMES.hour,
    "with missing values": TIMES.strftime("%H%M%S").astype(float),
    "time objects": [time.time() for time in TIMES],
}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("date", ["%Y-%m-%d", "%Y%m%d", "%d.%m.%Y"])
def test_a_date_and_a_clock_are_joined(date, clock):
    dates = TIMES.strftime(date)
    dates = dates.astype(int) if date == "%Y%m%d" else dates
    times = column_of(date=dates, time=CLOCKS[clock])
    assert times.name == "date + time"
    assert_holds_times(times)


def test_a_chosen_date_is_joined_with_its_clock_too():
    options = ReadOptions("open", timestamp_column="date")
    times = column_of(options, date=TIMES.strftime("%Y-%m-%d"), hour=TIMES.hour)
    assert_holds_times(times)


def test_whole_times_in_a_column_named_like_a_clock_are_not_joined():
    times = column_of(date=TIMES.normalize(), time=TIMES.strftime("%Y%m%d%H%M%S").astype(int))
    assert times.name == "time"
    assert_holds_times(times)


def test_the_named_end_of_a_bar_is_preferred_to_a_time_without_an_end():
    ends = {"timeOpen": TIMES, "timeClose": TIMES + pd.Timedelta("1h"), "timestamp": TIMES}
    assert column_of(**ends).name == "timeOpen"
    assert column_of(CLOSE, **ends).name == "timeClose"
    assert column_of(**ends).warnings == []


def test_a_time_that_repeats_the_other_end_is_refused():
    with pytest.raises(
        DataError, match=r"'timestamp' holds the same times as 'close_time'.*_stamp=close"
    ):
        column_of(timestamp=TIMES, close_time=TIMES)
    assert_holds_times(column_of(CLOSE, timestamp=TIMES, close_time=TIMES))


def test_columns_that_disagree_are_a_warning_that_names_the_one_in_use():
    shifted = TIMES.to_series().reset_index(drop=True)
    shifted[:91] += pd.Timedelta(hours=4)
    (warning,) = column_of(unix=EPOCHS, date=shifted).warnings
    assert warning == "'date' and 'unix' disagree in 91 rows, by up to 04:00:00; 'unix' is read"
    (warning,) = column_of(unix=EPOCHS, date=TIMES + pd.Timedelta(hours=1)).warnings
    assert warning == "'date' is 01:00:00 from 'unix' in all rows; the latter is read"
    assert column_of(unix=EPOCHS, date=TIMES, day=TIMES.normalize()).warnings == []
    assert column_of(unix=EPOCHS, date=TIMES.normalize()).warnings == []


def exchanged(times):
    """Dates up to the 12th as a spreadsheet of another country leaves them."""
    return pd.Series(
        [time.replace(day=time.month, month=time.day) if time.day <= 12 else time for time in times]
    )


@pytest.mark.parametrize("freq", ["h", "D", "4h"])
@pytest.mark.parametrize("in_order", [False, True])
def test_days_that_a_spreadsheet_read_as_months_are_a_warning(freq, in_order):
    times = exchanged(
        pd.date_range("2024-01-20", periods=20 * 24 if freq != "D" else 60, freq=freq)
    )
    times = times.sort_values(ignore_index=True) if in_order else times
    (warning,) = column_of(time=times).warnings
    assert "with day and month exchanged in dates up to the 12th" in warning


@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2024-01-20", periods=600, freq="h"),
        pd.date_range("2020-01-01", periods=900, freq="B"),
        pd.date_range("2000-01-01", periods=200, freq="MS"),
        pd.date_range("2024-01-01", periods=600, freq="h")
        .delete(slice(20, 70))
        .delete(slice(90, 250)),
        pd.date_range("2024-01-01", periods=600, freq="h")[::-1],
        pd.date_range("2024-01-01", periods=2000, freq="h")[np.arange(2000) % 24 < 7],
    ],
    ids=["hours", "sessions", "months", "gaps", "newest first", "hours of sessions"],
)
def test_dates_that_are_right_are_no_warning(times):
    assert column_of(time=times).warnings == []


@pytest.mark.parametrize("zone", ["+02:00", " +0200", "UTC+2"])
def test_a_clock_with_a_zone_is_joined_with_its_date(zone):
    local = TIMES.tz_convert("Etc/GMT-2")
    times = column_of(date=local.strftime("%Y-%m-%d"), time=local.strftime("%H:%M") + zone)
    assert_holds_times(times)


@pytest.mark.parametrize(
    ("column", "value"),
    [("timezone", "Asia/Tokyo"), ("utc_offset", "+09:00"), ("gmtoffset", 32_400), ("tz", "JST")],
)
def test_a_column_of_zones_that_is_not_read_is_a_warning(column, value):
    local = TIMES.strftime("%Y-%m-%d %H:%M")
    (warning,) = column_of(time=local, **{column: value}).warnings
    assert f"{column!r}, which begins with '{value}', is not read: data.timezone" in warning
    assert not column_of(time=EPOCHS, **{column: value}).warnings
    assert not column_of(time=TIMES.strftime("%Y-%m-%dT%H:%MZ"), **{column: value}).warnings


@pytest.mark.parametrize("value", ["UTC", "Z", "+00:00", 0, 0.0, None])
def test_a_column_that_says_utc_is_no_warning(value):
    assert not column_of(time=TIMES.strftime("%Y-%m-%d %H:%M"), tz=value).warnings


@pytest.mark.parametrize("lone", [0, 1_000_000_000_000, 4_000_000_000_000])
def test_a_time_far_from_all_others_is_a_warning(lone):
    text = [*TIMES.strftime("%Y-%m-%d %H:%M:%S"), f"{pd.Timestamp(lone, unit='ms')}"]
    (warning,) = column_of(time=text).warnings
    assert warning.startswith("1 time of 'time' lies ")
    assert f"{pd.Timestamp(lone, unit='ms'):%Y-%m-%d}" in warning


def test_a_long_pause_between_bars_is_no_warning():
    years = pd.date_range("1990-01-01", periods=4, freq="YS", tz="UTC")
    assert not column_of(time=[*years, *TIMES]).warnings
    assert not column_of(time=[*(TIMES - pd.Timedelta(days=9000)), *TIMES]).warnings
