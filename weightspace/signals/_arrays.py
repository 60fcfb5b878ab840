"""Checks of the arrays that users pass to the functions of this room."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from weightspace._checks import warn_if_wide

MOST_CHANNELS = 4
"""Channels of an image, with transparency; more are likely to be something else."""
MOST_CLASSES = 1000
"""Labels up to this number name classes in a set of any size; larger ones must be below the number of signals."""


def as_array(values: Any, what: str) -> np.ndarray:
    """Convert an array, a tensor or a list to a NumPy array.

    Raises:
        TypeError: for tensors of a type that NumPy does not have.
        ValueError: for lists that are not rectangular.
    """
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (TypeError, RuntimeError) as error:
        got = f"{values.dtype}, {values.layout} on {values.device}" if isinstance(values, Tensor) else f"{error}"
        raise TypeError(
            f"{what}: expected dense numbers of a kind that NumPy has, got {got}; convert tensors with .float().numpy()"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{what}: expected a rectangular array, got lists of different lengths; bring them to one size"
        ) from error


def checked_images(images: Any) -> np.ndarray:
    """Convert images to uint8 or finite float32, ``[image, height, width]`` or ``[image, height, width, channel]``."""
    array = as_array(images, "images")
    if array.dtype.kind == "O":
        raise ValueError("images: expected images of one size, got an array of objects; resize them first")
    if array.ndim not in (3, 4):
        raise ValueError(
            f"images: expected [image, height, width] or [image, height, width, channel], got {list(array.shape)}"
        )
    if array.size == 0:
        raise ValueError(f"images: expected at least one image of at least one pixel, got {list(array.shape)}")
    if array.ndim == 4 and array.shape[1] <= 4 < array.shape[3]:
        raise ValueError(
            f"images: expected channels last, got {list(array.shape)}, which looks like channels first; "
            "use array.transpose(0, 2, 3, 1)"
        )
    if array.ndim == 4 and array.shape[3] > MOST_CHANNELS:
        warnings.warn(
            f"images: expected at most {MOST_CHANNELS} channels, got {list(array.shape)}, read as {array.shape[3]} "
            "channels of each image; frames of a video are images of their own, or points of a PointSet with time as a "
            "coordinate",
            UserWarning,
            stacklevel=4,
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise TypeError(
            f"images: expected uint8 (0 to 255) or floating point (0 to 1), got {array.dtype}; "
            "convert with array.astype(np.uint8), or divide by the largest value"
        )
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).argmax())
        raise ValueError(f"images: expected finite pixels, got NaN or infinity in image {bad}; leave such images out")
    warn_if_wide("images", float(array.min()), float(array.max()))
    return array.astype(np.float32, copy=False)


def checked_floats(values: Any, what: str) -> np.ndarray:
    """Convert finite floating point numbers to float32; float16 keeps its type."""
    array = as_array(values, what)
    if array.dtype.kind == "O":
        raise ValueError(f"{what}: expected a rectangular array, got objects; bring all signals to one length")
    if array.dtype.kind != "f":
        raise TypeError(
            f"{what}: expected floating point, got {array.dtype}; divide by the largest value that the numbers can take"
        )
    if array.size == 0:
        raise ValueError(f"{what}: expected at least one number, got {list(array.shape)}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).argmax())
        raise ValueError(f"{what}: expected finite numbers, got NaN or infinity in row {bad}; leave such signals out")
    return array if array.dtype == np.float16 else array.astype(np.float32, copy=False)


def integers(values: Any, what: str, count: int, one: str) -> np.ndarray:
    """Convert one integer per signal to int64; error messages call a signal ``one``."""
    array = as_array(values, what)
    if array.shape != (count,):
        raise ValueError(f"{what}: expected one {one}, [{count}], got {list(array.shape)}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{what}: expected integers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def checked_labels(values: Any, count: int, classes: int, one: str) -> np.ndarray:
    """Convert class numbers to int64; they must be below ``classes``, unless that is 0."""
    labels = integers(values, "labels", count, one)
    if labels.min() < 0 or (classes and labels.max() >= classes):
        expected = f"in [0, {classes})" if classes else "of zero or more"
        raise ValueError(f"labels: expected class numbers {expected}, got {labels.min()} to {labels.max()}")
    return labels


def checked_names(values: Any, count: int, one: str) -> np.ndarray:
    """Convert one text per signal to an array of texts; error messages call a signal ``one``."""
    array = as_array(values, "names")
    if array.shape != (count,):
        raise ValueError(f"names: expected one text {one}, [{count}], got {list(array.shape)}")
    if array.dtype.kind != "U":
        raise TypeError(f"names: expected texts, got {array.dtype}")
    return array


def class_names(labels: np.ndarray | None, where: str | Path) -> tuple[str, ...]:
    """Return the numbers of the classes as their names; none where there are no labels, or others than whole numbers.

    Raises:
        ValueError: for a label far above the number of signals, such as an id or a time stamp, which names no class.
    """
    if labels is None or labels.dtype.kind not in "iu" or not labels.size:
        return ()
    top = int(labels.max()) + 1
    if top > max(MOST_CLASSES, len(labels)):
        raise ValueError(
            f"{where}: expected labels that number the classes of {len(labels)} signals, got {top - 1}; number the "
            "classes 0, 1, ..., or leave the labels out"
        )
    return tuple(map(str, range(top)))


def indices(values: Any, what: str, count: int) -> np.ndarray:
    """Convert integers in ``[0, count)``, or a boolean mask ``[count]``, to indices in int64."""
    array = as_array(values, what)
    if array.dtype.kind == "b" and array.shape == (count,):
        array = np.flatnonzero(array)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{what}: expected at least one index, [index], got shape {list(array.shape)}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{what}: expected integers or a boolean mask [{count}], got {array.dtype}")
    if array.min() < 0 or array.max() >= count:
        raise ValueError(f"{what}: expected indices in [0, {count}), got {array.min()} to {array.max()}")
    return array.astype(np.int64, copy=False)
