"""One training loop, with what a model is trained for as an objective."""

from weightspace.train._config import TrainConfig, schedule
from weightspace.train._objective import Classification, Objective
from weightspace.train._train import Split, TrainResult, score, train

__all__ = ["Classification", "Objective", "Split", "TrainConfig", "TrainResult", "schedule", "score", "train"]
