"""Fits find the optimum with a correct status and the same bits, or raise a clear error."""

import logging
import warnings

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM

from hmm_exp.errors import FitError
from hmm_exp.hmm.em.hmmlearn import run_start, segments
from hmm_exp.hmm.fit import Search, fit_from, judge, log_likelihood
from hmm_exp.hmm.fit import fit as search_and_fit
from hmm_exp.hmm.params import GaussianParams, log_prior
from hmm_exp.hmm.starts import StartingPoint, starting_points
from tests.test_hmm_inference import TYPES

PLANTED = GaussianParams(
    [0.5, 0.5], [[0.98, 0.02], [0.05, 0.95]], [[0.1, -0.5], [-0.2, 1.0]], [[0.3, 0.3], [2.0, 1.0]]
)


def fit(X, steps, n_states, **options):
    """`hmm.fit.fit` with the fields of `Search` as options."""
    search = {name: options.pop(name) for name in [*options] if hasattr(Search, name)}
    return search_and_fit(X, steps, n_states, Search(**search), **options)


def planted(T=1500, seed=0):
    """Rows of the planted model and their steps."""
    X = PLANTED.to_hmmlearn().sample(T, random_state=seed)[0]
    steps = np.ones(T, dtype=int)
    steps[0] = 0
    return X, steps


def plain_start(covariance_type="diag", n_states=2):
    X, _ = planted()
    options = {"n_init": 1, "min_covar": 1e-3, "seed": 0}
    return starting_points(X, None, n_states=n_states, covariance_type=covariance_type, **options)[
        0
    ].params


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_planted_model_is_recovered(covariance_type):
    X, steps = planted(3000)
    fitted = fit(X, steps, n_states=2, covariance_type=covariance_type, n_init=4, seed=1)
    order = np.argsort(fitted.params.means[:, 1])
    params = fitted.params.reordered(order)
    np.testing.assert_allclose(params.transmat, PLANTED.transmat, atol=0.03)
    np.testing.assert_allclose(params.means, PLANTED.means, atol=0.25)
    assert fitted.converged
    assert fitted.status == "tolerance"
    assert fitted.n_polished == 4
    assert fitted.restart_agreement == 1.0
    assert [start.kind for start in fitted.starts] == ["quantile", "random"] * 2


@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_run_is_hmmlearns_own_from_the_same_start(covariance_type):
    X, steps = planted()
    start = plain_start(covariance_type)
    ours, run = run_start(X, steps, start, n_iter=7, tol=0.0)

    theirs = GaussianHMM(2, covariance_type=covariance_type, n_iter=7, tol=-np.inf, init_params="")
    theirs.startprob_, theirs.transmat_ = start.startprob, start.transmat
    theirs.means_, theirs.covars_ = start.means, start.covars
    theirs.fit(X)

    theirs = GaussianParams.from_hmmlearn(theirs)
    assert len(run.objective) == 7
    for name in ("startprob", "transmat", "means", "covars"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-8)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_history_is_the_objective_and_never_falls(covariance_type):
    X, steps = planted(60)  # few rows, so that the prior weighs
    start = plain_start(covariance_type)
    params, (log_lik, history) = run_start(X, steps, start, n_iter=300, tol=1e-7)
    assert log_lik[0] == pytest.approx(log_likelihood(start, X, steps))
    assert history[0] == pytest.approx(log_likelihood(start, X, steps) + log_prior(start))
    assert (np.diff(history) > -1e-9).all()
    assert judge(history, 1e-7) == "tolerance"
    end = log_likelihood(params, X, steps) + log_prior(params)
    assert 0 <= end - history[-1] < 1e-7


@pytest.mark.parametrize(
    ("history", "status"),
    [
        ([-10.0, -9.0, -8.9999], "tolerance"),
        ([-10.0, -9.0, -9.0], "tolerance"),
        ([-10.0, -9.0], "cap"),
        ([-10.0], "cap"),
        ([-10.0, -9.0, -9.0001], "fall"),
    ],
)
def test_convergence_is_judged_on_the_last_gain(history, status):
    assert judge(np.array(history), tol=1e-3) == status


