"""Runs with `features.season=hour`: what the means rest on, every fold's own, what is served."""

import runpy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from hmm_exp.config import (
    Config,
    DataConfig,
    FeaturesConfig,
    ModelConfig,
    SplitConfig,
    SweepConfig,
    TimeframeConfig,
    checked,
)
from hmm_exp.errors import ConfigError, DataError, FitError
from hmm_exp.experiment import source as source_module
from hmm_exp.experiment.artifacts import data_report
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.experiment.walk import carried, drift_table
from hmm_exp.judge.split import TRAIN, VAL
from hmm_exp.market.synthetic import make_market
from hmm_exp.monitor.monitor import monitor_bars
from hmm_exp.registry.history import parameter_table
from hmm_exp.serving.load import find_detector
from hmm_exp.tracking import tags
from tests.conftest import ROOT

ZONE = "Europe/Berlin"
N_BARS = 3000
PRICES = ["high", "low", "close"]
COLUMNS = ["log_range_current_1H", "close_logret_current_1H"]


def market(n_bars=N_BARS):
    """Hourly bars whose ranges follow the clock of Berlin."""
    frame = make_market(n_bars, 3, seed=7).frame.copy()
    busy = 1.0 + 0.8 * np.sin(2 * np.pi * frame.index.tz_convert(ZONE).hour / 24)
    moves = np.log(frame[PRICES].div(frame["open"], axis=0)).mul(busy, axis=0)
    frame[PRICES] = np.exp(moves).mul(frame["open"], axis=0)
    return frame


def config_on(frame, path, columns=COLUMNS, **groups):
    """A small run on bars in a file, their hours those of Berlin."""
    frame.to_csv(path, index=False)
    data = DataConfig(kind="bars", path=str(path), bar_stamp="open", timezone=ZONE, name="m")
    features = FeaturesConfig("columns", season="hour", columns=list(columns))
    model = replace(ModelConfig(), n_init=2, n_states=2)
    return checked(Config(**({"data": data, "features": features, "model": model} | groups)))


def means_by_pandas(frame, rows):
    """Mean log range of some bars (a mask) by the hour in which they end."""
    log_range = np.log(np.log(frame["high"] / frame["low"]))
    hour = frame.index.tz_convert(ZONE).hour
    return log_range[rows].groupby(hour[rows]).mean().reindex(range(24)).to_numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("season")


@pytest.fixture(scope="module")
def config(folder):
    return config_on(market(), folder / "bars.csv")


@pytest.fixture(scope="module")
def result(config):
    return run(prepare(config))


@pytest.fixture(scope="module")
def walk(folder):
    split = SplitConfig(kind="walk_forward", refit_every=300, window=1200)
    return run(prepare(config_on(market(), folder / "bars.csv", split=split)))


def test_the_model_sees_log_ranges_less_the_train_mean_of_their_hour(result):
    prepared, frame = result.prepared, market()
    first = prepared.table.available_at[0]  # the bar before has no return and so no row
    train = (frame.index >= first) & (frame.index <= prepared.split.train_end)
    means = means_by_pandas(frame, train)
    np.testing.assert_allclose(prepared.season[:, 0], means, rtol=0, atol=1e-12)
    assert (prepared.season[:, 1] == 0.0).all()
    log_range = np.log(np.log(frame["high"] / frame["low"]))
    adjusted = (log_range - means[frame.index.tz_convert(ZONE).hour])[prepared.table.available_at]
    train = adjusted[prepared.train]
    theirs = ((adjusted - train.mean()) / train.std(ddof=0)).to_numpy()
    np.testing.assert_allclose(prepared.X[:, 0], theirs, rtol=0, atol=1e-9)


def test_bars_after_train_change_neither_means_nor_train_rows(result, folder):
    frame = market()
    late = frame.index > result.prepared.split.train_end
    frame.loc[late, PRICES] = frame.loc[late, PRICES].mul(frame.loc[late, "open"], axis=0) ** 0.5
    frame.loc[late, "high"] = frame.loc[late, ["open", "high", "close"]].max(axis=1) * 1.02
    frame.loc[late, "low"] = frame.loc[late, ["open", "low", "close"]].min(axis=1) * 0.99
    one, two = result.prepared, prepare(config_on(frame, folder / "changed.csv"))
    assert one.season.tobytes() == two.season.tobytes()
    assert one.X[one.train].tobytes() == two.X[two.train].tobytes()
    assert not np.array_equal(one.X, two.X)


def test_the_setting_and_the_zone_are_part_of_the_observation_space(config, result):
    def space(**changes):
        other = replace(config, **changes)
        return prepare(other).observation_space

    plain = replace(config.features, season="none")
    utc = replace(config.data, timezone="UTC")
    spaces = {result.prepared.observation_space, space(features=plain), space(data=utc)}
    assert len(spaces) == 3
    assert space(features=plain) == space(features=plain, data=utc)
    other = prepare(replace(config, features=plain))
    assert other.fingerprint != result.prepared.fingerprint
    assert (other.season, other.recipe.season) == (None, None)


