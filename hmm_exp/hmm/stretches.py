"""The filter of a long series, eight stretches at a time, with the bits of `inference.advance`.

A row of the filter waits for the row before it, so alone it leaves a processor mostly idle. Here
the series is cut into stretches that are filtered together, one per SIMD lane and group of lanes
per core. A stretch starts from a guess: equal probabilities `_WARM_UP` rows before. As the chain
forgets its start, the filter from the guess soon rounds to the same bits as the one from the
beginning, and equal bits stay equal. `filter_long` compares every stretch's first state with the
end of the stretch before it, and where the bits differ it repeats rows until they agree:

>>> filtered = filter_long(params, X, steps, startprob, carry)

So the result never depends on the guesses, nor on the number of threads. A chain that forgets too
slowly to gain by this is filtered row by row.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hmm_exp.compiling import entry, kernel
from hmm_exp.hmm.density import Density, density_of, log_density_kernel
from hmm_exp.hmm.inference import FAINT, FLOOR, Filtered, advance
from hmm_exp.hmm.params import GaussianParams
from hmm_exp.hmm.simd import (
    LANES,
    aligned_zeros,
    all_above,
    exp,
    largest,
    load,
    splat,
    store,
    where_equal,
)
from hmm_exp.parallel import run_all

_BLOCK = 16  # steps whose numbers stay in the first-level cache
_WARM_UP = 4 * _BLOCK  # rows after which most filters have forgotten their start
_LENGTH = (1 << 12) + 8  # rows of a stretch; at a power of two all lanes share few cache lines
_WORTH_IT = 0.5  # largest share of rows that are repeated
_REPEATED = 256  # rows that are repeated at a time


class _Series(NamedTuple):
    """What is filtered, and the result."""

    startprob: np.ndarray
    transmat: np.ndarray
    density: Density
    write: Callable  # the kernel of `density`
    X: np.ndarray
    steps: np.ndarray
    filtered: Filtered


def filter_long(
    params: GaussianParams,
    X: np.ndarray,
    steps: np.ndarray,
    startprob: np.ndarray,
    carry: np.ndarray,
) -> Filtered | None:
    """Filtered probabilities of observations X (T, D) from the state `carry` (K,) before them.

    None if the chain forgets too slowly: then rows take their time one by one.
    """
    density = density_of(params)
    filtered = Filtered(np.empty((len(X), params.n_states)), np.empty(len(X)))
    chain = startprob, np.ascontiguousarray(params.transmat)
    series = _Series(*chain, density, log_density_kernel(density), X, steps, filtered)
    size = LANES * _LENGTH
    groups = [slice(first, min(first + size, len(X))) for first in range(0, len(X), size)]
    begun = [_speculate(series, groups[0])]
    current = carry.copy()
    if _settle(series, groups[0], begun[0], current) > _WORTH_IT * min(size, len(X)):
        return None
    begun = run_all(lambda rows: _speculate(series, rows), groups[1:])
    for rows, guesses in zip(groups[1:], begun, strict=True):
        _settle(series, rows, guesses, current)
    return filtered


def _speculate(series: _Series, rows: slice) -> np.ndarray:
    """Filter a group of stretches from guesses; gives the first states, shape (LANES, K)."""
    lead = min(_WARM_UP, rows.start)
    taken = slice(rows.start - lead, rows.stop)
    X = np.ascontiguousarray(series.X[taken], dtype=np.float64)
    steps = np.ascontiguousarray(series.steps[taken], dtype=np.int64)
    K = len(series.startprob)
    heavy_tailed = series.density.df.size > 0
    log_lik = np.empty((len(X) if heavy_tailed else 0, K))
    if heavy_tailed:
        series.write(X, series.density, log_lik)
    begun = np.empty((LANES, K))
    results = (part[rows] for part in series.filtered)
    special = _special(steps, lead, (rows.stop - rows.start) // LANES)
    work = _new_work(K, X.shape[1])
    model = series.startprob, series.transmat, series.density
    _filter_stretches(*model, X, log_lik, steps, special, lead, work, begun, *results)
    return begun


def _special(steps: np.ndarray, lead: int, length: int) -> np.ndarray:
    """Whether any lane is not one chain step after the row before, from `_WARM_UP` rows before."""
    other = np.concatenate([np.zeros(_WARM_UP - lead, dtype=np.bool_), steps != 1])
    special = np.zeros(_WARM_UP + length, dtype=np.bool_)
    for lane in range(LANES):
        special |= other[lane * length :][: len(special)]
    return special


def _settle(series: _Series, rows: slice, begun: np.ndarray, current: np.ndarray) -> int:
    """Make a group exact, given the exact state before it; gives the number of repeated rows.

    `current` (K,) holds the state after the group afterwards.
    """
    length = (rows.stop - rows.start) // LANES
    n_repeated = 0
    for lane in range(LANES if length else 0):
        first = rows.start + lane * length
        if current.tobytes() != begun[lane].tobytes():
            n_repeated += _repeat(series, slice(first, first + length), current)
        current[:] = series.filtered.probs[first + length - 1]
    rest = slice(rows.start + LANES * length, rows.stop)
    if rest.start < rest.stop:
        series.filtered.probs[rest] = -1.0  # not filtered yet: nothing may agree by chance
        _repeat(series, rest, current)
        current[:] = series.filtered.probs[rest.stop - 1]
    return n_repeated


def _repeat(series: _Series, rows: slice, current: np.ndarray) -> int:
    """Filter again from the exact state `current` until the bits agree; gives how many rows."""
    for first in range(rows.start, rows.stop, _REPEATED):
        part = slice(first, min(first + _REPEATED, rows.stop))
        X = np.ascontiguousarray(series.X[part], dtype=np.float64)
        steps = np.ascontiguousarray(series.steps[part], dtype=np.int64)
        log_lik, exact = np.empty((2, len(X), len(current)))
        log_prob = np.empty(len(X))
        series.write(X, series.density, log_lik)
        advance(series.startprob, series.transmat, log_lik, steps, current, exact, log_prob)
        probs = series.filtered.probs[part]
        agree = (exact.view(np.int64) == probs.view(np.int64)).all(axis=1)
        n = int(np.argmax(agree)) if agree.any() else len(X)
        # The row of agreement may still come from another state, so its likelihood is replaced.
        probs[:n] = exact[:n]
        series.filtered.log_lik[part][: n + 1] = log_prob[: n + 1]
        if n < len(X):
            return first + n - rows.start
    return rows.stop - rows.start


class _Work(NamedTuple):
    """Numbers of a block of steps, one row of LANES per step and feature or state."""

    x: np.ndarray  # (BLOCK * D, LANES)
    z: np.ndarray  # whitened features of one step, (D, LANES)
    log_lik: np.ndarray  # (BLOCK * K, LANES)
    shift: np.ndarray  # largest of every step's log_lik, (BLOCK, LANES)
    predicted: np.ndarray  # of one step, (K, LANES)
    total: np.ndarray  # likelihood over exp(shift), (BLOCK, LANES)
    filtered: np.ndarray  # of the step before the block and of its steps, ((BLOCK + 1) * K, LANES)


def _new_work(K: int, D: int) -> _Work:
    rows = (_BLOCK * D, D, _BLOCK * K, _BLOCK, K, _BLOCK, (_BLOCK + 1) * K)
    return _Work(*(aligned_zeros(n) for n in rows))


@entry
def _filter_stretches(
    startprob, transmat, density, X, given, steps, special, lead, work, begun, probs, log_prob
):
    """Filter LANES stretches of equal length, each from `_WARM_UP` rows before its first.

    Parameters
    ----------
    X, steps
        Observations and chain steps of `lead` rows before the stretches and of all their rows.
    given
        Log densities of the same rows for Student-t states, otherwise empty.
    special
        Whether any lane of a step is not one chain step after the row before, from `_WARM_UP` rows
        before the stretches.
    begun
        Where the state before every stretch is written, shape (LANES, K).
    probs, log_prob
        Where the results are written: a row for every row from `lead` on.
    """
    K = transmat.shape[0]
    length = log_prob.shape[0] // LANES
    # Numba counts references to the arrays of a tuple wherever it is used, which takes long.
    x, z, log_lik, shift, predicted, total, filtered = work
    for k in range(K):
        store(filtered, k, splat(1.0 / K))
    for begin in range(-_WARM_UP, length, _BLOCK):
        n = min(_BLOCK, length - begin)
        first = lead + begin
        if begin == 0:
            _scatter(filtered, 0, 1, 1, begun)
        if density.df.size == 0:
            _gather(X, first, length, n, x)
            _gaussian_densities(density, n, x, z, log_lik)
        else:
            _gather(given, first, length, n, log_lik)
        here = special[_WARM_UP + begin : _WARM_UP + begin + n]
        done = 0
        while done < n:
            done = _update(transmat, log_lik, here, done, shift, predicted, total, filtered)
            _repeat_step(
                startprob, transmat, X, steps, first + done - 1, length, done - 1,
                log_lik, shift, total, filtered,
            )  # fmt: skip
        if begin >= 0:
            _scatter(filtered[K:], begin, length, n, probs)
            _add_logs(log_lik, shift, total, begin, length, n, log_prob)
        for k in range(K):
            store(filtered, k, load(filtered, n * K + k))


@kernel(allocates=True)
def _gather(rows, first, length, n, out):
    """Copy n rows of every stretch, one stretch per lane."""
    width = rows.shape[1]
    numbers = rows.reshape(rows.size)
    for lane in range(LANES):
        # Nothing is before the series, so any row will do.
        start = max(first + lane * length, 0) * width
        for i in range(n * width):
            out[i, lane] = numbers[start + i]


@kernel(allocates=True)
def _scatter(lanes, first, length, n, rows):
    """Copy n steps to the rows of every stretch."""
    width = rows.shape[1]
    numbers = rows.reshape(rows.size)
    for lane in range(LANES):
        start = (first + lane * length) * width
        for i in range(n * width):
            numbers[start + i] = lanes[i, lane]


@kernel
def _gaussian_densities(density, n, x, z, log_lik):
    """The operations of `density._gaussian_row` in all lanes; NaN where a row is missing."""
    K, D = density.means.shape
    means, factor, log_norm = density.means, density.factor, density.log_norm
    full = not density.diagonal
    for k in range(K):
        for s in range(n):
            distance = splat(0.0)
            for i in range(D):
                rest = load(x, s * D + i) - means[k, i]
                for j in range(i if full else 0):
                    rest = rest - load(z, j) * factor[k, i, j]
                rest = rest * factor[k, i, i]
                store(z, i, rest)
                distance = distance + rest * rest
            store(log_lik, s * K + k, log_norm[k] - distance * 0.5)


@kernel
def _update(transmat, log_lik, special, done, shift, predicted, total, filtered):
    """The operations of `inference.advance` for usual rows, in all lanes.

    Gives the number of steps done: those before were `done`, and the last may be no usual one.
    """
    K = transmat.shape[0]
    for s in range(done, len(special)):
        now, then = s * K, (s + 1) * K
        top = load(log_lik, now)
        for k in range(1, K):
            top = largest(top, load(log_lik, now + k))
        store(shift, s, top)
        likelihood = splat(0.0)
        for j in range(K):
            ahead = load(filtered, now) * transmat[0, j]
            for i in range(1, K):
                ahead = ahead + load(filtered, now + i) * transmat[i, j]
            store(predicted, j, ahead)
            f = ahead * exp(load(log_lik, now + j) - top)
            store(filtered, then + j, f)
            likelihood = likelihood + f
        store(total, s, likelihood)
        scale = 1.0 / likelihood
        for k in range(K):
            least = FLOOR - where_equal(load(predicted, k), 0.0, FLOOR)
            store(filtered, then + k, largest(load(filtered, then + k) * scale, least))
        if special[s] or not all_above(likelihood, FAINT):
            return s + 1
    return len(special)


@kernel(allocates=True)
def _repeat_step(startprob, transmat, X, steps, first, length, s, log_lik, shift, total, filtered):
    """Repeat a step by `inference.advance` in lanes where it is no usual one."""
    K = transmat.shape[0]
    for lane in range(LANES):
        row = max(first + lane * length, 0)
        if steps[row] == 1 and total[s, lane] > FAINT:
            continue
        missing = False
        for x in X[row]:
            missing |= np.isnan(x)
        current, given, probs, log_prob = (
            np.empty(K),
            np.zeros((1, K)),
            np.empty((1, K)),
            np.empty(1),
        )
        for k in range(K):
            current[k] = filtered[s * K + k, lane]
            if not missing:
                given[0, k] = log_lik[s * K + k, lane]
        advance(startprob, transmat, given, steps[row : row + 1], current, probs, log_prob)
        for k in range(K):
            filtered[(s + 1) * K + k, lane] = current[k]
        total[s, lane] = 1.0  # whose logarithm adds nothing
        shift[s, lane] = log_prob[0]


@kernel
def _add_logs(log_lik, shift, total, first, length, n, log_prob):
    """Write the log-likelihoods of n steps; 0 for a missing row."""
    K = log_lik.shape[0] // _BLOCK
    for lane in range(LANES):
        start = first + lane * length
        for s in range(n):
            missing = shift[s, lane] == 0.0
            for k in range(K if missing else 0):
                missing &= log_lik[s * K + k, lane] == 0.0
            log_prob[start + s] = math.log(total[s, lane]) + shift[s, lane]
            if missing:
                log_prob[start + s] = 0.0
