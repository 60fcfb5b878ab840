"""ScaleGMN: message passing that commutes with permutations, signs and scales (Kalogeropoulos et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from weightspace._spec import NetSpec
from weightspace.models._normalize import Normalize
from weightspace.models.layers._chain import axes_of
from weightspace.models.layers._message_passing import (
    ForwardBackwardRound,
    Gate,
    GatedMessagePass,
    rms_normalize,
)
from weightspace.models.layers._typed import ActivationMap, NodeInvariants, TypedInvariant, Types, types_of
from weightspace.models.published._gmn import ForwardBackwardModel, RoundOptions

Both = tuple[Types, Types]
"""The types of a neuron's pre-activation and of its output."""


@final
class ScaleGMN(ForwardBackwardModel):
    r"""Pass messages in which every feature keeps the type of the weight or neuron that it belongs to.

    Under an element that multiplies pre-activation ``i`` by ``q_i`` (a sign for sine and tanh, a positive scale for
    ReLU), a neuron's features are multiplied by ``q_i`` and a weight's by ``q_i / q_j``, so that the product of a
    weight and the neuron it comes from has the type of the neuron it goes to:

    .. math::
        m_i = mean_j \; p_{ij} \odot \phi(p_{ij}, h_i), \qquad p_{ij} = e_{ij} \odot \Gamma h_j, \qquad
        h_i' = h_i + \Gamma [h_i, m_i] \odot \phi(h_i, m_i)

    where every ``phi`` reads invariants alone. Going back, neurons carry a second feature of type ``1 / q_i``, as
    gradients do. Phases of sines are folded beforehand (``fold_phases``). Even activations and
    those without symmetry are read too: the types come from the activation table, for each hidden axis. Without types
    the network is :class:`GMN`. Cost of a forward pass, with ``E`` weights and ``d`` channels: about ``17 E d^2`` FLOP
    per bidirectional round and network, 6 of them for the update of the weights' features, which the last round leaves
    out.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels, at least 2.
        layers: number of rounds of messages, each through all layers of the network.
        direction: ``"bidirectional"``: from inputs to outputs and back; ``"forward"``: not back.
        head: ``"invariant"`` returns ``[batch, out_features]``; ``"equivariant"`` returns ``Weights`` and folds no
            phases, so that it respects permutations, signs and scales.
        dropout: probability, in all functions of invariants.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, sizes out of range, or a direction or head that does not exist.

    Example:
        >>> import weightspace as ws
        >>> model = ws.models.ScaleGMN(ws.mlp(2, 16, 3, activation="relu"), 10, hidden=8, layers=1, seed=0)
        >>> w = ws.Weights(torch.randn(4, model.spec.num_params), model.spec)
        >>> rescaled = ws.Symmetry.sample(model.spec, batch=4, generator=torch.Generator()).act(w)
        >>> torch.allclose(model(w), model(rescaled), rtol=1e-3, atol=1e-4)
        True

    Reference:
        Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024, sections 4 and 5. Published, on
        Fashion-MNIST INRs (55,000 training images): 80.8 % bidirectional. Departures: a round updates layer after
        layer, not all neurons at once, so that one round reaches the output of any depth; every layer of the network
        has functions of its own, in place of positional encodings; backward messages carry the dual type instead of
        inverting weights; the even function of signs is ``|A x|``; sums of messages over the root of their number.
    """

    name = "scale-gmn"
    equivariance = "full"

    @staticmethod
    def normalization(spec: NetSpec, *, edges: bool) -> Normalize:
        return Normalize(spec, center=False, fold=not edges)

    @staticmethod
    def make_round(spec: NetSpec, width: int, options: RoundOptions) -> ForwardBackwardRound:
        return scale_gmn_round(axis_types(spec), width, **options._asdict())

    @staticmethod
    def make_invariants(spec: NetSpec, width: int, *, back: bool) -> list[nn.Module]:
        types = axis_types(spec)
        last = len(types) - 1
        return [ReadInvariants(own, width, dual=back and 0 < i < last) for i, (own, _) in enumerate(types) if back or i]


def axis_types(spec: NetSpec) -> list[Both]:
    """Return the types of the features of every axis, from inputs to outputs."""
    return [types_of(spec.axis(name)) for name in axes_of(spec.layers)]


