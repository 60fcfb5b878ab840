"""Alignment: the symmetry that moves one network onto another."""

from weightspace.align._activations import match_activations
from weightspace.align._canonical import anchor, canonicalize
from weightspace.align._checkpoint import load_module, read_checkpoint, write_checkpoint
from weightspace.align._learned import LearnedAligner
from weightspace.align._matching import distance, match, match_to
from weightspace.align._merge import (
    Aligned,
    align_state_dicts,
    interpolate_state_dicts,
    merge,
    move_state_dict,
    without_statistics,
)
from weightspace.align._path import Barrier, barrier, interpolate
from weightspace.align._plan import period_costs
from weightspace.align._repair import repair_batch_norm
from weightspace.align._sinkhorn import sinkhorn

__all__ = [
    "Aligned",
    "Barrier",
    "LearnedAligner",
    "align_state_dicts",
    "anchor",
    "barrier",
    "canonicalize",
    "distance",
    "interpolate",
    "interpolate_state_dicts",
    "load_module",
    "match",
    "match_activations",
    "match_to",
    "merge",
    "move_state_dict",
    "period_costs",
    "read_checkpoint",
    "repair_batch_norm",
    "sinkhorn",
    "without_statistics",
    "write_checkpoint",
]
