"""Soft group elements: doubly stochastic plans over neurons and their elements, and the distance that they leave."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from weightspace._spec import Param
from weightspace._symmetry import Group
from weightspace._weights import Weights
from weightspace.align._elements import nearest_steps, neuron_elements

_TINY = 1e-30
_FLOOR = -50.0  # logarithms are raised to this, because processors are slow at the subnormal numbers below it


def doubly_stochastic(logits: Tensor, temperature: float, iterations: int) -> Tensor:
    r"""Compute Sinkhorn's transport plan over neurons and their elements.

    .. math:: P_{ijg} = u_i \, e^{X_{ijg} / \tau} \, v_j, \qquad \sum_{jg} P_{ijg} = \sum_{ig} P_{ijg} = 1

    Args:
        logits: ``[pair, size, size, element]``.
        temperature: ``tau``.
        iterations: over columns and rows in turn; the rest is rounded off, see :func:`rescaled`.

    Returns:
        The plan, of the shape of ``logits``, differentiable.

    Reference:
        Mena et al., *Learning Latent Permutations with Gumbel-Sinkhorn Networks*, 2018, equation 3.
    """
    scaled = logits / temperature
    return rescaled((scaled - scaled.detach().amax((2, 3), keepdim=True)).clamp_min(_FLOOR).exp(), iterations)


def rescaled(kernel: Tensor, iterations: int) -> Tensor:
    """Scale the rows and columns of a non-negative kernel ``[pair, size, size, element]`` to a plan.

    After the iterations, rows and columns that still sum to more than one are cut, and what is missing is spread
    evenly, so that both sum to one exactly. Otherwise a descent would gain by columns whose sum is less than one.

    Reference:
        Altschuler et al., *Near-linear time approximation algorithms for optimal transport via Sinkhorn iteration*,
        2017, algorithm 2.
    """
    kernel = kernel / kernel.detach().amax((1, 3), keepdim=True).clamp_min(_TINY)
    total = kernel.sum(-1)
    right = torch.ones_like(total[:, 0, :, None])
    left = 1 / (total @ right).clamp_min(_TINY)
    for _ in range(iterations):
        right = 1 / (total.mT @ left).clamp_min(_TINY)
        left = 1 / (total @ right).clamp_min(_TINY)
    left = left / (left * (total @ right)).clamp_min(1)
    right = right / (right * (total.mT @ left)).clamp_min(1)
    rows, columns = 1 - left * (total @ right), 1 - right * (total.mT @ left)
    missing = rows @ columns.mT / rows.sum(1, keepdim=True).clamp_min(torch.finfo(kernel.dtype).eps)
    return kernel * (left * right.mT).unsqueeze(-1) + (missing / kernel.shape[-1]).unsqueeze(-1)


class Relaxation:
    r"""An expected squared distance of paired networks, as a function of soft group elements.

    Where every hidden axis draws its element from its plan, independent of the other axes, the expected distance is

    .. math:: E \| a - g b \|^2 = \| a \|^2 + E \| g b \|^2 - 2 \sum_p \langle a_p, Q \, b_p \, R^T \rangle,
        \quad Q = \sum_g s_g P_g, \quad R = \sum_g \sigma_g^{-1} P_g

    which is linear in each plan; where plans are hard it is the distance itself. A phase enters in closed form, by the
    steps that bring the biases closest for each pair of neurons, sign and parity.

    Args:
        a: the targets.
        b: the networks to move, as many.
        group: the group to search.
    """

    def __init__(self, a: Weights, b: Weights, group: Group) -> None:
        self.a, self.b, self.spec = a, b, b.spec
        self.elements = {axis.name: neuron_elements(b.spec, axis, group) for axis in b.spec.hidden}
        self.shift: dict[str, Tensor] = {}
        self.cost: dict[str, Tensor] = {}
        for axis in b.spec.hidden:
            elements = self.elements[axis.name]
            if elements.phase_step:
                name = str(b.spec.bias_of(axis.name))
                sign, parity = elements.tensor("sign", b.flat), elements.tensor("parity", b.flat)
                offset = a.view(name)[:, :, None, None] - sign * b.view(name)[:, None, :, None]
                self.shift[name] = nearest_steps(offset, elements.phase_step, parity) * elements.phase_step
                self.cost[name] = (offset - self.shift[name]).square()
        self.size = a.flat.square().sum(1) + b.flat.square().sum(1)

    def distance(self, plans: Mapping[str, Tensor], scales: Mapping[str, Tensor] | None = None) -> Tensor:
        """Compute the expected squared distance of every pair.

        Args:
            plans: ``{axis: [pair, size, size, element]}``.
            scales: ``{axis: [pair, size]}`` positive scales of the new neurons.
        """
        scales, total = scales or {}, self.size
        factors = self._factors(plans, scales, 1)
        squares = self._factors(plans, scales, 2) if scales else {}
        for param in self.spec.params:
            target, moved = self.a.view(param.name), self.b.view(param.name)
            if param.name in self.shift:
                total = total + (plans[param.produces] * self.cost[param.name]).flatten(1).sum(1)
                total = total - target.square().sum(1) - moved.square().sum(1)
                continue
            total = total - 2 * (target * _carry(param, moved, factors)).flatten(1).sum(1)
            if any(name in scales for name in (param.produces, param.consumes)):
                total = total + (_carry(param, moved.square(), squares) - moved.square()).flatten(1).sum(1)
        return total

    def move(self, plans: Mapping[str, Tensor], scales: Mapping[str, Tensor] | None = None) -> Weights:
        """Move the networks of ``b`` along soft elements: take every parameter's mean over the plans."""
        factors, parts = self._factors(plans, scales or {}, 1), []
        for param in self.spec.params:
            value = _carry(param, self.b.view(param.name), factors)
            if param.name in self.shift:
                value = value + (plans[param.produces] * self.shift[param.name]).sum((2, 3))
            parts.append(value.flatten(1))
        return self.b.replace(torch.cat(parts, 1))

    def _factors(
        self, plans: Mapping[str, Tensor], scales: Mapping[str, Tensor], power: int
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return for each axis the matrices on its producers and on its consumers, ``[pair, size, size]``."""
        out = {}
        for name, plan in plans.items():
            sign, sigma = (self.elements[name].tensor(field, plan) ** power for field in ("sign", "sigma"))
            made, read = plan @ sign, plan @ sigma.reciprocal()
            if name in scales:
                factor = scales[name][:, :, None] ** power
                made, read = made * factor, read / factor
            out[name] = (made, read)
        return out


def _carry(param: Param, value: Tensor, factors: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Multiply one parameter ``[pair, *axes]`` by the matrices of the axes that it produces and consumes."""
    shape = value.shape
    if param.produces in factors:
        value = (factors[param.produces][0] @ value.reshape(shape[0], shape[1], -1)).reshape(shape)
    if param.consumes is not None and param.consumes in factors:
        turned = value.transpose(1, 2)
        read = factors[param.consumes][1] @ turned.reshape(shape[0], shape[2], -1)
        value = read.reshape(turned.shape).transpose(1, 2)
    return value
