"""Linear assignment for a batch of matrices."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weightspace.align._threads import in_slices


def assign(score: Tensor) -> Tensor:
    r"""The assignment with the largest total for each matrix.

    .. math:: \max_\pi \sum_i S_{i, \pi(i)}

    Solved on the host, by shortest augmenting paths in compiled code. Ties have the same answer on every run.

    Args:
        score: ``[batch, size, size]``, finite.

    Returns:
        int64 ``[batch, size]``: the column of each row, on the device of ``score``.
    """
    from weightspace.align import _lap  # Numba takes a while to load

    wide = torch.float32 if score.dtype == torch.float32 else torch.float64
    cost = (-score.detach()).to("cpu", wide).contiguous().numpy()
    columns = np.empty(cost.shape[:2], dtype=np.int64)
    if cost.size:
        in_slices(lambda start, stop: _lap.solve_many(cost, columns, start, stop), len(cost))
    return torch.from_numpy(columns).to(score.device)
