"""A matrix product whose sums stay in vector registers: the inner loop of every layer of the
MLP."""

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from models.field.kernels.vectors import FLOATS, I64, LANES, address, call, splat_ir

# Arguments of a tile, in order; see matrix_tile.
_NAMES = [
    "c",
    "c_at",
    "c_row",
    "a",
    "a_at",
    "a_row",
    "a_k",
    "b",
    "b_at",
    "b_row",
    "depth",
    "extra",
    "extra_at",
]
_ZERO = ir.Constant(FLOATS, [0.0] * LANES)


def wide_registers() -> bool:
    """Whether this CPU has 32 vector registers of 512 bits (AVX-512)."""
    try:
        return bool(llvm.get_host_cpu_features().get("avx512f", False))
    except RuntimeError:
        # LLVM does not know the features of this CPU.
        return False


def matrix_tile(rows: int, columns: int, start: str, finish: str):
    """Makes ``tile(c, c_at, c_row, a, a_at, a_row, a_k, b, b_at, b_row, depth, extra, extra_at)``
    for numba code.

    Computes C = finish(start + A B) for a tile of ``rows`` x 16 * ``columns``, A of ``depth`` >=
    1 columns. All arrays are flat float32; A is read at ``a_at + r * a_row + k * a_k``, B at ``b_at
    + k * b_row``.

    Args:
        start: "zero", "c" (adds to C) or "row" (the vector ``extra`` from ``extra_at`` in each row:
            a bias).
        finish: "none", "relu", or "mask" (zero where ``extra``, laid out as C, is not above zero).
    """

    def emit(context, builder, sig, args):
        _Tile(context, builder, sig, args, rows, columns).emit(start, finish)
        return context.get_dummy_value()

    @intrinsic
    def tile(
        typingctx, c, c_at, c_row, a, a_at, a_row, a_k, b, b_at, b_row, depth, extra, extra_at
    ):
        i = types.intp
        return types.void(c, i, i, a, i, i, i, b, i, i, i, extra, i), emit

    return tile


class _Tile:
    """The LLVM code of a tile."""

    def __init__(self, context, builder, sig, args, rows: int, columns: int):
        self.context = context
        self.builder = builder
        self.columns = columns
        self.value = dict(zip(_NAMES, args, strict=True))
        self.type = dict(zip(_NAMES, sig.args, strict=True))
        self.cells = [(r, n) for r in range(rows) for n in range(columns)]

    def emit(self, start: str, finish: str) -> None:
        """Starts the sums, loops over the depth, stores the sums."""
        builder = self.builder
        starts = [self.start_of(start, *cell) for cell in self.cells]
        # One loop over the depth; each sum is a phi node, so that LLVM keeps it in a register.
        before = builder.block
        loop = builder.append_basic_block("tile")
        after = builder.append_basic_block("tile.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(I64)
        sums = [builder.phi(FLOATS) for _ in self.cells]
        new = self.add_products(k, sums)
        following = builder.add(k, ir.Constant(I64, 1))
        for phi, initial, value in zip(
            (k, *sums), (ir.Constant(I64, 0), *starts), (following, *new), strict=True
        ):
            phi.add_incoming(initial, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, self.value["depth"]), loop, after)
        builder.position_at_end(after)
        for cell, value in zip(self.cells, new, strict=True):
            builder.store(self.finish(finish, value, *cell), self.pointer("c", *cell), align=4)

    def start_of(self, start: str, r: int, n: int):
        """The start value of a cell's sum."""
        if start == "c":
            return self.builder.load(self.pointer("c", r, n), align=4)
        return self.builder.load(self.pointer("extra", 0, n), align=4) if start == "row" else _ZERO

    def add_products(self, k, sums: list) -> list:
        """The sums with the products of column k of A and row k of B added."""
        b_at = self.builder.add(self.value["b_at"], self.builder.mul(k, self.value["b_row"]))
        b = [self.load("b", self.shifted(b_at, n * LANES), FLOATS) for n in range(self.columns)]
        a_at = self.builder.add(self.value["a_at"], self.builder.mul(k, self.value["a_k"]))
        # Each scalar of A is broadcast once and multiplies all vectors of B's row.
        rows = range(len(sums) // self.columns)
        scalars = [self.load("a", self.row_of(a_at, "a_row", r), ir.FloatType()) for r in rows]
        a = [splat_ir(self.builder, scalar) for scalar in scalars]
        return [
            call(self.builder, "llvm.fmuladd.v16f32", FLOATS, [a[r], b[n], total])
            for (r, n), total in zip(self.cells, sums, strict=True)
        ]

    def finish(self, finish: str, value, r: int, n: int):
        """The stored value of a cell's sum. Ordered comparisons let NaN pass a ReLU."""
        if finish == "relu":
            return self.builder.select(self.builder.fcmp_ordered("<", value, _ZERO), _ZERO, value)
        if finish == "mask":
            gate = self.builder.load(self.pointer("extra", r, n), align=4)
            return self.builder.select(self.builder.fcmp_ordered(">", gate, _ZERO), value, _ZERO)
        return value

    def pointer(self, name: str, r: int, n: int):
        """Pointer to cell (r, n) of C, or of ``extra`` laid out as C."""
        at = self.shifted(self.row_of(self.value[name + "_at"], "c_row", r), n * LANES)
        return address(self.context, self.builder, self.type[name], self.value[name], at, FLOATS)

    def load(self, name: str, at, kind):
        """The value of an array at an index, as another type."""
        return self.builder.load(
            address(self.context, self.builder, self.type[name], self.value[name], at, kind),
            align=4,
        )

    def row_of(self, at, stride: str, r: int):
        """Index ``r`` rows of length ``stride`` further."""
        return self.builder.add(at, self.builder.mul(self.value[stride], ir.Constant(I64, r)))

    def shifted(self, at, elements: int):
        """Index some elements further."""
        return self.builder.add(at, ir.Constant(I64, elements))
