"""The columns of a zoo's shards: checked before they are read for the first time, mapped, and joined where they fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from weightspace.zoo._format import Manifest, Shard
from weightspace.zoo._rows import ShardRows
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
        self._path, self._num_params = path, manifest.spec.num_params
        self.of_split = dict[str, list[Shard]]()
        for shard in manifest.shards:
            if shard.done:
                self.of_split.setdefault(shard.split, []).append(shard)
        self._unread = {shard.file for shard in manifest.shards if shard.done} if hashed else set[str]()
        self._maps = dict[str, dict[str, Tensor]]()
        self._whole = dict[tuple[str, str], Tensor]()
        self._resident = dict[tuple[str, torch.device], ShardRows]()

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
            check_shards(self._path, unread, self._num_params, digest=True)
            self._unread.difference_update(shard.file for shard in unread)
        for shard in shards:
            if shard.file not in self._maps:
                self._maps[shard.file] = map_shard(self._path / shard.file)
        return ShardRows([self._maps[shard.file][name] for shard in shards])

    def whole(self, name: str, split: str) -> Tensor:
        """Return a column of a split as one tensor, which is joined once."""
        if (name, split) not in self._whole:
            self._whole[name, split] = self.rows(name, split).tensor()
        return self._whole[name, split]

    def weights(self, split: str, device: torch.device, resident_bytes: int) -> ShardRows:
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
