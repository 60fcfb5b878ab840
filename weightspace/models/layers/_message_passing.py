"""Message passing through a chain and back, common to GMN and ScaleGMN: everything that does not depend on types."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models.layers._chain import affine, assemble, axes_of
from weightspace.models.layers._heads import NeuronReadout


class Gate(nn.Module):
    r"""Scale features by a learned function of other numbers, ``y = x * (1 + A silu(sum of inputs))``.

    The result has the symmetry type of ``x`` if all inputs are invariants.

    Args:
        width: channels of the inputs.
        out: channels of ``x``.
        dropout: probability, before the linear map.

    Reference:
        Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024, section 4 (scale equivariant networks).
    """

    def __init__(self, width: int, out: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, out))

    def forward(self, value: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        total = self.bias
        for part in inputs:
            total = total + part
        return torch.addcmul(value, value, self.out(total))


def rms_normalize(value: Tensor) -> Tensor:
    """Divide by the root mean square over channels."""
    return value * torch.rsqrt(value.square().mean(-1, keepdim=True) + 1e-6)


class ChainEmbedding(nn.Module):
    """Compute initial features of a chain: learned vectors times biases and weights, and learned vectors of the ends.

    Args:
        spec: the networks, a chain.
        width: channels.
    """

    def __init__(self, spec: NetSpec, width: int) -> None:
        super().__init__()
        self.layers = spec.layers
        names = axes_of(self.layers)
        self.of_weights = nn.Parameter(torch.randn(len(self.layers), width))
        self.of_biases = nn.Parameter(torch.randn(len(self.layers), width))
        self.inputs = nn.Parameter(torch.randn(spec.axis(names[0]).size, width))
        self.outputs = nn.Parameter(torch.randn(spec.axis(names[-1]).size, width))

    def forward(self, weights: Weights) -> tuple[list[Tensor], list[Tensor]]:
        """Return neurons ``[batch, neuron, channel]`` by axis, and weights ``[batch, out, in, channel]`` by layer."""
        matrices, biases = affine(weights, self.layers)
        edges = [m.unsqueeze(-1) * row for m, row in zip(matrices, self.of_weights, strict=True)]
        nodes = [self.inputs.expand(len(weights), -1, -1)]
        nodes += [b.unsqueeze(-1) * row for b, row in zip(biases, self.of_biases, strict=True)]
        nodes[-1] = nodes[-1] + self.outputs
        return nodes, edges


class GatedMessagePass(nn.Module, ABC):
    """Send messages along one layer's weights, and update the neurons that receive them.

    A subclass has the functions of a pair and of the receiving neuron, and the gate that reads them, and says how a
    message updates a feature.

    Args:
        fresh: whether the feature that is updated holds nothing yet, so that messages read the other one.
    """

    of_pair: nn.Module
    of_own: nn.Module
    gate: nn.Module

    def __init__(self, *, fresh: bool) -> None:
        super().__init__()
        self.fresh = fresh

    def forward(self, sent: Tensor, edge: Tensor, own: Tensor, dual: Tensor, over: int) -> Tensor:
        """Return the updated feature.

        Args:
            sent: what the sources send, with an axis of size one for the targets.
            edge: features of the weights, ``[batch, out, in, channel]``.
            own: the targets' feature that is updated, ``[batch, neuron, channel]``.
            dual: their other feature.
            over: the axis of the sources in ``edge``.
        """
        pairs = edge * sent
        of_own = self.of_own(dual if self.fresh else own).unsqueeze(over)
        message = self.gate(pairs, [self.of_pair(pairs), of_own]).sum(over) / math.sqrt(pairs.shape[over])
        return self.updated(own, message, dual)

    @abstractmethod
    def updated(self, own: Tensor, message: Tensor, dual: Tensor) -> Tensor:
        """Return the feature after a message, ``[batch, neuron, channel]``."""


class ForwardBackwardRound(nn.Module):
    """Sweep from the inputs to the outputs and back, then update the weights' features.

    Going back, neurons hold a second feature, their dual.

    Args:
        send: per layer, a map of what a neuron sends forward.
        forth: per layer, a message pass into the axis above: ``(sent, edge, own, dual, sources' axis)``.
        send_back: per layer, a map of what a neuron sends back; empty without the sweep back.
        back: per layer, a message pass into the axis below.
        edges: per layer, an update of the weights: ``(edge, target, its dual, source, its dual)``; may be empty.
    """

    def __init__(
        self,
        send: Iterable[nn.Module],
        forth: Iterable[nn.Module],
        send_back: Iterable[nn.Module],
        back: Iterable[nn.Module],
        edges: Iterable[nn.Module],
    ) -> None:
        super().__init__()
        self.send, self.forth = nn.ModuleList(send), nn.ModuleList(forth)
        self.send_back, self.back = nn.ModuleList(send_back), nn.ModuleList(back)
        self.edges = nn.ModuleList(edges)

    def forward(self, nodes: list[Tensor], duals: list[Tensor], edges: list[Tensor]) -> tuple[list[Tensor], ...]:
        nodes, duals = list(nodes), list(duals)
        for i, (send, into) in enumerate(zip(self.send, self.forth, strict=True)):
            nodes[i + 1] = into(send(nodes[i])[:, None], edges[i], nodes[i + 1], duals[i + 1], 2)
        duals[-1] = nodes[-1]  # outputs have no symmetry, so what arrived there goes back as it is
        for i in reversed(range(len(self.back))):
            sent = self.send_back[i](duals[i + 1])[:, :, None]
            duals[i] = self.back[i](sent, edges[i], duals[i], nodes[i], 1)
        for i, update in enumerate(self.edges):
            ends = (nodes[i + 1], duals[i + 1], nodes[i], duals[i])
            edges = [*edges[:i], update(edges[i], *ends), *edges[i + 1 :]]
        return nodes, duals, edges


class ForwardBackwardReadout(nn.Module):
    """Average invariants of the neurons over hidden axes, then apply an MLP.

    Args:
        spec: the networks, a chain.
        width: channels.
        invariants: per axis that is read, a module ``(features, dual or None)`` to invariant features.
        out_features: numbers per network.
        back: whether neurons hold duals; without them inputs hold a constant and are not read.
        dropout: probability, before the last layer.
    """

    def __init__(
        self,
        spec: NetSpec,
        width: int,
        invariants: Iterable[nn.Module],
        out_features: int,
        *,
        back: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.back = back
        self.invariants = nn.ModuleList(invariants)
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in self.invariants)
        sizes = [width if back or i else 0 for i in range(len(spec.layers) + 1)]
        self.readout = NeuronReadout(spec, sizes, 2 * width, out_features, dropout=dropout)

    def forward(self, nodes: Sequence[Tensor], duals: Sequence[Tensor]) -> Tensor:
        # Inputs hold their own vector, which is the same for all networks, and at their dual what came back.
        ends: list[tuple[Tensor, Tensor | None]] = [(duals[0], None), (nodes[-1], None)]
        inner = [(h, g if self.back else None) for h, g in zip(nodes[1:-1], duals[1:-1], strict=True)]
        held = [*ends[: int(self.back)], *inner, ends[1]]
        found = [m(F.silu(f(h, g))) for m, f, (h, g) in zip(self.maps, self.invariants, held, strict=True)]
        return self.readout(found if self.back else [nodes[0][..., :0], *found])


class ChainOutput(nn.Module):
    """Make new weights and biases from the features of weights and neurons, by a linear map per layer.

    Args:
        spec: the networks, a chain.
        width: channels of the features.
        out_features: channels that leave.
    """

    def __init__(self, spec: NetSpec, width: int, out_features: int) -> None:
        super().__init__()
        self.layers = spec.layers
        self.to_bias = nn.ModuleList(nn.Linear(width, out_features, bias=False) for _ in self.layers)
        self.to_weight = nn.ModuleList(nn.Linear(width, out_features, bias=False) for _ in self.layers)

    def forward(self, like: Weights, nodes: Sequence[Tensor], edges: Sequence[Tensor]) -> Weights:
        matrices = [f(e) for f, e in zip(self.to_weight, edges, strict=True)]
        return assemble(like, self.layers, matrices, [f(h) for f, h in zip(self.to_bias, nodes[1:], strict=True)])


class ForwardBackward(nn.Module):
    """A graph metanetwork that is made of an embedding, rounds and a head.

    Args:
        embed: initial features.
        rounds: one after the other.
        head: a :class:`ForwardBackwardReadout` or a :class:`ChainOutput`.
    """

    def __init__(
        self, embed: ChainEmbedding, rounds: Iterable[ForwardBackwardRound], head: ForwardBackwardReadout | ChainOutput
    ) -> None:
        super().__init__()
        self.embed, self.rounds, self.head = embed, nn.ModuleList(rounds), head

    def forward(self, weights: Weights) -> Tensor | Weights:
        nodes, edges = self.embed(weights)
        duals = [torch.zeros_like(h) for h in nodes]
        for step in self.rounds:
            nodes, duals, edges = step(nodes, duals, edges)
        if isinstance(self.head, ChainOutput):
            return self.head(weights, nodes, edges)
        return self.head(nodes, duals)