def test_reaching_the_cap_is_not_convergence():
    X, steps = planted()
    fitted = fit(X, steps, n_states=2, n_init=2, n_iter=3, tol=1e-9)
    assert fitted.status == "cap"
    assert not fitted.converged
    assert fitted.n_iter == 3


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_same_seed_gives_the_same_bits(covariance_type):
    X, steps = planted()
    options = {"n_states": 3, "covariance_type": covariance_type, "n_init": 3, "n_iter": 20}
    first, again = fit(X, steps, **options, seed=5), fit(X, steps, **options, seed=5)
    other = fit(X, steps, **options, seed=6)
    for name in ("startprob", "transmat", "means", "covars"):
        assert getattr(first.params, name).tobytes() == getattr(again.params, name).tobytes()
    assert [s.log_lik for s in first.starts] == [s.log_lik for s in again.starts]
    assert [s.log_lik for s in first.starts] != [s.log_lik for s in other.starts]


def test_more_starts_leave_the_first_ones_as_they_are():
    X, steps = planted(300)
    few = fit(X, steps, n_states=2, n_init=2, n_iter=5)
    many = fit(X, steps, n_states=2, n_init=5, n_iter=5)
    assert [s.log_lik for s in many.starts[:2]] == [s.log_lik for s in few.starts]


def test_gaps_and_missing_rows_cut_the_data_into_segments():
    X = np.arange(9.0)[:, None]
    X[4] = np.nan
    rows, lengths = segments(X, np.array([0, 1, 3, 1, 1, 1, 1, 0, 1]))
    np.testing.assert_array_equal(rows[:, 0], [0, 1, 2, 3, 5, 6, 7, 8])
    np.testing.assert_array_equal(lengths, [2, 2, 2, 2])


def test_gaps_and_missing_rows_are_bridged_in_the_reported_likelihood():
    X, steps = planted(800)
    X[::50, 1] = np.nan
    steps[100::100] = 3
    fitted = fit(X, steps, n_states=2, n_init=2)
    assert fitted.log_lik == pytest.approx(log_likelihood(fitted.params, X, steps), rel=1e-12)
    assert fitted.converged


def test_the_callers_volatility_ranks_the_rows_of_the_first_start():
    X, steps = planted(400)
    volatility = np.arange(400.0)
    X[3] = np.nan
    seen = ~np.isnan(X).any(axis=1)
    start = starting_points(
        X[seen],
        volatility[seen],
        n_states=2,
        covariance_type="diag",
        n_init=1,
        min_covar=0.0,
        seed=0,
    )[0]
    half = np.arange(399) < 200
    np.testing.assert_allclose(start.params.means[0], X[seen][half].mean(axis=0), atol=0.05)
    assert fit(X, steps, n_states=2, n_init=1, volatility=volatility).n_polished == 1


@pytest.mark.parametrize("n_states", [2, 5, 9])
def test_every_start_is_sticky_and_gives_every_state_some_rows(n_states):
    X, _ = planted(30)
    for _, params in starting_points(
        X, None, n_states=n_states, covariance_type="full", n_init=20, min_covar=1e-3, seed=3
    ):
        stay = np.diagonal(params.transmat)
        assert ((stay >= 0.95) & (stay <= 0.99)).all()
        assert np.linalg.eigvalsh(params.covars).min() > 0


def test_an_outlier_beyond_underflow_is_fitted_all_the_same():
    X, steps = planted(400)
    X[200] = 1e4
    fitted = fit(X, steps, n_states=2, n_init=2)
    assert np.isfinite(fitted.log_lik)


def test_one_state_is_the_single_gaussian():
    X, steps = planted(400)
    fitted = fit(X, steps, n_states=1, n_init=10)
    assert len(fitted.starts) == 1
    assert fitted.converged
    np.testing.assert_allclose(fitted.params.means[0], X.mean(axis=0), atol=1e-12)


