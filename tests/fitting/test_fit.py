"""The fitting engine: equal to a plain loop, the same bits for any chunking, early stop, inits, bad input."""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import weightspace as ws
from weightspace._activation import ACTIVATIONS
from weightspace.fitting import FitConfig
from weightspace.fitting._fit import _Job
from weightspace.fitting._init import initial_weights
from weightspace.fitting.kernels._problem import FitProblem
from weightspace.fitting.kernels._tensor import fit_tensor

# The slow reference: one network at a time, nn.Linear, autograd, torch.optim.Adam.

FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "sine": lambda z, omega: torch.sin(omega * z),
    "cosine": lambda z, omega: torch.cos(omega * z),
    "relu": lambda z, omega: nn.functional.relu(z),
    "leaky_relu": lambda z, omega: nn.functional.leaky_relu(z, 0.01),
    "tanh": lambda z, omega: torch.tanh(z),
    "gaussian": lambda z, omega: torch.exp(-z * z),
    "gelu": lambda z, omega: nn.functional.gelu(z),
    "silu": lambda z, omega: nn.functional.silu(z),
    "sigmoid": lambda z, omega: torch.sigmoid(z),
}


class PlainNetwork(nn.Module):
    """One network of a sequential spec, written with ``nn.Linear``; the spec's "2.weight" is ``linears.2.weight``."""

    def __init__(self, spec: ws.NetSpec, start: ws.Weights) -> None:
        super().__init__()
        self.spec = spec
        self.axes = [spec.axis(p.produces) for p in spec.params if p.kind == "weight"]
        bias = any(p.kind == "bias" for p in spec.params)
        sizes = [spec.in_features, *(axis.size for axis in self.axes)]
        self.linears = nn.ModuleList(
            nn.Linear(a, b, bias=bias, dtype=start.dtype) for a, b in itertools.pairwise(sizes)
        )
        self.linears.load_state_dict(start.state_dict(0))

    def forward(self, x: Tensor) -> Tensor:
        for linear, axis in zip(self.linears, self.axes, strict=True):
            x = linear(x)
            if axis.activation is not None:
                x = FUNCTIONS[axis.activation](x, axis.omega)
        return x + self.spec.output_shift


def plain_fit(start: ws.Weights, coords: Tensor, targets: Tensor, steps: int, lr: float) -> ws.Weights:
    """Fit every network alone, one after the other."""
    states = []
    for i in range(len(start)):
        network = PlainNetwork(start.spec, start[i])
        adam = torch.optim.Adam(network.parameters(), lr=lr)
        for _ in range(steps):
            adam.zero_grad()
            nn.functional.mse_loss(network(coords), targets[i]).backward()
            adam.step()
        states.append(network.linears.state_dict())
    return ws.Weights.from_state_dicts(states, start.spec)


STEPS = 12


def problem(spec: ws.NetSpec, count: int = 2, points: int = 33, dtype: torch.dtype = torch.float64) -> tuple:
    """Points, smooth random signals and starting weights with all parameters, biases too, away from zero."""
    gen = torch.Generator().manual_seed(spec.num_params)
    coords = 2 * torch.rand(points, spec.in_features, generator=gen, dtype=torch.float64) - 1
    waves = torch.randn(count, spec.in_features, spec.out_features, generator=gen, dtype=torch.float64)
    targets = 0.5 + 0.4 * torch.sin(3 * coords @ waves)
    start = ws.testing.random_weights(spec, count, generator=gen)
    return coords.to(dtype), targets.to(dtype), start.to(dtype)


def with_linear_middle() -> ws.NetSpec:
    """A chain with an axis that has no activation: two linear layers in a row."""
    axes = (
        ws.Axis("in", 2),
        ws.Axis("h", 6, "tanh"),
        ws.Axis("flat", 3),
        ws.Axis("g", 5, "sine", 4.0),
        ws.Axis("out", 1),
    )
    names = [axis.name for axis in axes]
    params = []
    for i, (a, b) in enumerate(itertools.pairwise(names)):
        params += [ws.Param(f"{i}.weight", (b, a)), ws.Param(f"{i}.bias", (b,), "bias")]
    return ws.NetSpec(axes, tuple(params))


