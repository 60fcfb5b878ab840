"""Rows of shards laid end to end, gathered from the mapped files or from memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def row_numbers(name: str, rows: Any, count: int) -> Tensor:
    """Return numbers of rows as int64 ``[batch]``.

    Args:
        name: what the rows are called, for the message.
        rows: such numbers, or a mask ``[count]``.
        count: the number of rows that there are.

    Raises:
        ValueError: for rows of another form.
        IndexError: for a row that is not there.
    """
    found = torch.as_tensor(rows).cpu()
    if found.dtype == torch.bool and list(found.shape) == [count]:
        return torch.nonzero(found).flatten()
    if found.ndim != 1 or (len(found) and (found.is_floating_point() or found.dtype == torch.bool)):
        raise ValueError(f"{name}: expected indices or a mask [{count}], got {list(found.shape)} of {found.dtype}")
    if len(found) and not (int(found.min()) >= 0 and int(found.max()) < count):
        raise IndexError(f"{name}: expected indices in [0, {count}), got others")
    return found.to(torch.int64)


class ShardRows:
    """Tensors laid end to end, to take rows of in any order.

    Args:
        parts: ``[rows, ...]`` each, alike in dtype and in the shape of a row: mapped files, or one tensor in memory or
            on a device.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._firsts = self._ends - [len(part) for part in parts]
        self._arrays = [part.numpy() for part in parts] if len(parts) > 1 else []

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def nbytes(self) -> int:
        """Size of all rows in bytes."""
        return sum(part.numel() * part.element_size() for part in self._parts)

    def tensor(self) -> Tensor:
        """Return all rows as one tensor: the part itself where there is one, else a copy in memory."""
        return self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)

    def stretch(self, start: int, end: int) -> Tensor:
        """Return the rows ``start`` to ``end``; a view where one part holds them."""
        if len(self._parts) == 1:
            return self._parts[0][start:end]
        first, last = np.searchsorted(self._ends, [start, end - 1], side="right").tolist()
        firsts = self._firsts.tolist()
        pieces = [self._parts[k][max(start - firsts[k], 0) : end - firsts[k]] for k in range(first, last + 1)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def take(self, index: Tensor) -> Tensor:
        """Return the rows ``index``, in that order; every row must be there."""
        rows = index.cpu().numpy()
        if len(self._parts) == 1 or not len(rows):
            return self._parts[0].index_select(0, index.to(self._parts[0].device))
        part = np.searchsorted(self._ends, rows, side="right")
        places = zip(part.tolist(), (rows - self._firsts[part]).tolist(), strict=True)
        return torch.from_numpy(np.concatenate([self._arrays[number][row : row + 1] for number, row in places]))
