"""Rows of shards laid end to end, read from the mapped files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def batches(parts: list[Tensor], order: Tensor | None, stop: int, batch_size: int) -> Iterator[Tensor]:
    """The rows ``order[:stop]`` (all in their order if it is ``None``), ``batch_size`` at a time."""
    rows = None if order is None else Rows(parts)
    for start in range(0, stop, batch_size):
        end = min(start + batch_size, stop)
        if rows is None or order is None:
            yield stretch(parts, start, end)
        else:
            yield rows.take(order[start:end])


def stretch(parts: list[Tensor], start: int, end: int) -> Tensor:
    """Rows ``start`` to ``end``; a view where one part holds them."""
    pieces, first = [], 0
    for part in parts:
        if first < end and start < first + len(part):
            pieces.append(part[max(start - first, 0) : end - first])
        first += len(part)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class Rows:
    """Parts laid end to end, to take rows of in any order."""

    def __init__(self, parts: list[Tensor]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self._firsts = self._ends - [len(part) for part in parts]
        self._addresses = np.array([part.data_ptr() for part in parts], dtype=np.uint64)
        self._plain = all(part.dtype == torch.float32 and part.ndim == 2 and part.is_contiguous() for part in parts)

    def take(self, index: Tensor) -> Tensor:
        """The rows ``index``, in that order.

        Raises:
            IndexError: for a row that is not there.
        """
        first = self._parts[0]
        if len(self._parts) == 1:
            return first.index_select(0, index)
        rows = index.numpy()
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._ends[-1]):
            raise IndexError(f"index: expected rows in [0, {self._ends[-1]}), got others")
        part = np.searchsorted(self._ends, rows, side="right")
        if self._plain:
            from weightspace.zoo._gather import copy_rows  # numba: too slow to import where it is not needed

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
