"""Columns by name and stamps by form."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import DataError
from hmm_exp.market.columns import find_prices, find_timestamps, find_volume
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.stamps import read_stamps
from hmm_exp.market.time_column import time_column
from hmm_exp.market.zones import UNREADABLE


@pytest.mark.parametrize(
    ("names", "hint", "expected"),
    [
        (["Volume", "Volume MA"], "", "Volume"),
        (["volume", "quote_volume"], "", "volume"),
        (["Volume BTC", "Volume USDT"], "", "Volume BTC"),
        (["Volume USDT", "Volume BTC"], "", "Volume BTC"),
        (["Volume ETC", "Volume BTC"], "ETC/BTC", "Volume ETC"),
        (["Volume BTC", "Volume ETC"], "Binance_ETCBTC_1h", "Volume ETC"),
        (["Volume EUR", "Volume USDT"], "EUR/USDT", "Volume EUR"),
        (["Volume ETC", "Volume BTC"], "ETC/BTC\nETCBTC", "Volume ETC"),  # BTC does not meet ETC
        (["Volume_(BTC)", "Volume_(Currency)"], "", "Volume_(BTC)"),
        (["baseVolume", "quoteVolume"], "", "baseVolume"),
        (["Volume", "Quote asset volume", "Taker buy base asset volume"], "", "Volume"),
        (["volume_usd"], "", "volume_usd"),
        (["vol", "volatility"], "", "vol"),
    ],
)
def test_the_volume_of_the_base_asset_is_found(names, hint, expected):
    assert find_volume(["time", *names], hint=hint) == expected


@pytest.mark.parametrize(
    "names", [["Volume ETC", "Volume BTC"], ["Volume", "volume"], ["volume_usd", "volume_eur"]]
)
def test_volumes_that_cannot_be_told_apart_name_the_option(names):
    line = f"2 volume columns cannot be told apart: {', '.join(names)}; .* data.volume_column"
    with pytest.raises(DataError, match=line):
        find_volume(names)
    assert find_volume(names, chosen=names[1]) == names[1]


def test_a_chosen_column_that_is_not_there_is_named():
    with pytest.raises(DataError, match=r"data.volume_column=v: no column of that name; there are"):
        find_volume(["Volume"], chosen="v")
    with pytest.raises(DataError, match=r"data.timestamp_column=t: no column of that name"):
        find_timestamps(["time"], "open", chosen="t")


def test_two_columns_of_one_price_are_refused():
    with pytest.raises(DataError, match="2 columns are named close: Close, close"):
        find_prices(["open", "high", "low", "Close", "close"])


def test_an_adjusted_close_is_not_the_close():
    assert find_prices(["Open", "High", "Low", "Adj Close", "Close"])["close"] == "Close"


@pytest.mark.parametrize(
    ("names", "stamp", "expected"),
    [
        (["date", "unix"], "open", "unix"),
        (["open_time", "close_time"], "open", "open_time"),
        (["openTime", "closeTime"], "close", "closeTime"),
        (["Unnamed: 0", "a"], "open", "Unnamed: 0"),
        (["Gmt time", "a"], "open", "Gmt time"),
    ],
)
def test_the_column_of_stamps_is_found(names, stamp, expected):
    assert find_timestamps(names, stamp)[0] == expected


def test_open_times_are_not_taken_for_closing_times():
    with pytest.raises(DataError, match=r"the only time is 'open_time' but data.bar_stamp=close"):
        find_timestamps(["open_time", "open"], "close")
    assert find_timestamps(["open_time"], "close", chosen="open_time") == ["open_time"]


NOON = pd.Timestamp("2024-01-31 12:00", tz="UTC").value


@pytest.mark.parametrize(
    "stamp",
    [
        NOON // 10**9,
        NOON // 10**6,
        NOON // 10**3,
        NOON,
        NOON / 10**9,
        str(NOON // 10**6),
        "2024-01-31T12:00:00Z",
        "2024-01-31 12:00",
        "2024-01-31 14:00+02:00",
        "2024.01.31 12:00:00",
        "2024/01/31 12:00",
        "20240131 120000",
        "2024-01-31 12-PM",
        "2024-01-31 12:00 PM",
        "31/01/2024 12:00",
        "01/31/2024 12:00:00",
        "1/31/2024 12:00 PM",
        "31.01.2024 12:00:00.000",
        "31-Jan-2024 12:00",
        "Jan 31, 2024 12:00",
        pd.Timestamp("2024-01-31 12:00"),
        pd.Timestamp("2024-01-31 07:00", tz="America/New_York"),
    ],
    ids=str,
)
def test_every_usual_form_of_a_stamp_is_read(stamp):
    assert read_stamps(pd.Series([stamp])).ns.tolist() == [NOON]


def test_units_and_forms_may_change_from_row_to_row():
    stamps = pd.Series([NOON // 10**9, NOON // 10**6, NOON // 10**3])
    assert read_stamps(stamps).ns.tolist() == [NOON] * 3
    texts = pd.Series(["2024-01-31 12:00:00", "2024-01-31 12-PM", str(NOON // 10**9), "x", None])
    texts.index = [0, 1, 1, 0, 0]  # as after joining frames
    assert read_stamps(texts).ns.tolist() == [NOON] * 3 + [UNREADABLE] * 2


def test_nanoseconds_keep_their_last_digit():
    assert read_stamps(pd.Series([NOON + 1])).ns.tolist() == [NOON + 1]


def test_whole_numbers_like_20240131_are_dates():
    stamps = read_stamps(pd.Series([20240131, 20240201]))
    assert np.diff(stamps.ns).tolist() == [86_400 * 10**9]
    assert stamps.notes == ["dates written as YYYYMMDD"]


def test_day_and_month_are_told_apart_by_all_rows_or_refused():
    days = pd.Series(["01/02/2024", "13/02/2024"])
    assert pd.Timestamp(read_stamps(days).ns[0]).month == 2
    assert pd.Timestamp(read_stamps(pd.Series(["01.02.2024"])).ns[0]).month == 2
    with pytest.raises(DataError, match=r"day and month cannot be told apart in .*'01/02/2024'"):
        read_stamps(days[:1])


def test_a_time_of_day_alone_is_no_stamp_but_beside_a_date_it_is_joined():
    frame = pd.DataFrame({"<DATE>": ["2024.01.31"], "<TIME>": ["12:00:00"]})
    times = time_column(frame, ReadOptions("open"))
    assert times.name == "<DATE> + <TIME>"
    assert times.stamps.ns.tolist() == [NOON]
    assert read_stamps(frame["<TIME>"]).ns.tolist() == [UNREADABLE]
