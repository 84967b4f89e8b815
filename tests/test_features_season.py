"""`features.season`: the mean of a clock's hour, taken from log ranges and log volumes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.detector.detector import feature_table
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.features.build import build_features
from hmm_exp.features.lookbacks import build_lookbacks, lookback_table
from hmm_exp.features.recipe import Recipe
from hmm_exp.features.season import clock_hours, utc_offsets
from hmm_exp.market.options import ReadOptions
from hmm_exp.market.resample import resample
from tests.live_detector import SHORT, gappy_bars, part

ZONES = ["UTC", "Europe/Berlin", "US/Eastern", "Asia/Kolkata", "Australia/Lord_Howe"]
COLUMNS = [
    *("log_range_current_1H", "close_parkinson_5_1H", "log_volume_delta_current_1H"),
    *("log_range_current_4H", "log_volume_delta_current_4H"),
]
BERLIN = Recipe.of_columns(COLUMNS, **SHORT).by_hour("Europe/Berlin")


def raw_values(bars, timeframe):
    """Log range and change of log volume of the bars of a timeframe, by pandas."""
    binned = resample(bars, timeframe)
    frame = binned.frame
    neighbour = frame.index.to_series().diff() == binned.step
    log_volume = np.log1p(frame["volume"])
    return pd.DataFrame(
        {
            f"log_range_current_{timeframe}": np.log(np.log(frame["high"] / frame["low"])),
            f"log_volume_delta_current_{timeframe}": log_volume.diff().where(neighbour),
        }
    )


def adjusted_by_pandas(bars, timeframe, first, last, zone):
    """The same less their means by hour over the bars that end from `first` to `last`."""
    values = raw_values(bars, timeframe)
    hour = values.index.tz_convert(zone).hour
    train = (values.index >= first) & (values.index <= last)
    means = values[train].groupby(hour[train]).mean().reindex(range(24))
    return values - means.loc[hour].set_index(values.index)


@pytest.mark.parametrize("zone", ZONES)
def test_hours_are_those_of_the_zone_to_the_second(zone):
    random = np.random.default_rng(3)
    changes = utc_offsets(zone)[0][1:]
    near = np.concatenate([changes + shift for shift in (-(10**9), 0, 10**9)])
    times = np.concatenate([random.integers(-(2**60), 6 * 2**60, 5000), near])
    local = pd.DatetimeIndex(times.view("M8[ns]"), tz="UTC").tz_convert(zone)
    np.testing.assert_array_equal(clock_hours(times, zone), local.hour)
    assert len(changes) > 100 or zone in ("UTC", "Asia/Kolkata")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_columns_are_those_of_a_groupby_over_the_bars_of_their_timeframe(zone):
    bars = gappy_bars(2000, lost=0.1)
    recipe = replace(BERLIN, season=zone)
    table = build_features(bars, recipe)
    train = np.arange(len(table)) < 1200
    ours = table.less(table.hour_means(train)).frame
    for timeframe in ("1H", "4H"):
        ends = raw_values(bars, timeframe).index
        first = ends[ends <= table.available_at[0]][-1]  # the bar that the first row shows
        theirs = adjusted_by_pandas(bars, timeframe, first, table.available_at[1199], zone)
        rows = pd.DataFrame(index=table.available_at)
        theirs = pd.merge_asof(rows, theirs, left_index=True, right_index=True)
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-12)
    plain = "close_parkinson_5_1H"
    assert ours[plain].to_numpy().tobytes() == table.frame[plain].to_numpy().tobytes()


def test_a_coarse_bar_is_counted_once_however_many_rows_show_it():
    bars = gappy_bars(600, lost=0.4)
    table = build_features(bars, BERLIN)
    rows = np.ones(len(table), dtype=bool)
    place = BERLIN.columns.index("log_range_current_4H")
    means = table.hour_means(rows)[:, place]
    shown = table.frame.iloc[:, place].groupby(clock_hours(table.ends[:, 2], "Europe/Berlin"))
    assert set(shown.mean().index) == set(np.flatnonzero(np.isfinite(means)))
    assert not np.allclose(shown.mean(), means[np.isfinite(means)])  # rows weigh bars unevenly


def test_the_ends_are_those_of_the_last_complete_bar_also_after_gaps():
    table = build_features(gappy_bars(900, lost=0.3), BERLIN)
    behind = pd.to_timedelta(table.available_at.as_unit("ns").asi8 - table.ends[:, 3], unit="ns")
    assert (table.ends[:, 0] == table.available_at.as_unit("ns").asi8).all()
    assert (table.ends[:, 3] % (4 * 3600 * 10**9) == 0).all()
    assert behind.min() == pd.Timedelta(0)
    assert behind.max() > pd.Timedelta(hours=4)


def test_an_hour_without_a_train_bar_is_missing():
    table = build_features(gappy_bars(400, lost=0.0), BERLIN)
    hour = clock_hours(table.ends[:, 0], "Europe/Berlin")
    means = table.hour_means(hour != 9)
    adjusted = table.less(means)
    missing = np.isnan(adjusted.frame["log_range_current_1H"])
    np.testing.assert_array_equal(missing, hour == 9)
    assert adjusted.n_missing == table.n_missing + (hour == 9).sum()
    assert np.isnan(means[9]).tolist() == [True, False, True, False, False]


def test_later_bars_change_no_earlier_value():
    bars = gappy_bars(900)
    frame = bars.frame.copy()
    frame.loc[frame.index[600:], ["open", "high", "low", "close"]] *= 1.7
    frame.loc[frame.index[600:], "high"] *= 1.1
    frame.loc[frame.index[600:], "volume"] *= 3.0
    tables = [build_features(b, BERLIN) for b in (bars, replace(bars, frame=frame))]
    past = tables[0].available_at <= bars.frame.index[599]
    one, two = (table.less(table.hour_means(past)) for table in tables)
    assert one.X[past].tobytes() == two.X[past].tobytes()
    assert not np.array_equal(one.X[~past], two.X[~past], equal_nan=True)


def test_a_lookback_has_the_values_and_the_hours_of_the_batch():
    bars = gappy_bars(900, lost=0.2)
    table = build_features(bars, BERLIN)
    means = table.hour_means(np.arange(len(table)) < 500)
    for n_known in range(700, 720):
        known = part(bars, slice(n_known))
        lookback = lookback_table(build_lookbacks(known, ["1H", "4H"], hours=100), BERLIN)
        row = table.available_at.get_loc(lookback.available_at[-1])
        np.testing.assert_array_equal(lookback.less(means).X[-1], table.less(means).X[row])


def test_a_ready_table_of_one_timeframe_has_the_hours_of_its_rows(tmp_path):
    recipe = Recipe.of_set("range", ["1H"]).by_hour("Europe/Berlin")
    bars = gappy_bars(300)
    table = build_features(bars, recipe)
    rows = table.frame.assign(timestamp=table.timestamp)
    ready = feature_table(rows, recipe, bars.step, ReadOptions("open"))
    np.testing.assert_array_equal(ready.ends, table.ends)


def test_ready_rows_do_not_show_the_hour_of_a_coarser_bar():
    table = build_features(gappy_bars(300), BERLIN)
    rows = table.frame.assign(timestamp=table.timestamp)
    says = "ready rows of 1H do not show in which hour the bar of log_range_current_4H ended"
    with pytest.raises(DataError, match=says):
        feature_table(rows, BERLIN, pd.Timedelta("1h"), ReadOptions("open"))


def test_a_table_built_without_the_season_is_refused():
    bars = gappy_bars(300)
    means = (table := build_features(bars, BERLIN)).hour_means(np.ones(len(table), dtype=bool))
    with pytest.raises(DataError, match="built without a season: build them by the model's recipe"):
        build_features(bars, replace(BERLIN, season=None)).less(means)


def test_without_a_season_nothing_is_computed_or_named():
    table = build_features(gappy_bars(300), replace(BERLIN, season=None))
    means = table.hour_means(np.ones(len(table), dtype=bool))
    assert (means, table.ends, table.less(means) is table) == (None, None, True)
    assert "season" not in table.recipe.to_dict()
    assert table.recipe.titles == table.recipe.columns


@pytest.mark.parametrize("season", [None, "UTC", "US/Eastern"])
def test_a_recipe_survives_json_with_its_season(season):
    recipe = replace(BERLIN, season=season)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_only_log_ranges_and_log_volumes_have_a_season():
    assert [COLUMNS[place] for place in BERLIN.seasonal] == [COLUMNS[i] for i in (0, 2, 3, 4)]
    assert BERLIN.titles[:2] == ("log_range_current_1H less hour mean", "close_parkinson_5_1H")
    plain = Recipe.of_set("v2", ["1H", "1D"])
    assert plain.by_hour("UTC") == plain


@pytest.mark.parametrize(
    ("recipe", "season", "says"),
    [
        (Recipe.of_set("range", ["1D"]), "UTC", "log_range_current_1D is of bars of a day or long"),
        (Recipe.of_set("v1", ["1H", "2D"]), "UTC", r"exclude=\[log_volume_delta_current_2D\] or"),
        (Recipe.of_set("v2", ["1H"]), "UTC", "no column is a log range or a log volume"),
        (Recipe.of_set("range", ["1H"]), "Mars/Olympus", "data.timezone is 'Mars/Olympus'"),
    ],
)
def test_what_has_no_season_is_refused_in_one_line(recipe, season, says):
    with pytest.raises(ConfigError, match=says) as caught:
        replace(recipe, season=season)
    assert "\n" not in str(caught.value)
