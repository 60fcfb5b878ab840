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
from weightspace.transforms._base import EmptyDraw, Transform, draw_from, moved_points, row_count, weakest
from weightspace.transforms._check import check_input


@dataclass(frozen=True, eq=False)
class ComposeDraw:
    """One draw a stage, in the order in which they apply."""

    parts: tuple[Any, ...]
    batch: int

    def __len__(self) -> int:
        return self.batch

    def __getitem__(self, index: slice | Tensor) -> ComposeDraw:
        return ComposeDraw(tuple(part[index] for part in self.parts), row_count(self.batch, index))

    def phi(self, x: Tensor) -> Tensor:
        """The last stage's coordinates come first: ``f(T2 T1 w)(x) = f(w)(phi1(phi2(x)))``."""
        for part in reversed(self.parts):
            x = moved_points(part, x)
        return x


@dataclass(frozen=True, eq=False)
class ChoiceDraw:
    """Which transform each network gets (-1: none), and every transform's draw for all of them."""

    choice: Tensor
    parts: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.choice)

    def __getitem__(self, index: slice | Tensor) -> ChoiceDraw:
        return ChoiceDraw(self.choice[index], tuple(part[index] for part in self.parts))

    def phi(self, x: Tensor) -> Tensor:
        """Each network's own points ``[batch, point, coord]``."""
        x = x.expand(len(self), *x.shape) if x.ndim == 2 else x
        out = x
        for place, part in enumerate(self.parts):
            out = torch.where((self.choice == place)[:, None, None], moved_points(part, x), out)
        return out


