"""Suites of measurements and their results."""

from weightspace.bench._environment import environment
from weightspace.bench._run import Cell, collect, run_cell, run_suite
from weightspace.bench._suite import SUITES, Entry, Suite

__all__ = ["SUITES", "Cell", "Entry", "Suite", "collect", "environment", "run_cell", "run_suite"]
