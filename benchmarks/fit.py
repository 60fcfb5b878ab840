"""Fitting speed: the compiled kernel against every other way to fit thousands of small networks, in one run.

Same networks, same initial weights, same number of full-batch Adam steps. The methods take turns within each
repeat, so that a change in the machine's load meets all of them; ratios are taken within a repeat. The rates of the
kernel's own register tile and sincos, measured in the same run, say how much of the machine it uses.

    python -m benchmarks.fit [--networks 64] [--steps 100] [--repeats 5] [--curves 1000]

JAX takes part where it is installed (``pip install jax``), unless ``--no-jax`` is given.

    python -m benchmarks.fit --device cuda [--networks 8192] [--steps 1000] [--repeats 5]

compares the two kernels of a GPU instead, copies and initial weights included, and writes ``fit-cuda.json``.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

import torch
from torch import Tensor

import weightspace as ws
from benchmarks import _roofline
from benchmarks._common import save, spread, timed
from benchmarks._fit_methods import Method, by_jax, by_kernel, by_vmap, one_at_a_time
from weightspace.fitting import initial_weights

SPEC = ws.siren(2, 32, 32, 1)
OURS = "weightspace, compiled kernel"
GPU = {"weightspace, triton": "triton", "weightspace, tensor path": "torch"}


def methods(alone: Method, *, jax: bool) -> dict[str, Method]:
    found = {
        OURS: by_kernel("compiled"),
        "weightspace, tensor path": by_kernel("torch"),
        "one at a time, a process a core": alone,
        **{f"vmap, chunks of {chunk}": by_vmap(chunk) for chunk in (4, 16, 32, 64)},
    }
    if jax and importlib.util.find_spec("jax") is not None:
        found |= {f"JAX vmap + scan, chunks of {chunk}": by_jax(chunk, mapped=False) for chunk in (1, 4, 16)}
        found["JAX lax.map + scan"] = by_jax(32, mapped=True)
    return found


def starts(count: int) -> Tensor:
    sources = torch.arange(count)
    return initial_weights(SPEC, sources, torch.zeros_like(sources), seed=0).flat


def speed(table: dict[str, Method], count: int, steps: int, repeats: int) -> dict[str, Any]:
    """Rates and ratios of all methods on the same work."""
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:count])
    start = starts(count)
    fitted = {name: method(start, coords, targets, SPEC, steps) for name, method in table.items()}  # and warm
    same = {name: (flat - fitted[OURS]).abs().max().item() for name, flat in fitted.items()}
    seconds: dict[str, list[float]] = {name: [] for name in table}
    share, bound, rates = [], [], {}
    for _ in range(repeats):
        for name, method in table.items():
            seconds[name].append(timed(lambda m=method: m(start, coords, targets, SPEC, steps)))
        rates = _roofline.rates()
        bound.append(_roofline.networks_per_second(rates, len(coords), 32, 1000, grid=len(coords)))
        grid = _roofline.networks_per_second(rates, len(coords), 32, 1000, grid=56)
        rate = count * steps / 1000 / seconds[OURS][-1]
        share.append((rate / bound[-1], rate / grid))
    return {
        "networks_per_second_at_1000_steps": {
            name: spread([count * steps / 1000 / s for s in values]) for name, values in seconds.items()
        },
        "compiled_kernel_faster_by": {
            name: spread([s / o for s, o in zip(values, seconds[OURS], strict=True)])
            for name, values in seconds.items()
            if name != OURS
        },
        "roofline": {
            **rates,
            "networks_per_second_at_1000_steps": spread(bound),
            "share_reached": spread([a for a, _ in share]),
            "share_reached_if_the_grid_spares_the_first_sines": spread([b for _, b in share]),
        },
        "largest_difference_of_a_weight": same,
    }


def on_gpu(table: dict[str, Method], count: int, steps: int, repeats: int) -> dict[str, Any]:
    """Rates of the methods on the same work, and the PSNR that each comes to."""
    coords, images = ws.signals.images(ws.datasets.embedded().images)
    targets = images[torch.arange(count) % len(images)]
    start, few = starts(1), slice(min(count, 64))
    psnr = {}
    for name, method in table.items():  # and warm
        flat = method(start, coords, targets, SPEC, steps)[few]
        error = (ws.evaluate(ws.Weights(flat, SPEC), coords) - targets[few]).square().mean((1, 2))
        psnr[name] = (-10 * error.log10()).mean().item()
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(repeats):
        for name, method in table.items():
            seconds[name].append(timed(lambda m=method: m(start, coords, targets, SPEC, steps)))
    return {
        "networks_per_second_at_1000_steps": {
            name: spread([count * steps / 1000 / s for s in values]) for name, values in seconds.items()
        },
        "mean_psnr_db": psnr,
    }


def linear(counts: tuple[int, ...], steps: int, repeats: int) -> dict[str, Any]:
    """Seconds against the number of networks."""

    def seconds(count: int) -> list[float]:
        coords, targets = ws.signals.images(ws.datasets.embedded().images[:count])
        return [timed(lambda: by_kernel("compiled")(starts(1), coords, targets, SPEC, steps)) for _ in range(repeats)]

    out = {str(count): spread(seconds(count)) for count in counts}
    return {"steps": steps, "seconds_by_networks": out}


def curves(table: dict[str, Method], steps: int, count: int = 4) -> dict[str, Any]:
    """Mean PSNR, dB, of a few networks along the fit, by every method."""
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:count])
    at = [s for s in (1, 10, 30, 100, 300, 600, 1000) if s <= steps]
    out: dict[str, list[float]] = {}
    for name, method in table.items():
        out[name] = []
        for s in at:
            flat = method(starts(count), coords, targets, SPEC, s)
            error = (ws.evaluate(ws.Weights(flat, SPEC), coords) - targets).square().mean((1, 2))
            out[name].append((-10 * error.log10()).mean().item())
    return {"steps": at, "mean_psnr_db": out, "networks": count}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--networks", type=int, help="64; 8192 on a GPU")
    parser.add_argument("--steps", type=int, help="100; 1000 on a GPU")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--curves", type=int, default=1000, help="steps of the PSNR curves")
    parser.add_argument("--jax", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    networks, steps = ((64, 100), (8192, 1000))[args.device == "cuda"]
    args.networks, args.steps = args.networks or networks, args.steps or steps
    what = f"{args.networks} networks SIREN 2-32-32-1, 784 points, {args.steps} full-batch Adam steps"
    if args.device == "cuda":
        table = {name: by_kernel(kernel, "cuda") for name, kernel in GPU.items()}
        rates = on_gpu(table, args.networks, args.steps, args.repeats)
        return save("fit-cuda", {"benchmark": "fit-cuda", "what": what, **rates})
    with one_at_a_time() as alone:
        table = methods(alone, jax=args.jax)
        record = {
            "benchmark": "fit",
            "what": what,
            **speed(table, args.networks, args.steps, args.repeats),
            "linear_in_networks": linear(tuple(args.networks * n for n in (1, 2, 4, 8)), args.steps, args.repeats),
            "psnr_curves": curves({n: m for n, m in table.items() if not n.endswith("chunks of 1")}, args.curves),
        }
    save("fit", record)


if __name__ == "__main__":
    main()
