"""One training loop, and the objectives that a model can be trained for."""

from weightspace.training._config import TrainConfig
from weightspace.training._objectives import (
    OBJECTIVES,
    Classification,
    Contrastive,
    Editing,
    Objective,
    Reconstruction,
    Regression,
)
from weightspace.training._train import train

__all__ = [
    "OBJECTIVES",
    "Classification",
    "Contrastive",
    "Editing",
    "Objective",
    "Reconstruction",
    "Regression",
    "TrainConfig",
    "train",
]
