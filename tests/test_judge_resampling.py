"""Draws of the bootstrap are kept by what they depend on, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from hmm_exp.judge import resampling
from hmm_exp.judge.resampling import Draws, block_means, drawn_blocks, stretches

DRAWS = Draws(n_bars=200, block=12.0, n_draws=30)


@pytest.mark.parametrize("block", [1.0, 12.0, 500.0])
def test_the_blocks_of_a_sample_are_as_long_as_the_series(block):
    blocks = drawn_blocks(replace(DRAWS, block=block))
    assert len(blocks.end) == 30
    bars = np.add.reduceat(blocks.length, np.r_[0, blocks.end[:-1]])
    np.testing.assert_array_equal(bars, 200)
    assert 0 <= blocks.start.min() <= blocks.start.max() < 200
    assert blocks.length.min() >= 1


@pytest.mark.parametrize("change", [{"n_bars": 201}, {"block": 13.0}, {"seed": 1}])
def test_every_property_of_the_draws_changes_them(change):
    other = replace(DRAWS, **change)
    assert not np.array_equal(stretches(DRAWS, 80), stretches(other, 80))
    assert not np.array_equal(drawn_blocks(DRAWS).start, drawn_blocks(other).start)


def test_draws_are_made_once_and_large_ones_every_time(monkeypatch):
    assert stretches(DRAWS, 80) is stretches(DRAWS, 80)
    kept = stretches(DRAWS, 80), drawn_blocks(DRAWS)
    monkeypatch.setattr(resampling, "MOST_KEPT", 10)
    again = stretches(DRAWS, 80), drawn_blocks(DRAWS)
    assert again[0] is not kept[0]
    np.testing.assert_array_equal(again[0], kept[0])
    for one, other in zip(kept[1], again[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_block_around_the_end_takes_the_first_bars():
    x = np.array([[1.0], [2.0], [4.0], [8.0]])
    sums = np.vstack([[[0.0]], x.cumsum(axis=0)])
    blocks = np.array([3, 0]), np.array([3, 1]), np.array([2])
    assert block_means(sums, *blocks).tolist() == [[(8.0 + 1.0 + 2.0 + 1.0) / 4.0]]
