"""weightspace: learning on the weights of other neural networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from weightspace import align, checkpoints, datasets, fitting, models, signals, testing, training, transforms, zoo
from weightspace._architectures import mlp, siren
from weightspace._evaluate import evaluate
from weightspace._networks import Networks
from weightspace._spec import Axis, NetSpec, Param
from weightspace._symmetry import Symmetry
from weightspace._trace import spec_of
from weightspace._version import __version__ as __version__
from weightspace._weights import Weights
from weightspace.fitting import FitConfig, fit, fit_zoo
from weightspace.training import TrainConfig, TrainResult, train
from weightspace.zoo import Zoo

if TYPE_CHECKING:
    from weightspace import bench, report

__all__ = [
    "Axis",
    "FitConfig",
    "NetSpec",
    "Networks",
    "Param",
    "Symmetry",
    "TrainConfig",
    "TrainResult",
    "Weights",
    "Zoo",
    "align",
    "bench",
    "checkpoints",
    "datasets",
    "evaluate",
    "fit",
    "fit_zoo",
    "fitting",
    "mlp",
    "models",
    "report",
    "signals",
    "siren",
    "spec_of",
    "testing",
    "train",
    "training",
    "transforms",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Rooms that are read when first asked for (PEP 562)."""
    if name in ("bench", "report"):
        return importlib.import_module(f"weightspace.{name}")
    raise AttributeError(f"module 'weightspace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
