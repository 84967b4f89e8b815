"""Accelerated EM ends at the optimum of plain EM, whatever is fitted."""

from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.hmm.em.rows import lay_out
from hmm_exp.hmm.em.run import Priors, em
from hmm_exp.hmm.fit import Search, fit
from hmm_exp.hmm.params import COVARIANCE_TYPES, GaussianParams
from hmm_exp.hmm.starts import released
from tests.test_hmm_em_run import left_to_right, regimes, start_for, steps_of

TOL = 1e-3


def assert_optimum(X, steps, start, **options):
    """Leaps never lower the objective, and end within the tolerance."""
    rows = lay_out(X, steps)
    leaping = em(rows, None, start, n_iter=3000, tol=TOL, accelerate=True, **options)
    further = em(rows, None, leaping.params, n_iter=3000, tol=1e-8, **options)
    plain = em(rows, None, start, n_iter=3000, tol=1e-6, **options)
    assert leaping.status == "tolerance"
    assert np.diff(leaping.objective_history).min() > -1e-11 * abs(leaping.objective)
    assert further.objective < leaping.objective + TOL
    assert leaping.objective > plain.objective - TOL
    again = em(rows, None, leaping.params, n_iter=0, **options)
    assert again.objective == pytest.approx(leaping.objective, rel=1e-12)
    return leaping


