"""Coordinate descent for a batch of pairs: in compiled code, or with tensors where that is quicker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightspace._symmetry import Symmetry
from weightspace._weights import Weights
from weightspace.align.solver._problem import MatchingProblem, NeuronGroup
from weightspace.align.solver._tensors import TensorDescent
from weightspace.align.solver._threads import in_slices

if TYPE_CHECKING:
    from torch import Tensor

_MOST_PRODUCTS = 2**22  # beyond so many multiplications for the costs of one axis, a matrix library is quicker


def descend(a: Weights, b: Weights, problem: MatchingProblem, orders: Tensor) -> Symmetry:
    """Find the element that brings each network of ``b`` close to its partner in ``a``.

    Args:
        a: the targets, as many as in ``b`` or one for all.
        b: the networks to move, in float32 or float64.
        problem: the matching problem of their spec.
        orders: int64 ``[sweep, axis]``, the order of the axes in each sweep.
    """
    if b.device.type == "cpu" and suits_compiled_code(problem):
        return descend_compiled(a, b, problem, orders)
    return descend_tensors(a, b, problem, orders)


def suits_compiled_code(problem: MatchingProblem) -> bool:
    """Return whether all axes are small enough for the compiled code."""
    lengths = {name: part.stop - part.start for name, part in problem.spec.slices.items()}
    work = [axis.size * sum(lengths[param.name] for param, _ in axis.params) for axis in problem.axes]
    return max(work, default=0) <= _MOST_PRODUCTS


def descend_compiled(a: Weights, b: Weights, problem: MatchingProblem, orders: Tensor) -> Symmetry:
    """Move one pair after another, in compiled code on the host."""
    from weightspace.align.solver import _compiled  # Numba takes a while to load

    flat = problem.weighted(b.flat.detach().clone()).contiguous().numpy()
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


def descend_tensors(a: Weights, b: Weights, problem: MatchingProblem, orders: Tensor) -> Symmetry:
    """Move all pairs side by side, with tensors on their device."""
    descent = TensorDescent(a, b, problem)
    for order in orders.tolist():
        if not descent.pending.any():
            break
        for number in order:
            descent.solve(number)
    return as_symmetry(problem, b, descent.perm, descent.scale, descent.shift)


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
