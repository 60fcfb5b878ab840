"""Augmentations of weights: coordinates, noise, symmetry, MixUp, and compositions of them."""

from weightspace.transforms._base import Transform
from weightspace.transforms._registry import AUGMENTATIONS, augmentation
from weightspace.transforms.compose import Compose, Identity, OneOf, RandomApply
from weightspace.transforms.coordinates import Affine, Flip, Rotate, Scale, Shear, Translate
from weightspace.transforms.mix import MixUp, SelfMixUp
from weightspace.transforms.noise import GaussianNoise, LabelSmoothing, QuantilePrune, WeightDropout
from weightspace.transforms.symmetry import LinearMix, Permute, PhaseShift, PositiveScale, SignFlip

__all__ = [
    "AUGMENTATIONS",
    "Affine",
    "Compose",
    "Flip",
    "GaussianNoise",
    "Identity",
    "LabelSmoothing",
    "LinearMix",
    "MixUp",
    "OneOf",
    "Permute",
    "PhaseShift",
    "PositiveScale",
    "QuantilePrune",
    "RandomApply",
    "Rotate",
    "Scale",
    "SelfMixUp",
    "Shear",
    "SignFlip",
    "Transform",
    "Translate",
    "WeightDropout",
    "augmentation",
]
