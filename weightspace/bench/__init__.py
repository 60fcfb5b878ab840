"""Suites of measurements and their results."""

from weightspace.bench._cell import Cell, run_cell
from weightspace.bench._environment import environment
from weightspace.bench._record import collect
from weightspace.bench._run import run_suite
from weightspace.bench._suite import SUITES, Entry, Suite
from weightspace.models import flop

__all__ = ["SUITES", "Cell", "Entry", "Suite", "collect", "environment", "flop", "run_cell", "run_suite"]
