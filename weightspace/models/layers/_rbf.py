"""Gaussian radial basis functions: learned functions of frequencies, and of one number per channel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CENTERS = 6
"""Centres of the one-dimensional functions on either side of zero, one apart: they change between -7 and 7."""
SHARPNESS = 0.7
"""Factor in ``exp(-0.7 z^2)``, at which neighbouring functions overlap."""
REACH = 1.5
"""Initial width of a Gaussian of frequencies, in radians per unit of input: signals live on [-1, 1]."""


class GaussianRBF(nn.Module):
    r"""Evaluate Gaussians with learned centres and widths, ``exp(-|x - c|^2 / (2 s^2))``.

    The centres start along uniformly random directions at uniformly random distances, so that they are as dense near
    zero as far from it.

    Args:
        inputs: numbers that enter.
        count: number of Gaussians.
        reach: the largest distance of a centre from zero.
    """

    def __init__(self, inputs: int, count: int, reach: float) -> None:
        super().__init__()
        direction = nn.functional.normalize(torch.randn(count, inputs), dim=-1)
        self.centers = nn.Parameter(direction * (reach * torch.rand(count, 1)))
        self.widths = nn.Parameter(torch.full((count,), math.log(REACH)))

    def forward(self, value: Tensor) -> Tensor:
        """Map ``[..., inputs]`` to ``[..., count]``."""
        far = torch.zeros_like(value[..., :1])
        for i in range(value.shape[-1]):  # differences come first, because squares of frequencies would swallow them
            far = far + (value[..., i : i + 1] - self.centers[:, i]).square()
        # Far tails stop at 1e-13: smaller numbers would become subnormal, which processors are slow at.
        return torch.exp((-0.5 * torch.exp(-2 * self.widths) * far).clamp_min(-30.0))


def even_and_odd(value: Tensor, even: Tensor | None, odd: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    r"""Evaluate sums of Gaussians at whole-numbered centres that are even or odd functions.

    .. math:: \sum_m c_m \big(B(z - m) + B(z + m)\big), \qquad \sum_m d_m \big(B(z - m) - B(z + m)\big),
        \qquad B(z) = e^{-0.7 z^2}

    ``B(z - m)`` is ``B(z) B(m) exp(1.4 z)^m``, so three exponentials and Horner's rule suffice. They are computed in
    float32 at least, because the powers leave the range of half precision.

    Args:
        value: ``z``, ``[..., channel]``.
        even: ``c``, ``[1 + centre, channel]`` from the centre at zero on, or ``None``.
        odd: ``d``, ``[centre, channel]`` from the centre at one on, or ``None``.

    Returns:
        Both sums; ``None`` where there are no factors.
    """
    small = value.dtype in (torch.float16, torch.bfloat16)
    z = (value.float() if small else value).clamp(-CENTERS - 1, CENTERS + 1)
    middle, up, down = torch.exp(-SHARPNESS * z.square()), torch.exp(2 * SHARPNESS * z), torch.exp(-2 * SHARPNESS * z)
    sums: list[Tensor | None] = [None, None]
    if even is not None:
        factors = even.to(z.dtype)
        sums[0] = middle * (factors[0] + _powers(factors[1:], up) + _powers(factors[1:], down))
    if odd is not None:
        factors = odd.to(z.dtype)
        sums[1] = middle * (_powers(factors, up) - _powers(factors, down))
    first, second = (part.to(value.dtype) if small and part is not None else part for part in sums)
    return first, second


def _powers(factors: Tensor, base: Tensor) -> Tensor:
    """Return ``sum_m factors[m - 1] B(m) base^m``."""
    total = factors[-1] * math.exp(-SHARPNESS * len(factors) ** 2) * base
    for m in range(len(factors) - 1, 0, -1):
        total = (total + factors[m - 1] * math.exp(-SHARPNESS * m**2)) * base
    return total
