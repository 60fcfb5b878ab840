"""weightspace: learning on the weights of other neural networks."""

from weightspace._evaluate import evaluate
from weightspace._spec import Axis, NetSpec, Param, mlp, siren
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights

__version__ = "0.1.0"

__all__ = ["Axis", "NetSpec", "Param", "Symmetry", "Weights", "evaluate", "mlp", "siren"]
