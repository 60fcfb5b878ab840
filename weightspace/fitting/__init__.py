"""Signals to weights: the batched fitting engine, recipes and executors."""

from weightspace.fitting._executors import Executor, LocalExecutor, ShardJob
from weightspace.fitting._fit import FitConfig, FitResult, fit
from weightspace.fitting._fit_zoo import fit_zoo
from weightspace.fitting._init import initial_weights
from weightspace.fitting._ray import RayExecutor
from weightspace.fitting._recipes import RECIPES, meta_start, recipe
from weightspace.fitting._views import add_views
from weightspace.fitting.kernels._tensor import fit_chunk

__all__ = [
    "RECIPES",
    "Executor",
    "FitConfig",
    "FitResult",
    "LocalExecutor",
    "RayExecutor",
    "ShardJob",
    "add_views",
    "fit",
    "fit_chunk",
    "fit_zoo",
    "initial_weights",
    "meta_start",
    "recipe",
]
