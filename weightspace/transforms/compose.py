"""Transforms made of transforms: one after the other, with a probability, one of several."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weightspace._checks import number, probability
from weightspace._random import rand
from weightspace._weights import Weights
from weightspace.transforms._base import EmptyDraw, Transform, moved_points, row_count, sample_from, weakest
from weightspace.transforms._check import check_input


@dataclass(frozen=True, eq=False)
class ComposeDraw:
    """The draws of all stages, in the order in which they apply."""

    parts: tuple[Any, ...]
    batch: int

    def __len__(self) -> int:
        return self.batch

    def __getitem__(self, index: slice | Tensor) -> ComposeDraw:
        return ComposeDraw(tuple(part[index] for part in self.parts), row_count(self.batch, index))

    def phi(self, x: Tensor) -> Tensor:
        """Return ``phi(x)``; the last stage moves the points first: ``f(T2 T1 w)(x) = f(w)(phi1(phi2(x)))``."""
        for part in reversed(self.parts):
            x = moved_points(part, x)
        return x


@dataclass(frozen=True, eq=False)
class ChoiceDraw:
    """The transform that each network gets (-1: none), and the draw of every transform for the whole batch."""

    choice: Tensor
    parts: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.choice)

    def __getitem__(self, index: slice | Tensor) -> ChoiceDraw:
        return ChoiceDraw(self.choice[index], tuple(part[index] for part in self.parts))

    def phi(self, x: Tensor) -> Tensor:
        """Return the points of each network, ``[batch, point, coord]``."""
        x = x.expand(len(self), *x.shape) if x.ndim == 2 else x
        out = x
        for place, part in enumerate(self.parts):
            out = torch.where((self.choice == place)[:, None, None], moved_points(part, x), out)
        return out


class Compose(Transform):
    """Several transforms, one after the other.

    Args:
        transforms: in the order in which they apply. Compositions among them are joined into this one.

    Raises:
        TypeError: if a member is not a ``Transform``.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Compose, GaussianNoise, MixUp
        >>> Compose([GaussianNoise(0.1), MixUp()]).preserves
        'nothing'
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        given = _checked("Compose", transforms)
        self.members = tuple(m for t in given for m in (t.members if isinstance(t, Compose) else (t,))) or (Identity(),)
        self.preserves = weakest(self.members)
        self.mixes_networks = any(member.mixes_networks for member in self.members)

    def __repr__(self) -> str:
        return f"Compose({list(self.members)!r})"

    def sample(self, weights: Weights, *, generator: torch.Generator, pool: Weights | None = None) -> ComposeDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        last = max((place for place, member in enumerate(self.members) if member.mixes_networks), default=0)
        return self._run(weights, generator, pool, applied=last)[1]

    def _sample_and_apply(
        self, weights: Weights, generator: torch.Generator, pool: Weights | None
    ) -> tuple[Weights, ComposeDraw]:
        return self._run(weights, generator, pool, applied=len(self.members))

    def _run(
        self, weights: Weights, generator: torch.Generator, pool: Weights | None, applied: int
    ) -> tuple[Weights, ComposeDraw]:
        """Draw for every stage from the weights that earlier stages made, and apply the first ``applied`` stages.

        A stage that mixes networks reads them, so all stages before the last of those must be applied to draw.
        """
        draws = []
        for place, stage in enumerate(self.members):
            draws.append(sample_from(stage, weights, generator, pool))
            if place < applied:
                weights = stage.apply(weights, draws[-1])
        return weights, ComposeDraw(tuple(draws), len(weights))

    def apply(self, weights: Weights, draw: ComposeDraw) -> Weights:
        for stage, part in zip(self.members, draw.parts, strict=True):
            weights = stage.apply(weights, part)
        return weights

    def apply_labels(self, soft: Tensor, draw: ComposeDraw, *, pool: Tensor | None = None) -> Tensor:
        for stage, part in zip(self.members, draw.parts, strict=True):
            soft = stage.apply_labels(soft, part, pool=pool)
        return soft