def test_every_fold_has_means_of_its_own_past(walk):
    frame = market()
    for refit in walk.walk.refits:
        inside = np.zeros(N_BARS, dtype=bool)
        inside[refit.fold.first : refit.fold.end] = True
        means = means_by_pandas(frame, inside)
        np.testing.assert_allclose(refit.season[:, 0], means, rtol=0, atol=1e-12)
    seasons = [refit.season for refit in walk.walk.refits]
    assert len(seasons) > 2
    assert all((one[:, 0] != two[:, 0]).all() for one, two in pairwise(seasons))


def test_the_last_block_of_a_walk_is_the_detectors_own_answer(walk):
    regimes = walk.regimes
    block = regimes[regimes["refit"] == len(walk.walk.refits) - 1]
    answer = walk.detector.filter(walk.prepared.source.bars).tail(len(block))
    for name in ("p_state_0", "p_state_1"):
        assert answer[name].to_numpy().tobytes() == block[name].to_numpy().tobytes()


def test_a_warm_start_carries_a_shift_of_all_hours_exactly(walk):
    refit = walk.walk.refits[0]
    shift = np.array([0.7, 0.0])
    later = refit.season + shift
    start = carried(refit.candidate.params, refit.scaler, refit.scaler, (refit.season, later))
    moved = (refit.candidate.params.means - start.means) * refit.scaler.scale_
    np.testing.assert_allclose(moved, np.tile(shift, (2, 1)), atol=1e-12)


def test_a_refit_estimates_the_means_on_validation_too(config, result):
    refitted = run(prepare(replace(config, model=replace(config.model, refit="train_val"))))
    assert refitted.refit is not None
    part = refitted.prepared.part
    frame = market()
    known = frame.index.isin(refitted.prepared.table.available_at[(part == TRAIN) | (part == VAL)])
    ours = refitted.detector.season[:, 0]
    np.testing.assert_allclose(ours, means_by_pandas(frame, known), rtol=0, atol=1e-12)
    assert refitted.prepared.season.tobytes() == result.prepared.season.tobytes()


def test_an_hour_without_a_train_bar_is_missing_later(folder):
    frame = market()
    early = np.arange(N_BARS) < 2300
    frame = frame[~(early & (frame.index.tz_convert(ZONE).hour == 9))]
    outcome = run(prepare(config_on(frame, folder / "unseen.csv", COLUMNS[:1])))
    prepared = outcome.prepared
    at_nine = prepared.table.available_at.tz_convert(ZONE).hour == 9
    np.testing.assert_array_equal(np.isnan(prepared.X[:, 0]), at_nine)
    assert at_nine.any()
    assert data_report(outcome)["features"]["missing_rows"] == at_nine.sum()
    observed = outcome.chosen.n_rows
    assert observed["val"] + observed["test"] == (~prepared.train & ~at_nine).sum()
    answer = outcome.detector.filter(prepared.source.bars)
    ours = outcome.regimes["p_state_0"].to_numpy()
    assert answer["p_state_0"].to_numpy().tobytes() == ours.tobytes()
    assert np.isfinite(ours).all()
    followed = monitor_bars(outcome.detector, prepared.source.bars).rows["log_lik"]
    later = followed.index.tz_convert(ZONE).hour == 9
    assert later.any()
    np.testing.assert_array_equal(np.isnan(followed), later)


def test_a_log_range_that_follows_the_clock_alone_is_constant(folder):
    frame = market()
    hour = frame.index.tz_convert(ZONE).hour
    frame["close"] = frame["open"]
    frame["high"], frame["low"] = frame["open"] * np.exp(0.01 + hour / 997), frame["open"]
    with pytest.raises(FitError, match=r"constant on all \d+ train rows: .*log_range_current_1H"):
        prepare(config_on(frame, folder / "clock.csv", COLUMNS[:1]))


@pytest.mark.parametrize("name", ["range", "v1"])
def test_bars_of_a_day_are_refused_and_sets_without_logs_are_unchanged(config, name):
    daily = TimeframeConfig("1D", ["1D"])
    features = FeaturesConfig(name, season="hour", window=5)
    with pytest.raises(ConfigError, match="bars of a day or longer, which have no hour"):
        prepare(replace(config, features=features, timeframe=daily))
    returns = replace(config, features=FeaturesConfig("returns", season="hour"), timeframe=daily)
    plain = replace(returns, features=FeaturesConfig("returns"))
    assert prepare(returns).observation_space == prepare(plain).observation_space


def test_a_ready_table_gives_the_rows_of_its_bars(config, result, folder):
    table = result.prepared.table
    table.write(folder / "ready.csv")
    data = replace(config.data, kind="features", path=str(folder / "ready.csv"), timezone=ZONE)
    stamped = pd.read_csv(folder / "ready.csv")
    stamped["timestamp"] = stamped["timestamp"].str.replace("Z", "+00:00")
    stamped.to_csv(folder / "ready.csv", index=False)
    ready = prepare(replace(config, data=data))
    np.testing.assert_array_equal(ready.table.ends, table.ends)
    assert (ready.season[:, 0] != 0.0).all()


