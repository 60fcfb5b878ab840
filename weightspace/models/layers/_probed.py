"""A network's own forward pass and its gradients back, with learned inputs as channels that mix between layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models.layers._chain import affine, axes_of

MIXING = 0.1
"""Factor of the mixing matrices' low-rank part: how far a step of the optimiser takes them from the identity."""
GRADIENT = 0.1
"""Factor of gradients where they are read: an image's gradients on [-1, 1] are about ten times its values."""


class LowRankMix(nn.Module):
    """A linear map of channels that starts near the identity, ``I + 0.1 P Q``.

    Args:
        channels: number of channels.
        rank: columns of ``P``.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(channels, rank) / math.sqrt(channels))
        self.up = nn.Parameter(0.01 * torch.randn(rank, channels))

    def forward(self, value: Tensor) -> Tensor:
        return value + torch.matmul(torch.matmul(value, self.down), MIXING * self.up)


class ProbedPass(nn.Module):
    """Evaluate networks at learned inputs and return gradients there, with channels that mix between layers.

    The equations are those of :class:`weightspace.models.ProbeNet`, in the same letters.

    Args:
        spec: the networks, a chain.
        points: the inputs ``X`` to start from, ``[in, point]``.
        rank: rank of ``A`` and ``B`` minus the identity; 0 for the identity alone.
        phase: whether ``c`` is fixed at one. Learned factors of biases break the symmetry of phases.
    """

    def __init__(self, spec: NetSpec, points: Tensor, *, rank: int, phase: bool) -> None:
        super().__init__()
        self.layers = spec.layers
        self.axes = [spec.axis(name) for name in axes_of(self.layers)]
        above, depth, channels = self.axes[-1].size, len(self.layers) - 1, points.shape[1]
        self.points = nn.Parameter(points)
        self.factors = None if phase else nn.Parameter(1 + 0.01 * torch.randn(depth + 1, channels))
        self.mix = nn.ModuleList(LowRankMix(channels, rank) for _ in range(depth if rank else 0))
        self.seeds = nn.Parameter(torch.ones(above, channels) / math.sqrt(above))
        self.mix_back = nn.ModuleList(LowRankMix(channels, rank) for _ in range(depth if rank else 0))

    def forward(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """Return outputs ``Y``, ``[batch, out, point]``, and gradients ``D``, ``[batch, in, point]``."""
        matrices, biases = affine(weights, self.layers)
        value, slopes = self._forth(matrices, biases)
        return value, self._back(matrices, slopes)

    def _forth(self, matrices: list[Tensor], biases: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the outputs, and the slopes of the activations of every hidden axis."""
        value = self.points.expand(len(matrices[0]), -1, -1)
        slopes: list[Tensor] = []
        for i, (axis, matrix, bias) in enumerate(zip(self.axes[1:], matrices, biases, strict=True)):
            bias = bias.unsqueeze(-1)
            value = torch.baddbmm(bias if self.factors is None else bias * self.factors[i], matrix, value)
            if axis.hidden:
                slopes.append(axis.symmetry.derivative(value, axis.omega))
                value = axis.symmetry.forward(value, axis.omega)
                value = self.mix[i](value) if len(self.mix) else value
        return value, slopes

    def _back(self, matrices: list[Tensor], slopes: list[Tensor]) -> Tensor:
        """Return the gradients at the inputs."""
        value = self.seeds.expand(len(matrices[0]), -1, -1)
        for i in reversed(range(len(slopes))):
            value = torch.bmm(matrices[i + 1].mT, value) * slopes[i]
            value = self.mix_back[i](value) if len(self.mix_back) else value
        return torch.bmm(matrices[0].mT, value)
