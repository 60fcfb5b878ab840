"""Compile a spec, a group and costs into a matching problem: for each hidden axis, its symmetry and its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from weightspace._activation import names_where
from weightspace._checks import number
from weightspace._spec import Axis, NetSpec, Param
from weightspace._symmetry import GROUPS, Group, Symmetry, check_group
from weightspace._weights import Weights
from weightspace.align.solver._heads import HeadProblem, head_problems

Costs = Mapping[str, float] | Literal["period"]
"""Costs by the name of a parameter or of a produced axis; ``"period"`` counts phases in periods, see :func:`match`."""
CostRoots = tuple[tuple[str, float], ...]
"""The square roots of the costs other than one, by parameter."""

SCALE_LIMIT = 2.0**16
"""The largest positive scale that is searched: a neuron without incoming weights would go to infinity."""
NEGLIGIBLE = 1e-100
"""The squared norm below which a neuron counts as having no weights on that side."""
_LARGEST_COST = 1e24
"""A cost whose root times a weight, squared, is still a number in float32."""


class NeuronGroup(IntEnum):
    """The elements that one neuron of an axis may carry besides its place; *odd* activations pass a sign on."""

    TRIVIAL = 0
    ODD_SIGN = 1
    EVEN_SIGN = 2
    ODD_PHASE = 3  # a sign and a phase
    EVEN_PHASE = 4
    SCALE = 5


class Role(IntEnum):
    """The relation of a parameter to an axis: it produces the axis, is added to it, or reads it."""

    INCOMING = 0
    BIAS = 1
    OUTGOING = 2


@dataclass(frozen=True)
class AxisProblem:
    """One hidden axis of a matching problem.

    Args:
        name: of the axis.
        size: number of neurons.
        group: the elements that one neuron may carry.
        phase_step: the amount that one step of phase adds to the bias, weighted by the root of its cost; 0 without
            phases.
        params: the parameters that name the axis, each with its role, ordered by role.
        neighbours: numbers of the axes whose similarities change when this one moves.
    """

    name: str
    size: int
    group: NeuronGroup
    phase_step: float
    params: tuple[tuple[Param, Role], ...]
    neighbours: tuple[int, ...]

    @property
    def searchable(self) -> bool:
        """Return whether there is more than one element to choose from."""
        return self.size > 1 or self.group != NeuronGroup.TRIVIAL


class Tables(NamedTuple):
    """A matching problem as arrays, for compiled code.

    Fields: ``axes``, records of :func:`axis_record`; ``params``, records of ``PARAM_RECORD``; ``neighbours``, bool
    ``[axis, axis]``; ``searchable``, bool ``[axis]``.
    """

    axes: np.ndarray
    params: np.ndarray
    neighbours: np.ndarray
    searchable: np.ndarray


PARAM_RECORD = np.dtype([(name, np.int64) for name in ("offset", "rows", "columns", "rest", "role")])
"""A parameter of shape ``[rows, columns, rest]`` that begins at ``offset`` of the flat vector."""


def axis_record(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the record of one axis, whose floats have the precision of the weights.

    Integers: ``size``, ``group``; ``first_param`` and ``last_param``, the rows of its parameters; ``place``, its first
    column in the arrays of elements. The features of a neuron are its incoming weights, its biases from ``bias_start``
    on, and its outgoing weights from ``outgoing_start`` to ``features``. Floats: ``phase_step``, ``per_period`` (the
    inverse of two steps) and ``half`` (0.5).
    """
    integers = ("size", "group", "first_param", "last_param", "place", "bias_start", "outgoing_start", "features")
    floats = ("phase_step", "per_period", "half")
    return np.dtype([*((name, np.int64) for name in integers), *((name, dtype) for name in floats)], align=True)


