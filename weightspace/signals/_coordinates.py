"""Coordinates and targets of images and of series."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._evaluate import grid
from weightspace.signals._arrays import as_array, checked_floats, checked_images


def images(array: Any) -> tuple[Tensor, Tensor]:
    """Convert images to the coordinates that they share and the values there.

    Args:
        array: ``[image, height, width]`` or ``[image, height, width, channel]``: a NumPy array, a tensor, an
            ``ImageSet``, or a list of images of one size. uint8 is divided by 255, booleans become 0 and 1,
            floating point keeps its values.

    Returns:
        ``(coords, targets)``: ``coords [point, 2]`` on [-1, 1], rows first (see :func:`grid`), and
        ``targets [image, point, channel]``; both float32, on the CPU, sharing no memory with ``array``.

    Raises:
        TypeError: if the values are other numbers than uint8, booleans or floating point, or of a kind that NumPy
            does not have (bfloat16).
        ValueError: for no images, images of different sizes, another number of axes, NaN or infinity.

    Warns:
        UserWarning: for floating point images whose range is far from one, such as pixels from 0.0 to 255.0.

    Example:
        >>> import weightspace as ws
        >>> coords, targets = ws.signals.images(ws.datasets.embedded().images)
        >>> coords.shape, targets.shape
        (torch.Size([784, 2]), torch.Size([4000, 784, 1]))
    """
    array = getattr(array, "images", array)  # an ImageSet holds its array under this name
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
    r"""Convert series to the coordinates that they share and the values there.

    .. math:: x_t = \frac{2 t}{T - 1} - 1

    Args:
        array: ``[signal, time]`` or ``[signal, time, channel]``, floating point. Bring them to a range of one:
            their values stay as they are.

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
