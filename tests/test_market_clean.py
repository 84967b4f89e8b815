"""Normalised, refused, dropped: what happens to every kind of row."""

import shlex

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exp.errors import ConfigError, DataError
from hmm_exp.market.bars import bars_digest
from hmm_exp.market.clean import bars_from_frame
from hmm_exp.market.gaps import chain_steps
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.synthetic import make_market

HOUR = 3_600_000_000_000


@pytest.fixture
def frame():
    """Ten good hours from 2024-03-31, stamped at the open."""
    market = make_market(10).frame.reset_index(drop=True)
    market["timestamp"] = pd.date_range("2024-03-31", periods=10, freq="h", tz="UTC")
    return market


def same(bars, expected):
    pd.testing.assert_frame_equal(bars.frame, expected.frame)


def test_lossless_differences_of_form_give_the_same_bars(frame):
    expected = bars_from_frame(frame, ReadOptions("open"))
    same(bars_from_frame(frame[::-1], ReadOptions("open")), expected)
    same(bars_from_frame(frame.sample(frac=1, random_state=0), ReadOptions("open")), expected)
    same(bars_from_frame(pd.concat([frame, frame[3:5]]), ReadOptions("open")), expected)
    same(bars_from_frame(frame.rename(columns=str.upper), ReadOptions("open")), expected)
    same(bars_from_frame(frame.set_index("timestamp"), ReadOptions("open")), expected)
    same(bars_from_frame(frame.astype(str), ReadOptions("open")), expected)
    same(bars_from_frame(expected.frame, ReadOptions("open")), expected)


def test_what_was_normalised_is_reported(frame):
    bars = bars_from_frame(pd.concat([frame, frame[3:5]])[::-1], ReadOptions("open"))
    assert "2 exact duplicate rows removed" in bars.report["normalised"]
    assert "1 step back in time: rows sorted" not in bars.report["normalised"]
    assert (bars.report["rows_read"], bars.report["rows_used"]) == (12, 10)


@pytest.mark.parametrize(("n_quiet", "share"), [(0, None), (5, None), (6, "6.0%"), (40, "40.0%")])
def test_many_bars_without_a_range_are_a_warning(n_quiet, share):
    frame = make_market(n_bars=100, seed=1).frame.reset_index(drop=True)
    for price in ("open", "high", "low"):
        frame.loc[: n_quiet - 1, price] = frame.loc[: n_quiet - 1, "close"]
    warnings = bars_from_frame(frame, ReadOptions("open")).report["warnings"]
    expected = [f"high equals low on {n_quiet} of 100 bars ({share})"] if share else []
    assert [warning.split(":")[0] for warning in warnings] == expected
    needs = ("close", "volume")
    assert bars_from_frame(frame, ReadOptions("open"), needs=needs).report["warnings"] == []


BAD = [
    ("open", "abc", r"1 row with text .*, first open=abc at 2024-03-31T02:00:00Z"),
    (
        "close",
        None,
        r"1 row with a missing or infinite number, .* at 2024-03-31T02:00:00Z",
    ),
    ("volume", np.inf, r"1 row with a missing or infinite number, first volume=inf"),
    ("low", 0.0, r"1 row with a zero or negative price, first low=0.0"),
    ("low", -3.0, r"1 row with a zero or negative price, first low=-3.0"),
    ("high", 1.0, r"1 row with high below low, first high=1.0"),
    ("close", 1.0, r"1 row with open or close outside low..high, first close=1.0"),
    ("volume", -1.0, r"1 row with a negative volume, first volume=-1.0"),
    ("timestamp", "soon", r"1 unreadable timestamp, first 'soon' in data row 3"),
    ("timestamp", None, r"1 unreadable timestamp, first .* in data row 3"),
]


@pytest.mark.parametrize(("column", "value", "line"), BAD)
def test_a_bad_row_is_an_error_or_dropped_and_counted(frame, column, value, line):
    frame[column] = frame[column].astype(object)
    frame.loc[2, column] = value
    with pytest.raises(DataError, match=rf"^{line}.*; data.bad_rows=drop leaves them out$"):
        bars_from_frame(frame, ReadOptions("open"))
    bars = bars_from_frame(frame, ReadOptions("open", bad_rows="drop"))
    same(bars, bars_from_frame(frame.drop(index=2).infer_objects(), ReadOptions("open")))
    assert sum(bars.report["dropped"].values()) == 1
    assert bars.report["gaps"]["missing_bars"] == 1


