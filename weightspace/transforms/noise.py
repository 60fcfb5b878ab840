"""Data-independent transforms: noise, dropout, pruning, label smoothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import number, probability
from weightspace._random import rand, randn
from weightspace._weights import Weights
from weightspace.transforms._base import EmptyDraw, Transform
from weightspace.transforms._check import check_input


@dataclass(frozen=True, eq=False)
class RowDraw:
    """A draw of numbers for each network, ``[batch]`` or ``[batch, param]``."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: slice | Tensor) -> RowDraw:
        return RowDraw(self.values[index])


@dataclass(frozen=True)
class GaussianNoise(Transform):
    r"""Add Gaussian noise in proportion to the spread of each tensor of each network.

    .. math:: w' = w + std \cdot s_{tensor} \cdot \epsilon, \qquad \epsilon \sim N(0, 1)

    with :math:`s_{tensor}` the (population) standard deviation of the tensor's entries; a tensor of one entry, or
    of equal entries, has none and stays.

    Args:
        std: noise in units of each tensor's standard deviation.

    Raises:
        ValueError: for a negative ``std``.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import GaussianNoise
        >>> w = ws.Weights(torch.ones(4, 1185), ws.siren(2, 32, 32, 1))
        >>> GaussianNoise(0.1)(w, generator=torch.Generator()).flat.equal(w.flat)
        True

    Reference:
        Shamsian et al., *Data Augmentations in Deep Weight Spaces*, 2023.
    """

    std: float = 0.1
    preserves = "nothing"

    def __post_init__(self) -> None:
        number("GaussianNoise", self.std, "std >= 0", low=0)

    def sample(self, weights: Weights, *, generator: torch.Generator) -> RowDraw:
        check_input(weights, generator)
        return RowDraw(randn(weights.flat.shape, generator=generator, dtype=weights.dtype, device=weights.device))

    def apply(self, weights: Weights, draw: RowDraw) -> Weights:
        flat = weights.flat
        parts = []
        for part in weights.spec.slices.values():
            value = flat[:, part]
            centred = value - value.mean(1, keepdim=True)
            spread = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / math.sqrt(value.shape[1])
            parts.append(torch.addcmul(value, draw.values[:, part], spread, value=self.std))
        return weights.replace(torch.cat(parts, 1))


@dataclass(frozen=True)
class WeightDropout(Transform):
    """Set each weight and bias to zero with probability ``p``, without rescaling the others.

    Args:
        p: probability.

    Raises:
        ValueError: for a probability out of [0, 1].

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import WeightDropout
        >>> w = ws.Weights(torch.ones(4, 1185), ws.siren(2, 32, 32, 1))
        >>> WeightDropout(0.25)(w, generator=torch.Generator().manual_seed(0)).flat.unique()
        tensor([0., 1.])

    Reference:
        Shamsian et al., *Data Augmentations in Deep Weight Spaces*, 2023.
    """

    p: float = 0.1
    preserves = "nothing"

    def __post_init__(self) -> None:
        probability("WeightDropout", self.p, "a probability p")

    def sample(self, weights: Weights, *, generator: torch.Generator) -> RowDraw:
        check_input(weights, generator)
        u = rand(weights.flat.shape, generator=generator, dtype=torch.float32, device=weights.device)
        return RowDraw(u < self.p)

    def apply(self, weights: Weights, draw: RowDraw) -> Weights:
        return weights.replace(weights.flat.masked_fill(draw.values, 0.0))


@dataclass(frozen=True)
class QuantilePrune(Transform):
    r"""Set the smallest weights to zero, those with :math:`|w|` below the network's ``q``-quantile of :math:`|w|`.

    Args:
        max_quantile: ``q`` is uniform in [0, max_quantile], one for each network.

    Raises:
        ValueError: for a quantile out of [0, 1].

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import QuantilePrune
        >>> w = ws.Weights(torch.arange(1., 1186.)[None], ws.siren(2, 32, 32, 1))
        >>> pruned = QuantilePrune(0.1)(w, generator=torch.Generator().manual_seed(0))
        >>> 0 < int((pruned.flat == 0).sum()) <= 119
        True

    Reference:
        Shamsian et al., *Data Augmentations in Deep Weight Spaces*, 2023.
    """

    max_quantile: float = 0.1
    preserves = "nothing"

    def __post_init__(self) -> None:
        probability("QuantilePrune", self.max_quantile, "a max_quantile")

    def sample(self, weights: Weights, *, generator: torch.Generator) -> RowDraw:
        check_input(weights, generator)
        u = rand((len(weights),), generator=generator, dtype=torch.float64, device=weights.device)
        return RowDraw(self.max_quantile * u)

    def apply(self, weights: Weights, draw: RowDraw) -> Weights:
        size = weights.flat.detach().abs()
        # An interpolated quantile lies between two order statistics; entries below it are those below the upper one.
        ranks = (draw.values * (size.shape[1] - 1)).ceil().long().to(size.device)
        most = math.ceil(self.max_quantile * (size.shape[1] - 1))
        threshold = _smallest(size, most + 1).gather(1, ranks[:, None])
        return weights.replace(weights.flat.masked_fill(size < threshold, 0.0))


@dataclass(frozen=True)
class LabelSmoothing(Transform):
    r"""Spread a part of each label evenly over all classes: :math:`y' = (1 - rate)\, y + rate / classes`.

    Args:
        rate: the part that is spread.

    Raises:
        ValueError: for a rate out of [0, 1].

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import LabelSmoothing
        >>> w = ws.Weights(torch.ones(1, 1185), ws.siren(2, 32, 32, 1))
        >>> LabelSmoothing(0.2)(w, torch.tensor([1]), num_classes=2, generator=torch.Generator())[1]
        tensor([[0.1000, 0.9000]])

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2016, section 7.
    """

    rate: float = 0.1
    preserves = "function"

    def __post_init__(self) -> None:
        probability("LabelSmoothing", self.rate, "a rate")

    def sample(self, weights: Weights, *, generator: torch.Generator) -> EmptyDraw:
        check_input(weights, generator)
        return EmptyDraw(len(weights))

    def apply(self, weights: Weights, draw: EmptyDraw) -> Weights:
        return weights.clone()

    def apply_labels(self, soft: Tensor, draw: EmptyDraw, *, pool: Tensor | None = None) -> Tensor:
        return (1 - self.rate) * soft + self.rate / soft.shape[1]


def _smallest(values: Tensor, count: int) -> Tensor:
    """Return the ``count`` smallest entries of each row in ascending order."""
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.topk(count, dim=1, largest=False, sorted=True).values
    # NumPy's selection is several times faster than topk on the host.
    part = np.partition(values.numpy(), count - 1, axis=1)[:, :count]
    return torch.from_numpy(np.sort(part, axis=1))


NAMED: dict[str, Transform] = {
    "noise": GaussianNoise(0.1),
    "dropout": WeightDropout(0.05),
    "quantile": QuantilePrune(0.1),
    "label-smoothing": LabelSmoothing(0.1),
}
"""Entries of the registry, each with the strength that its name stands for."""
