"""The table of a detector's estimates, and the standard errors in its file."""

from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.detector.detector import Detector
from hmm_exp.hmm.params import DF_BOUNDS
from hmm_exp.uncertainty.estimates import estimates_of, without_errors
from tests.small_detector import small_detector

N_ERRORS = 4 + 2 * 6  # two states, three features


@pytest.fixture
def detector() -> Detector:
    plain = small_detector()
    error = np.linspace(0.01, 0.02, N_ERRORS)
    error[1] = np.nan
    errors = estimates_of(plain.params, error, 2 * error, level=0.9)
    return replace(plain, errors=replace(errors, reason="one is missing"))


def line(detector: Detector, name: str) -> list[str]:
    """Numbers of the first line of a parameter."""
    rows = [row for row in detector.summary().splitlines() if row.startswith(f"  {name} ")]
    return rows[0].removeprefix(f"  {name}").split()


def test_every_parameter_has_its_numbers_in_raw_units(detector):
    assert line(detector, "calm -> calm") == ["0.95", "0.01", "0.02", "0.9307", "0.9641"]
    mean = detector.params.means[0, 2] * 0.001 + 0.004
    name = "calm close_parkinson_20_1H"
    error = np.linspace(0.01, 0.02, N_ERRORS)[6] * 0.001
    ends = [mean - 1.644854 * error, mean + 1.644854 * error]
    expected = [f"{number:.4g}" for number in (mean, error, 2 * error, *ends)]
    assert line(detector, name) == expected
    assert "[0.050" in detector.summary()
    assert len(detector.summary().splitlines()) == 2 + 3 + 3 + N_ERRORS + 1 + 2


def test_a_missing_error_is_blank_and_has_its_reason(detector):
    assert line(detector, "calm -> turbulent") == ["0.05"]
    assert detector.summary().splitlines()[-1] == "one is missing"


def test_the_summary_survives_the_file(detector, tmp_path):
    detector.save(tmp_path / "detector.json")
    assert Detector.load(tmp_path).summary() == detector.summary()
    windows = replace(detector, errors=replace(detector.errors, window=300))
    windows.save(tmp_path / "detector.json")
    assert "Newey-West weights over 300 rows" in Detector.load(tmp_path).summary()


def test_a_detector_without_errors_shows_its_estimates_and_why(tmp_path):
    detector = small_detector()
    detector.save(tmp_path / "detector.json")
    loaded = Detector.load(tmp_path)
    assert loaded.errors is None
    assert line(loaded, "turbulent -> turbulent") == ["0.9"]
    assert "from a version of hmm_exp that kept none" in loaded.summary()


def test_a_degenerate_fit_keeps_its_reason_in_the_file(tmp_path):
    plain = small_detector()
    errors = without_errors(plain.params, "the fit is degenerate: two states are one")
    replace(plain, errors=errors).save(tmp_path / "detector.json")
    assert "two states are one" in Detector.load(tmp_path).summary()


def test_student_t_states_have_scales_and_degrees_of_freedom(tmp_path):
    plain = small_detector()
    params = replace(plain.params, df=np.array([5.0, 30.0]))
    error = np.linspace(0.01, 0.02, N_ERRORS + 6 + 2)
    detector = replace(plain, params=params, errors=estimates_of(params, error, error))
    detector.save(tmp_path / "detector.json")
    loaded = Detector.load(tmp_path)
    assert loaded.summary() == detector.summary()
    assert loaded.summary().startswith("Student-t hidden Markov model of synthetic: 2 states")
    rows = loaded.summary().splitlines()
    first = rows.index("degrees of freedom") + 1
    assert [row.split()[:2] for row in rows[first : first + 2]] == [
        ["calm", "5"],
        ["turbulent", "30"],
    ]
    scale = np.sqrt(plain.params.covars[0, 2]) * 0.001
    assert rows[rows.index("scales") + 3].split()[2] == f"{scale:.4g}"


def test_an_interval_of_df_stays_where_a_df_can_be():
    plain = small_detector().params
    params = replace(plain, df=np.array([3.0, 150.0]))
    error = np.full(N_ERRORS + 8, 100.0)
    df = estimates_of(params, error, error).tails[1]
    np.testing.assert_array_equal([df.lower[0], df.upper[1]], DF_BOUNDS)


def test_a_summary_without_any_error_explains_none():
    plain = small_detector()
    text = replace(plain, errors=without_errors(plain.params, "a fault")).summary()
    assert "no errors: a fault" in text
    assert "sandwich" not in text