@pytest.mark.parametrize("text", ["$101.50", "101,50", "about 101"])
def test_leaving_out_every_row_is_no_advice(frame, text):
    frame["high"] = text
    line = (
        "10 rows with text instead of a number, first high=.*Z; that is every row: "
        "write numbers as 1234.5, without a currency or unit, thousands unmarked"
    )
    with pytest.raises(DataError, match=f"^{line}$"):
        bars_from_frame(frame, ReadOptions("open"))


def test_several_kinds_of_bad_rows_stand_in_one_line_each_row_under_one(frame):
    frame.loc[[1, 2], "low"] = -1.0
    frame.loc[[2, 4], "volume"] = -1.0
    with pytest.raises(DataError, match=r"^2 rows .*T01:00:00Z, 1 row with a negative vol"):
        bars_from_frame(frame, ReadOptions("open"))


def test_conflicting_stamps_are_an_error_or_the_last_stays(frame):
    other = frame[2:5].assign(volume=[1.0, 2.0, 3.0])
    both = pd.concat([frame, other])
    line = (
        "3 conflicting duplicate timestamps, first 2024-03-31T02:00:00Z; "
        "data.bad_rows=drop keeps the last"
    )
    with pytest.raises(DataError, match=f"^{line}$"):
        bars_from_frame(both, ReadOptions("open"))
    bars = bars_from_frame(both, ReadOptions("open", bad_rows="drop"))
    np.testing.assert_array_equal(bars.frame["volume"].iloc[2:5], [1.0, 2.0, 3.0])
    assert bars.report["dropped"] == {"conflicting duplicate timestamp": 3}


def test_zero_volume_and_flat_bars_are_legal(frame):
    frame["volume"] = 0.0
    frame[["open", "high", "low"]] = frame[["close"]].to_numpy().repeat(3, axis=1)
    report = bars_from_frame(frame, ReadOptions("open")).report
    assert (report["zero_volume_bars"], report["flat_bars"]) == (10, 10)


def test_close_stamped_bars_are_available_at_their_stamp(frame):
    bars = bars_from_frame(frame, ReadOptions("close"))
    assert list(bars.frame.index) == list(bars.frame["timestamp"])


def test_the_length_of_a_bar_is_inferred_given_or_refused(frame):
    assert bars_from_frame(frame.drop(index=[2, 5]), ReadOptions("open")).step.seconds == 3600
    one = bars_from_frame(frame[:1], ReadOptions("open"), step=pd.Timedelta(hours=1))
    assert len(one) == 1
    with pytest.raises(DataError, match="too few rows: 1, at least 2 needed"):
        bars_from_frame(frame[:1], ReadOptions("open"))
    with pytest.raises(DataError, match="bars come every 4H: bars of 1H are expected"):
        bars_from_frame(frame[::4], ReadOptions("open"), step=pd.Timedelta(hours=1))


def test_dropping_everything_says_so(frame):
    with pytest.raises(DataError, match="too few rows: 0 of 10, 10 dropped, at least 2 needed"):
        bars_from_frame(frame.assign(open="x"), ReadOptions("open", bad_rows="drop"))


def test_a_frame_that_was_given_is_left_as_it_was(frame):
    before = frame.copy()
    bars_from_frame(frame[::-1], ReadOptions("open"))
    pd.testing.assert_frame_equal(frame, before)


def test_an_unknown_way_with_gaps_names_the_option(frame):
    with pytest.raises(ConfigError, match=r"data.gaps is 'fill': choose split or bridge"):
        bars_from_frame(frame, ReadOptions("open", gaps="fill"))


def test_the_digest_tells_values_stamps_and_names_apart(frame):
    def digest(table, name="bars", **options):
        options = ReadOptions(**{"bar_stamp": "open"} | options)
        return bars_digest(bars_from_frame(table, options, name=name))

    assert digest(frame) == digest(frame[::-1])
    others = {
        digest(frame),
        digest(frame, bar_stamp="close"),
        digest(frame, gaps="bridge"),
        digest(frame, name="other"),
        digest(frame.assign(volume=1.0)),
    }
    assert len(others) == 5


def test_chain_steps_count_missing_bars_and_restart_after_more_than_a_day_of_them():
    hours = np.array([0, 1, 4, 29, 55, 56])  # 2, 24 and 25 missing
    assert chain_steps(hours * HOUR, HOUR, "split").tolist() == [0, 1, 3, 25, 0, 1]
    assert chain_steps(hours * HOUR, HOUR, "bridge").tolist() == [0, 1, 1, 1, 1, 1]
    assert chain_steps(hours[:0], HOUR, "split").tolist() == []


