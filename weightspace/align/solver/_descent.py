"""Coordinate descent for a batch of pairs: in compiled code, or with tensors where that is quicker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightspace._symmetry import Symmetry
from weightspace._weights import Weights
from weightspace.align.solver._heads import solve_heads
from weightspace.align.solver._problem import MatchingProblem, as_symmetry
from weightspace.align.solver._tensors import TensorDescent
from weightspace.align.solver._threads import in_slices

if TYPE_CHECKING:
    from torch import Tensor

_MOST_PRODUCTS = 2**22  # beyond so many multiplications for the costs of one axis, a matrix library is quicker
_WIDE = 1024  # from so many neurons on pairs are moved one after another on the host, and keep their products


def descend(a: Weights, b: Weights, problem: MatchingProblem, orders: Tensor, *, in_place: bool = False) -> Symmetry:
    """Find the element that brings each network of ``b`` close to its partner in ``a``.

    Args:
        a: the targets, as many as in ``b`` or one for all.
        b: the networks to move, in float32 or float64.
        problem: the matching problem of their spec.
        orders: int64 ``[sweep, axis]``, the order of the axes in each sweep.
        in_place: whether ``b`` itself is moved, which leaves out a copy; without costs only.
    """
    if problem.heads:
        return _with_heads(a, b, problem, orders)
    if b.device.type == "cpu" and suits_compiled_code(problem):
        return descend_compiled(a, b, problem, orders, in_place=in_place)
    wide = b.device.type == "cpu" and max((axis.size for axis in problem.axes), default=0) >= _WIDE
    if not wide or len(b) < 2:
        return descend_tensors(a, b, problem, orders, in_place=in_place)
    pairs = [(a if len(a) == 1 else a[row : row + 1], b[row : row + 1]) for row in range(len(b))]
    return Symmetry.cat([descend_tensors(*pair, problem, orders) for pair in pairs])


def _with_heads(a: Weights, b: Weights, problem: MatchingProblem, orders: Tensor) -> Symmetry:
    """Take turns between the axes whose neurons move one by one and those of heads, until these gain no more."""
    plain = replace(problem, heads=())
    element, moved = Symmetry.identity(b.spec, batch=len(b)), b
    target = a.replace(problem.weighted(a.flat.detach()))
    for _ in range(len(orders)):
        step = descend(a, moved, plain, orders)
        moved, element, still = step.act(moved), step @ element, True
        for heads in problem.heads:
            step = solve_heads(target, moved.replace(problem.weighted(moved.flat.detach())), heads)
            if any(
                bool((value != _identity(value)).any()) for part in (step.perm, step.linear) for value in part.values()
            ):
                moved, element, still = step.act(moved), step @ element, False
        if still:
            break
    return element


def _identity(value: Tensor) -> Tensor:
    """Return the identity in the place of permutations ``[batch, size]`` or matrices ``[batch, block, n, n]``."""
    count = value.shape[-1]
    return torch.arange(count, device=value.device) if value.ndim == 2 else torch.eye(count).to(value)


def suits_compiled_code(problem: MatchingProblem) -> bool:
    """Return whether all axes are small enough for the compiled code."""
    lengths = {name: part.stop - part.start for name, part in problem.spec.slices.items()}
    work = [axis.size * sum(lengths[param.name] for param, _ in axis.params) for axis in problem.axes]
    return max(work, default=0) <= _MOST_PRODUCTS


def descend_compiled(
    a: Weights, b: Weights, problem: MatchingProblem, orders: Tensor, *, in_place: bool = False
) -> Symmetry:
    """Move one pair after another, in compiled code on the host."""
    from weightspace.align.solver import _compiled  # Numba takes a while to load

    flat = (b.flat if in_place else problem.weighted(b.flat.detach().clone()).contiguous()).numpy()
    target = problem.weighted(a.flat.detach()).contiguous().numpy()
    sizes = [axis.size for axis in problem.axes]
    perm = np.tile(np.concatenate([np.arange(n) for n in sizes] or [np.empty(0, np.int64)]), (len(b), 1))
    elements = _compiled.Elements(perm, np.ones(perm.shape), np.zeros(perm.shape))
    tables, sweeps, eps = problem.tables(flat.dtype), orders.cpu().numpy(), float(torch.finfo(b.dtype).eps)

    def run(start: int, stop: int) -> None:
        _compiled.descend(target, flat, start, stop, elements, tables, sweeps, eps)

    if sizes and len(b):
        in_slices(run, len(b))
    return as_symmetry(problem, b, *(torch.from_numpy(part).split(sizes, 1) for part in elements))


def descend_tensors(
    a: Weights, b: Weights, problem: MatchingProblem, orders: Tensor, *, in_place: bool = False
) -> Symmetry:
    """Move all pairs side by side, with tensors on their device."""
    moved = b if in_place else b.replace(problem.weighted(b.flat.detach().clone()))
    descent = TensorDescent(a.replace(problem.weighted(a.flat.detach()).expand_as(moved.flat)), moved, problem)
    for order in orders.tolist():
        if not descent.pending.any():
            break
        for number in order:
            descent.solve(number)
    return descent.symmetry()
