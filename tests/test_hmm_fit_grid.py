"""More states are never less likely, or a note reports it; held-out blocks are held out."""

from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.errors import FitError
from hmm_exp.hmm.cross_validation import cross_validate
from hmm_exp.hmm.fit import AGREEMENT, Search, combined, fit_larger, log_likelihood
from tests.test_hmm_fit import PLANTED, fit, planted


def test_the_likelihood_rises_with_the_number_of_states():
    X, steps = planted(800)
    fits, smaller = [], None
    for n_states in (1, 2, 3):
        smaller, note = fit_larger(X, steps, n_states, Search(n_init=3, seed=1), smaller=smaller)
        assert note is None
        fits.append(smaller)
    log_lik = [fitted.log_lik for fitted in fits]
    assert log_lik == sorted(log_lik)
    assert [start.kind for start in fits[2].starts[3:]] == ["split", "split", "released"]


def test_a_shortfall_brings_more_starts_and_is_mended():
    X, steps = planted(800)
    smaller = fit(X, steps, n_states=2, n_init=3)
    starved, note = fit_larger(X, steps, 3, Search(n_init=1, n_iter=1), smaller=smaller)
    assert len(starved.starts) > 1 + 2  # drawn again, and split narrowly
    assert note is None
    assert starved.log_lik > smaller.log_lik - AGREEMENT


def test_a_shortfall_that_stays_is_reported():
    X, steps = planted(300)
    smaller = replace(fit(X, steps, n_states=2, n_init=2), log_lik=0.0)
    _, note = fit_larger(X, steps, 3, Search(n_init=1, n_iter=2), smaller=smaller)
    assert note is not None
    assert "nats less likely than 2 after" in note
    assert "their optimum was not found" in note


def test_two_searches_become_one():
    X, steps = planted(300)
    one, other = (fit(X, steps, n_states=3, n_init=3, seed=seed) for seed in (0, 1))
    both = combined(one, other)
    assert both.starts == one.starts + other.starts
    assert both.objective == max(one.objective, other.objective)
    reached = np.array([start.objective for start in both.starts])
    assert both.restart_agreement == np.mean(reached >= reached.max() - AGREEMENT)


def test_blocks_are_scored_by_models_that_have_not_seen_them():
    X, steps = planted(900)
    result = cross_validate(X, steps, 2, Search(n_init=2), n_blocks=3, embargo=5)
    assert result.n_rows.tolist() == [300, 300, 300]
    assert result.mean == pytest.approx(result.folds.mean())
    assert result.standard_error == pytest.approx(result.folds.std(ddof=1) / np.sqrt(3))
    known = X.copy()
    known[295:605] = np.nan
    params = fit(known, steps, n_states=2, n_init=2).params
    begun = replace(params, startprob=params.stationary())
    until = [log_likelihood(begun, X[:end], steps[:end]) for end in (300, 600)]
    assert result.folds[1] == pytest.approx((until[1] - until[0]) / 300, rel=1e-9)


def test_folds_have_the_same_bits_at_any_number_of_threads():
    X, steps = planted(600)
    X[100:140] = np.nan
    folds = [cross_validate(X, steps, 2, Search(n_init=2, threads=n)).folds for n in (1, 3)]
    np.testing.assert_array_equal(*folds)


def test_cross_validation_finds_the_planted_number_of_states():
    X, steps = planted(3000)
    one, two = (cross_validate(X, steps, K, Search(n_init=3), n_blocks=4) for K in (1, 2))
    assert two.mean > one.mean + two.standard_error
    truth = log_likelihood(PLANTED, X, steps) / 3000
    assert abs(two.mean - truth) < 0.05


@pytest.mark.parametrize("n_blocks", [1, 60])
def test_blocks_without_rows_are_refused(n_blocks):
    X, steps = planted(50)
    with pytest.raises(FitError, match=f"{n_blocks} blocks of 50 complete rows"):
        cross_validate(X, steps, 2, n_blocks=n_blocks)


def test_a_fold_that_cannot_be_fitted_is_named():
    X, steps = planted(40)
    with pytest.raises(FitError, match=r"block . of 2 held out: 30 states need at least 30"):
        cross_validate(X, steps, 30, n_blocks=2)
    beside = "held out, with 15 rows on each side whose windows overlap with it: 0 rows are left"
    with pytest.raises(FitError, match=beside):
        cross_validate(X, steps, 2, n_blocks=3, embargo=15)
