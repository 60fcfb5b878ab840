"""Fitting speed: the engine against torch.func.vmap with Adam and against one network at a time, in one run.

Same networks, same initial weights, same number of full-batch Adam steps. The methods take turns within each
repeat, so that a change in the machine's load meets all of them; ratios are taken within a repeat.

    python -m benchmarks.fit [--networks 64] [--steps 50] [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.func import grad, vmap

import weightspace as ws
from benchmarks._common import save, spread, timed
from weightspace.fit import initial_weights
from weightspace.fit._fit import _one_thread_each

LR = 5e-4


def networks_loss(flat: Tensor, coords: Tensor, target: Tensor, spec: ws.NetSpec) -> Tensor:
    """Mean squared error of one network, as a user of torch.func would write it."""
    h = coords
    for layer in spec.layers:
        weight = flat[spec.slices[layer.weight]].view(spec.shape(layer.weight))
        h = h @ weight.T + flat[spec.slices[layer.bias or ""]]
        if spec.axis(layer.produces).hidden:
            h = torch.sin(spec.axis(layer.produces).omega * h)
    return ((h + spec.output_shift - target) ** 2).mean()


def adam(flat: Tensor, gradient: Tensor, m: Tensor, v: Tensor, step: int) -> Tensor:
    m.lerp_(gradient, 0.1)
    v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    denominator = (v / (1 - 0.999**step)).sqrt_().add_(1e-8)
    return flat.addcdiv_(m, denominator, value=-LR / (1 - 0.9**step))


def by_vmap(start: Tensor, coords: Tensor, targets: Tensor, spec: ws.NetSpec, steps: int, chunk: int) -> Tensor:
    """``vmap(grad(loss))`` and elementwise Adam over chunks, one chunk a core."""
    gradient = vmap(grad(lambda flat, target: networks_loss(flat, coords, target, spec)))

    def one(rows: slice) -> Tensor:
        flat = start[rows].clone()
        m, v = torch.zeros_like(flat), torch.zeros_like(flat)
        for step in range(1, steps + 1):
            flat = adam(flat, gradient(flat, targets[rows]), m, v, step)
        return flat

    return _chunks(one, len(start), chunk)


def one_at_a_time(start: Tensor, coords: Tensor, targets: Tensor, spec: ws.NetSpec, steps: int) -> Tensor:
    """autograd and torch.optim.Adam, network after network, one a core."""

    def one(rows: slice) -> Tensor:
        flat = start[rows][0].clone().requires_grad_()
        optimizer = torch.optim.Adam([flat], lr=LR)
        for _ in range(steps):
            optimizer.zero_grad()
            networks_loss(flat, coords, targets[rows][0], spec).backward()
            optimizer.step()
        return flat.detach()[None]

    return _chunks(one, len(start), 1)


def _chunks(one, count: int, size: int) -> Tensor:
    workers = os.cpu_count() or 1
    with _one_thread_each(), ThreadPoolExecutor(workers) as pool:
        return torch.cat(list(pool.map(one, [slice(i, i + size) for i in range(0, count, size)])))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    spec = ws.siren(2, 32, 32, 1)
    coords, targets = ws.signals.images(ws.signals.embedded().images[: args.networks])
    sources = torch.arange(args.networks)
    start = initial_weights(spec, sources, torch.zeros_like(sources), seed=0).flat
    methods = {
        "weightspace": lambda: ws.fit(coords, targets, spec, steps=args.steps, lr=LR).weights.flat,
        "one at a time": lambda: one_at_a_time(start, coords, targets, spec, args.steps),
    }
    for chunk in (1, 4, 16, 32):
        methods[f"vmap, chunks of {chunk}"] = lambda chunk=chunk: by_vmap(
            start, coords, targets, spec, args.steps, chunk
        )
    same = {name: (run() - methods["weightspace"]()).abs().max().item() for name, run in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(args.repeats):
        for name, run in methods.items():
            seconds[name].append(timed(run))
    ours = seconds["weightspace"]
    save(
        "fit",
        {
            "benchmark": "fit",
            "what": f"{args.networks} networks SIREN 2-32-32-1, 784 points, {args.steps} full-batch Adam steps",
            "networks_per_second_at_1000_steps": {
                name: spread([args.networks * args.steps / 1000 / s for s in values])
                for name, values in seconds.items()
            },
            "weightspace_faster_by": {
                name: spread([s / o for s, o in zip(values, ours, strict=True)])
                for name, values in seconds.items()
                if name != "weightspace"
            },
            "largest_difference_of_a_weight": same,
        },
    )


if __name__ == "__main__":
    main()
