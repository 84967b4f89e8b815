"""The burn-in covers every start, and a start that is never forgotten is an error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exp.errors import FitError
from hmm_exp.hmm.burnin import burn_in
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.inference import filter
from hmm_exp.hmm.params import GaussianParams
from tests import reference
from tests.test_hmm_inference import random_params, random_rows, random_steps


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_burn_in_is_the_worst_start_and_at_most_15_bars_more(seed, gaps):
    rng = np.random.default_rng(seed)
    params = random_params(rng, 3, 2, sticky=2.0)
    steps = random_steps(rng, 50) if gaps else np.r_[0, np.ones(49, dtype=int)]
    log_lik = log_density(params, random_rows(rng, 50, 2)) * rng.choice([0.05, 0.3, 1.0])
    exact = reference.bars_to_agreement(params, log_lik, steps, 1e-6)
    if exact is None:
        with pytest.raises(FitError, match="still depends"):
            burn_in(params, log_lik, steps)
    else:
        assert exact <= burn_in(params, log_lik, steps) <= exact + 15


def test_a_new_sequence_ends_all_memory():
    params = GaussianParams([0.5, 0.5], np.eye(2), [[0.0], [0.0]], [[1.0], [1.0]])
    steps = np.ones(100, dtype=int)
    steps[40] = steps[70] = 0
    assert 41 <= burn_in(params, np.zeros((100, 2)), steps) <= 56


def test_any_two_starts_agree_after_the_burn_in():
    rng = np.random.default_rng(1)
    params = random_params(rng, 3, 2, sticky=20.0)
    log_lik = log_density(params, params.to_hmmlearn().sample(2000, random_state=2)[0])
    steps = np.ones(2000, dtype=int)
    bars = burn_in(params, log_lik, steps)
    for first in rng.integers(0, 2000 - bars, 50):
        window = slice(first, first + bars)
        one, two = (
            filter(start, params.transmat, log_lik[window], steps[window]).probs[-1]
            for start in rng.dirichlet(np.full(3, 0.1), 2)
        )
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize("T", [5, 300, 12_000])
def test_a_chain_that_never_forgets_is_refused(T):
    params = GaussianParams([0.5, 0.5], np.eye(2), [[0.0], [0.0]], [[1.0], [1.0]])
    with pytest.raises(FitError, match="still depends on its start"):
        burn_in(params, np.zeros((T, 2)), np.ones(T, dtype=int))


def test_one_state_needs_no_burn_in():
    params = GaussianParams([1.0], [[1.0]], [[0.0]], [[1.0]])
    assert burn_in(params, np.zeros((9, 1)), np.ones(9, dtype=int)) == 1
