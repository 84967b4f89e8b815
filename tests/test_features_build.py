"""Feature tables: the golden values, no look-ahead, lookbacks, gaps, warm-up, files."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.errors import ConfigError, DataError, HistoryError
from hmm_exp.features.build import build_features, ways_out
from hmm_exp.features.recipe import Recipe
from hmm_exp.market.load import read_bars
from hmm_exp.market.resample import resample
from hmm_exp.market.synthetic import make_market

TIMEFRAMES = ["1H", "4H", "12H", "1D"]
SHORT = {"window": 4, "vwap_hours": 96.0}  # windows that a small market fills
RECIPES = [Recipe.of_set("v1v2", [timeframe], **SHORT) for timeframe in TIMEFRAMES]
MULTI = Recipe.of_set("v1v2", TIMEFRAMES, **SHORT)
every_timeframe = pytest.mark.parametrize("recipe", [*RECIPES, MULTI], ids=[*TIMEFRAMES, "multi"])


@pytest.fixture(scope="module")
def market():
    """A market that begins in the middle of every coarser bar."""
    bars = make_market(n_bars=600, seed=3)
    return replace(bars, frame=bars.frame.iloc[7:], states=None)


def cut(bars, rows):
    """Bars at some positions."""
    return replace(bars, frame=bars.frame.iloc[rows])


def test_golden_table(shared_data):
    # The reference reads the file's stamps as closing times.
    bars = read_bars(shared_data / "BINANCE_BTCUSDT.P, 60.csv", bar_stamp="close")
    golden = pd.read_csv(shared_data / "golden_features.csv", index_col="timestamp")
    golden.index = pd.to_datetime(golden.index, utc=True)
    table = build_features(bars, Recipe.of_set("v1v2", TIMEFRAMES))
    assert sorted(golden.columns) == sorted(table.frame.columns)
    ours = table.frame.set_index(table.timestamp).loc[golden.index, golden.columns]
    assert len(ours) == 20
    assert np.abs(ours.to_numpy() - golden.to_numpy()).max() < 1e-10


@every_timeframe
def test_rewriting_the_future_changes_no_earlier_row(market, recipe):
    table = build_features(market, recipe)
    for kept in (400, 431, 500):
        frame = market.frame.copy()
        frame.iloc[kept:, 1:] *= 1.5
        other = build_features(replace(market, frame=frame), recipe)
        past = table.frame.index <= market.frame.index[kept - 1]
        assert 0 < past.sum() < len(table)
        assert other.X[past].tobytes() == table.X[past].tobytes()
        assert not np.array_equal(other.X, table.X)


@every_timeframe
def test_truncating_the_future_changes_no_earlier_row(market, recipe):
    table = build_features(market, recipe)
    for kept in (400, 431, 500):
        short = build_features(cut(market, slice(kept)), recipe)
        past = table.frame.index <= market.frame.index[kept - 1]
        assert short.frame.index.equals(table.frame.index[past])
        assert short.X.tobytes() == table.X[past].tobytes()
        assert np.array_equal(short.steps, table.steps[past])


@every_timeframe
def test_a_value_from_its_lookback_is_the_value_of_the_batch(market, recipe):
    table = build_features(market, recipe)
    warmup = recipe.warmup(market.step)
    place = market.frame.index.get_indexer(table.frame.index)
    checked = 0
    for row, bar in enumerate(place):
        if bar < warmup or row % 5:
            continue
        lookback = build_features(cut(market, slice(bar - warmup, bar + 1)), recipe)
        assert lookback.frame.index[-1] == table.frame.index[row]
        np.testing.assert_allclose(lookback.X[-1], table.X[row], rtol=1e-12, atol=1e-12)
        checked += 1
    assert checked >= 3


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(0, 47),
    timeframes=st.sets(st.sampled_from(["1H", "2H", "3H", "4H", "6H"]), min_size=1).map(sorted),
)
def test_warmup_and_one_bar_are_always_enough(start, timeframes):
    recipe = Recipe.of_set("v1v2", timeframes, window=3, vwap_hours=18.0)
    bars = make_market(n_bars=120, seed=3)
    needed = recipe.warmup(bars.step) + 1
    assert len(build_features(cut(bars, slice(start, start + needed)), recipe))


def test_fewer_bars_than_windows_say_how_many_are_needed(market):
    recipe = Recipe.of_set("v1", ["1H"], window=20)
    with pytest.raises(HistoryError, match=r"19 bars of 1H, .* are too few .* of 1H: 20 are"):
        build_features(cut(market, slice(19)), recipe)
    assert len(build_features(cut(market, slice(20)), recipe)) == 1
    with pytest.raises(HistoryError, match=r"2 bars of 1H, .* too few .* 503 are needed"):
        build_features(cut(market, slice(2)), Recipe.of_set("v1", ["1H", "1D"]))


@pytest.mark.parametrize(
    ("features", "decide"),
    [
        ("returns", "timeframe decide"),
        ("v1", "features.window, timeframe decide"),
        ("v2", "features.window, features.vwap_hours, timeframe decide"),
    ],
)
def test_too_few_bars_name_the_settings_that_decide_and_no_other(market, features, decide):
    with pytest.raises(HistoryError) as caught:
        build_features(cut(market, slice(1)), Recipe.of_set(features, ["1H"]))
    assert str(caught.value).endswith(f"data.timestamp_column; else {decide}")


def test_a_row_holds_the_last_complete_bar_of_every_timeframe(market):
    table = build_features(market, MULTI)
    assert table.recipe.grid == "1H"
    for timeframe in TIMEFRAMES:
        bars = resample(market, timeframe).frame
        returns = np.log(bars["close"]).diff()
        expected = returns.reindex(table.frame.index, method="ffill")
        ours = table.frame[f"close_logret_current_{timeframe}"]
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-15)


def test_rows_of_a_coarser_timeframe_carry_its_stamps(market):
    table = build_features(market, Recipe.of_set("v1", ["4H"], **SHORT))
    assert (table.frame.index.hour % 4 == 0).all()
    assert (table.timestamp + pd.Timedelta(hours=4) == table.frame.index).all()
    closing = replace(market, stamp="close")
    assert (build_features(closing, table.recipe).timestamp == table.frame.index).all()


def test_a_first_bin_that_began_before_the_data_is_left_out(market):
    recipe = Recipe.of_columns(["high_low_range_pct_current_4H"])
    began = build_features(market, recipe).frame.index[0] - pd.Timedelta(hours=4)
    assert began >= market.frame.index[0] - market.step
    assert began - pd.Timedelta(hours=4) < market.frame.index[0] - market.step


def test_warmup_rows_are_counted_and_the_first_row_is_complete(market):
    table = build_features(market, RECIPES[0])
    assert table.warmup_rows == 95
    assert table.warmup_rows + len(table) == len(market)
    assert table.n_missing == 0
    assert table.steps.tolist() == [0] + [1] * (len(table) - 1)
    assert list(table.frame.columns) == list(RECIPES[0].columns)


def test_a_gap_makes_a_missing_row_that_stays_in_the_table(market):
    keep = np.r_[0:300, 303:450, 490:593]
    table = build_features(cut(market, keep), RECIPES[0])
    after = [table.frame.index.get_loc(market.frame.index[place]) for place in (303, 490)]
    assert np.flatnonzero(np.isnan(table.X).any(axis=1)).tolist() == after
    assert table.n_missing == 2
    assert table.steps[after].tolist() == [4, 0]  # more than 24 missing bars start anew
    assert len(table) + table.warmup_rows == len(keep)


def test_a_session_market_has_no_missing_rows(market):
    sessions = replace(cut(market, np.r_[0:300, 303:450, 490:593]), gaps="bridge")
    table = build_features(sessions, RECIPES[0])
    assert table.n_missing == 0
    assert (table.steps[1:] == 1).all()


def test_a_price_that_never_changes_is_said_to_be_that(market):
    bars = replace(market, frame=market.frame.assign(open=5.0, high=5.0, low=5.0, close=5.0))
    for columns in (["close_logret_current_1H"], ["high_low_range_pct_current_1H"]):
        recipe = Recipe.of_columns(columns, 4, 96.0)
        used = " and ".join(sorted(recipe.uses(columns[0])))
        same = f"{used} never change in {len(bars):,} bars"
        assert ways_out(columns, recipe, bars) == f"{columns[0]}; {same}"
        assert "never change" not in ways_out(columns, recipe, market)
        advice = f"use another feature set than {columns[0]} (a table with others)"
        assert ways_out(columns, recipe, None) == advice


def test_volume_that_never_is_leaves_no_row_and_names_the_ways_out(market):
    frame = market.frame.assign(volume=0.0)
    columns = "volume_rvol_4_1H,close_over_vwap_1H,close_log_ratio_vwap_1H"
    with pytest.raises(DataError) as caught:
        build_features(replace(market, frame=frame), RECIPES[0])
    assert str(caught.value) == (
        f"no value on any of 593 rows: features.exclude=[{columns}] leaves them out, "
        "data.volume_column=NAME reads another volume than 'volume'"
    )


def test_volume_that_seldom_is_names_the_column_that_is_missing_most(market):
    """Volume is there only while the price stands still, and then there is no z-score."""
    bars = cut(market, slice(0, 400))
    place = np.arange(400) % 20
    names = ["open", "high", "low", "close"]
    prices = bars.frame[names].mask(pd.Series(place >= 10, bars.frame.index), 100.0)
    frame = bars.frame.assign(**prices, volume=np.where((place >= 14) & (place < 17), 1.0, 0.0))
    recipe = Recipe.of_columns(["close_ret_zscore_4_1H", "close_over_vwap_1H"], 4, 4.0)
    with pytest.raises(DataError) as caught:
        build_features(replace(bars, frame=frame), recipe)
    assert re.fullmatch(
        r"none of 400 rows has every feature, 2\d\d lack close_over_vwap_1H: features.exclude="
        r"\[close_over_vwap_1H\] leaves it out, data.volume_column=NAME reads .* than 'volume'",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("others", "advice"),
    [
        ([], "data.volume_column=NAME"),
        (["ticks"], "data.volume_column=ticks"),
        (["<TICKVOL>"], """data.volume_column='<TICKVOL>'"""),
        (["a", "b", "c", "d"], "data.volume_column=a (or b, c)"),
    ],
)
def test_advice_on_the_volume_names_the_columns_that_the_file_has(market, others, advice):
    bars = replace(market, report={"columns": {"volume": "Vol"}, "other_volumes": others})
    recipe = Recipe.of_set("v1v2", ["1H"])
    assert ways_out(["close_over_vwap_1H"], recipe, bars) == (
        f"features.exclude=[close_over_vwap_1H] leaves it out, {advice} reads another volume than "
        "'Vol'"
    )
    for column in ("high_low_range_pct_current_1H", "close_parkinson_20_1H"):
        assert "data.volume_column" not in ways_out([column], recipe, bars)
    assert "data.volume_column" not in ways_out(["volume_rvol_20_1H"], recipe, None)


def test_a_timeframe_finer_than_the_bars_is_refused(market):
    with pytest.raises(ConfigError, match="15min"):
        build_features(market, Recipe.of_set("v1", ["15min", "1H"]))


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_written_table_keeps_every_bit_and_leaves_no_other_file(market, tmp_path, name):
    table = build_features(cut(market, np.r_[0:300, 303:593]), MULTI)
    table.write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    read = pyarrow.csv.read_csv if name.endswith(".csv") else pyarrow.parquet.read_table
    back = read(tmp_path / name).to_pandas()
    assert list(back.columns) == ["timestamp", *MULTI.columns]
    stamps = pd.to_datetime(back["timestamp"], utc=True)
    assert (stamps.array == table.timestamp.array).all()
    np.testing.assert_array_equal(back[list(MULTI.columns)].to_numpy(), table.X)
    assert table.n_missing > 0


def test_a_table_that_cannot_be_written_is_refused(market, tmp_path):
    table = build_features(market, RECIPES[0])
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        table.write(tmp_path / "table.xlsx")
    with pytest.raises(ConfigError, match="does not exist"):
        table.write(tmp_path / "nowhere" / "table.csv")
    assert list(tmp_path.iterdir()) == []
