"""The CUDA kernel: what it takes, that Triton's interpreter finds it equal to the tensor path, that it compiles.

A process interprets or compiles, never both: ``TRITON_INTERPRET`` is read when Triton is imported. The checks that need
one or the other run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import weightspace as ws
from weightspace._activation import KERNELS
from weightspace.fitting.kernels import _cuda, _cuda_kernel
from weightspace.fitting.kernels._cuda import constants, unavailable

CUDA = torch.device("cuda")
needs_triton = pytest.mark.skipif("triton" in unavailable(ws.siren(2, 8, 1), CUDA), reason="needs triton")


def process(*arguments: str, interpret: bool) -> str:
    """Return the output of ``triton_checks.py``, which prints a line for each check."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"OMP_NUM_THREADS": "1"}
    environment |= {"TRITON_INTERPRET": "1"} if interpret else {}
    script = Path(__file__).with_name("triton_checks.py")
    done = subprocess.run([sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_triton
def test_interpreted_it_fits_what_the_tensor_path_fits() -> None:
    assert process("equal", interpret=True).split() == ["chain"] * 6 + ["noticed"] * 3 + ["stops", "points", "fit"]


@needs_triton
def test_it_compiles_for_gpus_without_one() -> None:
    assert process("compile", interpret=False).split() == ["compiled"] * 2


# What it takes.


def test_a_spec_that_it_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer:
        __version__ = "9.0.0"
        JITFunction = object

    monkeypatch.setattr(_cuda_kernel, "triton", Newer)
    monkeypatch.setenv("CC", "cc")
    for spec in (ws.siren(2, 64, 64, 64, 1), ws.siren(4, 1, 4), *(ws.mlp(2, 3, 1, activation=k) for k in KERNELS[1:])):
        assert unavailable(spec, CUDA) == ""
    for spec in (ws.mlp(2, 1), ws.siren(2, 65, 1), ws.siren(2, 8, 8, 8, 8, 1)):
        assert "expected 1 to 3 hidden layers of at most 64 neurons, got" in unavailable(spec, CUDA)
    for spec in (ws.siren(5, 8, 1), ws.siren(2, 8, 5)):
        assert "expected at most 4 inputs and outputs, got" in unavailable(spec, CUDA)
    assert "expected activations among ['sine'," in unavailable(ws.mlp(2, 8, 1, activation="gelu"), CUDA)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert (
        unavailable(ws.siren(2, 8, 1), CUDA) == "expected a C compiler, which builds Triton's launcher, and found none"
    )
    monkeypatch.setattr(Newer, "__version__", "3.3.1")
    assert "expected the package triton, 3.4 or newer, which compiles it, got 3.3.1" in unavailable(spec, CUDA)


def test_asked_for_where_it_cannot_be_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    coords, targets, spec = torch.rand(5, 2), torch.rand(1, 5, 1), ws.siren(2, 4, 1)
    monkeypatch.setattr(_cuda, "interpreted", lambda: False)
    with pytest.raises(ValueError, match="kernel='triton': expected a CUDA device, got 'cpu'; use kernel='torch'"):
        ws.fit(coords, targets, spec, steps=1, kernel="triton")
    monkeypatch.setattr(_cuda_kernel, "triton", None)
    with pytest.raises(ValueError, match=r"kernel='triton': expected the package triton, .* found none; use"):
        ws.fit(coords, targets, spec, steps=1, kernel="triton", device="cuda")


def test_widths_are_padded_and_parameters_found_where_the_flat_vector_has_them() -> None:
    spec = ws.siren(3, 20, 33, 2)
    options = constants(spec, 784)
    assert (options["WIDTHS"], options["PADS"]) == ((20, 33), (32, 64))
    assert options["ACTIVATIONS"] == (KERNELS.index("sine"),) * 2
    assert options["WEIGHT"] == tuple(spec.slices[f"{i}.weight"].start for i in range(3))
    assert constants(ws.siren(3, 20, 2, bias=False), 784)["BIAS"] == (-1, -1)
    for omega, high, low in zip(options["OMEGA"], options["HIGH"], options["LOW"], strict=True):
        assert abs((high + low) * torch.pi - omega) < 1e-12
        assert torch.tensor(high).item() == high  # a float32
    shapes = [constants(ws.siren(2, *hidden, 1), 784) for hidden in ((64,), (32, 32), (64, 64), (64, 64, 64))]
    assert [(o["TILE"], o["num_warps"]) for o in shapes] == [(32, 4), (32, 4), (16, 8), (16, 16)]


def test_the_corrections_are_adams() -> None:
    rates, scales = _cuda._corrections(3, 0.01, torch.device("cpu"))
    expected = [0.01 / (1 - 0.9**t) for t in (1, 2, 3)], [(1 - 0.999**t) ** -0.5 for t in (1, 2, 3)]
    torch.testing.assert_close(rates, torch.tensor(expected[0]))
    torch.testing.assert_close(scales, torch.tensor(expected[1]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_fits_the_same_networks_with_both_kernels() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:4])
    specs = [ws.siren(2, 32, 32, 1), ws.siren(2, 64, 40, 33, 1, omega=10.0), ws.siren(2, 9, 1, bias=False)]
    for spec in (*specs, *(ws.mlp(2, 24, 17, 1, activation=k) for k in KERNELS[2:])):
        for options in ({}, {"points": 100}, {"target_psnr": 12.0}):
            found, expected = (
                ws.fit(coords, targets, spec, steps=130, lr=5e-4, device="cuda", kernel=kernel, **options)
                for kernel in ("triton", "torch")
            )
            torch.testing.assert_close(found.psnr, expected.psnr, atol=0.05, rtol=0)
            assert torch.equal(found.steps, expected.steps)
            if not options:
                assert (found.weights.flat - expected.weights.flat).abs().median() < 1e-5
    assert unavailable(specs[0], CUDA) == ""  # so that "auto" took it
