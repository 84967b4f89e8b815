"""Tables as they come: names that repeat, indexes, levels, several series."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import DataError
from hmm_exp.market.clean import bars_from_frame
from hmm_exp.market.columns import OneSeries, check_one_series, telling_column, tidy
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.synthetic import make_market

BARS = make_market(60).frame.reset_index(drop=True)
OPTIONS = ReadOptions("open")


def twice(name, values):
    """The bars with a second column of a name."""
    frame = pd.concat([BARS, pd.DataFrame({name: values})], axis=1)
    assert list(frame.columns).count(name) == 2
    return frame


@pytest.mark.parametrize("name", ["timestamp", "volume", "close"])
def test_a_column_that_repeats_another_is_left_out(name):
    bars = bars_from_frame(twice(name, BARS[name]), OPTIONS)
    pd.testing.assert_frame_equal(bars.frame, bars_from_frame(BARS, OPTIONS).frame)
    assert f"a second column {name!r} repeats the first: left out" in bars.report["normalised"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("timestamp", r"2 columns are named timestamp and differ: .*data.timestamp_column="),
        ("volume", r"2 volume columns cannot be told apart: volume, volume \[2\]"),
        ("close", r"2 columns are named close: close, close \[2\]; rename one"),
    ],
)
def test_columns_of_one_name_that_differ_are_refused_and_can_be_chosen(name, line):
    frame = twice(name, BARS[name] + (pd.Timedelta("1h") if name == "timestamp" else 1.0))
    with pytest.raises(DataError, match=line):
        bars_from_frame(frame, OPTIONS)
    if name == "volume":
        second = bars_from_frame(frame, ReadOptions("open", volume_column="volume [2]"))
        np.testing.assert_array_equal(second.frame["volume"], BARS["volume"] + 1.0)


def test_names_that_are_no_text_and_a_named_index_become_columns():
    frame, _ = tidy(pd.DataFrame({1: [1.0]}, index=pd.Index([7], name="when")))
    assert list(frame.columns) == ["when", "1"]


@pytest.mark.parametrize("level", [0, 1])
def test_two_levels_of_names_lose_that_of_the_instrument(level):
    names = [("ABC", name)[:: 1 - 2 * level] for name in BARS.columns[1:]]
    frame = BARS.set_index("timestamp").set_axis(pd.MultiIndex.from_tuples(names), axis=1)
    bars = bars_from_frame(frame, OPTIONS)
    pd.testing.assert_frame_equal(bars.frame, bars_from_frame(BARS, OPTIONS).frame)
    both = pd.concat([frame, frame.rename(columns={"ABC": "XYZ"}, level=level)], axis=1)
    with pytest.raises(DataError, match="2 symbols in the columns: ABC, XYZ"):
        bars_from_frame(both, OPTIONS)


@pytest.mark.parametrize("name", ["symbol", "Ticker", "<TICKER>", "product_id", "Name", "interval"])
def test_several_series_in_one_table_are_refused_with_their_numbers(name):
    names = np.repeat(["a", "b"], [40, 20])
    with pytest.raises(
        DataError, match=rf"2 \w+s in column '{name}': a \(40 rows\), b \(20 rows\)"
    ):
        bars_from_frame(BARS.assign(**{name: names}), OPTIONS)
    check_one_series(BARS.assign(**{name: ["a"] * 30 + [None] * 30}))


def test_a_column_of_unknown_name_that_tells_repeated_times_apart_is_named():
    both = pd.concat([BARS.assign(kind="spot"), BARS.assign(kind="swap", volume=1.0)])
    with pytest.raises(DataError, match=r"2 values in column 'kind': spot \(60 rows\), swap"):
        bars_from_frame(both, ReadOptions("open", bad_rows="drop"))


def test_pieces_of_a_table_must_name_one_instrument():
    series = OneSeries()
    series.check(pd.DataFrame({"symbol": ["a", "a"]}))
    series.check(pd.DataFrame({"symbol": [None, None]}))
    with pytest.raises(DataError, match="2 symbols in column 'symbol'"):
        series.check(pd.DataFrame({"symbol": ["b"]}))


@pytest.mark.parametrize(
    "name",
    ["exchange", "tickerSymbol", "stock_symbol", "currency_pair", "ts_code", "instId", "RIC"],
)
def test_series_one_after_the_other_are_refused_by_any_usual_name(name):
    frame = pd.DataFrame({name: ["A"] * 3 + ["B"] * 3})
    with pytest.raises(DataError, match=rf"2 symbols in column '{name}': A \(3 rows\), B"):
        check_one_series(frame)


@pytest.mark.parametrize("name", ["asset_id", "securityId", "Coin ID", "contract_id"])
def test_numbers_of_instruments_are_symbols_and_those_of_trades_are_not(name):
    frame = pd.DataFrame({name: [1] * 3 + [2] * 3})
    with pytest.raises(DataError, match=rf"2 symbols in column '{name}': 1 \(3 rows\), 2"):
        check_one_series(frame)
    check_one_series(frame.set_axis(["trade_id"], axis=1))
    check_one_series(frame.set_axis(["id"], axis=1))


def test_a_number_that_tells_repeated_times_apart_is_named():
    stamps, rows = np.repeat(np.arange(5), 2), np.arange(10)
    frame = pd.DataFrame({"key": [10_001, 10_002] * 5, "close": np.linspace(1, 2, 10)})
    assert telling_column(frame, stamps, rows) == "key"
    assert telling_column(frame[["close"]], stamps, rows) is None
