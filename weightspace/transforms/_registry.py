"""The augmentations by name, each with the strength that its name stands for."""

from __future__ import annotations

from copy import copy
from dataclasses import fields, is_dataclass, replace
from itertools import takewhile
from typing import Any

from weightspace._plugins import find
from weightspace.transforms import coordinates, mix, noise, symmetry
from weightspace.transforms._base import Transform
from weightspace.transforms.compose import Compose, OneOf, RandomApply
from weightspace.transforms.coordinates import Rotate

AUGMENTATIONS: dict[str, Transform] = {**coordinates.NAMED, **noise.NAMED, **symmetry.NAMED, **mix.NAMED}
"""The library's augmentations by name. Strengths are frozen: records of experiments refer to them by name."""


def augmentation(name: str) -> Transform:
    """Return a transform by its name; names joined by ``+`` compose, in that order.

    Args:
        name: one or several of :data:`AUGMENTATIONS`, each maybe with a strength in place of its own
            (``rotate=30+noise=0.2``, or several numbers, ``scale=0.8,1.2``); an import path such as
            ``my_package.module:MyTransform``; or a name that an installed package declares in the entry point group
            ``weightspace.augmentations``. A class that these lead to is made without arguments.

    Raises:
        TypeError: for something other than a name.
        ValueError: for an unknown name, one that leads to something other than a transform, or a strength of one that
            takes none.

    Example:
        >>> augmentation("rotate=30+noise=0.2").members
        (Rotate(degrees=30.0), GaussianNoise(std=0.2))
        >>> augmentation("sign+noise").preserves
        'nothing'
        >>> augmentation("weightspace.transforms:Permute")
        Permute()
    """
    if not isinstance(name, str):
        raise TypeError(f"augmentation: expected a name such as 'sign+noise', got {name!r}; a Transform needs no name")
    made = [_made(part) for part in name.split("+")]
    return made[0] if len(made) == 1 else Compose(made)


def for_pictures(transform: Transform, size: tuple[int, ...]) -> Transform:
    """Return a transform whose rotations, also those within compositions, keep distances in pictures of this size."""
    if isinstance(transform, Rotate):
        return replace(transform, size=size) if transform.size is None else transform
    if isinstance(transform, Compose | OneOf | RandomApply):
        made = copy(transform)
        made.members = tuple(for_pictures(member, size) for member in transform.members)
        return made
    return transform


def shears(transform: Transform) -> bool:
    """Return whether a transform, or a member of it, would shear pictures of unequal sides: it rotates without size."""
    own = isinstance(transform, Rotate) and transform.size is None
    return own or any(shears(member) for member in transform.members)


def _made(text: str) -> Transform:
    name, equals, strength = text.partition("=")
    made = _of_name(name)
    return _with_strength(made, name, strength) if equals else made


def _with_strength(transform: Transform, name: str, text: str) -> Transform:
    """Return a transform with other numbers in its first fields."""
    own = fields(transform) if is_dataclass(transform) else ()
    numbers = list(takewhile(lambda field: type(getattr(transform, field.name)) in (int, float), own))
    given = text.split(",")
    if not numbers or len(given) > len(numbers):
        most = f"at most {len(numbers)} numbers" if numbers else "no strength"
        raise ValueError(f"augmentations: expected {name} with {most}, got {text!r}; its own is {transform!r}")
    try:
        values = {f.name: type(getattr(transform, f.name))(v) for f, v in zip(numbers, given, strict=False)}
    except ValueError as error:
        raise ValueError(f"augmentations: expected a number behind {name}=, got {text!r}") from error
    return replace(transform, **values)  # pyright: ignore[reportArgumentType]


def _of_name(name: str) -> Transform:
    found = find("augmentations", name, AUGMENTATIONS, _problem)
    if isinstance(found, Transform):
        return found
    try:
        return found()
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"augmentations: {name}: expected a class that is made without arguments, got {said}; "
            "name an instance of it instead"
        ) from error


def _problem(found: Any) -> str | None:
    if isinstance(found, Transform) or (isinstance(found, type) and issubclass(found, Transform)):
        return None
    got = found.__name__ if isinstance(found, type) else type(found).__name__
    return f"expected a Transform or a subclass of it, got {got}"
