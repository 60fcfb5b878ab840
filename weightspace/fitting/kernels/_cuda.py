"""The CUDA kernel's door: what it can fit, and tensors in, tensors out. Triton compiles it for a spec on first use."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._weights import Weights, summary
from weightspace.fitting.kernels import _cuda_kernel as _triton_kernel
from weightspace.fitting.kernels._tensor import BETA1, BETA2, CHECK_EVERY, EPS, ChunkResult, _Blocks, _Data

KINDS = ("none", "sine", "cosine", "relu", "leaky_relu", "tanh", "gaussian", "sigmoid", "silu")
MOST_HIDDEN, WIDEST, MOST_ENDS = 3, 64, 4
OLDEST = (3, 4)
"""Versions of Triton before this one compile no loops over tuples of tensors."""
LAUNCH = 100
"""Steps of one launch: between two the host looks whether to stop."""


def unavailable(spec: NetSpec, device: torch.device) -> str:
    """Why the kernel cannot fit networks of this spec on this device; nothing where it can."""
    if device.type != "cuda" and not interpreted():
        return f"expected a CUDA device, got {str(device)!r}"
    triton = _triton_kernel.triton
    if triton is None or tuple(int(n) for n in triton.__version__.split(".")[:2]) < OLDEST:
        found = "found none" if triton is None else f"got {triton.__version__}"
        return f"expected the package triton, {'.'.join(map(str, OLDEST))} or newer, which compiles it, {found}"
    axes = [spec.axis(layer.produces) for layer in spec.layers][:-1]
    if not (1 <= len(axes) <= MOST_HIDDEN and max(axis.size for axis in axes) <= WIDEST):
        return f"expected 1 to {MOST_HIDDEN} hidden layers of at most {WIDEST} neurons, got {summary(spec)}"
    if max(spec.in_features, spec.out_features) > MOST_ENDS:
        return f"expected at most {MOST_ENDS} inputs and outputs, got {summary(spec)}"
    if any((axis.activation or "none") not in KINDS for axis in axes):
        return f"expected activations among {list(KINDS[1:])}, got {summary(spec)}"
    if not (interpreted() or os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "expected a C compiler, which builds Triton's launcher, and found none"
    return ""


def interpreted() -> bool:
    """Whether Triton's interpreter stands in for the compiler (``TRITON_INTERPRET=1``): slow, on the CPU, for tests."""
    kernel = _triton_kernel.fit_networks
    return _triton_kernel.triton is not None and not isinstance(kernel, _triton_kernel.triton.JITFunction)


def fit_chunk_triton(
    start: Weights,
    coords: Tensor,
    targets: Tensor,
    *,
    steps: int,
    lr: float,
    target_mse: float | None = None,
    points: int | None = None,
    keys: Tensor | None = None,
    on_step: Callable[[int], None] | None = None,
) -> ChunkResult:
    """What :func:`weightspace.fitting.fit_chunk` does, one network a program of a CUDA device.

    Args:
        start: ``batch`` networks to start from, float32, of a spec that :func:`unavailable` has nothing against.
        coords: float32 ``[point, in]``, or ``[batch, point, in]``.
        targets: float32 ``[batch, point, out]``.
        steps: Adam steps.
        lr: step size.
        target_mse: a network stops here; looked at every ten steps.
        points: points drawn for each step; all of them where None.
        keys: int64 ``[batch]``, what the points of each network are drawn from; needed with ``points``.
        on_step: called with the number of steps done after each launch of a hundred.

    Returns:
        The fitted networks, their mean squared errors and the steps they took.
    """
    spec, batch = start.spec, len(start)
    flat, coords, targets = start.flat.detach().clone(), coords.contiguous(), targets.contiguous()
    moments = [torch.zeros_like(flat) for _ in range(2)]
    taken = torch.zeros(batch, dtype=torch.int32, device=flat.device)
    total, shift = targets.shape[1], spec.output_shift
    count = total if points is None else points
    data = (torch.zeros_like(taken, dtype=torch.int64) if keys is None else keys, coords, targets)
    numbers = (
        0 if coords.ndim == 2 else coords[0].numel(), total, shift, 2.0 / (count * spec.out_features),
        0.0 if target_mse is None else target_mse,
    )  # fmt: skip
    corrections = _corrections(steps, lr, flat.device)
    options = {**constants(spec, count), "STOPS": target_mse is not None, "DRAWS": points is not None}
    with torch.cuda.device_of(flat):
        for last in range(min(LAUNCH, steps), steps + LAUNCH, LAUNCH):
            last = min(last, steps)
            _triton_kernel.fit_networks[(batch,)](flat, *moments, taken, *data, *corrections, last, *numbers, **options)
            done = int(taken.max())  # waits for the launch
            if on_step is not None:
                on_step(done)
            if done < last:
                break
    params, everyone = _Blocks(spec, batch, flat), torch.arange(batch, device=flat.device)
    params.load(flat)
    mse = _Data(coords, targets, points, keys).mse(spec, params, everyone)
    return ChunkResult(flat, mse, taken.cpu().long())


def constants(spec: NetSpec, points: int) -> dict[str, Any]:
    """What the kernel is compiled for: networks of a spec, and how many points a step looks at."""
    axes = [spec.axis(layer.produces) for layer in spec.layers][:-1]
    widths = tuple(axis.size for axis in axes)
    pads = tuple(max(16, 1 << (width - 1).bit_length()) for width in widths)
    tile, warps = _shape_of_work(pads)
    omega = tuple(float(axis.omega) for axis in axes)
    high = tuple(float(np.float32(w / math.pi)) for w in omega)
    return {
        "SIZE": spec.num_params,
        "POINTS": points,
        "IN": spec.in_features,
        "OUT": spec.out_features,
        "WIDTHS": widths,
        "PADS": pads,
        "WEIGHT": tuple(spec.slices[layer.weight].start for layer in spec.layers),
        "BIAS": tuple(-1 if layer.bias is None else spec.slices[layer.bias].start for layer in spec.layers),
        "KINDS": tuple(KINDS.index(axis.activation or "none") for axis in axes),
        "OMEGA": omega,
        "HIGH": high,
        "LOW": tuple(w / math.pi - h for w, h in zip(omega, high, strict=True)),
        "TILE": tile,
        "CHECK_EVERY": CHECK_EVERY,
        "BETA1": BETA1,
        "BETA2": BETA2,
        "EPS": EPS,
        "num_warps": warps,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def _shape_of_work(pads: tuple[int, ...]) -> tuple[int, int]:
    """Points of a tile and warps of a program: as many as leave the network in registers (see ptxas's report)."""
    between = sum(a * b for a, b in pairwise(pads))
    return (32, 4) if between <= 1024 else (16, between // 512)


def _corrections(steps: int, lr: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Adam's step sizes, and the factors of the root of its second moment, of all steps."""
    count = np.arange(1, steps + 1)
    rates, scales = lr / (1 - BETA1**count), 1 / np.sqrt(1 - BETA2**count)
    return torch.from_numpy(rates).float().to(device), torch.from_numpy(scales).float().to(device)