@dataclass(frozen=True)
class MatchingProblem:
    """A spec, a group and costs, in the form that the descent works on.

    Args:
        spec: the networks.
        axes: the hidden axes whose neurons move one by one, in the spec's order.
        roots: see :data:`CostRoots`.
        heads: the axes whose neurons do not move one by one.
    """

    spec: NetSpec
    axes: tuple[AxisProblem, ...]
    roots: CostRoots
    heads: tuple[HeadProblem, ...] = ()

    def weighted(self, flat: Tensor) -> Tensor:
        """Multiply parameters by the roots of their costs, so that plain squared distances are the weighted ones."""
        factor = self.factor(flat.dtype, flat.device)
        return flat if factor is None else flat * factor

    def factor(self, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """Return the roots of the costs of all parameters, ``[param]``; ``None`` where all are one."""
        if not self.roots:
            return None
        factor = torch.ones(self.spec.num_params, dtype=dtype, device=device)
        for name, root in self.roots:
            factor[self.spec.slices[name]] = root
        return factor

    @cached_property
    def _tables(self) -> dict[np.dtype[Any], Tables]:
        return {}

    def tables(self, dtype: np.dtype[Any]) -> Tables:
        """Return the problem as arrays with floats of ``dtype``, made once, as they would slow small batches down."""
        if dtype not in self._tables:
            self._tables[dtype] = self._make_tables(dtype)
        return self._tables[dtype]

    def _make_tables(self, dtype: np.dtype[Any]) -> Tables:
        axes: list[tuple[float, ...]] = []
        params: list[tuple[int, ...]] = []
        starts, place = self.spec.slices, 0
        for axis in self.axes:
            first, features = len(params), dict.fromkeys(Role, 0)
            for param, role in axis.params:
                rows, columns, *rest = *self.spec.shape(param.name), 1
                params.append((starts[param.name].start, rows, columns, math.prod(rest), role))
                features[role] += (rows if role == Role.OUTGOING else columns) * math.prod(rest)
            bias_start = features[Role.INCOMING]
            outgoing_start = bias_start + features[Role.BIAS]
            whole = outgoing_start + features[Role.OUTGOING]
            numbers = (axis.size, axis.group, first, len(params), place, bias_start, outgoing_start, whole)
            axes.append((*numbers, axis.phase_step, 0.5 / axis.phase_step if axis.phase_step else 0.0, 0.5))
            place += axis.size
        near = [[j in axis.neighbours for j in range(len(self.axes))] for axis in self.axes]
        return Tables(
            np.array(axes, axis_record(dtype)),
            np.array(params, PARAM_RECORD),
            np.array(near, np.bool_).reshape(len(axes), len(axes)),
            np.array([axis.searchable for axis in self.axes], np.bool_),
        )


def as_symmetry(problem: MatchingProblem, b: Weights, *parts: Sequence[Tensor]) -> Symmetry:
    """Join permutations, scales and phases of all axes into one element, without the parts that the group lacks."""
    names = [axis.name for axis in problem.axes]
    scaled = [axis.name for axis in problem.axes if axis.group != NeuronGroup.TRIVIAL]
    phased = [axis.name for axis in problem.axes if axis.phase_step]
    perm, scale, shift = ({n: p.contiguous() for n, p in zip(names, part, strict=True)} for part in parts)
    return Symmetry(
        problem.spec,
        len(b),
        perm,
        {name: scale[name].to(b.dtype) for name in scaled},
        {name: shift[name].to(b.dtype) for name in phased},
        check=False,
    )


@lru_cache(maxsize=256)
def matching_problem(spec: NetSpec, group: Group, roots: CostRoots = ()) -> MatchingProblem:
    """Return the matching problem of a spec, a group other than ``"none"`` and the roots of costs."""
    out = []
    heads = head_problems(spec, group)
    apart = {axis.name for problem in heads for axis in problem.axes}
    alone = [axis for axis in spec.hidden if axis.name not in apart]
    for index, axis in enumerate(alone):
        roles = [(param, _role(param, axis)) for param in spec.params if axis.name in param.axes]
        bias = spec.bias_of(axis.name)
        neurons = neuron_group(axis, group, phases=bias is not None)
        step = 0.0
        if neurons in (NeuronGroup.ODD_PHASE, NeuronGroup.EVEN_PHASE):
            step = axis.phase_step * dict(roots).get(str(bias), 1.0)
        touched = {name for param, _ in roles for name in param.axes} - {axis.name}
        near = tuple(number for number, other in enumerate(alone) if number != index and other.name in touched)
        params = tuple(sorted(roles, key=lambda pair: pair[1]))
        out.append(AxisProblem(axis.name, axis.size, neurons, step, params, near))
    return MatchingProblem(spec, tuple(out), roots, heads)


def _role(param: Param, axis: Axis) -> Role:
    if param.produces != axis.name:
        return Role.OUTGOING
    return Role.INCOMING if param.kind == "weight" else Role.BIAS


def neuron_group(axis: Axis, group: Group, *, phases: bool) -> NeuronGroup:
    """Return what one neuron of an axis may do under a group; ``phases`` says whether one bias can carry them."""
    row, level = axis.symmetry, GROUPS.index(group)
    if row.scale == "positive" and level >= GROUPS.index("scaled"):
        return NeuronGroup.SCALE
    if row.scale != "sign" or level < GROUPS.index("signed"):
        return NeuronGroup.TRIVIAL
    odd = row.parity != "even"
    if group == "full" and row.periodic and phases:
        return NeuronGroup.ODD_PHASE if odd else NeuronGroup.EVEN_PHASE
    return NeuronGroup.ODD_SIGN if odd else NeuronGroup.EVEN_SIGN


def check_group_of(spec: NetSpec, group: Any, allowed: tuple[Group, ...] = GROUPS, *, blocks: bool = False) -> None:
    """Raise ``ValueError`` for an unknown group, or one that the spec does not have or the aligner does not search.

    Args:
        spec: the networks.
        group: the group.
        allowed: the groups to choose from.
        blocks: whether the aligner moves the heads of attention as wholes.
    """
    check_group(group, allowed)
    if spec.blocked and not blocks and group != "none":
        raise ValueError(
            f"expected axes whose neurons move one by one, got blocks (heads) on {[a.name for a in spec.blocked]}; "
            "use ws.align.match"
        )
    if group == "signed" and any(axis.symmetry.scale != "sign" for axis in spec.hidden):
        raise ValueError(
            f"group='signed': expected activations that commute with signs ({names_where(scale='sign')}) on every "
            f"hidden axis, got {spec}; use group='permutation', or 'full' for whatever each activation allows"
        )


def cost_roots(spec: NetSpec, costs: Costs | None) -> CostRoots:
    """Return the square roots of the costs that are not one, by parameter.

    Raises:
        TypeError: for something other than a mapping of numbers, or ``"period"``.
        ValueError: for a name that is neither a parameter nor a produced axis, or a cost that is not positive or that
            float32 cannot hold.
    """
    if costs is None:
        return ()
    if isinstance(costs, str):
        if costs != "period":
            raise ValueError(f"costs: expected 'period' or a mapping of names to numbers, got {costs!r}")
        costs = period_costs(spec)
    if not isinstance(costs, Mapping):
        raise TypeError(f"costs: expected a mapping of names to numbers, or 'period', got {type(costs).__name__}")
    produced = {p.produces for p in spec.params}
    names = {p.name for p in spec.params}
    found = {}
    for key, value in costs.items():
        if key not in names and key not in produced:
            raise ValueError(f"costs: expected parameters {sorted(names)} or axes {sorted(produced)}, got {key!r}")
        cost = number(f"costs[{key!r}]", value, "a positive cost", above=0)
        if not 1 / _LARGEST_COST <= cost <= _LARGEST_COST:
            raise ValueError(
                f"costs[{key!r}]: expected a cost from {1 / _LARGEST_COST:g} to {_LARGEST_COST:g}, got {cost:g}; only "
                "ratios matter: multiply all costs by one number"
            )
        found[key] = math.sqrt(cost)
    roots = [(p.name, found.get(p.name, found.get(p.produces, 1.0))) for p in spec.params]
    return tuple((name, root) for name, root in roots if root != 1.0)


def period_costs(spec: NetSpec) -> dict[str, float]:
    r"""Return costs that count each bias of a periodic axis in units of its period.

    .. math:: c_b = (\omega / 2 \pi)^2

    Biases half a period apart are then at a squared distance of 1/4, whatever the frequency.

    Example:
        >>> import weightspace as ws
        >>> period_costs(ws.siren(2, 8, 1, omega=2 * torch.pi))
        {'0.bias': 1.0}
    """
    steps = {axis.name: axis.phase_step for axis in spec.hidden}
    return {p.name: 0.25 / steps[p.produces] ** 2 for p in spec.params if p.kind == "bias" and steps.get(p.produces)}
