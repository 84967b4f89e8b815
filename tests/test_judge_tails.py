"""Tail probabilities of Student-t distributions."""

import numpy as np
import pytest
from scipy.special import stdtr

from hmm_exp.hmm.params import DF_BOUNDS
from hmm_exp.judge.tails import student_t_tail


@pytest.mark.parametrize("df", [DF_BOUNDS[0], 2.6, 5.0, 31.7, DF_BOUNDS[1]])
def test_tails_are_those_of_scipy(df):
    rng = np.random.default_rng(3)
    z = np.concatenate([rng.standard_t(2.5, 5000), np.linspace(-50.0, 50.0, 4001)])
    np.testing.assert_allclose(student_t_tail(df, z), stdtr(df, -np.abs(z)), rtol=1e-10)


def test_the_centre_and_far_numbers_have_tails():
    z = np.array([0.0, 1e-12, 1e4, -1e4, 1e30])
    np.testing.assert_allclose(student_t_tail(3.2, z), stdtr(3.2, -np.abs(z)), rtol=1e-10)


def test_a_number_has_the_same_tail_in_any_company_and_shape():
    z = np.random.default_rng(4).standard_t(3.0, (500, 3)) * 10.0
    whole = student_t_tail(2.9, z)
    assert whole.shape == z.shape
    assert np.array_equal(whole[7:9], student_t_tail(2.9, z[7:9]))
    assert whole[3, 1] == student_t_tail(2.9, z[3, 1:2])[0]
