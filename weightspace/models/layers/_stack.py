"""Equivariant linear layers with ReLUs between them, and a head: the body of DWSNet and NFN."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._equivariant import EquivariantLinear, NeuronAttention
from weightspace._features import Features, layouts
from weightspace._matrix_layer import Reduction, check_reduction
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
        reduction: whether layers and head take averages or maxima over axes.
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
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        whole_number("attention", attention, 0)
        options: dict[str, Any] = {"ends": ends, "reduction": reduction}
        self.spec, self.channels, self.members = spec, channels, layouts(spec, ends)
        self.reduction: Reduction = reduction
        widths = [channels] + [hidden] * layers
        self.layers = nn.ModuleList(EquivariantLinear(spec, a, b, **options) for a, b in pairwise(widths))
        self.attention = nn.ModuleList(
            NeuronAttention(spec, hidden, attention, reduction=reduction) for _ in range(layers if attention else 0)
        )
        self.head = (
            EquivariantLinear(spec, hidden, out_features, **options)
            if head == "equivariant"
            else InvariantHead(spec, hidden, out_features, dropout=dropout, **options)
        )

    def forward(self, weights: Weights) -> Tensor | Weights:
        """Map features ``[batch, param, channel]`` to ``[batch, out_features]``, or to ``Weights``."""
        check_features(self.spec, weights, self.channels)
        features = Features.read(self.members, weights, self.reduction)
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, EquivariantLinear)
            features = layer.compute(features, relu=not self.attention)
            if self.attention:
                attention = self.attention[i]
                assert isinstance(attention, NeuronAttention)
                features = attention.compute(features, relu=True)
        if isinstance(self.head, InvariantHead):
            return self.head(features)
        return without_channel(self.head.compute(features).weights(self.head.out_channels))


class InvariantHead(nn.Module):
    r"""Average every parameter over its hidden axes, then apply an MLP with one hidden layer.

    .. math:: y = MLP\Big( \big\Vert_p \, mean_{H_p} x_p \Big)

    Args:
        spec: the networks.
        channels: of the features that it reads, ``[batch, param, channel]``.
        out_features: numbers per network.
        ends: whether inputs and outputs count as hidden axes too.
        dropout: probability, before the last layer.
        reduction: ``"mean"``, or ``"max"`` to take the maximum over hidden axes instead of the average.

    Raises:
        TypeError: for something other than a ``NetSpec``.
        ValueError: for another reduction; on call, for networks of another spec or features with other channels.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> InvariantHead(spec, 4, 10)(ws.Weights(torch.randn(3, spec.num_params, 4), spec)).shape
        torch.Size([3, 10])

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, section 5 (invariant layer).
    """

    def __init__(
        self,
        spec: NetSpec,
        channels: int,
        out_features: int,
        *,
        ends: bool = False,
        dropout: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_spec(spec)
        self.spec, self.in_channels = spec, channels
        self.members = layouts(spec, ends)
        self.reduction: Reduction = check_reduction(reduction)
        size = sum(member.fixed for member in self.members)
        self.mlp = normed_mlp(channels * size, 4 * channels, 1, out_features, dropout=dropout)

    def forward(self, features: Weights | Features) -> Tensor:
        if isinstance(features, Weights):
            check_features(self.spec, features, self.in_channels)
            features = Features.read(self.members, features, self.reduction)
        return self.mlp(features.joined(()))
