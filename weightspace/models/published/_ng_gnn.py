"""NG-GNN: message passing on the graph of a network (Kofinas et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Head, Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._graph import GraphHead, GraphInput, neurons, pair_sums


@final
class NeuralGraphGNN(Model):
    r"""Pass messages over neurons and weights, with four aggregations, and update the features of weights too.

    .. math::
        m_{ij} &= s(e_{ij}) \odot \phi_m(v_i, v_j) + t(e_{ij}) \\
        v_i' &= v_i + \phi_v\big(v_i, \; mean_j, min_j, max_j, std_j \; m_{ij}\big), \qquad
        e_{ij}' = e_{ij} + \phi_e(v_i, v_j, e_{ij})

    Messages run from each layer to the next. Cost of a forward pass, with ``E`` weights and ``d`` channels: about
    ``12 E d^2`` FLOP per layer and network.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels of neurons and weights, at least 2.
        layers: rounds of messages.
        head: ``"invariant"`` returns ``[batch, out_features]``; ``"equivariant"`` returns ``Weights``.
        probes: learned inputs whose activations are added to the neurons' features; 0 for weights alone. With probes
            the track is ``"probing"``.
        fourier: number of frequencies that embed every weight and bias.
        dropout: probability, before the last layer of the readout and in updates of neurons.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, an unknown head, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.NeuralGraphGNN(spec, 10, hidden=8, layers=2, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Kofinas et al., *Graph Neural Networks for Learning Equivariant Representations of Neural Networks*, 2024,
        section 3. Published: 68.0 % on Fashion-MNIST INRs without probes (55,000 training images). Departures: the
        readout averages every hidden layer's neurons instead of reading the last layer's alone, so that shallow stacks
        read all of a deep network; one degree scaler, ``log(1 + degree)``, in addition to the identity, without the
        training set's average degree; no features of reverse edges, which the release joins to those of each weight.
    """

    name = "ng-gnn"
    reads = "chain"
    equivariance = "permutation"
    heads = ("invariant", "equivariant")

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 4,
        head: Head = "invariant",
        probes: int = 0,
        fourier: int = 64,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed, head=head, probes=probes, fourier=fourier)
        track = "probing" if probes else "weights-only"
        super().__init__(spec, out_features, Normalize(spec), config, track=track)
        with seeded_by(seed):
            self.start = GraphInput(spec, hidden, hidden, fourier=fourier, probes=probes)
            self.layers = nn.ModuleList(
                MessageLayer(self.start.widths, hidden, edges=head == "equivariant" or i + 1 < layers, dropout=dropout)
                for i in range(layers)
            )
            self.head = GraphHead(spec, hidden, hidden, out_features, head=head, hidden=4 * hidden, dropout=dropout)

    def compute(self, weights: Weights) -> Tensor | Weights:
        networks = weights if self.start.probes is None else self.normalize.undo(weights)
        nodes, edges = self.start(weights, networks)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges)
        return self.head(weights, nodes, edges)


class MessageLayer(nn.Module):
    """Pass one round of messages, and update neurons and weights.

    The first layer of every function of a pair is linear in the two neurons: it is computed once per neuron, and the
    two results are added for each pair.

    Args:
        widths: sizes of the axes, from inputs to outputs.
        width: channels.
        edges: whether weights are updated too.
        dropout: probability, in updates of neurons.
    """

    def __init__(self, widths: Sequence[int], width: int, *, edges: bool, dropout: float) -> None:
        super().__init__()
        self.widths = widths
        self.target, self.source = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.scale, self.shift, self.message = (nn.Linear(width, width) for _ in range(3))
        self.update = nn.Sequential(
            nn.Linear(9 * width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)
        self.edge_update = GNNEdgeUpdate(widths, width) if edges else None

    def forward(self, nodes: Tensor, edges: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        targets, sources = (neurons(f(nodes), self.widths) for f in (self.target, self.source))
        gathered = [nodes.new_zeros(len(nodes), self.widths[0], 8 * nodes.shape[2])]
        for edge, target, source in zip(edges, targets[1:], sources[:-1], strict=True):
            message = self.message(F.silu(target[:, :, None] + source[:, None]))
            gathered.append(pna_aggregate(torch.addcmul(self.shift(edge), 1 + self.scale(edge), message)))
        updated = self.norm(nodes + self.update(torch.cat([nodes, torch.cat(gathered, 1)], -1)))
        return updated, edges if self.edge_update is None else self.edge_update(nodes, edges)


class GNNEdgeUpdate(nn.Module):
    """Update a weight's features from its own and those of its two neurons."""

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


def pna_aggregate(message: Tensor) -> Tensor:
    r"""Aggregate messages ``[batch, target, source, channel]`` over sources: principal neighbourhood aggregation.

    Returns:
        Mean, minimum, maximum and standard deviation, as they are and times ``log(1 + degree)``,
        ``[batch, target, 8 * channel]``.

    Reference:
        Corso et al., *Principal Neighbourhood Aggregation for Graph Nets*, 2020.
    """
    degree = message.shape[2]
    mean = message.sum(2) / degree
    variance = message.square().sum(2) / degree - mean.square()
    parts = torch.cat([mean, message.amin(2), message.amax(2), (F.relu(variance) + 1e-5).sqrt()], -1)
    return torch.cat([parts, math.log(1 + degree) * parts], -1)
