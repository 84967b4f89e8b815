"""From files and settings to the rows of a run: what is read, and what is refused before a fit."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import DataConfig, FeaturesConfig, checked
from hmm_exp.errors import ConfigError, DataError, FitError, HmmExpError
from hmm_exp.experiment.prepare import _check_scale, prepare
from hmm_exp.experiment.run import run
from hmm_exp.judge.split import TRAIN


def edited(config, path, **changes):
    """The small config on a file, with settings changed by dotted names."""
    config.data = replace(config.data, kind="bars", path=str(path), name=None)
    for dotted, value in changes.items():
        group, name = dotted.split("__")
        setattr(getattr(config, group), name, value)
    return config


def rewrite(path, row, column, value):
    frame = pd.read_csv(path).astype({column: object})
    frame.loc[row, column] = value
    frame.to_csv(path, index=False)


def test_scaler_sees_train_rows_only(small_config, bars_csv):
    before = prepare(edited(small_config, bars_csv))
    frame = pd.read_csv(bars_csv)
    last_train = int((before.target_part == TRAIN).sum())
    frame.loc[last_train + 1 :, ["open", "high", "low", "close"]] *= 3.0
    frame.loc[last_train + 1 :, "volume"] *= 50.0
    frame.to_csv(bars_csv, index=False)
    after = prepare(edited(small_config, bars_csv))
    np.testing.assert_array_equal(before.scaler.mean_, after.scaler.mean_)
    np.testing.assert_array_equal(before.scaler.scale_, after.scaler.scale_)
    complete = before.table.frame[before.train].to_numpy()
    np.testing.assert_allclose(before.scaler.mean_, complete.mean(axis=0))


def test_features_table_gives_the_same_run_as_its_bars(small_config, bars_csv, tmp_path):
    from_bars = run(prepare(edited(small_config, bars_csv)))
    table = tmp_path / "v1.csv"
    from_bars.prepared.table.write(table)
    small_config.data = replace(small_config.data, kind="features", path=str(table))
    from_table = run(prepare(small_config))
    # The table lacks the warm-up rows, so that its split instants lie a little later.
    assert from_table.metrics["bic"] == pytest.approx(from_bars.metrics["bic"], rel=0.05)
    assert from_table.metrics["return_gain_val"] == pytest.approx(
        from_bars.metrics["return_gain_val"], abs=0.05
    )
    lookback = pd.read_csv(table).tail(400)
    answer = from_table.detector.filter(lookback)
    assert answer["state"].iloc[-1] == from_table.regimes["state"].iloc[-1]


@pytest.fixture
def gappy_table(small_config, bars_csv, tmp_path):
    """A ready table of two timeframes with ten rows cut out; its settings to train on it."""
    config = edited(small_config, bars_csv, timeframe__timeframes=["1H", "4H"])
    table = prepare(config).table
    frame = table.frame.assign(timestamp=table.timestamp.dt.tz_localize(None).to_numpy())
    path = tmp_path / "v1.csv"
    frame.drop(frame.index[300:310]).to_csv(path, index=False)
    config.data = replace(config.data, kind="features", path=str(path))
    return config


def test_no_return_is_scored_across_a_gap_of_a_features_table(gappy_table):
    prepared = prepare(gappy_table)
    missing = np.flatnonzero(np.isnan(prepared.source.log_return))
    np.testing.assert_array_equal(missing, [0, 300])
    assert prepared.source.report["gaps"]["missing_bars"] == 10
    assert np.isnan(run(prepared).assessment.scores["model_score"].iloc[299])


def test_rows_finer_than_the_columns_in_use_are_refused(gappy_table):
    gappy_table.features.include = ["*_4H"]
    with pytest.raises(DataError, match=r"rows come every 1H .* is of 4H: keep a column"):
        prepare(gappy_table)


def test_bad_rows_of_a_features_table_are_dropped_when_asked(gappy_table):
    frame = pd.read_csv(gappy_table.data.path).astype({"close_parkinson_20_1H": object})
    frame.loc[5, "close_parkinson_20_1H"] = "n/a!"
    frame.to_csv(gappy_table.data.path, index=False)
    with pytest.raises(DataError, match=r"data.bad_rows=drop"):
        prepare(gappy_table)
    gappy_table.data = replace(gappy_table.data, bad_rows="drop")
    assert sum(prepare(gappy_table).source.report["dropped"].values()) == 1


def test_the_fingerprint_is_that_of_the_content_wherever_the_file_lies(
    small_config, bars_csv, tmp_path
):
    config = edited(small_config, bars_csv)
    config.data = replace(config.data, name="BTC")
    before = prepare(config).fingerprint
    moved = tmp_path / "elsewhere.csv"
    bars_csv.rename(moved)
    config.data = replace(config.data, path=str(moved))
    config.model = replace(config.model, n_states=None, state_grid=[3])
    assert prepare(config).fingerprint == before
    config.model = replace(config.model, state_grid=[2, 3])
    assert prepare(config).fingerprint != before


def test_a_features_table_without_returns_has_no_yardstick(small_config, bars_csv, tmp_path):
    table = prepare(edited(small_config, bars_csv)).table
    path = tmp_path / "volatility.csv"
    frame = table.frame.drop(columns="close_logret_current_1H")
    frame.insert(0, "timestamp", table.timestamp.to_numpy())
    frame.to_csv(path, index=False)
    small_config.data = replace(small_config.data, kind="features", path=str(path))
    small_config.features.name = "columns"
    outcome = run(prepare(small_config))
    assert not [name for name in outcome.metrics if "gain" in name]
    assert outcome.assessment.scores is None


def test_a_calendar_is_in_the_report_and_changes_no_result(small_config, bars_csv):
    pytest.importorskip("exchange_calendars", reason="the extra calendar is not installed")
    plain = prepare(edited(small_config, bars_csv))
    known = prepare(edited(small_config, bars_csv, data__calendar="24/7"))
    assert known.fingerprint == plain.fingerprint
    assert known.source.report["calendar"] | {"calendar": ""} == {
        **{"calendar": "", "closed": 0, "outages": 0, "missing": 0, "unit": "bar"},
        **{"first_outages": [], "outside": 0},
    }


def test_the_synthetic_market_takes_no_calendar(small_config):
    small_config.data.calendar = "XETR"
    with pytest.raises(ConfigError, match=r"data\.calendar=XETR with data=synthetic"):
        checked(small_config)


@pytest.mark.parametrize(
    ("row", "column", "value", "says"),
    [
        (7, "close", "n/a!", "text"),
        (7, "close", "", "data.bad_rows=drop"),
        (7, "close", 0.0, "data.bad_rows=drop"),
        (7, "low", -5.0, "data.bad_rows=drop"),
        (7, "high", 1e-9, "data.bad_rows=drop"),
        (7, "volume", -1.0, "data.bad_rows=drop"),
        (8, "timestamp", "2021-01-01 07:00:00", "data.bad_rows=drop keeps the last"),
    ],
)
def test_a_bad_bar_is_one_line_with_its_place_and_option(
    small_config, bars_csv, row, column, value, says
):
    rewrite(bars_csv, row, column, value)
    with pytest.raises(DataError) as error:
        prepare(edited(small_config, bars_csv))
    message = str(error.value)
    assert says in message
    assert "2021-01-01" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"data__path": "nowhere.csv"}, DataError, "nowhere.csv"),
        ({"data__volume_column": "turnover"}, HmmExpError, "turnover"),
        ({"features__window": 5000}, DataError, "5,000 are needed"),
        ({"model__n_states": None, "model__state_grid": [2, 51]}, ConfigError, "at most 50"),
        ({"timeframe__timeframes": ["7X"]}, ConfigError, "unknown timeframe '7X'"),
        ({"timeframe__timeframes": ["30min"]}, ConfigError, "30min"),
        ({"features__name": "v9"}, ConfigError, "unknown feature set 'v9'"),
        (
            {"features__name": "columns", "features__columns": ["close_logret_curent_1H"]},
            ConfigError,
            "close_logret_current_1H",
        ),
    ],
)
def test_bad_settings_for_the_data_are_one_line_before_any_fit(
    small_config, bars_csv, changes, error, says
):
    with pytest.raises(error, match=says) as caught:
        prepare(checked(edited(small_config, bars_csv, **changes)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factor", "outlier", "says"),
    [
        (1.0, 1e150, "f: beside 1e.150 its other values are as good as equal: remove that row"),
        (1.0, -1e9, "f: beside -1e.09 its other values"),
        (1e200, None, "f: values up to .*e[+]200 have no finite variance: rescale it"),
        (1e-200, None, "f: values up to .*e-200 have no finite variance: rescale it"),
        (1.0, 1e3, None),
        (1e-100, None, None),
    ],
)
def test_a_column_whose_differences_a_scaler_would_lose_is_named(factor, outlier, says):
    values = factor * np.random.default_rng(0).normal(size=2000)
    if outlier:
        values[1000] = outlier
    if says is None:
        _check_scale("f", values)
        return
    with pytest.raises(FitError, match=says):
        _check_scale("f", values)


def test_a_column_of_few_values_is_no_outlier():
    _check_scale("f", np.r_[np.zeros(1999), 1.0])
    _check_scale("f", np.tile([1.0, 2.0], 500))


def test_a_constant_feature_is_named(small_config, bars_csv):
    frame = pd.read_csv(bars_csv)
    frame["volume"] = 1.0
    frame.to_csv(bars_csv, index=False)
    with pytest.raises(FitError) as caught:
        prepare(edited(small_config, bars_csv, features__name="v1v2"))
    names = "log_volume_delta_current_1H,volume_rvol_20_1H"
    assert re.fullmatch(
        rf"constant on all \d+ train rows: features.exclude=\[{names}\] leaves them out, "
        "data.volume_column=NAME reads another volume than 'volume'",
        str(caught.value),
    )


def test_a_constant_column_of_a_ready_table_can_only_be_left_out(small_config, bars_csv, tmp_path):
    table = prepare(edited(small_config, bars_csv)).table
    frame = table.frame.assign(log_volume_delta_current_1H=0.0)
    frame.insert(0, "timestamp", table.timestamp.to_numpy())
    frame.to_csv(tmp_path / "t.csv", index=False)
    config = edited(small_config, tmp_path / "t.csv")
    config.data.kind = "features"
    with pytest.raises(FitError, match=r"_1H\] leaves it out$"):
        prepare(config)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"split__train": 0.001, "split__val": 0.4995, "split__test": 0.4995}, r"\(split.train\)"),
        (
            {
                "split__kind": "dates",
                "split__train_end": "2021-01-01 03:00",
                "split__val_end": "2021-03-01",
            },
            r"\(split.train_end\)",
        ),
    ],
)
def test_too_few_train_rows_name_what_ends_train(small_config, bars_csv, changes, says):
    rows = "0 complete train rows of 1H.*"
    help_ = f"a later end of train {says}, a smaller features.window$"
    with pytest.raises(DataError, match=rows + help_):
        prepare(edited(small_config, bars_csv, **changes))


def test_more_states_than_distinct_rows_is_refused(small_config, bars_csv):
    pd.read_csv(bars_csv).head(40).to_csv(bars_csv, index=False)
    config = edited(small_config, bars_csv, model__n_states=20)
    with pytest.raises(FitError, match=r"20 states from 9 distinct train rows: .*model.n_states"):
        prepare(config)
    config.model = replace(config.model, n_states=None, state_grid=[2, 20])
    with pytest.raises(FitError, match=r"20 states from 9 distinct train rows: .*model.state_grid"):
        prepare(config)


def test_the_base_timeframe_is_that_of_the_bars(small_config, bars_csv):
    hourly = prepare(edited(small_config, bars_csv))
    base = prepare(edited(small_config, bars_csv, timeframe__timeframes=["base"]))
    assert base.observation_space == hourly.observation_space
    np.testing.assert_array_equal(base.X, hourly.X)
    daily = pd.read_csv(bars_csv)
    daily["timestamp"] = pd.date_range("2015-01-01", periods=len(daily))
    daily.to_csv(bars_csv, index=False)
    daily = prepare(edited(small_config, bars_csv, timeframe__timeframes=["base"]))
    assert daily.timeframe == "1D"


def test_the_base_timeframe_may_be_shorter_than_an_hour_with_a_window_as_short(
    small_config, bars_csv
):
    frame = pd.read_csv(bars_csv)
    frame["timestamp"] = pd.date_range("2024-02-28", periods=len(frame), freq="45min")
    frame.to_csv(bars_csv, index=False)
    changes = {"features__name": "v2", "features__vwap_hours": 0.75}
    ready = prepare(edited(small_config, bars_csv, timeframe__timeframes=["base"], **changes))
    named = prepare(edited(small_config, bars_csv, timeframe__timeframes=["45min"], **changes))
    np.testing.assert_array_equal(ready.X, named.X)


def test_bars_of_half_a_minute_have_no_base_timeframe(small_config, bars_csv):
    frame = pd.read_csv(bars_csv)
    frame["timestamp"] = pd.date_range("2024-01-01", periods=len(frame), freq="30s")
    frame.to_csv(bars_csv, index=False)
    with pytest.raises(
        ConfigError, match="timeframe=base: bars of 30 s: a timeframe is whole minutes"
    ):
        prepare(edited(small_config, bars_csv, timeframe__timeframes=["base"]))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (["log_range_current_1H"], "has close_logret_current_1H, log_volume_delta_current_1H, "),
        (["alpha"], "'alpha': a name is that of a feature and a timeframe, such as close_park"),
    ],
)
def test_columns_that_a_ready_table_lacks_or_nobody_knows_are_named(
    small_config, tmp_path, columns, says
):
    table = prepare(checked(small_config)).table
    times = table.timestamp.dt.tz_localize(None)
    frame = table.frame.assign(timestamp=times, alpha=1.0)
    frame.to_csv(tmp_path / "table.csv", index=False)
    path = str(tmp_path / "table.csv")
    small_config.data = DataConfig(kind="features", path=path, bar_stamp="open")
    small_config.features = FeaturesConfig("columns", columns=columns)
    with pytest.raises((DataError, ConfigError), match=says):
        prepare(checked(small_config))
