"""Signals to weights: the batched fitting engine, recipes and executors."""

from weightspace.fit._engine import fit_chunk
from weightspace.fit._executors import Executor, LocalExecutor, ShardJob
from weightspace.fit._fit import FitConfig, FitResult, fit
from weightspace.fit._init import initial_weights
from weightspace.fit._ray import RayExecutor
from weightspace.fit._recipes import RECIPES, meta_start, recipe
from weightspace.fit._views import add_views
from weightspace.fit._zoo import fit_zoo

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
