"""One run without Hydra or MLflow: what reads what, what is chosen, what comes out."""

from dataclasses import replace
from itertools import pairwise

import joblib
import numpy as np
import pandas as pd
import pytest
from hmmlearn.hmm import GaussianHMM
from scipy import stats
from threadpoolctl import threadpool_info, threadpool_limits

from hmm_exp.config import TimeframeConfig, checked
from hmm_exp.detector.detector import Detector
from hmm_exp.errors import FitError
from hmm_exp.experiment import fits
from hmm_exp.experiment import run as run_module
from hmm_exp.experiment.artifacts import data_report, write_artifacts
from hmm_exp.experiment.candidate import fit_candidate, train_steps
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import regime_in_words, run
from hmm_exp.judge.return_forecasts import fit_return_densities, fit_static
from hmm_exp.judge.volatility_baselines import VOLATILITY, fit_ewma
from hmm_exp.market.iso import iso
from tests.test_experiment_prepare import edited, rewrite


@pytest.fixture
def result(small_config):
    return run(prepare(checked(small_config)))


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


def test_a_run_is_judged_on_one_thread_of_every_blas(monkeypatch, small_config, result):
    def threads() -> dict[str, int]:
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        return {pool["filepath"]: pool["num_threads"] for pool in pools}

    seen = []
    monkeypatch.setattr(run_module, "judged", lambda *parts: seen.append(threads()) or result)
    with threadpool_limits(2):
        before = threads()
        run(result.prepared)
        assert threads() == before
    assert seen == [dict.fromkeys(before, 1)]
    assert len(before) >= 2  # of NumPy and of SciPy


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


def test_both_engines_find_the_same_optimum(small_config, result):
    small_config.model = replace(small_config.model, engine="hmmlearn", n_iter=500, tol=1e-6)
    theirs = run(prepare(checked(small_config)))
    assert theirs.metrics["log_lik_train"] == pytest.approx(
        result.metrics["log_lik_train"], abs=0.05
    )


def test_refit_uses_validation_rows_for_the_detector_only(small_config, result):
    small_config.model = replace(small_config.model, refit="train_val")
    wider = run(prepare(small_config))
    assert wider.refit is not None
    assert wider.detector.scaler_mean[2] != result.detector.scaler_mean[2]
    assert wider.metrics["bic"] == result.metrics["bic"]
    assert wider.metrics["return_gain_test"] == result.metrics["return_gain_test"]


def test_a_larger_number_of_states_that_cannot_be_fitted_is_tried_all_the_same(
    small_config, monkeypatch
):
    def failing(prepared, n_states, **options):
        if n_states == 4:
            raise FitError("no start")
        return fit_candidate(prepared, n_states, **options)

    monkeypatch.setattr(fits, "fit_candidate", failing)
    for grid, edge in (([2, 3, 4], 0.0), ([2, 3], 1.0), ([3, 4], 0.0)):
        small_config.model = replace(small_config.model, n_states=None, state_grid=grid)
        outcome = run(prepare(checked(small_config)))
        assert (outcome.n_states, outcome.metrics["grid_edge"]) == (3, edge)
        warned = "the best number of states, 3, is the largest tried" in outcome.warnings
        assert warned == bool(edge)
        assert ("4 states: no start" in outcome.warnings) == (4 in grid)


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


def test_a_train_block_opens_its_own_sequence():
    steps = np.array([0, 1, 1, 3, 1])
    rows = np.array([False, False, True, True, True])
    np.testing.assert_array_equal(train_steps(steps, rows), [0, 3, 1])
