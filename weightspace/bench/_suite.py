"""Suites: a grid of models, augmentations and seeds, and the budget of every cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from weightspace._checks import whole_number
from weightspace._plugins import find
from weightspace.models import WeightModel
from weightspace.training import Objective, TrainConfig
from weightspace.transforms import Transform, augmentation
from weightspace.zoo import Zoo

Augmentations = tuple[str, ...] | Mapping[str, str | Transform | None]
"""Names of augmentations, or a mapping from a name to an expression of names, a transform, or None for no change."""

Evaluation = Callable[[WeightModel, Zoo, str], Mapping[str, float]]
"""A further evaluation of a trained model: ``evaluation(model, zoo, device)`` returns scores by their names."""


@dataclass(frozen=True)
class Entry:
    """A model of the grid, with what its cells change in the suite.

    Args:
        model: name of the model, or an import path such as ``my_package.models:MyModel``.
        options: of the model.
        train: fields of the suite's :class:`~weightspace.TrainConfig` to replace.
        augmentations: of this model, besides the suite's own; written as those.
        seeds: of this model, besides the suite's own.
        outputs: number of the model's outputs; the number of classes if None.
        objective: what the model is trained for, or its name or import path; classification if None.
        evaluations: further evaluations of the trained model, by the names under which the record holds them.
        ensemble: whether to evaluate the mean of the outputs of a row's seeds too.

    Raises:
        TypeError: for augmentations that are one name.

    Example:
        >>> entry = Entry("dwsnet", {"hidden": 16}, {"lr": 4e-3}, augmentations=("permute",))
        >>> entry.model, entry.train
        ('dwsnet', {'lr': 0.004})
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    augmentations: Augmentations = ()
    seeds: tuple[int, ...] = ()
    outputs: int | None = None
    objective: Objective | str | None = None
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    ensemble: bool = False

    def __post_init__(self) -> None:
        _check_augmentations(self.augmentations)


@dataclass(frozen=True)
class Suite:
    """A grid to measure: every model with every augmentation and seed, under one budget.

    A suite is a literal: it lists all that it runs, so that what the package gains later changes no suite. A suite that
    is changed gets another version, and a folder of results holds one version.

    Args:
        name: of the suite.
        entries: the models, by the names of their rows.
        augmentations: of every model: names such as ``"rotate"`` or ``"permute+noise"`` or import paths, with
            ``"none"`` for no augmentation; or a mapping from a row's name to such a name, a transform, or None.
        train: the budget of each cell.
        seeds: that run for every row.
        leaders: how many rows of each track run the further seeds too, best first by validation score; so does the row
            without augmentation of every model among them.
        leader_seeds: those further seeds.
        version: a whole number, raised when the grid changes.

    Raises:
        TypeError: for augmentations that are one name.
        ValueError: for a suite without models, or names that cannot name a folder.

    Example:
        >>> from weightspace.transforms import MixUp
        >>> mixes = {"none": None, "mixup-ends": MixUp(alpha=0.2), "both": "permute+mixup"}
        >>> suite = Suite("mine", {"mlp": Entry("mlp")}, mixes, TrainConfig(epochs=3))
        >>> suite.rows
        (('mlp', 'none'), ('mlp', 'mixup-ends'), ('mlp', 'both'))
    """

    name: str
    entries: Mapping[str, Entry]
    augmentations: Augmentations
    train: TrainConfig
    seeds: tuple[int, ...] = (0,)
    leaders: int = 0
    leader_seeds: tuple[int, ...] = ()
    version: int = 1

    def __post_init__(self) -> None:
        _check_augmentations(self.augmentations)
        whole_number("version", self.version)
        if not self.entries:
            raise ValueError(f"suite {self.name!r}: expected at least one model, got none")
        keys = [f"{entry}-{name}" for entry, name in self.rows]
        for name in (*self.entries, *keys):
            if not re.fullmatch(r"[\w.+:-]+", name):
                raise ValueError(f"expected a name of letters, digits, '.', '_', '+', ':' and '-', got {name!r}")
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"expected rows of different names, got {twice[0]!r} twice; rename an entry")

    def augmentations_of(self, entry: str) -> dict[str, str | Transform | None]:
        """Return the augmentations of one model by name: the suite's, then its own."""
        return {**_named(self.augmentations), **_named(self.entries[entry].augmentations)}

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """The names of the rows, ``(entry, augmentation)``, model by model."""
        return tuple((entry, name) for entry in self.entries for name in self.augmentations_of(entry))

    def transform(self, entry: str, name: str) -> Transform | None:
        """Return the transform of a row, or None for no augmentation.

        Raises:
            ValueError: for an unknown augmentation.
        """
        found = self.augmentations_of(entry)[name]
        return augmentation(found) if isinstance(found, str) else found


def suite_named(name: str, table: Mapping[str, Suite]) -> Suite:
    """Return a suite by its name in the table, its import path, or an entry point of ``weightspace.suites``.

    Raises:
        ValueError: for an unknown name, or something other than a suite.
    """

    def check(found: Any) -> str | None:
        return None if isinstance(found, Suite) else f"expected a weightspace.bench.Suite, got {type(found).__name__}"

    return find("suites", name, table, check)


def _named(augmentations: Augmentations) -> dict[str, str | Transform | None]:
    if isinstance(augmentations, Mapping):
        return dict(augmentations)
    return {name: None if name == "none" else name for name in augmentations}


def _check_augmentations(augmentations: Any) -> None:
    if isinstance(augmentations, str):
        raise TypeError(f"augmentations: expected a tuple of names, got {augmentations!r}; add a comma")
    if isinstance(augmentations, Mapping):
        for name, value in augmentations.items():
            if value is not None and not isinstance(value, str | Transform):
                raise TypeError(
                    f"augmentations: expected a name, a Transform or None for {name!r}, got {type(value).__name__}"
                )
