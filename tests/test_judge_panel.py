"""P-values of symbols and false discovery rates: against plain formulas, arch and statsmodels."""

import math

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import StationaryBootstrap
from scipy import stats
from statsmodels.stats.multitest import multipletests

from benchmarks import critical_values as made
from hmm_exp.errors import ConfigError, DataError
from hmm_exp.judge.gains import MULTIPLIERS, bound_multiplier, estimate_gain, hac_error, window
from hmm_exp.judge.panel import (
    bootstrap_statistics,
    bound_p_value,
    calendar_of,
    judge_panel,
    promotions,
    symbol_p_value,
    tail_p_value,
)

HOURS = pd.date_range("2024-01-01", periods=600, freq="h", tz="UTC")


def noise(n=600, seed=0):
    return np.random.default_rng(seed).standard_t(5, n)


def table(gain, index=HOURS):
    return pd.DataFrame({"gain": gain}, index=index[: len(gain)])


def series_of(n=600, mean=0.0, n_symbols=6, seed=0):
    """A panel of independent symbols with equal bars."""
    return {f"S{i}": table(mean + noise(n, seed + i)) for i in range(n_symbols)}


def split_mix(state):
    """Steele, Lea & Flood's generator as published, on Python's integers."""
    z = state & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return z ^ (z >> 31)


