"""``Transform``: what every augmentation is, a pair of pure functions ``sample`` and ``apply``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.transforms._check import Need, check_input, check_pool, holds, soft_labels

Keeps = Literal["function", "coordinates", "nothing"]
_ORDER: tuple[Keeps, ...] = ("function", "coordinates", "nothing")


class Draw(Protocol):
    """What ``sample`` returns: random numbers for a batch, one entry a network, and nothing else."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor, /) -> Self: ...


class Transform(ABC):
    r"""An augmentation of weights: ``sample`` draws, ``apply`` applies, calling does both.

    A subclass writes ``sample`` and ``apply``; one that changes labels also writes ``apply_labels``, the one
    hook with a default. The draw is indexable by rows, so that ``apply(w[i:i+1], draw[i:i+1])`` is row ``i`` of
    ``apply(w, draw)``. Inputs are never written, and a transform keeps no state.

    Attributes:
        keeps: ``"function"``: ``f(Tw) = f(w)``; ``"coordinates"``: ``f(Tw)(x) = f(w)(phi(x))`` with the draw's
            ``phi``; ``"nothing"``: another function.
        needs: what it asks of the spec, checked once per spec.
        mixes: whether a draw holds other networks. Then ``sample`` takes ``pool=`` and looks at the weights.
        stages: the transforms that a call runs one after the other; empty stands for the transform itself.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Compose, GaussianNoise, Rotate
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(4, spec.num_params, generator=gen), spec)
        >>> Compose([GaussianNoise(0.1), Rotate(15.0)])(w, generator=gen)
        Weights(4x1185, torch.float32, cpu)
    """

    keeps: Keeps
    needs: tuple[Need, ...] = ()
    mixes: bool = False
    stages: tuple[Transform, ...] = ()

    @abstractmethod
    def sample(self, weights: Weights, *, generator: torch.Generator) -> Any:
        """Draw the random numbers for every network of the batch, independently.

        Args:
            weights: the networks; most transforms look at their number and spec alone.
            generator: source of randomness.

        Returns:
            A draw: indexable by rows, with one entry a network.
        """

    @abstractmethod
    def apply(self, weights: Weights, draw: Any) -> Weights:
        """Apply a draw: deterministic, out of place."""

    def apply_labels(self, soft: Tensor, draw: Any, *, pool: Tensor | None = None) -> Tensor:
        """What the draw does to the labels; unless a subclass says otherwise, nothing.

        Args:
            soft: ``[batch, class]``.
            draw: what ``sample`` returned.
            pool: ``[pool, class]``, the labels of the networks that partners come from; by default ``soft``.
        """
        return soft

    def check(self, spec: NetSpec) -> None:
        """Refuse a spec that lacks what the transform needs; cached, so a second call costs nothing.

        Raises:
            ValueError: with expected, got and the remedy.
        """
        for need in self.needs:
            if not holds(need, spec):
                raise ValueError(f"{self!r}: expected {need.expected}, got {need.got(spec)}; {need.remedy}")

    def __call__(
        self,
        weights: Weights,
        labels: Tensor | None = None,
        *,
        num_classes: int | None = None,
        generator: torch.Generator,
        pool: Weights | tuple[Weights, Tensor] | None = None,
    ) -> Any:
        """Draw and apply.

        Args:
            weights: ``[batch, param]``.
            labels: int64 ``[batch]`` or soft ``[batch, class]``.
            num_classes: number of classes; needed for int64 labels.
            generator: source of randomness.
            pool: the networks (with ``labels``: a pair of networks and their labels) that MixUp partners come
                from, as they are: earlier stages of a composition do not touch them. By default the batch itself.

        Returns:
            ``Weights``; with ``labels`` the pair of ``Weights`` and soft labels ``[batch, class]``.

        Raises:
            TypeError: if ``weights`` is no ``Weights`` or ``generator`` no generator.
            ValueError: if the spec lacks what the transform needs, or labels or pool do not fit.
        """
        check_input(weights, generator)
        soft = None if labels is None else soft_labels(labels, num_classes, weights)
        partners, partner_soft = self._pool(weights, soft, pool)
        for stage in self.stages or (self,):
            stage.check(weights.spec)
        for stage in self.stages or (self,):
            draw = draw_from(stage, weights, generator, partners)
            weights = stage.apply(weights, draw)
            soft = None if soft is None else stage.apply_labels(soft, draw, pool=partner_soft)
        return weights if soft is None else (weights, soft)

    def _pool(
        self, weights: Weights, soft: Tensor | None, pool: Weights | tuple[Weights, Tensor] | None
    ) -> tuple[Weights | None, Tensor | None]:
        if pool is None:
            return None, None
        if not self.mixes:
            raise ValueError(f"{self!r}: expected no pool, got one; it mixes no networks, leave pool out")
        partners, labels = pool if isinstance(pool, tuple) else (pool, None)
        check_pool(weights, partners)
        if soft is None:
            return partners, None
        if labels is None:
            raise ValueError("pool: expected (weights, labels) because labels are mixed too, got weights alone")
        found = soft_labels(labels, soft.shape[1], partners, name="pool labels")
        return partners, found.to(soft)


def draw_from(transform: Transform, weights: Weights, generator: torch.Generator, pool: Weights | None) -> Any:
    """``transform.sample``, handing the pool to those that mix."""
    extra: dict[str, Any] = {"pool": pool} if transform.mixes else {}
    return transform.sample(weights, generator=generator, **extra)


def moved_points(draw: Any, x: Tensor) -> Tensor:
    """``phi(x)`` of a draw; draws without a ``phi`` leave the points where they are."""
    return draw.phi(x) if hasattr(draw, "phi") else x


def weakest(transforms: tuple[Transform, ...]) -> Keeps:
    """What all of them together keep."""
    return _ORDER[max((_ORDER.index(t.keeps) for t in transforms), default=0)]


def row_count(batch: int, index: slice | Tensor) -> int:
    """How many of ``batch`` rows an index picks."""
    return len(torch.arange(batch)[index.cpu() if isinstance(index, Tensor) else index])


@dataclass(frozen=True, eq=False)
class EmptyDraw:
    """A draw without random numbers."""

    batch: int

    def __len__(self) -> int:
        return self.batch

    def __getitem__(self, index: slice | Tensor) -> EmptyDraw:
        return EmptyDraw(row_count(self.batch, index))
