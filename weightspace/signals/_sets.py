"""Sets of signals with labels, stable sources and splits, and those of images of one size."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from weightspace._split import split_by_source
from weightspace.signals._arrays import checked_images, checked_labels, checked_names, indices, integers
from weightspace.signals._coordinates import images as image_signals

_HASHED_AT_ONCE = 4096  # rows, so that a digest of a large set needs little memory


class SignalSet(ABC):
    """An abstract set of signals with labels, stable sources and splits; see ``ImageSet`` and ``PointSet``.

    A **source** is an integer of its own for every signal, which stays with it in every subset: random seeds derive
    from it. A **group** is an integer that all signals of one thing share (drawings of one concept, parts of one
    family): splits never divide a group. By default every signal is a group of its own.

    Example:
        >>> import weightspace as ws
        >>> data = ws.datasets.embedded()
        >>> coords, targets = data.signals([0, 1, 2])
        >>> data.in_features, data.out_features, targets.shape
        (2, 1, torch.Size([3, 784, 1]))
    """

    labels: np.ndarray | None
    sources: Any
    splits: Mapping[str, Any]
    classes: tuple[str, ...]
    name: str
    licence: str
    citation: str
    groups: Any
    names: Any

    _one: ClassVar[str] = "a signal"

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fields that have one row per signal."""

    @property
    @abstractmethod
    def in_features(self) -> int:
        """Coordinates of a point: the inputs of a network that is fitted to these signals."""

    @property
    @abstractmethod
    def out_features(self) -> int:
        """Values at a point: the outputs of a network that is fitted to these signals."""

    @abstractmethod
    def signals(self, indices: Any = None) -> tuple[Tensor, Tensor]:
        """Return the coordinates and targets that :func:`weightspace.fit` takes, float32.

        Args:
            indices: integers in ``[0, len)``, a boolean mask ``[signal]``, or None for all signals.

        Returns:
            ``coords [point, in]``, or ``[signal, point, in]`` where every signal has points of its own, and
            ``targets [signal, point, out]``.
        """

    def provenance(self) -> dict[str, Any]:
        """Return the facts that a zoo's manifest records: name, licence, citation and the size of a signal."""
        return {"data": self.name, "licence": self.licence, "citation": self.citation, **self._size()}

    @abstractmethod
    def _size(self) -> dict[str, int]:
        """Return the size of a signal, for :meth:`provenance`."""

    @abstractmethod
    def _shared(self) -> tuple[np.ndarray, ...]:
        """Return the arrays that belong to all signals at once."""

    def _check_fields(self, count: int) -> None:
        """Check and convert the fields that all sets have; ``__post_init__`` calls it once."""
        sources = np.arange(count) if self.sources is None else integers(self.sources, "sources", count, self._one)
        groups = sources if self.groups is None else integers(self.groups, "groups", count, self._one)
        splits = {k: indices(v, f"splits[{k!r}]", count) for k, v in self.splits.items()}
        object.__setattr__(self, "sources", sources)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "splits", splits)
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        if self.names is not None:
            object.__setattr__(self, "names", checked_names(self.names, count, self._one))
        if self.labels is not None:
            labels = checked_labels(self.labels, count, len(self.classes), self._one)
            object.__setattr__(self, "labels", labels)
        for (a, i), (b, j) in combinations(splits.items(), 2):
            _check_disjoint(a, b, "source", sources[i], sources[j], "two views of one image must not straddle")
            if groups is not sources:
                _check_disjoint(a, b, "group", groups[i], groups[j], "two drawings of one thing must not straddle")

    def __len__(self) -> int:
        return len(next(iter(self.arrays().values())))

    def subset(self, indices: Any) -> Self:
        """Select the signals at ``indices``, in that order, with their labels and sources; splits shrink accordingly.

        Args:
            indices: integers in ``[0, len)``, or a boolean mask ``[signal]``.

        Raises:
            TypeError: if ``indices`` are not integers or booleans.
            ValueError: if they are empty or out of range.

        Example:
            >>> import weightspace as ws
            >>> data = ws.datasets.embedded().subset(range(2990, 3010))
            >>> len(data), len(data.split("test"))
            (20, 10)
        """
        rows = self._indices(indices)
        splits = {}
        for name, members in self.splits.items():
            inside = np.zeros(len(self), dtype=bool)
            inside[members] = True
            if len(left := np.flatnonzero(inside[rows])):
                splits[name] = left
        changed: dict[str, Any] = {name: array[rows] for name, array in self.arrays().items()}
        changed |= {"sources": self.sources[rows], "splits": splits}
        changed["labels"] = None if self.labels is None else self.labels[rows]
        changed["groups"] = None if self.groups is self.sources else self.groups[rows]
        changed["names"] = None if self.names is None else self.names[rows]
        return dataclasses.replace(self, **changed)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _indices(self, values: Any) -> np.ndarray:
        return indices(values, "indices", len(self))

    def split(self, name: str) -> Self:
        """Select the signals of one split, in the split's order.

        Raises:
            ValueError: if there is no such split.

        Example:
            >>> import weightspace as ws
            >>> len(ws.datasets.embedded().split("train"))
            3000
        """
        if name not in self.splits:
            known = ", ".join(map(repr, self.splits)) or "none; with_split() makes train and test"
            raise ValueError(f"split: expected one of {self.name}'s splits ({known}), got {name!r}")
        return self.subset(self.splits[name])

    def with_split(self, fraction: float = 0.2, seed: int = 0) -> Self:
        """Replace the splits by a random ``"train"`` and ``"test"`` split of whole groups.

        A split that would be empty is left out, with a warning.

        Args:
            fraction: the share of the groups that the test split gets.
            seed: another seed draws other groups.

        Warns:
            UserWarning: for a split that would be empty.

        Example:
            >>> import numpy as np
            >>> import weightspace as ws
            >>> data = ws.signals.ImageSet(np.zeros((100, 8, 8), np.uint8)).with_split(0.3)
            >>> sorted(data.splits), sum(len(index) for index in data.splits.values())
            (['test', 'train'], 100)
        """
        train, test = split_by_source(self.groups, fraction, seed)
        splits = {"train": train, "test": test}
        if 0 < fraction < 1 and (empty := [name for name, index in splits.items() if not len(index)]):
            groups = len(np.unique(self.groups))
            warnings.warn(
                f"{self.name}: expected groups for the split {empty[0]!r}, got none of {groups} in {len(self)} "
                "signals; take another fraction or seed, or give splits=",
                UserWarning,
                stacklevel=2,
            )
        splits = {name: index for name, index in splits.items() if len(index)}
        return dataclasses.replace(self, splits=splits)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def digest(self, rows: Mapping[str, np.ndarray]) -> str:
        """Hash the signals, sources and labels at ``rows`` (positions by split) by SHA-256."""
        digest = hashlib.sha256()
        for array in self._shared():
            digest.update(np.ascontiguousarray(array).tobytes())
        for name, index in rows.items():
            digest.update(name.encode())
            for start in range(0, len(index), _HASHED_AT_ONCE):
                part = index[start : start + _HASHED_AT_ONCE]
                for array in (*self.arrays().values(), self.sources, self.labels):
                    if array is not None:
                        digest.update(np.ascontiguousarray(array[part]).tobytes())
        return digest.hexdigest()

    def _split_text(self) -> str:
        return "".join(f", {name} {len(index)}" for name, index in self.splits.items())


