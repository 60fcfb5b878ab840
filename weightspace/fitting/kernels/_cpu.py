"""The CPU kernel: networks one after the other in machine code, without the interpreter lock.

numba compiles it at the first call, or reads it from its cache.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace.fitting.kernels._cpu_kernel import Chunk, Schedule, fit_networks
from weightspace.fitting.kernels._cpu_layout import lay_out
from weightspace.fitting.kernels._problem import ChunkResult, FitProblem, kernel_number, produced_axes


def unavailable(spec: NetSpec, device: torch.device) -> str:
    """Return why the kernel cannot fit networks of this spec on this device; nothing where it can."""
    if device.type != "cpu":
        return f"it runs on the CPU, got device {str(device)!r}"
    hidden = produced_axes(spec)[:-1]
    if not hidden or any(kernel_number(axis) is None for axis in hidden):
        return f"expected a hidden layer and activations that it has, got {spec}"
    return ""


def fit_cpu(problem: FitProblem) -> ChunkResult:
    """Fit a chunk of networks, float32 on the CPU, of a spec for which :func:`unavailable` returns nothing."""
    spec, batch = problem.start.spec, len(problem.start)
    coords = _array(problem.coords if problem.coords.ndim == 3 else problem.coords[None])
    keys = np.zeros(batch, dtype=np.uint64) if problem.keys is None else _array(problem.keys).view(np.uint64)
    chunk = Chunk(
        flat=_array(problem.start.flat).copy(),
        coords=coords,
        targets=_array(problem.targets),
        keys=keys,
        mse=np.empty(batch, dtype=np.float32),
        steps=np.empty(batch, dtype=np.int64),
        stop=problem.stop,
    )
    schedule = Schedule(
        steps=problem.steps,
        lr=float(problem.lr),
        target_mse=-1.0 if problem.target_mse is None else float(problem.target_mse),
        points=problem.points_per_step,
        draws=problem.points is not None,
        output_shift=float(spec.output_shift),
    )
    fit_networks(lay_out(spec, coords, points=problem.points), schedule, chunk)
    return ChunkResult(*(torch.from_numpy(part) for part in (chunk.flat, chunk.mse, chunk.steps)))


def _array(tensor: Tensor) -> np.ndarray:
    """Return a contiguous array that shares the tensor's memory where it can."""
    return np.ascontiguousarray(tensor.detach().numpy())
