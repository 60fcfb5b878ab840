"""Equivariant linear layers with ReLUs between them, and a head: the body of DWSNet and NFN."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._equivariant import EquivariantLinear, NeuronAttention
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models.layers._chain import without_channel
from weightspace.models.layers._heads import InvariantHead


class EquivariantStack(nn.Module):
    r"""Apply equivariant linear layers, each followed by attention among neurons (if any) and a ReLU, then a head.

    .. math:: x_l = relu(A_l(L_l(x_{l-1})))

    Args:
        spec: the networks.
        channels: of the features that enter.
        hidden: channels of the features between the layers.
        layers: number of layers.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        head: ``"invariant"``: an :class:`InvariantHead`; ``"equivariant"``: one more equivariant layer.
        attention: heads of the attention after every layer; 0 for none.
        ends: whether the layers commute with permutations of inputs and outputs too.
        dropout: probability, in the invariant head.
    """

    def __init__(
        self,
        spec: NetSpec,
        channels: int,
        *,
        hidden: int,
        layers: int,
        out_features: int,
        head: str,
        attention: int = 0,
        ends: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        whole_number("attention", attention, 0)
        widths = [channels] + [hidden] * layers
        self.layers = nn.ModuleList(EquivariantLinear(spec, a, b, ends=ends) for a, b in pairwise(widths))
        self.attention = nn.ModuleList(NeuronAttention(spec, hidden, attention) for _ in range(layers) if attention)
        self.head = (
            EquivariantLinear(spec, hidden, out_features, ends=ends)
            if head == "equivariant"
            else InvariantHead(spec, hidden, out_features, ends=ends, dropout=dropout)
        )

    def forward(self, features: Weights) -> Tensor | Weights:
        """Map features ``[batch, param, channel]`` to ``[batch, out_features]``, or to ``Weights``."""
        for i, layer in enumerate(self.layers):
            features = layer(features)
            if self.attention:
                features = self.attention[i](features)
            features = features.replace(torch.relu_(features.flat))  # the layer made this tensor: free to overwrite
        out = self.head(features)
        return without_channel(out) if isinstance(out, Weights) else out