class Compose(Transform):
    """Several transforms, one after the other; itself a transform.

    Args:
        transforms: in the order in which they apply.

    A stage that mixes networks draws its partners from what the earlier stages have made of the batch, labels
    included. So where labels change before a stage that mixes (two stages of MixUp, say), the labels of some rows
    follow from the whole batch alone: a slice of the draw gives their weights, but cannot give their labels. Take
    rows of ``apply_labels(soft, draw)`` instead.

    Raises:
        TypeError: if ``transforms`` is no sequence, or a member no ``Transform``.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Compose, GaussianNoise, MixUp
        >>> Compose([GaussianNoise(0.1), MixUp()]).keeps
        'nothing'
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = _members("Compose", transforms)
        self.stages = tuple(stage for t in self.transforms for stage in (t.stages or (t,))) or (Identity(),)
        self.keeps = weakest(self.stages)
        self.needs = tuple(need for t in self.stages for need in t.needs)
        self.mixes = any(t.mixes for t in self.stages)

    def __repr__(self) -> str:
        return f"Compose({list(self.transforms)!r})"

    def sample(self, weights: Weights, *, generator: torch.Generator, pool: Weights | None = None) -> ComposeDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        draws = []
        for place, stage in enumerate(self.stages):
            draws.append(draw_from(stage, weights, generator, pool))
            if any(later.mixes for later in self.stages[place + 1 :]):
                weights = stage.apply(weights, draws[-1])
        return ComposeDraw(tuple(draws), len(weights))

    def apply(self, weights: Weights, draw: ComposeDraw) -> Weights:
        for stage, part in zip(self.stages, draw.parts, strict=True):
            weights = stage.apply(weights, part)
        return weights

    def apply_labels(self, soft: Tensor, draw: ComposeDraw, *, pool: Tensor | None = None) -> Tensor:
        for stage, part in zip(self.stages, draw.parts, strict=True):
            soft = stage.apply_labels(soft, part, pool=pool)
        return soft


class OneOf(Transform):
    """Each network gets one of the transforms, drawn with equal or the given probabilities.

    Args:
        transforms: at least one.
        probabilities: one each; they are divided by their sum.

    Raises:
        TypeError: if a member is no ``Transform``, or a probability no number.
        ValueError: without members, or for probabilities that do not fit.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Flip, OneOf, Rotate
        >>> OneOf([Rotate(10.0), Flip()]).keeps
        'coordinates'
    """

    def __init__(self, transforms: Sequence[Transform], probabilities: Sequence[float] | None = None) -> None:
        self.transforms = _members("OneOf", transforms)
        given = [1.0] * len(self.transforms) if probabilities is None else _probabilities(probabilities)
        if not self.transforms or len(given) != len(self.transforms) or not 0 < sum(given) < math.inf:
            raise ValueError(
                f"OneOf: expected at least one transform and one probability each, not all zero, "
                f"got {len(self.transforms)} transforms and {given}"
            )
        self.probabilities = tuple(p / sum(given) for p in given)
        self.keeps = weakest(self.transforms)
        self.needs = tuple(need for t in self.transforms for need in t.needs)
        self.mixes = any(t.mixes for t in self.transforms)

    def __repr__(self) -> str:
        return f"OneOf({list(self.transforms)!r}, probabilities={list(self.probabilities)})"

    def sample(self, weights: Weights, *, generator: torch.Generator, pool: Weights | None = None) -> ChoiceDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        u = rand((len(weights),), generator=generator, dtype=torch.float64, device=weights.device)
        edges = torch.tensor(self.probabilities[:-1], dtype=u.dtype, device=u.device).cumsum(0)
        choice = torch.bucketize(u, edges, right=True)
        return ChoiceDraw(choice, tuple(draw_from(t, weights, generator, pool) for t in self.transforms))

    def apply(self, weights: Weights, draw: ChoiceDraw) -> Weights:
        return _apply_chosen(self.transforms, weights, draw)

    def apply_labels(self, soft: Tensor, draw: ChoiceDraw, *, pool: Tensor | None = None) -> Tensor:
        return _label_chosen(self.transforms, soft, draw, pool)


class RandomApply(Transform):
    """Each network gets the transform with probability ``p``, and is left as it is otherwise.

    Args:
        transform: what to apply; its change of the labels goes with it.
        p: probability.

    Raises:
        TypeError: if the member is no ``Transform``.
        ValueError: for a probability out of [0, 1].

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Flip, RandomApply
        >>> RandomApply(Flip(), p=0.3).keeps
        'coordinates'
    """

    def __init__(self, transform: Transform, p: float = 0.5) -> None:
        (self.transform,) = _members("RandomApply", [transform])
        self.p = probability("RandomApply", p, "a probability p")
        self.keeps, self.needs, self.mixes = transform.keeps, transform.needs, transform.mixes

    def __repr__(self) -> str:
        return f"RandomApply({self.transform!r}, p={self.p})"

    def sample(self, weights: Weights, *, generator: torch.Generator, pool: Weights | None = None) -> ChoiceDraw:
        check_input(weights, generator)
        self.check(weights.spec)
        u = rand((len(weights),), generator=generator, dtype=torch.float64, device=weights.device)
        choice = torch.where(u < self.p, 0, -1)
        return ChoiceDraw(choice, (draw_from(self.transform, weights, generator, pool),))

    def apply(self, weights: Weights, draw: ChoiceDraw) -> Weights:
        return _apply_chosen((self.transform,), weights, draw)

    def apply_labels(self, soft: Tensor, draw: ChoiceDraw, *, pool: Tensor | None = None) -> Tensor:
        return _label_chosen((self.transform,), soft, draw, pool)


@dataclass(frozen=True)
class Identity(Transform):
    """Changes nothing: the row "no augmentation" of a table.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Identity
        >>> Identity().keeps
        'function'
    """

    keeps = "function"

    def sample(self, weights: Weights, *, generator: torch.Generator) -> EmptyDraw:
        check_input(weights, generator)
        return EmptyDraw(len(weights))

    def apply(self, weights: Weights, draw: EmptyDraw) -> Weights:
        return weights.clone()


def _members(name: str, transforms: Sequence[Transform]) -> tuple[Transform, ...]:
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
    """The whole batch's labels go through each transform: partners may be rows that were not chosen themselves."""
    out = soft.clone()
    for place, (transform, part) in enumerate(zip(transforms, draw.parts, strict=True)):
        rows = (draw.choice == place).nonzero()[:, 0]
        if len(rows):
            out[rows] = transform.apply_labels(soft, part, pool=pool)[rows]
    return out
