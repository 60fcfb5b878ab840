"""The steps of ``benchmarks.gpu``. Each writes its rows as it finds them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import weightspace as ws
from benchmarks._common import save_to, spread
from benchmarks._fit_methods import LR, adam, network_loss
from benchmarks.models import BATCH, SMALLER, training_step
from benchmarks.transforms import TRANSFORMS, fitted
from weightspace.align import distance, match
from weightspace.bench._sizes import RELEASED, SMALL
from weightspace.fitting._init import initial_weights

ROOT = Path(__file__).parents[1]
SPEC = ws.siren(2, 32, 32, 1)


class Step:
    """One step: its device, its time, and the rows that it has found.

    Args:
        path: the file of its rows.
        seconds: its time limit; the driver ends the process then.
        tiny: whether to run at sizes that measure nothing.
    """

    def __init__(self, path: Path, seconds: float, tiny: bool) -> None:
        self.path, self.tiny = path, tiny
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.deadline = time.perf_counter() + seconds
        self.rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        """Note a row, and write all of them."""
        self.rows.append(row)
        print(row, flush=True)
        self.save()

    def save(self) -> None:
        """Write the rows."""
        save_to(self.path, {"rows": self.rows})

    def tried(self, run: Callable[[], dict[str, Any]], **row: Any) -> dict[str, Any]:
        """Note a row with what ``run`` finds, or with its error: one that breaks must not end the others."""
        try:
            found = run()
        except Exception as error:
            found = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        self.add(**row, **found)
        return found

    def time_left(self) -> float:
        """Return the seconds until the driver ends the process."""
        return self.deadline - time.perf_counter()

    def seconds(self, run: Callable[[], Any], repeats: int, warm: Callable[[], Any] | None = None) -> list[float]:
        """Return the seconds of each repeat of a call; the device is waited for.

        Before them ``warm`` is called, or else ``run`` once: compilers and allocators are then ready.
        """
        (warm or run)()
        out = []
        for _ in range(repeats):
            self.wait()
            begun = time.perf_counter()
            run()
            self.wait()
            out.append(time.perf_counter() - begun)
        return out

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def fp32_peak() -> float | None:
    """Return the fp32 FLOP of the device in a second: two for each of 128 lanes of a multiprocessor and cycle."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    clock = getattr(found, "clock_rate", None)  # kHz; some versions of torch do not say
    if not clock:
        query = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
        try:
            text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None
        clock = 1000 * float(text.split()[0])
    return 2 * 128 * found.multi_processor_count * 1000 * float(clock)


def tests(step: Step) -> None:
    """Run the tests that need the device; a test that fails is a row."""
    chosen = ["tests/test_weights.py", "-k", "cpu"] if step.tiny else ["tests", "-k", "cuda or gpu"]
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "--tb=short", *chosen]
    counts = dict.fromkeys(("PASSED", "FAILED", "ERROR", "SKIPPED"), 0)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:  # as it comes, so that tests that ran out of time have counted so far
            print(line, end="", flush=True)
            found = re.match(r"(\S+::.*) (PASSED|FAILED|ERROR|SKIPPED)\b", line)
            if found:
                counts[found[2]] += 1
                failed = [row for row in step.rows if "test" in row]
                failed += [{"test": found[1], "status": found[2]}] if found[2] in ("FAILED", "ERROR") else []
                step.rows = [{"counts": dict(counts)}, *failed]
                step.save()
    step.add(exit_code=process.returncode)


# --- fitting


def fit_flop(points: int) -> float:
    """Return the FLOP of one step of one network: products alone, three for each layer but the first, which has two."""
    total = 0.0
    for number, layer in enumerate(SPEC.layers):
        products = 2 if number == 0 else 3  # nothing asks for the gradient of the coordinates
        rows, columns = SPEC.shape(layer.weight)
        total += 2.0 * products * points * rows * columns
    return total


def by_vmap(start: Tensor, coords: Tensor, targets: Tensor, steps: int) -> Tensor:
    """Fit all networks together by ``torch.func.vmap(grad(loss))``, as ``benchmarks.fit`` does on a CPU."""
    gradient = torch.func.vmap(torch.func.grad(lambda flat, target: network_loss(flat, coords, target, SPEC)))
    flat = start.clone()
    m, v = torch.zeros_like(flat), torch.zeros_like(flat)
    for number in range(1, steps + 1):
        flat = adam(flat, gradient(flat, targets), m, v, number)
    return flat