def scale_gmn_round(
    types: Sequence[Both], width: int, *, first: bool, back: bool, edges: bool, dropout: float
) -> ForwardBackwardRound:
    """Make a round of messages that keeps types.

    Args:
        types: of the axes, from inputs to outputs.
        width: channels.
        first: whether it is the first round, in which duals hold nothing yet.
        back: whether messages go back too.
        edges: whether weights are updated.
        dropout: probability, in all functions of invariants.
    """
    pairs = list(pairwise(types))
    returning, updated = pairs if back else [], pairs if edges else []
    return ForwardBackwardRound(
        send=[ActivationMap(*below, width) for below, _ in pairs],
        forth=[
            MessagePass(above[0], above[0], width, dual=back and not first and i + 1 < len(pairs), dropout=dropout)
            for i, (_, above) in enumerate(pairs)
        ],
        send_back=[ActivationMap(above[0], above[0], width) for _, above in returning],
        back=[MessagePass(low[1], low[0], width, dual=True, fresh=first, dropout=dropout) for low, _ in returning],
        edges=[ScaleGMNEdgeUpdate(low, above, width, dual=back, dropout=dropout) for low, above in updated],
    )


def normalized(value: Tensor, types: Types) -> Tensor:
    """Normalise features over channels, unless their type has positive scales, which that would remove."""
    return value if "positive" in types else rms_normalize(value)


class MessagePass(GatedMessagePass):
    """Send messages along one layer's weights, and update the neurons that receive them.

    Args:
        message: type of the messages.
        own: type of the neurons' feature that is updated.
        width: channels.
        dual: whether the neurons' feature of the inverse type is read.
        fresh: whether the feature that is updated holds nothing yet.
        dropout: probability, in both gates.
    """

    def __init__(
        self, message: Types, own: Types, width: int, *, dual: bool, fresh: bool = False, dropout: float
    ) -> None:
        super().__init__(fresh=fresh)
        self.own, self.matches = own, message == own
        self.dual, self.mixes = dual, dual and "positive" not in own
        self.of_pair, self.of_own = TypedInvariant(message, width, width), TypedInvariant(own, width, width)
        self.gate = Gate(width, width, dropout=dropout)
        same = self.matches + (not fresh)
        self.mix = nn.Linear(width * (same + self.mixes), width, bias=not own)
        self.inputs = NodeInvariants(own, width, width, same=same, dual=dual)
        self.of_message = None if self.matches else TypedInvariant(message, width, width)
        self.update = Gate(width, width, dropout=dropout)

    def updated(self, own: Tensor, message: Tensor, dual: Tensor) -> Tensor:
        same = [value for value, there in ((own, not self.fresh), (message, self.matches)) if there]
        invariants = [self.inputs(same, dual if self.dual else None)]
        if self.of_message is not None:
            invariants.append(self.of_message(message))
        value = self.update(self.mix(torch.cat([*same, dual] if self.mixes else same, -1)), invariants)
        return normalized(value if self.fresh else own + value, self.own)


class ScaleGMNEdgeUpdate(nn.Module):
    """Update a weight's features from its own and from invariants of its two neurons.

    Args:
        below: types of the axis that the weight reads.
        above: types of the axis that it produces.
        width: channels.
        dual: whether the neurons' duals are read.
        dropout: probability, in the gate.
    """

    def __init__(self, below: Both, above: Both, width: int, *, dual: bool, dropout: float) -> None:
        super().__init__()
        self.types, self.dual = above[0] | below[1], dual
        self.map, self.of_edge = nn.Linear(width, width, bias=False), TypedInvariant(self.types, width, width)
        self.target = NodeInvariants(above[0], width, width, same=1, dual=dual)
        self.source = NodeInvariants(below[0], width, width, same=1, dual=dual)
        self.gate = Gate(width, width, dropout=dropout)

    def forward(self, edge: Tensor, target: Tensor, target_dual: Tensor, source: Tensor, source_dual: Tensor) -> Tensor:
        of_target = self.target([target], target_dual if self.dual else None)[:, :, None]
        of_source = self.source([source], source_dual if self.dual else None)[:, None]
        return normalized(edge + self.gate(self.map(edge), [self.of_edge(edge), of_target, of_source]), self.types)


class ReadInvariants(nn.Module):
    """Compute invariants of a neuron's feature and its dual, for the readout.

    Args:
        types: of the neuron.
        width: channels.
        dual: whether the dual is read.
    """

    def __init__(self, types: Types, width: int, *, dual: bool) -> None:
        super().__init__()
        self.node = NodeInvariants(types, width, width, same=1, dual=dual)

    def forward(self, value: Tensor, dual: Tensor | None) -> Tensor:
        return self.node([value], dual)
