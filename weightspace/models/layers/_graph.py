"""An MLP as a graph: neurons are nodes, weights are edges, held as one block for each pair of adjacent layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models.layers._chain import affine, assemble, axes_of
from weightspace.models.layers._heads import NeuronReadout


def neurons(value: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Split ``[batch, neuron, channel]``, from inputs to outputs, into ``[batch, width, channel]`` by axis."""
    return value.split(list(widths), 1)


def pair_sums(
    edges: Sequence[Tensor], own: nn.Module, targets: Sequence[Tensor], sources: Sequence[Tensor]
) -> list[Tensor]:
    """Compute ``own(e_ij) + target_i + source_j`` for every weight: a linear map of a pair and its weight.

    Nothing is gathered: the neurons' terms are computed once per neuron and broadcast.
    """
    return [
        own(e).add_(t[:, :, None]).add_(s[:, None]) for e, t, s in zip(edges, targets[1:], sources[:-1], strict=True)
    ]


class Fourier(nn.Module):
    """Map a scalar to fixed random Fourier features, and these linearly: ``A [cos(f x), sin(f x)] + b``.

    Args:
        out_channels: channels that leave.
        count: number of frequencies.

    Reference:
        Tancik et al., *Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains*, 2020.
    """

    frequencies: Tensor

    def __init__(self, out_channels: int, count: int) -> None:
        super().__init__()
        whole_number("fourier", count)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(count) * 0.5)
        self.linear = nn.Linear(2 * count, out_channels)

    def forward(self, value: Tensor) -> Tensor:
        angle = value.unsqueeze(-1) * self.frequencies
        return self.linear(torch.cat([angle.cos(), angle.sin()], -1))


class GraphInput(nn.Module):
    r"""Compute the initial features of neurons and weights.

    A neuron's bias (zero for inputs) and a weight become Fourier features, mapped linearly, plus a learned vector: one
    for each input and output neuron, one for each hidden layer, one for each layer's weights. With probes, the
    network's activations at learned inputs are added to the neuron's features.

    Args:
        spec: a sequential network.
        node: channels of neurons.
        edge: channels of weights.
        fourier: number of frequencies.
        probes: number of learned inputs.

    Reference:
        Kofinas et al., *Graph Neural Networks for Learning Equivariant Representations of Neural Networks*, 2024,
        sections 2.1 and 3.
    """

    which: Tensor

    def __init__(self, spec: NetSpec, node: int, edge: int, *, fourier: int, probes: int) -> None:
        super().__init__()
        self.spec, self.layers = spec, spec.layers
        axes = [spec.axis(name) for name in axes_of(self.layers)]
        self.widths = tuple(axis.size for axis in axes)
        whole_number("probes", probes, 0)
        self.node, self.edge = Fourier(node, fourier), Fourier(edge, fourier)
        which, count = [], 0
        for axis in axes:
            which += [count] * axis.size if axis.hidden else list(range(count, count + axis.size))
            count += 1 if axis.hidden else axis.size
        self.register_buffer("which", torch.tensor(which), persistent=False)
        self.place = nn.Parameter(torch.randn(count, node) / math.sqrt(node))
        self.layer = nn.Parameter(torch.randn(len(self.layers), edge) / math.sqrt(edge))
        self.probes = nn.Parameter(2 * torch.rand(probes, spec.in_features) - 1) if probes else None
        self.activations = nn.Linear(probes, node, bias=False) if probes else None

    def forward(self, weights: Weights, networks: Weights) -> tuple[Tensor, list[Tensor]]:
        """Return the features of neurons ``[batch, neuron, channel]`` and of each layer's weights.

        Args:
            weights: the normalised weights, which become features.
            networks: the networks themselves, which probes are sent through.

        Returns:
            ``[batch, neuron, channel]``, and for each layer ``[batch, out, in, channel]``.
        """
        matrices, biases = affine(weights, self.layers)
        start = biases[0].new_zeros(len(weights), self.widths[0])
        nodes = self.node(torch.cat([start, *biases], 1)) + self.place[self.which]
        if self.activations is not None:
            nodes = nodes + self.activations(self.probed(networks))
        return nodes, [self.edge(m).add_(row) for m, row in zip(matrices, self.layer, strict=True)]

    def probed(self, networks: Weights) -> Tensor:
        """Return what every neuron sends on at the learned inputs, ``[batch, neuron, probe]``."""
        assert self.probes is not None
        matrices, biases = affine(networks, self.layers)
        h = self.probes.t().expand(len(networks), -1, -1)
        out = [h]
        for layer, matrix, bias in zip(self.layers, matrices, biases, strict=True):
            h = torch.baddbmm(bias.unsqueeze(-1), matrix, h)
            axis = self.spec.axis(layer.produces)
            h = axis.symmetry.forward(h, axis.omega) if axis.hidden else h
            out.append(h)
        return torch.cat(out, 1)


class GraphHead(nn.Module):
    """Compute outputs from the features of a graph: a readout of its neurons, or new weights and biases.

    Args:
        spec: a sequential network.
        node: channels of neurons.
        edge: channels of weights.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        head: ``"invariant"`` or ``"equivariant"``.
        hidden: width of the readout's MLP.
        dropout: probability, in the readout.
    """

    def __init__(
        self, spec: NetSpec, node: int, edge: int, out_features: int, *, head: str, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = spec.layers
        self.widths = tuple(spec.axis(name).size for name in axes_of(self.layers))
        self.readout = self.to_bias = self.to_weight = None
        if head == "invariant":
            self.readout = NeuronReadout(spec, [node] * len(self.widths), hidden, out_features, dropout=dropout)
        else:
            self.to_bias, self.to_weight = nn.Linear(node, out_features), nn.Linear(edge, out_features)

    def forward(self, like: Weights, nodes: Tensor, edges: Sequence[Tensor]) -> Tensor | Weights:
        if self.to_bias is None or self.to_weight is None:
            assert self.readout is not None
            return self.readout(neurons(nodes, self.widths))
        biases = neurons(self.to_bias(nodes), self.widths)[1:]
        return assemble(like, self.layers, [self.to_weight(e) for e in edges], biases)
