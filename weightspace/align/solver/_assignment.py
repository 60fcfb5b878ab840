"""Linear assignment for a batch of matrices."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weightspace.align.solver._auction import auction
from weightspace.align.solver._threads import in_slices


def assign(score: Tensor) -> Tensor:
    r"""The assignment with the largest total for each matrix.

    .. math:: \max_\pi \sum_i S_{i, \pi(i)}

    On a CPU by shortest augmenting paths in compiled code, elsewhere by an auction on the device. Ties have the same
    answer on every run, not always the same by the two methods. Scores are told apart to 2**-48 of the range of their
    matrix (2**-42 for 512 columns, 2**-36 for 4,096; elsewhere to 2**-44, 2**-39 and 2**-33), so one outlier of 1e13
    among scores near 1 blurs all others: bound what must not be chosen by a few hundred times the rest.

    Args:
        score: ``[batch, size, size]``, finite.

    Returns:
        int64 ``[batch, size]``: the column of each row, on the device of ``score``.
    """
    if not solved_on_host(score.device):
        return auction(score)
    from weightspace.align.solver import _lap  # Numba takes a while to load

    wide = torch.float32 if score.dtype == torch.float32 else torch.float64
    cost = (-score.detach()).to("cpu", wide).contiguous().numpy()
    columns = np.empty(cost.shape[:2], dtype=np.int64)
    if cost.size:
        in_slices(lambda start, stop: _lap.solve_many(cost, columns, start, stop), len(cost))
    return torch.from_numpy(columns).to(score.device)


def solved_on_host(device: torch.device) -> bool:
    """Whether the scores go to the compiled code; from MPS they must, it has no doubles for the auction."""
    return device.type in ("cpu", "mps")
