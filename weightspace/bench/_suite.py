"""Suites: a grid of models, augmentations and seeds, and the budget every cell gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weightspace.models import MODELS
from weightspace.training import TrainConfig
from weightspace.transforms import AUGMENTATIONS, augmentation

TAXONOMY: tuple[str, ...] = ("none", *AUGMENTATIONS)


@dataclass(frozen=True)
class Entry:
    """A model of the grid.

    Args:
        model: its registered name.
        options: of the model.
        train: what its training changes in the suite's budget.
        augmentations: candidates of this model beside the suite's own; names of the registry, ``"a+b"`` composes.

    Raises:
        TypeError: for augmentations that are one name and not several.
        ValueError: for an unknown model or augmentation.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    augmentations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"unknown model: expected one of {sorted(MODELS)}, got {self.model!r}")
        if isinstance(self.augmentations, str):
            raise TypeError(f"augmentations: expected a tuple of names, got {self.augmentations!r}; add a comma")
        for name in self.augmentations:
            if name != "none":
                augmentation(name)


@dataclass(frozen=True)
class Suite:
    """A grid to measure.

    Args:
        name: of the suite.
        entries: models.
        augmentations: names of the registry, or "none"; ``"a+b"`` composes.
        train: the budget of each cell.
        seeds: run for every cell.
        leaders: how many rows of each track (by validation accuracy) run the further seeds too; so does the row without
            augmentation of every model among them.
        leader_seeds: those further seeds.
    """

    name: str
    entries: Mapping[str, Entry]
    augmentations: tuple[str, ...]
    train: TrainConfig
    seeds: tuple[int, ...] = (0,)
    leaders: int = 0
    leader_seeds: tuple[int, ...] = ()

    def augmentations_of(self, entry: str) -> tuple[str, ...]:
        """Of one model: the suite's, then its own."""
        return tuple(dict.fromkeys((*self.augmentations, *self.entries[entry].augmentations)))

    @property
    def all_augmentations(self) -> tuple[str, ...]:
        """Of all models."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in self.augmentations_of(entry)))


_MOVED = ("small-affine",)  # small movements of the inputs: what every model can be given
_PERMUTED = ("permute", "small-affine")

# Every model at a size that a CPU trains in minutes: the table of models, the three tracks together.
SMALL_MODELS: dict[str, Entry] = {
    "statistics": Entry("statistics", augmentations=_MOVED),
    "mlp": Entry("mlp", {}, {"lr": 1e-3}, _PERMUTED),
    "inr2vec": Entry("inr2vec", {"hidden": 128}, augmentations=_PERMUTED),
    "weight-tokens": Entry("weight-tokens", {"hidden": 32, "layers": 2}, augmentations=_PERMUTED),
    "dwsnet": Entry("dwsnet", {"hidden": 16, "layers": 2}, {"lr": 4e-3}, _MOVED),
    "nfn-np": Entry("nfn-np", {"hidden": 32, "layers": 2}, augmentations=_MOVED),
    "nfn-hnp": Entry("nfn-hnp", {"hidden": 32, "layers": 2}, augmentations=_MOVED),
    "nft": Entry("nft", {"hidden": 16, "layers": 1, "attention_heads": 1, "fourier": 16}, augmentations=_MOVED),
    "ng-gnn": Entry("ng-gnn", {"hidden": 16, "layers": 2, "fourier": 32}, augmentations=_MOVED),
    "ng-t": Entry("ng-t", {"hidden": 16, "layers": 2, "attention_heads": 2, "fourier": 32}, augmentations=_MOVED),
    "gmn": Entry("gmn", {"hidden": 16, "layers": 2}, augmentations=_MOVED),
    "scale-gmn": Entry("scale-gmn", {"hidden": 16, "layers": 2}, augmentations=_MOVED),
    "typed-messages": Entry("typed-messages", {"hidden": 32, "layers": 2}, augmentations=_MOVED),
    "forward-messages": Entry("forward-messages", augmentations=_MOVED),
    "ng-gnn-probes": Entry("ng-gnn", {"hidden": 16, "layers": 2, "fourier": 32, "probes": 16}, augmentations=_MOVED),
    "probe-net": Entry("probe-net", augmentations=_MOVED),
    "probe-grid-net": Entry("probe-grid-net", {"hidden": 16}, augmentations=_MOVED),
    "probe-gen": Entry("probe-gen", augmentations=_MOVED),
    "render-cnn": Entry("render-cnn", {"hidden": 16}, augmentations=_MOVED),
}

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
    "models": Suite(
        "models",
        SMALL_MODELS,
        ("none",),
        TrainConfig(epochs=6, batch_size=64),
        leaders=2,
        leader_seeds=(1, 2),
    ),
}