@given(st.lists(st.integers(1, 40), max_size=30))
def test_chain_steps_agree_with_counting_by_hand(passed):
    time = np.cumsum([0, *passed]) * HOUR
    expected = [0] + [0 if n - 1 > 24 else n for n in passed]
    assert chain_steps(time, HOUR, "split").tolist() == expected


# --- columns that no feature uses


def test_columns_that_are_not_needed_may_be_absent_or_bad_and_are_counted(frame):
    closes = frame[["timestamp", "close"]]
    bars = bars_from_frame(closes, ReadOptions("open"), needs=("close",))
    np.testing.assert_array_equal(bars.frame["close"], frame["close"])
    assert bars.frame[["open", "high", "low", "volume"]].isna().all(axis=None)
    frame.loc[2, "open"] = -1.0
    frame.loc[3, "volume"] = np.inf
    bars = bars_from_frame(frame, ReadOptions("open"), needs=("high", "low", "close"))
    assert bars.report["unused"] == {"open": 1, "volume": 1}
    assert bars.report["warnings"] == [
        "1 bad value of open, which no feature uses",
        "1 bad value of volume, which no feature uses",
    ]
    assert bars.frame["open"].isna().sum() == 1


@pytest.mark.parametrize(
    ("column", "value", "needs"),
    [
        ("open", 1e9, ("high", "low", "close")),  # one of the two is wrong, and high is used
        ("close", 1e9, ("close",)),
        ("high", 1e-9, ("high", "close")),
        ("close", None, ("close",)),
    ],
)
def test_a_value_that_contradicts_a_needed_one_is_refused(frame, column, value, needs):
    frame.loc[2, column] = value
    with pytest.raises(DataError, match="1 row with"):
        bars_from_frame(frame, ReadOptions("open"), needs=needs)


def test_a_needed_column_that_is_absent_is_named(frame):
    with pytest.raises(DataError, match="no column named high; there are"):
        bars_from_frame(frame.drop(columns="high"), ReadOptions("open"), needs=("high", "close"))
    with pytest.raises(DataError, match="no column named volume"):
        bars_from_frame(frame.drop(columns="volume"), ReadOptions("open"), needs=("volume",))


def test_of_conflicting_rows_in_a_newest_first_table_the_upper_one_stays_and_is_named(frame):
    both = pd.concat([frame, frame[4:5].assign(volume=7.0)]).sort_values("timestamp")[::-1]
    with pytest.raises(DataError, match=r"drop keeps the upper one \(newest first\)$"):
        bars_from_frame(both, ReadOptions("open"))
    bars = bars_from_frame(both, ReadOptions("open", bad_rows="drop"))
    upper = both[both["timestamp"].duplicated(keep=False)].iloc[0]
    assert bars.frame["volume"].iloc[4] == upper["volume"]


def test_a_volume_of_zero_names_the_columns_that_hold_ticks(frame):
    told = bars_from_frame(frame.assign(volume=0, TICKVOL=5), ReadOptions("open")).report
    assert told["other_volumes"] == ["TICKVOL"]
    assert told["warnings"] == [
        "the volume 'volume' is 0 on every bar, 'TICKVOL' is not: data.volume_column=TICKVOL reads "
        "that"
    ]
    assert bars_from_frame(frame.assign(TICKVOL=5), ReadOptions("open")).report["warnings"] == []


IDLE, TICKS = np.where(np.arange(200) == 50, 3.0, 0.0), np.arange(200.0)


@pytest.mark.parametrize(
    ("volume", "other", "is_named"),
    [
        (IDLE, {"tick_volume": TICKS}, True),
        (np.ones(200), {"<TICKVOL>": TICKS}, True),
        (np.zeros(200), {"trades": np.full(200, 7)}, True),
        (np.ones(200), {"tick_volume": np.full(200, 7)}, False),
        (IDLE, {"tick_volume": IDLE}, False),
        (IDLE, {"spread": TICKS}, False),
        (np.where(TICKS < 100, 0.0, TICKS), {"tick_volume": TICKS}, False),
    ],
)
def test_a_volume_of_one_value_on_nearly_every_bar_names_a_livelier_column(volume, other, is_named):
    market = make_market(200).frame.assign(volume=volume, **other)
    warnings = bars_from_frame(market, ReadOptions("open")).report["warnings"]
    option = f"data.volume_column={shlex.quote(next(iter(other)))} reads that"
    assert [warning.endswith(option) for warning in warnings] == [True] * is_named
