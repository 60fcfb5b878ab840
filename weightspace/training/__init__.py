"""One training loop, with what a model is trained for as an objective."""

from weightspace.training._config import TrainConfig, schedule
from weightspace.training._objectives import (
    Classification,
    Contrastive,
    Editing,
    Objective,
    Reconstruction,
    Regression,
)
from weightspace.training._run import Split, score, seeded
from weightspace.training._train import TrainResult, num_classes, train

__all__ = [
    "Classification",
    "Contrastive",
    "Editing",
    "Objective",
    "Reconstruction",
    "Regression",
    "Split",
    "TrainConfig",
    "TrainResult",
    "num_classes",
    "schedule",
    "score",
    "seeded",
    "train",
]
