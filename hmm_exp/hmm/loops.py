"""Plain loops for compiled code.

Numba compiles each of these several times faster than NumPy's call: an assignment to a whole array
alone brings in the formatting of its error message, which takes a second to compile.
"""

from hmm_exp.compiling import kernel


@kernel
def copy(source, target):
    """Copy one flat array to another."""
    for i in range(source.size):
        target[i] = source[i]


@kernel
def fill(values, value):
    """Set all numbers of a flat array."""
    for i in range(values.size):
        values[i] = value


@kernel
def total(values):
    """Sum in order; the compiler may not reorder it."""
    result = 0.0
    for i in range(values.size):
        result += values[i]
    return result


@kernel
def argmax(values):
    """Place of the largest number of a flat array, the first of equal ones; without NaN."""
    best = 0
    for i in range(1, values.size):
        if values[i] > values[best]:
            best = i
    return best
