"""The base of transforms of the input coordinates, and the affine maps that they draw."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from weightspace._weights import Weights
from weightspace.transforms._base import Transform
from weightspace.transforms._check import check_input
from weightspace.transforms.requirements import LINEAR_INPUT


@dataclass(frozen=True, eq=False)
class AffineDraw:
    r"""A draw of one affine map of the input coordinates for each network, :math:`\phi(x) = A x + t`.

    Args:
        matrix: ``A``, ``[batch, coord, coord]``.
        offset: ``t``, ``[batch, coord]``, or ``None`` for zero.
    """

    matrix: Tensor
    offset: Tensor | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, index: slice | Tensor) -> AffineDraw:
        return AffineDraw(self.matrix[index], None if self.offset is None else self.offset[index])

    def phi(self, x: Tensor) -> Tensor:
        """Move points ``[point, coord]`` or ``[batch, point, coord]``; returns ``[batch, point, coord]``."""
        moved = x.to(self.matrix) @ self.matrix.mT
        return moved if self.offset is None else moved + self.offset[:, None]


class Coordinates(Transform):
    r"""A transform of the input coordinates: :math:`f(Tw)(x) = f(w)(\phi(x))` with :math:`\phi(x) = A x + t`.

    It is exact, because only the parameters that read the input change: :math:`W' = W A` and :math:`b' = b + W t`. A
    subclass draws the maps.
    """

    preserves = "coordinates"
    requires = (LINEAR_INPUT,)

    @abstractmethod
    def affine(self, weights: Weights, *, generator: torch.Generator) -> AffineDraw:
        """Draw one map for each network, in the weights' dtype and on their device."""

    def sample(self, weights: Weights, *, generator: torch.Generator) -> AffineDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        return self.affine(weights, generator=generator)

    def apply(self, weights: Weights, draw: AffineDraw) -> Weights:
        spec = weights.spec
        moved = weights.clone()
        for param in spec.params:
            if param.consumes != spec.input:
                continue
            value = weights.view(param.name)
            moved.view(param.name).copy_(torch.bmm(value, draw.matrix))
            if draw.offset is not None:
                bias = next(p.name for p in spec.params if p.kind == "bias" and p.produces == param.produces)
                moved.view(bias).add_(torch.bmm(value, draw.offset[:, :, None])[:, :, 0])
        return moved
