"""The taxonomy by name, each with the strength that the command line and the benchmarks use."""

from __future__ import annotations

from collections.abc import Callable

from weightspace.transforms._base import Transform
from weightspace.transforms.compose import Compose, RandomApply
from weightspace.transforms.coordinates import Flip, Rotate, Scale, Shear, Translate
from weightspace.transforms.mix import MixUp, SelfMixUp
from weightspace.transforms.noise import GaussianNoise, LabelSmoothing, QuantilePrune, WeightDropout
from weightspace.transforms.symmetry import Permute, PhaseShift, PositiveScale, SignFlip

AUGMENTATIONS: dict[str, Callable[[], Transform]] = {
    "rotate": lambda: Rotate(15.0),
    "translate": lambda: Translate(0.15),
    "scale": lambda: Scale(0.85, 1.15),
    "shear": lambda: Shear(0.15),
    "flip": lambda: Flip(0.5, axes=(1,)),  # left-right: the second coordinate runs along an image's rows
    "moves": lambda: Compose([Rotate(4.0), Translate(0.05), Scale(0.95, 1.05)]),  # small, all three at once
    "noise": lambda: GaussianNoise(0.1),
    "dropout": lambda: WeightDropout(0.05),
    "quantile": lambda: QuantilePrune(0.1),
    "label-smoothing": lambda: LabelSmoothing(0.1),
    "permute": Permute,
    "sign": SignFlip,
    "phase": PhaseShift,
    "positive-scale": PositiveScale,
    "mixup": MixUp,
    "mixup-weights-only": lambda: MixUp(labels="hard"),
    "mixup-random": lambda: MixUp("random"),
    "mixup-permutation": lambda: MixUp("permutation"),
    "mixup-signed": lambda: MixUp("signed"),
    "mixup-full": lambda: MixUp("full"),
    "mixup-full-ends": lambda: MixUp("full", alpha=0.2),  # the shares lie near 0 and 1
    "mixup-full-half": lambda: RandomApply(MixUp("full"), 0.5),
    "mixup-per-layer": lambda: MixUp("permutation", per_layer=True),
    "mixup-self": lambda: SelfMixUp(GaussianNoise(0.2)),
}


def augmentation(name: str) -> Transform:
    """A transform by its name; names joined by ``+`` compose, in that order.

    Raises:
        TypeError: for something other than a name.
        ValueError: for an unknown name.

    Example:
        >>> augmentation("sign+noise").keeps
        'nothing'
    """
    if not isinstance(name, str):
        raise TypeError(f"augmentation: expected a name such as 'sign+noise', got {name!r}; a Transform needs no name")
    parts = name.split("+")
    if unknown := [part for part in parts if part not in AUGMENTATIONS]:
        raise ValueError(
            f"unknown augmentation {unknown[0]!r}: expected one or several (joined by +) of {list(AUGMENTATIONS)}"
        )
    made = [AUGMENTATIONS[part]() for part in parts]
    return made[0] if len(made) == 1 else Compose(made)
