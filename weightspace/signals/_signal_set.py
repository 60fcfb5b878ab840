"""``SignalSet``: what sets of images and sets of points share: labels, sources, groups, splits, and whom to cite."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from weightspace._split import split_by_source
from weightspace.signals._arrays import checked_labels, indices, integers

_HASHED_AT_ONCE = 4096


class SignalSet(ABC):
    """Signals with labels, stable sources and splits; abstract, see ``ImageSet`` and ``PointSet``.

    A **source** is an integer of its own for every signal, which stays with it in every subset: seeds go by it. A
    **group** is an integer shared by all signals that show the same thing (drawings of one concept, parts of one
    family): splits go by it. Where nothing else is known every signal is a group of its own.

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

    _one: ClassVar[str] = "a signal"

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """The fields that have one row a signal."""

    @property
    @abstractmethod
    def in_features(self) -> int:
        """Coordinates of a point: the inputs of a network fitted to these signals."""

    @property
    @abstractmethod
    def out_features(self) -> int:
        """Values at a point: the outputs of a network fitted to these signals."""

    @abstractmethod
    def signals(self, indices: Any = None) -> tuple[Tensor, Tensor]:
        """What :func:`weightspace.fitting` takes: ``coords`` and ``targets`` of the signals at ``indices``, float32.

        Args:
            indices: integers in ``[0, len)``, a boolean mask ``[signal]``, or None for all.

        Returns:
            ``coords [point, in]``, or ``[signal, point, in]`` where every signal has points of its own, and
            ``targets [signal, point, out]``.
        """

    def about(self) -> dict[str, Any]:
        """What a zoo's manifest records of the data."""
        return {"data": self.name, "licence": self.licence, "citation": self.citation, **self._size()}

    @abstractmethod
    def _size(self) -> dict[str, int]:
        """How large a signal is, for :meth:`about`."""

    @abstractmethod
    def _shared(self) -> tuple[np.ndarray, ...]:
        """Arrays that belong to all signals at once."""

    def _settle(self, count: int) -> None:
        """Check and convert what all sets share; called once by ``__post_init__``."""
        sources = np.arange(count) if self.sources is None else integers(self.sources, "sources", count, self._one)
        groups = sources if self.groups is None else integers(self.groups, "groups", count, self._one)
        splits = {k: indices(v, f"splits[{k!r}]", count) for k, v in self.splits.items()}
        for name, value in (
            ("sources", sources),
            ("groups", groups),
            ("classes", tuple(str(c) for c in self.classes)),
            ("splits", splits),
        ):
            object.__setattr__(self, name, value)
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
        """The signals at ``indices``, in that order, with their labels and sources; splits shrink to what is left.

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
        return dataclasses.replace(self, **changed)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _indices(self, values: Any) -> np.ndarray:
        return indices(values, "indices", len(self))

    def split(self, name: str) -> Self:
        """The signals of one split, in the split's order.

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
        """The same signals with new ``"train"`` and ``"test"`` splits, drawn by group.

        A split that would be empty is left out.

        Args:
            fraction: the share of the groups to go into the test split.
            seed: another seed draws other groups.

        Example:
            >>> import numpy as np
            >>> import weightspace as ws
            >>> data = ws.signals.ImageSet(np.zeros((100, 8, 8), np.uint8)).with_split(0.3)
            >>> sorted(data.splits), sum(len(index) for index in data.splits.values())
            (['test', 'train'], 100)
        """
        train, test = split_by_source(self.groups, fraction, seed)
        splits = {"train": train, "test": test}
        splits = {name: index for name, index in splits.items() if len(index)}
        return dataclasses.replace(self, splits=splits)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def digest(self, rows: Mapping[str, np.ndarray]) -> str:
        """SHA-256 of the signals, sources and labels at ``rows`` (positions by split): equal for equal data alone."""
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


def _check_disjoint(a: str, b: str, what: str, first: np.ndarray, second: np.ndarray, why: str) -> None:
    if len(shared := np.intersect1d(first, second)):
        raise ValueError(
            f"splits {a!r} and {b!r} share {len(shared)} {what}s (the first is {shared[0]}): expected every "
            f"{what} in one split; {why}"
        )
