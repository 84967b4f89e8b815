"""Differences of a pooled model and of single ones: by hand, in the mean, in words."""

import numpy as np
import pandas as pd
import pytest

from hmm_exp.errors import counted
from hmm_exp.judge.gains import estimate_gain, hac_error
from hmm_exp.judge.pool import COLUMNS, PanelMean, PoolComparison, against_own

HOURS = pd.date_range("2024-01-01", periods=900, freq="h")


def noise(seed, n=900, mean=0.0):
    return mean + np.random.default_rng(seed).standard_normal(n)


def scores_of(model, static=0.0, n_train=300, n_val=400):
    """Scores as a store gives them: train, then validation, then test."""
    split = ["train"] * n_train + ["val"] * n_val + ["test"] * (len(model) - n_train - n_val)
    columns = {"split": split, "model_score": model, "static_score": static}
    return pd.DataFrame(columns, index=HOURS[: len(model)])


def mean_of(*gains):
    mean = PanelMean()
    for gain in gains:
        mean.add(gain)
    return mean.estimate()


def test_symbols_of_equal_bars_are_averaged_instant_by_instant():
    gains = [pd.Series(noise(seed), HOURS) for seed in range(4)]
    average = pd.concat(gains, axis=1).mean(axis=1).to_numpy()
    found, plain = mean_of(*gains), estimate_gain(average)
    assert found.mean == pytest.approx(plain.mean, abs=1e-12)
    assert found.error == pytest.approx(hac_error(average), rel=1e-9)
    assert found.low == pytest.approx(plain.low, abs=1e-9)
    assert found.n_bars == len(HOURS)


def test_copies_of_a_symbol_are_no_more_evidence_than_one():
    gain = pd.Series(noise(0), HOURS)
    once, often = mean_of(gain), mean_of(*[gain] * 20)
    assert often.error == pytest.approx(once.error, rel=1e-9)
    apart = mean_of(*(pd.Series(noise(seed), HOURS) for seed in range(20)))
    assert apart.error < once.error / 3


def test_every_symbol_has_one_weight_whatever_its_span():
    long, short = pd.Series(noise(0, mean=1.0), HOURS), pd.Series(noise(1, 150), HOURS[700:850])
    assert mean_of(long, short).mean == pytest.approx((long.mean() + short.mean()) / 2, abs=1e-12)


def test_the_error_of_spans_that_do_not_meet_is_that_of_independent_means():
    early, late = pd.Series(noise(0, 450), HOURS[:450]), pd.Series(noise(1, 450), HOURS[450:])
    errors = [hac_error(part.to_numpy()) for part in (early, late)]
    assert mean_of(early, late).error == pytest.approx(np.hypot(*errors) / 2, rel=0.35)


def test_the_interval_in_the_mean_covers_a_mean_of_zero_of_dependent_symbols():
    """Symbols of one common factor, 60 panels: the interval fails in few of them."""
    outside = 0
    for seed in range(60):
        common = noise(1000 + seed)
        gains = [pd.Series(common + 0.5 * noise(20 * seed + i), HOURS) for i in range(8)]
        found = mean_of(*gains)
        outside += found.bound > 0 or found.high < 0
    assert outside <= 9


def test_a_symbol_with_few_scored_bars_does_not_count():
    gain = pd.Series(noise(0), HOURS)
    few = gain.where(np.arange(900) < 99)
    assert mean_of(gain, few).mean == pytest.approx(gain.mean())
    assert mean_of(few) is None


def test_the_difference_is_of_bars_that_are_validation_of_both_and_scored_by_both():
    pooled, own = noise(0), noise(1)
    own[350] = np.nan
    one = against_own("BTC", scores_of(pooled), scores_of(own, n_train=400, n_val=250)[20:])
    common = slice(400, 650)
    expected = (pooled - own)[common]
    np.testing.assert_array_equal(one.difference.to_numpy(), expected)
    assert one.estimate.mean == pytest.approx(expected.mean())
    assert one.gain_val == pytest.approx(pooled[300:700].mean())
    assert one.gain_test == pytest.approx(pooled[700:].mean())


def test_later_scores_change_no_difference_on_validation():
    pooled, own = noise(0), noise(1)
    before = against_own("BTC", scores_of(pooled), scores_of(own))
    pooled[700:], own[700:] = 1e6, -1e6
    after = against_own("BTC", scores_of(pooled), scores_of(own))
    pd.testing.assert_series_equal(before.difference, after.difference)
    assert before.estimate == after.estimate


def compared(shifts, seed=0):
    """Symbols whose pooled model is better by their shift."""
    symbols = []
    for i, shift in enumerate(shifts):
        own = noise(seed + i)
        better = own + shift + 0.1 * noise(500 + seed + i)
        symbols.append(against_own(f"S{i}", scores_of(better), scores_of(own)))
    return PoolComparison.of(symbols)


@pytest.mark.parametrize(
    ("shifts", "words"),
    [
        ([0.2, 0.2, 0.2, -0.2], "better than the models of each symbol: +0."),
        ([-0.2, -0.2, 0.0], "worse than the models of each symbol: -0."),
        ([0.0, 0.2, -0.2, 0.0], "about as well as the models of each symbol: "),
    ],
)
def test_the_sentence_has_the_word_the_interval_and_the_counts(shifts, words):
    found = compared(shifts)
    assert found.sentence.startswith(f"one model for all forecasts validation {words}")
    assert " nats per bar, 95 % interval " in found.sentence
    n_better, n_worse = sum(s > 0 for s in shifts), sum(s < 0 for s in shifts)
    counts = f"(better on {counted(n_better, 'symbol')}, worse on {n_worse} of {len(shifts)})"
    assert found.sentence.endswith(counts)


def test_the_table_has_a_row_for_every_symbol_and_gaps_where_there_is_no_own_model():
    alone = against_own("NEW", scores_of(noise(9)), None)
    found = PoolComparison.of([alone, against_own("BTC", scores_of(noise(0)), scores_of(noise(1)))])
    assert tuple(found.table.columns) == COLUMNS
    assert found.table["symbol"].tolist() == ["NEW", "BTC"]
    new = found.table.iloc[0]
    assert np.isfinite(new["gain_val"])
    assert new[["own_gain_val", "difference", "low", "high"]].isna().all()
    assert new["word"] == ""
    assert found.sentence.endswith("of 1)")
    assert "not compared" in PoolComparison.of([alone]).sentence
