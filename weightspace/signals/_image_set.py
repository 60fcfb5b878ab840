"""``ImageSet``: images of one size with labels, stable sources and the splits their data set has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from weightspace.signals._arrays import checked_images
from weightspace.signals._coordinates import images as _images
from weightspace.signals._signal_set import SignalSet


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet(SignalSet):
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
        groups: an integer ``[image]`` shared by pictures of one thing, which no split may tear apart. Default: sources.

    Raises:
        TypeError: if an array has another kind of number.
        ValueError: if there are no images, a pixel is not finite, lengths differ, a label or an index is out of range,
            or a source or group lies in two splits.

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
    groups: Any = None

    _one: ClassVar[str] = "an image"

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", checked_images(self.images))
        self._settle(len(self.images))

    def __repr__(self) -> str:
        size = "x".join(map(str, self.images.shape[1:]))
        return f"ImageSet({self.name!r}, {len(self)} images {size} {self.images.dtype}{self._split_text()})"

    def arrays(self) -> dict[str, np.ndarray]:
        return {"images": self.images}

    @property
    def in_features(self) -> int:
        return 2

    @property
    def out_features(self) -> int:
        return self.images.shape[3] if self.images.ndim == 4 else 1

    def signals(self, indices: Any = None) -> tuple[Tensor, Tensor]:
        return _images(self.images if indices is None else self.images[self._indices(indices)])

    def _size(self) -> dict[str, int]:
        height, width = self.images.shape[1:3]
        return {"height": height, "width": width}

    def _shared(self) -> tuple[np.ndarray, ...]:
        return ()
