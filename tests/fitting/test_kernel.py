"""The CPU kernel: equal to the tensor kernel over random specs, its vector operations against NumPy, minibatches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from threading import Timer

import numpy as np
import pytest
import torch
from numba import njit
from torch import Tensor

import weightspace as ws
from weightspace._activation import KERNELS, activation
from weightspace._random import splitmix64
from weightspace.fitting._init import initial_weights
from weightspace.fitting.kernels._cpu import fit_cpu, unavailable
from weightspace.fitting.kernels._cpu_activations import formulas
from weightspace.fitting.kernels._cpu_layout import lay_out
from weightspace.fitting.kernels._cpu_llvm import SIMD_WIDTH, Matrix
from weightspace.fitting.kernels._cpu_vectors import (
    POINT_MULTIPLE,
    activate,
    adam,
    add_column_sums,
    add_transposed_product,
    dot_rows,
    multiply_by_product,
    output_layer_backward,
    product,
    product_plus_bias,
    sine_of_product_plus_bias,
    transpose,
)
from weightspace.fitting.kernels._minibatch import draw_points, point_keys
from weightspace.fitting.kernels._problem import ChunkResult, FitProblem
from weightspace.fitting.kernels._tensor import fit_tensor

CPU = torch.device("cpu")
STEPS = 6
SEEDS = range(12)


def random_spec(seed: int) -> ws.NetSpec:
    """One to four hidden layers of unequal widths, one to five inputs, one to four outputs, any activation it has."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 5))
    widths = [int(n) for n in (rng.integers(1, 6), *rng.integers(1, 41, depth), rng.integers(1, 5))]
    if seed % 2:
        names = [str(name) for name in rng.choice(KERNELS[1:], depth)]
        return ws.mlp(*widths, activation=names, output_shift=0.25, bias=seed % 3 > 0)
    omega = [float(w) for w in rng.uniform(1, 10, depth)]
    return ws.siren(*widths, omega=omega, bias=seed % 3 > 0)


def signals(
    spec: ws.NetSpec, *, points: int = 75, count: int = 3, own: bool = False
) -> tuple[ws.Weights, Tensor, Tensor]:
    gen = torch.Generator().manual_seed(1)
    coords = 2 * torch.rand(*([count] if own else []), points, spec.in_features, generator=gen) - 1
    targets = torch.rand(count, points, spec.out_features, generator=gen)
    start = initial_weights(spec, torch.arange(count), torch.zeros(count, dtype=torch.int64), seed=3)
    return start, coords, targets


def close(found, expected, start: ws.Weights, *, atol: float = 3e-5) -> None:
    """Equal far below what training changed. Adam divides by the gradient's size: rounding of tiny ones is blown up."""
    moved = (expected.flat - start.flat).abs().max().item()
    assert moved > 100 * atol
    torch.testing.assert_close(found.flat, expected.flat, atol=atol, rtol=0)
    torch.testing.assert_close(found.mse, expected.mse, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.steps, expected.steps)


