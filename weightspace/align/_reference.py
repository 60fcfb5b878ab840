"""Weight matching as the paper has it: one pair at a time, permutations alone, in thirty lines.

:func:`weightspace.align.match` finds the same permutations for thousands of pairs a second, and signs, phases and
scales too. The tests compare the two. Read this one first.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from weightspace._spec import Param
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights

_LEAST_GAIN = 1e-9  # a smaller gain may be rounding, which could make the loop go on for ever


def match_one(a: Weights, b: Weights, *, max_sweeps: int = 100) -> Symmetry:
    r"""Match one network to another by algorithm 1 of Git Re-Basin.

    .. math:: \max_\pi \sum_p \langle a_p, \pi(b)_p \rangle

    where parameter ``p`` of the permuted network has the permutations of all hidden axes that it names. No permutation
    is found at once for all axes. But with all axes held except one, the sum is linear in that axis' permutation: it is
    the total of a matrix that says how well each neuron of ``a`` agrees with each neuron of ``b``, summed over every
    parameter that names the axis, and the best permutation is a linear assignment. So the axes take turns.

    Args:
        a: one network, the target.
        b: one network to move.
        max_sweeps: most passes over all axes.

    Returns:
        A ``Symmetry`` with ``g.act(b)`` close to ``a``.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 2, generator=gen)
        >>> slow, fast = match_one(w[0], w[1]), ws.align.match(w[0], w[1])
        >>> slow.perm["h1"].equal(fast.perm["h1"]), slow.perm["h2"].equal(fast.perm["h2"])
        (True, True)

    Reference:
        Ainsworth et al., *Git Re-Basin: Merging Models modulo Permutation Symmetries*, 2023, algorithm 1. Departure:
        the axes are taken in the spec's order, the paper draws it anew for every sweep.
    """
    perm = {axis.name: torch.arange(axis.size) for axis in b.spec.hidden}

    def permuted(param: Param, but: str) -> Tensor:
        value = b.view(param.name)[0]
        for position, name in enumerate(param.axes):
            if name in perm and name != but:
                value = value.index_select(position, perm[name])
        return value

    for _ in range(max_sweeps):
        progress = False
        for axis in b.spec.hidden:
            agreement = torch.zeros(axis.size, axis.size, dtype=torch.float64)
            for param in b.spec.params:
                if axis.name in param.axes:
                    position = param.axes.index(axis.name)
                    left, right = a.view(param.name)[0], permuted(param, but=axis.name)
                    left, right = (
                        value.movedim(position, 0).reshape(axis.size, -1).double() for value in (left, right)
                    )
                    agreement += left @ right.T
            found = torch.as_tensor(linear_sum_assignment(agreement.numpy(), maximize=True)[1])
            neurons = torch.arange(axis.size)
            gain = agreement[neurons, found].sum() - agreement[neurons, perm[axis.name]].sum()
            if gain > _LEAST_GAIN:
                perm[axis.name], progress = found, True
        if not progress:
            break
    return Symmetry(b.spec, 1, {name: found[None] for name, found in perm.items()})
