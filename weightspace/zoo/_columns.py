"""The columns of a zoo's shards: checked before they are read, mapped, joined where they fit, and read in batches."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._networks import COLUMNS, Networks
from weightspace._table import decoded, kind, rows_of
from weightspace._weights import Weights
from weightspace.zoo._format import FURTHER, Manifest, Shard
from weightspace.zoo._shards import map_shard, shard_problem

MOST_PROBLEMS = 3
MOST_HASHERS = 8


class Columns:
    """The columns of all finished shards of a zoo, by name and split.

    Args:
        path: the folder of the zoo.
        manifest: its manifest.
        hashed: whether a shard's sha256 is to be compared before it is read for the first time.
    """

    def __init__(self, path: Path, manifest: Manifest, *, hashed: bool) -> None:
        self._path, self._spec = path, manifest.spec
        self.of_split = dict[str, list[Shard]]()
        for shard in manifest.shards:
            if shard.done:
                self.of_split.setdefault(shard.split, []).append(shard)
        self._unread = {shard.file for shard in manifest.shards if shard.done} if hashed else set[str]()
        self._maps = dict[str, dict[str, Tensor]]()
        self._whole = dict[tuple[str, str], Tensor]()
        self._resident = dict[tuple[str, torch.device], ShardRows]()
        self._kinds = manifest.settings.columns
        self._further = dict[tuple[str, str], Any]()

    def shards(self, split: str) -> list[Shard]:
        """Return the finished shards of a split.

        Raises:
            ValueError: for a split that there is not.
        """
        if split not in self.of_split:
            raise ValueError(f"split: expected one of {list(self.of_split)}, got {split!r}")
        return self.of_split[split]

    def rows(self, name: str, split: str) -> ShardRows:
        """Return a column of a split, mapped, or in memory if it has been joined.

        Raises:
            ValueError: for an unknown split, or a shard that is not as its hash says.
        """
        if (joined := self._whole.get((name, split))) is not None:
            return ShardRows([joined])
        shards = self.shards(split)
        if unread := [shard for shard in shards if shard.file in self._unread]:
            check_shards(self._path, unread, self._spec.num_params, digest=True)
            self._unread.difference_update(shard.file for shard in unread)
        for shard in shards:
            if shard.file not in self._maps:
                self._maps[shard.file] = map_shard(self._path / shard.file)
        if without := next((shard.file for shard in shards if name not in self._maps[shard.file]), None):
            raise ValueError(f"{self._path}: expected the column {name!r} in {without}, got none; copy the zoo again")
        return ShardRows([self._maps[shard.file][name] for shard in shards], mapped=True)

    def whole(self, name: str, split: str) -> Tensor:
        """Return a column of a split as one tensor, which is joined once."""
        if (name, split) not in self._whole:
            self._whole[name, split] = self.rows(name, split).tensor()
        return self._whole[name, split]

    def further(self, split: str) -> dict[str, Any]:
        """Return the further columns of a split by name: tensors of numbers, arrays of texts, joined once.

        Raises:
            ValueError: as :meth:`rows`, and for a column of another kind than the manifest says.
        """
        for name, expected in self._kinds.items():
            if (split, name) not in self._further:
                found = decoded(self.rows(FURTHER + name, split).parts)
                if (got := kind(found)) != expected:
                    raise ValueError(f"{self._path}: expected the column {name!r} of {expected} values, got {got} ones")
                self._further[split, name] = found
        return {name: self._further[split, name] for name in self._kinds}

    def batches(
        self, split: str, order: Tensor | None, stop: int, batch_size: int, device: torch.device, resident_bytes: int
    ) -> Iterator[Networks]:
        """Iterate over the first ``stop`` networks of an order, batch by batch; ``None`` is the order on disk."""
        flat = self._weights(split, device, resident_bytes)
        flat.expect(shuffled=order is not None and len(order) > 1 and not bool((order[1:] > order[:-1]).all()))
        columns, further = [self.whole(name, split) for name in COLUMNS], self.further(split)
        for start in range(0, stop, batch_size):
            end = min(start + batch_size, stop)
            rows = slice(start, end) if order is None else order[start:end]
            own = flat.stretch(start, end) if order is None else flat.take(order[start:end])
            more = {name: rows_of(values, rows) for name, values in further.items()}
            yield Networks(Weights(own.to(device), self._spec), *(column[rows] for column in columns), columns=more)

    def _weights(self, split: str, device: torch.device, resident_bytes: int) -> ShardRows:
        """Return the weights of a split for an epoch: on the device if they are small enough, else mapped."""
        if (held := self._resident.get((split, device))) is not None:
            return held
        mapped = self.rows("flat", split)
        if mapped.nbytes > resident_bytes:
            return mapped
        if device.type == "cpu":
            return ShardRows([self.whole("flat", split)])
        self._resident[split, device] = ShardRows([mapped.tensor().to(device)])
        return self._resident[split, device]


def check_shards(path: Path, shards: Sequence[Shard], num_params: int, *, digest: bool) -> None:
    """Raise ``ValueError`` if any of the shards' files is not as the manifest says."""

    def problem(shard: Shard) -> str | None:
        return shard_problem(path, shard, num_params, digest=digest)

    if digest and len(shards) > 1:  # hashing leaves the interpreter to others
        with ThreadPoolExecutor(min(MOST_HASHERS, os.cpu_count() or 1)) as pool:
            found = [text for text in pool.map(problem, shards) if text]
    else:
        found = [text for text in map(problem, shards) if text]
    if found:
        more = f"; and {len(found) - MOST_PROBLEMS} more" if len(found) > MOST_PROBLEMS else ""
        raise ValueError(
            f"{path}: {'; '.join(found[:MOST_PROBLEMS])}{more}; copy the zoo again, or run the fit again to mend it"
        )


class ShardRows:
    """Tensors laid end to end, to take rows of in any order.

    Args:
        parts: ``[rows, ...]`` each, alike in dtype and in the shape of a row: mapped files, or one tensor in memory or
            on a device.
        mapped: whether they are mapped files.
    """

    def __init__(self, parts: Sequence[Tensor], *, mapped: bool = False) -> None:
        self._parts, self._mapped = list(parts), mapped
        self._ends = np.cumsum([len(part) for part in parts])
        self._firsts = self._ends - [len(part) for part in parts]
        self._arrays = [part.numpy() for part in parts] if len(parts) > 1 else []

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def parts(self) -> list[Tensor]:
        """The tensors."""
        return self._parts

    @property
    def nbytes(self) -> int:
        """Size of all rows in bytes."""
        return sum(part.numel() * part.element_size() for part in self._parts)

    def expect(self, *, shuffled: bool) -> None:
        """Tell the system in what order mapped rows are read next: it then reads ahead, or only what is asked for.

        Of a file that does not fit into memory, a row in random order costs some 10 KB of reading, and with reading
        ahead over 100 KB.
        """
        if not self._mapped or not hasattr(mmap, "MADV_RANDOM"):
            return
        advise, advice = ctypes.CDLL(None).madvise, mmap.MADV_RANDOM if shuffled else mmap.MADV_NORMAL
        for part in self._parts:
            start = part.data_ptr() - part.data_ptr() % mmap.PAGESIZE
            end = part.data_ptr() + part.numel() * part.element_size()
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)

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
