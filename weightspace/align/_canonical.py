"""Canonical forms: one representative for all the weights of a function, by stated rules or by a reference."""

from __future__ import annotations

import torch
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._symmetry import Group, Symmetry
from weightspace._weights import Weights, check_weights
from weightspace.align._matching import cast_to, largest_power_of_two, match
from weightspace.align._pairs import check_networks, check_range, compute_dtype
from weightspace.align._phases import folding_steps
from weightspace.align.solver._heads import HeadProblem, Sides, canonical_matrix, sides
from weightspace.align.solver._problem import (
    AxisProblem,
    Costs,
    NeuronGroup,
    Role,
    check_group_of,
    matching_problem,
)


def canonicalize(weights: Weights, *, group: Group = "full") -> tuple[Weights, Symmetry]:
    r"""Move every network to one representative of its function, by rules that no element of the group can change.

    .. math:: c(g\,w) = c(w)

    up to rounding, wherever no two neurons tie. Axes are taken from the input on; on each axis

    - signs: of the incoming weights from axes already settled (with the bias, where there is no phase), the one of
      largest magnitude is positive;
    - phases: the bias lies within half a step, in ``[-step / 2, step / 2]`` with ``step = pi / omega``;
    - positive scales: those weights and their bias have norm one;
    - order: by the norm of those weights, the smallest first; after a positive scale by the first of them instead;
      heads as wholes;
    - matrices on linear axes: those weights and the ones that read the axis, as far as they lead to settled axes, are
      balanced by a singular value decomposition of their product, :math:`P^T Q = U S V^T` to :math:`S^{1/2} U^T` and
      :math:`S^{1/2} V^T`, the largest first, and the entry of largest magnitude in each row of the first is positive;
      what remains are the signs and permutations of a tie. Where all that reads the axis leads on, the incoming rows
      become orthonormal, triangular on the columns of largest rest. A singular head (its product has a lower rank) has
      no such form: its rows become orthogonal, ordered by their norm, and stay finite.

    Networks that are to be compared or averaged come closer together by :func:`align_to`.

    Args:
        weights: the networks, ``[batch, param]``.
        group: see :func:`match`.

    Returns:
        The moved networks, and the ``Symmetry`` that moved them.

    Raises:
        TypeError: for something other than ``Weights``.
        ValueError: for a group that is unknown or that an activation does not allow, weights that are not finite or too
            large to square, and a spec with an axis that no weight joins to the input, directly or over others.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 5, generator=gen, dtype=torch.float64)
        >>> g = ws.Symmetry.sample(w.spec, batch=5, generator=gen, dtype=torch.float64)
        >>> one, two = (ws.align.canonicalize(v)[0] for v in (w, g.act(w)))
        >>> torch.allclose(one.flat, two.flat)
        True
    """
    check_weights("weights", weights)
    check_networks("weights", weights)
    check_group_of(weights.spec, group, blocks=True)
    check_range("weights", weights)
    element, moved = Symmetry.identity(weights.spec, batch=len(weights)), weights.to(compute_dtype(weights))
    if group == "none":
        return weights, element
    for axis, settled in _settling(weights.spec, group):
        rules = _rules_of_heads if isinstance(axis, HeadProblem) else _rules
        step = rules(moved, axis, settled)  # type: ignore[arg-type]
        element, moved = step @ element, step.act(moved)
    element = element if moved.dtype == weights.dtype else cast_to(element, weights)
    return element.act(weights), element


def align_to(
    weights: Weights, reference: Weights, *, group: Group = "full", costs: Costs | None = None
) -> tuple[Weights, Symmetry]:
    """Move every network as close to one reference as weight matching brings it.

    Args:
        weights: the networks to move, ``[batch, param]``.
        reference: one network, or the mean of aligned ones from :func:`anchor`.
        group: see :func:`match`.
        costs: see :func:`match`.

    Returns:
        The moved networks, and the ``Symmetry`` that moved them.

    Raises:
        TypeError: see :func:`match`.
        ValueError: for a reference of other than one network; see :func:`match`.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 50, generator=gen)
        >>> moved, g = ws.align.align_to(w, w[0])
        >>> bool((ws.align.distance(w[0], moved) <= ws.align.distance(w[0], w)).all())
        True
    """
    check_weights("weights", weights)
    check_weights("reference", reference)
    if len(reference) != 1:
        raise ValueError(f"reference: expected one network, got {len(reference)}; pass one of them, or ws.align.anchor")
    element = match(reference, weights, group=group, costs=costs)
    return element.act(weights), element


