"""What the weights of a zoo look like, shard by shard, without holding them in memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from weightspace.zoo._zoo import Zoo


def stats(zoo: Zoo) -> dict[str, Any]:
    """Mean, spread and range of every parameter and of the networks' norms, per split; reads the zoo once.

    Args:
        zoo: which.

    Returns:
        plain values: for each split ``count``, ``norm`` (of whole networks) and ``params`` (by name, over all its
        scalars in all networks), each of the two with ``mean``, ``std`` (of the population), ``min`` and ``max``.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> from weightspace.zoo import stats, write_zoo
        >>> w = ws.Weights(torch.ones(3, 17), ws.siren(2, 4, 1))
        >>> found = stats(write_zoo(tempfile.mkdtemp(), {"train": (w, None, None, None, None)}))
        >>> found["train"]["params"]["0.bias"]
        {'mean': 1.0, 'std': 0.0, 'min': 1.0, 'max': 1.0}
    """
    return {split: _of_split(zoo, split) for split in zoo.splits}


def _of_split(zoo: Zoo, split: str) -> dict[str, Any]:
    norm, params = _Running(), {name: _Running() for name in zoo.spec.slices}
    for weights, _ in zoo.batches(split, 1024, shuffle=False):
        norm.add(weights.flat.double().norm(dim=1))
        for name, part in zoo.spec.slices.items():
            params[name].add(weights.flat[:, part])
    table = {name: own.result() for name, own in params.items()}
    return {"count": zoo.count(split), "norm": norm.result(), "params": table}


class _Running:
    """Mean and sum of squared deviations of all numbers seen so far, batches merged pairwise (Chan et al., 1983)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: Tensor) -> None:
        values = values.double()
        mean, count = values.mean().item(), values.numel()
        delta, total = mean - self.mean, self.count + count
        self.squares += (values - mean).square().sum().item() + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total
        low, high = torch.aminmax(values)
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())

    def result(self) -> dict[str, float]:
        return {"mean": self.mean, "std": math.sqrt(self.squares / self.count), "min": self.low, "max": self.high}
