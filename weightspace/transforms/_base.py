"""``Transform``: the base of every augmentation, a pair of pure functions ``sample`` and ``apply``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, get_args

import torch
from torch import Tensor

from weightspace._networks import Networks
from weightspace._random import new_generator
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.transforms._check import check_input, check_pool, soft_labels
from weightspace.transforms.requirements import Requirement, holds

Preserves = Literal["function", "coordinates", "nothing"]
"""The promises that a transform can make, from the strongest to none."""
_STRENGTHS: tuple[Preserves, ...] = get_args(Preserves)


class Draw(Protocol):
    """A batch of random numbers as ``sample`` returns it: one entry a network, indexable by rows."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor, /) -> Self: ...


class Transform(ABC):
    r"""An augmentation of weights: ``sample`` draws, ``apply`` applies the draw, and a call does both.

    A subclass writes ``sample`` and ``apply``. One that changes labels also writes ``apply_labels``, which leaves them
    alone by default. A draw is indexable by rows, so that ``apply(w[i:i+1], draw[i:i+1])`` is row ``i`` of
    ``apply(w, draw)``. Inputs are never written, and a transform keeps no state. Two transforms are equal if they are
    of one class and print the same.

    Attributes:
        preserves: ``"function"``: ``f(Tw) = f(w)``; ``"coordinates"``: ``f(Tw)(x) = f(w)(phi(x))`` with the draw's
            ``phi``; ``"nothing"``: another function.
        requires: conditions on the spec, checked once for each spec.
        mixes_networks: whether a draw contains other networks. Then ``sample`` takes ``pool=`` and reads the weights.
        members: the transforms that this one is made of. Their requirements are checked with its own.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.transforms import Compose, GaussianNoise, Rotate
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.Weights(torch.randn(4, spec.num_params, generator=gen), spec)
        >>> Compose([GaussianNoise(0.1), Rotate(15.0)])(w, generator=gen)
        Weights(4x1185, torch.float32, cpu)
    """

    preserves: Preserves
    requires: tuple[Requirement, ...] = ()
    mixes_networks: bool = False
    members: tuple[Transform, ...] = ()

    @abstractmethod
    def sample(self, weights: Weights, *, generator: torch.Generator) -> Any:
        """Draw the random numbers for every network of the batch, independently.

        Args:
            weights: ``[batch, param]``; most transforms read their number and their spec alone.
            generator: source of randomness.

        Returns:
            A draw: indexable by rows, with one entry for each network.
        """

    @abstractmethod
    def apply(self, weights: Weights, draw: Any) -> Weights:
        """Apply a draw, deterministically and out of place."""

    def apply_labels(self, soft: Tensor, draw: Any, *, pool: Tensor | None = None) -> Tensor:
        """Return what the draw makes of the labels; by default they stay as they are.

        Args:
            soft: ``[batch, class]``.
            draw: a draw of :meth:`sample`.
            pool: ``[pool, class]``, the labels of the networks that partners come from; by default ``soft``.
        """
        return soft

    def check(self, spec: NetSpec) -> None:
        """Raise ``ValueError`` for a spec that does not meet a requirement; asking again costs nothing.

        Raises:
            ValueError: with expected, got and the remedy.
        """
        for member in self.members:
            member.check(spec)
        for requirement in self.requires:
            if not holds(requirement, spec):
                expected, got = requirement.expected, requirement.got(spec)
                raise ValueError(f"{self!r}: expected {expected}, got {got}; {requirement.remedy}")

    def __call__(
        self,
        weights: Weights | Networks,
        labels: Tensor | None = None,
        *,
        num_classes: int | None = None,
        generator: torch.Generator | None = None,
        pool: Weights | tuple[Weights, Tensor] | None = None,
    ) -> Any:
        """Draw and apply.

        Args:
            weights: ``[batch, param]``; or ``Networks``, for a transform that leaves labels alone.
            labels: int64 ``[batch]`` or soft ``[batch, class]``.
            num_classes: number of classes, needed for int64 labels.
            generator: source of randomness; by default a new one, seeded from torch's global generator, so that
                ``torch.manual_seed`` repeats it and the workers of a ``DataLoader`` draw independently.
            pool: the networks (with ``labels``: a pair of networks and their labels) that MixUp partners come
                from, as they are: earlier stages of a composition do not touch them. By default the batch itself.

        Returns:
            ``Weights``; with ``labels`` the pair of ``Weights`` and soft labels ``[batch, class]``; for ``Networks``
            the same ``Networks`` with other weights, without PSNR unless the function is preserved.

        Raises:
            TypeError: if ``weights`` is neither ``Weights`` nor ``Networks``, or ``generator`` is not a generator.
            ValueError: if the spec does not meet a requirement, if labels or pool do not fit, or for ``Networks`` whose
                labels would have to change.
        """
        if generator is None and isinstance(weights, Weights | Networks):
            generator = new_generator((weights.weights if isinstance(weights, Networks) else weights).device)
        if isinstance(weights, Networks):
            return self._call_on_networks(weights, labels, pool, generator)
        generator = check_input(weights, generator)
        soft = None if labels is None else soft_labels(labels, num_classes, weights)
        partners, partner_soft = self._pool(weights, soft, pool)
        self.check(weights.spec)
        moved, draw = self._sample_and_apply(weights, generator, partners)
        return moved if soft is None else (moved, self.apply_labels(soft, draw, pool=partner_soft))

    def _sample_and_apply(
        self, weights: Weights, generator: torch.Generator, pool: Weights | None
    ) -> tuple[Weights, Any]:
        """Draw and apply in one go; ``Compose`` does it stage by stage, so that no stage is applied twice."""
        draw = sample_from(self, weights, generator, pool)
        return self.apply(weights, draw), draw

    def _call_on_networks(
        self, networks: Networks, labels: Tensor | None, pool: object, generator: torch.Generator | None
    ) -> Networks:
        if labels is not None or pool is not None:
            given = "labels" if labels is not None else "a pool"
            raise ValueError(f"{self!r}: expected Networks alone, got {given} beside them; pass networks.weights")
        if changes_labels(self):
            raise ValueError(
                f"{self!r}: expected a transform that leaves labels alone, got one that changes them; call it as "
                "aug(networks.weights, networks.label, num_classes=..., generator=...)"
            )
        moved = self(networks.weights, generator=generator)
        return networks.replace(weights=moved, psnr=networks.psnr if self.preserves == "function" else None)

    def _pool(
        self, weights: Weights, soft: Tensor | None, pool: Weights | tuple[Weights, Tensor] | None
    ) -> tuple[Weights | None, Tensor | None]:
        if pool is None:
            return None, None
        if not self.mixes_networks:
            raise ValueError(f"{self!r}: expected no pool, got one; it mixes no networks, leave pool out")
        partners, labels = pool if isinstance(pool, tuple) else (pool, None)
        check_pool(weights, partners)
        if soft is None:
            return partners, None
        if labels is None:
            raise ValueError("pool: expected (weights, labels) because labels are mixed too, got weights alone")
        found = soft_labels(labels, soft.shape[1], partners, name="pool labels")
        return partners, found.to(soft)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))


