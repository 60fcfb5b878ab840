"""Shared by all aligners: the sign and phase options of a neuron, and projection of scores onto a group element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from weightspace._spec import Axis, NetSpec
from weightspace._symmetry import Group, Symmetry
from weightspace._weights import Weights
from weightspace.align.solver._assignment import assign
from weightspace.align.solver._problem import NeuronGroup, neuron_group


@dataclass(frozen=True)
class NeuronElements:
    """The elements that one neuron of an axis may carry besides its place: signs and parities of its phase.

    Args:
        sign: ``s`` of each element; the first element is the identity.
        parity: the phase ``k`` of each element modulo 2.
        sigma: the factor of each element on the output of the activation.
        phase_step: shift of one step of phase, 0 where phases are not searched.
        positive: whether positive scales are searched, a continuum that has no place in this list.
    """

    sign: tuple[float, ...]
    parity: tuple[int, ...]
    sigma: tuple[float, ...]
    phase_step: float
    positive: bool

    def __len__(self) -> int:
        return len(self.sign)

    def tensor(self, field: Literal["sign", "parity", "sigma"], like: Tensor) -> Tensor:
        """Return one of the rows as a tensor of the dtype and on the device of ``like``."""
        return torch.tensor(getattr(self, field), dtype=like.dtype, device=like.device)


def neuron_elements(spec: NetSpec, axis: Axis, group: Group) -> NeuronElements:
    """Return the elements that the group and the activation leave to each neuron of an axis.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 1)
        >>> neuron_elements(spec, spec.axis("h1"), "full").sigma
        (1.0, -1.0, -1.0, 1.0)
    """
    found = neuron_group(axis, group, phases=spec.bias_of(axis.name) is not None)
    signed = found not in (NeuronGroup.TRIVIAL, NeuronGroup.SCALE)
    phased = found in (NeuronGroup.ODD_PHASE, NeuronGroup.EVEN_PHASE)
    pairs = [(s, p) for p in ((0, 1) if phased else (0,)) for s in ((1.0, -1.0) if signed else (1.0,))]
    s, p = (torch.tensor(part, dtype=torch.float64) for part in zip(*pairs, strict=True))
    sigma = axis.symmetry.sigma(s if signed else None, p if phased else None)
    return NeuronElements(
        sign=tuple(s.tolist()),
        parity=tuple(parity for _, parity in pairs),
        sigma=(1.0,) * len(pairs) if sigma is None else tuple(sigma.tolist()),
        phase_step=axis.phase_step if phased else 0.0,
        positive=found == NeuronGroup.SCALE,
    )


def nearest_steps(offset: Tensor, phase_step: float, parity: Tensor) -> Tensor:
    """Return the whole number ``k`` of the given parity for which ``k * phase_step`` is nearest to ``offset``."""
    return parity + 2 * ((offset / phase_step - parity) / 2).round()


def project(
    a: Weights, b: Weights, group: Group, scores: Mapping[str, Tensor], scales: Mapping[str, Tensor]
) -> Symmetry:
    """Turn scores into a group element: one assignment an axis, and the best element of each assigned pair of neurons.

    Args:
        a: the targets.
        b: the networks to move.
        group: the group to search.
        scores: ``{axis: [pair, size, size, element]}``, large where neuron ``j`` of ``b`` belongs to ``i`` of ``a``.
        scales: ``{axis: [pair, size]}`` positive scales of the new neurons.
    """
    perm, scale, shift = {}, dict(scales), {}
    for axis in b.spec.hidden:
        elements = neuron_elements(b.spec, axis, group)
        best, element = scores[axis.name].max(-1)
        perm[axis.name] = assign(best)
        picked = element.gather(2, perm[axis.name][:, :, None])[:, :, 0]
        sign = elements.tensor("sign", b.flat)[picked]
        if -1.0 in elements.sign:
            scale[axis.name] = sign
        if elements.phase_step:
            bias = str(b.spec.bias_of(axis.name))
            offset = a.view(bias) - sign * b.view(bias).gather(1, perm[axis.name])
            shift[axis.name] = nearest_steps(offset, elements.phase_step, elements.tensor("parity", b.flat)[picked])
    return Symmetry(b.spec, len(b), perm, scale, shift, check=False)
