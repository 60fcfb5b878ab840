"""Suites: a grid of models, augmentations and seeds, and the budget every cell gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weightspace.models import MODELS
from weightspace.train import TrainConfig
from weightspace.transforms import AUGMENTATIONS

TAXONOMY: tuple[str, ...] = ("none", *AUGMENTATIONS)


@dataclass(frozen=True)
class Entry:
    """A model of the grid: its registered name, options, and what its training changes in the suite's budget."""

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"unknown model: expected one of {sorted(MODELS)}, got {self.model!r}")


@dataclass(frozen=True)
class Suite:
    """A grid to measure.

    Args:
        name: of the suite.
        entries: models.
        augmentations: names of the registry, or "none"; ``"a+b"`` composes.
        train: the budget of each cell.
        seeds: run for every cell.
        leaders: how many rows (by validation accuracy) run the further seeds too; so does the row without augmentation
            of every model among them.
        leader_seeds: those further seeds.
    """

    name: str
    entries: Mapping[str, Entry]
    augmentations: tuple[str, ...]
    train: TrainConfig
    seeds: tuple[int, ...] = (0,)
    leaders: int = 0
    leader_seeds: tuple[int, ...] = ()


SUITES: dict[str, Suite] = {
    "demo": Suite(
        "demo",
        {"dwsnet": Entry("dwsnet", {"hidden": 16, "layers": 2}, {"lr": 4e-3})},
        ("none", "noise", "rotate", "translate", "sign", "mixup-permutation"),
        TrainConfig(epochs=24, batch_size=64),
    ),
    "fashion-mnist": Suite(
        "fashion-mnist",
        {
            "dwsnet": Entry("dwsnet", {"hidden": 16, "layers": 2}, {"lr": 4e-3}),
            "mlp": Entry("mlp", train={"lr": 1e-3}),
        },
        TAXONOMY,
        TrainConfig(epochs=36, batch_size=64),
        leaders=5,
        leader_seeds=(1, 2),
    ),
    "mixup": Suite(
        "mixup",
        {
            "dwsnet": Entry("dwsnet", {"hidden": 16, "layers": 2}, {"lr": 4e-3}),
            "mlp": Entry("mlp", train={"lr": 1e-3}),
        },
        (
            "none",
            "mixup",
            "mixup-random",
            "mixup-permutation",
            "mixup-signed",
            "mixup-full",
            "mixup-full-ends",
            "mixup-full-half",
        ),
        TrainConfig(epochs=24, batch_size=64),
        seeds=(0, 1, 2),
    ),
    "mixup-anchored": Suite(
        "mixup-anchored",
        {
            "dwsnet": Entry("dwsnet", {"hidden": 16, "layers": 2}, {"lr": 4e-3}),
            "mlp": Entry("mlp", train={"lr": 1e-3}),
        },
        ("none", "mixup"),
        TrainConfig(epochs=24, batch_size=64),
        seeds=(0, 1, 2),
    ),
    "fashion-mnist-short": Suite(
        "fashion-mnist-short",
        {"dwsnet": Entry("dwsnet", {"hidden": 16, "layers": 2}, {"lr": 4e-3})},
        ("none",),
        TrainConfig(epochs=20, batch_size=64),
        seeds=(0, 1, 2),
    ),
}
