"""The batched forward pass, the grid of points to evaluate at, and the error in decibels."""

from __future__ import annotations

import math
from typing import overload

import torch
from torch import Tensor

from weightspace._checks import check_tensor
from weightspace._weights import Weights, check_weights

PSNR_LIMIT = 120.0
"""The PSNR in dB that an exact fit is recorded with."""


def evaluate(weights: Weights, x: Tensor) -> Tensor:
    r"""Compute every network's outputs at the given points.

    .. math:: h_0 = x, \quad h_{l} = a_l(W_l h_{l-1} + b_l), \quad y = W_L h_{L-1} + b_L + shift

    For chains of linear layers. Networks with convolutions, norms or sums are computed by the module that
    :func:`weightspace.spec_of` read them off: ``torch.func.functional_call(module, weights.state_dict(i), x)``.

    Args:
        weights: ``batch`` networks.
        x: points, ``[point, in]`` shared by all networks or ``[batch, point, in]``.

    Returns:
        ``[batch, point, out]``.

    Raises:
        TypeError: if ``weights`` are not ``Weights`` or ``x`` is not a tensor.
        ValueError: if ``x`` has other than ``in`` columns or another batch, or if the spec is not a chain.

    Example:
        >>> import weightspace as ws
        >>> w = ws.Weights(torch.zeros(4, 1185), ws.siren(2, 32, 32, 1))
        >>> ws.evaluate(w, torch.zeros(7, 2)).shape
        torch.Size([4, 7, 1])
    """
    check_weights("weights", weights)
    check_tensor("x", x)
    spec = weights.spec
    if x.ndim not in (2, 3) or x.shape[-1] != spec.in_features or (x.ndim == 3 and x.shape[0] != len(weights)):
        raise ValueError(
            f"x: expected [point, {spec.in_features}] or [{len(weights)}, point, {spec.in_features}], "
            f"got {list(x.shape)}"
        )
    if weights.flat.ndim != 2:
        raise ValueError(f"expected weights [batch, param], got features of shape {list(weights.flat.shape)}")
    h = x.to(weights.flat)
    h = h.expand(len(weights), *h.shape) if h.ndim == 2 else h
    for layer in spec.layers:
        w = weights.view(layer.weight).transpose(1, 2)
        h = torch.bmm(h, w) if layer.bias is None else torch.baddbmm(weights.view(layer.bias)[:, None], h, w)
        axis = spec.axis(layer.produces)
        if axis.hidden:
            h = axis.symmetry.forward(h, axis.omega)
    return h + spec.output_shift if spec.output_shift else h


def grid(*sides: int) -> Tensor:
    r"""Make the points of a regular grid on [-1, 1]^d, the outermost points on its faces.

    .. math:: x_{i_1 \dots i_d} = \left(\frac{2 i_1}{n_1 - 1} - 1,\ \dots,\ \frac{2 i_d}{n_d - 1} - 1\right)

    A side of one point sits in the middle, at 0. For an image the sides are its height and width: the first
    coordinate runs down the rows, the second along the columns, fastest.

    Args:
        sides: points along each axis.

    Returns:
        ``[point, d]``, float32.

    Raises:
        ValueError: for no side, or a side of less than one point.

    Example:
        >>> grid(2, 3)[:4].tolist()
        [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0]]
    """
    if not sides or min(sides) < 1:
        raise ValueError(f"expected at least one side, each of at least one point, got {list(sides)}")
    lines = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in sides]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).reshape(-1, len(sides))


@overload
def psnr(mse: Tensor, *, limit: float = math.inf) -> Tensor: ...
@overload
def psnr(mse: float, *, limit: float = math.inf) -> float: ...
def psnr(mse: Tensor | float, *, limit: float = math.inf) -> Tensor | float:
    r"""Compute the peak signal-to-noise ratio of signals of range one, in decibels.

    .. math:: PSNR = -10 \log_{10} MSE

    Args:
        mse: mean squared error, a tensor of any shape or a number; 0 gives infinity.
        limit: the largest value to return.

    Returns:
        Decibels, in the same shape.

    Raises:
        ValueError: if a number is negative.

    Example:
        >>> psnr(0.001), psnr(0.0, limit=120.0)
        (30.0, 120.0)
    """
    if isinstance(mse, Tensor):
        return (-10 * torch.log10(mse)).clamp_max(limit)
    if mse < 0:
        raise ValueError(f"mse: expected zero or more, got {mse}")
    return min(limit, math.inf if mse == 0 else -10 * math.log10(mse))