def fit(step: Step) -> None:
    """Compare the kernels: first that they agree, then their rates."""
    kernels = ["triton", "torch"] if step.device.type == "cuda" else ["compiled", "torch"]
    few, count, steps = (2, 2, 2) if step.tiny else (64, 8192, 1000)
    coords, images = ws.signals.images(ws.datasets.embedded().images)
    targets = images[torch.arange(count) % len(images)]
    sources = torch.arange(count)
    start = initial_weights(SPEC, sources, torch.zeros_like(sources), seed=0).flat

    def ours(kernel: str, count: int, steps: int) -> ws.Networks:
        return ws.fit(coords, targets[:count], SPEC, steps=steps, lr=LR, kernel=kernel, device=step.device)  # pyright: ignore

    def theirs(count: int, steps: int) -> Tensor:
        on_device = [value.to(step.device) for value in (start[:count], coords, targets[:count])]
        return by_vmap(*on_device, steps).cpu()

    reference = ws.fit(coords, targets[:few], SPEC, steps=20, lr=LR, kernel="torch", device="cpu").weights.flat
    for name in [*kernels, "vmap"]:

        def difference(name: str = name) -> dict[str, Any]:
            found = theirs(few, 20) if name == "vmap" else ours(name, few, 20).weights.flat
            return {"largest_difference_of_a_weight": (found - reference).abs().max().item()}

        step.tried(difference, what="20 steps against the tensor path on the CPU", kernel=name, networks=few)
    flop, peak = fit_flop(len(coords)), fp32_peak()
    for name in [*kernels, "vmap"]:
        size = min(count, 1024) if name == "vmap" else count

        def rate(name: str = name, size: int = size) -> dict[str, Any]:
            def run(steps: int = steps) -> None:
                theirs(size, steps) if name == "vmap" else ours(name, size, steps)

            taken = step.seconds(run, 1 if name != kernels[0] or step.tiny else 3, warm=lambda: run(2))
            rates = [size * steps / 1000 / value for value in taken]
            share = None if peak is None else max(rates) * 1000 * flop / peak
            return {"networks_per_second_at_1000_steps": spread(rates), "share_of_fp32_peak": share}

        step.tried(rate, what=f"{steps} steps", kernel=name, networks=size)

    def quality(name: str) -> dict[str, Any]:
        found = ours(name, few, steps).psnr
        assert found is not None
        return {"mean_psnr_db": found.mean().item()}

    for name in kernels:
        step.tried(lambda name=name: quality(name), what=f"PSNR after {steps} steps", kernel=name, networks=few)


# --- alignment


def align(step: Step) -> None:
    """Match pairs on the device and on the CPU: pairs a second, and the distances that are reached."""
    base = fitted(*((4, 1) if step.tiny else (256, 150)))
    gen = torch.Generator().manual_seed(1)
    for group in ("permutation", "signed", "full"):
        for count in (2,) if step.tiny else (64, 1024, 4096):
            a, b = (base[torch.randint(len(base), (count,), generator=gen)] for _ in range(2))
            for device in dict.fromkeys(["cpu", step.device.type]):
                if step.time_left() < 5 and not step.tiny:
                    return

                def measured(a: ws.Weights = a, b: ws.Weights = b, device: str = device, group: Any = group) -> dict:
                    left, right = a.to(device), b.to(device)
                    taken = step.seconds(lambda: match(left, right, group=group), 1 if step.tiny else 3)
                    moved = match(left, right, group=group).act(right)
                    return {
                        "pairs_per_second": spread([len(a) / value for value in taken]),
                        "mean_squared_distance": distance(left, moved).double().mean().item(),
                    }

                step.tried(measured, group=group, pairs=count, device=device)


# --- models


def models(step: Step) -> None:
    """Time a training step of every model: float32 and bf16 of all first, then CUDA graphs, then torch.compile."""
    names = ["mlp 512 x 3"] if step.tiny else list(RELEASED)
    modes = ["float32", "bf16 autocast", "cuda graph", "torch.compile"]
    for mode in modes:
        for name in names:
            if step.time_left() < (45 if mode == "torch.compile" else 5) and not step.tiny:
                return
            step.tried(lambda name=name, mode=mode: model_step(step, name, mode), case=name, mode=mode)


