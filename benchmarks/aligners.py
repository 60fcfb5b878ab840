"""Ways to align beside each other: the squared distance reached, the error at the midpoint, pairs a second.

Pairs of networks that were fitted to different images of Fashion-MNIST from independent starts, SIREN 2-32-32-1, from a
zoo's test split; without a zoo, images from the package are fitted first, briefly. The learned aligner
trains on the training split. Weight matching is what the others have to beat.

    python -m benchmarks.aligners [--zoo runs/zoo] [--pairs 200] [--groups permutation signed full] [--repeats 3]

``pairs_per_second`` is by the clock, ``pairs_per_cpu_second`` by the processor time of this process, which other work
on the cores disturbs less. The first call of each method is not timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import weightspace as ws
from benchmarks._common import save, spread
from weightspace.align import LearnedAligner, distance, match, match_activations, sinkhorn
from weightspace.align.solver._problem import Group

SPEC = ws.siren(2, 32, 32, 1)
SIDE = 28
Method = Callable[[ws.Weights, ws.Weights], ws.Symmetry]


def networks(zoo: str, pairs: int, train: int, steps: int) -> tuple[ws.Weights, ws.Weights, ws.Weights, str]:
    """Both sides of the pairs, the networks to train on, and where they came from."""
    if Path(zoo, "manifest.json").is_file():
        opened = ws.Zoo.open(zoo)
        test, rest = opened.weights("test")[: 2 * pairs], opened.weights("train")[:train]
        where = f"test split of a zoo of {len(opened.weights('train'))} training networks"
    else:
        coords, targets = ws.signals.images(ws.datasets.embedded().subset(range(2 * pairs + train)))
        fit = ws.fit(coords, targets, SPEC, steps=steps, lr=2e-3, seed=0)
        test, rest, where = fit.weights[: 2 * pairs], fit.weights[2 * pairs :], f"embedded images, {steps} steps"
    return test[: len(test) // 2], test[len(test) // 2 :], rest, where


def midpoint_error(a: ws.Weights, b: ws.Weights, coords: Tensor) -> Tensor:
    """Mean squared difference of the midpoint's picture and the mean of both pictures, for each pair."""
    middle = a.replace(torch.lerp(a.flat, b.flat, 0.5))
    mean = torch.lerp(ws.evaluate(a, coords), ws.evaluate(b, coords), 0.5)
    return (ws.evaluate(middle, coords) - mean).square().mean((1, 2))


def methods(group: Group, coords: Tensor, aligner: LearnedAligner) -> dict[str, Method]:
    """Every way to align, by its name in the record."""

    def then_match(first: Method) -> Method:
        def run(a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
            g = first(a, b)
            return match(a, g.act(b), group=group) @ g

        return run

    found: dict[str, Method] = {
        "match": lambda a, b: match(a, b, group=group),
        "match_activations(inner)": lambda a, b: match_activations(a, b, coords, group=group),
        "match_activations(correlation)": lambda a, b: match_activations(
            a, b, coords, group=group, measure="correlation"
        ),
        "sinkhorn": lambda a, b: sinkhorn(a, b, group=group),
        "learned": lambda a, b: aligner.match(a, b),
    }
    for name in ("match_activations(inner)", "sinkhorn", "learned"):
        found[f"{name}, then match"] = then_match(found[name])
    return found


def measured(run: Method, a: ws.Weights, b: ws.Weights, repeats: int) -> tuple[ws.Symmetry, dict[str, Any]]:
    """What a method finds, and its pairs a second."""
    run(a[:8], b[:8])
    wall, cpu, g = [], [], None
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        g = run(a, b)
        wall.append(len(a) / (time.perf_counter() - start))
        cpu.append(len(a) / max(time.process_time() - used, 1e-9))
    assert g is not None
    return g, {"pairs_per_second": spread(wall), "pairs_per_cpu_second": spread(cpu)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", default="runs/zoo")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--groups", nargs="+", default=["permutation", "signed", "full"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train", type=int, default=2000, help="networks that the learned aligner trains on")
    parser.add_argument("--steps", type=int, default=150, help="of that training")
    parser.add_argument("--fit-steps", type=int, default=150, help="of the fit where there is no zoo")
    parser.add_argument("--name", default="aligners", help="of the result file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    a, b, rest, where = networks(args.zoo, args.pairs, args.train, args.fit_steps)
    coords = ws.signals.grid(SIDE, SIDE)
    rows, training = [], {}
    rows.append(outcome("none", "none", a, b, coords, distance(a, b)))
    for group in args.groups:
        aligner = LearnedAligner(a.spec, group=group, channels=16, trunk=4)
        start, used = time.perf_counter(), time.process_time()
        losses = aligner.fit(rest, steps=args.steps, generator=torch.Generator().manual_seed(0))
        seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - used}
        tail = losses[-20:]
        training[group] = {**seconds, "steps": args.steps, "networks": len(rest), "loss": statistics.mean(tail)}
        base = distance(a, match(a, b, group=group).act(b))
        for name, run in methods(group, coords, aligner).items():
            g, rates = measured(run, a, b, args.repeats)
            rows.append({**outcome(group, name, a, g.act(b), coords, base), **rates})
            print(f"{group:12} {name:34} {rows[-1]['squared_distance']['mean']:8.4f}", flush=True)
    what = "pairs of fits of different images, SIREN 2-32-32-1; training of the learned aligner is not in its rate"
    record = {"benchmark": "aligners", "what": what, "networks": where, "pairs": len(a), "load_before": load}
    save(args.name, {**record, "training": training, "rows": rows}, threads=args.threads)


def outcome(group: str, name: str, a: ws.Weights, moved: ws.Weights, coords: Tensor, base: Tensor) -> dict[str, Any]:
    """What is left after aligning; ``base`` is what weight matching leaves."""
    left, error = distance(a, moved), midpoint_error(a, moved, coords)
    found = {"mean": float(left.mean()), "std_over_pairs": float(left.std()), "max": float(left.max())}
    return {
        "group": group,
        "method": name,
        "squared_distance": found,
        "midpoint_error": float(error.mean()),
        "share_below_match": float((left < base * (1 - 1e-5)).float().mean()),
        "share_above_match": float((left > base * (1 + 1e-5)).float().mean()),
    }


if __name__ == "__main__":
    main()