@pytest.mark.parametrize("own", [False, True], ids=["one set of points", "points of their own"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_kernel_fits_what_the_tensor_path_fits_in_float64(seed: int, own: bool) -> None:
    spec = random_spec(seed)
    start, coords, targets = signals(spec, own=own)
    before = start.flat.clone()
    problem = FitProblem(start, coords, targets, steps=STEPS, lr=1e-3)
    found, rounded = fit_cpu(problem), fit_tensor(problem)
    double = start.to(dtype=torch.float64), coords.double(), targets.double()
    exact = fit_tensor(FitProblem(*double, steps=STEPS, lr=1e-3))
    # as near to the exact result as float32 tensor operations come, but for a kink that rounding steps over
    error, usual = ((fit.flat - exact.flat).abs().median().item() for fit in (found, rounded))
    assert error < 4 * usual + 3e-9
    error, usual = ((fit.mse - exact.mse).abs().max().item() for fit in (found, rounded))
    assert error < 8 * usual + 3e-7
    assert (exact.flat - before).abs().max() > 1e-3
    assert torch.equal(start.flat, before)


@pytest.mark.parametrize("change", ["steps", "lr", "signal"])
def test_the_comparison_notices_another_fit(change: str) -> None:
    spec = ws.siren(2, 20, 7, 1)
    start, coords, targets = signals(spec)
    problem = FitProblem(start, coords, targets, steps=STEPS, lr=1e-3)
    expected = fit_tensor(problem)
    close(fit_cpu(problem), expected, start)
    changes = {
        "steps": {"steps": STEPS - 1},
        "lr": {"lr": 1.1e-3},
        "signal": {"targets": targets + 0.01 * coords[:, :1]},
    }
    with pytest.raises(AssertionError):
        close(fit_cpu(replace(problem, **changes[change])), expected, start)


@pytest.mark.parametrize("turned", [False, True], ids=["lines along the second coordinate", "along the first"])
def test_a_grid_is_found_and_gives_the_same_network(turned: bool) -> None:
    spec = ws.siren(2, 24, 9, 1)
    coords = ws.signals.grid(20, 31)
    coords = coords.flip(1).contiguous() if turned else coords
    start, _, _ = signals(spec)
    targets = torch.rand(3, len(coords), 1, generator=torch.Generator().manual_seed(2))
    space = lay_out(spec, coords.numpy()[None])
    assert space.layout["table_rows"] == 51
    assert space.grid["run"][0] in (20, 31)  # a whole line in one go
    problem = FitProblem(start, coords, targets, steps=STEPS, lr=1e-3)
    close(fit_cpu(problem), fit_tensor(problem), start)


def test_points_that_are_no_grid_take_no_table() -> None:
    spec = ws.siren(2, 8, 1)
    scattered = np.random.default_rng(0).random((1, 100, 2), dtype=np.float32)
    assert lay_out(spec, scattered).layout["table_rows"] == 0
    grid = ws.signals.grid(10, 10).numpy()
    assert lay_out(spec, grid[None]).layout["table_rows"] == 20
    assert lay_out(ws.mlp(2, 8, 1), grid[None]).layout["table_rows"] == 0  # no addition theorem for relu
    shuffled = np.ascontiguousarray(grid[None, np.random.default_rng(0).permutation(100)])
    assert lay_out(spec, shuffled).layout["table_rows"] == 20  # a grid in any order


def test_a_shuffled_grid_gives_the_same_network() -> None:
    spec = ws.siren(2, 8, 5, 1)
    order = torch.randperm(144, generator=torch.Generator().manual_seed(0))
    coords = ws.signals.grid(12, 12)[order]
    start, _, _ = signals(spec)
    targets = torch.rand(3, 144, 1, generator=torch.Generator().manual_seed(2))
    problem = FitProblem(start, coords, targets, steps=STEPS, lr=1e-3)
    close(fit_cpu(problem), fit_tensor(problem), start)


def test_kernels_agree_through_a_whole_fit() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:4])
    options = {"steps": 200, "lr": 5e-4, "views": 2}
    compiled, tensors = (
        ws.fit(coords, targets, ws.siren(2, 32, 32, 1), kernel=kernel, **options) for kernel in ("compiled", "torch")
    )
    assert (compiled.psnr - tensors.psnr).abs().max() < 0.02  # dB, of about 15
    pictures = [ws.evaluate(result.weights, coords) for result in (compiled, tensors)]
    torch.testing.assert_close(*pictures, atol=5e-3, rtol=0)


def test_the_psnr_is_that_of_the_networks() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:3])
    result = ws.fit(coords, targets, ws.siren(2, 17, 32, 1), steps=30, lr=5e-3, kernel="compiled")
    mse = (ws.evaluate(result.weights, coords) - targets).square().mean((1, 2))
    torch.testing.assert_close(result.psnr, -10 * mse.log10(), atol=1e-3, rtol=0)


