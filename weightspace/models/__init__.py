"""Models on weights: published ones, this library's own, and wrappers around them."""

from weightspace.models import layers, ours, published
from weightspace.models._flop import flop
from weightspace.models._model import Model, WeightModel
from weightspace.models._normalize import Normalize
from weightspace.models._registry import MODELS, build
from weightspace.models._storage import load_model, save_model
from weightspace.models._wrappers import Averaged, Ensemble
from weightspace.models.ours import *  # noqa: F403
from weightspace.models.published import *  # noqa: F403

__all__ = [
    "MODELS",
    "Averaged",
    "Ensemble",
    "Model",
    "Normalize",
    "WeightModel",
    "build",
    "flop",
    "layers",
    "load_model",
    "save_model",
]
__all__ += ours.__all__
__all__ += published.__all__
