"""One training loop, with what a model is trained for as an objective."""

from weightspace.train._config import TrainConfig, schedule
from weightspace.train._objective import (
    Classification,
    Contrastive,
    Editing,
    Objective,
    Reconstruction,
    Regression,
)
from weightspace.train._run import Split, score, seeded
from weightspace.train._train import TrainResult, num_classes, train

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
