"""HAC error, stationary bootstrap and reality check agree with statsmodels and arch."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from arch.bootstrap import SPA, StationaryBootstrap

from hmm_exp.judge.gains import bootstrap_means, hac_error, reality_check, window

N_DRAWS = 4000


def autoregression(n, n_series=1, weight=0.7, seed=0):
    """Series of mean zero and unit deviation, shape (n, n_series)."""
    noise = np.random.default_rng(seed).normal(size=(n + 200, n_series))
    for t in range(1, len(noise)):
        noise[t] += weight * noise[t - 1]
    x = noise[200:]
    return (x - x.mean(axis=0)) / x.std(axis=0)


@pytest.mark.parametrize(("n", "lags"), [(40, 1), (150, 12), (500, 68), (500, None)])
def test_hac_error_is_that_of_statsmodels_with_a_bartlett_kernel(n, lags):
    x = autoregression(n, seed=n)[:, 0] + 0.3
    options = {"maxlags": (lags or window(n)) - 1, "use_correction": False}
    theirs = sm.OLS(x, np.ones(n)).fit(cov_type="HAC", cov_kwds=options)
    assert hac_error(x, lags) == pytest.approx(theirs.bse[0], rel=1e-10)


@pytest.mark.parametrize("block", [1, 8, 40])
def test_bootstrap_means_are_distributed_as_those_of_arch(block):
    x = autoregression(400)
    ours = bootstrap_means(x, block, seed=1, n_draws=N_DRAWS)[:, 0]
    theirs = StationaryBootstrap(block, x, seed=2).apply(np.mean, N_DRAWS)[:, 0]
    error = theirs.std() * math.sqrt(2.0 / N_DRAWS)  # of the difference of two means
    assert abs(ours.mean() - theirs.mean()) < 4.0 * error
    assert ours.std() == pytest.approx(theirs.std(), rel=4.0 / math.sqrt(N_DRAWS))
    for share in (0.1, 0.9):
        assert np.mean(ours < np.quantile(theirs, share)) == pytest.approx(
            share, abs=4.0 * math.sqrt(2.0 * share * (1.0 - share) / N_DRAWS)
        )


@pytest.mark.parametrize("best", [0.0, 0.1, 0.15])
def test_p_values_of_the_reality_check_are_those_of_arch(best):
    """Arch does not widen errors by 1 / sqrt(kept): it gets means smaller by that factor."""
    n = 784
    block = window(n) // 2
    kept = 1.0 - 2.0 * block / n
    means = np.array([best, 0.0, -0.1, -2.0, -2.0])  # the last two are hopeless
    noise = autoregression(n, len(means), seed=3)
    ours = reality_check((noise + means).T, n_draws=N_DRAWS)
    losses = -(noise + means * math.sqrt(kept))
    theirs = SPA(np.zeros(n), losses, block_size=block, reps=N_DRAWS, seed=4)
    theirs.compute()
    pairs = ((ours.p_white, theirs.pvalues["upper"]), (ours.p_spa, theirs.pvalues["consistent"]))
    for mine, other in pairs:
        assert mine == pytest.approx(
            other, abs=4.0 * math.sqrt(2.0 * mine * (1.0 - mine) / N_DRAWS) + 2.0 / N_DRAWS
        )
    assert ours.p_spa < ours.p_white
