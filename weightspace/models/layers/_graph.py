"""An MLP as a graph: neurons are nodes, weights are edges, held as one block for each pair of adjacent layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weightspace._activation import activation
from weightspace._checks import whole_number
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Normalize
from weightspace.models.layers._chain import affine, axes_of, chain


def neurons(value: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """``[batch, neuron, channel]``, from inputs to outputs, as one ``[batch, width, channel]`` for each axis."""
    return value.split(list(widths), 1)


def pair_sums(
    edges: Sequence[Tensor], own: nn.Module, targets: Sequence[Tensor], sources: Sequence[Tensor]
) -> list[Tensor]:
    """``own(e_ij) + target_i + source_j`` for every weight: a linear map of a pair and its weight, without gathers."""
    return [
        own(e).add_(t[:, :, None]).add_(s[:, None]) for e, t, s in zip(edges, targets[1:], sources[:-1], strict=True)
    ]


class Fourier(nn.Module):
    """Fixed random Fourier features of a scalar, then a linear map: ``A [cos(f x), sin(f x)] + b``.

    Reference:
        Tancik et al., *Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains*, 2020.
    """

    frequencies: Tensor

    def __init__(self, out_channels: int, count: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(count) * 0.5)
        self.linear = nn.Linear(2 * count, out_channels)

    def forward(self, value: Tensor) -> Tensor:
        angle = value.unsqueeze(-1) * self.frequencies
        return self.linear(torch.cat([angle.cos(), angle.sin()], -1))


class GraphInput(nn.Module):
    r"""Features of neurons and weights to start from.

    A neuron's bias (zero for inputs) and a weight become Fourier features, mapped linearly, plus a learned vector: one
    for each input and output neuron, one for each hidden layer, one for each layer's weights. With probes, the
    network's activations at learned inputs join the neuron's features.

    Args:
        spec: a sequential network.
        node: channels of neurons.
        edge: channels of weights.
        fourier: number of frequencies.
        probes: number of learned inputs.
        model: for messages.

    Reference:
        Kofinas et al., *Graph Neural Networks for Learning Equivariant Representations of Neural Networks*, 2024,
        sections 2.1 and 3.
    """

    which: Tensor

    def __init__(
        self, spec: NetSpec, normalize: Normalize, node: int, edge: int, *, fourier: int, probes: int, model: str
    ) -> None:
        super().__init__()
        self.layers, self.spec, self.normalize = (
            chain(spec, model),
            spec,
            [normalize],
        )  # in a list: not a submodule here
        names = axes_of(self.layers)
        self.widths = tuple(spec.axis(name).size for name in names)
        whole_number("fourier", fourier)
        whole_number("probes", probes, 0)
        self.node, self.edge = Fourier(node, fourier), Fourier(edge, fourier)
        which, count = [], 0
        for name in names:
            size, hidden = spec.axis(name).size, spec.axis(name).hidden
            which += [count] * size if hidden else list(range(count, count + size))
            count += 1 if hidden else size
        self.register_buffer("which", torch.tensor(which), persistent=False)
        self.place = nn.Parameter(torch.randn(count, node) / math.sqrt(node))
        self.layer = nn.Parameter(torch.randn(len(self.layers), edge) / math.sqrt(edge))
        self.probes = nn.Parameter(2 * torch.rand(probes, spec.in_features) - 1) if probes else None
        self.activations = nn.Linear(probes, node, bias=False) if probes else None

    def forward(self, weights: Weights) -> tuple[Tensor, list[Tensor]]:
        """Neurons ``[batch, neuron, channel]``, and each layer's weights ``[batch, out, in, channel]``."""
        matrices, biases = affine(weights, self.layers)
        start = biases[0].new_zeros(len(weights), self.widths[0])
        nodes = self.node(torch.cat([start, *biases], 1)) + self.place[self.which]
        if self.probes is not None and self.activations is not None:
            nodes = nodes + self.activations(self._activations(self.normalize[0].undo(weights)))
        return nodes, [self.edge(m).add_(row) for m, row in zip(matrices, self.layer, strict=True)]

    def _activations(self, weights: Weights) -> Tensor:
        """What every neuron sends on at the learned inputs, ``[batch, node, probe]``."""
        assert self.probes is not None
        matrices, biases = affine(weights, self.layers)
        h = self.probes.t().expand(len(weights), -1, -1)
        out = [h]
        for layer, matrix, bias in zip(self.layers, matrices, biases, strict=True):
            h = torch.baddbmm(bias.unsqueeze(-1), matrix, h)
            axis = self.spec.axis(layer.produces)
            h = activation(axis.activation).forward(h, axis.omega) if axis.activation else h
            out.append(h)
        return torch.cat(out, 1)
