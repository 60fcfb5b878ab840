"""Sets of signals given by values at any points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import warn_if_wide
from weightspace.signals._arrays import checked_floats
from weightspace.signals._sets import SignalSet


@dataclass(frozen=True, eq=False, repr=False)
class PointSet(SignalSet):
    """A set of signals given by values at points: series, distances to meshes, any field that was sampled.

    Args:
        coords: ``[point, in]`` where all signals share their points, or ``[signal, point, in]``; floating point, on
            [-1, 1] by convention. float16 is stored as it is, every other type as float32.
        targets: ``[signal, point, out]``, floating point, stored likewise. Bring them to a range of one: the PSNR
            assumes it.
        labels: class numbers ``[signal]``, stored as int64, or None.
        sources: an integer of its own for every signal ``[signal]``, stored as int64. Default: 0, 1, 2...
        splits: index arrays by name. Default: no splits.
        classes: the names of the classes, by label.
        name: the data set's name.
        licence: the terms under which the data set may be used.
        citation: the work to cite.
        groups: an integer that signals of one thing share ``[signal]``; splits never divide a group. Default: sources.
        names: a text for every signal ``[signal]``, such as the file that it was read from, or None.

    Raises:
        TypeError: if an array has another kind of number.
        ValueError: for shapes that do not go together, numbers that are not finite, lengths that differ, a label or an
            index out of range, or two splits that share a source or a group.

    Warns:
        UserWarning: for targets whose range is far from one.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> coords = torch.rand(5, 100, 3) * 2 - 1  # every signal has points of its own
        >>> data = ws.signals.PointSet(coords, coords.norm(dim=2, keepdim=True) - 0.5, labels=[0, 1, 0, 1, 0])
        >>> data.subset([1, 3])
        PointSet('signals', 2 signals of 100 points, 3 -> 1)
    """

    coords: Any
    targets: Any
    labels: Any = None
    sources: Any = None
    splits: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    name: str = "signals"
    licence: str = "unknown"
    citation: str = ""
    groups: Any = None
    names: Any = None

    def __post_init__(self) -> None:
        coords, targets = checked_floats(self.coords, "coords"), checked_floats(self.targets, "targets")
        warn_if_wide("targets", float(targets.min()), float(targets.max()))
        if targets.ndim != 3:
            raise ValueError(
                f"targets: expected [signal, point, out], got {list(targets.shape)}; "
                "use targets[..., None] for one value"
            )
        if coords.ndim not in (2, 3) or coords.shape[:-1] not in (targets.shape[1:2], targets.shape[:2]):
            raise ValueError(
                f"coords: expected [{targets.shape[1]}, in] for points that all signals share, or "
                f"[{targets.shape[0]}, {targets.shape[1]}, in], got {list(coords.shape)}"
            )
        object.__setattr__(self, "coords", coords)
        object.__setattr__(self, "targets", targets)
        self._check_fields(len(targets))

    def __repr__(self) -> str:
        count, points, out = self.targets.shape
        sizes = f"{count} signals of {points} points, {self.in_features} -> {out}"
        return f"PointSet({self.name!r}, {sizes}{self._split_text()})"

    def arrays(self) -> dict[str, np.ndarray]:
        own = {"coords": self.coords} if self.coords.ndim == 3 else {}
        return {"targets": self.targets, **own}

    @property
    def in_features(self) -> int:
        return self.coords.shape[-1]

    @property
    def out_features(self) -> int:
        return self.targets.shape[-1]

    def signals(self, indices: Any = None) -> tuple[Tensor, Tensor]:
        rows = slice(None) if indices is None else self._indices(indices)
        coords = self.coords if self.coords.ndim == 2 else self.coords[rows]
        return _float32(coords), _float32(self.targets[rows])

    def _size(self) -> dict[str, int]:
        return {"points": self.targets.shape[1]}

    def _shared(self) -> tuple[np.ndarray, ...]:
        return (self.coords,) if self.coords.ndim == 2 else ()


def _float32(array: np.ndarray) -> Tensor:
    """Copy an array, so that writing to the tensor does not change the data set."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
