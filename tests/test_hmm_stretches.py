"""A long series filtered in stretches has the bits of the filter row by row."""

from dataclasses import replace

import numpy as np
import pytest

from hmm_exp import parallel
from hmm_exp.hmm import density, stretches
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.inference import filter, filter_rows
from hmm_exp.hmm.params import GaussianParams
from tests.test_hmm_inference import TYPES, random_params, random_rows, random_steps


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch):
    """Stretches of 40 rows, for series of more than 100."""
    monkeypatch.setattr(stretches, "_LENGTH", 40)
    monkeypatch.setattr(stretches, "_REPEATED", 16)
    monkeypatch.setattr(density, "LONG", 100)


def row_by_row(params, X, steps, carry=None):
    return filter(params.startprob, params.transmat, log_density(params, X), steps, carry)


def assert_same_bits(params, X, steps, carry=None):
    whole = row_by_row(params, X, steps, carry)
    filtered = filter_rows(params, X, steps, carry=carry)
    assert filtered.probs.tobytes() == whole.probs.tobytes()
    assert filtered.log_lik.tobytes() == whole.log_lik.tobytes()


@pytest.fixture
def n_repeated(monkeypatch):
    """Rows that every group of stretches had to repeat."""
    counts, settle = [], stretches._settle

    def count(*arguments):
        counts.append(settle(*arguments))
        return counts[-1]

    monkeypatch.setattr(stretches, "_settle", count)
    return counts


@pytest.mark.parametrize(
    ("covariance_type", "df"), [*((name, None) for name in TYPES), ("diag", 5.0), ("full", 5.0)]
)
@pytest.mark.parametrize("K", [1, 2, 5])
def test_gaps_and_missing_and_far_rows_keep_their_bits(K, covariance_type, df):
    rng = np.random.default_rng([K, TYPES.index(covariance_type), df is None])
    params = random_params(rng, K, 3, covariance_type)
    if df is not None:
        params = replace(params, df=np.full(K, df))
    for T in (101, 327, 1000):
        X, steps = random_rows(rng, T, 3), random_steps(rng, T)
        X[rng.random(T) < 0.02] *= 1e3  # ruled out in every state but one
        X[rng.random(T) < 0.005] = np.inf
        for carry in (None, params.stationary()):
            assert_same_bits(params, X, steps, carry)


def test_a_chain_that_forgets_its_start_repeats_few_rows(n_repeated):
    rng = np.random.default_rng(0)
    params = random_params(rng, 3, 2, sticky=1.0)
    X = random_rows(rng, 5000, 2, missing=0.0)
    assert_same_bits(params, X, np.ones(5000, dtype=int))
    assert len(n_repeated) == 16
    assert sum(n_repeated) < 500


def test_a_chain_that_forgets_slowly_is_exact_too(n_repeated, monkeypatch):
    even = np.full((2, 1), 0.5)
    sticky = np.array([[0.9999, 0.0001], [0.0001, 0.9999]])
    params = GaussianParams(even[0].repeat(2), sticky, np.array([[0.0], [0.01]]), even + 0.5)
    X = np.random.default_rng(0).normal(size=(3000, 1))
    steps = np.ones(3000, dtype=int)
    assert_same_bits(params, X, steps)
    assert len(n_repeated) == 1  # the second group is not even begun
    assert n_repeated[0] > 160

    monkeypatch.setattr(stretches, "_WORTH_IT", 1.0)
    assert_same_bits(params, X, steps)
    assert sum(n_repeated[1:]) > 2500


def test_zeros_in_the_chain_stay_zero():
    params = GaussianParams(
        startprob=np.array([1.0, 0.0, 0.0]),
        transmat=np.array([[0.9, 0.1, 0.0], [0.0, 0.95, 0.05], [0.0, 0.0, 1.0]]),
        means=np.array([[-1.0], [0.0], [1.0]]),
        covars=np.ones((3, 1)),
    )
    X = np.random.default_rng(1).normal(size=(2000, 1))
    assert_same_bits(params, X, np.ones(2000, dtype=int))


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    rng = np.random.default_rng(3)
    params, X, steps = random_params(rng), random_rows(rng, 3000, 2), random_steps(rng, 3000)
    for n in (1, 2, 5):
        monkeypatch.setattr(parallel, "cores", lambda n=n: n)
        assert_same_bits(params, X, steps)


def test_rows_of_another_type_or_order_are_taken():
    rng = np.random.default_rng(4)
    params, X, steps = random_params(rng), random_rows(rng, 700, 2), random_steps(rng, 700)
    assert_same_bits(params, np.asfortranarray(X), steps)
    assert_same_bits(params, X[::-1], steps[::-1])
    assert_same_bits(params, X.astype(np.float32), steps.astype(np.int32))
