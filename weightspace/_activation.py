"""The activation table: which per-neuron maps commute with each activation, stated once.

On a hidden axis with pre-activation ``z`` a group element acts as ``z -> s*z + k*unit`` and multiplies what
leaves the activation by ``sigma(s, k)``. Everything that samples, searches or tests symmetries reads this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Scale = Literal["none", "sign", "positive"]
Parity = Literal["odd", "even", "none"]


@dataclass(frozen=True)
class Activation:
    """One row of the table: everything that the library knows of an activation.

    Args:
        name: the name used in specs.
        forward: ``(z, omega) -> activation``, elementwise.
        derivative: ``(z, omega) -> d activation / dz``, elementwise.
        scale: the factors ``s`` that commute: ``"none"`` (1 only), ``"sign"`` (+1, -1) or ``"positive"`` (> 0).
        parity: ``"odd"`` functions pass a sign on, ``"even"`` ones swallow it.
        periodic: whether a shift of ``k * pi / omega`` is allowed, giving a factor ``(-1) ** k``.
        kernel: the number by which compiled kernels know the function, or ``None`` where they do not have it. The
            number 0 stands for no activation.
        operator: the name of its ATen operator, if it has one; settings (a slope, an approximation) must be those of
            the formula.
        linear: whether every invertible matrix commutes, as where there is no activation at all.
    """

    name: str
    forward: Callable[[Tensor, float], Tensor]
    derivative: Callable[[Tensor, float], Tensor]
    scale: Scale = "none"
    parity: Parity = "none"
    periodic: bool = False
    kernel: int | None = None
    operator: str = ""
    linear: bool = False

    def phase_step(self, omega: float) -> float:
        """Return the shift that one step of phase adds to the pre-activation: ``pi / omega``, or 0 without phases."""
        return math.pi / omega if self.periodic else 0.0

    def sigma(self, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
        """Return the factor ``sigma(s, k)`` on the activation's output; ``None`` stands for one everywhere."""
        factor = None if self.parity == "even" or self.scale == "none" else scale
        if shift is None or not self.periodic:
            return factor
        parity = 1 - 2 * shift.remainder(2)
        return parity if factor is None else factor * parity


def _sech2(z: Tensor, omega: float) -> Tensor:
    return 1 - torch.tanh(z).square()


def _silu_derivative(z: Tensor, omega: float) -> Tensor:
    sigmoid = torch.sigmoid(z)
    return sigmoid * (1 + z * (1 - sigmoid))


def _gelu_derivative(z: Tensor, omega: float) -> Tensor:
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    return cdf + z * torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)


LEAKY_SLOPE = 0.01
"""Slope of ``leaky_relu`` below zero, PyTorch's default."""

_ROWS = (
    Activation(
        "sine",
        lambda z, omega: torch.sin(omega * z),
        lambda z, omega: omega * torch.cos(omega * z),
        scale="sign",
        parity="odd",
        periodic=True,
        kernel=1,
        operator="sin",
    ),
    Activation(
        "cosine",
        lambda z, omega: torch.cos(omega * z),
        lambda z, omega: -omega * torch.sin(omega * z),
        scale="sign",
        parity="even",
        periodic=True,
        kernel=2,
        operator="cos",
    ),
    Activation(
        "relu",
        lambda z, omega: torch.relu(z),
        lambda z, omega: (z > 0).to(z.dtype),
        scale="positive",
        kernel=3,
        operator="relu",
    ),
    Activation(
        "leaky_relu",
        lambda z, omega: F.leaky_relu(z, LEAKY_SLOPE),
        lambda z, omega: torch.where(z > 0, torch.ones_like(z), LEAKY_SLOPE),
        scale="positive",
        kernel=4,
        operator="leaky_relu",
    ),
    Activation(
        "tanh",
        lambda z, omega: torch.tanh(z),
        _sech2,
        scale="sign",
        parity="odd",
        kernel=5,
        operator="tanh",
    ),
    Activation(
        "gaussian",
        lambda z, omega: torch.exp(-z.square()),
        lambda z, omega: -2 * z * torch.exp(-z.square()),
        scale="sign",
        parity="even",
        kernel=6,
    ),
    Activation("gelu", lambda z, omega: F.gelu(z), _gelu_derivative, operator="gelu"),
    Activation("silu", lambda z, omega: F.silu(z), _silu_derivative, kernel=8, operator="silu"),
    Activation(
        "sigmoid",
        lambda z, omega: torch.sigmoid(z),
        lambda z, omega: torch.sigmoid(z) * (1 - torch.sigmoid(z)),
        kernel=7,
        operator="sigmoid",
    ),
)
ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}
KERNELS: tuple[str, ...] = ("none", *(row.name for row in sorted(_ROWS, key=lambda r: r.kernel or 0) if row.kernel))
"""Names of the activations that compiled kernels have, in the order of their numbers; number 0 is none at all."""


def names_where(**fields: Any) -> str:
    """Return the names of the activations whose fields have these values, as words for a message.

    Example:
        >>> names_where(scale="positive")
        'relu, leaky_relu'
    """
    return ", ".join(row.name for row in _ROWS if all(getattr(row, key) == value for key, value in fields.items()))


def _unknown(z: Tensor, omega: float) -> Tensor:
    raise ValueError("activation 'other' has no formula: expected a chain of linear layers, got a traced network")


OTHER = Activation("other", _unknown, _unknown)
"""The row of an axis of which only permutations are proved: residual sums, norms, other activations."""
LINEAR = Activation("linear", lambda z, omega: z, lambda z, omega: torch.ones_like(z), linear=True)
"""The row of an axis between two linear maps with nothing in between, such as the head dimension of attention."""


def activation(name: str) -> Activation:
    """Look an activation up by name.

    Raises:
        ValueError: for a name that is not in the table.

    Example:
        >>> activation("relu").scale
        'positive'
    """
    try:
        return {OTHER.name: OTHER, LINEAR.name: LINEAR}.get(name) or ACTIVATIONS[name]
    except (KeyError, TypeError):
        raise ValueError(f"unknown activation: expected one of {sorted(ACTIVATIONS)}, got {name!r}") from None