def test_a_ready_table_of_several_timeframes_is_refused(config, folder):
    both = [*COLUMNS, "log_range_current_4H"]
    features = replace(config.features, columns=both, season="none")
    prepare(replace(config, features=features)).table.write(folder / "both.csv")
    data = replace(config.data, kind="features", path=str(folder / "both.csv"), timezone="UTC")
    with pytest.raises(DataError, match="ready rows of 1H do not show in which hour"):
        prepare(replace(config, data=data, features=replace(features, season="hour")))


def test_the_cache_of_a_sweep_keeps_when_bars_ended(config, folder):
    both = replace(config.features, columns=[*COLUMNS, "log_range_current_4H"])
    plain, sweep = replace(config, features=both), SweepConfig(folder=str(folder / "sweep"))
    fresh = prepare(plain)
    for _ in ("made", "mapped"):
        source_module._read.cache_clear()
        cached = prepare(replace(plain, sweep=sweep))
        assert cached.X.tobytes() == fresh.X.tobytes()
        assert cached.table.ends.tobytes() == fresh.table.ends.tobytes()


def test_tables_of_means_name_what_the_means_are_of(result, walk):
    title = "log_range_current_1H less hour mean"
    summary = result.assessment.summary
    assert tuple(summary.columns) == (title, "close_logret_current_1H")
    params, scaler = result.chosen.params, result.scaler
    adjusted = result.prepared.table.less(result.prepared.season).X
    shares = result.chosen.posterior.smoothed.probs[result.prepared.train]
    train = adjusted[result.prepared.train]
    rows = ~np.isnan(train).any(axis=1)
    weighed = shares[rows].T @ train[rows] / shares[rows].sum(axis=0)[:, None]
    np.testing.assert_allclose(summary.means, weighed, rtol=0, atol=2e-3)
    np.testing.assert_allclose(summary.means, params.means * scaler.scale_ + scaler.mean_)
    named = result.assessment.diagnostics.query("table == 'state_means'")["column"]
    assert title in set(named)
    assert f" {title} " in result.detector.summary()
    assert f"mean_{title}" in drift_table(walk.walk, walk.prepared.recipe.titles)


def test_two_detectors_are_compared_with_their_seasons(config, result):
    plain = run(prepare(replace(config, features=replace(config.features, season="none"))))
    table = parameter_table(plain.detector, result.detector, ("1", "2")).set_index("what")
    assert table.loc["season"].tolist() == ["none", f"hour of {ZONE}"]


def test_a_sweep_and_what_serves_its_winner_agree_to_the_bit(train_cli, workdir, monkeypatch):
    market(2500).to_csv(workdir / "bars.csv", index=False)
    words = [
        *("data=bars", "data.path=bars.csv", "data.bar_stamp=open", f"data.timezone={ZONE}"),
        *("features=range", "features.season=none,hour", "timeframe=multi"),
        *("timeframe.timeframes=[1H,4H]", "model.n_states=2", "model.n_init=1", "gate=off"),
        *("tracking.figures=false", "tracking.report=false"),
    ]
    done = train_cli(workdir, "-m", *words)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'hmm_exp'")
    kind = f"tags.{tags.KIND} = 'cell'"
    cells = client.search_runs([experiment.experiment_id], kind)
    run_of = {cell.data.params["features.season"]: cell.info.run_id for cell in cells}
    path = client.download_artifacts(run_of["hour"], "regimes.csv", str(workdir))
    ours = pd.read_csv(path)
    monkeypatch.chdir(workdir)
    main = runpy.run_path(str(ROOT / "scripts" / "apply_hmm.py"))["main"]
    words = ["--model", f"runs:/{run_of['hour']}", "--bars", "bars.csv", "--output", "again.csv"]
    assert main(words) == 0
    theirs = pd.read_csv("again.csv")
    columns = ["available_at", "state", "p_state_0", "p_state_1"]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns], check_exact=True)
    other = pd.read_csv(client.download_artifacts(run_of["none"], "regimes.csv", str(workdir)))
    assert not ours["p_state_0"].equals(other["p_state_0"])
    detector = find_detector(f"runs:/{run_of['hour']}")
    assert (detector.recipe.season, detector.season.shape) == (ZONE, (24, 2))


def test_later_rows_whose_hour_train_never_saw_are_a_warning(folder, config):
    bars = market()
    rows = np.flatnonzero(np.arange(len(bars)) < 0.85 * len(bars))
    early = bars.index[rows].tz_convert(ZONE).hour == 5
    lacking = bars.drop(bars.index[rows][early])
    result = run(prepare(config_on(lacking, folder / "lacking.csv")))
    (warning,) = [line for line in result.warnings if "validation and test rows" in line]
    assert f"(features.season=hour in {ZONE})" in warning
    later = ~result.prepared.train
    lost = np.isnan(result.prepared.X[later]).any(axis=1).sum()
    assert 10 < int(warning.split(" of ")[0]) <= lost
    assert not prepare(config).unseen_hours
