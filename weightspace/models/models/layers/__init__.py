"""Layers for models on weights, and the seeding of their initial weights."""

from weightspace._equivariant import EquivariantLinear, InvariantPool, NeuronAttention
from weightspace._random import seeded_by
from weightspace.models.layers._heads import InvariantHead, NeuronReadout
from weightspace.models.layers._rbf import GaussianRBF

__all__ = [
    "EquivariantLinear",
    "GaussianRBF",
    "InvariantHead",
    "InvariantPool",
    "NeuronAttention",
    "NeuronReadout",
    "seeded_by",
]
