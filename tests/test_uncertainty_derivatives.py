"""Scores and Hessian of a hidden Markov model, compared with differences of a slow likelihood."""

import numpy as np
import pytest

from hmm_exp.hmm.params import GaussianParams
from hmm_exp.uncertainty.derivatives import derivatives
from tests import reference


def example(
    kind: str, df: list[float] | None = None
) -> tuple[GaussianParams, np.ndarray, np.ndarray]:
    """Two states, two features, 14 rows with a missing one, a gap and two sequences."""
    rng = np.random.default_rng(3)
    lower = 0.4 * rng.normal(size=(2, 2, 2))
    matrices = np.eye(2) + lower @ lower.swapaxes(1, 2)
    variances = rng.uniform(0.5, 2.0, (2, 2))
    covars = {"full": matrices, "tied": matrices[0], "diag": variances, "spherical": variances[0]}
    transmat = np.array([[0.7, 0.3], [0.4, 0.6]])
    params = GaussianParams([0.2, 0.8], transmat, rng.normal(size=(2, 2)), covars[kind], kind, df)
    X = 1.5 * rng.normal(size=(14, 2))
    X[5] = np.nan
    steps = np.ones(14, dtype=np.int64)
    steps[[0, 4, 9]] = 0, 4, 0
    return params, X, steps


def at(params: GaussianParams, theta: np.ndarray) -> GaussianParams:
    """The model at free parameters `theta`, in the order of `Derivatives`."""
    kind, logs = params.covariance_type, theta[6:]
    log_df = 0.0
    if params.df is not None:
        logs, log_df = logs[:-2], logs[-2:]
    if kind == "spherical":
        M = logs[:, None, None] * np.eye(2)
    elif kind == "diag":
        M = logs.reshape(2, 2, 1) * np.eye(2)
    else:
        a, b, c = np.broadcast_to(logs.reshape(-1, 3), (2, 3)).T
        M = np.array([[a, b], [b, c]]).transpose(2, 0, 1)
    logits = np.array([[0.0, theta[0]], [theta[1], 0.0]])
    return reference.moved(params, logits, theta[2:6].reshape(2, 2), M, log_df)


@pytest.mark.parametrize(
    ("kind", "df"),
    [
        ("diag", None),
        ("full", None),
        ("tied", None),
        ("spherical", None),
        ("diag", [3.0, 20.0]),
        ("full", [5.0, 2.5]),
    ],
)
def test_the_hessian_is_that_of_the_slow_likelihood(kind, df):
    params, X, steps = example(kind, df)
    slopes = derivatives(params, X, steps)

    def log_likelihood(theta):
        return reference.log_likelihood(at(params, theta), X, steps)

    n_free = slopes.scores.shape[1]
    expected = reference.hessian(log_likelihood, n_free)
    np.testing.assert_allclose(slopes.hessian, expected, rtol=1e-5, atol=1e-5 * abs(expected).max())
    gradient = reference.gradient(log_likelihood, n_free)
    np.testing.assert_allclose(slopes.scores.sum(axis=0), gradient, rtol=1e-7, atol=1e-8)


def test_natural_parameters_have_their_derivatives():
    params, X, steps = example("full", [5.0, 2.5])

    def natural(theta):
        there = at(params, theta)
        parts = (there.transmat, there.means, there.deviations(), there.scales(), there.df)
        return np.concatenate([part.ravel() for part in parts])

    slopes = derivatives(params, X, steps)
    expected = reference.gradient(natural, slopes.scores.shape[1])
    np.testing.assert_allclose(slopes.natural, expected, rtol=1e-7, atol=1e-9)


def test_df_at_a_bound_is_no_parameter():
    params, X, steps = example("diag", [5.0, 200.0])
    slopes = derivatives(params, X, steps)
    assert slopes.fixed_df.tolist() == [False, True]
    free = derivatives(*example("diag", [5.0, 100.0]))
    assert slopes.scores.shape[1] == free.scores.shape[1] - 1
    assert not slopes.natural[-1].any()


def test_the_score_of_a_row_is_that_of_its_likelihood_given_the_rows_before():
    params, X, steps = example("full")
    scores = derivatives(params, X, steps).scores
    rows = np.flatnonzero(np.insert(np.ones(14, bool), 4, np.zeros(3, bool)))  # without the gap's
    for t in (1, 4, 5, 8, 9, 13):

        def so_far(theta, t=t):
            return reference.log_likelihood(at(params, theta), X[:t], steps[:t])

        expected = reference.gradient(so_far, scores.shape[1])
        before = scores[: rows[t]].sum(axis=0)
        np.testing.assert_allclose(before, expected, rtol=1e-7, atol=1e-8)


def test_scores_ignore_the_future():
    params, X, steps = example("diag")
    scores = derivatives(params, X, steps).scores
    rewritten = X.copy()
    rewritten[9:] = np.random.default_rng(0).normal(size=rewritten[9:].shape)
    again = derivatives(params, rewritten, steps).scores
    assert np.array_equal(again[:12], scores[:12])  # rows before the ninth, and those of the gap
    assert (again[12:] != scores[12:]).any(axis=1).all()
