"""Trained modules as state dicts: read, align, merge and repair them."""

from weightspace.checkpoints._align import align_state_dicts, move_state_dict
from weightspace.checkpoints._files import read_checkpoint, write_checkpoint
from weightspace.checkpoints._merge import merge
from weightspace.checkpoints._repair import repair_batch_norm

__all__ = [
    "align_state_dicts",
    "merge",
    "move_state_dict",
    "read_checkpoint",
    "repair_batch_norm",
    "write_checkpoint",
]