def overlapping(n_rows: int = 1500) -> np.ndarray:
    """Returns of two volatilities that last 100 rows, to be fitted by three states."""
    rng = np.random.default_rng(1)
    scale = np.repeat(rng.choice([1.0, 1.6], n_rows // 100), 100)
    return (rng.standard_t(6, n_rows) * scale)[:, None]


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_leaps_reach_the_optimum_with_any_covariances(covariance_type):
    rng = np.random.default_rng(1)
    X = regimes(rng, 1500, 3)
    assert_optimum(X, steps_of([1500]), start_for(rng, X, 3, covariance_type))


@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_leaps_reach_the_optimum_of_student_t_states(covariance_type):
    rng = np.random.default_rng(2)
    X = rng.standard_t(4, (1500, 2)) * np.repeat(rng.choice([1.0, 3.0], 30), 50)[:, None]
    start = start_for(rng, X, 2, covariance_type, df=np.full(2, 8.0))
    assert_optimum(X, steps_of([1500]), start)


def test_leaps_reach_the_optimum_over_gaps_missing_rows_and_many_sequences():
    rng = np.random.default_rng(5)
    X = regimes(rng, 1200, 2)
    X[rng.random(1200) < 0.2] = np.nan
    steps = rng.choice([0, 1, 2, 25], p=[0.05, 0.85, 0.08, 0.02], size=1200)
    assert_optimum(X, steps, start_for(rng, X, 3))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_leaps_honour_priors(covariance_type):
    rng = np.random.default_rng(2)
    X = regimes(rng, 600, 2) + 5.0
    priors = Priors(1.5, 2.0 + 20.0 * np.eye(3), np.array([1.0, -1.0]), 7.0, np.eye(2) + 2.0, 12.0)
    if covariance_type in ("diag", "spherical"):
        priors = replace(priors, covars_prior=3.0)
    assert_optimum(X, steps_of([600]), start_for(rng, X, 3, covariance_type), priors=priors)


@pytest.mark.parametrize("params", ["s", "t", "m", "c", "stm", "mc"])
def test_leaps_change_the_named_parameters_alone(params):
    rng = np.random.default_rng(3)
    X = regimes(rng, 600, 2)
    start = start_for(rng, X, 3, "full")
    ended = em(X, None, start, params=params, tol=TOL, accelerate=True).params
    for name in ("startprob", "transmat", "means", "covars"):
        before, after = getattr(start, name), getattr(ended, name)
        assert (name[0] in params) != np.allclose(before, after, rtol=1e-14)


def test_leaps_keep_forbidden_transitions():
    rng = np.random.default_rng(4)
    X = regimes(rng, 900, 1)
    transmat = np.array([[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.1, 0.0, 0.9]])
    start = start_for(rng, X, 3, transmat=transmat, startprob=np.array([1.0, 0.0, 0.0]))
    ended = assert_optimum(X, steps_of([900]), start).params
    assert (ended.transmat[transmat == 0] == 0).all()
    assert ended.startprob.tolist() == [1, 0, 0]


@pytest.mark.parametrize("seed", [10, 13, 18])
def test_leaps_stop_at_the_covariance_floor(seed):
    rng = np.random.default_rng(seed)
    X = np.c_[regimes(rng, 600, 1), rng.normal(size=600)]
    X = np.c_[X, X.mean(axis=1)]  # the third feature follows from the first two
    result = em(X, None, start_for(rng, X, 2, "full"), tol=TOL, accelerate=True)
    assert result.floor_hits.tolist() == [[False, False, True]] * 2
    assert np.diff(result.objective_history[:-1]).min() > -1e-9


def test_leaps_survive_a_path_lost_to_underflow():
    X, start = left_to_right()
    fast, slow = (
        em(X, None, start, tol=TOL, accelerate=True, log_domain=logs) for logs in (False, True)
    )
    assert 0 < fast.n_log_domain <= fast.n_e_steps == slow.n_log_domain
    assert fast.objective == pytest.approx(slow.objective, abs=TOL)


def test_the_cap_ends_leaps_too():
    rng = np.random.default_rng(7)
    X = regimes(rng, 500, 2)
    result = em(X, None, start_for(rng, X, 3), n_iter=4, accelerate=True)
    assert (result.status, result.n_iter, len(result.history)) == ("cap", 4, 5)
    assert result.n_e_steps >= 5


def test_plain_em_stops_short_where_leaps_do_not():
    X = overlapping()
    start = start_for(np.random.default_rng(2), X, 3)
    start = replace(start, means=np.zeros((3, 1)), covars=np.array([[1.0], [2.0], [4.0]]))
    plain = em(X, None, start, tol=TOL)
    leaping = assert_optimum(X, steps_of([len(X)]), start)
    assert plain.converged
    assert leaping.n_e_steps < plain.n_e_steps
    assert leaping.objective > plain.objective + 0.01


# Transitions that EM loses.


@pytest.fixture(scope="module")
def regimes_and_optimum():
    rng = np.random.default_rng(1)
    X = regimes(rng, 1500, 2)
    start = start_for(rng, X, 3)
    return X, em(X, None, start, n_iter=2000, tol=1e-6, accelerate=True)


@pytest.mark.parametrize("place", [(i, j) for i in range(3) for j in range(3) if i != j], ids=str)
@pytest.mark.parametrize("almost_zero", [1e-8, 1e-20, 1e-150])
def test_a_transition_that_is_almost_zero_returns(regimes_and_optimum, place, almost_zero):
    X, optimum = regimes_and_optimum
    transmat = optimum.params.transmat.copy()
    transmat[place] = almost_zero
    transmat[place[0]] /= transmat[place[0]].sum()
    lost = replace(optimum.params, transmat=transmat)
    returned = em(X, None, lost, tol=TOL, accelerate=True)
    assert returned.converged
    assert returned.objective > optimum.objective - TOL
    assert returned.n_e_steps < 20
    if almost_zero < 1e-8:
        plain = em(X, None, lost, tol=TOL)
        assert plain.converged
        assert plain.objective < optimum.objective - 10


def test_the_state_in_which_a_sequence_starts_returns(regimes_and_optimum):
    X, optimum = regimes_and_optimum
    startprob = np.full(3, 1e-20)
    startprob[(np.argmax(optimum.params.startprob) + 1) % 3] = 1.0
    returned = em(X, None, replace(optimum.params, startprob=startprob), tol=TOL, accelerate=True)
    assert returned.converged
    assert returned.objective > optimum.objective - TOL


def test_every_start_that_says_tolerance_is_at_an_optimum():
    """Without their return 2 of these 60 starts end where a lost transition is wanted."""
    X = overlapping(600)
    rows = lay_out(X, steps_of([600]))
    for seed in range(60):
        start = start_for(np.random.default_rng(seed), X, 4)
        ended = em(rows, None, start, n_iter=1000, tol=TOL, accelerate=True)
        assert ended.status == "tolerance"
        further = em(rows, None, ended.params, n_iter=1500, tol=1e-9)
        assert further.objective < ended.objective + TOL


def test_in_a_released_solution_lost_moves_prevail():
    transmat = np.array([[0.9, 0.1, 0.0], [0.02, 0.95, 0.03], [0.0, 0.0, 1.0]])
    params = GaussianParams(np.eye(3)[0], transmat, np.zeros((3, 1)), np.ones((3, 1)))
    again = released(params)
    assert again.kind == "released"
    np.testing.assert_allclose(again.params.startprob, 1 / 3)
    np.testing.assert_allclose(
        again.params.transmat,
        [[0.9, 0.1 / 11, 1.0 / 11], [0.025, 0.95, 0.025], [0.005, 0.005, 0.99]],
    )
    np.testing.assert_array_equal(again.params.covars, params.covars)


def test_nothing_is_released_where_no_transition_is_lost():
    two = GaussianParams([1.0, 0.0], np.eye(2), [[0.0], [1.0]], [[1.0], [1.0]])
    assert released(two) is None
    even = np.full((3, 3), 1 / 3)
    assert released(GaussianParams(even[0], even, np.zeros((3, 1)), np.ones((3, 1)))) is None


def test_every_seed_finds_the_optimum_of_the_weekly_returns(shared_data):
    """The best known likelihood of three states, S&P 500 2003..2012."""
    returns = np.loadtxt(shared_data / "sp500w.csv", skiprows=1)
    X = ((returns - returns.mean()) / returns.std())[:, None]
    for seed in range(30):
        fitted = fit(X, steps_of([len(X)]), 3, Search(seed=seed))
        assert fitted.converged
        log_lik = fitted.log_lik - len(X) * np.log(returns.std())
        assert log_lik == pytest.approx(1244.66927, abs=0.01)
