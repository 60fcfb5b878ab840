"""``ImageSet``: images of one size with labels, stable sources and the splits their data set has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from torch import Tensor

from weightspace.signals._split import split_by_source


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images of one size, and what is known about them.

    Args:
        images: ``[image, height, width]`` or ``[image, height, width, channel]``; uint8 in 0..255, or floating point
            (held as float32, taken as it is) for data that was never 8-bit. Every reader but ``from_npz`` gives uint8.
        labels: class numbers ``[image]``, held as int64, or None.
        sources: an integer a picture ``[image]``, held as int64, that stays with it in every subset: splits and seeds
            go by it. Default: 0, 1, 2...
        splits: index arrays by name, as the data set has them (``"train"``, ``"test"``); empty where it has none.
        classes: the names of the classes, by label.
        name: the data set's name.
        licence: under what terms it may be used.
        citation: whom to cite.

    Raises:
        TypeError: if an array has another kind of number.
        ValueError: if there are no images, a pixel is not finite, lengths differ, a label or an index is out of range,
            or a source lies in two splits.

    Example:
        >>> import numpy as np
        >>> import weightspace as ws
        >>> data = ws.signals.ImageSet(np.zeros((6, 8, 8), np.uint8), splits={"train": range(4), "test": [4, 5]})
        >>> data.split("test").sources
        array([4, 5])
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    sources: Any = None
    splits: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    name: str = "images"
    licence: str = "unknown"
    citation: str = ""

    def __post_init__(self) -> None:
        images = checked_images(self.images)
        count = len(images)
        sources = np.arange(count) if self.sources is None else _integers(self.sources, "sources", count)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "sources", sources)
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))
        object.__setattr__(self, "splits", {k: _indices(v, f"splits[{k!r}]", count) for k, v in self.splits.items()})
        if self.labels is not None:
            object.__setattr__(self, "labels", _checked_labels(self.labels, count, len(self.classes)))
        for (a, i), (b, j) in combinations(self.splits.items(), 2):
            if len(shared := np.intersect1d(sources[i], sources[j])):
                raise ValueError(
                    f"splits {a!r} and {b!r} share {len(shared)} sources (the first is {shared[0]}): expected every "
                    "source in one split; two views of one image must not straddle"
                )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.images.shape[1:]))
        splits = "".join(f", {name} {len(index)}" for name, index in self.splits.items())
        return f"ImageSet({self.name!r}, {len(self)} images {size} {self.images.dtype}{splits})"

    def subset(self, indices: Any) -> ImageSet:
        """The images at ``indices``, in that order, with their labels and sources; splits shrink to what is left.

        Args:
            indices: integers in ``[0, len)``, or a boolean mask ``[image]``.

        Raises:
            TypeError: if ``indices`` are not integers or booleans.
            ValueError: if they are empty or out of range.

        Example:
            >>> import weightspace as ws
            >>> data = ws.signals.embedded().subset(range(2990, 3010))
            >>> len(data), len(data.split("test"))
            (20, 10)
        """
        indices = _indices(indices, "indices", len(self))
        splits = {}
        for name, members in self.splits.items():
            inside = np.zeros(len(self), dtype=bool)
            inside[members] = True
            if len(left := np.flatnonzero(inside[indices])):
                splits[name] = left
        labels = None if self.labels is None else self.labels[indices]
        return dataclasses.replace(
            self, images=self.images[indices], labels=labels, sources=self.sources[indices], splits=splits
        )

    def split(self, name: str) -> ImageSet:
        """The images of one split, in the split's order.

        Raises:
            ValueError: if there is no such split.

        Example:
            >>> import weightspace as ws
            >>> len(ws.signals.embedded().split("train"))
            3000
        """
        if name not in self.splits:
            known = ", ".join(map(repr, self.splits)) or "none; with_split() makes train and test"
            raise ValueError(f"split: expected one of {self.name}'s splits ({known}), got {name!r}")
        return self.subset(self.splits[name])

    def with_split(self, fraction: float = 0.2, seed: int = 0) -> ImageSet:
        """The same images with new ``"train"`` and ``"test"`` splits, drawn by source.

        A split that would be empty is left out.

        Args:
            fraction: the share of the sources to go into the test split.
            seed: another seed draws other sources.

        Example:
            >>> import numpy as np
            >>> import weightspace as ws
            >>> data = ws.signals.ImageSet(np.zeros((100, 8, 8), np.uint8)).with_split(0.3)
            >>> sorted(data.splits), sum(len(index) for index in data.splits.values())
            (['test', 'train'], 100)
        """
        train, test = split_by_source(self.sources, fraction, seed)
        splits = {"train": train, "test": test}
        return dataclasses.replace(self, splits={name: index for name, index in splits.items() if len(index)})


def as_array(values: Any, what: str) -> np.ndarray:
    """Arrays, tensors and lists as NumPy has them.

    Raises:
        TypeError: for tensors of a kind that NumPy does not have.
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
    """Images as uint8 or finite float32, ``[image, height, width]`` with maybe a channel axis."""
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
    return array.astype(np.float32, copy=False)


def _integers(values: Any, what: str, count: int) -> np.ndarray:
    array = as_array(values, what)
    if array.shape != (count,):
        raise ValueError(f"{what}: expected one an image, [{count}], got {list(array.shape)}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{what}: expected integers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def _checked_labels(values: Any, count: int, classes: int) -> np.ndarray:
    labels = _integers(values, "labels", count)
    if labels.min() < 0 or (classes and labels.max() >= classes):
        expected = f"in [0, {classes})" if classes else "of zero or more"
        raise ValueError(f"labels: expected class numbers {expected}, got {labels.min()} to {labels.max()}")
    return labels


def _indices(values: Any, what: str, count: int) -> np.ndarray:
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
