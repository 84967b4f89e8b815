"""Lower limit of an EM iteration on this machine: its exponentials and its two recurrences.

    python benchmarks/em_limit.py

Every row needs K exponentials, and its filtered and smoothed probabilities wait for those of the
row before and after it. Both are timed here by themselves, eight rows at a time as in the engine,
on numbers that stay in the first-level cache: without densities, moments, and reading the data.
`benchmarks/em.py` prints how many times their sum an iteration takes.
"""

import time

import numpy as np
from numba import njit

from hmm_exp.hmm.simd import LANES, aligned_zeros, fma, largest, load, quick_exp, store

BLOCK = 16
LEAST = 1e-290


@njit(nogil=True)
def exponentials(x, out, n_times):
    """e**x of all rows of x, over and over."""
    for _ in range(n_times):
        for i in range(x.shape[0]):
            store(out, i, quick_exp(load(x, i)))


@njit(nogil=True)
def forward(transmat, density, f, n_steps):
    """The filter of `hmm.em.e_step` with given densities; f has room for two steps."""
    K = transmat.shape[0]
    for s in range(n_steps):
        now, then = (s % 2) * K, (1 - s % 2) * K
        total = load(f, now)
        for i in range(1, K):
            total = total + load(f, now + i)
        inverse = 1.0 / total
        for j in range(K):
            ahead = load(f, now) * transmat[0, j]
            for i in range(1, K):
                ahead = fma(load(f, now + i), transmat[i, j], ahead)
            step = ahead * inverse * load(density, s % BLOCK * K + j)
            store(f, then + j, largest(step, LEAST))


@njit(nogil=True)
def backward(transmat, filtered, predicted, smoothed, ratio, n_steps):
    """The smoother of `hmm.em.e_step` with given filtered and predicted probabilities."""
    K = transmat.shape[0]
    for s in range(n_steps):
        at = s % BLOCK * K
        for j in range(K):
            store(ratio, j, load(smoothed, j) / load(predicted, at + j))
        for i in range(K):
            behind = load(ratio, 0) * transmat[i, 0]
            for j in range(1, K):
                behind = fma(load(ratio, j), transmat[i, j], behind)
            store(smoothed, i, load(filtered, at + i) * behind)


def limit(n_rows: int, n_states: int, repeats: int = 5) -> tuple[float, float]:
    """Milliseconds of the exponentials and of the recurrences of an iteration over `n_rows`."""
    K, n_steps = n_states, -(-n_rows // LANES)
    rng = np.random.default_rng(0)
    x, out, density = (aligned_zeros(BLOCK * K) for _ in range(3))
    x[:] = -rng.uniform(0.0, 30.0, x.shape)
    density[:] = rng.uniform(0.1, 1.0, density.shape)
    transmat = np.full((K, K), 0.02) + (1.0 - 0.02 * K) * np.eye(K)
    f, smoothed, ratio = aligned_zeros(2 * K), aligned_zeros(K), aligned_zeros(K)
    f[:], smoothed[:] = 1.0 / K, 1.0 / K
    even = aligned_zeros(BLOCK * K)
    even[:] = 1.0 / K
    spent = [
        _least(lambda: exponentials(x, out, -(-n_steps // BLOCK)), repeats),
        _least(lambda: forward(transmat, density, f, n_steps), repeats),
        _least(lambda: backward(transmat, even, even, smoothed, ratio, n_steps), repeats),
    ]
    return spent[0], spent[1] + spent[2]


def _least(work, repeats: int) -> float:
    """Shortest milliseconds of some calls after the one that compiles."""
    work()
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return 1e3 * min(spent)


def main() -> None:
    """Print nanoseconds per row for some numbers of states."""
    n_rows = 100_000
    print("K  exponentials  recurrences, ns per row")
    for n_states in (2, 3, 4, 5, 6, 8):
        parts = np.array(limit(n_rows, n_states)) * 1e6 / n_rows
        print(f"{n_states:d} {parts[0]:13.2f} {parts[1]:12.2f}")


if __name__ == "__main__":
    main()
