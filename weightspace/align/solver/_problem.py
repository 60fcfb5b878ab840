"""What a spec and a group say about each hidden axis: what its neurons may do, and which parameters see them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import number
from weightspace._spec import Axis, NetSpec, Param, check_spec

Group = Literal["permutation", "signed", "full"]
GROUPS: tuple[str, ...] = ("permutation", "signed", "full")

PLAIN, ODD, EVEN, ODD_PHASE, EVEN_PHASE, SCALED = range(6)
"""What one neuron may do: nothing; a sign that is passed on, or swallowed; that and a phase; a positive scale."""
INWARD, BIAS, OUTWARD = range(3)
"""What a parameter is to an axis: produces it, is added to it, or reads it."""
_DEAREST = 1e24
"""The largest cost: in float32 its root times a weight, squared, is still a number."""


@dataclass(frozen=True)
class AxisPlan:
    """One hidden axis.

    Args:
        axis: of the spec.
        kind: what its neurons may do.
        unit: what one step of phase adds to the bias, in the units of the cost.
        params: the parameters that name it and what they are to it: incoming, then biases, then outgoing.
        neighbours: numbers of the axes whose similarities change when this one moves.
    """

    axis: Axis
    kind: int
    unit: float
    params: tuple[tuple[Param, int], ...]
    neighbours: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All hidden axes of a spec, for one group and one set of costs."""

    spec: NetSpec
    axes: tuple[AxisPlan, ...]
    roots: tuple[tuple[str, float], ...]

    def scale(self, flat: Tensor) -> Tensor:
        """Parameters in units of their cost: the squared distance between two results is the weighted one."""
        if not self.roots:
            return flat
        factor = torch.ones(self.spec.num_params, dtype=flat.dtype, device=flat.device)
        for name, root in self.roots:
            factor[self.spec.slices[name]] = root
        return flat * factor

    @property
    def open(self) -> list[bool]:
        """Which axes have anything to search."""
        return [plan.axis.size > 1 or plan.kind != PLAIN for plan in self.axes]

    def tables(self, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What the compiled kernel reads: see :func:`weightspace.align.solver._compiled.descend`."""
        axes: list[tuple[int, ...]] = []
        params: list[tuple[int, ...]] = []
        starts, slot = self.spec.slices, 0
        for plan in self.axes:
            first = len(params)
            for param, role in plan.params:
                rows, columns, *rest = *self.spec.shape(param.name), 1
                params.append((starts[param.name].start, rows, columns, math.prod(rest), role))
            counts = [sum(_features(p) for p in params[first:] if p[4] == role) for role in (INWARD, BIAS, OUTWARD)]
            axes.append((plan.axis.size, plan.kind, first, len(params), slot, *counts))
            slot += plan.axis.size
        near = [[j in plan.neighbours for j in range(len(self.axes))] for plan in self.axes]
        units = [(plan.unit, 0.5 / plan.unit if plan.unit else 0.0, 0.5) for plan in self.axes]
        return (
            np.array(axes, np.int64).reshape(-1, 8),
            np.array(params, np.int64).reshape(-1, 5),
            np.array(near, np.bool_).reshape(len(axes), len(axes)),
            np.array(units, dtype).reshape(-1, 3),
        )


def _features(row: tuple[int, ...]) -> int:
    return (row[1] if row[4] == OUTWARD else row[2]) * row[3]


@lru_cache(maxsize=256)
def plan_of(spec: NetSpec, group: Group, roots: tuple[tuple[str, float], ...] = ()) -> Plan:
    """The plan of a spec; ``roots`` are the square roots of the costs that are not one."""
    out = []
    for index, axis in enumerate(spec.hidden):
        roles = [(p, _role(p, axis)) for p in spec.params if axis.name in p.axes]
        biases = [p for p, role in roles if p.kind == "bias"]
        kind = _kind(axis, group, len(biases) == 1)
        unit = 0.0
        if kind in (ODD_PHASE, EVEN_PHASE):
            unit = axis.phase_step * dict(roots).get(biases[0].name, 1.0)
        near = [k for k, other in enumerate(spec.hidden) if k != index and any(other.name in p.axes for p, _ in roles)]
        out.append(AxisPlan(axis, kind, unit, tuple(sorted(roles, key=lambda r: r[1])), tuple(near)))
    return Plan(spec, tuple(out), roots)


def _role(param: Param, axis: Axis) -> int:
    if param.axes[0] != axis.name:
        return OUTWARD
    return INWARD if param.kind == "weight" else BIAS


def _kind(axis: Axis, group: str, one_bias: bool) -> int:
    row = axis.symmetry
    if group == "permutation" or row.scale == "none":
        return PLAIN
    if row.scale == "positive":
        return SCALED
    odd = row.parity != "even"
    if group == "full" and row.periodic and one_bias:
        return ODD_PHASE if odd else EVEN_PHASE
    return ODD if odd else EVEN


def check_group(spec: NetSpec, group: Any) -> None:
    """Refuse a group that is unknown, or that an activation does not allow."""
    if group not in GROUPS:
        raise ValueError(f"unknown group: expected 'permutation', 'signed' or 'full', got {group!r}")
    if group == "signed" and any(axis.symmetry.scale != "sign" for axis in spec.hidden):
        raise ValueError(
            "group='signed': expected activations that commute with signs (sine, tanh, gaussian) on every hidden axis, "
            f"got {spec}; use group='permutation', or 'full' for whatever each activation allows"
        )


def cost_roots(spec: NetSpec, costs: Mapping[str, float] | None) -> tuple[tuple[str, float], ...]:
    """Costs by name of a parameter or of a produced axis, as the square roots of those that are not one.

    Raises:
        TypeError: for something other than a mapping of numbers.
        ValueError: for a name that is neither, or a cost that is not positive, or out of any precision's reach.
    """
    if costs is None:
        return ()
    if not isinstance(costs, Mapping):
        raise TypeError(f"costs: expected a mapping of names to numbers, got {type(costs).__name__}; see period_costs")
    produced = {p.produces for p in spec.params}
    names = {p.name for p in spec.params}
    found = {}
    for key, value in costs.items():
        if key not in names and key not in produced:
            raise ValueError(f"costs: expected parameters {sorted(names)} or axes {sorted(produced)}, got {key!r}")
        cost = number(f"costs[{key!r}]", value, "a positive cost", above=0)
        if not 1 / _DEAREST <= cost <= _DEAREST:
            raise ValueError(
                f"costs[{key!r}]: expected a cost from {1 / _DEAREST:g} to {_DEAREST:g}, got {cost:g}; only ratios "
                "matter: multiply all costs by one number"
            )
        found[key] = math.sqrt(cost)
    roots = [(p.name, found.get(p.name, found.get(p.produces, 1.0))) for p in spec.params]
    return tuple((name, root) for name, root in roots if root != 1.0)


def period_costs(spec: NetSpec) -> dict[str, float]:
    r"""Costs that count each bias of a periodic axis in units of its period.

    .. math:: c_b = (\omega / 2 \pi)^2

    so that biases half a period apart are at a squared distance of 1/4, whatever the frequency. Weights keep a cost of
    one. For ``costs=`` of :func:`match` and :func:`distance`.

    Args:
        spec: the networks.

    Returns:
        A cost for the bias of each sine or cosine axis; nothing for other networks.

    Example:
        >>> import weightspace as ws
        >>> ws.align.period_costs(ws.siren(2, 8, 1, omega=2 * torch.pi))
        {'0.bias': 1.0}
    """
    check_spec(spec)
    units = {a.name: a.phase_step for a in spec.hidden}
    return {p.name: 0.25 / units[p.produces] ** 2 for p in spec.params if p.kind == "bias" and units.get(p.produces)}
