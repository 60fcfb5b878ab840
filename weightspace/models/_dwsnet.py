"""DWSNet: deep weight-space networks of equivariant linear layers (Navon et al. 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize
from weightspace.models._equivariant import EquivariantLinear, layouts


class DWSNet(Model):
    r"""Equivariant linear layers with pointwise non-linearities between them.

    ``x_0 = normalize(w)``, ``x_l = relu(norm(EquivariantLinear_l(x_{l-1})))``; the invariant head pools every
    parameter over its hidden axes (mean and maximum) and applies an MLP, the equivariant head is one more linear layer.

    Args:
        spec: the networks to read; any spec with at least one hidden axis, convolutions included.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels of the features.
        layers: number of equivariant layers.
        head: ``"invariant"`` gives ``[batch, out_features]``; ``"equivariant"`` gives ``Weights``, without channel axis
            where ``out_features`` is 1.
        dropout: of the invariant head's hidden layer.

    Raises:
        ValueError: for a spec without hidden axes, or an unknown head.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.DWSNet(spec, out_features=10, hidden=8, layers=2)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Navon et al., *Equivariant Architectures for Learning in Deep Weight Spaces*, 2023, section 5. Departures: averages
        instead of maxima inside the linear layers (so that they are the linear maps of the theorem), layer norm over
        channels instead of batch norm.
    """

    respects = "permutation"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 32,
        layers: int = 4,
        head: Literal["invariant", "equivariant"] = "invariant",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, Normalize(spec))
        if not spec.hidden:
            raise ValueError("expected a spec with at least one hidden axis, got none; use ws.models.MLP")
        if head not in ("invariant", "equivariant"):
            raise ValueError(f"head: expected 'invariant' or 'equivariant', got {head!r}")
        if min(out_features, hidden, layers) < 1:
            raise ValueError(f"expected positive sizes, got {out_features=}, {hidden=}, {layers=}")
        widths = [1] + [hidden] * layers
        self.out_features, self.head_kind = out_features, head
        self.layers = nn.ModuleList(EquivariantLinear(spec, a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        if head == "equivariant":
            self.head: nn.Module = EquivariantLinear(spec, hidden, out_features)
        else:
            self.head = InvariantHead(spec, hidden, out_features, dropout=dropout)

    def _forward(self, weights: Weights) -> Tensor | Weights:
        features = weights.replace(weights.flat.unsqueeze(-1))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            features = layer(features)
            features = features.replace(torch.relu(norm(features.flat)))
        out = self.head(features)
        if isinstance(out, Weights) and self.out_features == 1:
            return out.replace(out.flat.squeeze(-1))
        return out


class InvariantHead(nn.Module):
    """Pool every parameter over its hidden axes, mean and maximum, then an MLP with one hidden layer."""

    def __init__(self, spec: NetSpec, channels: int, out_features: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec, self.channels = spec, channels
        self.layouts = layouts(spec)
        wide = 2 * channels * sum(layout.fixed for layout in self.layouts)
        self.mlp = nn.Sequential(
            nn.Linear(wide, 4 * channels),
            nn.LayerNorm(4 * channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4 * channels, out_features),
        )

    def forward(self, features: Weights) -> Tensor:
        parts = []
        for layout, (_, value) in zip(self.layouts, features.views(), strict=True):
            value = layout.features(value)
            value = value.flatten(1, -2) if value.ndim > 2 else value.unsqueeze(1)
            parts += [value.mean(1), value.amax(1)]
        return self.mlp(torch.cat(parts, -1))