def plain_statistics(gain, places, seed, n_draws):
    """The same blocks, resampled bar after bar, and the error from windows of whole cells."""
    n, golden, found = len(gain), 0x9E3779B97F4A7C15, []
    block, cell = window(n) / 2, max(window(n) // 16, 1)
    width = round(window(n) / cell)
    for draw in range(n_draws):
        state, sample = split_mix(seed + golden * (draw + 1)), []
        while len(sample) < n:
            u, v = ((split_mix(state + golden * k) >> 11) / 2**53 for k in (1, 2))
            state += 2 * golden
            start, length = places[int(u * len(places))], 1
            while (1.0 - 1.0 / block) ** length >= 1.0 - v and length < n:
                length += 1
            if start >= 0:
                sample += [gain[(start + i) % n] for i in range(length)]
        deviation = np.array(sample[:n]) - np.mean(sample[:n])
        cells = [deviation[i : i + cell].sum() for i in range(0, n, cell)]
        total = sum(
            sum(cells[max(end - width, 0) : end]) ** 2 for end in range(1, len(cells) + width)
        )
        error = math.sqrt(total / width) / n
        found.append((np.mean(sample[:n]) - gain.mean()) / error)
    return np.array(found)


@pytest.mark.parametrize(("n", "skipped"), [(100, 0), (301, 0), (301, 3), (700, 2)])
def test_statistics_are_those_of_samples_taken_bar_after_bar(n, skipped):
    places = np.arange(n, dtype=np.int32)
    if skipped:
        places = np.where(np.arange(skipped * n) % skipped, -1, np.repeat(places, skipped))
    gain = noise(n, seed=n) + 0.1
    ours = bootstrap_statistics(gain, places.astype(np.int32), seed=7, n_draws=40)
    assert ours == pytest.approx(plain_statistics(gain, places, 7, 40), rel=1e-9)


def test_statistics_are_distributed_as_those_of_arch():
    n, n_draws = 400, 4000
    gain = noise(n) ** 2  # skewed, so that both tails differ
    ours = bootstrap_statistics(gain, np.arange(n, dtype=np.int32), n_draws=n_draws)
    centred = gain - gain.mean()
    bootstrap = StationaryBootstrap(window(n) / 2, centred, seed=2)
    theirs = bootstrap.apply(lambda x: x.mean() / hac_error(x), n_draws)[:, 0]
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        error = math.sqrt(2.0 * share * (1.0 - share) / n_draws)
        assert np.mean(ours < np.quantile(theirs, share)) == pytest.approx(share, abs=4 * error)


def own_and_shared(index, n_draws=4000):
    """Statistics of a symbol on some of 600 hours: alone, in the panel, and of all hours."""
    gain = pd.Series(noise(seed=3), index=HOURS)
    mine = gain.loc[index].to_numpy()
    found = []
    for calendar in (index, HOURS):
        places = calendar.searchsorted(index)
        place = np.full(len(calendar), -1, np.int32)
        place[places] = np.arange(len(index))
        found.append(bootstrap_statistics(mine, place, n_draws=n_draws))
    whole = bootstrap_statistics(gain.to_numpy(), np.arange(600, dtype=np.int32), n_draws=n_draws)
    return *found, whole


GAPS = {
    "gaps": HOURS[np.random.default_rng(1).random(600) > 0.05],
    "a long gap": HOURS[:200].append(HOURS[320:]),
    "a late start": HOURS[250:],
}


@pytest.mark.parametrize("which", GAPS)
def test_a_symbol_with_other_bars_has_the_distribution_of_its_own_bootstrap(which):
    alone, in_panel, _ = own_and_shared(GAPS[which])
    for share in (0.05, 0.5, 0.95):
        error = math.sqrt(2.0 * share * (1.0 - share) / len(alone))
        assert np.mean(in_panel < np.quantile(alone, share)) == pytest.approx(share, abs=4 * error)


@pytest.mark.parametrize(("which", "least"), [("gaps", 0.6), ("a long gap", 0.4)])
def test_symbols_with_common_instants_share_their_blocks(which, least):
    _, in_panel, whole = own_and_shared(GAPS[which])
    assert np.corrcoef(in_panel, whole)[0, 1] > least
    assert abs(np.corrcoef(in_panel[1:], whole[:-1])[0, 1]) < 0.08


def test_the_p_value_of_a_symbol_is_the_largest_of_its_gains():
    gains = pd.DataFrame({"a": noise(seed=1) + 0.1, "b": noise(seed=2), "c": 0.3}, index=HOURS)
    gains["c"] += noise(seed=4)
    each = [symbol_p_value(gains[[name]], HOURS, n_draws=500) for name in gains]
    assert symbol_p_value(gains, HOURS, n_draws=500) == max(each)
    assert min(each) < max(each)


def test_a_symbol_has_one_p_value_whatever_the_other_symbols_gain():
    panel = series_of()
    found = judge_panel(panel, n_draws=500)["p"]
    changed = {name: gains if name == "S2" else -gains for name, gains in panel.items()}
    again = judge_panel(dict(reversed(changed.items())), n_draws=500)["p"].reindex(found.index)
    assert again["S2"] == found["S2"]
    assert (again.drop("S2") != found.drop("S2")).all()


@pytest.mark.parametrize("step", ["7D", "1D", "1min"])
def test_a_panel_of_one_symbol_does_not_depend_on_its_clock(step):
    gain = noise(seed=5) + 0.05
    other = pd.date_range("2001-02-03 17:30", periods=600, freq=step)
    assert judge_panel({"A": table(gain, other)})["p"].item() == pytest.approx(
        judge_panel({"A": table(gain)})["p"].item(), rel=1e-12
    )


def test_steps_may_differ():
    """Days and weeks of one calendar: each bar of a week stands for seven days."""
    days, weeks = (pd.date_range("2001-01-01", "2020-01-01", freq=f) for f in ("D", "7D"))
    gain = noise(len(weeks), seed=6)
    calendar = calendar_of([days, weeks])
    assert len(calendar) == len(days)
    alone = symbol_p_value(table(gain, weeks), weeks, n_draws=4000)
    assert symbol_p_value(table(gain, weeks), calendar, n_draws=4000) == pytest.approx(
        alone, abs=4.0 * math.sqrt(2.0 * 0.25 / 4000)
    )


def test_unscored_bars_are_left_out():
    gains = table(noise(seed=7) + 0.05)
    gains.iloc[::5] = np.nan
    left = gains.dropna()
    assert symbol_p_value(gains, HOURS, n_draws=500) == symbol_p_value(left, HOURS, n_draws=500)


def test_a_symbol_with_too_few_bars_is_not_promoted_and_does_not_count():
    panel = series_of(mean=0.3, n_symbols=3)
    short = panel["S0"].copy()
    short.iloc[99:] = np.nan
    found = judge_panel({**panel, "short": short}, n_draws=1000)
    assert math.isnan(found.loc["short", "p"])
    assert not found.loc["short", "promoted"]
    pd.testing.assert_frame_equal(found.drop("short"), judge_panel(panel, n_draws=1000))
    assert found["promoted"].sum() == 3


def test_an_empty_panel_has_an_empty_table():
    found = judge_panel({})
    assert found.empty
    assert list(found) == ["p", "q_bh", "q_by", "promoted"]


@pytest.mark.parametrize("seed", range(4))
def test_q_values_are_those_of_statsmodels(seed):
    p = pd.Series(np.random.default_rng(seed).random(40) ** (1 + 2 * seed))
    p.iloc[3] = p.iloc[7]
    found = promotions(p, 0.1)
    for column, method in (("q_bh", "fdr_bh"), ("q_by", "fdr_by")):
        promoted, q = multipletests(p, 0.1, method)[:2]
        assert found[column].to_numpy() == pytest.approx(q, rel=1e-12)
        if method == "fdr_bh":
            assert (found["promoted"] == promoted).all()


@pytest.mark.parametrize("level", MULTIPLIERS)
@pytest.mark.parametrize("n_bars", [100, 777, 4000, 10**6])
def test_a_bound_of_zero_has_its_level_as_p_value(level, n_bars):
    assert bound_p_value(bound_multiplier(n_bars, level), n_bars) == pytest.approx(level, rel=1e-9)


def test_the_p_value_of_a_bound_falls_without_jumps_and_is_half_without_a_gain():
    p = np.array([bound_p_value(t, 1500) for t in np.linspace(-8.0, 30.0, 3000)])
    assert (np.diff(p) <= 0).all()
    assert np.abs(np.diff(p)).max() < 0.01
    assert bound_p_value(0.0, 1500) == pytest.approx(0.5)
    assert p[-1] > 0.0


@pytest.mark.parametrize("n_bars", [500, 1000])
def test_the_p_value_of_a_bound_keeps_small_levels_for_the_worst_kind_of_gain(n_bars):
    """Levels below the simulated ones; 40,000 statistics, both signs of 20,000 series."""
    statistics = np.abs(made.statistics(made.KINDS["regimes 50"], n_bars, 20_000, seed=8))
    p = [bound_p_value(t, n_bars) for t in statistics[statistics > 3.0]]
    for level in (0.003, 0.001):
        assert 0.4 * level < np.count_nonzero(np.array(p) <= level) / 40_000 < 1.6 * level


@pytest.mark.parametrize("mean", [0.0, 0.12])
def test_a_panel_of_one_symbol_decides_as_the_lower_bound_does(mean):
    above, promoted = [], []
    for seed in range(60):
        gain = noise(seed=seed) + mean
        above.append(estimate_gain(gain, n_draws=1).bound > 0.0)
        promoted.append(judge_panel({"A": table(gain)}, 0.025, n_draws=1000)["promoted"].item())
    assert not np.any(np.greater(promoted, above))
    assert np.mean(np.equal(promoted, above)) >= 0.95
    assert (sum(promoted) > 10) == (mean > 0.0)


@pytest.mark.parametrize("p", [0.3, 0.01, 1e-4, 1e-5])
@pytest.mark.parametrize("law", [stats.norm(), stats.t(30), stats.t(8)], ids=["norm", "t30", "t8"])
def test_the_fitted_tail_finds_small_p_values_of_known_laws(law, p):
    """The median of twenty samples of 10,000 draws."""
    samples = [law.rvs(10_000, random_state=seed) for seed in range(20)]
    found = [tail_p_value(law.isf(p), draws) for draws in samples]
    assert p / 2.0 < np.median(found) < 2.0 * p


def test_a_p_value_is_never_zero_and_falls_with_the_gain():
    found = [symbol_p_value(table(noise() + mean), HOURS) for mean in (0.0, 0.1, 0.2, 0.4, 2.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.01
    assert 0.0 < found[-1] < 1e-6


def test_a_model_that_equals_its_baseline_has_a_p_value_of_one():
    assert symbol_p_value(table(np.zeros(600)), HOURS) == 1.0


def test_a_constant_gain_is_below_all_draws():
    assert symbol_p_value(table(np.full(600, 0.01)), HOURS) == pytest.approx(1 / 10_001)


def test_worthless_symbols_are_seldom_below_five_percent_and_good_ones_are_promoted():
    worthless = judge_panel(series_of(n_symbols=200, seed=100), n_draws=500)
    assert (worthless["p"] < 0.05).mean() < 0.07
    assert not worthless["promoted"].any()
    good = {f"G{i}": table(noise(seed=i) + 0.4) for i in range(10)}
    mixed = judge_panel({**series_of(n_symbols=40, seed=100), **good})
    assert mixed.loc[list(good), "promoted"].all()
    assert mixed["promoted"].sum() == 10


def test_the_same_seed_gives_the_same_bits_and_another_one_other_draws():
    panel = series_of(n_symbols=2)
    first, again, other = (judge_panel(panel, seed=seed, n_draws=500) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first["p"] != other["p"]).all()


@pytest.mark.parametrize("fdr", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_that_is_none_is_refused(fdr):
    with pytest.raises(ConfigError, match=r"gate\.fdr=.*above 0 and below 1"):
        promotions(pd.Series({"A": 0.01}), fdr)


@pytest.mark.parametrize("order", [[1, 0], [0, 0]])
def test_bars_out_of_order_are_refused(order):
    gains = table(noise()).iloc[[*order, *range(2, 600)]]
    with pytest.raises(DataError, match="rise from bar to bar"):
        judge_panel({"A": gains})


def test_bars_outside_the_calendar_are_refused():
    with pytest.raises(
        DataError, match="100 bars are not in the panel's calendar, first 2024-01-2"
    ):
        symbol_p_value(table(noise()), HOURS[:500])
