"""Errors, bounds, intervals and the reality check: against plain formulas and by simulation."""

import math

import numpy as np
import pytest

from benchmarks import critical_values as made
from hmm_exp.errors import ConfigError
from hmm_exp.judge import gains as gains_module
from hmm_exp.judge.gains import (
    BARS,
    MIN_BARS,
    MULTIPLIERS,
    bootstrap_intervals,
    bootstrap_means,
    bound_multiplier,
    estimate_gain,
    estimate_gains,
    gain_metrics,
    hac_error,
    reality_check,
    window,
)
from hmm_exp.judge.resampling import Draws, stretches
from hmm_exp.judge.split import TEST, TRAIN, VAL


def plain_hac_error(x, lags):
    """Newey & West's formula, one autocovariance after the other."""
    n = len(x)
    deviation = [value - sum(x) / n for value in x]
    total = 0.0
    for j in range(lags):
        covariance = sum(deviation[i] * deviation[i - j] for i in range(j, n)) / n
        total += covariance if j == 0 else 2.0 * (1.0 - j / lags) * covariance
    return math.sqrt(total / n)


def plain_stationary_means(x, block, seed, n_draws):
    """Politis & Romano's resampling, block after block and bar after bar, on the same numbers."""
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(n_draws):
        drawn = []
        while len(drawn) < len(x):
            at = int(rng.random() * len(x))
            length, chance = 1, 1.0 - rng.random()
            while (1.0 - 1.0 / block) ** length >= chance and len(drawn) + length < len(x):
                length += 1
            drawn += [x[(at + i) % len(x)] for i in range(length)]
        means.append(np.mean(drawn[: len(x)], axis=0))
    return np.array(means)


@pytest.mark.parametrize(("n", "lags"), [(5, 1), (30, 4), (60, 60), (200, 43)])
def test_hac_error_is_the_formula_of_newey_and_west(n, lags):
    x = np.cumsum(np.random.default_rng(n).normal(size=n)) + 3.0
    assert hac_error(x, lags) == pytest.approx(plain_hac_error(list(x), lags), rel=1e-10)


def test_without_autocorrelation_and_lags_the_error_is_the_usual_one():
    x = np.random.default_rng(0).normal(size=400)
    assert hac_error(x, 1) == pytest.approx(x.std() / 20.0, rel=1e-12)


def test_hac_error_finds_the_long_run_variance_of_an_autoregression():
    x = made.autoregressive(0.7)(np.random.default_rng(1), 1, 200_000)[0]
    assert hac_error(x) * math.sqrt(len(x)) == pytest.approx(1.0 / (1.0 - 0.7), rel=0.1)


def test_a_long_window_sees_the_slow_part_that_a_dozen_lags_miss():
    x = made.regimes(50.0, 5.0)(np.random.default_rng(2), 1, 100_000)[0]
    assert hac_error(x) ** 2 / (x.var() / len(x)) == pytest.approx(5.0, rel=0.25)
    assert hac_error(x, 12) ** 2 / (x.var() / len(x)) < 2.5


@pytest.mark.parametrize("level", list(MULTIPLIERS))
def test_bounds_tighten_with_bars_and_stay_above_the_normal_quantile(level):
    sizes = [50, 100, 150, 500, 1200, 5000, 20_000, 300_000, 10**9]
    multipliers = [bound_multiplier(n, level) for n in sizes]
    assert multipliers[0] == multipliers[1] == MULTIPLIERS[level][0]
    assert np.all(np.diff(multipliers[1:]) < 0)
    normal = {0.05: 1.6449, 0.025: 1.9600, 0.01: 2.3263}[level]
    assert multipliers[-1] == pytest.approx(normal, abs=1e-3)
    assert [bound_multiplier(n, level) for n in BARS] == pytest.approx(MULTIPLIERS[level])


