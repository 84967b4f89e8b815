"""Times written as text: the grammar, and what it refuses."""

import pandas as pd
import pyarrow as pa
import pytest

from hmm_exp.errors import DataError
from hmm_exp.market.stamps import read_stamp, read_stamps
from hmm_exp.market.text_stamps import read_texts
from hmm_exp.market.zones import UNREADABLE


def utc(text, timezone="UTC"):
    (ns,) = read_stamps(pd.Series([text]), timezone).ns
    return None if ns == UNREADABLE else f"{pd.Timestamp(ns):%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize(
    ("zone", "hour"),
    [
        *(("", 12), ("Z", 12), (" UTC", 12), (" GMT", 12), ("+01:00", 11), ("+0100", 11)),
        *((" GMT+0100", 11), (" GMT+1", 11), ("UTC+8", 4), (" UTC-05:00", 17), (" GMT-5", 17)),
        *(("-03", 15), (" +0530", 6), (" US/Eastern", 17), (" Europe/Berlin", 11), (" EST", 17)),
        (" Etc/GMT+5", 17),  # by definition of that name five hours behind
        (" GMT+0100 (Central European Time)", 11),
    ],
)
def test_a_zone_in_the_text_means_what_people_mean_by_it(zone, hour):
    text = "2024-01-31 12:00" + zone
    assert utc(text) == f"2024-01-31 {hour:02d}:{30 if '30' in zone else 0:02d}:00"
    other_zone = "Asia/Tokyo"
    expected = "2024-01-31 03:00:00" if not zone else utc(text)
    assert utc(text, other_zone) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("now", "today", "tomorrow", "2023", "0", "12:00", "2024", "2024-W05-3", "2024-031"),
        *("2024-02-30", "2024-13-01", "2024-01-31 25:00", "2024-01-31 12:61", "24:00"),
        *("2024-01-31 13:00 PM", "2024-01-31 0:30 AM", "2024-01-31 24:01", "31 Foo 2024"),
        *("12:00 2024-01-31", "2024-01-31 12:00 CST", "2024-01-31 12:00+99:00", "1677-09-21"),
        *("2300-01-01", "9999-12-31", "2024-01-31x", "x2024-01-31", "01/2024", "noon", "-", "é"),
    ],
)
def test_what_the_grammar_does_not_know_is_refused(text):
    assert utc(text) is None
    with pytest.raises(DataError, match="cannot be read"):
        read_stamp(text)


@pytest.mark.parametrize("half", ["12:30 AM", "12:30 am", "00:30", "0:30:00", "00:30:00.000"])
def test_half_past_midnight_in_every_way(half):
    assert utc(f"31/01/2024 {half}") == "2024-01-31 00:30:00"


def test_twenty_four_hours_are_the_next_midnight():
    assert utc("31.12.2023 24:00") == "2024-01-01 00:00:00"


def test_months_have_their_english_names_whole_or_short():
    for text in ("31 January 2024", "Jan. 31, 2024", "31-Jan-24", "2024-Jan-31", "31JAN2024"):
        assert utc(text) == "2024-01-31 00:00:00"
    assert utc("3 Sept 2024") == "2024-09-03 00:00:00"
    assert utc("31 Januar 2024") is None


def test_an_unknown_zone_is_named():
    stamps = read_stamps(pd.Series(["2024-01-31 12:00 CST"]))
    assert stamps.reason.startswith("no zone is named 'CST': write an offset (-04:00)")


def test_fractions_keep_their_nanoseconds():
    (ns,) = read_texts(pa.array(["2024-01-31 12:00:00.123456789"])).ns
    assert ns % 10**9 == 123_456_789


def days(order, n=40):
    stamps = pd.date_range("2024-01-25", periods=n, freq="D")
    return pd.Series(stamps.strftime(order)), stamps


@pytest.mark.parametrize(
    "order", ["%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d.%m.%y", "%d/%m/%Y", "%m-%d-%Y"]
)
def test_the_order_of_day_month_and_year_is_told_by_all_rows(order):
    texts, stamps = days(order)
    assert read_stamps(texts).ns.tolist() == stamps.as_unit("ns").asi8.tolist()
    assert read_stamps(texts).needs_all


def test_a_damaged_row_does_not_decide_the_order():
    texts = pd.Series(["01/02/2024"] * 200 + ["21/02/2024"])
    with pytest.raises(DataError, match="day and month cannot be told apart"):
        read_stamps(texts)
    texts, stamps = days("%m/%d/%Y", n=300)
    texts[7] = "99/99/2024"
    read = read_stamps(texts).ns
    assert read[7] == UNREADABLE
    assert read[8] == stamps.as_unit("ns").asi8[8]


@pytest.mark.parametrize("texts", [["01/02/24"], ["24/01/31"], ["1/2/2024", "2/2/2024"]])
def test_orders_that_cannot_be_told_apart_are_refused_with_an_example(texts):
    with pytest.raises(
        DataError, match=r"cannot be told apart in dates like .*; write them as YYYY"
    ):
        read_stamps(pd.Series(texts))


def test_months_stand_for_their_first_day_where_all_rows_are_months():
    assert utc("2024-02") == "2024-02-01 00:00:00"
    assert read_stamps(pd.Series(["2024-02", "2024-03-01"])).ns[0] == UNREADABLE
