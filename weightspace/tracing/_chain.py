"""Exact activations, read off the graph: monomials of a linear map's output, and the rows of the activation table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from weightspace._activation import ACTIVATIONS, LEAKY_SLOPE
from weightspace.tracing._axes import ACTIVE, Affine, TracedTensor, hidden

_NAMED = {f"aten.{row.operator}": row.name for row in ACTIVATIONS.values() if row.operator}
"""The activations of the table by their ATen operator. A Gaussian has none: it is the exponential of a square."""
_NAMED["aten.special_expit"] = "sigmoid"
_ALIASES = {"aten.multiply": "aten.mul", "aten.divide": "aten.div", "aten.subtract": "aten.sub"}
_ALIASES["aten.true_divide"] = "aten.div"


def number(value: Any) -> float | None:
    """Return the number that a constant is, if all its entries are one; ``None`` for everything else."""
    if isinstance(value, Tensor) and value.numel() and not value.is_complex():
        first = value.reshape(-1)[0]
        return float(first) if bool((value == first).all()) else None
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real else None


def activate(op: str, value: TracedTensor, settings: list[Any]) -> TracedTensor | None:
    """Return the value behind an activation of the table, with its whole group where it acts on a linear map's output.

    ``None`` stands for anything that is no activation of the table.
    """
    z = value.state if isinstance(value.state, Affine) else None
    plain = Affine() if z is None else z
    name, omega = _NAMED.get(op), 1.0
    if name in ("sine", "cosine"):
        omega = abs(plain.factor) if name == "cosine" else plain.factor
        fits = plain.power == 1 and omega > 0 and not plain.shift
    elif op == "aten.exp":
        name, fits = "gaussian", (plain.factor, plain.power, plain.shift) == (-1.0, 2.0, 0.0)
    else:
        fits = plain.exact and settings in ([], [LEAKY_SLOPE] if name == "leaky_relu" else ["none"])
    if name is None or not fits:
        return None
    for axis in value.axes:
        axis.activations.append((name, omega))
        axis.bound |= z is None
    return replace(value, state=None if z is None else ACTIVE, param=None)


def monomial(op: str, a: Any, b: Any = None) -> TracedTensor | None:
    """Return ``factor * z ** power + shift`` of a linear map's output ``z``, where an operator makes it of another."""
    op = _ALIASES.get(op, op)
    if op == "aten.neg":
        return monomial("aten.mul", a, -1.0)
    if op == "aten.square":
        return monomial("aten.pow", a, 2)
    if not isinstance(a, TracedTensor):
        if op not in ("aten.mul", "aten.add"):
            return None
        a, b = b, a
    z = a.state
    if not isinstance(z, Affine):
        return None
    if isinstance(b, TracedTensor):
        y = b.state
        if op != "aten.mul" or not isinstance(y, Affine) or y.origin is not z.origin or z.shift or y.shift:
            return None
        return replace(a, state=replace(z, factor=z.factor * y.factor, power=z.power + y.power))
    c = number(b)
    if c is None or (isinstance(b, Tensor) and b.ndim > len(a.shape)):
        return None
    if op in ("aten.add", "aten.sub") and z.factor == z.power == 1:
        return replace(a, state=replace(z, shift=z.shift + (c if op == "aten.add" else -c)))
    if op in ("aten.mul", "aten.div") and c and not z.shift:
        return replace(a, state=replace(z, factor=z.factor * c if op == "aten.mul" else z.factor / c))
    if op == "aten.pow" and c == 2 and not z.shift:
        return replace(a, state=replace(z, factor=z.factor**2, power=2 * z.power))
    return None


def read(value: TracedTensor, dim: int) -> None:
    """Note that a linear map reads an axis: of what is neither a linear map's nor an activation's output permutations
    alone are proved, as of all other axes of the value, which the map passes on.
    """
    for i, layout in enumerate(value.dims):
        for axis in hidden(layout):
            if i == dim and isinstance(value.state, Affine) and value.state.exact:
                axis.plain = True
            else:
                axis.bound |= i != dim or value.state != ACTIVE or not axis.activations
