"""Copy rows of many mapped files into one array, each once; NumPy would need a call for each file, and copy twice."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from weightspace._compile import cached_njit


@intrinsic
def _pointer(typingctx, address):  # pyright: ignore
    """Turn an address into a pointer that ``carray`` takes."""

    def codegen(context, builder, signature, args):  # pyright: ignore
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.uintp), codegen


@cached_njit()
def copy_rows(bases: np.ndarray, part: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """Copy row ``row[i]`` of the file at address ``bases[part[i]]`` to ``out[i]``; float32, all as wide as ``out``.

    Nothing is checked: every row must be there.
    """
    width = out.shape[1]
    for i in range(len(out)):
        address = bases[part[i]] + np.uint64(4 * width) * np.uint64(row[i])
        source = carray(_pointer(address), width, np.float32)  # pyright: ignore
        target = out[i]
        for j in range(width):
            target[j] = source[j]
