"""One training loop, the objectives that a model can be trained for, and trained models at work."""

from typing import TYPE_CHECKING

from weightspace._extras import lazy as _lazy
from weightspace.training._config import TrainConfig
from weightspace.training._contrastive import Contrastive
from weightspace.training._embed import embed, neighbours, probe
from weightspace.training._functions import Editing, Reconstruction
from weightspace.training._labelled import Classification, Regression
from weightspace.training._objective import Objective
from weightspace.training._objectives import OBJECTIVES
from weightspace.training._predict import evaluate_model, predict
from weightspace.training._train import train

if TYPE_CHECKING:
    from weightspace.training._estimators import WeightClassifier, WeightRegressor

__all__ = [
    "OBJECTIVES",
    "Classification",
    "Contrastive",
    "Editing",
    "Objective",
    "Reconstruction",
    "Regression",
    "TrainConfig",
    "WeightClassifier",
    "WeightRegressor",
    "embed",
    "evaluate_model",
    "neighbours",
    "predict",
    "probe",
    "train",
]

__getattr__ = _lazy(__name__, {"_estimators": ["WeightClassifier", "WeightRegressor"]})  # they need scikit-learn