class OneOf(Transform):
    """A choice: each network gets one of the transforms, drawn with equal or the given probabilities.

    Args:
        transforms: at least one.
        probabilities: one for each transform; they are divided by their sum.

    Raises:
        TypeError: if a member is not a ``Transform``, or a probability is not a number.
        ValueError: without members, or for probabilities that do not fit.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Flip, OneOf, Rotate
        >>> OneOf([Rotate(10.0), Flip()]).preserves
        'coordinates'
    """

    def __init__(self, transforms: Sequence[Transform], probabilities: Sequence[float] | None = None) -> None:
        self.members = _checked("OneOf", transforms)
        given = [1.0] * len(self.members) if probabilities is None else _probabilities(probabilities)
        if not self.members or len(given) != len(self.members) or not 0 < sum(given) < math.inf:
            raise ValueError(
                f"OneOf: expected at least one transform and one probability each, not all zero, "
                f"got {len(self.members)} transforms and {given}"
            )
        self.probabilities = tuple(p / sum(given) for p in given)
        self.preserves = weakest(self.members)
        self.mixes_networks = any(member.mixes_networks for member in self.members)

    def __repr__(self) -> str:
        return f"OneOf({list(self.members)!r}, probabilities={list(self.probabilities)})"

    def sample(self, weights: Weights, *, generator: torch.Generator, pool: Weights | None = None) -> ChoiceDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        u = rand((len(weights),), generator=generator, dtype=torch.float64, device=weights.device)
        edges = torch.tensor(self.probabilities[:-1], dtype=u.dtype, device=u.device).cumsum(0)
        choice = torch.bucketize(u, edges, right=True)
        return ChoiceDraw(choice, tuple(sample_from(t, weights, generator, pool) for t in self.members))

    def apply(self, weights: Weights, draw: ChoiceDraw) -> Weights:
        return _apply_chosen(self.members, weights, draw)

    def apply_labels(self, soft: Tensor, draw: ChoiceDraw, *, pool: Tensor | None = None) -> Tensor:
        return _label_chosen(self.members, soft, draw, pool)


class RandomApply(Transform):
    """A choice to apply or not: each network gets the transform with probability ``p`` and stays as it is otherwise.

    Args:
        transform: the transform, or a list of transforms that are applied one after the other; where it is applied, so
            is its change of the labels.
        p: probability.

    Raises:
        TypeError: if a member is not a ``Transform``.
        ValueError: for a probability out of [0, 1].

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Flip, RandomApply
        >>> RandomApply(Flip(), p=0.3).preserves
        'coordinates'
    """

    def __init__(self, transform: Transform | Sequence[Transform], p: float = 0.5) -> None:
        whole: Any = Compose(transform) if isinstance(transform, list | tuple) else transform
        self.members = _checked("RandomApply", [whole])
        self.p = probability("RandomApply", p, "a probability p")
        self.preserves, self.mixes_networks = self.members[0].preserves, self.members[0].mixes_networks

    def __repr__(self) -> str:
        return f"RandomApply({self.members[0]!r}, p={self.p})"

    def sample(self, weights: Weights, *, generator: torch.Generator, pool: Weights | None = None) -> ChoiceDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        u = rand((len(weights),), generator=generator, dtype=torch.float64, device=weights.device)
        choice = torch.where(u < self.p, 0, -1)
        return ChoiceDraw(choice, (sample_from(self.members[0], weights, generator, pool),))

    def apply(self, weights: Weights, draw: ChoiceDraw) -> Weights:
        return _apply_chosen(self.members, weights, draw)

    def apply_labels(self, soft: Tensor, draw: ChoiceDraw, *, pool: Tensor | None = None) -> Tensor:
        return _label_chosen(self.members, soft, draw, pool)


@dataclass(frozen=True)
class Identity(Transform):
    """A transform that changes nothing: the row "no augmentation" of a table.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Identity
        >>> Identity().preserves
        'function'
    """

    preserves = "function"

    def sample(self, weights: Weights, *, generator: torch.Generator) -> EmptyDraw:
        check_input(weights, generator)
        return EmptyDraw(len(weights))

    def apply(self, weights: Weights, draw: EmptyDraw) -> Weights:
        return weights.clone()


def _checked(name: str, transforms: Sequence[Transform]) -> tuple[Transform, ...]:
    if isinstance(transforms, Transform) or not isinstance(transforms, Iterable):
        raise TypeError(f"{name}: expected a sequence of transforms, got {transforms!r}; put it in a list")
    members = tuple(transforms)
    for member in members:
        if not isinstance(member, Transform):
            raise TypeError(f"{name}: expected transforms, got {type(member).__name__}: {member!r}")
    return members


def _probabilities(given: Sequence[float] | Tensor) -> list[float]:
    given = given.tolist() if isinstance(given, Tensor) else given
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"OneOf: expected a sequence of probabilities, got {given!r}; pass one for each transform")
    return [number("OneOf", p, "probabilities >= 0", low=0) for p in given]


def _apply_chosen(transforms: tuple[Transform, ...], weights: Weights, draw: ChoiceDraw) -> Weights:
    out = weights.flat.clone()
    for place, (transform, part) in enumerate(zip(transforms, draw.parts, strict=True)):
        rows = (draw.choice == place).nonzero()[:, 0]
        if len(rows):
            out[rows] = transform.apply(weights[rows], part[rows]).flat
    return weights.replace(out)


def _label_chosen(transforms: tuple[Transform, ...], soft: Tensor, draw: ChoiceDraw, pool: Tensor | None) -> Tensor:
    """Send the labels of the whole batch through each transform: partners may be rows that were not chosen."""
    out = soft.clone()
    for place, (transform, part) in enumerate(zip(transforms, draw.parts, strict=True)):
        rows = (draw.choice == place).nonzero()[:, 0]
        if len(rows):
            out[rows] = transform.apply_labels(soft, part, pool=pool)[rows]
    return out
