"""Rows of shards laid end to end, gathered from the mapped files or from memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class ShardRows:
    """Tensors laid end to end, to take rows of in any order.

    Args:
        parts: ``[rows, ...]`` each, alike in dtype and in the shape of a row; mapped files, or tensors in memory or on
            a device.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._firsts = self._ends - [len(part) for part in parts]
        self._addresses = np.array([part.data_ptr() for part in parts], dtype=np.uint64)
        self._plain = all(part.dtype == torch.float32 and part.ndim == 2 and part.is_contiguous() for part in parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def nbytes(self) -> int:
        """Size of all rows in bytes."""
        return sum(part.numel() * part.element_size() for part in self._parts)

    def joined(self) -> ShardRows:
        """Return the same rows as one tensor in memory."""
        return self if len(self._parts) == 1 else ShardRows([torch.cat(self._parts)])

    def tensor(self) -> Tensor:
        """Return all rows as one tensor: the part itself where there is one, else a copy in memory."""
        return self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)

    def to(self, device: torch.device) -> ShardRows:
        """Return the same rows as one tensor on a device."""
        return ShardRows([self.tensor().to(device)])

    def stretch(self, start: int, end: int) -> Tensor:
        """Return the rows ``start`` to ``end``; a view where one part holds them."""
        pieces = [
            part[max(start - first, 0) : end - first]
            for part, first in zip(self._parts, self._firsts.tolist(), strict=True)
            if first < end and start < first + len(part)
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def take(self, index: Tensor) -> Tensor:
        """Return the rows ``index``, in that order.

        Raises:
            IndexError: for a row that is not there.
        """
        first = self._parts[0]
        if len(self._parts) == 1:
            return first.index_select(0, index.to(first.device))
        rows = index.cpu().numpy()
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._ends[-1]):
            raise IndexError(f"index: expected rows in [0, {self._ends[-1]}), got others")
        part = np.searchsorted(self._ends, rows, side="right")
        if self._plain:
            from weightspace.zoo._gather import copy_rows  # numba takes a while to load, and few zoos need it

            out = torch.empty(len(index), first.shape[1])
            copy_rows(self._addresses, part, rows - self._firsts[part], out.numpy())
            return out
        return self._by_part(rows, part)

    def _by_part(self, rows: np.ndarray, part: np.ndarray) -> Tensor:
        order = np.argsort(part, kind="stable")
        out = np.empty((len(rows), *self._parts[0].shape[1:]), dtype=self._parts[0].numpy().dtype)
        ends = np.cumsum(np.bincount(part, minlength=len(self._parts)))
        for number, places in enumerate(np.split(order, ends[:-1])):
            out[places] = self._parts[number].numpy()[rows[places] - self._firsts[number]]
        return torch.from_numpy(out)
