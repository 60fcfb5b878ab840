"""Equivariant linear layers with ReLUs between them, and a head: the body of DWSNet and NFN."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._equivariant import EquivariantLinear, InvariantPool, NeuronAttention
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights, check_features
from weightspace.models.layers._chain import without_channel
from weightspace.models.layers._heads import normed_mlp


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


class InvariantHead(nn.Module):
    r"""Average every parameter over its hidden axes, then apply an MLP with one hidden layer.

    .. math:: y = MLP\Big( \big\Vert_p \, mean_{H_p} x_p \Big)

    Args:
        spec: the networks.
        channels: of the features that it reads, ``[batch, param, channel]``.
        out_features: numbers per network.
        ends: whether inputs and outputs count as hidden axes too.
        dropout: probability, before the last layer.

    Raises:
        TypeError: for something other than a ``NetSpec``.
        ValueError: on call, for networks of another spec or features with other channels.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> InvariantHead(spec, 4, 10)(ws.Weights(torch.randn(3, spec.num_params, 4), spec)).shape
        torch.Size([3, 10])

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, section 5 (invariant layer).
    """

    def __init__(
        self, spec: NetSpec, channels: int, out_features: int, *, ends: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_spec(spec)
        self.spec, self.in_channels = spec, channels
        self.pool = InvariantPool(spec, ends=ends)
        self.mlp = normed_mlp(channels * self.pool.size, 4 * channels, 1, out_features, dropout=dropout)

    def forward(self, features: Weights) -> Tensor:
        check_features(self.spec, features, self.in_channels)
        return self.mlp(self.pool(features))
