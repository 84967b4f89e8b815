"""Student-t states: densities, EM against enumeration, planted parameters, published figures."""

from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats
from scipy.special import logsumexp

from hmm_exp import StudentTHMM
from hmm_exp.errors import FitError, ModelError
from hmm_exp.hmm.cross_validation import cross_validate
from hmm_exp.hmm.density import log_density
from hmm_exp.hmm.em.run import em
from hmm_exp.hmm.estimator import plain_estimator
from hmm_exp.hmm.fit import Search, fit, fit_larger
from hmm_exp.hmm.health import hard_faults
from hmm_exp.hmm.inference import filter_rows
from hmm_exp.hmm.params import COVARS_PRIOR, DF_BOUNDS, GaussianParams
from hmm_exp.hmm.starts import merge, split
from tests import reference

TRANSMAT = np.array([[0.95, 0.05], [0.1, 0.9]])
HEAVY = pytest.mark.parametrize("covariance_type", ["diag", "full"])


def two_states(covariance_type: str = "diag", n_features: int = 2, df=(4.0, 30.0)):
    """A calm and a turbulent state with different tails."""
    spread = np.array([[1.0, 0.5, 2.0], [9.0, 6.0, 4.0]])[:, :n_features]
    full = np.einsum("ki,ij->kij", spread, np.eye(n_features))
    full += 0.2 * (1 - np.eye(n_features))
    return GaussianParams(
        startprob=np.array([0.6, 0.4]),
        transmat=TRANSMAT,
        means=np.array([[0.3, 0.0, 1.0], [-1.0, 0.5, 0.0]])[:, :n_features],
        covars=spread if covariance_type == "diag" else full,
        covariance_type=covariance_type,
        df=np.array(df),
    )


