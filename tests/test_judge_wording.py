"""Gains in words: the interval decides, and a rounded zero has no sign."""

import numpy as np
import pytest

from hmm_exp.judge.gains import GainEstimate, estimate_gain
from hmm_exp.judge.wording import (
    AS_WELL,
    BETTER,
    WORSE,
    WordedGain,
    listed,
    percent,
    probability,
    signed,
)


@pytest.mark.parametrize(
    ("low", "bound", "high", "word"),
    [
        (0.01, 0.02, 0.03, BETTER),
        (-0.01, -0.01, 0.03, AS_WELL),
        (-0.03, -0.03, 0.01, AS_WELL),
        (-0.05, -0.05, -0.01, WORSE),
        (0.01, -0.001, 0.03, AS_WELL),  # never more than the gate
        (-0.001, 0.01, 0.03, AS_WELL),
        (0.0, 0.0, 0.0, AS_WELL),
    ],
)
def test_the_interval_of_a_gain_decides_between_three_words(low, bound, high, word):
    metrics = {"g": 0.5 * (low + high), "g_low": low, "g_bound": bound, "g_high": high}
    gain = WordedGain.recorded("the EWMA Student-t", metrics, "g")
    assert gain.word == word
    assert gain.text.startswith(
        f"{word} {'as' if word == AS_WELL else 'than'} the EWMA Student-t ("
    )


def test_an_estimate_and_its_metrics_are_worded_alike():
    gain = np.random.default_rng(0).normal(0.1, 1.0, 2000)
    estimate = estimate_gain(gain)
    assert isinstance(estimate, GainEstimate)
    recorded = WordedGain.recorded("b", estimate.metrics("g"), "g")
    assert recorded == WordedGain.of("b", estimate)


def test_a_gain_that_was_not_measured_has_no_words():
    assert WordedGain.recorded("b", {"g": 0.1}, "g") is None


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0337, 4, "+0.0337"),
        (-0.0337, 4, "-0.0337"),
        (0.00004, 4, "0.0000"),
        (-0.00004, 4, "0.0000"),
        (-0.0, 4, "0.0000"),
        (0.004, 2, "0.00"),
        (-0.0006, 3, "-0.001"),
    ],
)
def test_a_difference_that_rounds_to_zero_has_no_sign(value, digits, text):
    assert signed(value, digits) == text


def test_names_are_listed_as_in_a_sentence():
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.62, "62 %"),
        (0.004, "0.4 %"),
        (0.993, "99.3 %"),
        (0.9998, "99.98 %"),
        (0.0003, "0.03 %"),
        (1 - 1e-7, ">99.99 %"),
        (1e-7, "<0.01 %"),
        (1.4, "140 %"),
    ],
)
def test_only_none_and_all_are_0_and_100_percent(share, shown):
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("p", "shown"), [(1.0, "1.000"), (0.99997, "above 0.999"), (0.9994, "0.999"), (0.7331, "0.733")]
)
def test_only_certainty_is_probability_one(p, shown):
    assert probability(p) == shown
