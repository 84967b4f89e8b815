"""One run without Hydra or MLflow: what reads what, what is chosen, what comes out."""

import re
from dataclasses import replace
from itertools import pairwise

import joblib
import numpy as np
import pandas as pd
import pytest
from hmmlearn.hmm import GaussianHMM
from scipy import stats

from hmm_exp.config import Config, SelectionConfig, TimeframeConfig, checked
from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ConfigError, DataError, FitError, HmmExpError
from hmm_exp.experiment import fits
from hmm_exp.experiment.artifacts import data_report, write_artifacts
from hmm_exp.experiment.candidate import train_steps
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import regime_in_words, run
from hmm_exp.experiment.select import select
from hmm_exp.judge.return_forecasts import fit_return_densities, fit_static
from hmm_exp.judge.split import TRAIN
from hmm_exp.judge.volatility_baselines import VOLATILITY, fit_ewma
from hmm_exp.market.iso import iso


@pytest.fixture
def result(small_config):
    return run(prepare(checked(small_config)))


@pytest.fixture
def bars_csv(small_config, tmp_path):
    """The small synthetic market as a user's file."""
    frame = prepare(small_config).source.bars.frame
    path = tmp_path / "bars.csv"
    frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(path, index=False)
    return path


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


def test_fit_and_choice_do_not_see_test_bars(small_config, bars_csv):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3])
    before = run(prepare(edited(small_config, bars_csv)))
    frame = pd.read_csv(bars_csv)
    n_known = round(len(frame) * 0.85)
    frame.loc[n_known:, ["open", "high", "low", "close"]] *= 1.7
    frame.to_csv(bars_csv, index=False)
    after = run(prepare(edited(small_config, bars_csv)))
    assert before.n_states == after.n_states
    np.testing.assert_array_equal(before.detector.params.means, after.detector.params.means)
    gains = ("return_gain", *(f"{name}_gain" for name in VOLATILITY), "added_gain")
    for name in ("bic", "log_lik_val", *(f"{gain}_val" for gain in gains)):
        assert before.metrics[name] == after.metrics[name]


def test_a_naive_scorer_of_the_files_agrees_with_the_metrics(small_config, result):
    """Bar after bar from regimes, closes and the formulas, as one would write them down."""
    bars = prepare(checked(small_config)).source.bars
    closes = dict(zip(bars.frame.index, bars.frame["close"], strict=True))
    times = list(closes)
    known = result.regimes.set_index("available_at").filter(like="p_state_")
    train_end = result.prepared.split.train_end
    returns = [np.log(closes[b] / closes[a]) for a, b in pairwise(times)]
    n_train = sum(time <= train_end for time in times[1:])
    n_val = sum(time <= result.prepared.split.val_end for time in times[1:])
    probs = np.array([known.loc[t] if t in known.index else known.iloc[0] * np.nan for t in times])
    fitted = fit_return_densities(probs[:n_train], np.array(returns[:n_train]))
    static, ewma = fit_static(np.array(returns[:n_train])), fit_ewma(np.array(returns[:n_train]))
    variance, gains = ewma.initial, []
    for i, value in enumerate(returns):
        if i >= n_val:
            density = stats.t.pdf(value, fitted.df, fitted.loc, fitted.scale)
            model = np.log(sum(p * d for p, d in zip(probs[i], density, strict=True)))
            width = ewma.scale * np.sqrt(variance)
            others = (
                stats.t.logpdf(value, static.df, static.loc[0], static.scale[0]),
                stats.t.logpdf(value, ewma.df, 0.0, width),
            )
            gains.append([model - other for other in others])
        variance = ewma.decay * variance + (1.0 - ewma.decay) * value**2
    over_static, over_ewma = np.mean(gains, axis=0)
    assert result.metrics["return_gain_test"] == pytest.approx(over_static, rel=1e-6)
    assert result.metrics["ewma_gain_test"] == pytest.approx(over_ewma, rel=1e-6)


