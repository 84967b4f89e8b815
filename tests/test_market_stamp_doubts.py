"""What the times of bars betray: the reader says it, and says what would be right."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import DataError
from hmm_exp.market.clean import bars_from_frame
from hmm_exp.market.options import ReadOptions


def table(times, **more) -> pd.DataFrame:
    """Sound bars at some times, whatever their form; further columns come first."""
    close = 100.0 + np.arange(len(times)) % 7
    prices = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 2.0}
    return pd.DataFrame({**more, "time": times, **prices})


def hours(n: int = 200, start: str = "2024-01-01", freq: str = "h") -> pd.DatetimeIndex:
    return pd.date_range(start, periods=n, freq=freq)


def warnings_of(frame: pd.DataFrame, **options) -> str:
    bars = bars_from_frame(frame, ReadOptions(**{"bar_stamp": "open", **options}))
    return "\n".join(bars.report["warnings"])


LAST_INSTANTS = {
    "milliseconds": hours() + pd.Timedelta("59min59.999s"),
    "seconds": hours() + pd.Timedelta("59min59s"),
    "days": hours(freq="D") + pd.Timedelta("23h59min59s"),
    "minutes": hours(freq="min") + pd.Timedelta("59.999s"),
    "epochs": (hours() + pd.Timedelta("59min59.999s")).as_unit("ms").asi8,
}


LAST_INSTANTS |= {
    "minutes of hours": hours() + pd.Timedelta("59min"),
    "minutes of days": hours(freq="D") + pd.Timedelta("23h59min"),
    "a first and a running bar": hours(60).where(
        np.isin(np.arange(60), (0, 59)), hours(60) + pd.Timedelta("59min59s")
    ),
}


@pytest.mark.parametrize("form", LAST_INSTANTS)
def test_last_instants_of_bars_are_no_starts(form):
    frame = table(LAST_INSTANTS[form])
    said = warnings_of(frame)
    assert "set data.bar_stamp=close" in said
    assert "; " not in said  # lines of a sweep are cut there
    assert ":59" in said.partition(" are ")[0]
    assert "instants" not in warnings_of(frame, bar_stamp="close")


@pytest.mark.parametrize(
    "times",
    [
        hours(),
        hours() + pd.Timedelta("30min"),
        hours(freq="D") + pd.Timedelta("17h"),
        hours(freq="s"),  # each of a minute's last second is a start
        hours().where(np.arange(200) % 2 == 0, hours() + pd.Timedelta("59s")),
    ],
)
def test_other_times_are_taken_as_told(times):
    assert "instants" not in warnings_of(table(times))


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Sydney",
        "America/Santiago",
        "Africa/Cairo",
        "Asia/Beirut",
    ],
)
def test_an_hour_that_comes_twice_names_the_remedy_and_the_remedy_helps(zone):
    local = pd.date_range("2023-01-01", periods=9000, freq="h", tz=zone)
    frame = table(local.tz_localize(None).strftime("%Y-%m-%d %H:%M"))
    with pytest.raises(DataError, match=r"when clocks are set back: data\.timezone reads them"):
        warnings_of(frame)
    bars = bars_from_frame(frame, ReadOptions(bar_stamp="open", timezone=zone))
    assert list(bars.frame["timestamp"]) == list(local.tz_convert("UTC"))


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (hours(), {}),  # not on a Sunday
        (hours(start="2024-10-27", freq="h").tz_localize("UTC"), {}),  # which have a zone
        (hours(start="2024-10-26"), {"timezone": "Asia/Tokyo"}),  # which never does
    ],
)
def test_other_repeated_times_are_not_the_clocks(times, options):
    frame = table(times)
    again = frame.iloc[[1]].assign(close=100.5)
    with pytest.raises(DataError, match="1 conflicting duplicate timestamp") as refused:
        warnings_of(pd.concat([frame, again]), **options)
    assert "clocks" not in str(refused.value)


def test_of_two_columns_of_one_name_in_other_letters_the_difference_is_told():
    late = hours() + pd.Timedelta("1h")
    assert "'Time' is 01:00:00 from 'time'" in warnings_of(table(hours()).assign(Time=late))
    assert "'time' is 01:00:00 from 'Time'" in warnings_of(table(late, Time=hours()))
    assert warnings_of(table(hours(), Time=hours())) == ""


def test_two_times_of_the_same_end_differ_aloud():
    late = hours() + pd.Timedelta("1h")
    frame = table(late, **{"open_time": hours(), "Open Time": late}).drop(columns="time")
    assert "'Open Time' is 01:00:00 from 'open_time'" in warnings_of(frame)


@pytest.mark.parametrize("name", ["EDT", "EST", "New York", "Eastern Daylight Time"])
def test_a_name_in_brackets_alone_is_no_zone_to_pass_over(name):
    with pytest.raises(DataError, match="no column of times: 'time' begins with"):
        warnings_of(table([f"{time} ({name})" for time in hours()]))
    offsets = table([f"{time} GMT-0400 ({name})" for time in hours()])
    bars = bars_from_frame(offsets, ReadOptions(bar_stamp="open"))
    assert bars.frame["timestamp"].iloc[0] == pd.Timestamp("2024-01-01 04:00", tz="UTC")


@pytest.mark.parametrize("name", ["America/New_York", "AMT"])
def test_a_zone_that_begins_like_a_half_of_the_day_is_whole(name):
    if "/" in name:
        frame = table([f"{time} {name}" for time in hours()])
        bars = bars_from_frame(frame, ReadOptions(bar_stamp="open"))
        assert bars.frame["timestamp"].iloc[0] == pd.Timestamp("2024-01-01 05:00", tz="UTC")
    else:
        with pytest.raises(DataError, match=f"no zone is named '{name}'"):
            warnings_of(table([f"{time} {name}" for time in hours()]))


def test_an_abbreviation_that_is_no_zone_is_refused_with_what_to_write():
    times = pd.date_range("2024-03-01", periods=600, freq="h", tz="America/New_York")
    frame = table([f"{time:%Y-%m-%d %H:%M %Z}" for time in times])
    with pytest.raises(DataError, match=r"named 'EDT': write an offset \(-04:00\)"):
        warnings_of(frame)
    offsets = table([f"{time:%Y-%m-%d %H:%M%z}" for time in times])
    assert warnings_of(offsets) == ""


def test_values_in_place_of_names_are_called_so():
    frame = table(hours()).set_axis(["2024-01-01", "1.5", "2", "1", "1.25", "10"], axis=1)
    with pytest.raises(DataError, match="the first line holds numbers: write a line of names"):
        warnings_of(frame)
    words = table(hours()).rename(columns={"close": "settle"})
    with pytest.raises(DataError) as refused:
        warnings_of(words)
    assert "line" not in str(refused.value)