SPECS = {
    "siren one hidden layer": ws.siren(2, 9, 1),
    "siren unequal": ws.siren(2, 8, 5, 1),
    "siren three layers": ws.siren(2, 5, 9, 4, 1, omega=[30.0, 10.0, 1.0]),
    "siren rgb": ws.siren(2, 7, 6, 3, omega=[20.0, 2.0]),
    "siren original": ws.siren(2, 7, 6, 1, init="siren"),
    "siren 1-D": ws.siren(1, 8, 6, 2),
    "siren 3-D": ws.siren(3, 6, 7, 1),
    "siren without bias": ws.siren(2, 8, 5, 1, bias=False),
    "linear": ws.mlp(2, 3),
    "mixed": ws.mlp(2, 6, 5, 7, 2, activation=["gaussian", "relu", "sine"], output_shift=0.3),
    "linear middle": with_linear_middle(),
    **{f"mlp {name}": ws.mlp(2, 8, 6, 1, activation=name) for name in sorted(ACTIVATIONS)},
    "mlp tanh without bias": ws.mlp(3, 8, 6, 2, activation="tanh", bias=False),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_chunk_equals_a_plain_loop_in_float64(name: str) -> None:
    coords, targets, start = problem(SPECS[name])
    before = start.flat.clone()
    found = fit_tensor(FitProblem(start, coords, targets, steps=STEPS, lr=3e-3))
    expected = plain_fit(start, coords, targets, steps=STEPS, lr=3e-3)
    torch.testing.assert_close(found.flat, expected.flat, atol=1e-9, rtol=0)
    mse = (ws.evaluate(expected, coords) - targets).square().mean((1, 2))
    torch.testing.assert_close(found.mse, mse, atol=1e-9, rtol=0)
    assert torch.equal(start.flat, before)
    assert (found.flat - before).abs().max() > 1e-2  # it went somewhere, a million times the tolerance


@pytest.mark.parametrize("change", ["steps", "lr", "signal"])
def test_the_comparison_notices_another_fit(change: str) -> None:
    """Negative control of the test above."""
    coords, targets, start = problem(SPECS["siren unequal"])
    found = fit_tensor(FitProblem(start, coords, targets, steps=STEPS, lr=3e-3))
    if change == "signal":
        targets = targets + 1e-3 * coords[:, :1]
    other = plain_fit(start, coords, targets, steps=STEPS - (change == "steps"), lr=3e-3 + 1e-5 * (change == "lr"))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found.flat, other.flat, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["siren unequal", "siren rgb", "mlp relu", "mlp tanh without bias"])
def test_fit_equals_a_plain_loop_in_float32(name: str) -> None:
    spec = SPECS[name]
    coords, targets, _ = problem(spec, dtype=torch.float32)
    result = ws.fit(coords, targets, spec, steps=8, lr=1e-3, seed=5)
    start = initial_weights(spec, result.source, result.view, seed=5)
    expected = plain_fit(start, coords, targets, steps=8, lr=1e-3)
    torch.testing.assert_close(result.weights.flat, expected.flat, atol=5e-5, rtol=0)
    assert (result.weights.flat - start.flat).abs().max() > 5e-3


# The same bits for any chunking.


def same(a: ws.Networks, b: ws.Networks) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("psnr", "source", "view")]
    return torch.equal(a.weights.flat, b.weights.flat) and all(torch.equal(x, y) for x, y in pairs)


def counted(
    coords: Tensor, targets: Tensor, spec: ws.NetSpec, chunk: int = 8, workers: int = 2, **options
) -> tuple[ws.Networks, Tensor]:
    """Fit as :func:`weightspace.fit`, and return the Adam steps that each network took, too."""
    job = _Job.prepare(coords, targets, spec, FitConfig(**options), None, None, 0, "cpu", "auto")
    return job.run(chunk, workers, None)


