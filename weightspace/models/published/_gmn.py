"""GMN: message passing on the graph of a network, forth and back (Lim et al. 2024)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Head, Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._message_passing import (
    ChainEmbedding,
    ChainOutput,
    ForwardBackward,
    ForwardBackwardReadout,
    ForwardBackwardRound,
    Gate,
    GatedMessagePass,
    rms_normalize,
)

Direction = Literal["forward", "bidirectional"]


class RoundOptions(NamedTuple):
    """Which parts a round of messages has.

    Args:
        first: whether it is the first round, in which duals hold nothing yet.
        back: whether messages go back too.
        edges: whether weights are updated.
        dropout: probability, in all functions.
    """

    first: bool
    back: bool
    edges: bool
    dropout: float


class ForwardBackwardModel(Model):
    """The constructor and the forward pass of :class:`GMN` and :class:`ScaleGMN`, which differ in their features.

    A subclass says how weights are normalised where that is not the default, and makes a round of messages and the
    functions that read invariants from the last features. Arguments and errors are those that :class:`GMN` states.
    """

    reads = "chain"
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
        if direction not in ("forward", "bidirectional"):
            raise ValueError(f"direction: expected 'forward' or 'bidirectional', got {direction!r}")
        config = checked_config(hidden, layers, dropout, seed, direction=direction, head=head)
        back, edges = direction == "bidirectional", head == "equivariant"
        group = "scaled" if edges and self.equivariance == "full" else self.equivariance
        super().__init__(spec, out_features, self.normalization(spec, edges=edges), config, equivariance=group)
        with seeded_by(seed):
            embed = ChainEmbedding(spec, hidden)
            rounds = [
                self.make_round(spec, hidden, RoundOptions(not i, back, edges or i + 1 < layers, dropout))
                for i in range(layers)
            ]
            if edges:
                out = ChainOutput(spec, hidden, out_features)
            else:
                invariants = self.make_invariants(spec, hidden, back=back)
                out = ForwardBackwardReadout(spec, hidden, invariants, out_features, back=back, dropout=dropout)
            self.net = ForwardBackward(embed, rounds, out)

    def compute(self, weights: Weights) -> Tensor | Weights:
        return self.net(weights)

    @staticmethod
    def normalization(spec: NetSpec, *, edges: bool) -> Normalize:
        """Return the layer that weights pass first; ``edges`` tells whether the model returns weights."""
        return Normalize(spec)

    @staticmethod
    @abstractmethod
    def make_round(spec: NetSpec, width: int, options: RoundOptions) -> ForwardBackwardRound:
        """Make a round of messages of so many channels."""

    @staticmethod
    @abstractmethod
    def make_invariants(spec: NetSpec, width: int, *, back: bool) -> Sequence[nn.Module]:
        """Make the functions that read invariants from the neurons of each axis, from inputs to outputs."""


@final
class GMN(ForwardBackwardModel):
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
        ValueError: for convolutions, no hidden layer, an unknown direction or head, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 16, 16, 1)
        >>> forward = ws.models.GMN(spec, 10, hidden=8, layers=1, direction="forward", seed=0)
        >>> forward(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])
        >>> forward.num_parameters < ws.models.GMN(spec, 10, hidden=8, layers=1, seed=0).num_parameters
        True

    Reference:
        Lim et al., *Graph Metanetworks for Processing Diverse Neural Architectures*, 2024, section 2; both directions
        as in Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024. Published: accuracy predictors and
        edited INRs, no classes of Fashion-MNIST INRs. Departures: those of :class:`ScaleGMN`; gated products in place
        of MLPs; sequential networks alone, where the paper reads convolutions, norms and residual links too.
    """

    name = "gmn"
    equivariance = "permutation"

    @staticmethod
    def make_round(spec: NetSpec, width: int, options: RoundOptions) -> ForwardBackwardRound:
        return gmn_round(len(spec.layers), width, **options._asdict())

    @staticmethod
    def make_invariants(spec: NetSpec, width: int, *, back: bool) -> list[nn.Module]:
        depth = len(spec.layers)
        return [ConcatLinear(width, 1 + (back and 0 < i < depth)) for i in range(0 if back else 1, depth + 1)]


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


class GMNMessagePass(GatedMessagePass):
    """Send messages along one layer's weights, and update the neurons that receive them.

    Args:
        width: channels.
        dual: whether the neurons' other feature is read.
        fresh: whether the feature that is updated holds nothing yet.
        dropout: probability, in both functions.
    """

    def __init__(self, width: int, *, dual: bool, fresh: bool = False, dropout: float) -> None:
        super().__init__(fresh=fresh)
        self.dual, count = dual, 1 + (not fresh) + dual
        self.of_pair, self.of_own = nn.Linear(width, width), nn.Linear(width, width)
        self.gate = Gate(width, width, dropout=dropout)
        self.mix = nn.Linear(width * count, width)
        self.inputs = nn.Linear(width * count, width)
        self.update = Gate(width, width, dropout=dropout)

    def updated(self, own: Tensor, message: Tensor, dual: Tensor) -> Tensor:
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
