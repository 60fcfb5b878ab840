"""The inner products of neurons that an axis is valued by; for a single pair they are kept from sweep to sweep.

For two wide networks these products are nearly all of the work, and late sweeps move few neurons. When an axis moves,
the products of its neighbours change by the moved neurons alone: what these contributed is taken off before the move,
and what they contribute after it is added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from weightspace._spec import Param
from weightspace._weights import Weights
from weightspace.align.solver._problem import AxisProblem, MatchingProblem, NeuronGroup, Role

BLOCK = 2**22
"""So many numbers of a parameter are copied at a time, 16 MB of float32."""
_WEIGHTS = (Role.INCOMING, Role.OUTGOING)


class Products(NamedTuple):
    """The inner products and norms that the values of an axis are made of, for a batch of pairs.

    Fields: the inner products of incoming and of outgoing weights, ``[pair, neuron of a, neuron of b]``; the biases of
    both networks, ``[pair, neuron, bias]``; the squared norms of incoming and outgoing weights of ``b``, ``[pair,
    neuron]``, for axes with positive scales.
    """

    inner: Tensor
    outer: Tensor
    bias_a: Tensor
    bias_b: Tensor
    norm_in: Tensor
    norm_out: Tensor


def position(role: Role) -> int:
    """Return the place of an axis in ``[pair, *shape]`` of a parameter."""
    return 2 if role == Role.OUTGOING else 1


def features(weights: Weights, axis: AxisProblem, role: Role, rows: Tensor | None = None) -> Tensor:
    """Return the numbers of each neuron in one role, ``[pair, neuron, feature]``."""
    parts = [weights.view(param.name) for param, own in axis.params if own == role]
    parts = [part if rows is None or len(rows) == len(part) else part[rows] for part in parts]
    parts = [part.movedim(position(role), 1).reshape(len(part), axis.size, -1) for part in parts]
    count = len(weights) if rows is None else len(rows)
    return torch.cat(parts, 2) if parts else weights.flat.new_empty(count, axis.size, 0)


def fresh_products(axis: AxisProblem, a: Weights, b: Weights, rows: Tensor) -> Products:
    """Compute the products of some pairs of a batch."""
    left, right = ({role: features(weights, axis, role, rows) for role in Role} for weights in (a, b))
    inner, outer = (left[role] @ right[role].mT for role in _WEIGHTS)
    norms = (right[role].square().sum(2) for role in _WEIGHTS)
    return Products(inner, outer, left[Role.BIAS], right[Role.BIAS], *norms)


class KeptProducts:
    """The products of a single pair, each computed when it is first asked for.

    Args:
        a: the target.
        b: the network that moves.
        problem: the matching problem of their spec.
    """

    def __init__(self, a: Weights, b: Weights, problem: MatchingProblem) -> None:
        self.a, self.b, self.problem = a, b, problem
        self.kept: dict[tuple[int, Role], Tensor] = {}
        numbers = {axis.name: number for number, axis in enumerate(problem.axes)}
        self.users: list[list[tuple[int, Role, Param]]] = []  # for each axis, what else its parameters belong to
        for axis in problem.axes:
            found = [(param, role) for param, role in axis.params if role != Role.BIAS and len(param.axes) > 1]
            others = [(param.axes[0 if role == Role.OUTGOING else 1], param, role) for param, role in found]
            other = {Role.INCOMING: Role.OUTGOING, Role.OUTGOING: Role.INCOMING}
            self.users.append([(numbers[name], other[r], param) for name, param, r in others if name in numbers])

    def of(self, number: int) -> Products:
        """Return the products of one axis."""
        axis = self.problem.axes[number]
        for role in _WEIGHTS:
            if (number, role) not in self.kept:
                zero = self.b.flat.new_zeros(axis.size, axis.size)
                for param in self._params(axis, role):
                    self._add(zero, param, role)
                self.kept[number, role] = zero
        inner, outer = (self.kept[number, role][None] for role in _WEIGHTS)
        bias = (features(weights, axis, Role.BIAS) for weights in (self.a, self.b))
        scaled = axis.group == NeuronGroup.SCALE
        norms = (self._norms(axis, role) if scaled else inner.new_empty(1, axis.size) for role in _WEIGHTS)
        return Products(inner, outer, *bias, *norms)

    def before_move(self, number: int, changed: Tensor) -> None:
        """Take off what the neurons that will move contribute to other axes, or forget what would change too much."""
        for other, role, param in self.users[number]:
            whole = sum(self._length(own) for own in self._params(self.problem.axes[other], role))
            if 2 * len(changed) * self._length(param) >= whole * self.problem.axes[number].size:
                self.kept.pop((other, role), None)
        self._update(number, changed, -1)

    def after_move(self, number: int, changed: Tensor, perm: Tensor, scale: Tensor, sigma: Tensor) -> None:
        """Add what the moved neurons contribute to other axes, and move the products of their own."""
        for role, factor in zip(_WEIGHTS, (scale, 1 / sigma), strict=True):
            self.kept[number, role] = self.kept[number, role].index_select(1, perm).mul_(factor)
        self._update(number, changed, 1)

    def _update(self, number: int, changed: Tensor, sign: int) -> None:
        for other, role, param in self.users[number]:
            if (other, role) in self.kept and len(changed):
                self._add(self.kept[other, role], param, role, changed, sign)

    def _params(self, axis: AxisProblem, role: Role) -> Iterator[Param]:
        return (param for param, own in axis.params if own == role)

    def _length(self, param: Param) -> int:
        return math.prod(self.problem.spec.shape(param.name))

    def _add(self, total: Tensor, param: Param, role: Role, places: Tensor | None = None, sign: int = 1) -> None:
        """Add the products of a parameter's rows, or columns, over all places on the other side or some of them."""
        a, b = (weights.view(param.name)[0] for weights in (self.a, self.b))
        dim = position(role) - 1
        if places is None and (not dim or a.ndim == 2):  # as they lie in memory
            left, right = (x.T if dim else x.flatten(1) for x in (a, b))
            total.addmm_(left, right.T)
            return
        across = a.shape[1 - dim]
        places = torch.arange(across, device=a.device) if places is None else places
        for block in places.split(max(1, BLOCK * across // a.numel())):
            left, right = (x.index_select(1 - dim, block).transpose(0, dim).flatten(1) for x in (a, b))
            total.addmm_(left, right.T, alpha=sign)

    def _norms(self, axis: AxisProblem, role: Role) -> Tensor:
        found = self.b.flat.new_zeros(1, axis.size)
        for param in self._params(axis, role):
            value = self.b.view(param.name)[0]
            found += torch.linalg.vector_norm(value.movedim(position(role) - 1, 0).flatten(1), dim=1).square()
        return found
