"""Runs with Student-t states: null, files, registry, walk forward."""

import shutil
from dataclasses import replace

import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest

import hmm_exp
from hmm_exp.config import Config, DataConfig, FeaturesConfig, ModelConfig, SplitConfig, checked
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.hmm.fit import Search, fit
from hmm_exp.registry.gate import named_gate
from hmm_exp.registry.promotion import promote
from tests.small_detector import candidate, forget_store, store_in

MODEL = ModelConfig(emission="student_t", n_init=2, n_states=2)
SETTINGS = Config(
    data=DataConfig(n_bars=3000, n_regimes=2, name="synthetic", bar_stamp="open"),
    features=FeaturesConfig(name="returns"),
    model=MODEL,
)
SETTINGS.tracking.figures = False


@pytest.fixture(scope="module")
def result():
    return run(prepare(checked(SETTINGS)))


def test_a_cell_of_student_t_states_is_eligible_and_shares_its_space_with_gaussian_ones(result):
    assert result.chosen.faults == []
    assert result.chosen.params.df is not None
    light = replace(SETTINGS, model=replace(MODEL, emission="gaussian"))
    assert prepare(checked(light)).observation_space == result.prepared.observation_space
    assert prepare(checked(light)).fingerprint != result.prepared.fingerprint


def test_the_null_is_one_student_t(result):
    prepared = result.prepared
    X = prepared.X[prepared.train]
    steps = np.r_[0, prepared.table.steps[prepared.train][1:]]
    one = fit(X, steps, 1, Search(emission="student_t"))
    n_rows = int((~np.isnan(X).any(axis=1)).sum())
    bic = -2 * one.log_lik + 3 * np.log(n_rows)
    assert result.metrics["bic_null"] == pytest.approx(bic, abs=1e-2)
    assert result.metrics["n_params"] == 1 + 2 + 2 * 3


def test_files_hold_our_estimator_and_the_tails(result, tmp_path):
    write_artifacts(result, tmp_path)
    model = joblib.load(tmp_path / "model.joblib")
    params = result.detector.params
    np.testing.assert_array_equal(model.df_, params.df)
    diagnostics = pd.read_csv(tmp_path / "diagnostics.csv").set_index(["table", "column"])["value"]
    np.testing.assert_allclose(diagnostics["tails", "df"], params.df)
    spread = np.sqrt(params.df / (params.df - 2) * params.covars[:, 0]) * result.scaler.scale_[0]
    np.testing.assert_allclose(diagnostics.loc["state_deviations"], spread)


def test_residuals_of_heavy_tails_are_normal(result):
    assert result.metrics["residual_ks_close_logret_current_1H"] < 0.05
    assert result.metrics["residual_tail_share_close_logret_current_1H"] < 0.01


def test_promoted_it_is_served_by_its_uri(result, tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = store_in(tmp_path)
    decision = promote(
        store.client,
        candidate(store, result.detector),
        registry_name="heavy",
        gate=named_gate("off"),
    )
    assert decision.promoted
    bars = result.prepared.source.bars.frame.tail(500).reset_index(drop=True)
    expected = result.detector.filter(bars)
    detector = hmm_exp.load_detector("models:/heavy/Production")
    pd.testing.assert_frame_equal(detector.filter(bars), expected, check_exact=True)
    answer = mlflow.pyfunc.load_model("models:/heavy/Production").predict(bars)
    np.testing.assert_array_equal(answer["p_state_1"], expected["p_state_1"])
    forget_store()


def test_a_walk_forward_refits_the_tails():
    split = SplitConfig(kind="walk_forward", refit_every=450)
    outcome = run(prepare(checked(replace(SETTINGS, split=split))))
    tails = [refit.candidate.params.df for refit in outcome.walk.refits]
    assert len({df.tobytes() for df in tails}) > 1
    np.testing.assert_array_equal(outcome.detector.params.df, tails[-1])
