"""Maps of neuron and weight features that commute with signs or positive scales, and invariants of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._spec import Axis

Types = frozenset[str]
"""The factors that a feature may be multiplied by: ``"sign"``, ``"positive"``, both or nothing."""
NONE: Types = frozenset()


def types_of(axis: Axis) -> tuple[Types, Types]:
    """Return what a neuron's pre-activation may be multiplied by, and then its output, by the activation table."""
    row = axis.symmetry
    types = NONE if row.scale == "none" else frozenset({row.scale})
    return types, NONE if row.parity == "even" else types


class TypedInvariant(nn.Module):
    r"""Map a feature linearly, and make the result invariant to the factors of its type.

    A feature of type "sign" enters as ``|A x|`` (an even function, the symmetrisation of a layer of ReLUs), one of type
    "positive" as ``A x / |x|``, one of both as ``|A x| / |x|``, and one without type as ``A x + b``.

    Args:
        types: of the feature.
        channels: channels that enter.
        out: channels that leave.
    """

    def __init__(self, types: Types, channels: int, out: int) -> None:
        super().__init__()
        self.sign, self.positive = "sign" in types, "positive" in types
        self.linear = nn.Linear(channels, out, bias=not types)

    def forward(self, value: Tensor) -> Tensor:
        value = F.normalize(value, dim=-1) if self.positive else value
        value = self.linear(value)
        return value.abs_() if self.sign else value


def dual_product(value: Tensor, dual: Tensor, types: Types) -> Tensor:
    """Multiply a feature by one of the inverse type, which gives an invariant.

    Features of positive scales are unbounded, and products of products overflow on some networks. They are returned
    as ``asinh``, which is close to the product where that is small and to its logarithm where it is large.
    """
    product = value * dual
    return product.asinh() if "positive" in types else product


class NodeInvariants(nn.Module):
    """Compute invariants of a neuron: of features of its type, and of one of the inverse type (``dual``).

    A sign is its own inverse, so all features enter one map, which sees their relative signs. Positive scales enter one
    by one, together with the product of the feature and its dual.

    Args:
        types: of the neuron.
        width: channels of each feature.
        out: channels that leave.
        same: number of features of the neuron's type.
        dual: whether a dual enters.
    """

    def __init__(self, types: Types, width: int, out: int, *, same: int, dual: bool) -> None:
        super().__init__()
        self.types, apart = types, dual and "positive" in types
        self.joint = TypedInvariant(types, width * (same + (dual and not apart)), out)
        self.dual = TypedInvariant(types, width, out) if apart else None
        self.product = TypedInvariant(NONE, width, out) if apart else None

    def forward(self, same: Sequence[Tensor], dual: Tensor | None) -> Tensor:
        if self.dual is None or self.product is None:
            return self.joint(torch.cat([*same, *([] if dual is None else [dual])], -1))
        assert dual is not None
        product = self.product(dual_product(same[0], dual, self.types))
        return self.joint(torch.cat(list(same), -1)) + self.dual(dual) + product


class ActivationMap(nn.Module):
    """Map a neuron's features linearly as they leave it; if the activation is even and drops the sign, invariantly.

    Args:
        before: type of the pre-activation.
        after: type of the output.
        width: channels.
    """

    def __init__(self, before: Types, after: Types, width: int) -> None:
        super().__init__()
        self.preserves = before == after
        self.map = nn.Linear(width, width, bias=not before) if self.preserves else TypedInvariant(before, width, width)

    def forward(self, value: Tensor) -> Tensor:
        value = self.map(value)
        return value if self.preserves else F.silu(value)
