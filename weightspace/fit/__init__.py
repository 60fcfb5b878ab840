"""Signals to weights: the batched fitting engine, recipes and executors."""

from weightspace.fit._engine import fit_chunk
from weightspace.fit._fit import FitConfig, FitResult, fit
from weightspace.fit._init import initial_weights
from weightspace.fit._zoo import fit_zoo

__all__ = ["FitConfig", "FitResult", "fit", "fit_chunk", "fit_zoo", "initial_weights"]
