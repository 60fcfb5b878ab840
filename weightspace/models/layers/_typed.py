"""Maps of neuron and weight features that commute with signs or positive scales, and invariants of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._activation import activation
from weightspace._spec import Axis

Types = frozenset[str]  # what a feature may be multiplied by: "sign", "positive", both or nothing
NONE: Types = frozenset()


def types_of(axis: Axis) -> tuple[Types, Types]:
    """By what a neuron's pre-activation may be multiplied, and then its output: both from the activation table."""
    if axis.activation is None:
        return NONE, NONE
    row = activation(axis.activation)
    types = NONE if row.scale == "none" else frozenset({row.scale})
    return types, NONE if row.parity == "even" else types


class Factor(nn.Module):
    r"""An invariant of features, mapped linearly to ``out`` channels.

    A feature whose type is "sign" enters as ``|A x|`` (an even function, the symmetrisation of a layer of ReLUs), one
    of type "positive" as ``A x / |x|``, one of both as ``|A x| / |x|``, and an invariant one as ``A x + b``.
    """

    def __init__(self, types: Types, channels: int, out: int) -> None:
        super().__init__()
        self.sign, self.positive = "sign" in types, "positive" in types
        self.linear = nn.Linear(channels, out, bias=not types)

    def forward(self, value: Tensor) -> Tensor:
        value = F.normalize(value, dim=-1) if self.positive else value
        value = self.linear(value)
        return value.abs_() if self.sign else value


class Gate(nn.Module):
    r"""``y = G x * (1 + A silu(sum of invariants))``: has the type of ``x``, whatever the invariants are of.

    Reference:
        Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024, section 4 (scale equivariant networks).
    """

    def __init__(self, width: int, out: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, out))

    def forward(self, value: Tensor, invariants: Sequence[Tensor]) -> Tensor:
        total = self.bias
        for part in invariants:
            total = total + part
        return torch.addcmul(value, value, self.out(total))


def steady(value: Tensor, types: Types) -> Tensor:
    """Features of root mean square one over channels, where that keeps their type: without positive scales."""
    if "positive" in types:
        return value
    return value * torch.rsqrt(value.square().mean(-1, keepdim=True) + 1e-6)


def paired(value: Tensor, inverse: Tensor, types: Types) -> Tensor:
    """The product of a feature and one of the inverse type: an invariant.

    Nothing bounds features of positive scales, and products of products overflow on some networks: they enter as
    ``asinh``, close to the product where it is small and to its logarithm where it is large.
    """
    product = value * inverse
    return product.asinh() if "positive" in types else product


class NodeFactors(nn.Module):
    """Invariants of what a neuron holds: features of its type, and one of the inverse type (``dual``).

    A sign is its own inverse: all enter together, so that their relative signs are seen. Of positive scales the product
    of both is invariant, and enters besides each by itself.
    """

    def __init__(self, types: Types, width: int, out: int, *, same: int, dual: bool) -> None:
        super().__init__()
        self.types, apart = types, dual and "positive" in types
        self.joint = Factor(types, width * (same + (dual and not apart)), out)
        self.dual = Factor(types, width, out) if apart else None
        self.product = Factor(NONE, width, out) if apart else None

    def forward(self, same: Sequence[Tensor], dual: Tensor | None) -> Tensor:
        if self.dual is None or self.product is None:
            return self.joint(torch.cat([*same, *([] if dual is None else [dual])], -1))
        assert dual is not None
        return self.joint(torch.cat(list(same), -1)) + self.dual(dual) + self.product(paired(same[0], dual, self.types))


class Send(nn.Module):
    """A neuron's features as they leave it: mapped linearly, or made invariant where an activation swallows signs."""

    def __init__(self, before: Types, after: Types, width: int) -> None:
        super().__init__()
        self.keeps = before == after
        self.map = nn.Linear(width, width, bias=not before) if self.keeps else Factor(before, width, width)

    def forward(self, value: Tensor) -> Tensor:
        value = self.map(value)
        return value if self.keeps else F.silu(value)
