"""The points that a network sees in each step of a minibatch fit, which are the same in all kernels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# The constants of weightspace._random.splitmix64, which is for NumPy. PyTorch has no arithmetic of uint64: its words
# are int64, whose sums and products have the same bits.
_GOLDEN, _FIRST, _SECOND = (
    value - 2**64 if value >= 2**63 else value for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def point_keys(sources: Tensor, views: Tensor, *, seed: int) -> Tensor:
    """Derive one 64-bit key for each network from (seed, source, view), int64 ``[batch]``.

    Example:
        >>> keys = point_keys(torch.tensor([3, 7]), torch.tensor([0, 0]), seed=0)
        >>> torch.equal(keys[1:], point_keys(torch.tensor([7]), torch.tensor([0]), seed=0))
        True
    """
    entropy = [(seed, source, view, 1) for source, view in zip(sources.tolist(), views.tolist(), strict=True)]
    keys = [np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] for numbers in entropy]
    return torch.from_numpy(np.array(keys, dtype=np.uint64).view(np.int64))


def draw_points(keys: Tensor, step: int, count: int, total: int) -> Tensor:
    r"""Draw uniform indices of points with replacement, int64 ``[batch, count]``.

    .. math:: i_p = \lfloor n h / 2^{31} \rfloor, \quad h = \mathrm{splitmix64}(key + (s \, count + p) \gamma) \gg 33

    The generator has no state: a counter goes in, so that every point can be drawn alone.

    Args:
        keys: int64 ``[batch]``, see :func:`point_keys`.
        step: number of the step, from 0.
        count: number of points to draw.
        total: number of points there are, below 2**31.

    Reference:
        Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators*, 2014.
    """
    place = torch.arange(1, count + 1, device=keys.device) + step * count
    z = keys[:, None] + place * _GOLDEN
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    z = z ^ _shifted(z, 31)
    return (_shifted(z, 33) * total) >> 31


def _shifted(z: Tensor, by: int) -> Tensor:
    """Shift to the right as if the words were unsigned: zeros come in."""
    return (z >> by) & ((1 << (64 - by)) - 1)
