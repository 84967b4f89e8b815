"""Every hard fault is found and named; a healthy model has none."""

import numpy as np
import pytest

from hmm_exp.hmm.health import (
    HealthLimits,
    bhattacharyya,
    condition_numbers,
    expected_dwell,
    hard_faults,
)
from hmm_exp.hmm.params import GaussianParams

HEALTHY = {
    "startprob": [0.5, 0.5],
    "transmat": [[0.9, 0.1], [0.2, 0.8]],
    "means": [[0.0, 0.0], [2.0, 0.0]],
    "covars": [[1.0, 0.5], [2.0, 1.0]],
    "covariance_type": "diag",
}


def faults(occupancy=(0.6, 0.4), n_rows=1000, status="tolerance", **changes):
    params = GaussianParams(**{**HEALTHY, **changes})
    return hard_faults(params, np.array(occupancy), n_rows, status)


def test_a_healthy_model_has_no_fault():
    assert faults() == []


THIN = np.stack([np.eye(2), [[1.0, 0.9999999], [0.9999999, 1.0]]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "cap"}, "not converged: the cap on iterations was reached"),
        ({"status": "fall"}, "not converged: the objective fell"),
        (
            {"occupancy": (0.996, 0.004), "n_rows": 100_000},
            "state 1 holds 0.40% of the rows (least 1.00%)",
        ),
        ({"n_rows": 100}, "state 1 rests on 40 rows for its 5 parameters (least 50)"),
        (
            {"transmat": [[0.9, 0.1], [0.9, 0.1]]},
            "state 1 is expected to last 1.11 rows (least 2.5)",
        ),
        (
            {"transmat": np.eye(2)},
            "the transition matrix has more than one stationary distribution",
        ),
        (
            {"covariance_type": "full", "covars": THIN},
            "the covariance of state 1 has condition number 2e+07 (most 1e+06)",
        ),
        (
            {"covars": [[1.0, 9e-4], [2.0, 1.0]]},
            "feature 1 of state 0 has variance 0.0009 (least 0.001)",
        ),
        (
            {"means": [[0.0, 0.0], [0.1, 0.0]], "covars": [[1.0, 1.0], [1.0, 1.0]]},
            "states 0 and 1 are nearly the same: Bhattacharyya distance 0.00125 (least 0.02)",
        ),
    ],
)
def test_every_fault_is_named(change, message):
    assert faults(**change) == [message]


def test_a_fault_names_the_feature_by_its_name():
    params = GaussianParams(**{**HEALTHY, "covars": [[1.0, 9e-4], [2.0, 1.0]]})
    occupancy = np.array([0.6, 0.4])
    (fault,) = hard_faults(params, occupancy, 1000, "tolerance", features=("r", "range"))
    assert fault == "range of state 0 has variance 0.0009 (least 0.001)"


def test_a_short_stay_above_the_limit_is_no_fault():
    assert faults(transmat=[[0.9, 0.1], [0.39, 0.61]]) == []


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.9, 0.1], [0.4, 0.35, 0.25], [0.25] * 4])
def test_independent_draws_always_have_a_state_that_lasts_too_short(weights):
    dwell = expected_dwell(np.tile(weights, (len(weights), 1)))
    assert dwell.min() < HealthLimits().min_dwell - 0.4


def test_limits_are_the_callers():
    params = GaussianParams(**HEALTHY)
    limits = HealthLimits(min_occupancy=0.45, min_dwell=8.0)
    assert len(hard_faults(params, np.array([0.6, 0.4]), 1000, "tolerance", limits)) == 2


def test_dwell_times_are_geometric_means():
    params = GaussianParams(**{**HEALTHY, "transmat": [[1.0, 0.0], [0.2, 0.8]]})
    np.testing.assert_allclose(expected_dwell(params.transmat), [np.inf, 5.0])


def test_condition_numbers_are_ratios_of_eigenvalues():
    np.testing.assert_allclose(condition_numbers(GaussianParams(**HEALTHY)), [2.0, 2.0])


def test_bhattacharyya_distance_is_the_overlap_of_the_densities():
    """Against - ln of the integral of sqrt(p q), on one feature."""
    params = GaussianParams([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], [[0.0], [1.5]], [[1.0], [3.0]])
    x = np.linspace(-30, 30, 200_001)
    density = [
        np.exp(-0.5 * (x - m) ** 2 / v) / np.sqrt(2 * np.pi * v) for m, v in ((0, 1), (1.5, 3))
    ]
    overlap = np.sum(np.sqrt(density[0] * density[1])) * (x[1] - x[0])
    distance = bhattacharyya(params)
    assert distance[0, 1] == pytest.approx(-np.log(overlap), abs=1e-9)
    np.testing.assert_allclose(np.diagonal(distance), 0.0, atol=1e-15)
