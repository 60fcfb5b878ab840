"""Images as functions of their coordinates: what a network is fitted to."""

from __future__ import annotations

import math
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from weightspace.signals._arrays import as_array, checked_floats, checked_images


def grid(height: int, width: int) -> Tensor:
    r"""The pixel coordinates of an image, corner pixels at the corners of the square.

    .. math:: x_{i \cdot width + j} = \left(\frac{2 i}{height - 1} - 1,\ \frac{2 j}{width - 1} - 1\right)

    A side of one pixel sits in the middle, at 0.

    Args:
        height: rows; the first coordinate runs down them.
        width: columns; the second coordinate runs along them, fastest.

    Returns:
        ``[height * width, 2]``, float32, on [-1, 1].

    Raises:
        ValueError: if a side is less than one pixel.

    Example:
        >>> import weightspace as ws
        >>> ws.signals.grid(2, 3)[:4].tolist()
        [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0]]
    """
    if height < 1 or width < 1:
        raise ValueError(f"expected a height and width of at least one pixel, got {height} and {width}")
    sides = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in (height, width)]
    return torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).reshape(-1, 2)


def images(array: Any) -> tuple[Tensor, Tensor]:
    """Images as shared coordinates and the values to be fitted there.

    Args:
        array: ``[image, height, width]`` or ``[image, height, width, channel]``: a NumPy array, a tensor, an
            ``ImageSet``, or a list of images of one size. uint8 is divided by 255, booleans become 0 and 1,
            floating point is taken as it is.

    Returns:
        ``(coords, targets)``: ``coords [point, 2]`` on [-1, 1], rows first (see ``grid``), and
        ``targets [image, point, channel]``; both float32, on the CPU, sharing no memory with ``array``.

    Raises:
        TypeError: if the values are other numbers than uint8, booleans or floating point, or of a kind that NumPy
            does not have (bfloat16).
        ValueError: for no images, images of different sizes, another number of axes, NaN or infinity.

    Example:
        >>> import weightspace as ws
        >>> coords, targets = ws.signals.images(ws.datasets.embedded().images)
        >>> coords.shape, targets.shape
        (torch.Size([784, 2]), torch.Size([4000, 784, 1]))
    """
    array = getattr(array, "images", array)  # an ImageSet's
    if isinstance(array, list | tuple):
        array = _stack(array)
    array = as_array(array, "images")
    if array.dtype == bool:
        array = array.astype(np.float32)
    array = checked_images(array)
    count, height, width = array.shape[:3]
    targets = np.array(array, dtype=np.float32, order="C").reshape(count, height * width, -1)
    if array.dtype == np.uint8:
        targets /= np.float32(255)
    return grid(height, width), torch.from_numpy(targets)


def _stack(pictures: list[Any] | tuple[Any, ...]) -> np.ndarray:
    if not pictures:
        raise ValueError("images: expected at least one image, got an empty list")
    arrays = [as_array(p, f"images, image {i}") for i, p in enumerate(pictures)]
    sizes = sorted({a.shape for a in arrays})
    if len(sizes) > 1:
        raise ValueError(f"images: expected images of one size, got {sizes[0]} and {sizes[1]}; resize or crop them")
    return np.stack(arrays)


def series(array: Any) -> tuple[Tensor, Tensor]:
    r"""Series as shared coordinates and the values to be fitted there.

    .. math:: x_t = \frac{2 t}{T - 1} - 1

    Args:
        array: ``[signal, time]`` or ``[signal, time, channel]``, floating point, taken as it is: bring it to range one.

    Returns:
        ``(coords, targets)``: ``coords [time, 1]`` on [-1, 1] and ``targets [signal, time, channel]``; both float32, on
        the CPU, sharing no memory with ``array``.

    Raises:
        TypeError: if the values are not floating point.
        ValueError: for no values, another number of axes, series of different lengths, NaN or infinity.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> coords, targets = ws.signals.series(torch.rand(10, 128))
        >>> coords.shape, targets.shape
        (torch.Size([128, 1]), torch.Size([10, 128, 1]))
    """
    values = checked_floats(array, "series")
    if values.ndim not in (2, 3):
        raise ValueError(
            f"series: expected [signal, time] or [signal, time, channel], got {list(values.shape)}; "
            "use array[None] for a single series"
        )
    count, length = values.shape[:2]
    targets = torch.from_numpy(np.array(values, dtype=np.float32, order="C").reshape(count, length, -1))
    return (torch.linspace(-1, 1, length) if length > 1 else torch.zeros(1))[:, None], targets


@overload
def psnr(mse: Tensor) -> Tensor: ...
@overload
def psnr(mse: float) -> float: ...
def psnr(mse: Tensor | float) -> Tensor | float:
    r"""Peak signal-to-noise ratio of signals of range one, in decibels.

    .. math:: PSNR = -10 \log_{10} MSE

    Args:
        mse: mean squared error, a tensor of any shape or a number; 0 gives infinity.

    Returns:
        decibels, in the same shape.

    Raises:
        ValueError: if a number is negative.

    Example:
        >>> import weightspace as ws
        >>> ws.signals.psnr(0.001)
        30.0
    """
    if isinstance(mse, Tensor):
        return -10 * torch.log10(mse)
    if mse < 0:
        raise ValueError(f"mse: expected zero or more, got {mse}")
    return math.inf if mse == 0 else -10 * math.log10(mse)