def sample_from(transform: Transform, weights: Weights, generator: torch.Generator, pool: Weights | None) -> Any:
    """Call ``transform.sample``, with the pool where the transform mixes networks."""
    extra: dict[str, Any] = {"pool": pool} if transform.mixes_networks else {}
    return transform.sample(weights, generator=generator, **extra)


def changes_labels(transform: Transform) -> bool:
    """Return whether a call may change labels: it mixes networks, or ``apply_labels`` is its own or a member's."""
    if transform.mixes_networks:
        return True
    own = type(transform).apply_labels is not Transform.apply_labels
    return own and (not transform.members or any(changes_labels(member) for member in transform.members))


def moved_points(draw: Any, x: Tensor) -> Tensor:
    """Return ``phi(x)`` of a draw; a draw without ``phi`` leaves the points where they are."""
    return draw.phi(x) if hasattr(draw, "phi") else x


def weakest(transforms: tuple[Transform, ...]) -> Preserves:
    """Return what all of the transforms together preserve."""
    return _STRENGTHS[max((_STRENGTHS.index(t.preserves) for t in transforms), default=0)]


def row_count(batch: int, index: slice | Tensor) -> int:
    """Return how many of ``batch`` rows an index picks."""
    return len(torch.arange(batch)[index.cpu() if isinstance(index, Tensor) else index])


@dataclass(frozen=True, eq=False)
class EmptyDraw:
    """A draw without random numbers."""

    batch: int

    def __len__(self) -> int:
        return self.batch

    def __getitem__(self, index: slice | Tensor) -> EmptyDraw:
        return EmptyDraw(row_count(self.batch, index))
