"""Stamps of a column and of a single value agree, in every zone."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.options import ReadOptions, check_timezone
from hmm_exp.market.stamps import read_stamp, read_stamps
from hmm_exp.market.zones import UNREADABLE, zone_offset

HOUR = 3_600_000_000_000


@pytest.mark.parametrize("timezone", ["UTC", "America/New_York"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            "2024-01-31 12:00",
            "2024-01-31T12:00:00Z",
            "2024-01-31T12:00:00.123456789Z",
            "31.01.2024 12:00",
        ),
        *(1_706_702_400, 1_706_702_400_000, 1_706_702_400.5, "1706702400", 20240131, b"x", None),
        *("2024-01-31", "soon", 0, -1, 10**4400, float("nan"), True, [], {}, 2**63, -(2**63)),
        pd.Timestamp("2024-01-31 12:00"),
        pd.Timestamp("2024-01-31 12:00", tz="Asia/Tokyo"),
        pd.Timestamp("2300-01-01").as_unit("s"),
        dt.datetime(2024, 1, 31, 12),
        dt.datetime(2024, 1, 31, 12, tzinfo=dt.UTC),
        dt.datetime(9999, 1, 1),
        dt.date(2024, 1, 31),
        np.datetime64("2024-01-31T12:00"),
        pd.NaT,
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_value_is_read_as_in_a_column(value, timezone):
    (expected,) = read_stamps(pd.Series([value], dtype=object), timezone).ns
    if expected == UNREADABLE:
        with pytest.raises(DataError, match="cannot be read"):
            read_stamp(value, timezone)
    else:
        assert read_stamp(value, timezone) == expected


def test_every_unit_of_datetimes_is_read_and_held_to_the_span():
    for unit in ("s", "ms", "us", "ns"):
        column = pd.Series(pd.DatetimeIndex(["2024-01-31", None]).as_unit(unit))
        assert read_stamps(column).ns.tolist() == [pd.Timestamp("2024-01-31").value, UNREADABLE]
    far = pd.Series(pd.DatetimeIndex(["2300-01-01", "1500-01-01"]).as_unit("s"))
    assert (read_stamps(far).ns == UNREADABLE).all()


def test_local_times_are_those_of_the_zone_and_others_keep_their_own():
    texts = pd.Series(["2024-07-01 09:30", "2024-07-01 09:30Z", "2024-01-02 09:30"])
    expected = ["2024-07-01 13:30", "2024-07-01 09:30", "2024-01-02 14:30"]
    assert read_stamps(texts, "US/Eastern").ns.tolist() == [pd.Timestamp(t).value for t in expected]


@pytest.mark.parametrize("reverse", [False, True])
def test_an_hour_that_comes_twice_is_told_by_the_rows_around_it(reverse):
    hours = pd.date_range("2024-11-03 00:00", periods=8, freq="h", tz="US/Eastern")
    texts = pd.Series(hours.strftime("%Y-%m-%d %H:%M"))
    texts, hours = (texts[::-1], hours[::-1]) if reverse else (texts, hours)
    assert read_stamps(texts, "US/Eastern").ns.tolist() == hours.as_unit("ns").asi8.tolist()


def test_an_hour_that_a_zone_skips_is_refused_with_the_reason():
    stamps = read_stamps(pd.Series(["2024-03-10 02:30"]), "US/Eastern")
    assert stamps.ns.tolist() == [UNREADABLE]
    assert stamps.reason == "clocks in US/Eastern skip that time"


def test_a_day_whose_midnight_is_skipped_begins_an_hour_later():
    (ns,) = read_stamps(pd.Series(["2018-11-04"]), "America/Sao_Paulo").ns
    assert ns == pd.Timestamp("2018-11-04 03:00").value


def test_offsets_as_they_stand_in_files():
    assert [zone_offset(text) for text in ("GMT+0100", "-05:00", "utc+8", "Z")] == [
        HOUR, -5 * HOUR, 8 * HOUR, 0,
    ]  # fmt: skip
    assert [zone_offset(text) for text in ("EST", "+99", "+01:75", "")] == [None] * 4


@pytest.mark.parametrize("name", ["Mars/Base", "", "../etc/passwd", "Europe", "UTC+1"])
def test_an_unknown_zone_is_refused_before_anything_is_read(name):
    with pytest.raises(ConfigError, match=r"data.timezone is .*: name a zone such as UTC"):
        ReadOptions("open", timezone=name)


@pytest.mark.parametrize("name", ["localtime", "posixrules", "Factory"])
def test_a_zone_that_is_the_machines_own_is_none(name):
    with pytest.raises(ConfigError, match=rf"data.timezone is '{name}': name a zone"):
        check_timezone(name)
    stamps = read_stamps(pd.Series([f"2024-01-01 00:00 {name}"]))
    assert stamps.reason.startswith(f"no zone is named {name!r}: write an offset")