@pytest.mark.parametrize("timezone", ["UTC", "America/New_York"])
def test_baselines_read_ranges_and_the_hours_of_the_timezone(small_config, timezone):
    small_config.data.timezone = timezone
    prepared = prepare(checked(small_config))
    series, bars = prepared.series, prepared.source.bars.frame
    local = [time.tz_convert(timezone).hour for time in bars.index]
    np.testing.assert_array_equal(series.hour, local)
    np.testing.assert_array_equal(series.next_hour[:-1], local[1:])
    np.testing.assert_allclose(series.log_range, np.log(bars["high"] / bars["low"]), rtol=1e-12)
    np.testing.assert_array_equal(series.next_return, prepared.source.next_return)


def test_bars_of_a_day_have_no_hour(small_config, tmp_path):
    bars = prepare(small_config).source.bars.frame.set_index("timestamp")
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    path = tmp_path / "daily.csv"
    bars.tz_localize(None).resample("4h").agg(how).iloc[:500].set_axis(
        pd.date_range("2021-01-01", periods=500, freq="D", name="timestamp")
    ).to_csv(path)
    small_config.timeframe = TimeframeConfig("1D", ["1D"])
    small_config.model.n_states = 2
    result = run(prepare(checked(edited(small_config, path))))
    assert result.assessment.unscored == dict.fromkeys(
        ["ewma_hour", "range_ewma_hour"], "bars of a day and more have no hour"
    )
    assert not [text for text in result.warnings if "hour" in text]
    assert {"ewma_gain_val", "range_ewma_gain_val"} <= set(result.metrics)
    assert "ewma_hour_gain_val" not in result.metrics


def test_what_regimes_add_is_in_the_diagnostics(result):
    rows = result.assessment.diagnostics.query("table == 'added_gain'")
    table = rows.pivot(index="row", columns="column", values="value")
    (strongest,) = table.index[table["strongest"] == 1.0]
    for part in ("train", "val", "test"):
        assert result.metrics[f"added_gain_{part}"] == table.loc[strongest, part]
    assert set(table.index) == set(VOLATILITY)


def test_same_seed_same_bits(small_config, result):
    again = run(prepare(checked(small_config)))
    np.testing.assert_array_equal(result.detector.params.covars, again.detector.params.covars)
    pd.testing.assert_frame_equal(result.regimes, again.regimes, check_exact=True)


def test_criteria_are_hmmlearns_on_the_train_rows(result):
    model = result.chosen.params.to_hmmlearn()
    X = result.prepared.X[result.prepared.train]
    assert result.metrics["log_lik_train"] == pytest.approx(model.score(X), rel=1e-10)
    assert result.metrics["bic"] == pytest.approx(model.bic(X), rel=1e-10)
    assert result.metrics["aic"] == pytest.approx(model.aic(X), rel=1e-10)


def test_states_are_calm_first_with_their_labels(result):
    parkinson = result.assessment.summary.means[:, 2]
    assert (np.diff(parkinson) > 0).all()
    assert result.detector.labels == ("calm", "normal", "turbulent")


def test_planted_regimes_are_recovered(result):
    prepared = result.prepared
    known = prepared.row_of_bar >= 0
    found = result.assessment.summary.states[prepared.row_of_bar[known]]
    planted = prepared.source.bars.states[known]
    assert np.mean(found == planted) > 0.8


def test_regimes_have_a_row_per_row_and_probabilities_that_sum_to_one(result):
    regimes = result.regimes
    leading = ["timestamp", "available_at", "split", "state", "label", "regime", "in_training"]
    assert list(regimes.columns) == [
        *leading,
        "p_state_0",
        "p_state_1",
        "p_state_2",
        "state_smoothed",
        "state_viterbi",
    ]
    assert len(regimes) == len(result.prepared.table)
    assert regimes["available_at"].is_monotonic_increasing
    probs = regimes.filter(like="p_state_").to_numpy()
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_array_equal(probs.argmax(axis=1), regimes["state"])


def test_regimes_come_from_the_detector_bit_for_bit(result):
    answer = result.detector.filter(result.prepared.source.bars)
    pd.testing.assert_frame_equal(
        answer, result.regimes[list(answer.columns)], check_exact=True, check_dtype=False
    )


