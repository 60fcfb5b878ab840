"""One training loop, and the objectives that a model can be trained for."""

from weightspace.training._config import TrainConfig
from weightspace.training._contrastive import Contrastive
from weightspace.training._functions import Editing, Reconstruction
from weightspace.training._labelled import Classification, Regression
from weightspace.training._objective import Objective
from weightspace.training._objectives import OBJECTIVES
from weightspace.training._predict import evaluate_model, predict
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
    "evaluate_model",
    "predict",
    "train",
]