def small_problem(count: int = 11) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(0)
    coords = ws.signals.grid(7, 7)
    # From flat to noisy, so that networks reach a target one after the other.
    noise = torch.rand(count, 49, 1, generator=gen) * torch.linspace(0, 1, count)[:, None, None]
    return coords, 0.5 + 0.4 * (noise - 0.5)


@pytest.mark.parametrize("target", [None, 20.0])
@pytest.mark.parametrize("name", ["sine", "silu", "gaussian"])
def test_same_bits_for_any_chunk_and_workers(name: str, target: float | None) -> None:
    coords, targets = small_problem()
    spec = ws.siren(2, 16, 5, 1) if name == "sine" else ws.mlp(2, 7, 5, 1, activation=name)
    options = {"steps": 21, "lr": 5e-3, "views": 2, "target_psnr": target}
    default = ws.fit(coords, targets, spec, **options)
    _, steps = counted(coords, targets, spec, **options)
    for chunk, workers in [(1, 1), (1, 2), (2, 2), (3, 1), (7, 2), (8, 1), (21, 2), (22, 1), (100, 2)]:
        assert same(default, ws.fit(coords, targets, spec, chunk=chunk, workers=workers, **options)), (chunk, workers)
        assert torch.equal(counted(coords, targets, spec, chunk, workers, **options)[1], steps), (chunk, workers)
    assert not same(default, ws.fit(coords, targets, spec, **{**options, "seed": 1}))
    if target is not None:
        assert len(steps.unique()) > 1


def test_same_bits_on_the_usual_network() -> None:
    """Large enough for the paths that BLAS takes for one matrix, for a batch, and for several threads."""
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:5])
    runs = [
        ws.fit(coords, targets, ws.siren(2, 32, 32, 1), steps=6, chunk=chunk, workers=workers)
        for chunk, workers in [(5, 1), (1, 1), (1, 2), (2, 2), (4, 1)]
    ]
    assert all(same(runs[0], run) for run in runs[1:])


def test_a_network_does_not_depend_on_its_neighbours() -> None:
    coords, targets = small_problem()
    spec = ws.siren(2, 8, 6, 1)
    whole = ws.fit(coords, targets, spec, steps=12, lr=5e-3, views=2)
    picked = torch.tensor([7, 2])
    part = ws.fit(coords, targets[picked], spec, steps=12, lr=5e-3, views=2, sources=picked)
    assert part.source.tolist() == [7, 7, 2, 2]
    assert torch.equal(part.weights.flat, whole.weights.flat[torch.tensor([14, 15, 4, 5])])
    swapped = ws.fit(coords, targets[picked], spec, steps=12, lr=5e-3, views=2, sources=picked.flip(0))
    assert not torch.equal(swapped.weights.flat, part.weights.flat)


# Early stop.


def test_each_network_stops_at_the_first_tenth_step_that_reaches_the_target() -> None:
    coords, targets = small_problem(8)
    spec, target, most = ws.siren(2, 10, 1), 22.0, 60
    stopped, taken = counted(coords, targets, spec, steps=most, lr=5e-3, target_psnr=target)
    assert same(stopped, ws.fit(coords, targets, spec, steps=most, lr=5e-3, target_psnr=target))
    runs = {k: ws.fit(coords, targets, spec, steps=k, lr=5e-3) for k in range(10, most + 1, 10)}
    expected = [next((k for k in runs if runs[k].psnr[i] >= target), most) for i in range(8)]
    assert taken.tolist() == expected
    assert len(set(expected)) >= 3  # some early, some later, some never
    assert most in expected
    for i, steps in enumerate(expected):
        assert torch.equal(stopped.weights.flat[i], runs[steps].weights.flat[i])
        assert torch.equal(stopped.psnr[i], runs[steps].psnr[i])


