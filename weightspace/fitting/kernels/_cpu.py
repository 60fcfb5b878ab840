"""The compiled kernel's door: tensors in, tensors out. Importing it compiles the kernel, or reads numba's cache."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weightspace._weights import Weights
from weightspace.fitting.kernels._cpu_kernel import fit_networks
from weightspace.fitting.kernels._plan import plan
from weightspace.fitting.kernels._tensor import BETA1, BETA2, CHECK_EVERY, EPS, ChunkResult


def fit_chunk_compiled(
    start: Weights,
    coords: Tensor,
    targets: Tensor,
    *,
    steps: int,
    lr: float,
    target_mse: float | None = None,
    points: int | None = None,
    keys: Tensor | None = None,
    stop: np.ndarray | None = None,
) -> ChunkResult:
    """What :func:`weightspace.fitting.fit_chunk` does, network after network in machine code, without the interpreter lock.

    Args:
        start: ``batch`` networks to start from, float32 on the CPU, of a spec that ``_plan.supported`` names.
        coords: float32 ``[point, in]``, or ``[batch, point, in]``.
        targets: float32 ``[batch, point, out]``.
        steps: Adam steps.
        lr: step size.
        target_mse: a network stops here; looked at every ten steps.
        points: points drawn for each step; all of them where None.
        keys: int64 ``[batch]``, what the points of each network are drawn from.
        stop: uint8 ``[1]``; the fit ends soon after another thread makes it 1, and its result is then of no use.

    Returns:
        The fitted networks, their mean squared errors and the steps they took.
    """
    spec, batch = start.spec, len(start)
    flat = start.flat.detach().numpy().copy()
    places = np.ascontiguousarray((coords if coords.ndim == 3 else coords[None]).numpy())
    layout = plan(spec, places, batch=points or 0)
    mse, taken = np.empty(batch, dtype=np.float32), np.empty(batch, dtype=np.int64)
    fit_networks(
        layout.work_space(),
        layout.layers,
        layout.gains,
        layout.size,
        flat,
        places,
        np.ascontiguousarray(targets.numpy()),
        layout.grid,
        spec.output_shift,
        steps,
        points or 0,
        np.zeros(batch, dtype=np.uint64) if keys is None else keys.numpy().view(np.uint64),
        lr,
        -1.0 if target_mse is None else target_mse,
        CHECK_EVERY,
        BETA1,
        BETA2,
        EPS,
        mse,
        taken,
        np.zeros(1, dtype=np.uint8) if stop is None else stop,
    )
    return ChunkResult(torch.from_numpy(flat), torch.from_numpy(mse), torch.from_numpy(taken))