def _settling(spec: NetSpec, group: Group) -> list[tuple[AxisProblem | HeadProblem, frozenset[str]]]:
    """Order the hidden axes so that each is joined to settled ones, and return each with the axes settled before it."""
    settled, out = frozenset(a.name for a in spec.axes if not a.hidden), []
    problem = matching_problem(spec, group)
    left: list[AxisProblem | HeadProblem] = [*problem.axes, *problem.heads]
    while left:
        ready = [x for x in left if _is_ready(spec, x, settled)]
        if not ready:
            names = [name for axis in left for name in _names(axis)]
            raise ValueError(
                f"expected weights that join each hidden axis to the input, got none for {names}; use ws.align.align_to"
            )
        out.append((ready[0], settled))
        settled |= _names(ready[0])
        left.remove(ready[0])
    return out


def _names(axis: AxisProblem | HeadProblem) -> frozenset[str]:
    return frozenset(own.name for own in axis.axes) if isinstance(axis, HeadProblem) else frozenset({axis.name})


def _is_ready(spec: NetSpec, problem: AxisProblem | HeadProblem, settled: frozenset[str]) -> bool:
    """Whether a weight joins each axis to settled ones."""
    return all(
        any(_usable(p.axes, name, settled) for p in spec.params if p.kind == "weight" and p.produces == name)
        for name in _names(problem)
    )


def _usable(axes: tuple[str, ...], axis: str, settled: frozenset[str]) -> bool:
    return all(name in (axis, *settled) for name in axes)


def _rules(weights: Weights, axis: AxisProblem, settled: frozenset[str]) -> Symmetry:
    """Return the element on one axis that the rules of :func:`canonicalize` ask for."""
    parts, biases = [], []
    for param, role in axis.params:
        if role != Role.OUTGOING and _usable(param.axes, axis.name, settled):
            value = weights.view(param.name).detach()
            value = value.reshape(len(weights), axis.size, value[0].numel() // axis.size if len(value) else 1)
            (parts if role == Role.INCOMING else biases).append(value)
    features = torch.cat(parts if axis.phase_step else parts + biases, 2)
    norm = features.norm(dim=2)
    scale: Tensor | None = None
    shift: Tensor | None = None
    key = norm
    if axis.group == NeuronGroup.SCALE:
        scale = torch.where(norm > 0, norm, 1).reciprocal().clamp(max=largest_power_of_two(norm.dtype))
        key = features[:, :, 0] * scale
    elif axis.group != NeuronGroup.TRIVIAL:
        largest = features.gather(2, features.abs().argmax(2, keepdim=True))[:, :, 0]
        scale = torch.where(largest < 0, -1.0, 1.0).to(norm)
        if axis.phase_step:
            shift = -folding_steps(scale * biases[0][:, :, 0], axis.phase_step) + 0.0  # no minus zero
    order = key.argsort(dim=1, stable=True)
    parts_of = [{} if value is None else {axis.name: value.gather(1, order)} for value in (scale, shift)]
    return Symmetry(weights.spec, len(weights), {axis.name: order}, *parts_of, check=False)


def _rules_of_heads(weights: Weights, problem: HeadProblem, settled: frozenset[str]) -> Symmetry:
    """Return the element on the axes of heads that the rules of :func:`canonicalize` ask for."""
    matrices, orders, key = {}, {}, torch.zeros((), device=weights.device)
    for axis, params, mixes in zip(problem.axes, problem.params, problem.mixes, strict=True):
        usable = tuple(p for p in params if _usable(weights.spec.param(p[0]).axes, axis.name, settled))
        given = sides(weights, axis, usable)
        if mixes:
            matrix = _fixed_signs(canonical_matrix(given), given)
            moved = (matrix @ given.own, torch.linalg.inv(matrix).mT @ given.dual)
            matrices[axis.name] = matrix.to(weights.dtype)
        else:
            moved = given
        rows = torch.cat(moved, 3).norm(dim=3)
        free = axis.symmetry.linear and not mixes
        orders[axis.name] = rows.argsort(dim=2, stable=True) if free else torch.arange(axis.block_size).expand_as(rows)
        key = key + rows.square().sum(2)
    blocks = key.argsort(dim=1, stable=True)
    perm, linear = {}, {}
    for axis in problem.axes:
        index = blocks[:, :, None].expand(-1, -1, axis.block_size)
        inside = orders[axis.name].to(blocks.device).gather(1, index)
        perm[axis.name] = (index * axis.block_size + inside).flatten(1)
        if axis.name in matrices:
            linear[axis.name] = matrices[axis.name].take_along_dim(blocks[:, :, None, None], 1)
    return Symmetry(weights.spec, len(weights), perm, linear=linear, check=False)


def _fixed_signs(matrix: Tensor, given: Sides) -> Tensor:
    """Make the entry of largest magnitude in each row of the first side with any features positive."""
    rows = matrix @ given.own if given.own.shape[3] else torch.linalg.inv(matrix).mT @ given.dual
    largest = rows.gather(3, rows.abs().argmax(3, keepdim=True))
    return torch.where(largest < 0, -1.0, 1.0).to(matrix) * matrix
