"""Checks of the CUDA kernel that need a process of their own, see test_triton.py. Each prints a word."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import weightspace as ws
from weightspace.fitting._init import initial_weights
from weightspace.fitting.kernels._cuda import constants, fit_cuda
from weightspace.fitting.kernels._cuda_kernel import fit_networks
from weightspace.fitting.kernels._minibatch import point_keys
from weightspace.fitting.kernels._problem import FitProblem
from weightspace.fitting.kernels._tensor import fit_tensor

STEPS = 3
SPECS = (
    ws.siren(2, 20, 7, 1),
    ws.siren(3, 24, 2, omega=(20.0,)),
    ws.siren(2, 8, 17, 9, 1, bias=False),
    ws.mlp(1, 8, 33, 5, 3, activation=("tanh", "gaussian", "relu"), output_shift=0.25),
    ws.mlp(4, 5, 6, 7, 4, activation=("sigmoid", "cosine", "silu")),
    ws.mlp(2, 16, 9, 1, activation=("leaky_relu", "cosine")),
)


def signals(spec: ws.NetSpec, *, points: int, own: bool = False) -> tuple[ws.Weights, Tensor, Tensor]:
    gen = torch.Generator().manual_seed(1)
    coords = 2 * torch.rand(*([2] if own else []), points, spec.in_features, generator=gen) - 1
    targets = torch.rand(2, points, spec.out_features, generator=gen)
    return initial_weights(spec, torch.arange(2), torch.zeros(2, dtype=torch.int64), seed=3), coords, targets


def close(found: Any, expected: Any, *, atol: float = 2e-6) -> None:
    torch.testing.assert_close(found.flat, expected.flat, atol=atol, rtol=0)
    torch.testing.assert_close(found.mse, expected.mse, atol=1e-6, rtol=1e-5)
    assert torch.equal(found.steps, expected.steps)


def equal() -> None:
    for number, spec in enumerate(SPECS):
        start, coords, targets = signals(spec, points=40, own=number % 2 == 1)
        before = start.flat.clone()
        problem = FitProblem(start, coords, targets, steps=STEPS, lr=1e-3)
        found, rounded = fit_cuda(problem), fit_tensor(problem)
        double = start.to(dtype=torch.float64), coords.double(), targets.double()
        exact = fit_tensor(FitProblem(*double, steps=STEPS, lr=1e-3))
        assert torch.equal(start.flat, before)
        assert (exact.flat - before).abs().max() > 1e-3
        # as near to the exact result as float32 tensor operations come
        error, usual = ((fit.flat - exact.flat).abs().median().item() for fit in (found, rounded))
        assert error < 4 * usual + 3e-8, (spec, error, usual)
        error, usual = ((fit.mse - exact.mse).abs().max().item() for fit in (found, rounded))
        assert error < 8 * usual + 1e-6, (spec, error, usual)
        print("chain")
    notices()
    stops()
    minibatches()
    whole_fit()


def notices() -> None:
    """The comparison fails for another number of steps, step size or frequency."""
    spec = SPECS[0]
    start, coords, targets = signals(spec, points=40)
    problem = FitProblem(start, coords, targets, steps=STEPS, lr=1e-3)
    expected = fit_tensor(problem)
    close(fit_cuda(problem), expected)
    axes = tuple(replace(a, omega=a.omega * 1.001) if a.hidden else a for a in spec.axes)
    other = ws.Weights(start.flat, replace(spec, axes=axes))
    for change in ({"steps": STEPS - 1}, {"lr": 1.1e-3}, {"start": other}):
        try:
            close(fit_cuda(replace(problem, **change)), expected)
        except AssertionError:
            print("noticed")


def stops() -> None:
    spec = ws.siren(2, 9, 5, 1)
    start, coords, targets = signals(spec, points=20)
    targets = targets * torch.tensor([1.0, 0.2])[:, None, None]
    problem = FitProblem(start, coords, targets, steps=25, lr=5e-3, target_mse=0.03)
    expected = fit_tensor(problem)
    assert len(expected.steps.unique()) == 2, expected.steps
    close(fit_cuda(problem), expected, atol=1e-4)
    print("stops")


def minibatches() -> None:
    spec = ws.siren(2, 9, 5, 2)
    start, coords, targets = signals(spec, points=50, own=True)
    keys = point_keys(torch.arange(2), torch.zeros(2, dtype=torch.int64), seed=5)
    problem = FitProblem(start, coords, targets, steps=6, lr=1e-3, points=20, keys=keys)
    expected = fit_tensor(problem)
    close(fit_cuda(problem), expected)
    assert (fit_cuda(replace(problem, keys=keys + 1)).flat - expected.flat).abs().max() > 1e-4
    print("points")


def whole_fit() -> None:
    """Through the public door, over more than one launch."""
    gen = torch.Generator().manual_seed(0)
    coords, targets = torch.rand(16, 1, generator=gen), torch.rand(1, 16, 1, generator=gen)
    seen: list[int] = []
    found, expected = (
        ws.fit(
            coords,
            targets,
            ws.siren(1, 4, 1, omega=3.0),
            steps=103,
            kernel=kernel,
            on_progress=lambda done, *_: seen.append(done),
        )
        for kernel in ("triton", "torch")
    )
    assert seen == [1, 1]
    torch.testing.assert_close(found.weights.flat, expected.weights.flat, atol=2e-5, rtol=0)
    print("fit")


def compile_only() -> None:
    """To machine code for two generations of GPUs, as a launch would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = dict.fromkeys(("flat", "moment1", "moment2", "coords", "targets", "rates", "scales"), "*fp32")
    types |= dict.fromkeys(("last", "coords_stride", "total"), "i32")
    types |= {"taken": "*i32", "keys": "*i64", "shift": "fp32", "factor": "fp32", "target": "fp32"}
    for number, (spec, capability) in enumerate(((SPECS[0], 80), (SPECS[3], 90))):
        options = constants(spec, 784, stops=number == 1, draws=number == 0)
        launch = {name: options.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")}
        source = ASTSource(fit_networks, types | dict.fromkeys(options, "constexpr"), options)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch)
        assert made.asm["cubin"]
        print("compiled")


if __name__ == "__main__":
    equal() if sys.argv[1] == "equal" else compile_only()