def test_each_network_stops_at_its_own_target() -> None:
    spec = ws.siren(2, 16, 1)
    targets = (
        torch.rand(5, 81, 1, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.02, 1, 5)[:, None, None]
    )
    start, target = signals(spec, count=5)[0], 10**-2.2
    problem = FitProblem(start, ws.signals.grid(9, 9), targets, steps=120, lr=5e-3, target_mse=target)
    compiled, tensors = fit_cpu(problem), fit_tensor(problem)
    assert torch.equal(compiled.steps, tensors.steps)
    assert len(compiled.steps.unique()) > 2
    assert bool((compiled.mse[compiled.steps < 120] <= target).all())
    assert bool((compiled.mse[compiled.steps == 120] > target).any())


@pytest.mark.parametrize("fit", [fit_cpu, fit_tensor])
def test_a_network_at_its_target_takes_no_step(fit: Callable[[FitProblem], ChunkResult]) -> None:
    start, coords, targets = signals(ws.siren(2, 8, 1))
    done = fit(FitProblem(start, coords, targets, steps=20, lr=1e-3, target_mse=1e3))
    assert done.steps.tolist() == [0, 0, 0]
    assert torch.equal(done.flat, start.flat)


@pytest.mark.parametrize("fit", [fit_cpu, fit_tensor])
def test_a_kernel_asked_to_stop_returns_early(fit: Callable[[FitProblem], ChunkResult]) -> None:
    start, coords, targets = signals(ws.siren(2, 8, 1))
    problem = FitProblem(start, coords, targets, steps=10**9, lr=1e-3)
    Timer(0.1, lambda: problem.stop.fill(1)).start()
    fit(problem)  # or the test does not end
    assert problem.stopped


# Minibatches.


@pytest.mark.parametrize("own", [False, True], ids=["one set of points", "points of their own"])
def test_minibatches_are_the_same_in_both_kernels(own: bool) -> None:
    spec = ws.siren(3, 12, 6, 2, omega=5.0)
    start, coords, targets = signals(spec, points=300, own=own)
    keys = point_keys(torch.arange(3), torch.zeros(3, dtype=torch.int64), seed=0)
    problem = FitProblem(start, coords, targets, steps=STEPS, lr=1e-3, points=50, keys=keys)
    expected = fit_tensor(problem)
    close(fit_cpu(problem), expected, start)
    whole = fit_tensor(replace(problem, points=None, keys=None))
    assert (whole.flat - expected.flat).abs().max() > 1e-3


def test_points_are_uniform_and_belong_to_network_and_step() -> None:
    keys = point_keys(torch.arange(4), torch.zeros(4, dtype=torch.int64), seed=0)
    drawn = torch.stack([draw_points(keys, step, 1000, 7) for step in range(10)])
    assert int(drawn.min()) == 0
    assert int(drawn.max()) == 6
    share = torch.stack([(drawn == i).double().mean((0, 2)) for i in range(7)])
    assert (share - 1 / 7).abs().max() < 5 * (1 / 7 * 6 / 7 / 10_000) ** 0.5  # five standard deviations
    assert not torch.equal(drawn[0, 0], drawn[0, 1])
    assert not torch.equal(drawn[0, 0], drawn[1, 0])
    assert torch.equal(draw_points(keys[2:], 3, 1000, 7), drawn[3, 2:])
    views = point_keys(torch.zeros(2, dtype=torch.int64), torch.arange(2), seed=0)
    zero = torch.zeros(1, dtype=torch.int64)
    assert len({*views.tolist(), *point_keys(zero, zero, seed=1).tolist()}) == 3


