"""Trained modules as state dicts: read, align, merge and repair them."""

from weightspace.checkpoints._files import load_module, read_checkpoint, write_checkpoint
from weightspace.checkpoints._merge import (
    Aligned,
    align_state_dicts,
    interpolate_state_dicts,
    merge,
    move_state_dict,
    without_statistics,
)
from weightspace.checkpoints._repair import repair_batch_norm

__all__ = [
    "Aligned",
    "align_state_dicts",
    "interpolate_state_dicts",
    "load_module",
    "merge",
    "move_state_dict",
    "read_checkpoint",
    "repair_batch_norm",
    "without_statistics",
    "write_checkpoint",
]