def sample(params: GaussianParams, n_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the model and their states: Gaussian rows divided by the root of a precision."""
    rng = np.random.default_rng(seed)
    states = np.zeros(n_rows, dtype=int)
    for t in range(1, n_rows):
        states[t] = rng.choice(params.n_states, p=params.transmat[states[t - 1]])
    df = params.df[states]
    precision = rng.chisquare(df) / df
    factor = np.linalg.cholesky(params.full_covars())[states]
    away = np.einsum("tij,tj->ti", factor, rng.standard_normal((n_rows, params.n_features)))
    return params.means[states] + away / np.sqrt(precision)[:, None], states


def one_sequence(n_rows: int) -> np.ndarray:
    steps = np.ones(n_rows, dtype=np.int64)
    steps[0] = 0
    return steps


# Densities.


@HEAVY
@pytest.mark.parametrize("n_features", [1, 3])
def test_densities_are_scipys_and_a_missing_row_has_none(covariance_type, n_features):
    params = two_states(covariance_type, n_features, df=(2.1, 200.0))
    X = 3 * np.random.default_rng(0).standard_normal((50, n_features))
    X[0], X[1, -1] = 1e6, np.nan
    ours = log_density(params, X)
    np.testing.assert_allclose(ours, reference.log_density(params, X), rtol=1e-11)
    assert (ours[1] == 0.0).all()


def test_the_future_changes_no_filtered_probability():
    params = two_states("full")
    X, _ = sample(params, 300)
    changed = X.copy()
    changed[200:] = 50.0
    before, after = (filter_rows(params, rows, one_sequence(300)) for rows in (X, changed))
    np.testing.assert_array_equal(before.probs[:200], after.probs[:200])
    np.testing.assert_array_equal(before.log_lik[:200], after.log_lik[:200])


# EM.


def expected_update(start: GaussianParams, X, steps) -> GaussianParams:
    """One iteration by enumeration of all paths, and the formulas of `em.student_t`."""
    log_lik, filled, place = reference.fill_gaps(reference.log_density(start, X), steps)
    model = (start.startprob, start.transmat, log_lik, filled)
    smoothed, pairs = reference.smoothed_probs(*model), reference.expected_pairs(*model)
    begins = smoothed[filled == 0].sum(axis=0)
    observed = ~np.isnan(X).any(axis=1)
    posterior, rows, D = smoothed[place][observed], X[observed], X.shape[1]
    means, covars, df = start.means.copy(), start.full_covars(), start.df.copy()
    for k, old in enumerate(start.df):
        away = rows - start.means[k]
        distance = np.einsum("ti,ij,tj->t", away, np.linalg.inv(covars[k]), away)
        u, q = (old + D) / (old + distance), posterior[:, k]
        means[k] = (q * u) @ rows / (q * u).sum()
        away = rows - means[k]
        full = start.covariance_type == "full"
        prior = COVARS_PRIOR * (np.ones((D, D)) if full else np.eye(D))
        scatter = (q * u * away.T) @ away
        covars[k] = (prior + (scatter if full else np.diag(np.diag(scatter)))) / q.sum()
        pull = np.trace(np.linalg.inv(covars[k]) @ prior)
        mass, weight = old * q.sum(), old * (q * u).sum()
        a = (np.sqrt(mass**2 + 4 * pull * weight) - mass) / (2 * pull)
        covars[k] /= a
        df[k] = next_df(old, D, a, u, q)
    covars = covars if start.covariance_type == "full" else np.diagonal(covars, axis1=1, axis2=2)
    transmat = pairs / pairs.sum(axis=1, keepdims=True)
    return replace(
        start, startprob=begins / begins.sum(), transmat=transmat, means=means, covars=covars, df=df
    )


def next_df(old, D, a, u, q) -> float:
    """The root of the score of df, stretched by the ratio of the informations."""
    log_u = np.log(u) + special.psi((old + D) / 2) - np.log((old + D) / 2)

    def score(df):
        rows = 1 + np.log(df / 2) - special.psi(df / 2) + log_u - np.log(a) - u / a
        return q @ rows

    low, high = DF_BOUNDS
    if score(low) <= 0:
        root = low
    else:
        root = high if score(high) >= 0 else optimize.brentq(score, low, high, xtol=1e-13)
    half, more = special.polygamma(1, old / 2) / 2, special.polygamma(1, (old + D) / 2) / 2
    observed = half - more - D * (old + D + 4) / (old * (old + D) * (old + D + 2))
    step = np.log(root / old) * (half - 1 / old) / observed
    return float(np.clip(old * np.exp(np.clip(step, -1, 1)), low, high))


@HEAVY
@pytest.mark.parametrize("log_domain", [False, True])
@pytest.mark.parametrize("steps", [[0, 1, 1, 1, 1, 1, 1], [0, 1, 3, 1, 0, 1, 2]])
def test_an_iteration_is_that_of_the_formulas(covariance_type, steps, log_domain):
    start = two_states(covariance_type, df=(5.0, 12.0))
    X = np.random.default_rng(3).standard_t(3, (7, 2)) * 2
    X[2, 0] = X[5, 1] = np.nan
    steps = np.array(steps)
    result = em(X, steps, start, n_iter=1, tol=-np.inf, log_domain=log_domain)
    log_lik, filled, _ = reference.fill_gaps(reference.log_density(start, X), steps)
    paths = reference.enumerate_paths(start.startprob, start.transmat, log_lik, filled)
    assert result.history[0] == pytest.approx(logsumexp(paths.log_joint), rel=1e-11)
    wanted = expected_update(start, X, steps)
    for name in ("startprob", "transmat", "means", "covars", "df"):
        ours, theirs = getattr(result.params, name), getattr(wanted, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, err_msg=name)


@HEAVY
@pytest.mark.parametrize("n_rows", [57, 1003])
def test_lanes_agree_with_the_log_domain(covariance_type, n_rows):
    X, _ = sample(two_states(covariance_type, 3), n_rows, seed=n_rows)
    X[5:9] = np.nan
    start = two_states(covariance_type, 3, df=(8.0, 8.0))
    fast, slow = (em(X, None, start, n_iter=10, tol=-np.inf, log_domain=d) for d in (False, True))
    assert fast.n_log_domain == 0
    np.testing.assert_allclose(fast.history, slow.history, rtol=1e-10)
    np.testing.assert_allclose(fast.params.df, slow.params.df, rtol=1e-7)
    np.testing.assert_allclose(fast.mass, slow.mass, rtol=1e-7)


@HEAVY
@pytest.mark.parametrize("tails", ["t", "gaussian", "uniform", "repeated"])
def test_no_iteration_lowers_the_objective(covariance_type, tails):
    rng = np.random.default_rng(7)
    X = {
        "t": rng.standard_t(2.2, (800, 2)),
        "gaussian": rng.standard_normal((800, 2)),
        "uniform": rng.uniform(-1, 1, (800, 2)),
        "repeated": np.round(rng.standard_t(3, (800, 2))),
    }[tails]
    X[::3] *= 4.0
    fitted = em(X, None, two_states(covariance_type), n_iter=300, tol=1e-6)
    assert fitted.status != "fall"
    gains = np.diff(fitted.objective_history)
    assert gains.min() > -1e-11 * abs(fitted.objective)
    assert (DF_BOUNDS[0] <= fitted.params.df).all()
    assert (fitted.params.df <= DF_BOUNDS[1]).all()


@HEAVY
def test_planted_states_are_recovered(covariance_type):
    planted = two_states(covariance_type, df=(4.0, 12.0))
    X, states = sample(planted, 20_000)
    search = Search(covariance_type, "student_t", n_init=4, threads=1)
    fitted = fit(X, one_sequence(len(X)), 2, search)
    params = fitted.params.reordered(np.argsort(fitted.params.full_covars()[:, 0, 0]))
    assert fitted.converged
    assert fitted.restart_agreement == 1.0
    np.testing.assert_allclose(params.means, planted.means, atol=0.12)
    np.testing.assert_allclose(params.full_covars(), planted.full_covars(), rtol=0.1, atol=0.12)
    np.testing.assert_allclose(params.df, planted.df, rtol=0.25)
    filtered = filter_rows(params, X, one_sequence(len(X))).probs.argmax(axis=1)
    truth = filter_rows(planted, X, one_sequence(len(X))).probs.argmax(axis=1)
    assert (filtered == states).mean() > (truth == states).mean() - 0.005


def test_gaussian_rows_end_at_a_large_df_with_the_gaussian_likelihood():
    X = np.random.default_rng(11).standard_normal((5000, 1))
    steps = one_sequence(5000)
    heavy = fit(X, steps, 1, Search(emission="student_t", threads=1))
    light = fit(X, steps, 1, Search(threads=1))
    assert heavy.converged
    assert heavy.params.df[0] > 50.0
    assert heavy.log_lik == pytest.approx(light.log_lik, abs=1.0)


def test_one_state_is_the_student_t_of_scipy():
    X = stats.t.rvs(4.0, 0.5, 2.0, size=3000, random_state=1)[:, None]
    fitted = fit(X, one_sequence(3000), 1, Search(emission="student_t", tol=1e-9, threads=1))
    theirs = stats.t.fit(X)
    assert fitted.log_lik == pytest.approx(stats.t.logpdf(X, *theirs).sum(), abs=1e-3)
    ours = fitted.params.df[0], fitted.params.means[0, 0], fitted.params.covars[0, 0] ** 0.5
    np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-3)


def test_the_published_fit_of_the_dax(shared_data):
    """fHMM (Oelschlaeger, Adam & Michels 2024): three states, log-likelihood 17650.02."""
    returns = pd.read_csv(shared_data / "dax_log_returns.csv").iloc[:, -1].to_numpy(float)
    spread = returns.std()
    X = ((returns - returns.mean()) / spread)[:, None]
    fitted = fit(X, one_sequence(len(X)), 3, Search(emission="student_t", seed=42))
    order = np.argsort(-fitted.params.covars[:, 0])
    assert fitted.converged
    assert fitted.log_lik - len(X) * np.log(spread) >= 17650.02
    sigma = spread * np.sqrt(fitted.params.covars[order, 0])
    np.testing.assert_allclose(sigma, [0.0259, 0.0130, 0.0058], rtol=0.01)
    np.testing.assert_allclose(fitted.params.df[order], [10.8, 48.7, 5.2], rtol=0.05)


# What surrounds a fit.


def test_more_states_start_from_fewer_and_blocks_are_held_out():
    X, _ = sample(two_states("diag", 1), 1500)
    steps, search = one_sequence(1500), Search(emission="student_t", n_init=2, threads=1)
    one = fit(X, steps, 1, search)
    two, note = fit_larger(X, steps, 2, search, smaller=one)
    assert note is None
    assert two.log_lik > one.log_lik
    assert "split" in {start.kind for start in two.starts}
    heavy, light = (
        cross_validate(X, steps, 2, replace(search, emission=emission), n_blocks=3).mean
        for emission in ("student_t", "gaussian")
    )
    assert heavy > light


def test_split_merged_and_reordered_states_keep_their_tails():
    params = two_states("full")
    np.testing.assert_array_equal(params.reordered(np.array([1, 0])).df, [30.0, 4.0])
    np.testing.assert_array_equal(split(params, 0).df, [4.0, 30.0, 4.0])
    share = params.stationary()
    assert merge(params, 0, 1).df[0] == pytest.approx(share @ params.df)


def test_every_state_counts_one_parameter_more():
    heavy = two_states("diag")
    light = replace(heavy, df=None)
    assert heavy.n_parameters() == light.n_parameters() + 2
    assert hard_faults(heavy, np.array([0.5, 0.5]), 110, "tolerance") != []
    assert hard_faults(light, np.array([0.5, 0.5]), 110, "tolerance") == []


def test_covariances_are_those_of_the_rows():
    params = two_states("full", df=(8.0, 8.0))
    X, states = sample(params, 40_000)
    for k in range(2):
        np.testing.assert_allclose(
            np.cov(X[states == k].T), params.covariances()[k], rtol=0.06, atol=0.06
        )


def test_stored_parameters_have_df_only_when_heavy_tailed():
    heavy = two_states("full")
    again = GaussianParams.from_dict(heavy.to_dict())
    np.testing.assert_array_equal(again.df, heavy.df)
    assert "df" not in replace(heavy, df=None).to_dict()
    for df, rule in (([4.0], "df has shape"), ([4.0, 2.0], "must be above 2"), (None, "df")):
        with pytest.raises(ModelError, match=rule):
            GaussianParams.from_dict(heavy.to_dict() | {"df": df})


@pytest.mark.parametrize("covariance_type", ["tied", "spherical"])
def test_other_covariances_are_refused(covariance_type):
    covars = np.eye(2) if covariance_type == "tied" else np.ones(2)
    with pytest.raises(FitError, match=f"Student-t states with {covariance_type} covariances"):
        replace(two_states(), covars=covars, covariance_type=covariance_type)


def test_hmmlearn_is_refused():
    X, _ = sample(two_states(), 200)
    with pytest.raises(FitError, match="engine 'hmmlearn' has no Student-t states"):
        fit(X, one_sequence(200), 2, Search(emission="student_t", engine="hmmlearn"))
    with pytest.raises(FitError, match="hmmlearn has no Student-t states"):
        two_states().to_hmmlearn()


@HEAVY
def test_the_estimator_fits_filters_and_survives_joblib(covariance_type, tmp_path):
    X, _ = sample(two_states(covariance_type), 600)
    model = StudentTHMM(2, covariance_type, n_init=2, random_state=0, n_jobs=1).fit(X)
    assert model.monitor_.converged
    assert model.score(X) == pytest.approx(model.fit_.log_lik)
    plain = plain_estimator(model.fit_.params)
    joblib.dump(plain, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(again.filter(X), model.filter(X))
    np.testing.assert_array_equal(again.df_, model.df_)
    resumed = StudentTHMM(2, covariance_type, init_params="")._take(model.fit_.params).fit(X)
    assert resumed.score(X) >= model.score(X) - 1e-3
