"""GMN: message passing on the graph of a network, forth and back (Lim et al. 2024)."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor, nn

from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Head, Model, check_sizes
from weightspace.models._normalize import Normalize
from weightspace.models.layers._message_passing import (
    ChainEmbedding,
    ChainOutput,
    ForwardBackward,
    ForwardBackwardReadout,
    ForwardBackwardRound,
    Gate,
    rms_normalize,
)

Direction = Literal["forward", "bidirectional"]


@final
class GMN(Model):
    r"""Pass messages from a network's inputs to its outputs and back, and update the features of its weights too.

    .. math::
        m_i = mean_j \; p_{ij} \odot \phi(p_{ij}, h_i), \qquad p_{ij} = e_{ij} \odot \Gamma h_j, \qquad
        h_i' = h_i + \Gamma [h_i, m_i] \odot \phi(h_i, m_i)

    Every function reads the features themselves, so only permutations of neurons are respected. :class:`ScaleGMN` is
    the same network with features that transform under signs, scales and phases: compare the two to see what these
    symmetries contribute. Cost of a forward pass, with ``E`` weights and ``d`` channels: about ``17 E d^2`` FLOP per
    bidirectional round and network.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels, at least 2.
        layers: number of rounds; each goes through the network from inputs to outputs (and back).
        direction: ``"bidirectional"``, or ``"forward"`` alone.
        head: ``"invariant"`` returns ``[batch, out_features]``; ``"equivariant"`` returns ``Weights``.
        dropout: probability, in all functions of neurons and weights.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.GMN(spec, 10, hidden=8, layers=1, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Lim et al., *Graph Metanetworks for Processing Diverse Neural Architectures*, 2024, section 2; both directions
        as in Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024. Published: accuracy predictors and
        edited INRs, no classes of Fashion-MNIST INRs. Departures: those of :class:`ScaleGMN`; gated products in place
        of MLPs; sequential networks alone, where the paper reads convolutions, norms and residual links too.
    """

    name = "gmn"
    reads = "chain"
    equivariance = "permutation"
    heads = ("invariant", "equivariant")

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 64,
        layers: int = 2,
        direction: Direction = "bidirectional",
        head: Head = "invariant",
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        check_sizes(hidden, layers, dropout, seed)
        check_direction(direction)
        config = {"hidden": hidden, "layers": layers, "direction": direction, "head": head, "dropout": dropout}
        super().__init__(spec, out_features, Normalize(spec), config)
        depth, back, edges = len(spec.layers), direction == "bidirectional", head == "equivariant"
        with seeded_by(seed):
            embed = ChainEmbedding(spec, hidden)
            rounds = [
                gmn_round(depth, hidden, first=not i, back=back, edges=edges or i + 1 < layers, dropout=dropout)
                for i in range(layers)
            ]
            if edges:
                out = ChainOutput(spec, hidden, out_features)
            else:
                invariants = [
                    ConcatLinear(hidden, 1 + (back and 0 < i < depth)) for i in range(0 if back else 1, depth + 1)
                ]
                out = ForwardBackwardReadout(spec, hidden, invariants, out_features, back=back, dropout=dropout)
            self.net = ForwardBackward(embed, rounds, out)

    def compute(self, weights: Weights) -> Tensor | Weights:
        return self.net(weights)


def check_direction(direction: str) -> None:
    """Raise ``ValueError`` for something other than a direction of messages."""
    if direction not in ("forward", "bidirectional"):
        raise ValueError(f"direction: expected 'forward' or 'bidirectional', got {direction!r}")


def gmn_round(depth: int, width: int, *, first: bool, back: bool, edges: bool, dropout: float) -> ForwardBackwardRound:
    """Make a round of messages without types.

    Args:
        depth: number of layers of the networks.
        width: channels.
        first: whether it is the first round, in which duals hold nothing yet.
        back: whether messages go back too.
        edges: whether weights are updated.
        dropout: probability, in all functions.
    """
    return ForwardBackwardRound(
        send=[nn.Linear(width, width) for _ in range(depth)],
        forth=[GMNMessagePass(width, dual=back and not first and i + 1 < depth, dropout=dropout) for i in range(depth)],
        send_back=[nn.Linear(width, width) for _ in range(depth if back else 0)],
        back=[GMNMessagePass(width, dual=True, fresh=first, dropout=dropout) for _ in range(depth if back else 0)],
        edges=[GMNEdgeUpdate(width, dual=back, dropout=dropout) for _ in range(depth if edges else 0)],
    )


class ConcatLinear(nn.Module):
    """Map several features, side by side, linearly.

    Args:
        width: channels of each feature, and of the result.
        count: number of features.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width * count, width)

    def forward(self, *features: Tensor | None) -> Tensor:
        there = [feature for feature in features if feature is not None]
        return self.linear(there[0] if len(there) == 1 else torch.cat(there, -1))


class GMNMessagePass(nn.Module):
    """Send messages along one layer's weights, and update the neurons that receive them.

    Args:
        width: channels.
        dual: whether the neurons' other feature is read.
        fresh: whether the feature that is updated holds nothing yet.
        dropout: probability, in both functions.
    """

    def __init__(self, width: int, *, dual: bool, fresh: bool = False, dropout: float) -> None:
        super().__init__()
        self.dual, self.fresh, count = dual, fresh, 1 + (not fresh) + dual
        self.of_pair, self.of_own = nn.Linear(width, width), nn.Linear(width, width)
        self.gate = Gate(width, width, dropout=dropout)
        self.mix = nn.Linear(width * count, width)
        self.inputs = nn.Linear(width * count, width)
        self.update = Gate(width, width, dropout=dropout)

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
        held = torch.cat([*([] if self.fresh else [own]), message, *([dual] if self.dual else [])], -1)
        value = self.update(self.mix(held), [self.inputs(held)])
        return rms_normalize(value if self.fresh else own + value)


class GMNEdgeUpdate(nn.Module):
    """Update a weight's features from its own and those of its two neurons.

    Args:
        width: channels.
        dual: whether the neurons' duals are read.
        dropout: probability, in the gate.
    """

    def __init__(self, width: int, *, dual: bool, dropout: float) -> None:
        super().__init__()
        self.dual = dual
        self.map, self.of_edge = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.target, self.source = ConcatLinear(width, 1 + dual), ConcatLinear(width, 1 + dual)
        self.gate = Gate(width, width, dropout=dropout)

    def forward(self, edge: Tensor, target: Tensor, target_dual: Tensor, source: Tensor, source_dual: Tensor) -> Tensor:
        of_target = self.target(target, target_dual if self.dual else None)[:, :, None]
        of_source = self.source(source, source_dual if self.dual else None)[:, None]
        return rms_normalize(edge + self.gate(self.map(edge), [self.of_edge(edge), of_target, of_source]))
