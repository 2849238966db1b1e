"""Vectors of 16 lanes as numba types, written as LLVM vector code.

numba leaves to LLVM whether a loop is vectorised, and how wide. Here the vector operations are
explicit: one machine instruction with AVX-512, two with AVX2, four with NEON. Nothing uses
fast-math: NaN and infinity pass through as in the plain reference.

numba's cache does not see that a kernel's import has changed: after editing this file or
matrix_tile.py, delete ``models/field/__pycache__``.
"""

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
"""Elements of a vector: a register of AVX-512."""
FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)
# Lanes of the 8-byte table entries that one gather reads.
HALF = LANES // 2
I32 = ir.IntType(32)
I64 = ir.IntType(64)


class _Vector(types.Type):
    """A numba type that lives in vector registers."""

    def __init__(self, name: str, element: types.Type, llvm_type: ir.VectorType):
        super().__init__(name=name)
        self.element = element
        self.llvm_type = llvm_type


f32x16 = _Vector("f32x16", types.float32, FLOATS)
i32x16 = _Vector("i32x16", types.int32, INTS)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.llvm_type)


def _define(op, float_instruction: str | None, int_instruction: str | None) -> None:
    """Compiles a Python operator on vectors to an LLVM instruction, for each type of element.

    Args:
        op: a function of the module ``operator``.
        float_instruction: method of the LLVM builder for float32; None if there is none.
        int_instruction: method of the LLVM builder for int32; None if there is none.
    """
    cases = []
    for vector, instruction in ((f32x16, float_instruction), (i32x16, int_instruction)):
        if instruction is None:
            continue
        cases.append(signature(vector, vector, vector))

        @lower_builtin(op, vector, vector)
        def lower(context, builder, sig, args, instruction=instruction):
            return getattr(builder, instruction)(*args)

    infer_global(op)(type("_" + op.__name__, (ConcreteTemplate,), {"cases": cases}))


_define(operator.add, "fadd", "add")
_define(operator.sub, "fsub", "sub")
_define(operator.mul, "fmul", "mul")
_define(operator.truediv, "fdiv", None)
_define(operator.xor, None, "xor")
_define(operator.and_, None, "and_")
_define(operator.lshift, None, "shl")


def address(context, builder, array_type, array, at, llvm_type):
    """LLVM: a pointer into a flat array at element ``at``, seen as another type."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), llvm_type.as_pointer())


def call(builder, name: str, result, args):
    """LLVM: the value of an intrinsic function."""
    function_type = ir.FunctionType(result, [value.type for value in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def splat_ir(builder, scalar):
    """LLVM: a scalar in all lanes."""
    vector = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    # LLVM's idiom for a broadcast: lane 0 of a vector in every lane.
    zeros = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


@intrinsic
def load(typingctx, array, at):
    """16 consecutive elements of a flat float32 or int32 array from index ``at``."""
    vector = f32x16 if array.dtype == types.float32 else i32x16

    def codegen(context, builder, sig, args):
        return builder.load(
            address(context, builder, sig.args[0], args[0], args[1], vector.llvm_type), align=4
        )

    return vector(array, types.intp), codegen


@intrinsic
def store(typingctx, array, at, value):
    """Writes 16 consecutive elements of a flat array from index ``at``."""

    def codegen(context, builder, sig, args):
        pointer = address(context, builder, sig.args[0], args[0], args[1], sig.args[2].llvm_type)
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def splat(typingctx, scalar):
    """The same float32 in all lanes."""

    def codegen(context, builder, sig, args):
        return splat_ir(builder, args[0])

    return f32x16(types.float32), codegen


@intrinsic
def splat_int(typingctx, scalar):
    """The same int32 (two's complement of the low 32 bits) in all lanes."""

    def codegen(context, builder, sig, args):
        return splat_ir(builder, builder.trunc(args[0], I32))

    return i32x16(types.int64), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c."""

    def codegen(context, builder, sig, args):
        return call(builder, "llvm.fmuladd.v16f32", FLOATS, args)

    return f32x16(f32x16, f32x16, f32x16), codegen


def _unary(name: str, result, argument, emit):
    """Makes the intrinsic ``name(argument) -> result``; ``emit(builder, value)`` writes its
    code."""

    def typed(typingctx, value):
        def codegen(context, builder, sig, args):
            return emit(builder, args[0])

        return result(argument), codegen

    typed.__name__ = name
    return intrinsic(typed)


to_int = _unary("to_int", i32x16, f32x16, lambda builder, value: builder.fptosi(value, INTS))
to_float = _unary("to_float", f32x16, i32x16, lambda builder, value: builder.sitofp(value, FLOATS))
rounded = _unary(
    "rounded", f32x16, f32x16, lambda b, value: call(b, "llvm.rint.v16f32", FLOATS, [value])
)
root = _unary("root", f32x16, f32x16, lambda b, value: call(b, "llvm.sqrt.v16f32", FLOATS, [value]))


def _power_of_two(builder, value):
    """2^n by writing the exponent's bits."""
    # float32: 8 bits of exponent with a bias of 127, above 23 bits of mantissa.
    bits = builder.shl(
        builder.add(value, ir.Constant(INTS, [127] * LANES)), ir.Constant(INTS, [23] * LANES)
    )
    return builder.bitcast(bits, FLOATS)


exp2_int = _unary("exp2_int", f32x16, i32x16, _power_of_two)


@intrinsic
def clip(typingctx, value, low, high):
    """Lanes limited to [low, high]; NaN becomes ``low``, so that an index made from the lanes stays
    inside."""

    def codegen(context, builder, sig, args):
        # An ordered comparison with NaN is false: the limit is taken.
        above = builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])
        return builder.select(builder.fcmp_ordered("<", above, args[2]), above, args[2])

    return f32x16(f32x16, f32x16, f32x16), codegen