def test_hmmlearn_keeps_quiet_and_the_process_is_left_as_it_was(caplog):
    X, steps = planted(12)
    filters, state = list(warnings.filters), np.geterr()
    with caplog.at_level(logging.DEBUG):
        fit(X, steps, n_states=4, n_init=2, n_iter=50)
    assert not caplog.records
    assert warnings.filters == filters
    assert np.geterr() == state
    assert not logging.getLogger("hmmlearn.base").filters


@pytest.mark.parametrize(
    ("rows", "n_states", "message"),
    [(1, 2, "at least 2 complete rows, got 1"), (0, 1, "at least 1 complete rows, got 0")],
)
def test_too_few_rows_are_refused(rows, n_states, message):
    X, steps = planted(5)
    X[rows:] = np.nan
    with pytest.raises(FitError, match=message):
        fit(X, steps, n_states=n_states, n_init=1)


def test_rows_without_neighbours_are_beyond_hmmlearn_alone():
    X, steps = planted(50)
    X[::2] = np.nan
    assert fit(X, steps, n_states=2, n_init=3).n_polished == 3
    with pytest.raises(FitError, match="all 3 starts failed"):
        fit(X, steps, n_states=2, n_init=3, engine="hmmlearn")


def test_a_volatility_that_is_not_finite_is_refused():
    X, steps = planted(50)
    with pytest.raises(FitError, match="not finite in 1 complete rows"):
        fit(X, steps, n_states=2, volatility=np.append(np.ones(49), np.nan))


def test_the_engines_end_at_the_same_place():
    X, steps = planted(1200)
    options = {"n_states": 2, "n_init": 4, "tol": 1e-6, "n_iter": 1000, "seed": 3}
    native, theirs = (
        fit(X, steps, **options, engine=name, accelerate=False) for name in ("native", "hmmlearn")
    )
    assert native.log_lik == pytest.approx(theirs.log_lik, abs=1e-3)
    np.testing.assert_allclose(native.params.means, theirs.params.means, atol=1e-3)
    assert theirs.covar_floor is None
    assert native.covar_floor.shape == (2,)
    for ours, other in zip(native.starts, theirs.starts, strict=True):
        shared = min(len(ours.history), len(other.history)) - 1
        np.testing.assert_allclose(ours.history[:shared], other.history[:shared], rtol=1e-9)
        np.testing.assert_allclose(
            ours.log_lik_history[:shared], other.log_lik_history[:shared], rtol=1e-9
        )


def test_an_unknown_engine_is_refused():
    with pytest.raises(FitError, match="unknown engine 'fast': one of native, hmmlearn"):
        fit(*planted(50), n_states=2, engine="fast")


def test_an_earlier_solution_is_one_more_start():
    X, steps = planted()
    warm = fit(X, steps, n_states=2, n_init=2, initial=PLANTED)
    assert [start.kind for start in warm.starts] == ["quantile", "random", "given"]
    cold = fit(X, steps, n_states=2, n_init=2)
    assert [s.log_lik for s in warm.starts[:2]] == [s.log_lik for s in cold.starts]
    alone = fit(X, steps, n_states=2, n_init=0, initial=PLANTED)
    assert alone.log_lik == warm.starts[2].log_lik
    with pytest.raises(FitError, match="no start"):
        fit(X, steps, n_states=2, n_init=0)


def test_a_start_that_fails_is_kept_with_its_reason_and_out_of_the_rest():
    X, steps = planted(300)
    points = starting_points(
        X, None, n_states=2, covariance_type="diag", n_init=2, min_covar=1e-3, seed=0
    )
    narrow = GaussianParams([0.5, 0.5], np.full((2, 2), 0.5), [[0.0], [1.0]], [[1.0], [1.0]])
    fitted = fit_from([*points, StartingPoint("narrow", narrow)], X, steps)
    failed = fitted.starts[2]
    assert (failed.status, failed.log_lik, len(failed.history)) == ("failed", -np.inf, 0)
    assert failed.reason == "start has 1 features, X has 2"
    assert fitted.n_polished == 2
    assert fitted.restart_agreement in (0.5, 1.0)
