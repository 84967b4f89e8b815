"""What a bootstrap draws for a length of series, kept for the next series of that length.

>>> blocks = drawn_blocks(Draws(n_bars=1200, block=52.0, n_draws=1000))
>>> means = block_means(sums, *blocks)                  # (1000, M)
>>> places = stretches(Draws(n_bars=1200, block=52.0, n_draws=1000), length=500)
>>> series[places]                                      # (1000, 500)

Runs on the same bars judge many series of one length with the same seed, so all of them take the
same bars. Large draws are not kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry
from hmm_exp.hmm.simd import LANES, aligned_zeros, load, splat, store

KEPT = 4  # draws of each kind that are kept
MOST_KEPT = 4_000_000  # numbers; larger draws are made again


@dataclass(frozen=True)
class Draws:
    """What is drawn: samples of a circular series in blocks of geometric lengths."""

    n_bars: int  # of the series
    block: float  # mean block length, bars, at least 1
    n_draws: int
    seed: int = 0


class Blocks(NamedTuple):
    """Blocks of all samples, one after the other."""

    start: np.ndarray  # first bar, int32
    length: np.ndarray  # bars, int32
    end: np.ndarray  # number of blocks up to the end of each sample, int64, shape (n_draws,)


def drawn_blocks(draws: Draws) -> Blocks:
    """Blocks of samples as long as the series; their bars add up to `n_bars` in each."""
    expected = draws.n_draws * (draws.n_bars / draws.block + 1.0)
    return _kept(_blocks, 2.0 * expected)(draws)


def block_means(
    sums: np.ndarray, start: np.ndarray, length: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """Means of samples, (n_draws, M), from cumulative sums (n + 1, M) that start at zero."""
    means = np.empty((len(end), sums.shape[1]))
    for first in range(0, sums.shape[1], LANES):
        some = sums[:, first : first + LANES]
        lanes, found = aligned_zeros(len(sums)), aligned_zeros(len(end))
        lanes[:, : some.shape[1]] = some
        _block_means(lanes, start, length, end, found)
        means[:, first : first + LANES] = found[:, : some.shape[1]]
    return means


def stretches(draws: Draws, length: int) -> np.ndarray:
    """Bars of samples of `length` bars, int32, shape (n_draws, length)."""
    return _kept(_stretches, draws.n_draws * length)(draws, length)


def _kept(make: Callable, n_numbers: float) -> Callable:
    """The function that keeps its results, or for a large result the one behind it."""
    return make if n_numbers <= MOST_KEPT else make.__wrapped__  # type: ignore[attr-defined]


@lru_cache(KEPT)
def _blocks(draws: Draws) -> Blocks:
    none, end = np.empty(0, dtype=np.int32), np.empty(draws.n_draws, dtype=np.int64)
    _draw_blocks(draws.n_bars, draws.block, np.random.default_rng(draws.seed), none, none, end)
    start, length = np.empty((2, end[-1]), dtype=np.int32)  # the number is known from a first pass
    _draw_blocks(draws.n_bars, draws.block, np.random.default_rng(draws.seed), start, length, end)
    return Blocks(start, length, end)


@lru_cache(KEPT)
def _stretches(draws: Draws, length: int) -> np.ndarray:
    places = np.empty((draws.n_draws, length), dtype=np.int32)
    _draw_stretches(draws.n_bars, draws.block, np.random.default_rng(draws.seed), places)
    return places


@entry
def _draw_blocks(n, block, rng, start, length, end):
    """Fill `end`, and the blocks where there is room for them."""
    per_log = 0.0 if block <= 1.0 else 1.0 / np.log(1.0 - 1.0 / block)
    place = 0
    for draw in range(len(end)):
        left = n
        while left > 0:
            first = int(rng.random() * n)
            bars = int(min(1.0 + np.floor(per_log * np.log(1.0 - rng.random())), float(left)))
            if place < len(start):
                start[place], length[place] = first, bars
            left -= bars
            place += 1
        end[draw] = place


@entry
def _draw_stretches(n, block, rng, places):
    """Take the next bar, or with probability 1 / block any bar."""
    for draw in range(len(places)):
        at = int(rng.random() * n)
        for t in range(places.shape[1]):
            places[draw, t] = at
            at = int(rng.random() * n) if rng.random() * block < 1.0 else (at + 1) % n


@entry
def _block_means(sums, start, length, end, means):
    """Write means (n_draws, 8) of samples of eight series, from their sums (n + 1, 8)."""
    n, place = len(sums) - 1, 0
    for draw in range(len(end)):
        total = splat(0.0)
        while place < end[draw]:
            first = start[place]
            last = first + length[place]
            if last > n:  # around the end of the series, once, as a block is at most n long
                last -= n
                total = total + load(sums, n)
            total = total + (load(sums, last) - load(sums, first))
            place += 1
        store(means, draw, total / float(n))
