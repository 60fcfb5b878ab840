"""weightspace: learning on the weights of other neural networks."""

from weightspace import align, models, signals, testing, transforms
from weightspace._evaluate import evaluate
from weightspace._spec import Axis, NetSpec, Param, mlp, siren
from weightspace._symmetry import Symmetry
from weightspace._trace import spec_of
from weightspace._version import __version__ as __version__
from weightspace._weights import Weights
from weightspace.fit import FitConfig, FitResult, fit, fit_zoo
from weightspace.train import TrainConfig, TrainResult, train
from weightspace.zoo import Zoo

__all__ = [
    "Axis",
    "FitConfig",
    "FitResult",
    "NetSpec",
    "Param",
    "Symmetry",
    "TrainConfig",
    "TrainResult",
    "Weights",
    "Zoo",
    "align",
    "evaluate",
    "fit",
    "fit_zoo",
    "mlp",
    "models",
    "signals",
    "siren",
    "spec_of",
    "testing",
    "train",
    "transforms",
]