def _check_disjoint(a: str, b: str, kind: str, first: np.ndarray, second: np.ndarray, why: str) -> None:
    if len(shared := np.intersect1d(first, second)):
        raise ValueError(
            f"splits {a!r} and {b!r} share {len(shared)} {kind}s (the first is {shared[0]}): expected every "
            f"{kind} in one split; {why}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet(SignalSet):
    """A set of images of one size.

    Args:
        images: ``[image, height, width]`` or ``[image, height, width, channel]``; uint8 from 0 to 255, or floating
            point (stored as float32, without scaling) for data that was never 8-bit.
        labels: class numbers ``[image]``, stored as int64, or None.
        sources: an integer of its own for every image ``[image]``, stored as int64. Default: 0, 1, 2...
        splits: index arrays by name, as the data set defines them (``"train"``, ``"test"``). Default: no splits.
        classes: the names of the classes, by label.
        name: the data set's name.
        licence: the terms under which the data set may be used.
        citation: the work to cite.
        groups: an integer that images of one thing share ``[image]``; splits never divide a group. Default: sources.
        names: a text for every image ``[image]``, such as the file that it was read from, or None.

    Raises:
        TypeError: if an array has another kind of number.
        ValueError: if there are no images, a pixel is not finite, lengths differ, a label or an index is out of range,
            or two splits share a source or a group.

    Warns:
        UserWarning: for floating point images whose range is far from one, such as pixels from 0.0 to 255.0.

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
    names: Any = None

    _one: ClassVar[str] = "an image"

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", checked_images(self.images))
        self._check_fields(len(self.images))

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
        return image_signals(self.images if indices is None else self.images[self._indices(indices)])

    def _size(self) -> dict[str, int]:
        height, width = self.images.shape[1:3]
        return {"height": height, "width": width}

    def _shared(self) -> tuple[np.ndarray, ...]:
        return ()
