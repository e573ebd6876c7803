"""Three machine instructions that numba does not offer by name: unaligned load, population count, trailing zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray


def _load_word(typingctx: Any, data: Any, offset: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        address = builder.gep(array.data, [args[1]])
        word = builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(data, types.intp), codegen


def _popcount(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


def _trailing_zeros(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


#: ``load_word(data, offset)``: the little-endian word ``offset`` bytes into a contiguous uint8 array
load_word = cast("Callable[[NDArray[np.uint8], int], np.uint64]", intrinsic(_load_word))
#: ``popcount(word)``: the number of set bits
popcount = cast("Callable[[np.uint64], np.uint64]", intrinsic(_popcount))
#: ``trailing_zeros(word)``: the number of zero bits below the lowest set bit of a word that is not zero
trailing_zeros = cast("Callable[[np.uint64], np.uint64]", intrinsic(_trailing_zeros))