def test_a_level_without_simulated_values_is_refused():
    with pytest.raises(ConfigError, match=r"level 0\.03 has no simulated"):
        bound_multiplier(1000, 0.03)


def test_the_table_was_made_by_the_benchmark():
    assert made.BARS == BARS
    drawn = made.statistics(made.KINDS["regimes 50"], 500, 4000, seed=5)
    found = np.quantile(np.abs(drawn), 1.0 - 2.0 * 0.025)
    assert found == pytest.approx(MULTIPLIERS[0.025][BARS.index(500)], rel=0.08)


def test_the_benchmark_divides_by_the_error_of_the_product():
    x = np.random.default_rng(3).normal(size=(3, 400))
    ours = [row.mean() / hac_error(row) for row in x]
    np.testing.assert_allclose(made._studentised(x, window(400)), ours, rtol=1e-10)


@pytest.mark.parametrize("name", list(made.KINDS))
def test_worthless_gains_rarely_have_a_bound_above_zero(name):
    drawn = made.statistics(made.KINDS[name], 1200, 2000, seed=11)
    limit = bound_multiplier(1200, 0.025)
    chance = 3.0 * math.sqrt(0.025 / 2000)
    assert (drawn > limit).mean() <= 0.025 + chance
    assert (drawn < -limit).mean() <= 0.025 + chance


def test_independent_gains_are_not_judged_much_more_strictly_than_asked():
    drawn = made.statistics(made.normal, 1200, 4000, seed=12)
    assert 0.02 < (drawn > bound_multiplier(1200, 0.05)).mean() < 0.05
    assert 0.005 < (drawn > bound_multiplier(1200, 0.025)).mean() < 0.025


def test_a_gain_like_that_of_regimes_has_a_bound_above_zero():
    worthless = made.regimes(50.0, 5.0)(np.random.default_rng(4), 200, 1200)
    bounds = [estimate_gain(0.05 + 0.3 / 5.0 * row, n_draws=2).bound for row in worthless]
    assert np.mean(np.array(bounds) > 0) > 0.9


def test_what_was_not_scored_is_left_out():
    x = np.random.default_rng(5).normal(size=600)
    holed = np.insert(x, [3, 300, 600], np.nan)
    assert estimate_gain(holed) == estimate_gain(x)
    assert estimate_gain(holed).n_bars == 600


def test_few_bars_carry_no_error():
    x = np.random.default_rng(6).normal(size=MIN_BARS)
    assert estimate_gain(x) is not None
    assert estimate_gain(x[1:]) is None


def test_equal_forecasts_do_not_pass_on_rounding():
    rounding = 1e-17 * (1.0 + np.random.default_rng(7).random(500))
    assert estimate_gain(rounding).bound < 0
    assert estimate_gain(np.zeros(500)).bound < 0


def test_bound_is_the_mean_less_so_many_errors():
    x = np.random.default_rng(8).normal(0.1, 1.0, size=1000)
    for level in MULTIPLIERS:
        estimate = estimate_gain(x, level=level)
        expected = x.mean() - MULTIPLIERS[level][BARS.index(1000)] * hac_error(x)
        assert estimate.bound == pytest.approx(expected, rel=1e-12)
        assert estimate.low < estimate.mean < estimate.high


def test_metrics_have_flat_names_per_part_and_skip_what_is_short():
    split = np.repeat([TRAIN, VAL, TEST], [300, MIN_BARS - 1, 200])
    gain = np.random.default_rng(9).normal(size=len(split))
    metrics = gain_metrics({"return_gain": gain}, split, n_draws=50)
    names = {f"return_gain_test{end}" for end in ("", "_error", "_bound", "_low", "_high")}
    assert set(metrics) == names
    assert metrics["return_gain_test"] == pytest.approx(gain[-200:].mean())
    assert metrics["return_gain_test_error"] == hac_error(gain[-200:])


