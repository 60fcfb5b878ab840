"""weightspace: learning on the weights of other neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightspace._extras import lazy as _lazy
from weightspace._version import __version__ as __version__

if TYPE_CHECKING:  # the same names as below, for readers and type checkers
    from weightspace import (
        adapters,
        align,
        bench,
        checkpoints,
        datasets,
        fitting,
        models,
        report,
        signals,
        testing,
        training,
        transforms,
        zoo,
    )
    from weightspace._architectures import mlp, siren
    from weightspace._evaluate import evaluate
    from weightspace._networks import Networks
    from weightspace._spec import Axis, NetSpec, Param
    from weightspace._symmetry import Symmetry
    from weightspace._weights import Weights
    from weightspace.fitting import FitConfig, fit, fit_zoo
    from weightspace.tracing import spec_of
    from weightspace.training import TrainConfig, train
    from weightspace.zoo import Zoo

__all__ = [
    "Axis",
    "FitConfig",
    "NetSpec",
    "Networks",
    "Param",
    "Symmetry",
    "TrainConfig",
    "Weights",
    "Zoo",
    "adapters",
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

__getattr__ = _lazy(  # importing the package itself must cost nothing: the command line does, to print its help
    __name__,
    {
        "_architectures": ["mlp", "siren"],
        "_evaluate": ["evaluate"],
        "_networks": ["Networks"],
        "_spec": ["Axis", "NetSpec", "Param"],
        "_symmetry": ["Symmetry"],
        "_weights": ["Weights"],
        "adapters": [],
        "align": [],
        "bench": [],
        "checkpoints": [],
        "datasets": [],
        "fitting": ["FitConfig", "fit", "fit_zoo"],
        "models": [],
        "report": [],
        "signals": [],
        "testing": [],
        "tracing": ["spec_of"],
        "training": ["TrainConfig", "train"],
        "transforms": [],
        "zoo": ["Zoo"],
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
