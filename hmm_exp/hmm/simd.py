"""SIMD vectors of eight float64 numbers for compiled code.

Numba has no vector type, and LLVM does not vectorise recurrences. `Lanes` is LLVM's `<8 x double>`:
a kernel reads like scalar code and processes eight rows at a time (two instructions with AVX2, one
with AVX-512, four with NEON). Only inside compiled functions:

>>> a = load(array, 3)             # array (rows, 8), C-ordered: row 3
>>> store(array, 4, fma(a, 2.0, a) + 1.0)

Operators take two `Lanes`, or one and a float. Operations are not reordered, so the bits are those
of scalar code in every lane.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import lower_builtin, models, register_model, type_callable

from hmm_exp.compiling import kernel

LANES = 8

intrinsic: Any = extending.intrinsic  # its type hints lack the calls

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_ZEROS = ir.Constant(_VECTOR, [0.0] * LANES)
_BITS = ir.VectorType(ir.IntType(64), LANES)


class LanesType(types.Type):
    """Numba's name for `<8 x double>`."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes_type = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR)


def _constant(bits: int) -> ir.Constant:
    return ir.Constant(_BITS, [bits] * LANES)


def _as_vector(builder, kind, value):
    """The value, or a float broadcast to all lanes."""
    if isinstance(kind, LanesType):
        return value
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.IntType(32)(0))
    nowhere = ir.Constant(_VECTOR, ir.Undefined)
    return builder.shuffle_vector(
        one, nowhere, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


def _is_operand(kind) -> bool:
    return isinstance(kind, LanesType | types.Float)


def _pointer(context, builder, array_type, array, row):
    """Address of row `row` of a C-ordered array of shape (rows, LANES)."""
    struct = context.make_array(array_type)(context, builder, array)
    offset = builder.mul(row, ir.Constant(row.type, LANES))
    start = builder.gep(struct.data, [offset], inbounds=True)
    return builder.bitcast(start, _VECTOR.as_pointer())


def _is_lane_array(kind) -> bool:
    return isinstance(kind, types.Array) and kind.ndim == 2 and kind.layout == "C"


@intrinsic
def load(typingctx, array, row):
    """Row `row` of an array of shape (rows, LANES)."""
    if not _is_lane_array(array):
        return None

    def codegen(context, builder, signature, args):
        return builder.load(_pointer(context, builder, array, *args), align=8)

    return lanes_type(array, types.intp), codegen


@intrinsic
def store(typingctx, array, row, value):
    """Store into row `row` of an array of shape (rows, LANES)."""
    if not (_is_lane_array(array) and isinstance(value, LanesType)):
        return None

    def codegen(context, builder, signature, args):
        builder.store(args[2], _pointer(context, builder, array, *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def splat(typingctx, value):
    """Broadcast a float to all lanes."""

    def codegen(context, builder, signature, args):
        return _as_vector(builder, types.float64, args[0])

    return lanes_type(types.float64), codegen


@intrinsic
def spread(typingctx, array, place):
    """The number at a place of the memory of a C-ordered array, in all lanes."""
    if not (isinstance(array, types.Array) and array.layout == "C"):
        return None

    def codegen(context, builder, signature, args):
        struct = context.make_array(array)(context, builder, args[0])
        number = builder.load(builder.gep(struct.data, [args[1]], inbounds=True))
        return _as_vector(builder, types.float64, number)

    return lanes_type(array, types.intp), codegen


def _shift(by):
    """An intrinsic that shifts the lanes by `by` and fills the empty lane with a float."""

    @intrinsic
    def apply(typingctx, value, filling):
        def codegen(context, builder, signature, args):
            filling = _as_vector(builder, types.float64, args[1])
            source = [lane - by if 0 <= lane - by < LANES else LANES for lane in range(LANES)]
            places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), source)
            return builder.shuffle_vector(args[0], filling, places)

        return lanes_type(lanes_type, types.float64), codegen

    return apply


to_next, to_previous = _shift(1), _shift(-1)


@intrinsic
def lane_sum(typingctx, value):
    """Sum of the lanes, from the first to the last."""

    def codegen(context, builder, signature, args):
        total = builder.extract_element(args[0], ir.IntType(32)(0))
        for lane in range(1, LANES):
            total = builder.fadd(total, builder.extract_element(args[0], ir.IntType(32)(lane)))
        return total

    return types.float64(lanes_type), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, rounded once."""

    def codegen(context, builder, signature, args):
        vectors = [_as_vector(builder, *pair) for pair in zip(signature.args, args, strict=True)]
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        fused = cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.v8f64")
        return builder.call(fused, vectors)

    if not (_is_operand(a) and _is_operand(b) and _is_operand(c)):
        return None
    return lanes_type(a, b, c), codegen


def _define_operator(symbol, name):
    """Let an operator be one instruction of the IR builder: no function to compile and inline."""

    @type_callable(symbol)
    def type_of(context):
        def typer(a, b):
            if _is_operand(a) and _is_operand(b) and LanesType in (type(a), type(b)):
                return lanes_type
            return None

        return typer

    def lower(context, builder, signature, args):
        pairs = zip(signature.args, args, strict=True)
        return getattr(builder, name)(*[_as_vector(builder, *pair) for pair in pairs])

    for kinds in ((LanesType, LanesType), (LanesType, types.Float), (types.Float, LanesType)):
        lower_builtin(symbol, *kinds)(lower)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_symbol, _name)


@intrinsic
def largest(typingctx, a, b):
    """The larger of two; b where a is NaN."""

    def codegen(context, builder, signature, args):
        a, b = (_as_vector(builder, *pair) for pair in zip(signature.args, args, strict=True))
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    return lanes_type(a, b), codegen


@intrinsic
def all_above(typingctx, value, least):
    """Whether every lane is above a float; not if one is NaN."""

    def codegen(context, builder, signature, args):
        above = builder.fcmp_ordered(">", args[0], _as_vector(builder, types.float64, args[1]))
        bits = builder.bitcast(above, ir.IntType(LANES))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, (1 << LANES) - 1))

    return types.boolean(lanes_type, types.float64), codegen


def _where(comparison, meaning):
    """An intrinsic that gives a value where two numbers compare so, else zero."""

    @intrinsic
    def apply(typingctx, a, b, value):
        def codegen(context, builder, signature, args):
            a, b, value = (
                _as_vector(builder, *pair) for pair in zip(signature.args, args, strict=True)
            )
            return builder.select(builder.fcmp_ordered(comparison, a, b), value, _ZEROS)

        return lanes_type(a, b, value), codegen

    apply.__doc__ = f"`value` where a {meaning} b, else zero."
    return apply


where_equal, where_below = _where("==", "equals"), _where("<", "is below")


@intrinsic
def _times_power_of_two(typingctx, value, shifted, x, lowest):
    """value * 2**n where n are the low bits of `shifted`; zero where x < lowest."""

    def codegen(context, builder, signature, args):
        value, shifted, x, lowest = args
        power = builder.shl(builder.bitcast(shifted, _BITS), _constant(52))
        scaled = builder.bitcast(builder.add(builder.bitcast(value, _BITS), power), _VECTOR)
        enough = builder.fcmp_unordered(">=", x, _as_vector(builder, types.float64, lowest))
        return builder.select(enough, scaled, _ZEROS)

    return lanes_type(lanes_type, lanes_type, lanes_type, types.float64), codegen


@intrinsic
def _shifted_power(typingctx, value, shifted):
    """value * 2**n where n are the low bits of `shifted`."""

    def codegen(context, builder, signature, args):
        power = builder.shl(builder.bitcast(args[1], _BITS), _constant(52))
        return builder.bitcast(builder.add(builder.bitcast(args[0], _BITS), power), _VECTOR)

    return lanes_type(lanes_type, lanes_type), codegen


@intrinsic
def mantissa(typingctx, value):
    """Mantissa in [1, 2) of a positive normal number."""

    def codegen(context, builder, signature, args):
        bits = builder.and_(builder.bitcast(args[0], _BITS), _constant((1 << 52) - 1))
        return builder.bitcast(builder.or_(bits, _constant(0x3FF << 52)), _VECTOR)

    return lanes_type(lanes_type), codegen


@intrinsic
def _biased_exponent(typingctx, value):
    """2**52 + 1023 + the exponent that belongs to `mantissa`."""

    def codegen(context, builder, signature, args):
        power = builder.lshr(builder.bitcast(args[0], _BITS), _constant(52))
        return builder.bitcast(builder.or_(power, _constant(0x433 << 52)), _VECTOR)

    return lanes_type(lanes_type), codegen


@intrinsic
def inverse_power(typingctx, value):
    """1 over the power of two that belongs to `mantissa`."""

    def codegen(context, builder, signature, args):
        bits = builder.and_(builder.bitcast(args[0], _BITS), _constant(0x7FF << 52))
        return builder.bitcast(builder.sub(_constant(0x7FE << 52), bits), _VECTOR)

    return lanes_type(lanes_type), codegen


@intrinsic
def _about_inverse(typingctx, value):
    """1 over a positive normal number, by up to 5.1 % wrong."""

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], _BITS)
        return builder.bitcast(builder.sub(_constant(0x7FDE623822FC16E6), bits), _VECTOR)

    return lanes_type(lanes_type), codegen


@kernel
def reciprocal(x):
    """1 / x of a number from 1e-306 to 1e306, nearly always rounded as by a division.

    A division takes eight times as long as a product. With y about 1 / x and e = 1 - x y,
    1 / x = y (1 + e) (1 + e**2) (1 + e**4) ..., then one step of Newton's method.
    """
    y = _about_inverse(x)
    e = fma(x * -1.0, y, 1.0)
    square = e * e
    y = fma(y, e, y)
    y = fma(y, square, y)
    y = fma(y, square * square, y)
    return fma(y, fma(x * -1.0, y, 1.0), y)


@kernel
def exponent(value):
    """The exponent of two that belongs to `mantissa`."""
    return _biased_exponent(value) - 4503599627371519.0  # 2**52 + 1023


@kernel
def log(x):
    """ln x of a positive normal number, with an absolute error of 3e-16 plus half a last digit.

    x = 2^(n + 1/2) r with r in [2^-1/2, 2^1/2) and ln r = 2 artanh((r - 1) / (r + 1)), the Taylor
    polynomial of degree 19.
    """
    m = mantissa(x)
    s = (m - 1.4142135623730951) / (m + 1.4142135623730951)
    r = s * s
    p = fma(r, 1.0 / 19.0, 1.0 / 17.0)
    p = fma(p, r, 1.0 / 15.0)
    p = fma(p, r, 1.0 / 13.0)
    p = fma(p, r, 1.0 / 11.0)
    p = fma(p, r, 1.0 / 9.0)
    p = fma(p, r, 1.0 / 7.0)
    p = fma(p, r, 1.0 / 5.0)
    p = fma(p, r, 1.0 / 3.0)
    p = fma(p, r, 1.0)
    return fma(exponent(x) + 0.5, 0.6931471805599453, (s + s) * p)


@kernel
def exp(x):
    """e**x for x <= 700 with a relative error of 3.5e-16; zero below -708.

    x = n ln 2 + r with |r| <= ln 2 / 2 (Cody & Waite 1980), then the Taylor polynomial of degree 13
    in r. Adding 1.5 * 2**52 rounds to the nearest n, which is then in the low bits.
    """
    shifted = fma(x, 1.4426950408889634, 6755399441055744.0)
    n = shifted - 6755399441055744.0
    r = fma(n, -1.90821492927058770002e-10, fma(n, -6.93147180369123816490e-01, x))
    p = fma(r, 1.0 / 6227020800.0, 1.0 / 479001600.0)
    p = fma(p, r, 1.0 / 39916800.0)
    p = fma(p, r, 1.0 / 3628800.0)
    p = fma(p, r, 1.0 / 362880.0)
    p = fma(p, r, 1.0 / 40320.0)
    p = fma(p, r, 1.0 / 5040.0)
    p = fma(p, r, 1.0 / 720.0)
    p = fma(p, r, 1.0 / 120.0)
    p = fma(p, r, 1.0 / 24.0)
    p = fma(p, r, 1.0 / 6.0)
    p = fma(p, r, 0.5)
    p = fma(p, r, 1.0)
    p = fma(p, r, 1.0)
    return _times_power_of_two(p, shifted, x, -708.0)


@kernel
def quick_exp(x):
    """e**x with other bits than `exp` in less time, for many independent numbers x <= 700.

    Below -690 it is e**-690: a product with it may still be a normal number. The relative error is
    1.5e-16 plus 3.4e-17 |x|, and x owes more than the latter to its own rounding.

    In e**r = 1 + r + r**2 q(r) the polynomial q of degree 9 interpolates at Chebyshev's points,
    and its even and odd terms are summed side by side, as a processor cannot look far ahead.
    """
    x = largest(x, -690.0)
    shifted = fma(x, 1.4426950408889634, 6755399441055744.0)
    n = shifted - 6755399441055744.0
    r = fma(n, -0.6931471805599453, x)
    square = r * r
    even = fma(square, 2.7620088445409746e-07, 2.4801521295954376e-05)
    odd = fma(square, 2.510038549551032e-08, 2.7557268459997064e-06)
    even = fma(even, square, 0.0013888888917213717)
    odd = fma(odd, square, 0.00019841269863053618)
    even = fma(even, square, 0.04166666666662413)
    odd = fma(odd, square, 0.008333333333330062)
    even = fma(even, square, 0.5000000000000001)
    odd = fma(odd, square, 0.16666666666666669)
    p = fma(fma(odd, r, even), square, r) + 1.0
    return _shifted_power(p, shifted)


@kernel
def has_bit(bits, lane):
    """Whether the bit of a lane is set in a number of eight bits."""
    return (bits >> lane) & 1 == 1


def aligned_zeros(n_vectors: int) -> np.ndarray:
    """Zeros of shape (n_vectors, LANES), aligned to a cache line."""
    line = 64
    raw = np.zeros(n_vectors * LANES + line // 8)
    start = (-raw.ctypes.data % line) // 8
    return raw[start : start + n_vectors * LANES].reshape(n_vectors, LANES)
