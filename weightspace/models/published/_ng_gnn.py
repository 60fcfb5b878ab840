"""NG-GNN: message passing on the graph of a network (Kofinas et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_head, check_sizes
from weightspace.models.layers._chain import NeuronReadout, assemble
from weightspace.models.layers._graph import GraphInput, neurons, pair_sums


class NGGNN(Model):
    r"""Message passing over neurons and weights, with four aggregations and weights that are updated too.

    .. math::
        m_{ij} &= s(e_{ij}) \odot \phi_m(v_i, v_j) + t(e_{ij}) \\
        v_i' &= v_i + \phi_v\big(v_i, \; mean_j, min_j, max_j, std_j \; m_{ij}\big), \qquad
        e_{ij}' = e_{ij} + \phi_e(v_i, v_j, e_{ij})

    Messages run from a layer to the next. Cost of a step forward, with ``E`` weights and ``d`` channels: about
    ``12 E d^2`` FLOP a layer and network.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels of neurons and weights, at least 2.
        layers: rounds of messages.
        head: ``"invariant"`` gives ``[batch, out_features]``; ``"equivariant"`` gives ``Weights``.
        probes: learned inputs whose activations join the neurons' features; 0 for weights alone.
        fourier: frequencies that embed every weight and bias.
        dropout: before the last layer of the readout, and on updates of neurons.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.NGGNN(spec, 10, hidden=8, layers=2)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Kofinas et al., *Graph Neural Networks for Learning Equivariant Representations of Neural Networks*, 2024,
        section 3. Published: 68.0 % on Fashion-MNIST INRs without probes (55,000 training images). Departures: the
        readout averages every hidden layer's neurons instead of reading the last layer's alone, so that shallow stacks
        read all of a deep network; one degree scaler, ``log(1 + degree)``, beside the identity, without the training
        set's average degree; no features of reverse edges, which the release joins to those of each weight.
    """

    respects = "permutation"
    heads = ("invariant", "equivariant")

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 4,
        head: Literal["invariant", "equivariant"] = "invariant",
        probes: int = 0,
        fourier: int = 64,
        dropout: float = 0.0,
    ) -> None:
        normalize = Normalize(spec)
        super().__init__(spec, normalize)
        check_head(head, self.heads)
        check_sizes(out_features, hidden, layers, dropout)
        self.track = "hybrid" if probes else "weights-only"
        self.start = GraphInput(spec, normalize, hidden, hidden, fourier=fourier, probes=probes, model="NGGNN")
        self.widths, edges = self.start.widths, head == "equivariant"
        self.layers = nn.ModuleList(
            MessageLayer(self.widths, hidden, edges=edges or i + 1 < layers, dropout=dropout) for i in range(layers)
        )
        self.readout = (
            None
            if edges
            else NeuronReadout(spec, [hidden] * len(self.widths), 4 * hidden, out_features, dropout=dropout)
        )
        self.to_bias = nn.Linear(hidden, out_features) if edges else None
        self.to_weight = nn.Linear(hidden, out_features) if edges else None

    def _forward(self, weights: Weights) -> Tensor | Weights:
        nodes, edges = self.start(weights)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges)
        if self.readout is not None:
            return self.readout(neurons(nodes, self.widths))
        assert self.to_weight is not None
        assert self.to_bias is not None
        biases = neurons(self.to_bias(nodes), self.widths)[1:]
        return assemble(weights, self.start.layers, [self.to_weight(e) for e in edges], biases)


class MessageLayer(nn.Module):
    """One round. The first layers of all functions of pairs are linear in neurons: computed a neuron, added a pair."""

    def __init__(self, widths: Sequence[int], width: int, *, edges: bool, dropout: float) -> None:
        super().__init__()
        self.widths = widths
        self.target, self.source = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.scale, self.shift, self.message = (nn.Linear(width, width) for _ in range(3))
        self.update = nn.Sequential(
            nn.Linear(9 * width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)
        self.edge_update = EdgeUpdate(widths, width) if edges else None

    def forward(self, nodes: Tensor, edges: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        targets, sources = (neurons(f(nodes), self.widths) for f in (self.target, self.source))
        gathered = [nodes.new_zeros(len(nodes), self.widths[0], 8 * nodes.shape[2])]
        for edge, target, source in zip(edges, targets[1:], sources[:-1], strict=True):
            message = self.message(F.silu(target[:, :, None] + source[:, None]))
            gathered.append(_gather(torch.addcmul(self.shift(edge), 1 + self.scale(edge), message)))
        updated = self.norm(nodes + self.update(torch.cat([nodes, torch.cat(gathered, 1)], -1)))
        return updated, edges if self.edge_update is None else self.edge_update(nodes, edges)


class EdgeUpdate(nn.Module):
    """A weight's features from its own and its two neurons'."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.widths = widths
        self.target, self.source = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.own, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, nodes: Tensor, edges: list[Tensor]) -> list[Tensor]:
        targets, sources = (neurons(f(nodes), self.widths) for f in (self.target, self.source))
        sums = pair_sums(edges, self.own, targets, sources)
        return [self.norm(e + self.out(F.silu(x))) for e, x in zip(edges, sums, strict=True)]


def _gather(message: Tensor) -> Tensor:
    """Mean, least, largest and standard deviation of what arrives, plain and times ``log(1 + degree)``."""
    degree = message.shape[2]
    mean = message.sum(2) / degree
    variance = message.square().sum(2) / degree - mean.square()
    parts = torch.cat([mean, message.amin(2), message.amax(2), (F.relu(variance) + 1e-5).sqrt()], -1)
    return torch.cat([parts, math.log(1 + degree) * parts], -1)
