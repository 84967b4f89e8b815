"""Sums and products over a block of steps, which do not wait for one another.

Unlike the recursions of `e_step` they are limited by the arithmetic alone, so they keep several
sums in registers at a time and read a number once for all of them.
"""

import numpy as np

from hmm_exp.compiling import kernel
from hmm_exp.hmm.simd import fma, has_bit, load, reciprocal, splat, store

BLOCK = 16  # steps whose numbers fit in the first-level cache, a multiple of 4
AHEAD = 3  # steps after a block that are read and written where four are done at a time
ZERO = np.int64(0)  # for a literal 0 as an argument numba would compile a kernel once more


def rounded_up(n: int) -> int:
    """The next multiple of four: columns are made, and states followed, four at a time."""
    return n + -n % 4


@kernel
def predict(forward, first, transmat, least, out, n):
    """Write 1 / (least + sum over i of f(i) A_ij) of n steps; f of the first is at `first`."""
    K = transmat.shape[0]
    for j in range(K):
        row, place = first, j * BLOCK
        for _ in range(0, n, 4):
            chance = transmat[0, j]
            p0, p1 = (
                fma(load(forward, row), chance, least),
                fma(load(forward, row + K), chance, least),
            )
            p2 = fma(load(forward, row + 2 * K), chance, least)
            p3 = fma(load(forward, row + 3 * K), chance, least)
            for i in range(1, K):
                chance = transmat[i, j]
                p0 = fma(load(forward, row + i), chance, p0)
                p1 = fma(load(forward, row + K + i), chance, p1)
                p2 = fma(load(forward, row + 2 * K + i), chance, p2)
                p3 = fma(load(forward, row + 3 * K + i), chance, p3)
            store_four(out, place, reciprocal(p0), reciprocal(p1), reciprocal(p2), reciprocal(p3))
            row += 4 * K
            place += 4


@kernel
def add_products(left, first, stride, height, right, sums, n):
    """sums += left' right over n steps, the last first.

    In step s row i of the left side is at `left[first + s * stride + i]`, column j of the right one
    at `right[j * BLOCK + s]`.
    """
    for j in range(0, right.shape[0] // BLOCK, 4):
        _add_four(left, first, stride, height, right, j * BLOCK, sums, j, n)


@kernel
def _add_four(left, first, stride, height, right, column, sums, place, n):
    """Four columns of `add_products`, two rows at a time; of a single row the second is spare."""
    width = sums.shape[0] // (height + 1)
    for i in range(0, height, 2):
        other = min(1, height - 1 - i)
        a = i * width + place
        b = a + width
        a0, a1, a2, a3 = load(sums, a), load(sums, a + 1), load(sums, a + 2), load(sums, a + 3)
        b0, b1, b2, b3 = load(sums, b), load(sums, b + 1), load(sums, b + 2), load(sums, b + 3)
        row = first + i + n * stride
        for at in range(column + n - 1, column - 1, -1):
            row -= stride
            p, q = load(left, row), load(left, row + other)
            x = load(right, at)
            a0, b0 = fma(p, x, a0), fma(q, x, b0)
            x = load(right, at + BLOCK)
            a1, b1 = fma(p, x, a1), fma(q, x, b1)
            x = load(right, at + 2 * BLOCK)
            a2, b2 = fma(p, x, a2), fma(q, x, b2)
            x = load(right, at + 3 * BLOCK)
            a3, b3 = fma(p, x, a3), fma(q, x, b3)
        store_four(sums, a, a0, a1, a2, a3)
        store_four(sums, b, b0, b1, b2, b3)


@kernel
def add_squares(left, stride, height, columns, D, full, products, sums, n):
    """`add_products` with columns x_i x_j, only squares unless `full`, made four at a time."""
    made, place = 0, 0
    for i in range(1, D + 1):
        for j in range(1 if full else i, i + 1):
            for s in range(n):
                product = load(columns, i * BLOCK + s) * load(columns, j * BLOCK + s)
                store(products, made * BLOCK + s, product)
            made += 1
            if made == 4 or j == D:
                _add_four(left, ZERO, stride, height, products, ZERO, sums, place, n)
                made, place = 0, place + 4


@kernel
def set_columns(x, missing, D, columns, begin, end):
    """Columns 1 and x_i of a block, zero where the lane's bit in `missing` is set."""
    for i in range(D):
        row = begin * D + i
        for at in range((1 + i) * BLOCK, (1 + i) * BLOCK + end - begin, 4):
            x0, x1 = load(x, row), load(x, row + D)
            store_four(columns, at, x0, x1, load(x, row + 2 * D), load(x, row + 3 * D))
            row += 4 * D
    for s in range(end - begin):
        store(columns, s, splat(1.0))
        if missing[begin + s]:
            for lane in range(columns.shape[1]):
                if has_bit(missing[begin + s], lane):
                    columns[s, lane] = 0.0


@kernel
def store_four(array, row, a, b, c, d):
    """Store four vectors one after the other."""
    store(array, row, a)
    store(array, row + 1, b)
    store(array, row + 2, c)
    store(array, row + 3, d)
