"""Without a fitted forecast a run finishes without its scores and reports the reason."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hmm_exp.config import Config, DataConfig, FeaturesConfig, ModelConfig, SplitConfig, checked
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import Prepared, prepare
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.run import run
from hmm_exp.experiment.select import select_walk
from hmm_exp.experiment.walk import Walk, walk_forward
from hmm_exp.features.build import build_features
from hmm_exp.features.recipe import Recipe
from hmm_exp.judge.residuals import return_residuals
from hmm_exp.judge.return_forecasts import (
    SCORES,
    Baselines,
    fit_baselines,
    fit_return_densities,
    fit_static,
    score_bars,
    summarise,
)
from hmm_exp.judge.split import TEST, TRAIN
from hmm_exp.judge.unscored import in_fits, in_words, unusual, why_no_gain, why_no_return
from hmm_exp.judge.variance import variance_gains, variance_losses, variance_shapes
from hmm_exp.judge.volatility_baselines import BarSeries, fit_volatility
from hmm_exp.market.iso import iso
from hmm_exp.market.synthetic import make_market
from hmm_exp.monitor.expectations import Observations, expectations_of, make_expectations, observe
from hmm_exp.monitor.monitor import monitor_bars

N_BARS = 2400
TOO_FEW = "8 returns are too few for 9 Student-t parameters"
COLUMN = "close_logret_current_1H"


def settings(path, kind: str, features: str = "v2", **model) -> Config:
    return Config(
        data=DataConfig(kind=kind, path=str(path), bar_stamp="open"),
        features=FeaturesConfig(name=features),
        model=ModelConfig(**{"n_init": 1, "n_states": 2} | model),
    )


def prices_that_stand_still(path, n_still: int):
    """Bars whose close stands still at first while their range goes on as in the market."""
    bars = make_market(N_BARS, 2, 3)
    frame = bars.frame.reset_index(drop=True)
    up, down = frame["high"] / frame["close"], frame["low"] / frame["close"]
    still = frame.index < n_still
    close = np.where(still, 100.0, frame["close"] / frame["close"][n_still] * 100.0)
    frame = frame.assign(open=close, close=close, high=close * up, low=close * down)
    frame["timestamp"] = frame["timestamp"].dt.tz_localize(None)
    frame.to_csv(path, index=False)
    return path


def table_with_few_returns(path, n_kept: int, n_bare: int):
    """A ready table of v2 whose first `n_bare` rows have a return on every hundredth row only."""
    table = build_features(make_market(N_BARS, 2, 3), Recipe.of_set("v1v2", ["1H"], 20, 72.0))
    frame = table.frame.drop(columns=["log_volume_delta_current_1H", "close_parkinson_20_1H"])
    bare = np.arange(len(frame)) < n_bare
    kept = np.isin(np.arange(len(frame)), 100 * np.arange(1, n_kept + 1))
    frame.loc[bare & ~kept, COLUMN] = np.nan
    frame.insert(0, "timestamp", table.timestamp.dt.tz_localize(None))
    frame.to_csv(path, index=False)
    return path


def scored_metrics(result: RunResult) -> list[str]:
    """Metrics that need a score of the next return."""
    return [name for name in result.metrics if re.search("return_score|return_gain|ewma_", name)]


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> RunResult:
    """A run on train bars whose close never moves: nothing can be fitted to their returns."""
    path = prices_that_stand_still(tmp_path_factory.mktemp("still") / "b.csv", N_BARS * 7 // 10)
    config = settings(path, "bars", "columns")
    config.features.columns = ["close_parkinson_20_1H", "volume_rvol_20_1H"]
    return run(prepare(checked(config)))


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> RunResult:
    """A run of four states on a table with eight train returns: enough for the baselines alone."""
    path = table_with_few_returns(tmp_path_factory.mktemp("few") / "t.csv", 8, 1700)
    return run(prepare(checked(settings(path, "features", n_states=4))))


def test_a_run_on_prices_that_stand_still_finishes_without_scores(still):
    assert set(still.assessment.unscored) == set(SCORES)
    lines = [text for text in still.warnings if "cannot be fitted" in text]
    assert lines == [  # the first rows of the windows have no regime
        "the state densities cannot be fitted: all 1660 returns equal 0",
        "the static Student-t and the EWMA Student-t cannot be fitted: all 1679 returns equal 0",
    ]
    assert np.isfinite([*still.metrics.values()]).all()
    assert scored_metrics(still) == []
    assert still.metrics["bic"] < still.metrics["bic_null"]


def test_densities_that_lack_returns_leave_the_baselines(few):
    assert unusual(few.assessment.unscored) == ["model"]
    assert few.assessment.unscored["model"] == TOO_FEW
    assert f"the state densities cannot be fitted: {TOO_FEW}" in few.warnings
    scored = few.assessment.scores.notna().any()
    assert dict(scored[["model_score", "static_score", "ewma_score"]]) == {
        "model_score": False,
        "static_score": True,
        "ewma_score": True,
    }
    assert scored_metrics(few) == []
    assert few.assessment.next_bar["test"]["n"].sum() > 0


@pytest.mark.parametrize("name", ["still", "few"])
def test_files_and_figures_of_a_run_without_scores_are_written(name, request, tmp_path):
    result = request.getfixturevalue(name)
    write_artifacts(result, tmp_path)
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert scores["model_score"].isna().all()
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    drawn = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert "cumulative_gain" not in drawn
    assert {"dwell_times", "probabilities"} <= drawn


def test_a_model_without_densities_is_watched_by_its_likelihood(still):
    promise = expectations_of(still.detector)
    assert (promise.score, promise.densities, promise.static) == (None, None, None)
    assert json.loads(json.dumps(still.detector.to_dict())) is not None
    watched = monitor_bars(still.detector, still.prepared.source.bars)
    assert "next-bar score" not in {finding.name for finding in watched.findings}
    assert watched.bars.empty


def test_a_promise_without_a_static_density_has_no_gain():
    config = Config(
        data=DataConfig(n_bars=N_BARS, bar_stamp="open"),
        features=FeaturesConfig(name="v1"),
        model=ModelConfig(n_init=1, n_states=2),
    )
    result = run(prepare(checked(config)))
    prepared, detector = result.prepared, result.detector
    source, fitted_on = prepared.source, (prepared.split.train_start, prepared.split.train_end)
    filtered = detector.filtered(prepared.table)
    rows = Observations(prepared.table, filtered, source.time, prepared.series)
    seen = observe(detector.params, rows)
    on_train = np.where(prepared.target_part == TRAIN, source.next_return, np.nan)
    densities = (fit_return_densities(seen.known, on_train), Baselines(None, {}))
    promise = make_expectations(detector.params, rows, fitted_on, densities)
    stored = replace(detector, expectations=json.loads(json.dumps(promise.to_dict())))
    watched = monitor_bars(stored, source.bars)
    assert "next-bar score" in {finding.name for finding in watched.findings}
    assert "gain" not in watched.bars
    assert expectations_of(stored).static is None


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> RunResult:
    """A walk of one and four states whose first two fits have seen eight returns."""
    path = table_with_few_returns(tmp_path_factory.mktemp("walk") / "t.csv", 8, 1450)
    config = settings(path, "features", n_states=None, state_grid=[1, 4])
    config.split = SplitConfig(kind="walk_forward", train=0.5, val=0.25, test=0.25, refit_every=300)
    config.selection.min_occupancy = 0.0
    return run(prepare(checked(config)))


@pytest.fixture(scope="module")
def walks(walk) -> list[Walk]:
    """Both walks: the one with four states lacks densities at first."""
    found, errors = walk_forward(walk.prepared)
    assert errors == []
    return found


def test_a_fit_of_a_walk_without_densities_leaves_its_block_unscored(walks):
    one, four = walks
    assert unusual(one.output.unscored) == []
    assert one.output.unscored["range_ewma"] == "the data have no high and low"
    missing = [refit.unscored.get("model") for refit in four.refits]
    assert (missing[0], missing[-1]) == (TOO_FEW, None)
    n = sum(why is not None for why in missing)
    last = [refit for refit in four.refits if "model" in refit.unscored][-1].fold
    assert unusual(four.output.unscored) == ["model"]
    assert four.output.unscored["model"] == (
        f"in {n} of {len(missing)} fits, last at {iso(last.split.train_end)}: {TOO_FEW}"
    )
    scored = np.isfinite(four.output.scores["model"].to_numpy())
    assert not scored[: last.stop - 1].any()
    assert scored[last.stop : -1].all()
    assert np.isfinite(four.output.scores["static"].to_numpy()[last.end : -1]).any()


def test_among_walks_one_without_a_score_is_passed_over(walk, walks):
    config, part = walk.prepared.config.selection, walk.prepared.target_part
    none = walks[0].output.bars.assign(model=np.nan)
    silent = replace(walks[0], output=replace(walks[0].output, bars=none))
    for order in ([silent, walks[1]], [walks[1], silent]):
        assert select_walk(order, part, config) is walks[1]
    assert select_walk([silent], part, config) is silent


def test_missing_baselines_leave_what_does_not_need_them():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(2), 600)
    returns = 0.01 * rng.standard_t(4.0, 600)
    densities, split = (
        fit_return_densities(probs, returns),
        np.where(np.arange(600) < 400, TRAIN, TEST),
    )
    names = ("return_score_test", "return_gain_test", "ewma_gain_test")
    series, static = BarSeries(returns), fit_static(returns)
    ewma = {"ewma": fit_volatility("ewma", series)}
    whole = summarise(score_bars(densities, Baselines(static, ewma), probs, series), split)
    for baselines, left in (
        (Baselines(None, ewma), (names[0], names[2])),
        (Baselines(static, {}), names[:2]),
        (Baselines(None, {}), names[:1]),
    ):
        scores = score_bars(densities, baselines, probs, series)
        shown = summarise(scores, split, parts=(TEST,))
        assert shown == {name: whole[name] for name in left}
    assert summarise(score_bars(None, Baselines(static, ewma), probs, series), split) == {}
    assert np.isnan(return_residuals(None, probs, returns)).all()


def test_variance_forecasts_do_without_each_other():
    rng = np.random.default_rng(1)
    probs, returns = rng.dirichlet(np.ones(2), 500), 0.01 * rng.standard_t(5.0, 500)
    train = np.arange(500) < 300
    densities, baselines = (
        fit_return_densities(probs[train], returns[train]),
        fit_baselines(BarSeries(returns[train])),
    )

    def gains(model, known):
        shapes = variance_shapes(model, known, probs, BarSeries(returns))
        return variance_gains(variance_losses(shapes, returns**2, train))

    whole = gains(densities, baselines)
    without = gains(densities, replace(baselines, static=None, volatility={}))
    np.testing.assert_array_equal(without["variance_gain"], whole["variance_gain"])
    assert np.isnan(without["ewma_variance_gain"]).all()
    assert np.isnan(gains(None, baselines)["variance_gain"]).all()


def test_a_baseline_that_cannot_be_fitted_says_why():
    few = BarSeries(np.array([0.01, np.nan, 0.02, -0.01]))
    baselines, no_hour = fit_baselines(few), "bars of a day and more have no hour"
    assert (baselines.static, baselines.volatility) == (None, {})
    assert baselines.unscored == {
        "static": "3 returns are too few for 3 Student-t parameters",
        "ewma": "3 train returns are too few for an EWMA Student-t",
        "range_ewma": "the data have no high and low",
        "ewma_hour": no_hour,
        "range_ewma_hour": "the data have no high and low",
    }
    enough = BarSeries(0.01 * np.random.default_rng(0).standard_t(4.0, 50))
    assert unusual(fit_baselines(enough).unscored) == []


def test_a_reason_appears_once_and_for_the_gain_that_it_concerns():
    unscored = {"ewma": "a", "model": "b", "static": "a"}
    assert in_words(unscored) == [
        "the state densities cannot be fitted: b",
        "the static Student-t and the EWMA Student-t cannot be fitted: a",
    ]
    assert why_no_gain(unscored, "ewma") == "the state densities cannot be fitted: b"
    assert why_no_gain({"ewma": "a"}, "ewma") == "the EWMA Student-t cannot be fitted: a"
    assert why_no_gain({"ewma": "a"}, "static") is None
    assert why_no_gain({"return": "r"}, "static") == "r"
    assert in_words({"return": "r"}) == ["r"]
    assert in_words({"ewma_hour": "c"}) == []
    assert why_no_gain({"ewma_hour": "c"}, "ewma_hour").endswith("by hour cannot be fitted: c")


def test_reasons_of_fits_are_counted():
    fits = [("Monday", {"static": "a", "ewma": "a"}), ("Tuesday", {}), ("Friday", {"static": "b"})]
    assert in_fits(fits) == {
        "static": "in 2 of 3 fits, last at Friday: b",
        "ewma": "in 1 of 3 fits, last at Monday: a",
    }
    assert in_fits([("Monday", {"return": "r"})] * 2) == {"return": "r"}
    assert in_fits([("Monday", {})]) == {}


@pytest.mark.parametrize("other", ["close_logret_current_4H", "ticks"])
def test_a_table_without_returns_of_its_rows_names_the_column(tmp_path, other):
    """A return of another timeframe is none of these rows."""
    table = build_features(make_market(N_BARS, 2, 3), Recipe.of_set("v2", ["1H"], 20, 72.0))
    frame = table.frame.assign(**{other: np.arange(len(table)) % 7 / 1000})
    frame.insert(0, "timestamp", table.timestamp.dt.tz_localize(None))
    frame.to_csv(tmp_path / "t.csv", index=False)
    result = run(prepare(checked(settings(tmp_path / "t.csv", "features"))))
    why = result.assessment.unscored["return"]
    assert why in result.warnings
    assert why == (
        "no next-bar return is known: the table has no column close_logret_current_1H, add it "
        "(hmm-features with --features v1v2 or returns writes it)"
    )
    assert result.assessment.scores is None


def test_an_empty_column_of_returns_is_not_called_absent():
    frame = pd.DataFrame({COLUMN: [np.nan, 0.1]})
    assert why_no_return(frame, "1H").endswith(f"{COLUMN} has no value on two neighbouring rows")
    assert "has no column close_logret_current_4H" in why_no_return(frame, "4H")


def test_a_walk_without_returns_gives_the_reason_once(tmp_path, walk: RunResult):
    prepared: Prepared = walk.prepared
    bare = replace(prepared, source=replace(prepared.source, log_return=None))
    result = run(bare)
    assert list(result.assessment.unscored) == ["return"]
    assert "in 4 of" not in result.assessment.unscored["return"]
