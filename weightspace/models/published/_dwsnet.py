"""DWSNet: deep weight-space networks of equivariant linear layers (Navon et al. 2023)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._equivariant import EquivariantLinear, InvariantPool, NeuronAttention
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights, check_features
from weightspace.models._base import Model, Normalize, check_sizes


class DWSNet(Model):
    r"""Equivariant linear layers with pointwise non-linearities between them.

    ``x_0 = normalize(w)``, ``x_l = relu(EquivariantLinear_l(x_{l-1}))``; the invariant head averages
    every parameter over its hidden axes and applies an MLP, the equivariant head is one more linear layer.

    Args:
        spec: the networks to read; any spec with at least one hidden axis, convolutions included.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels of the features, at least 2.
        layers: number of equivariant layers.
        head: ``"invariant"`` gives ``[batch, out_features]``; ``"equivariant"`` gives ``Weights``, without channel axis
            where ``out_features`` is 1.
        attention: heads of the attention among neurons that follows every layer (the set layer); 0 for none.
        dropout: of the invariant head's hidden layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for a spec without hidden axes, an unknown head, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.DWSNet(spec, out_features=10, hidden=8, layers=2)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, section 5.
        Published: 67.1 % on Fashion-MNIST INRs (55,000 training images, one view). Departures: averages instead of
        maxima, in the linear layers (so that they are the maps of the theorem) and in the head, and no batch norm.
        Cost of a step forward, with ``P`` weights and ``d`` channels: about ``2 P d^2`` FLOP a layer and network.
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
        attention: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, Normalize(spec))
        if not spec.hidden:
            raise ValueError("expected a spec with at least one hidden axis, got none; use ws.models.MLP")
        if head not in ("invariant", "equivariant"):
            raise ValueError(f"head: expected 'invariant' or 'equivariant', got {head!r}")
        check_sizes(out_features, hidden, layers, dropout)
        widths = [1] + [hidden] * layers
        whole_number("attention", attention, 0)
        self.out_features, self.head_kind = out_features, head
        self.layers = nn.ModuleList(EquivariantLinear(spec, a, b) for a, b in pairwise(widths))
        self.attention = nn.ModuleList(NeuronAttention(spec, hidden, attention) for _ in range(layers) if attention)
        if head == "equivariant":
            self.head: nn.Module = EquivariantLinear(spec, hidden, out_features)
        else:
            self.head = InvariantHead(spec, hidden, out_features, dropout=dropout)

    def _forward(self, weights: Weights) -> Tensor | Weights:
        features = weights.replace(weights.flat.unsqueeze(-1))
        for i, layer in enumerate(self.layers):
            features = layer(features)
            if self.attention:
                features = self.attention[i](features)
            features = features.replace(torch.relu_(features.flat))  # a tensor of the layer's own: free to overwrite
        out = self.head(features)
        if isinstance(out, Weights) and self.out_features == 1:
            return out.replace(out.flat.squeeze(-1))
        return out


class InvariantHead(nn.Module):
    r"""Average every parameter over its hidden axes, then an MLP with one hidden layer.

    .. math:: y = MLP\Big( \big\Vert_p \, mean_{H_p} x_p \Big)

    Args:
        spec: the networks.
        channels: of the features it reads, ``[batch, param, channel]``.
        out_features: outputs.
        dropout: before the last layer.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> InvariantHead(spec, 4, 10)(ws.Weights(torch.randn(3, spec.num_params, 4), spec)).shape
        torch.Size([3, 10])

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, section 5 (invariant layer).
    """

    def __init__(self, spec: NetSpec, channels: int, out_features: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        check_spec(spec)
        self.spec, self.in_channels = spec, channels
        self.pool = InvariantPool(spec)
        wide = channels * self.pool.size
        self.mlp = nn.Sequential(
            nn.Linear(wide, 4 * channels),
            nn.LayerNorm(4 * channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4 * channels, out_features),
        )

    def forward(self, features: Weights) -> Tensor:
        check_features(self.spec, features, self.in_channels)
        return self.mlp(self.pool(features))
