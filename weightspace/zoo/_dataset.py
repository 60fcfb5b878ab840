"""A zoo's networks for :class:`torch.utils.data.DataLoader`: by index lists, or as a stream that shards itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from weightspace._checks import whole_number
from weightspace._networks import Networks
from weightspace._weights import Weights

if TYPE_CHECKING:
    from weightspace.zoo._zoo import Zoo

Function = Callable[[Networks], Any]


class NetworkDataset(Dataset[Networks]):
    """A split of a zoo as a map-style data set, see :meth:`weightspace.Zoo.dataset`."""

    def __init__(self, zoo: Zoo, split: str, transform: Function | None) -> None:
        _check_function(transform)
        self.zoo, self.split, self.transform = zoo, split, transform
        self._count = zoo.count(split)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        """Return one network, a batch of one."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected one below {len(self)}, got {index}")
        return self.__getitems__([index % len(self)])

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return the networks at these indices as one batch, in that order."""
        batch = self.zoo.take(self.split, torch.as_tensor(list(indices), dtype=torch.int64))
        return batch if self.transform is None else self.transform(batch)

    def __repr__(self) -> str:
        return f"NetworkDataset({self.split!r} of {self.zoo!r}, transform={self.transform!r})"


class NetworkStream(IterableDataset[Networks]):
    """Batches of a split of a zoo, each once over all workers and ranks, see :meth:`weightspace.Zoo.stream`."""

    def __init__(
        self, zoo: Zoo, split: str, batch_size: int, shuffle: bool, seed: int, transform: Function | None
    ) -> None:
        _check_function(transform)
        self.zoo, self.split, self.transform = zoo, split, transform
        self.batch_size, self.shuffle = whole_number("batch_size", batch_size), bool(shuffle)
        self.seed, self.epoch = whole_number("seed", seed, 0), 0
        self._count = zoo.count(split)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next: it decides the order, the same on all ranks. Call it before every epoch."""
        self.epoch = whole_number("epoch", epoch, 0)

    def __len__(self) -> int:
        """Return the number of batches of an epoch on this rank."""
        rank, ranks = _rank()
        own = self._count // ranks if self.shuffle else len(range(rank, self._count, ranks))
        return -(-own // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        rank, ranks = _rank()
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rows = self._order()[rank::ranks]
        rows = rows[: self._count // ranks] if self.shuffle else rows
        for batch in list(rows.split(self.batch_size))[first::step]:
            networks = self.zoo.take(self.split, batch)
            yield networks if self.transform is None else self.transform(networks)

    def _order(self) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self._count)
        generator = torch.Generator().manual_seed((self.seed + 1_000_003 * self.epoch) % 2**63)
        return torch.randperm(self._count, generator=generator)

    def __repr__(self) -> str:
        return f"NetworkStream({self.split!r} of {self.zoo!r}, batch_size={self.batch_size}, shuffle={self.shuffle})"


def _rank() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _check_function(transform: Any) -> None:
    if transform is not None and not callable(transform):
        raise TypeError(
            f"transform: expected a function of Networks, such as a transform, got {transform!r:.80}; make one of a "
            "name with ws.transforms.augmentation(name)"
        )


def _joined(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """Collate networks: a batch stays as it is, and a list of them is joined."""
    return batch if isinstance(batch, Networks | Weights) else type(batch[0]).cat(list(batch))


default_collate_fn_map.update({Networks: _joined, Weights: _joined})  # torch's own way to teach its collation a type
