"""What ways to align share: checks of a pair, the elements a neuron may carry, the step to a group element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from weightspace._activation import Activation, activation
from weightspace._spec import Axis, NetSpec
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights
from weightspace.align._matching import distance
from weightspace.align.solver._assignment import assign
from weightspace.align.solver._problem import Group, check_group


@dataclass(frozen=True)
class Sheets:
    """The elements that one neuron of an axis may carry besides its place: signs and parities of its phase.

    Args:
        sign: ``s`` of each sheet; the first sheet is the identity.
        parity: the phase ``k`` of each sheet modulo 2.
        sigma: the factor of each sheet on what leaves the activation.
        unit: shift of one step of phase, 0 where phases are not searched.
        positive: whether positive scales are searched (they are no sheets: there is a continuum of them).
    """

    sign: tuple[float, ...]
    parity: tuple[int, ...]
    sigma: tuple[float, ...]
    unit: float
    positive: bool

    def __len__(self) -> int:
        return len(self.sign)

    def tensor(self, what: Literal["sign", "parity", "sigma"], like: Tensor) -> Tensor:
        """One of the rows as a tensor of the dtype and on the device of ``like``."""
        return torch.tensor(getattr(self, what), dtype=like.dtype, device=like.device)


def row_of(axis: Axis) -> Activation:
    """The row of the activation table for a hidden axis."""
    assert axis.activation is not None
    return activation(axis.activation)


def sheets_of(spec: NetSpec, axis: Axis, group: Group) -> Sheets:
    """The sheets that the group and the activation leave to the neurons of an axis."""
    row = row_of(axis)
    signs = [1.0, -1.0] if group != "permutation" and row.scale == "sign" else [1.0]
    biases = [param.name for param in spec.params if param.kind == "bias" and param.produces == axis.name]
    phase = group == "full" and row.periodic and len(biases) == 1
    pairs = [(s, p) for p in ((0, 1) if phase else (0,)) for s in signs]
    s, p = (torch.tensor(part, dtype=torch.float64) for part in zip(*pairs, strict=True))
    sigma = row.sigma(s if len(signs) > 1 else None, p if phase else None)
    return Sheets(
        sign=tuple(s.tolist()),
        parity=tuple(parity for _, parity in pairs),
        sigma=(1.0,) * len(pairs) if sigma is None else tuple(sigma.tolist()),
        unit=axis.phase_step if phase else 0.0,
        positive=group == "full" and row.scale == "positive",
    )


def bias_of(spec: NetSpec, axis: Axis) -> str:
    """The one bias of an axis that carries phases."""
    (name,) = (param.name for param in spec.params if param.kind == "bias" and param.produces == axis.name)
    return name


def nearest(offset: Tensor, unit: float, parity: Tensor) -> Tensor:
    """The whole number ``k`` of the given parity for which ``k * unit`` is nearest to ``offset``."""
    return parity + 2 * ((offset / unit - parity) / 2).round()


def pairs(a: Weights, b: Weights, group: Group) -> tuple[Weights, Weights]:
    """Both sides checked, detached, in float32 at least, ``a`` repeated where it is one network for all of ``b``.

    Raises:
        TypeError: for something other than ``Weights``.
        ValueError: for networks of another spec, number, dtype or device, weights that are not finite, or a group
            that is unknown or not allowed.
    """
    distance(a, b)  # refuses what is no pair
    check_group(b.spec, group)
    for name, weights in (("a", a), ("b", b)):
        if not bool(weights.flat.isfinite().all()):
            bad = (~weights.flat.isfinite()).any(1).nonzero()[:, 0].tolist()
            raise ValueError(
                f"{name}: expected finite weights, got NaN or infinity in networks {bad[:5]}; leave them out"
            )
    dtype = b.dtype if b.dtype in (torch.float32, torch.float64) else torch.float32
    moved = b.flat.detach().to(dtype)
    return a.replace(a.flat.detach().to(dtype).expand_as(moved)), b.replace(moved)


def check_init(init: Symmetry | None, b: Weights) -> None:
    """Raise unless ``init`` is ``None`` or one group element for each network of ``b``."""
    if init is None:
        return
    if not isinstance(init, Symmetry):
        raise TypeError(f"init: expected a Symmetry, got {type(init).__name__}; pass what another alignment returned")
    if init.spec != b.spec or len(init) != len(b):
        raise ValueError(
            f"init: expected {len(b)} elements for {b.spec}, got {len(init)} for {init.spec}"
        )


def neutral(g: Symmetry) -> Symmetry:
    """The identity, naming the axes that ``g`` names."""
    perm = {name: torch.arange(v.shape[1], device=v.device).expand_as(v) for name, v in g.perm.items()}
    scale = {name: torch.ones_like(v) for name, v in g.scale.items()}
    return Symmetry(g.spec, len(g), perm, scale, {n: torch.zeros_like(v) for n, v in g.shift.items()}, check=False)


def chosen(rows: Tensor, g: Symmetry, h: Symmetry) -> Symmetry:
    """``g`` where ``rows`` is true, ``h`` elsewhere; both name the same axes."""
    fields = ("perm", "scale", "shift")
    parts = [{n: torch.where(rows[:, None], v, getattr(h, f)[n]) for n, v in getattr(g, f).items()} for f in fields]
    return Symmetry(g.spec, len(g), *parts, check=False)


def project(
    a: Weights, b: Weights, group: Group, scores: Mapping[str, Tensor], scales: Mapping[str, Tensor]
) -> Symmetry:
    """The group element that scores name: one assignment an axis, the best sheet of each chosen pair of neurons.

    Args:
        a: the targets.
        b: the networks to move.
        group: what may be searched.
        scores: ``{axis: [pair, size, size, sheet]}``, large where neuron ``j`` of ``b`` belongs to ``i`` of ``a``.
        scales: ``{axis: [pair, size]}`` positive scales of the new neurons.
    """
    perm, scale, shift = {}, dict(scales), {}
    for axis in b.spec.hidden:
        sheets = sheets_of(b.spec, axis, group)
        best, sheet = scores[axis.name].max(-1)
        perm[axis.name] = assign(best)
        picked = sheet.gather(2, perm[axis.name][:, :, None])[:, :, 0]
        sign = sheets.tensor("sign", b.flat)[picked]
        if -1.0 in sheets.sign:
            scale[axis.name] = sign
        if sheets.unit:
            name = bias_of(b.spec, axis)
            offset = a.view(name) - sign * b.view(name).gather(1, perm[axis.name])
            shift[axis.name] = nearest(offset, sheets.unit, sheets.tensor("parity", b.flat)[picked])
    return Symmetry(b.spec, len(b), perm, scale, shift, check=False)