@pytest.mark.parametrize("block", [1.0, 1.5, 7.0, 40.0, 500.0])
def test_resamples_are_those_of_the_plain_stationary_bootstrap(block):
    x = np.random.default_rng(10).normal(size=(45, 3)).cumsum(axis=0)
    ours = bootstrap_means(x, block, seed=4, n_draws=60)
    plain = plain_stationary_means(x, block, seed=4, n_draws=60)
    np.testing.assert_allclose(ours, plain, atol=1e-12)


def test_the_same_seed_gives_the_same_bits():
    x = np.random.default_rng(11).normal(size=(300, 2))
    first, again = (bootstrap_means(x, 20.0, seed=1, n_draws=40) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, bootstrap_means(x, 20.0, seed=2, n_draws=40))


def test_a_resample_takes_the_same_bars_of_every_series():
    x = np.random.default_rng(12).normal(size=300)
    draws = bootstrap_means(np.column_stack([x, 2.0 * x + 1.0]), 20.0, n_draws=50)
    np.testing.assert_allclose(draws[:, 1], 2.0 * draws[:, 0] + 1.0, atol=1e-12)


def test_a_far_mean_costs_no_digits():
    x = np.random.default_rng(13).normal(size=500)
    near, far = (bootstrap_intervals([y], 20.0) for y in (x, x + 1e6))
    np.testing.assert_allclose(np.array(far) - 1e6, near, atol=1e-9)


@pytest.mark.parametrize("kind", ["fat", "AR .7"])
def test_bootstrap_intervals_cover_the_true_mean(kind):
    rows = made.KINDS[kind](np.random.default_rng(14), 400, 1200)
    ends = [
        bootstrap_intervals([row], window(1200) / 2, seed=i, n_draws=300)[0]
        for i, row in enumerate(rows)
    ]
    covered = np.mean([low < 0.0 < high for low, high in ends])
    assert 0.88 <= covered <= 0.98


def worthless_cells(rng, n_cells=12, n_bars=600):
    common = made.regimes(50.0, 5.0)(rng, 1, n_bars)
    return 0.7 * common + rng.standard_t(4, (n_cells, n_bars))


def test_reality_check_of_worthless_cells_is_rarely_small():
    rng = np.random.default_rng(15)
    checks = [reality_check(worthless_cells(rng), seed=i, n_draws=200) for i in range(150)]
    assert np.mean([check.p_white < 0.05 for check in checks]) < 0.12
    assert np.mean([check.p_spa < 0.05 for check in checks]) < 0.14
    assert np.mean([check.p_white < 0.5 for check in checks]) > 0.25


def test_the_best_of_many_needs_more_than_the_same_cell_alone():
    rng = np.random.default_rng(16)
    cells = rng.normal(size=(40, 1000))
    alone = reality_check(cells[[cells.mean(axis=1).argmax()]])
    among = reality_check(cells)
    assert alone.p_white < 0.1
    assert among.p_white > 0.3
    assert among.gain == pytest.approx(alone.gain) == cells.mean(axis=1).max()


def test_a_cell_that_truly_gains_is_named_and_passes():
    cells = worthless_cells(np.random.default_rng(17))
    cells[7] += 0.6
    check = reality_check(cells)
    assert (check.best, check.n_cells, check.n_bars) == (7, 12, 600)
    assert check.p_white < 0.01
    assert check.p_spa < 0.01


def test_hopeless_cells_do_not_weaken_hansens_test():
    rng = np.random.default_rng(18)
    good = rng.normal(0.09, 1.0, size=(1, 1000))
    hopeless = rng.normal(-4.0, 4.0, size=(60, 1000))
    check = reality_check(np.vstack([good, hopeless]))
    assert check.p_spa < 0.05 < check.p_white