def test_a_lookback_of_min_history_agrees_with_regimes(result):
    bars = result.prepared.source.bars
    probs = [f"p_state_{k}" for k in range(3)]
    whole = result.regimes.set_index("available_at")[probs]
    for end in (1500, 2100, 2999):
        lookback = bars.frame.iloc[end - result.detector.min_history + 1 : end + 1]
        answer = result.detector.filter(lookback.reset_index(drop=True)).iloc[-1]
        expected = whole.loc[answer["available_at"]]
        np.testing.assert_allclose(answer[probs].astype(float), expected, atol=1e-6)


def test_the_future_changes_no_filtered_probability(result):
    bars = result.prepared.source.bars
    frame = bars.frame.copy()
    frame.iloc[2000:, 1:5] *= np.linspace(1.0, 2.0, len(frame) - 2000)[:, None]
    known = result.regimes["available_at"] <= bars.frame.index[1999]
    columns = list(result.detector.filter(bars).columns)
    for future in (frame, frame.iloc[:2000], frame.iloc[:2001]):
        answer = result.detector.filter(future.reset_index(drop=True))
        pd.testing.assert_frame_equal(
            answer[: known.sum()],
            result.regimes.loc[known, columns],
            check_exact=True,
            check_dtype=False,
        )


def test_selected_k_lies_in_the_grid_and_an_ineligible_best_is_passed_over(small_config):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3, 4])
    outcome = run(prepare(small_config))
    assert outcome.n_states in (2, 3, 4)
    assert list(outcome.selection["n_states"]) == [1, 2, 3, 4]
    assert outcome.metrics["grid_edge"] == (outcome.n_states == 4)
    edge = f"the best number of states, {outcome.n_states}, is the largest tried"
    assert (edge in outcome.warnings) == (outcome.n_states == 4)
    best = min(outcome.candidates, key=lambda c: c.criteria["bic"])
    spoiled = [
        replace(c, faults=["state 0 is empty"]) if c is best else c for c in outcome.candidates
    ]
    passed_over = select(spoiled, SelectionConfig(near_tie=0.0))
    assert passed_over.n_states != best.n_states
    assert not passed_over.faults


def test_near_ties_are_decided_by_validation_likelihood(small_config):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3])
    two, three = run(prepare(small_config)).candidates
    low = replace(two, criteria=two.criteria | {"bic": 100.0}, log_lik={"val": -50.0})
    near = replace(three, criteria=three.criteria | {"bic": 101.5}, log_lik={"val": -40.0})
    assert select([low, near], SelectionConfig(near_tie=2.0)) is near
    assert select([low, near], SelectionConfig(near_tie=1.0)) is low


def test_the_one_error_rule_takes_the_fewest_states_that_are_as_good(small_config):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3, 4])
    small_config.selection = SelectionConfig(within="cv", rule="one_se", cv_blocks=3)
    outcome = run(prepare(checked(small_config)))
    assert {"cv", "cv_error"} <= set(outcome.metrics)
    table = outcome.selection.set_index("n_states")
    best = table["cv"].idxmin()
    limit = table["cv"][best] + table["cv_error"][best]
    eligible = table.index[table["eligible"].astype(bool) & (table["cv"] <= limit)]
    assert outcome.n_states == eligible.min()


def test_the_elbow_stops_where_a_state_brings_little(small_config):
    small_config.model = replace(small_config.model, n_states=None, state_grid=[2, 3])
    two, three = run(prepare(small_config)).candidates
    low = replace(two, criteria=two.criteria | {"bic": 200.0}, faults=[])
    for bic, wanted in ((195.0, low), (150.0, None)):
        high = replace(three, criteria=three.criteria | {"bic": bic}, faults=[])
        taken = select([low, high], SelectionConfig(rule="elbow", elbow=0.1), null=400.0)
        assert taken is (wanted or high)


def test_cross_validation_must_have_blocks():
    with pytest.raises(ConfigError, match=r"set selection.cv_blocks=5"):
        checked(Config(selection=SelectionConfig(within="cv")))


def test_both_engines_find_the_same_optimum(small_config, result):
    small_config.model = replace(small_config.model, engine="hmmlearn", n_iter=500, tol=1e-6)
    theirs = run(prepare(checked(small_config)))
    assert theirs.metrics["log_lik_train"] == pytest.approx(
        result.metrics["log_lik_train"], abs=0.05
    )


