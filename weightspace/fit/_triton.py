"""The CUDA kernel's door: what it can fit, and tensors in, tensors out. Triton compiles it for a spec on first use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._weights import Weights, summary
from weightspace.fit import _triton_kernel
from weightspace.fit._engine import BETA1, BETA2, CHECK_EVERY, EPS, ChunkResult, _Blocks, _Data

KINDS = ("none", "sine", "cosine", "relu", "leaky_relu", "tanh", "gaussian", "sigmoid", "silu")
MOST_HIDDEN, WIDEST, MOST_ENDS = 3, 64, 4
LAUNCH = 100
"""Steps of one launch: between two the host looks whether to stop."""


def unavailable(spec: NetSpec, device: torch.device, points: int | None = None) -> str:
    """Why the kernel cannot fit networks of this spec on this device; nothing where it can."""
    if device.type != "cuda" and not interpreted():
        return f"expected a CUDA device, got {str(device)!r}"
    if _triton_kernel.triton is None:
        return "expected the package triton, which compiles it, and found none"
    axes = [spec.axis(layer.produces) for layer in spec.layers][:-1]
    if not (1 <= len(axes) <= MOST_HIDDEN and max(axis.size for axis in axes) <= WIDEST):
        return f"expected 1 to {MOST_HIDDEN} hidden layers of at most {WIDEST} neurons, got {summary(spec)}"
    if max(spec.in_features, spec.out_features) > MOST_ENDS:
        return f"expected at most {MOST_ENDS} inputs and outputs, got {summary(spec)}"
    if any((axis.activation or "none") not in KINDS for axis in axes):
        return f"expected activations among {list(KINDS[1:])}, got {summary(spec)}"
    return "" if points is None else f"expected full batches (points=None), got minibatches of {points} points"


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
    on_step: Callable[[int], None] | None = None,
) -> ChunkResult:
    """What :func:`weightspace.fit.fit_chunk` does with full batches, one network a program of a CUDA device.

    Args:
        start: ``batch`` networks to start from, float32, of a spec that :func:`unavailable` has nothing against.
        coords: float32 ``[point, in]``, or ``[batch, point, in]``.
        targets: float32 ``[batch, point, out]``.
        steps: Adam steps.
        lr: step size.
        target_mse: a network stops here; looked at every ten steps.
        on_step: called with the number of steps done after each launch of a hundred.

    Returns:
        The fitted networks, their mean squared errors and the steps they took.
    """
    spec, batch = start.spec, len(start)
    flat, coords, targets = start.flat.detach().clone(), coords.contiguous(), targets.contiguous()
    moments = [torch.zeros_like(flat) for _ in range(2)]
    taken = torch.zeros(batch, dtype=torch.int32, device=flat.device)
    corrections = [_corrections(steps, lr, flat.device)[row] for row in range(2)]
    options = constants(spec)
    factor = 2.0 / (targets.shape[1] * spec.out_features)
    with torch.cuda.device_of(flat):
        for last in range(min(LAUNCH, steps), steps + LAUNCH, LAUNCH):
            last = min(last, steps)
            _triton_kernel.fit_networks[(batch,)](
                flat, *moments, taken, coords, targets, *corrections, last,
                0 if coords.ndim == 2 else coords[0].numel(), targets.shape[1], spec.output_shift, factor,
                0.0 if target_mse is None else target_mse, STOPS=target_mse is not None, **options,
            )  # fmt: skip
            done = int(taken.max())  # waits for the launch
            if on_step is not None:
                on_step(done)
            if done < last:
                break
    params, everyone = _Blocks(spec, batch, flat), torch.arange(batch, device=flat.device)
    params.load(flat)
    return ChunkResult(flat, _Data(coords, targets, None, None).mse(spec, params, everyone), taken.cpu().long())


def constants(spec: NetSpec) -> dict[str, Any]:
    """What the kernel is compiled for."""
    axes = [spec.axis(layer.produces) for layer in spec.layers][:-1]
    widths = tuple(axis.size for axis in axes)
    pads = tuple(max(16, 1 << (width - 1).bit_length()) for width in widths)
    omega = tuple(float(axis.omega) for axis in axes)
    high = tuple(float(np.float32(w / math.pi)) for w in omega)
    return {
        "SIZE": spec.num_params,
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
        "TILE": 64 if sum(pads) <= 64 else 32,
        "CHECK_EVERY": CHECK_EVERY,
        "BETA1": BETA1,
        "BETA2": BETA2,
        "EPS": EPS,
        "num_warps": 4 if max(pads) <= 32 else 8,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def _corrections(steps: int, lr: float, device: torch.device) -> Tensor:
    """Adam's step sizes, and the factors of the root of its second moment, of all steps: ``[2, step]``."""
    count = np.arange(1, steps + 1)
    rows = np.stack([lr / (1 - BETA1**count), 1 / np.sqrt(1 - BETA2**count)])
    return torch.from_numpy(rows.astype(np.float32)).to(device)