def test_p_values_are_those_of_the_plain_definition():
    cells = np.random.default_rng(19).normal(0.02, 1.0, size=(3, 400))
    cells[2] -= 1.0
    check = reality_check(cells, seed=3, n_draws=100)
    means, spread = cells.mean(axis=1), cells.std(axis=1)
    draws = plain_stationary_means(cells.T, window(400) / 2, seed=3, n_draws=100)
    errors = (draws - means) / math.sqrt(1.0 - window(400) / 400)
    white = [max(error) >= max(means) for error in errors]
    assert check.p_white == (1 + sum(white)) / 101
    limit = errors.std(axis=0) * math.sqrt(2 * math.log(math.log(400)))
    hopeless = [m if m < -x else 0.0 for m, x in zip(means, limit, strict=True)]
    assert hopeless[:2] == [0.0, 0.0] != hopeless[1:]
    best = max(0.0, *(means / spread))
    hansen = [max(0.0, *((error + hopeless) / spread)) >= best for error in errors]
    assert check.p_spa == (1 + sum(hansen)) / 101


def test_only_bars_that_every_cell_scores_count():
    cells = np.random.default_rng(20).normal(size=(2, 500))
    holed = cells.copy()
    holed[0, :100] = np.nan
    holed[1, 450:] = np.nan
    assert reality_check(holed) == reality_check(cells[:, 100:450])
    assert reality_check(cells[:, : MIN_BARS - 1]) is None
    assert reality_check(np.empty((0, 500))) is None


def test_a_sweep_of_copies_of_the_baseline_finds_nothing():
    check = reality_check(np.zeros((3, 500)))
    assert check.p_white == check.p_spa == 1.0


def test_a_stretch_takes_the_next_bar_or_jumps_once_in_a_block():
    x, rng, draws = np.arange(50.0), np.random.default_rng(5), []
    for _ in range(20):
        at, draw = int(rng.random() * 50), []
        for _ in range(80):
            draw.append(x[at])
            jumps = rng.random() < 1.0 / 7.0
            at = int(rng.random() * 50) if jumps else (at + 1) % 50
        draws.append(draw)
    np.testing.assert_array_equal(x[stretches(Draws(50, 7.0, 20, seed=5), 80)], draws)


def test_the_window_is_three_roots_and_at_most_the_series():
    assert [window(n) for n in (1, 4, 9, 100, 101, 10_000)] == [1, 4, 9, 30, 31, 300]


def test_an_interval_holds_its_share_of_the_draws_about_the_mean():
    x = np.random.default_rng(21).normal(0.3, 1.0, size=200)
    estimate = estimate_gain(x, seed=3, n_draws=80)
    draws = plain_stationary_means(x, window(200) / 2, seed=3, n_draws=80)
    errors = (draws - x.mean()) / math.sqrt(1.0 - window(200) / 200)
    low, high = x.mean() + np.quantile(errors, [0.025, 0.975])
    assert estimate.metrics("gain") == {
        "gain": estimate.mean,
        "gain_error": estimate.error,
        "gain_bound": estimate.bound,
        "gain_low": pytest.approx(low, abs=1e-12),
        "gain_high": pytest.approx(high, abs=1e-12),
    }


def test_gains_of_one_length_share_their_draws_and_keep_their_order():
    rng = np.random.default_rng(22)
    gains = [rng.normal(size=n) for n in (150, 300, MIN_BARS - 1, 150)]
    together = estimate_gains(gains, n_draws=30)
    assert together == [estimate_gain(gain, n_draws=30) for gain in gains]
    assert together[2] is None


def test_blocks_too_long_for_the_series_widen_errors_by_two_at_most():
    x = np.random.default_rng(23).normal(size=(60, 1))
    centre = x.mean(axis=0)
    for block, kept in ((15.0, 0.5), (29.0, 0.25)):
        draws = bootstrap_means(x, block, seed=1, n_draws=10) - centre
        found = gains_module.bootstrap_errors(x, centre, block, 1, 10)
        np.testing.assert_allclose(found, draws / math.sqrt(kept), rtol=1e-12)