def test_a_network_that_starts_at_the_target_takes_no_step() -> None:
    spec, coords = ws.siren(2, 8, 1), ws.signals.grid(5, 5)
    start = initial_weights(spec, torch.arange(3), torch.zeros(3, dtype=torch.int64), seed=0)
    targets = ws.evaluate(start, coords)
    targets[1] += 0.2
    result, taken = counted(coords, targets, spec, steps=15, lr=1e-3, target_psnr=40.0)
    assert taken.tolist() == [0, 15, 0]
    assert torch.equal(result.weights.flat[::2], start.flat[::2])
    assert not torch.equal(result.weights.flat[1], start.flat[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_fits_what_a_cpu_fits() -> None:
    coords, targets = small_problem()
    for spec in (ws.siren(2, 10, 7, 1), ws.mlp(2, 8, 1, activation="silu")):
        host, there = (ws.fit(coords, targets, spec, steps=10, lr=1e-3, device=d) for d in ("cpu", "cuda"))
        assert there.weights.device.type == there.psnr.device.type == "cpu"
        torch.testing.assert_close(there.weights.flat, host.weights.flat, atol=1e-4, rtol=0)
    config = FitConfig(steps=60, lr=5e-3, target_psnr=22.0)
    job = _Job.prepare(coords, targets, ws.siren(2, 10, 1), config, None, None, 0, "cuda", "auto")
    stopped, steps = job.run(job.chunk_size, 1, None)
    assert stopped.psnr is not None
    assert len(steps.unique()) > 2
    assert (stopped.psnr[steps < 60] >= 22).all()


# Quality.


def test_images_are_really_fitted_and_psnr_is_what_evaluate_finds() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:6])
    result = ws.fit(coords, targets, ws.siren(2, 32, 32, 1), steps=150, lr=1e-2)
    error = (ws.evaluate(result.weights, coords) - targets).square().mean((1, 2))
    torch.testing.assert_close(result.psnr, -10 * error.log10(), atol=1e-3, rtol=0)
    constant = -10 * targets.var(1, correction=0)[:, 0].log10()  # the best that a constant image reaches
    assert (result.psnr > constant + 8).all()
    assert result.psnr.mean() > 20


def test_more_steps_fit_better() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:4])
    short, long = (ws.fit(coords, targets, ws.siren(2, 16, 16, 1), steps=k, lr=2e-3).psnr for k in (5, 50))
    assert (long > short + 1).all()


# Starting points.


def test_a_start_depends_on_seed_source_and_view_alone() -> None:
    spec = ws.siren(2, 8, 8, 1)

    def start(seed: int, source: int, view: int) -> Tensor:
        return initial_weights(spec, torch.tensor([source]), torch.tensor([view]), seed=seed).flat[0]

    rows = [start(seed, source, view) for seed in (0, 1) for source in (0, 1, 5) for view in (0, 1)]
    assert len(torch.stack(rows).unique(dim=0)) == len(rows)
    sources, views = torch.tensor([5, 0, 1, 5]), torch.tensor([1, 0, 1, 0])
    batch = initial_weights(spec, sources, views, seed=1)
    for i, (source, view) in enumerate(zip(sources.tolist(), views.tolist(), strict=True)):
        assert torch.equal(batch.flat[i], start(1, source, view))


def test_starts_do_not_touch_or_read_the_global_generator() -> None:
    spec, one = ws.siren(2, 8, 1), torch.tensor([0])
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a = initial_weights(spec, one, one, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(initial_weights(spec, one, one, seed=0).flat, a.flat)


def test_views_are_independent_and_shared_starts_are_one() -> None:
    coords, targets = small_problem(2)
    spec = ws.siren(2, 8, 1)
    result = ws.fit(coords, targets, spec, steps=10, lr=1e-3, views=3, seed=4)
    assert (result.source.tolist(), result.view.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2])
    assert len(result.weights.flat.unique(dim=0)) == 6
    correlation = torch.corrcoef(result.weights.flat[:, spec.slices["0.weight"]])
    assert correlation.fill_diagonal_(0).abs().max() < 0.8
    shared = initial_weights(spec, result.source, result.view, seed=4, shared=True)
    assert len(shared.flat.unique(dim=0)) == 1
    assert not torch.equal(shared.flat, initial_weights(spec, result.source, result.view, seed=5, shared=True).flat)
    alike = ws.fit(coords, targets, spec, steps=10, lr=1e-3, views=2, seed=4, shared_init=True)
    assert torch.equal(alike.weights.flat[0], alike.weights.flat[1])  # the same signal from the same start
    assert not torch.equal(alike.weights.flat[0], alike.weights.flat[2])


