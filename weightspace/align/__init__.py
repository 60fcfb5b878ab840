"""Alignment: the symmetry that moves one network onto another."""

from weightspace.align._matching import distance, match

__all__ = ["distance", "match"]
