"""Signals to weights: the batched fitting engine, recipes and executors."""

from weightspace.fitting._add_views import add_views
from weightspace.fitting._config import RECIPES, FitConfig
from weightspace.fitting._executors import Executor, RayExecutor
from weightspace.fitting._fit import fit
from weightspace.fitting._fit_zoo import fit_zoo
from weightspace.fitting._meta import meta_start
from weightspace.fitting._synthetic import synthetic_views

__all__ = [
    "RECIPES",
    "Executor",
    "FitConfig",
    "RayExecutor",
    "add_views",
    "fit",
    "fit_zoo",
    "meta_start",
    "synthetic_views",
]
