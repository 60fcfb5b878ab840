"""Measure models and augmentations on benchmarks, zoos that anybody can make again.

Suites are grids; ``run_suite`` runs one and writes ``result.json``.
"""

from weightspace.bench._benchmarks import benchmark
from weightspace.bench._run import run_suite
from weightspace.bench._suite import Entry, Suite
from weightspace.bench._suites import SUITES

__all__ = ["SUITES", "Entry", "Suite", "benchmark", "run_suite"]