def tables(omegas: tuple[float, float]) -> dict[str, tuple[list[float], list[float]]]:
    """Half-widths of weights and biases by layer, as the docstring of ``ws.siren`` states them, for 3-40-20-2."""
    plain = [1 / math.sqrt(n) for n in (3, 40, 20)]
    return {
        "dws": ([math.sqrt(6 / 3) / omegas[0], math.sqrt(6 / 40) / omegas[1], plain[2]], [0, 0, plain[2]]),
        "siren": ([1 / 3, math.sqrt(6 / 40) / omegas[1], math.sqrt(6 / 20) / omegas[1]], plain),
        "torch": (plain, plain),
    }


@pytest.mark.parametrize("init", ["dws", "siren", "torch"])
@pytest.mark.parametrize("by", ["spec", "argument"])
def test_initial_ranges_are_those_of_the_table(init, by: str) -> None:
    omegas = (30.0, 5.0)
    spec = ws.siren(3, 40, 20, 2, omega=omegas, init=init if by == "spec" else "dws")
    chosen = {} if by == "spec" else {"init": init}
    w = initial_weights(spec, torch.arange(200), torch.zeros(200, dtype=torch.int64), seed=0, **chosen)
    weights, biases = tables(omegas)[init]
    for i in range(3):
        for name, bound in ((f"{i}.weight", weights[i]), (f"{i}.bias", biases[i])):
            value = w.view(name)
            assert value.abs().max() <= bound * (1 + 1e-6), name
            if bound:
                assert value.abs().max() > 0.97 * bound, name
                assert abs(value.std().item() - bound / math.sqrt(3)) < 0.05 * bound, name
                assert abs(value.mean().item()) < 0.1 * bound, name


def test_the_conventions_of_relu_networks() -> None:
    spec = ws.mlp(4, 64, 1)
    start = initial_weights(spec, torch.arange(50), torch.zeros(50, dtype=torch.int64), seed=0)
    reference = torch.stack([nn.Linear(4, 64).weight.detach() for _ in range(50)])
    found = start.view("0.weight")
    assert abs(found.abs().max() / reference.abs().max() - 1) < 0.01
    assert abs(found.std() / reference.std() - 1) < 0.03


# Interruption.


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("disk on fire")])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_on_progress_raises_stops_the_fit(error, workers: int) -> None:
    coords, targets = small_problem(200)
    seen, threads = [], torch.get_num_threads()

    def on_progress(done: int, total: int, psnr: Tensor) -> None:
        seen.append(done)
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        ws.fit(coords, targets, ws.siren(2, 8, 1), steps=20, chunk=1, workers=workers, on_progress=on_progress)
    assert 1 <= len(seen) < 100
    assert torch.get_num_threads() == threads


def test_ctrl_c_stops_a_long_fit_within_a_step(request: pytest.FixtureRequest) -> None:
    coords, targets = small_problem(2)
    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in tests that run in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        timer.start()  # inside, so that the signal cannot come before
        ws.fit(coords, targets, ws.siren(2, 8, 1), steps=10**8, workers=2, chunk=1)  # far longer than a minute
    timer.join()
    assert time.perf_counter() - started < 60


