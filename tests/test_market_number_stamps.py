"""Numbers as times: which are epochs, which are dates in digits, which are none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exp.errors import DataError
from hmm_exp.market.number_stamps import EPOCH_FIRST, LAST, from_fields, is_bar_length, read_numbers
from hmm_exp.market.zones import UNREADABLE

HOUR = 3_600_000_000_000
NOON = pd.Timestamp("2024-01-31 12:00").value


def read(*numbers):
    array = np.array(numbers)
    exact = array if array.dtype.kind == "i" else None
    return read_numbers(array.astype(np.float64), exact)


def in_words(result):
    return [
        None if ns == UNREADABLE else f"{pd.Timestamp(ns):%Y-%m-%d %H:%M:%S}" for ns in result.ns
    ]


@given(
    st.integers(EPOCH_FIRST // 10**9, LAST // 10**9 - 7201),
    st.sampled_from([1, 10**3, 10**6, 10**9]),
)
def test_an_epoch_of_the_span_is_read_in_every_unit(seconds, unit):
    ns = read(seconds * unit, (seconds + 3600) * unit, (seconds + 7200) * unit).ns
    assert ns.tolist() == [seconds * 10**9 + i * HOUR for i in range(3)]


@pytest.mark.parametrize(
    "numbers",
    [
        range(50),
        [2023, 2024],
        [20_000_000_000, 20_000_003_600],
        [-1, -2],
        [1e30, np.inf],
        [np.nan, np.nan],
        [5_000_000_000_000, 5_000_003_600_000],
        [100.25, 100.5],
    ],
    ids=str,
)
def test_numbers_outside_the_span_are_no_times(numbers):
    assert (read(*numbers).ns == UNREADABLE).all()


def test_one_number_that_is_no_epoch_does_not_become_1970():
    assert in_words(read(1_704_067_200, 0, 1_704_070_800, 2023)) == [
        "2024-01-01 00:00:00", None, "2024-01-01 01:00:00", None,
    ]  # fmt: skip


def test_epochs_of_long_ago_are_read_where_they_lead_on_without_a_hole():
    days = -2_208_988_800 + 86_400 * np.arange(45_000)  # from 1900 to 2023
    result = read(*days)
    assert in_words(result)[0] == "1900-01-01 00:00:00"
    assert (np.diff(result.ns) == 24 * HOUR).all()


@pytest.mark.parametrize(
    ("numbers", "first"),
    [
        ([20240131, 20240201], "2024-01-31 00:00:00"),
        ([20240131.0, np.nan, 20240201.0], "2024-01-31 00:00:00"),
        ([2024013112, 2024013113], "2024-01-31 12:00:00"),
        ([202401311230, 202401311231], "2024-01-31 12:30:00"),
        ([20240131123045], "2024-01-31 12:30:45"),
        ([20240131123045250, 20240131123046250], "2024-01-31 12:30:45"),
        ([1990123123], "1990-12-31 23:00:00"),
    ],
)
def test_dates_in_digits_are_read_by_a_local_clock(numbers, first):
    result = read(*numbers)
    assert in_words(result)[0] == first
    assert result.local


def test_a_bad_number_among_dates_in_digits_is_bad_alone():
    dates = [20240101000000 + 10_000 * hour for hour in range(20)]
    result = read(*dates, 20240132000000, 99_999_999_999_999_999)
    assert (result.ns[:20] != UNREADABLE).all()
    assert (result.ns[20:] == UNREADABLE).all()


@pytest.mark.parametrize("step", [60, 300, 3600, 14_400, 86_400])
def test_clocks_of_other_programs_are_told_by_the_length_of_a_bar(step):
    seconds = 1_704_067_200 + step * np.arange(30)
    forms = {
        ".NET ticks": (seconds + 62_135_596_800) * 10_000_000,
        "Windows file times": (seconds + 11_644_473_600) * 10_000_000,
        "minutes since 1970": seconds // 60,
        "days of a spreadsheet": np.round(25_569 + seconds / 86_400, 8),
    }
    for name, numbers in forms.items():
        result = read(*numbers)
        assert result.notes == (name,)
        np.testing.assert_array_equal(result.ns, seconds * 10**9)


OTHER_ORDERS = (
    "%y%m%d%H%M",
    "%y%m%d%H%M%S",
    "%d%m%y%H%M",
    "%d%m%Y%H%M%S",
    "%m%d%Y%H%M",
    "%Y%j%H%M%S",
)


@pytest.mark.parametrize("freq", ["15min", "h", "4h", "D"])
@pytest.mark.parametrize("form", OTHER_ORDERS)
def test_digits_of_a_date_in_another_order_are_no_epochs(form, freq):
    times = pd.date_range("2024-10-11", periods=60, freq=freq)
    assert (read(*times.strftime(form).astype(int)).ns == UNREADABLE).all()


def test_minutes_in_digits_are_no_seconds_of_2046():
    times = pd.date_range("2024-01-01", periods=48, freq="min")
    assert (read(*times.strftime("%y%m%d%H%M").astype(int)).ns == UNREADABLE).all()


def test_epochs_that_look_like_dates_in_digits_stay_epochs():
    seconds = 1_704_061_200 + np.arange(50)  # as YYMMDDhhmm the first minutes of an hour in 2017
    np.testing.assert_array_equal(read(*seconds).ns, seconds * 10**9)


@pytest.mark.parametrize(
    "first", [2_024_001, 2_460_311, 60_310], ids=["year and day", "Julian", "modified Julian"]
)
def test_days_counted_in_another_way_are_no_times(first):
    assert (read(*range(first, first + 40)).ns == UNREADABLE).all()


def test_nanoseconds_of_1990_stay_what_they_are():
    ns = pd.date_range("1990-06-01", periods=40, freq="h").as_unit("ns").asi8
    np.testing.assert_array_equal(read(*ns).ns, ns)


def test_a_lone_number_that_two_clocks_fit_is_refused():
    assert read(638_396_640_000_000_000).ns.tolist() == [UNREADABLE]


@pytest.mark.parametrize("step", [60_000, 3_600_000, 86_400_000])
def test_epochs_that_a_spreadsheet_rounded_are_refused_with_the_reason(step):
    rounded = [float(f"{1_704_067_200_000 + step * i:.5E}") for i in range(40)]
    with pytest.raises(DataError, match=r"the times have lost digits: .*e\+12 stands in \d+ of 40"):
        read(*rounded)


@given(st.dates(), st.integers(0, 86_399))
def test_fields_of_a_calendar_agree_with_the_library(day, second):
    expected = pd.Timestamp(day).value + second * 10**9 if 1800 <= day.year < 2100 else UNREADABLE
    fields = (np.array([part]) for part in (day.year, day.month, day.day, second * 10**9))
    assert from_fields(*fields).tolist() == [expected]


def test_fields_that_are_no_date_are_none():
    year, month, day = np.array([[2023, 2, 29], [2024, 13, 1], [2024, 4, 31], [2024, 0, 1]]).T
    assert (from_fields(year, month, day, np.zeros(4, np.int64)) == UNREADABLE).all()


def test_usual_lengths_of_bars():
    usual = [1, 60, 900, 3600, 14_400, 86_400, 604_800]
    assert all(is_bar_length(seconds * 10**9) for seconds in usual)
    assert not any(is_bar_length(ns) for ns in (0, 36 * 10**9, 7 * 60 * 10**9, 10**7))