def test_when_all_have_faults_the_best_is_named_ineligible(small_config):
    small_config.selection.min_occupancy = 0.5
    outcome = run(prepare(small_config))
    assert any("least 50.00%" in fault for fault in outcome.faults)


def test_refit_uses_validation_rows_for_the_detector_only(small_config, result):
    small_config.model = replace(small_config.model, refit="train_val")
    wider = run(prepare(small_config))
    assert wider.refit is not None
    assert wider.detector.scaler_mean[2] != result.detector.scaler_mean[2]
    assert wider.metrics["bic"] == result.metrics["bic"]
    assert wider.metrics["return_gain_test"] == result.metrics["return_gain_test"]


def test_a_refit_that_is_degenerate_is_not_used(small_config, result, monkeypatch):
    small_config.model = replace(small_config.model, refit="train_val")
    first = prepare(small_config)
    real, calls = fits.fit_candidate, []

    def spoiled(*arguments, **options):
        calls.append(arguments)
        candidate = real(*arguments, **options)
        return replace(candidate, faults=["state 0 is empty"]) if len(calls) == 2 else candidate

    monkeypatch.setattr(fits, "fit_candidate", spoiled)
    outcome = run(first)
    assert outcome.refit is None
    assert outcome.detector.scaler_mean[2] == result.detector.scaler_mean[2]
    assert "the refit is degenerate and not used: state 0 is empty" in outcome.warnings


@pytest.mark.parametrize("timeframe", ["4H", "12H"])
def test_coarser_rows_are_scored_on_every_base_bar(small_config, timeframe):
    small_config.timeframe.timeframes = [timeframe]
    small_config.timeframe.name = timeframe
    small_config.model = replace(small_config.model, n_states=2)
    outcome = run(prepare(small_config))
    scores = outcome.assessment.scores
    assert len(scores) == small_config.data.n_bars
    scored = scores["model_score"].notna()
    assert scored.mean() > 0.8
    assert (np.diff(np.flatnonzero(scored)) == 1).all()


def test_metrics_are_finite_and_named_as_promised(result):
    promised = (
        "bic aic hqc icl bic_null n_params n_rows_train log_lik_train log_lik_val log_lik_test "
        "log_lik_val_per_bar return_score_val return_gain_val return_gain_test ewma_gain_val "
        "range_ewma_gain_val ewma_hour_gain_test range_ewma_hour_gain_test_bound "
        "added_gain_train added_gain_val added_gain_test added_gain_test_bound "
        "n_states n_features n_iter n_polished converged restart_agreement min_occupancy "
        "max_condition_number switches_per_1000 mean_dwell_bars revision_rate "
        "return_gain_test_error return_gain_test_bound return_gain_test_low return_gain_test_high "
        "ewma_gain_val_error variance_gain_test parkinson_variance_gain_test_error "
        "residual_ks_next_return residuals_reject detection_delay_median missed_switch_share "
        "strategy_regime_return_test strategy_regime_sharpe_test strategy_regime_drawdown_test "
        "strategy_regime_turnover_test strategy_hold_sharpe_test strategy_p_value "
        "seconds_features seconds_fit seconds_evaluate"
    )
    assert set(promised.split()) <= set(result.metrics)
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert "grid_edge" not in result.metrics  # one number of states has no edge


def test_artifacts_are_all_there_and_load(result, tmp_path):
    write_artifacts(result, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        *("model.joblib", "scaler.joblib", "config.json", "config.yaml", "metrics.json"),
        *("regimes.csv", "diagnostics.csv", "selection.csv", "data_report.json", "plots"),
        "strategy.csv",
    }
    figures = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert figures == {
        *("price", "probabilities", "transition_matrix", "state_means", "criteria"),
        *("convergence", "dwell_times", "next_bar_return", "recovered"),
        *("residuals", "cumulative_gain", "strategy"),
    }
    model = joblib.load(tmp_path / "model.joblib")
    assert isinstance(model, GaussianHMM)
    scaler = joblib.load(tmp_path / "scaler.joblib")
    X = scaler.transform(result.prepared.table.frame.to_numpy()[:100])
    assert np.isfinite(model.score(X))
    regimes = pd.read_csv(tmp_path / "regimes.csv", parse_dates=["timestamp", "available_at"])
    assert len(regimes) == len(result.regimes)
    np.testing.assert_array_equal(regimes["p_state_0"], result.regimes["p_state_0"])
    tidy = pd.read_csv(tmp_path / "diagnostics.csv")
    assert list(tidy.columns) == ["table", "row", "column", "value"]
    assert {"transition_matrix", "stationary", "dwell", "state_means", "occupancy"} <= set(
        tidy["table"]
    )


