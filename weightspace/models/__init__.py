"""Models on weights: one published model a file, plus the plain baselines."""

from __future__ import annotations

from typing import Any

from weightspace._spec import NetSpec
from weightspace.models._base import Model, Normalize
from weightspace.models._dwsnet import DWSNet, InvariantHead
from weightspace.models._equivariant import EquivariantLinear
from weightspace.models._mlp import MLP

MODELS: dict[str, type[Model]] = {"dwsnet": DWSNet, "mlp": MLP}

__all__ = ["MLP", "MODELS", "DWSNet", "EquivariantLinear", "InvariantHead", "Model", "Normalize", "build"]


def build(name: str, spec: NetSpec, out_features: int, **options: Any) -> Model:
    """A model by its name.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> import weightspace as ws
        >>> type(build("mlp", ws.siren(2, 8, 8, 1), 10)).__name__
        'MLP'
    """
    if name not in MODELS:
        raise ValueError(f"unknown model: expected one of {sorted(MODELS)}, got {name!r}")
    return MODELS[name](spec, out_features, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]
