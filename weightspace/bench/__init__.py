"""Measure models and augmentations: suites are grids, ``run_suite`` runs one and writes ``result.json``."""

from weightspace.bench._run import run_suite
from weightspace.bench._suite import Entry, Suite
from weightspace.bench._suites import SUITES

__all__ = ["SUITES", "Entry", "Suite", "run_suite"]
