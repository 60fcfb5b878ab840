"""Weight matching: the group element that moves one network closest to another, by coordinate descent over axes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from weightspace._checks import check_generator, whole_number
from weightspace._symmetry import Group, Symmetry
from weightspace._weights import Weights
from weightspace.align._pairs import check_pairs, check_range, compute_dtype
from weightspace.align.solver._descent import descend
from weightspace.align.solver._problem import (
    Costs,
    MatchingProblem,
    check_group_of,
    cost_roots,
    matching_problem,
)

BLOCK = 2**22  # parameters are compared at a time
CHUNK = 2**24  # scalars are matched at a time: 64 MB of float32 for the networks, a few times that while they move


def distance(a: Weights, b: Weights, *, costs: Costs | None = None) -> Tensor:
    r"""Compute the squared Euclidean distance between the parameters of paired networks.

    .. math:: \sum_p c_p \| a_p - b_p \|^2

    It is the objective of :func:`match`.

    Args:
        a: ``[batch, param]``, or one network for all of ``b``.
        b: ``[batch, param]``.
        costs: ``c_p``, see :func:`match`.

    Returns:
        ``[batch]``; in float32 for networks of half precision, whose squares would leave their range.

    Raises:
        TypeError: for something other than ``Weights``, or a mapping of costs.
        ValueError: for networks of another spec, number, dtype or device, or costs that do not fit.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.mlp(2, 3, 1)
        >>> ws.align.distance(ws.Weights(torch.ones(2, 13), spec), ws.Weights(torch.zeros(2, 13), spec))
        tensor([13., 13.])
    """
    check_pairs(a, b)
    return _distance(a, b, MatchingProblem(b.spec, (), cost_roots(b.spec, costs)))


def _distance(a: Weights, b: Weights, problem: MatchingProblem) -> Tensor:
    """Sum over blocks of parameters, so that no copy of a large network is made."""
    dtype = compute_dtype(a)
    factor = problem.factor(dtype, b.device)
    total: Tensor | float = 0.0
    for start in range(0, max(1, b.spec.num_params), BLOCK):
        left, right = (weights.flat[:, start : start + BLOCK].to(dtype) for weights in (a, b))
        part = left - right
        total = total + (part if factor is None else part * factor[start : start + BLOCK]).square().sum(1)
    assert isinstance(total, Tensor)
    return total


def match(
    a: Weights,
    b: Weights,
    *,
    group: Group = "permutation",
    costs: Costs | None = None,
    restarts: int = 0,
    max_sweeps: int = 100,
    generator: torch.Generator | None = None,
) -> Symmetry:
    r"""Find the symmetry ``g`` that brings each network of ``b`` close to its partner in ``a``.

    .. math:: \min_g \sum_p c_p \| a_p - (g\,b)_p \|^2

    by coordinate descent: with all other axes held, each pair of neurons has a best sign, phase or scale in closed
    form, and the best element on the axis is a linear assignment between neurons; axes are solved in turn until none
    gains. The distance falls with every move, to a local optimum. The parameters are found by the axes that they name,
    so that any network that a spec describes can be matched. Heads of attention are assigned as wholes, and on linear
    axes under ``"full"`` each has the best orthogonal matrix in closed form, or one between the balanced forms of both
    networks where that is closer, which finds every invertible matrix; see
    :func:`weightspace.align.solver._heads.solve_heads`. Many networks are taken in chunks: beside the weights only
    the elements (8 to 16 bytes a neuron for each part) and a few copies of one chunk are held, and a memory-mapped zoo
    is read chunk by chunk.

    Args:
        a: the targets, ``[batch, param]``, or one network for all of ``b``.
        b: the networks to move, ``[batch, param]``.
        group: ``"permutation"``; ``"signed"``: also a sign for each neuron, where every activation commutes with signs;
            ``"scaled"``: also positive scales; ``"full"``: whatever the activation of each axis allows, phases too;
            ``"none"``: nothing, the identity.
        costs: ``c_p`` by the name of a parameter, or of the axis that parameters produce, and one for all others; or
            ``"period"``, which counts each bias of a sine or cosine axis in units of its period,
            :math:`c_b = (\omega / 2 \pi)^2`.
        restarts: how many more times to start, from random permutations of ``b``, and random signs wherever the group
            has signs; the best result is returned, and a network that lies on its partner is left alone. Needs a
            generator.
        max_sweeps: most passes over all axes.
        generator: draws the order of the axes anew for every sweep, as in the paper, and the restarts; by default the
            spec's order.

    Returns:
        A ``Symmetry`` with ``g.act(b)`` close to ``a``, on the device of ``b``. The objective reached is
        ``distance(a, g.act(b))``. Networks of half precision are matched in float32; positive scales are bounded by
        what their dtype can hold and undo. A network that would still leave its range gets no scales and phases.

    Raises:
        TypeError: for something other than ``Weights``, whole numbers, a mapping of costs and a generator.
        ValueError: for networks of another spec, number, dtype or device, for weights that are not finite or too
            large to square, for costs that do not fit or are not within 1e-24 and 1e24, and for a group that is
            unknown or that an activation does not allow.

    Example:
        >>> import weightspace as ws
        >>> spec, gen = ws.siren(2, 32, 1), torch.Generator().manual_seed(0)
        >>> a = ws.testing.random_weights(spec, 3, generator=gen)
        >>> b = ws.Symmetry.sample(spec, batch=3, generator=gen, group="permutation").act(a)
        >>> ws.align.match(a, b).act(b).flat.equal(a.flat)
        True

    Reference:
        Ainsworth et al., *Git Re-Basin: Merging Models modulo Permutation Symmetries*, 2023, algorithm 1, for
        permutations; Zhang et al., *Beyond the Permutation Symmetry of Transformers: The Role of Rotation for Model
        Fusion*, 2025, section 4, for orthogonal matrices inside of heads. ``weightspace.align._reference`` has the
        first in thirty lines.
    """
    return _matched(a, b, group, costs, restarts, max_sweeps, generator)


def move_onto(
    a: Weights, b: Weights, *, costs: Costs | None = None, restarts: int = 0, **options: Any
) -> tuple[Symmetry, Weights]:
    """Match networks as :func:`match` does, and move them, in the memory of ``b`` where that is enough.

    Args:
        a: the networks that stay.
        b: the networks that move.
        costs: see :func:`match`.
        restarts: see :func:`match`.
        options: ``group``, ``max_sweeps`` and ``generator`` of :func:`match`.

    Returns:
        The elements, and the networks moved. The numbers of ``b`` are lost.

    Example:
        >>> import weightspace as ws
        >>> a, b = (ws.Weights(torch.randn(1, 13), ws.mlp(2, 3, 1)) for _ in range(2))
        >>> g, moved = move_onto(a, b.clone())
        >>> moved.flat.equal(g.act(b).flat)
        True
    """
    apart = b.spec.linear or b.spec.blocked
    in_place = (
        not restarts and not apart and len(b) == 1 and b.dtype == compute_dtype(b) and not cost_roots(b.spec, costs)
    )
    settings = {"group": "permutation", "max_sweeps": 100, "generator": None, **options}
    g = _matched(a, b, costs=costs, restarts=restarts, in_place=in_place, **settings)
    return g, b if in_place else g.act(b)


def _matched(
    a: Weights,
    b: Weights,
    group: Group,
    costs: Costs | None,
    restarts: int,
    max_sweeps: int,
    generator: torch.Generator | None,
    *,
    in_place: bool = False,
) -> Symmetry:
    check_pairs(a, b)
    check_group_of(b.spec, group, blocks=True)
    whole_number("max_sweeps", max_sweeps)
    whole_number("restarts", restarts, 0)
    if generator is not None:
        check_generator(generator)
    elif restarts:
        raise ValueError("restarts: expected a generator to draw them from, got none; pass generator=")
    roots = cost_roots(b.spec, costs)
    for name, weights in (("a", a), ("b", b)):
        check_range(name, weights, roots)
    if group == "none":
        return Symmetry.identity(b.spec, batch=len(b))
    problem = matching_problem(b.spec, group, roots)
    # All is drawn before the networks are divided into chunks, so that no result depends on their size.
    orders, starts = [_orders(problem, max_sweeps, generator)], []
    for _ in range(restarts):
        assert generator is not None
        starts.append(_start(b, group, generator))
        orders.append(_orders(problem, max_sweeps, generator))
    size = max(1, CHUNK // b.spec.num_params)
    if in_place:
        return descend(a, b, problem, orders[0], in_place=True)
    if len(b) <= size:
        return _best(a, b, problem, orders, starts)
    chunks = [slice(first, first + size) for first in range(0, len(b), size)]
    return Symmetry.cat(
        [_best(a if len(a) == 1 else a[rows], b[rows], problem, orders, [g[rows] for g in starts]) for rows in chunks]
    )


def _best(a: Weights, b: Weights, problem: MatchingProblem, orders: list[Tensor], starts: list[Symmetry]) -> Symmetry:
    """Descend from the networks themselves and from every start, until a network lies on its partner.

    Returns the best element of each network.
    """
    left, right = (weights.to(compute_dtype(weights)) for weights in (a, b))
    best = descend(left, right, problem, orders[0])
    reached = _distance(left, best.act(right), problem) if starts else left.flat
    found = (16 * torch.finfo(right.dtype).eps) ** 2 * problem.weighted(right.flat.detach()).square().sum(1)
    for start, order in zip(starts, orders[1:], strict=True):
        rows = (reached > found).nonzero()[:, 0]  # the others are there already
        if not len(rows):
            break
        target, moved, begin = left if len(left) == 1 else left[rows], right[rows], start[rows]
        other = descend(target, begin.act(moved), problem, order) @ begin
        distance = _distance(target, other.act(moved), problem)
        gains = (distance < reached[rows]).nonzero()[:, 0]
        pick = torch.arange(len(right), device=rows.device)
        pick[rows[gains]] = len(right) + gains
        best, reached[rows[gains]] = Symmetry.cat([best, other])[pick], distance[gains]
    return best if right.dtype == b.dtype else cast_to(best, b)


def _orders(problem: MatchingProblem, sweeps: int, generator: torch.Generator | None) -> Tensor:
    """Return the order of the axes in each sweep, int64 ``[sweep, axis]``."""
    count = len(problem.axes)
    if generator is None:
        return torch.arange(count).repeat(sweeps, 1)
    rows = [torch.randperm(count, generator=generator, device=generator.device) for _ in range(sweeps)]
    return torch.stack(rows).cpu()


def _start(b: Weights, group: Group, generator: torch.Generator) -> Symmetry:
    """Draw where a restart begins: random permutations, and random signs wherever the group has signs."""
    start: Group = "permutation" if group == "permutation" else "signed"
    return Symmetry.sample(b.spec, batch=len(b), generator=generator, group=start, dtype=compute_dtype(b)).to(b.device)


def cast_to(g: Symmetry, b: Weights) -> Symmetry:
    """Cast elements to the half precision of ``b``, so that they and their inverses move it to finite numbers."""
    reach = largest_power_of_two(b.dtype)
    scale = {name: torch.where(s > 0, s.clamp(1 / reach, reach), s) for name, s in g.scale.items()}  # signs stay
    out = Symmetry(g.spec, len(g), g.perm, scale, g.shift, g.linear, check=False).to(dtype=b.dtype)
    lost = ~out.act(b).flat.isfinite().all(1, keepdim=True)
    if not bool(lost.any()):
        return out
    scale = {name: torch.where(lost & (s > 0), 1, s) for name, s in out.scale.items()}
    shift = {name: torch.where(lost, 0, k) for name, k in out.shift.items()}
    return Symmetry(g.spec, len(g), g.perm, scale, shift, out.linear, check=False)


def largest_power_of_two(dtype: torch.dtype) -> float:
    """Return the largest power of two that a dtype holds together with its inverse, at full precision."""
    limits = torch.finfo(dtype)
    return 2.0 ** math.floor(min(math.log2(limits.max), -math.log2(limits.tiny)))