def model_step(step: Step, name: str, mode: str) -> dict[str, Any]:
    """Return the seconds of a step in one mode, and the loss of its first step, which all modes must share."""
    size = 2 if step.tiny else SMALLER.get(RELEASED[name][0], BATCH)
    model, _, run = training_step(name, size, step.device)
    if mode == "bf16 autocast":
        plain = run

        def run() -> Tensor:
            with torch.autocast(step.device.type, torch.bfloat16):
                return plain()

    if mode == "torch.compile":
        model.compile(backend="eager" if step.tiny else "inductor")  # pyright: ignore[reportCallIssue]
    first = run().item()
    if mode == "cuda graph":
        if step.device.type != "cuda":
            return {"note": "no CUDA device"}
        run = graphed(run)
    taken = step.seconds(run, 1 if step.tiny else 10)
    return {"batch": size, "first_loss": first, "seconds": spread(taken), "parameters": model.num_parameters}


def graphed(run: Callable[[], Tensor]) -> Callable[[], None]:
    """Capture a step as a CUDA graph; return a function that replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


# --- transforms and loading


def transforms(step: Step) -> None:
    """Measure networks a second of every transform on the device and on the CPU, and of loading a zoo."""
    base, gen = fitted(*((4, 1) if step.tiny else (256, 150))), torch.Generator().manual_seed(1)
    batch = 4 if step.tiny else 1024
    rows = torch.randint(len(base), (batch,), generator=gen)
    for name, (transform, spec) in list(TRANSFORMS.items())[: 3 if step.tiny else None]:
        for device in dict.fromkeys(["cpu", step.device.type]):
            weights = ws.Weights(base.flat[rows], spec).to(device)
            own = torch.Generator(device).manual_seed(1)

            def measured(transform: Any = transform, weights: ws.Weights = weights, own: Any = own) -> dict[str, Any]:
                taken = step.seconds(lambda: transform(weights, generator=own), 2 if step.tiny else 7)
                return {"networks_per_second": spread([len(weights) / value for value in taken])}

            step.tried(measured, transform=name, batch=batch, device=device)
    loading(step, base)


def loading(step: Step, base: ws.Weights) -> None:
    """Measure an epoch of shuffled batches on the device, resident and read from mapped files."""
    count, batch = (16, 4) if step.tiny else (65536, 512)
    gen = torch.Generator().manual_seed(2)
    many = ws.Networks(base[torch.randint(len(base), (count,), generator=gen)])
    with tempfile.TemporaryDirectory() as folder:
        zoo = ws.zoo.write_zoo(f"{folder}/zoo", train=many, shard_size=count // 8)
        for name, resident in (("resident", 1 << 40), ("mapped", 0)):

            def epoch(resident: int = resident) -> None:
                own = torch.Generator(step.device).manual_seed(1)
                for _ in zoo.batches("train", batch, generator=own, device=step.device, resident_bytes=resident):
                    pass

            def measured() -> dict[str, Any]:
                return {"networks_per_second": spread([count / value for value in step.seconds(epoch, 3)])}

            step.tried(measured, loading=name, batch=batch, device=step.device.type)


# --- a row of the study


def study(step: Step) -> None:
    """Fit a zoo and train DWSNet on it, both on the device."""
    data = ws.datasets.embedded()
    counts = {"train": 24, "val": 8, "test": 8} if step.tiny else {"train": 2700, "val": 300, "test": 1000}
    with tempfile.TemporaryDirectory() as folder:
        zoo: list[ws.Zoo] = []

        def fitting() -> dict[str, Any]:
            spec = ws.siren(2, 8, 8, 1) if step.tiny else SPEC
            config = ws.FitConfig(steps=5) if step.tiny else ws.fitting.RECIPES["dws"]
            begun = time.perf_counter()
            zoo.append(ws.fit_zoo(f"{folder}/zoo", data, spec, config=config, counts=counts, device=step.device))
            seconds = time.perf_counter() - begun
            psnr = zoo[0].psnr("train").mean().item()
            return {"seconds": seconds, "networks_per_second": sum(counts.values()) / seconds, "mean_psnr_db": psnr}

        step.tried(fitting, what="fit_zoo, recipe dws", counts=counts)
        for seed in range(1 if step.tiny else 3):

            def training(seed: int = seed) -> dict[str, Any]:
                name, options = SMALL["dwsnet"]
                model = ws.models.build(name, zoo[0].spec, zoo[0].num_classes, seed=seed, **options)
                epochs = 1 if step.tiny else 20
                found = ws.train(model, zoo[0], epochs=epochs, lr=4e-3, seed=seed, device=step.device)
                return {"epochs": epochs, "val": found.val, "test": found.test, "seconds": found.seconds}

            step.tried(training, what="DWSNet, hidden 16, 2 layers, no augmentation", seed=seed)


STEPS: dict[str, Callable[[Step], None]] = {
    "tests": tests,
    "fit": fit,
    "align": align,
    "models": models,
    "transforms": transforms,
    "study": study,
}
