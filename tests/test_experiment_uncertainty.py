"""Standard errors of a run: raw units, features of windows, refits, degenerate fits."""

from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.config import Config, FeaturesConfig, SelectionConfig, checked
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.experiment.uncertainty import dependent_rows
from hmm_exp.features.recipe import Recipe


def result_of(config: Config, features: str, n_states: int = 2, refit: str = "train"):
    config.features = FeaturesConfig(name=features)
    config.model = replace(config.model, n_states=n_states, refit=refit)
    return run(prepare(checked(config)))


def table(result, name):
    """A table of the diagnostics by row and column; empty if the run has none."""
    rows = result.assessment.diagnostics.query("table == @name")
    return rows.set_index(["row", "column"])["value"]


def test_errors_are_in_the_units_of_the_features(small_config):
    result = result_of(small_config, "range")
    means, errors = table(result, "state_means"), table(result, "state_means_se")
    sigma = table(result, "state_deviations")
    n_rows = result.metrics["n_rows_train"] * result.chosen.occupancy
    # The states of the log range are far apart and persist: their means are nearly sample means.
    np.testing.assert_allclose(errors, sigma / np.sqrt(n_rows), rtol=0.1)
    low, high = table(result, "state_means_lower"), table(result, "state_means_upper")
    np.testing.assert_allclose((low + high) / 2, means, rtol=1e-12)
    for name in ("transition_matrix", "state_deviations"):
        inside = table(result, name)
        assert (table(result, f"{name}_lower") < inside).all()
        assert (inside < table(result, f"{name}_upper")).all()
        assert len(table(result, f"{name}_robust_se")) == len(inside)
    assert result.no_errors == ""


def test_features_of_windows_have_robust_errors_alone(small_config):
    result = result_of(small_config, "v1")
    assert len(table(result, "state_means_se")) == 0
    assert len(table(result, "state_means_robust_se")) == 6
    errors = result.detector.errors
    assert errors.window == dependent_rows(result.prepared.recipe, int(result.prepared.train.sum()))
    np.testing.assert_allclose(
        errors.means.upper - errors.means.value, 1.959964 * errors.means.robust, rtol=1e-6
    )


def test_scores_depend_over_the_longest_window_and_over_three_roots_of_the_rows():
    assert dependent_rows(Recipe.of_set("range", ["1H"]), 10_000) == 1
    assert dependent_rows(Recipe.of_set("range", ["1H", "4H"]), 10_000) == 300
    assert dependent_rows(Recipe.of_set("v1", ["1H"]), 10_000) == 300
    assert dependent_rows(Recipe.of_set("v2", ["1H"]), 10_000) == 720
    assert dependent_rows(Recipe.of_set("v2", ["1H"]), 500) == 500


def test_the_detector_has_the_errors_of_its_own_fit(small_config):
    result = result_of(small_config, "range", refit="train_val")
    assert result.refit is not None
    np.testing.assert_array_equal(result.detector.errors.means.value, result.refit.params.means)
    scale = result.scaler.scale_
    on_train = table(result, "state_means_se").to_numpy()
    served = (result.detector.errors.means.error * scale)[:, 0]
    assert (served < on_train).all()  # it has more rows


def test_a_degenerate_fit_has_no_errors(small_config):
    small_config.selection = SelectionConfig(min_occupancy=0.45)
    result = result_of(small_config, "range", n_states=3)
    assert result.faults
    assert result.no_errors.startswith("no errors: the fit is degenerate: state ")
    assert not any(name.endswith("_se") for name in result.assessment.diagnostics["table"])


def test_one_state_has_errors_without_transitions(small_config):
    result = result_of(small_config, "returns", n_states=1)
    assert result.no_errors == "no error for transitions at probability 1: 0 to 0"
    assert len(table(result, "transition_matrix_se")) == 0
    sigma, n = table(result, "state_deviations").iloc[0], result.metrics["n_rows_train"]
    assert table(result, "state_means_se").iloc[0] == pytest.approx(sigma / np.sqrt(n), rel=1e-3)
