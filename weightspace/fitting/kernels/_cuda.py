"""The CUDA kernel: one network a program of a CUDA device, compiled by Triton for a spec on first use.

Experimental: Triton's interpreter runs it and its compiler compiles it in the tests, but no GPU has run it yet.
"""

from __future__ import annotations

import math
import os
import shutil
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._activation import KERNELS
from weightspace._spec import NetSpec
from weightspace.fitting.kernels import _cuda_kernel
from weightspace.fitting.kernels._problem import (
    BETA1,
    BETA2,
    CHECK_EVERY,
    EPS,
    ChunkResult,
    FitProblem,
    kernel_number,
    produced_axes,
)
from weightspace.fitting.kernels._tensor import mean_squared_error

MOST_HIDDEN, WIDEST, MOST_ENDS = 3, 64, 4
OLDEST = (3, 4)
"""Older versions of Triton compile no loops over tuples of tensors."""
LAUNCH = 100
"""Steps of one launch; between two launches the host looks whether to stop."""


def unavailable(spec: NetSpec, device: torch.device) -> str:
    """Return why the kernel cannot fit networks of this spec on this device; nothing where it can."""
    if device.type != "cuda" and not interpreted():
        return f"expected a CUDA device, got {str(device)!r}"
    triton = _cuda_kernel.triton
    if triton is None or tuple(int(n) for n in triton.__version__.split(".")[:2]) < OLDEST:
        found = "found none" if triton is None else f"got {triton.__version__}"
        return f"expected the package triton, {'.'.join(map(str, OLDEST))} or newer, which compiles it, {found}"
    hidden = produced_axes(spec)[:-1]
    if not (1 <= len(hidden) <= MOST_HIDDEN and max(axis.size for axis in hidden) <= WIDEST):
        return f"expected 1 to {MOST_HIDDEN} hidden layers of at most {WIDEST} neurons, got {spec}"
    if max(spec.in_features, spec.out_features) > MOST_ENDS:
        return f"expected at most {MOST_ENDS} inputs and outputs, got {spec}"
    if any(kernel_number(axis) is None for axis in hidden):
        return f"expected activations among {list(KERNELS[1:])}, got {spec}"
    if not (interpreted() or os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "expected a C compiler, which builds Triton's launcher, and found none"
    return ""


def interpreted() -> bool:
    """Return whether Triton's interpreter stands in for its compiler (``TRITON_INTERPRET=1``): slowly, on the CPU."""
    triton = _cuda_kernel.triton
    return triton is not None and not isinstance(_cuda_kernel.fit_networks, triton.JITFunction)


def fit_cuda(problem: FitProblem) -> ChunkResult:
    """Fit a chunk of networks, float32, of a spec for which :func:`unavailable` returns nothing."""
    spec, batch, steps = problem.start.spec, len(problem.start), problem.steps
    flat = problem.start.flat.detach().clone()
    coords, targets = problem.coords.contiguous(), problem.targets.contiguous()
    moments = [torch.zeros_like(flat) for _ in range(2)]
    taken = torch.zeros(batch, dtype=torch.int32, device=flat.device)
    keys = torch.zeros_like(taken, dtype=torch.int64) if problem.keys is None else problem.keys
    rates, scales = _corrections(steps, problem.lr, flat.device)
    numbers = {
        "coords_stride": 0 if coords.ndim == 2 else coords[0].numel(),
        "total": targets.shape[1],
        "shift": spec.output_shift,
        "factor": 2.0 / (problem.points_per_step * spec.out_features),
        "target": 0.0 if problem.target_mse is None else problem.target_mse,
    }
    options = constants(
        spec, problem.points_per_step, stops=problem.target_mse is not None, draws=problem.points is not None
    )
    launch = _cuda_kernel.fit_networks[(batch,)]
    with torch.cuda.device_of(flat):
        for last in range(min(LAUNCH, steps), steps + LAUNCH, LAUNCH):
            last = min(last, steps)
            launch(flat, *moments, taken, keys, coords, targets, rates, scales, last, **numbers, **options)
            if int(taken.max()) < last or problem.stopped:  # max() waits for the launch
                break
    return ChunkResult(flat, mean_squared_error(problem, flat), taken.cpu().long())


def constants(spec: NetSpec, points: int, *, stops: bool = False, draws: bool = False) -> dict[str, Any]:
    """Return what the kernel is compiled for.

    Args:
        spec: the networks.
        points: the points of each step.
        stops: whether a network stops at a target.
        draws: whether each step draws its points.

    Returns:
        The constants by their names in :mod:`._cuda_kernel`, and Triton's options of a launch.
    """
    hidden = produced_axes(spec)[:-1]
    widths = tuple(axis.size for axis in hidden)
    pads = tuple(max(16, 1 << (width - 1).bit_length()) for width in widths)
    tile, warps = _shape_of_work(pads)
    omega = tuple(float(axis.omega) for axis in hidden)
    high = tuple(float(np.float32(w / math.pi)) for w in omega)
    return {
        "SIZE": spec.num_params,
        "POINTS": points,
        "IN": spec.in_features,
        "OUT": spec.out_features,
        "WIDTHS": widths,
        "PADS": pads,  # widths rounded up to powers of two
        "WEIGHT": tuple(spec.slices[layer.weight].start for layer in spec.layers),  # places in the flat vector
        "BIAS": tuple(-1 if layer.bias is None else spec.slices[layer.bias].start for layer in spec.layers),
        "ACTIVATIONS": tuple(kernel_number(axis) for axis in hidden),
        "OMEGA": omega,
        "HIGH": high,  # omega / pi rounded to float32
        "LOW": tuple(w / math.pi - h for w, h in zip(omega, high, strict=True)),  # and the rest of it
        "TILE": tile,
        "STOPS": stops,
        "DRAWS": draws,
        "CHECK_EVERY": CHECK_EVERY,
        "BETA1": BETA1,
        "BETA2": BETA2,
        "EPS": EPS,
        "num_warps": warps,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def _shape_of_work(pads: tuple[int, ...]) -> tuple[int, int]:
    """Return points of a tile and warps of a program that leave the network in registers, by ptxas's report."""
    between = sum(a * b for a, b in pairwise(pads))
    return (32, 4) if between <= 1024 else (16, between // 512)


def _corrections(steps: int, lr: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return Adam's step sizes, and the factors of the root of its second moment, of all steps."""
    count = np.arange(1, steps + 1)
    rates, scales = lr / (1 - BETA1**count), 1 / np.sqrt(1 - BETA2**count)
    return torch.from_numpy(rates).float().to(device), torch.from_numpy(scales).float().to(device)