def test_detector_survives_its_file(result, tmp_path):
    result.detector.save(tmp_path / "detector.json")
    loaded = Detector.load(tmp_path)
    bars = result.prepared.source.bars
    pd.testing.assert_frame_equal(
        loaded.filter(bars), result.detector.filter(bars), check_exact=True
    )


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


@pytest.mark.parametrize(
    ("covariance", "timeframes"), [("tied", ["1H"]), ("spherical", ["1H", "4H"]), ("full", ["1H"])]
)
def test_whatever_was_fitted_answers_alike_after_loading(
    small_config, tmp_path, covariance, timeframes
):
    small_config.covariance.type = covariance
    small_config.timeframe.timeframes = timeframes
    outcome = run(prepare(checked(small_config)))
    outcome.detector.save(tmp_path / "detector.json")
    answer = Detector.load(tmp_path).filter(outcome.prepared.source.bars)
    pd.testing.assert_frame_equal(answer, outcome.regimes[list(answer.columns)], check_exact=True)


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


def test_regime_in_words_tells_since_when(result):
    agreed = np.flatnonzero(result.regimes["regime"] == result.regimes["state"])[-1]
    regimes = result.regimes[: agreed + 1]
    words, last = regime_in_words(regimes), regimes.iloc[-1]
    named = result.detector.labels[last["regime"]]
    assert f"{named} (state {last['regime']})" in words
    run_start = regimes["regime"].ne(last["regime"])[::-1].idxmax() + 1
    assert f"since {iso(regimes['available_at'][run_start])}," in words
    assert words.endswith(f"probability {last['p_state_' + str(last['regime'])]:.3f}")


def test_regime_in_words_follows_the_decision_and_not_the_row(result):
    regimes = result.regimes
    doubt = np.flatnonzero((regimes["regime"] != regimes["state"]) & (regimes["regime"] >= 0))[-1]
    words = regime_in_words(regimes[: doubt + 1])
    named = result.detector.labels[regimes["regime"][doubt]]
    assert f": {named} (state {regimes['regime'][doubt]}), since" in words
    assert f"; most probable is {regimes['label'][doubt]} (state" in words
    assert words.endswith(": not enough to decide")
    first = regime_in_words(regimes[:1])
    assert f"not decided yet, most probable is {regimes['label'][0]}" in first


def test_the_report_begins_with_what_was_read_and_a_doubtful_last_bar_is_named(
    small_config, bars_csv
):
    rewrite(bars_csv, 2999, "volume", 0.5)
    frame = pd.read_csv(bars_csv)
    frame.drop(index=[2000, 2001]).to_csv(bars_csv, index=False)
    outcome = run(prepare(edited(small_config, bars_csv)))
    report = data_report(outcome)
    assert report["read"] == [
        "bars.csv: 2,998 rows, 1H, 2021-01-01 to 2021-05-05; 1 gap with 2 missing bars",
        "features v1@1H of bars: 2,978 of 2,998 rows usable; 19 to fill the windows; 1 after gaps "
        "(close_logret_current_1H, log_volume_delta_current_1H)",
    ]
    usable = report["features"]["rows"] - report["features"]["missing_rows"]
    assert usable == np.isfinite(outcome.prepared.X).all(axis=1).sum() == 2978
    assert outcome.regime_now.endswith(
        "; the last bar, which closes at 2021-05-06T00:00:00Z, has 0 % of its hour's usual "
        "volume: it may not be closed yet"
    )


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


def test_a_train_block_opens_its_own_sequence():
    steps = np.array([0, 1, 1, 3, 1])
    rows = np.array([False, False, True, True, True])
    np.testing.assert_array_equal(train_steps(steps, rows), [0, 3, 1])


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