def test_points_come_from_the_one_splitmix64_of_the_library() -> None:
    keys = point_keys(torch.arange(3), torch.zeros(3, dtype=torch.int64), seed=0)
    step, count, total = 5, 40, 1234
    counter = keys.numpy().view(np.uint64)[:, None] + (step * count + np.arange(count, dtype=np.uint64)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    expected = ((splitmix64(counter) >> np.uint64(33)) * np.uint64(total)) >> np.uint64(31)
    np.testing.assert_array_equal(draw_points(keys, step, count, total).numpy(), expected)


def test_fit_takes_points_of_every_signal_and_minibatches() -> None:
    gen = torch.Generator().manual_seed(0)
    coords = 2 * torch.rand(4, 500, 3, generator=gen) - 1
    targets = coords.norm(dim=2, keepdim=True) - 0.5 - 0.1 * torch.arange(4)[:, None, None]  # spheres of four sizes
    spec = ws.siren(3, 16, 16, 1, omega=5.0)
    options = {"steps": 400, "lr": 1e-3, "points": 64, "views": 2}
    result = ws.fit(coords, targets, spec, **options)
    error = (ws.evaluate(result.weights, coords.repeat_interleave(2, 0)) - targets.repeat_interleave(2, 0)).square()
    torch.testing.assert_close(result.psnr, -10 * error.mean((1, 2)).log10(), atol=1e-2, rtol=0)
    assert bool((result.psnr > 20).all())
    again = ws.fit(coords[[3, 1]], targets[[3, 1]], spec, sources=torch.tensor([3, 1]), chunk=1, **options)
    assert torch.equal(again.weights.flat, result.weights.flat[[6, 7, 2, 3]])


# What it refuses.


def test_a_spec_that_it_does_not_have_goes_the_other_way() -> None:
    for spec in (ws.mlp(2, 3), ws.mlp(2, 8, 1, activation="gelu")):
        assert "expected a hidden layer and activations that it has, got" in unavailable(spec, CPU)
        coords, targets = torch.rand(5, 2), torch.rand(1, 5, spec.out_features)
        assert len(ws.fit(coords, targets, spec, steps=1).weights) == 1
        with pytest.raises(ValueError, match="kernel='compiled': expected a hidden layer and activations that it has"):
            ws.fit(coords, targets, spec, steps=1, kernel="compiled")
    with pytest.raises(ValueError, match="unknown kernel: expected one of"):
        ws.fit(torch.rand(5, 2), torch.rand(1, 5, 1), ws.siren(2, 4, 1), kernel="numba")  # pyright: ignore
    with pytest.raises(ValueError, match="it runs on the CPU, got device 'cuda'"):
        ws.fit(torch.rand(5, 2), torch.rand(1, 5, 1), ws.siren(2, 4, 1), kernel="compiled", device="cuda")


def test_a_target_psnr_needs_full_batches() -> None:
    with pytest.raises(ValueError, match="expected full batches"):
        ws.FitConfig(points=10, target_psnr=20.0)
    with pytest.raises(ValueError, match="points: expected"):
        ws.FitConfig(points=0)
    with pytest.raises(ValueError, match="expected points of each of the 3 signals, got those of 2"):
        ws.fit(torch.rand(2, 5, 2), torch.rand(3, 5, 1), ws.siren(2, 4, 1))


def test_the_tensor_path_serves_where_numba_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = sys.modules["weightspace.fitting.kernels"]
    for name in [name for name in sys.modules if name.startswith("weightspace.fitting.kernels._cpu")]:
        monkeypatch.delattr(kernels, name.rpartition(".")[2])
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    coords, targets = torch.rand(5, 2), torch.rand(1, 5, 1)
    assert len(ws.fit(coords, targets, ws.siren(2, 4, 1), steps=1).weights) == 1
    with pytest.raises(ValueError, match="kernel='compiled': expected numba"):
        ws.fit(coords, targets, ws.siren(2, 4, 1), steps=1, kernel="compiled")


# Vector operations against NumPy. Places in one work space: A at 0, B at 4000, C at 8000, a row at 12000.


@njit
def _call(which, work, a_stride, b_stride, c_stride, rows, vectors, depth):  # pragma: no cover - compiled
    a, b, c = Matrix(0, a_stride), Matrix(4000, b_stride), Matrix(8000, c_stride)
    if which == 0:
        product(work, left=a, right=b, out=c, rows=rows, vectors=vectors, depth=depth)
    if which == 1:
        product_plus_bias(work, left=a, right=b, bias=12000, out=c, rows=rows, vectors=vectors, depth=depth)
    if which == 2:
        multiply_by_product(work, left=a, right=b, out=c, rows=rows, vectors=vectors, depth=depth)
    if which == 3:
        add_transposed_product(work, left=a, right=b, out=c, rows=rows, vectors=vectors, depth=depth)
    if which == 4:
        sine_of_product_plus_bias(
            work, left=a, right=b, bias=12000, values=c, slopes=13500, rows=rows, vectors=vectors, depth=depth,
            omega=3.0, turns=3 / np.pi,
        )  # fmt: skip
    if which == 5:
        transpose(work, source=a, target=c, rows=rows, vectors=vectors)
    if which == 6:
        add_column_sums(work, matrix=b, out=8000, rows=depth, vectors=vectors)
    if which == 7:
        output_layer_backward(
            work, delta=a, weights=14000, gradient=15000, values=b, slopes=8000, rows=rows, vectors=vectors,
            outputs=depth,
        )  # fmt: skip
    if which == 8:
        dot_rows(work, rows=b, weights=12000, out=8000, points=rows, vectors=vectors)
    if which == 9:
        adam(
            work, params=0, gradients=4000, first_moments=8000, second_moments=12000, vectors=vectors, rate=0.01,
            correction=1.5,
        )  # fmt: skip


def _buffer() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(16000).astype(np.float32)


def _block(buf: np.ndarray, start: int, rows: int, columns: int, stride: int) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(buf[start:], (rows, columns), (4 * stride, 4))


@pytest.mark.parametrize("which", range(5), ids=["product", "bias", "times", "turned add", "sine"])
@pytest.mark.parametrize(("rows", "vectors", "depth"), [(16, 2, 32), (1, 1, 1), (13, 3, 7), (4, 2, 3), (9, 1, 6)])
def test_products_are_numpys_and_write_nowhere_else(which: int, rows: int, vectors: int, depth: int) -> None:
    buf = _buffer()
    columns = vectors * SIMD_WIDTH
    turned = which == 3
    a_shape = (depth, rows) if turned else (rows, depth)
    strides = (a_shape[1] + 2, columns + 3, columns + 5)
    a, b = _block(buf, 0, *a_shape, strides[0]).copy(), _block(buf, 4000, depth, columns, strides[1]).copy()
    c, bias = _block(buf, 8000, rows, columns, strides[2]).copy(), buf[12000 : 12000 + columns].copy()
    out = (a.T if turned else a).astype(np.float64) @ b
    expected = {8000: [out, out + bias, c * out, c + out, np.sin(3 * (out + bias))][which]}
    if which == 4:  # the slopes
        expected[13500] = 3 * np.cos(3 * (out + bias))
    before = buf.copy()
    _call(which, buf, *strides, rows, vectors, depth)
    for start, values in expected.items():
        np.testing.assert_allclose(
            _block(buf, start, rows, columns, strides[2]), values, atol=2e-5 if which < 4 else 1e-4
        )
        _block(before, start, rows, columns, strides[2])[:] = _block(buf, start, rows, columns, strides[2])
    np.testing.assert_array_equal(buf, before)


@pytest.mark.parametrize(("rows", "vectors", "outputs"), [(16, 2, 1), (4, 1, 3), (12, 3, 2)])
def test_the_way_back_from_the_output_is_numpys(rows: int, vectors: int, outputs: int) -> None:
    buf, columns = _buffer(), vectors * SIMD_WIDTH
    delta, value = _block(buf, 0, outputs, rows, rows + 3), _block(buf, 4000, rows, columns, columns + 2)
    weight, gradient = (_block(buf, start, outputs, columns, columns) for start in (14000, 15000))
    slope = _block(buf, 8000, rows, columns, columns + 2)
    before = buf.copy()
    gradients, slopes = gradient + delta.astype(np.float64) @ value, slope * (delta.astype(np.float64).T @ weight)
    _call(7, buf, rows + 3, columns + 2, 0, rows, vectors, outputs)
    np.testing.assert_allclose(gradient, gradients, atol=2e-5)
    np.testing.assert_allclose(slope, slopes, atol=2e-5)
    _block(before, 15000, outputs, columns, columns)[:] = gradient
    _block(before, 8000, rows, columns, columns + 2)[:] = slope
    np.testing.assert_array_equal(buf, before)


def test_transpose_and_sums_are_numpys() -> None:
    buf = _buffer()
    square = _block(buf, 0, SIMD_WIDTH * 2, SIMD_WIDTH * 3, SIMD_WIDTH * 3 + 1).copy()
    _call(5, buf, SIMD_WIDTH * 3 + 1, 0, SIMD_WIDTH * 2 + 3, SIMD_WIDTH * 2, 3, 0)
    np.testing.assert_array_equal(_block(buf, 8000, SIMD_WIDTH * 3, SIMD_WIDTH * 2, SIMD_WIDTH * 2 + 3), square.T)
    buf = _buffer()
    rows, before = _block(buf, 4000, 12, SIMD_WIDTH * 2, SIMD_WIDTH * 2 + 3), buf[8000 : 8000 + 2 * SIMD_WIDTH].copy()
    expected = before + rows.sum(0, dtype=np.float64)
    _call(6, buf, 0, SIMD_WIDTH * 2 + 3, 0, 0, 2, 12)
    np.testing.assert_allclose(buf[8000 : 8000 + 2 * SIMD_WIDTH], expected, atol=1e-5)
    buf = _buffer()
    expected = (
        _block(buf, 4000, POINT_MULTIPLE * 2, SIMD_WIDTH * 2, SIMD_WIDTH * 2 + 3).astype(np.float64)
        @ buf[12000 : 12000 + 2 * SIMD_WIDTH]
    )
    _call(8, buf, 0, SIMD_WIDTH * 2 + 3, 0, POINT_MULTIPLE * 2, 2, 0)
    np.testing.assert_allclose(buf[8000 : 8000 + POINT_MULTIPLE * 2], expected, atol=1e-5)


def test_adam_is_the_papers_step() -> None:
    buf = np.abs(_buffer())
    n = 3 * SIMD_WIDTH
    p, g, m, v = (buf[start : start + n].astype(np.float64) for start in (0, 4000, 8000, 12000))
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    _call(9, buf, 0, 0, 0, 0, 3, 0)
    np.testing.assert_allclose(buf[:n], p - 0.01 * m / (np.sqrt(v) * 1.5 + 1e-8), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(buf[8000 : 8000 + n], m, rtol=1e-6)
    np.testing.assert_allclose(buf[12000 : 12000 + n], v, rtol=1e-6)


@njit
def _activate(work, number, count, omega):  # pragma: no cover - compiled
    vectors = count // SIMD_WIDTH
    activate(work, number, z=0, values=count, slopes=2 * count, vectors=vectors, omega=omega, turns=omega / np.pi)


@pytest.mark.parametrize("name", KERNELS[1:])
def test_activations_are_those_of_the_table(name: str) -> None:
    row, omega, count = activation(name), 30.0, 4096
    z = torch.linspace(-6, 6, count)
    buf = np.concatenate([z.numpy(), np.zeros(2 * count, dtype=np.float32)])
    _activate(buf, KERNELS.index(name), count, omega)
    for part, function, scale in ((1, row.forward, 1.0), (2, row.derivative, omega)):
        expected = function(z.double(), omega)
        # the angle 30 * 6 is itself known to 180 * 2^-24 only
        error = (torch.from_numpy(buf[part * count : (part + 1) * count]).double() - expected).abs().max().item()
        assert error < (2e-5 if row.periodic else 2e-6) * (scale if row.periodic else 1.0)


def test_every_activation_of_the_kernels_has_a_formula() -> None:
    assert set(formulas(1.0, 1.0)) == set(KERNELS)