@intrinsic
def clip_keep_nan(typingctx, value, low, high):
    """Lanes limited to [low, high]; NaN stays NaN, as with torch.clamp."""

    def codegen(context, builder, sig, args):
        # An ordered comparison with NaN is false: NaN is taken.
        above = builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[1], args[0])
        return builder.select(builder.fcmp_ordered(">", above, args[2]), args[2], above)

    return f32x16(f32x16, f32x16, f32x16), codegen


@intrinsic
def where_nonzero(typingctx, test, a, b):
    """a where the lane of ``test`` is not zero (NaN counts as not zero), else b."""

    def codegen(context, builder, sig, args):
        zero = ir.Constant(FLOATS, [0.0] * LANES)
        return builder.select(builder.fcmp_unordered("!=", args[0], zero), args[1], args[2])

    return f32x16(f32x16, f32x16, f32x16), codegen


@intrinsic
def any_nonzero(typingctx, value):
    """Whether any lane is not zero."""

    def codegen(context, builder, sig, args):
        zero = ir.Constant(FLOATS, [0.0] * LANES)
        lanes = builder.fcmp_unordered("!=", args[0], zero)
        bits = builder.bitcast(lanes, ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(f32x16), codegen


@intrinsic
def lane_sum(typingctx, value):
    """The sum of the 16 lanes, in a fixed tree order."""

    def codegen(context, builder, sig, args):
        total = args[0]
        width = LANES
        # Halves are added until one lane is left.
        while width > 1:
            width //= 2
            halves = [
                builder.shuffle_vector(
                    total,
                    total,
                    ir.Constant(ir.VectorType(I32, width), list(range(start, start + width))),
                )
                for start in (0, width)
            ]
            total = builder.fadd(*halves)
        return builder.extract_element(total, ir.Constant(I32, 0))

    return types.float32(f32x16), codegen


def _gather_half(builder, base, indices, start: int):
    """Eight 8-byte table entries."""
    pick = ir.Constant(ir.VectorType(I32, HALF), list(range(start, start + HALF)))
    longs = ir.VectorType(I64, HALF)
    offsets = builder.zext(builder.shuffle_vector(indices, indices, pick), longs)
    # Address of each entry: the table's, plus 8 bytes (two float32) for each entry before it.
    first = builder.insert_element(ir.Constant(longs, ir.Undefined), base, ir.Constant(I32, 0))
    bases = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, HALF), [0] * HALF))
    addresses = builder.add(bases, builder.shl(offsets, ir.Constant(longs, [3] * HALF)))
    pointers = builder.inttoptr(addresses, ir.VectorType(I64.as_pointer(), HALF))
    mask = ir.Constant(ir.VectorType(ir.IntType(1), HALF), [1] * HALF)
    args = [pointers, ir.Constant(I32, 4), mask, ir.Constant(longs, ir.Undefined)]
    entries = call(builder, "llvm.masked.gather.v8i64.v8p0", longs, args)
    return builder.bitcast(entries, FLOATS)


@intrinsic
def gather_pairs(typingctx, array, at, indices):
    """The two features of 16 entries of a flat table of pairs that starts at element ``at``."""

    def codegen(context, builder, sig, args):
        base = builder.ptrtoint(address(context, builder, sig.args[0], args[0], args[1], I64), I64)
        low, high = (_gather_half(builder, base, args[2], start) for start in (0, HALF))
        # The gathered pairs interleave both features: even lanes are the first, odd the second.
        index = ir.VectorType(I32, LANES)
        pair = [
            builder.shuffle_vector(
                low, high, ir.Constant(index, list(range(feature, 2 * LANES, 2)))
            )
            for feature in (0, 1)
        ]
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(f32x16, 2)(array, types.intp, i32x16), codegen


@intrinsic
def add_pair(typingctx, array, at, weight, first, second):
    """Adds weight * (first, second) to the two floats from index ``at`` of a flat array."""

    def codegen(context, builder, sig, args):
        pair = ir.VectorType(ir.FloatType(), 2)
        pointer = address(context, builder, sig.args[0], args[0], args[1], pair)
        weights = ir.Constant(pair, ir.Undefined)
        values = ir.Constant(pair, ir.Undefined)
        for lane, value in enumerate(args[3:]):
            weights = builder.insert_element(weights, args[2], ir.Constant(I32, lane))
            values = builder.insert_element(values, value, ir.Constant(I32, lane))
        total = call(
            builder, "llvm.fmuladd.v2f32", pair, [weights, values, builder.load(pointer, align=4)]
        )
        builder.store(total, pointer, align=4)
        return context.get_dummy_value()

    f = types.float32
    return types.void(array, types.intp, f, f, f), codegen
