"""Memory of the E step, allocated once per run.

Where the filtered probabilities of all steps take much memory, those of a segment are kept only,
with checkpoints from which the backward sweep filters each segment again.
"""

from itertools import accumulate
from typing import NamedTuple

import numpy as np

from hmm_exp.hmm.em.blocks import AHEAD, BLOCK, rounded_up
from hmm_exp.hmm.simd import aligned_zeros

_MOST_WHOLE = 1 << 16  # vectors of all f that are kept: 4 MB
_SEGMENT = 1 << 12  # vectors of the f of a segment: 256 kB stay in the second-level cache
_FIRST_WARM_UP = 32


class Scratch(NamedTuple):
    """Memory of the E step, in vectors of 8 lanes unless a shape is given.

    Attributes
    ----------
    ahead, behind
        Transition matrix and its transpose, with columns of zeros up to a multiple of 4; float64 of
        shape (K, K4).
    density
        BLOCK * K + 3: densities over the row's largest.
    posterior
        (BLOCK + 1) * K4: smoothed probabilities of the steps of a block and of the one after it.
    columns
        BLOCK * D4: 1 and x_i of every step, zeros where missing; D4 is D + 1 rounded up to a
        multiple of 4.
    products
        BLOCK * 4: up to four x_i x_j of every step.
    moments, squares
        (K + 1) * D4 and (K + 1) * F4: sums of posterior times columns and their products, for
        Student-t states also times the precision; F4 is the number of products rounded up.
    tails
        2 * K: sums of posterior and of posterior times ln q, for Student-t states.
    pairs
        (K + 1) * K4: sums of f_t(i) r_j.
    ratio
        BLOCK * K4: r of every step, zeros where K4 is more than K.
    state
        K: f of the step before the next to be filtered.
    checkpoints
        K per segment: f of the step before its first. The last segment is the first in time.
    logs
        2: sums of the logarithms of the largest densities, and of powers of two.
    smoothed
        K: smoothed probabilities of the step after the current segment.
    guess
        K: initial value of `smoothed`.
    raised
        1: smoothed probability of all raised f.
    flags
        1: 1.0 in the lanes where a bit is set.
    warm_up
        Rows of warm-up, forward and backward, int64 of shape (2,); kept between E steps.
    """

    ahead: np.ndarray
    behind: np.ndarray
    density: np.ndarray
    posterior: np.ndarray
    columns: np.ndarray
    products: np.ndarray
    moments: np.ndarray
    squares: np.ndarray
    tails: np.ndarray
    pairs: np.ndarray
    ratio: np.ndarray
    state: np.ndarray
    checkpoints: np.ndarray
    logs: np.ndarray
    smoothed: np.ndarray
    guess: np.ndarray
    raised: np.ndarray
    flags: np.ndarray
    warm_up: np.ndarray


def make_scratch(n: int, n_states: int, n_features: int, full: bool) -> Scratch:
    """Allocate memory for n steps of K states and D features, with or without covariances."""
    K, D = n_states, n_features
    K4, D4 = rounded_up(K), rounded_up(1 + D)
    F4 = rounded_up(D * (D + 1) // 2 if full else D)
    n_vectors = {
        "density": BLOCK * K + 3,
        "posterior": (BLOCK + 1) * K4,
        "columns": BLOCK * D4,
        "products": BLOCK * 4,
        "moments": (K + 1) * D4,
        "squares": (K + 1) * F4,
        "tails": 2 * K,
        "pairs": (K + 1) * K4,
        "ratio": BLOCK * K4,
        "state": K,
        "checkpoints": -(-n // _segment(n, K)) * K,
        "logs": 2,
        "smoothed": K,
        "guess": K,
        "raised": 1,
        "flags": 1,
    }
    ends = dict(zip(n_vectors, accumulate(n_vectors.values()), strict=True))
    memory = aligned_zeros(sum(n_vectors.values()))
    return Scratch(
        ahead=np.zeros((K, K4)),
        behind=np.zeros((K, K4)),
        warm_up=np.full(2, _FIRST_WARM_UP),
        **{name: memory[ends[name] - size : ends[name]] for name, size in n_vectors.items()},
    )


def make_forward(n: int, n_states: int) -> np.ndarray:
    """Memory for f of all n steps, or of a segment if that is too much."""
    return aligned_zeros((_segment(n, n_states) + 1 + AHEAD) * n_states)


def _segment(n: int, n_states: int) -> int:
    """Steps whose f are kept at a time, a multiple of BLOCK unless all are."""
    if n * n_states <= _MOST_WHOLE:
        return n
    return max(_SEGMENT // n_states // BLOCK, 1) * BLOCK
