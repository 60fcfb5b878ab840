"""Layers for models on weights, and the seeding of their initial weights."""

from weightspace._equivariant import EquivariantLinear, NeuronAttention
from weightspace._random import seeded_by
from weightspace.models.layers._heads import NeuronReadout
from weightspace.models.layers._rbf import GaussianRBF
from weightspace.models.layers._stack import InvariantHead

__all__ = [
    "EquivariantLinear",
    "GaussianRBF",
    "InvariantHead",
    "NeuronAttention",
    "NeuronReadout",
    "seeded_by",
]