def test_chunks_run_on_one_thread_each_and_the_setting_comes_back() -> None:
    coords, targets = small_problem(4)
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        for workers in (1, 2):
            ws.fit(
                *(coords, targets, ws.siren(2, 6, 1)),
                **{"steps": 2, "chunk": 1, "workers": workers},
                on_progress=lambda *_: seen.append(torch.get_num_threads()),
            )
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * 8


def test_on_progress_reports_every_network_once() -> None:
    coords, targets = small_problem(7)
    counts, values = [], []

    def on_progress(done: int, total: int, psnr: Tensor) -> None:
        assert total == 14
        counts.append(done)
        values.append(psnr.clone())

    result = ws.fit(
        *(coords, targets, ws.siren(2, 6, 1)),
        **{"steps": 3, "views": 2, "chunk": 4, "workers": 2},
        on_progress=on_progress,
    )
    assert sorted(map(len, values)) == [2, 4, 4, 4]
    assert counts == torch.tensor([len(value) for value in values]).cumsum(0).tolist()
    assert torch.equal(torch.cat(values).sort().values, result.psnr.sort().values)


# Bad input.

GOOD = {"coords": torch.zeros(4, 2), "targets": torch.zeros(3, 4, 1), "spec": ws.siren(2, 6, 1)}
BAD = {
    "nan": ({"targets": torch.full((3, 4, 1), math.nan)}, ValueError, "targets: expected finite numbers, got 12"),
    "inf": ({"coords": torch.full((4, 2), math.inf)}, ValueError, "coords: expected finite"),
    "bytes": ({"targets": torch.zeros(3, 4, 1, dtype=torch.uint8)}, ValueError, "got torch.uint8; divide them by 255"),
    "int16": (
        {"targets": torch.zeros(3, 4, 1, dtype=torch.int16)},
        ValueError,
        "got torch.int16; scale them to a range",
    ),
    "bools": (
        {"targets": torch.zeros(3, 4, 1, dtype=torch.bool)},
        ValueError,
        "targets: expected real numbers of range o",
    ),
    "complex": (
        {"targets": torch.zeros(3, 4, 1) + 1j},
        ValueError,
        "targets: expected real numbers, got torch.complex64",
    ),
    "complex points": (
        {"coords": torch.zeros(4, 2) + 1j},
        ValueError,
        "coords: expected real numbers, got torch.complex",
    ),
    "texts": ({"targets": [["a"]]}, TypeError, "targets: expected a tensor of numbers, got list"),
    "points": ({"targets": torch.zeros(3, 5, 1)}, ValueError, r"targets: expected \[signal, 4, 1\].*\[3, 5, 1\]"),
    "channels": ({"targets": torch.zeros(3, 4, 2)}, ValueError, "targets: expected"),
    "flat": ({"targets": torch.zeros(3, 4)}, ValueError, "targets: expected"),
    "inputs": ({"coords": torch.zeros(4, 3)}, ValueError, r"coords: expected \[point, 2\]"),
    "no signal": ({"targets": torch.zeros(0, 4, 1)}, ValueError, "at least one signal"),
    "no point": ({"coords": torch.zeros(0, 2), "targets": torch.zeros(3, 0, 1)}, ValueError, "one point"),
    "no spec": ({"spec": "siren"}, TypeError, "spec: expected a NetSpec, got str"),
    "repeated": ({"sources": torch.tensor([1, 2, 1])}, ValueError, "distinct numbers.*views="),
    "negative": ({"sources": torch.tensor([1, -2, 3])}, ValueError, "at least 0"),
    "sources": ({"sources": torch.arange(2)}, ValueError, "one number for each of 3 signals"),
    "steps": ({"steps": 0}, ValueError, "steps: expected at least 1, got 0"),
    "half a step": ({"steps": 1.5}, TypeError, "steps: expected a whole number, got 1.5"),
    "views": ({"views": 0}, ValueError, "views: expected at least 1"),
    "lr nan": ({"lr": math.nan}, ValueError, "lr: expected a positive number"),
    "lr zero": ({"lr": 0.0}, ValueError, "lr: expected a positive number"),
    "lr text": ({"lr": "fast"}, TypeError, "lr: expected a positive number, got 'fast'"),
    "lr none": ({"lr": None}, TypeError, "lr: expected a positive number, got None"),
    "seed": ({"seed": -1}, ValueError, "seed: expected at least 0"),
    "target": ({"target_psnr": math.nan}, ValueError, "target_psnr: expected a finite"),
    "init": ({"init": "xavier"}, ValueError, "unknown init: expected one of .*'xavier'"),
    "option": ({"step": 3}, TypeError, "unknown option: expected some of .*'steps'.*got 'step'"),
    "config": ({"config": {"steps": 3}}, TypeError, "config: expected a FitConfig, got dict"),
    "chunk": ({"chunk": 0}, ValueError, "chunk: expected at least 1, got 0"),
    "workers": ({"workers": -1}, ValueError, "workers: expected at least 1, got -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    change, error, text = BAD[name]
    with pytest.raises(error, match=text):
        ws.fit(**{**GOOD, "steps": 2, **change})


def test_good_input_is_taken() -> None:
    """Control of the test above; tensors that require gradients and other dtypes are fine."""
    result = ws.fit(GOOD["coords"].double().requires_grad_(), GOOD["targets"].half(), GOOD["spec"], steps=2)
    assert result.weights.dtype == torch.float32
    assert not result.weights.flat.requires_grad


def test_pixels_of_0_to_255_are_warned_of() -> None:
    coords, targets = small_problem(2)
    with pytest.warns(
        UserWarning, match=r"targets: expected signals of range one, .* got values from 0 to \d\d\d?.*; divide"
    ):
        ws.fit(coords, 255 * (targets - targets.min()), ws.siren(2, 4, 1), steps=1)
    ws.fit(coords, 5 * targets, ws.siren(2, 4, 1), steps=1)  # no warning: near enough


def test_whole_coordinates_are_taken() -> None:
    coords, targets = torch.tensor([[0, 0], [0, 1], [1, 0]]), torch.rand(1, 3, 1)
    assert same(
        ws.fit(coords, targets, ws.siren(2, 4, 1), steps=2), ws.fit(coords.float(), targets, ws.siren(2, 4, 1), steps=2)
    )


def test_a_network_that_is_no_chain_is_refused(conv_spec) -> None:
    with pytest.raises(ValueError, match="chain of linear layers"):
        ws.fit(torch.zeros(4, 3), torch.zeros(2, 4, 2), conv_spec, steps=1)


def test_initial_weights_refuses_an_unknown_convention() -> None:
    with pytest.raises(ValueError, match="unknown init: expected one of"):
        initial_weights(GOOD["spec"], torch.arange(2), torch.arange(2), seed=0, init="xavier")  # pyright: ignore


def test_options_replace_fields_of_the_config_and_the_recipe_records_all() -> None:
    coords, targets = small_problem(2)
    config = FitConfig(steps=30, lr=2e-3, seed=3)
    assert same(
        ws.fit(coords, targets, ws.siren(2, 6, 1), config=config, steps=4),
        ws.fit(coords, targets, ws.siren(2, 6, 1), steps=4, lr=2e-3, seed=3),
    )
    recipe = config.recipe()
    assert {"steps": 30, "lr": 2e-3, "seed": 3, "optimizer": "adam", "shared_init": False}.items() <= recipe.items()
    assert (FitConfig(shared_init=True).regime, config.regime) == ("shared", "independent")


def test_diverged_networks_are_not_handed_out() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:2])
    with pytest.raises(FloatingPointError, match="diverged; lower lr"):
        ws.fit(coords, targets, ws.mlp(2, 4, 1), steps=60, lr=1e20)


def test_the_spec_records_the_init_that_was_used() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:2])
    fitted = ws.fit(coords, targets, ws.siren(2, 4, 1), steps=1, init="siren").weights.spec
    assert fitted == replace(ws.siren(2, 4, 1), init="siren")
