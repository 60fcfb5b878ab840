"""Coordinate descent for a batch of pairs: in the compiled kernel, or with tensors where that does not pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightspace._symmetry import Symmetry
from weightspace._weights import Weights
from weightspace.align.solver._problem import PLAIN, Plan
from weightspace.align.solver._tensors import BatchedDescent
from weightspace.align.solver._threads import in_slices

if TYPE_CHECKING:
    from torch import Tensor

_SMALL = 2**22  # multiplications for the similarities of one axis: beyond, a matrix library is quicker than the kernel


def descend(a: Weights, b: Weights, plan: Plan, orders: Tensor) -> Symmetry:
    """The element for each network of ``b``; ``orders`` is int64 ``[sweep, axis]``."""
    if b.device.type == "cpu" and fits_kernel(plan):
        return descend_compiled(a, b, plan, orders)
    return descend_batched(a, b, plan, orders)


def fits_kernel(plan: Plan) -> bool:
    """Whether all axes are small enough for the compiled kernel."""
    lengths = {name: part.stop - part.start for name, part in plan.spec.slices.items()}
    work = [x.axis.size * sum(lengths[param.name] for param, _ in x.params) for x in plan.axes]
    return max(work, default=0) <= _SMALL


def working(b: Weights) -> torch.dtype:
    """The precision to work in."""
    return b.dtype if b.dtype in (torch.float32, torch.float64) else torch.float32


def descend_compiled(a: Weights, b: Weights, plan: Plan, orders: Tensor) -> Symmetry:
    """On the host, each pair from start to end."""
    from weightspace.align.solver import _compiled  # Numba takes a while to load

    dtype = working(b)
    flat = plan.scale(b.flat.detach().to(dtype, copy=True)).contiguous().numpy()
    target = plan.scale(a.flat.detach().to(dtype)).contiguous().numpy()
    sizes = [x.axis.size for x in plan.axes]
    perm = np.tile(np.concatenate([np.arange(n) for n in sizes] or [np.empty(0, np.int64)]), (len(b), 1))
    scale, shift = np.ones(perm.shape), np.zeros(perm.shape)
    axes, params, near, units = plan.tables(flat.dtype)
    is_open = np.array(plan.open, np.bool_)
    turns, eps = orders.cpu().numpy(), float(torch.finfo(dtype).eps)
    if sizes and len(b):
        tables = (axes, params, near, units, is_open, turns, eps)

        def run(start: int, stop: int) -> None:
            _compiled.descend(target, flat, start, stop, perm, scale, shift, *tables)

        in_slices(run, len(b))
    parts = (torch.from_numpy(x).split(sizes, 1) for x in (perm, scale, shift))
    return element(plan, b, *(tuple(part) for part in parts))


def descend_batched(a: Weights, b: Weights, plan: Plan, orders: Tensor) -> Symmetry:
    """With tensors, all pairs side by side, on their device."""
    descent = BatchedDescent(a, b, plan, working(b))
    for order in orders.tolist():
        if not descent.open.any():
            break
        for number in order:
            descent.solve(number)
    return element(plan, b, descent.perm, descent.scale, descent.shift)


def element(plan: Plan, b: Weights, *parts: Sequence[Tensor]) -> Symmetry:
    """Permutations, scales and phases of all axes as one group element; what the group has not is left out."""
    names = [x.axis.name for x in plan.axes]
    free = [name for name, x in zip(names, plan.axes, strict=True) if x.kind != PLAIN]
    turning = [name for name, x in zip(names, plan.axes, strict=True) if x.unit]
    perm, scale, shift = ({n: p.contiguous() for n, p in zip(names, part, strict=True)} for part in parts)
    return Symmetry(
        plan.spec,
        len(b),
        perm,
        {name: scale[name].to(b.dtype) for name in free},
        {name: shift[name].to(b.dtype) for name in turning},
        check=False,
    )
