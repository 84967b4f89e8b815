"""Sums and products over a block of steps, which do not wait for one another.

Unlike the recursions of `e_step` they are limited by the arithmetic alone, so they keep several
sums in registers at a time and read a number once for all of them.
"""

from hmm_exp.compiling import inlined, kernel
from hmm_exp.hmm.simd import fma, load, reciprocal, splat, store

BLOCK = 16  # steps whose numbers fit in the first-level cache, a multiple of 4
AHEAD = 3  # steps after a block that are read and written where four are done at a time


def rounded_up(n: int) -> int:
    """Columns of the right side of `add_products`: the next multiple of four."""
    return n + -n % 4


@kernel
def predict(forward, first, transmat, least, out, n):
    """Write 1 / (least + sum over i of f(i) A_ij) of n steps; f of the first is at `first`."""
    K = transmat.shape[0]
    width = out.shape[0] // BLOCK
    for j in range(K):
        row, place = first, j
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
            store(out, place, reciprocal(p0))
            store(out, place + width, reciprocal(p1))
            store(out, place + 2 * width, reciprocal(p2))
            store(out, place + 3 * width, reciprocal(p3))
            row += 4 * K
            place += 4 * width


@kernel
def add_products(left, first, height, right, sums, n):
    """sums += left' right over n steps, the last first.

    The left side of step s is at `left[first + s * height]`, the right one at `right[s * width]`.
    """
    for i in range(0, height, 2):
        _add_two(left, first, height, right, sums, n, i)


@inlined
def _add_two(left, first, height, right, sums, n, i):
    """Two rows of `add_products`, four columns at a time; of a single row the second is spare."""
    width = right.shape[0] // BLOCK
    other = min(i + 1, height - 1) - i
    for j in range(0, width, 4):
        a = i * width + j
        b = a + width
        a0, a1, a2, a3 = load(sums, a), load(sums, a + 1), load(sums, a + 2), load(sums, a + 3)
        b0, b1, b2, b3 = load(sums, b), load(sums, b + 1), load(sums, b + 2), load(sums, b + 3)
        for s in range(n - 1, -1, -1):
            row, column = first + s * height + i, s * width + j
            p, q = load(left, row), load(left, row + other)
            x = load(right, column)
            a0, b0 = fma(p, x, a0), fma(q, x, b0)
            x = load(right, column + 1)
            a1, b1 = fma(p, x, a1), fma(q, x, b1)
            x = load(right, column + 2)
            a2, b2 = fma(p, x, a2), fma(q, x, b2)
            x = load(right, column + 3)
            a3, b3 = fma(p, x, a3), fma(q, x, b3)
        store_four(sums, a, a0, a1, a2, a3)
        store_four(sums, b, b0, b1, b2, b3)


@kernel
def store_four(array, row, a, b, c, d):
    """Store four vectors one after the other."""
    store(array, row, a)
    store(array, row + 1, b)
    store(array, row + 2, c)
    store(array, row + 3, d)


@kernel
def monomials(x, special, code, missing, D, full, out, begin, end):
    """1, x_i and x_i x_j (only squares unless `full`) of a block.

    All are zero where a row has the code `missing`, as its observations are.
    """
    width = out.shape[0] // BLOCK
    first = 0
    for s in range(begin, end):
        row = s * D
        store(out, first, splat(1.0))
        place = first + 1 + D
        for i in range(D):
            x_i = load(x, row + i)
            store(out, first + 1 + i, x_i)
            for j in range(0 if full else i, i + 1):
                store(out, place, x_i * load(x, row + j))
                place += 1
        if special[s]:
            for lane in range(out.shape[1]):
                if code[s, lane] & missing:
                    out[first, lane] = 0.0
        first += width
