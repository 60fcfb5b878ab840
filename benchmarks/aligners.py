"""Quality of alignment: the aligners compared on the same pairs, and references to move a zoo to.

    python -m benchmarks.aligners [--zoo runs/zoo] [--pairs 200] [--groups permutation signed full] [--repeats 3]

compares the squared distance reached, the error at the midpoint, and pairs a second, for pairs of networks that were
fitted to different images of Fashion-MNIST from independent starts (SIREN 2-32-32-1, a zoo's test split). The learned
aligner trains on the training split. Weight matching is the method to beat. ``pairs_per_second`` is by the clock,
``pairs_per_cpu_second`` by the processor time of this process, which other work on the cores disturbs less. The first
call of each method is not timed.

    python -m benchmarks.aligners --references [--zoo runs/zoo runs/zoo-siren] [--train 2000] [--held-out 500]

compares the iterated mean and the learned reference (``anchors.json``). Every reference is made from training networks,
three times, each time with another network to begin with and other batches. The validation networks are then matched to
it over the same group: their mean squared distance to the reference, and that of random pairs of them once they are
there. ``cpu_seconds`` is the processor time of making the reference; the first call of each group is not measured.

Without a zoo, a few networks are fitted first, briefly: that measures nothing.
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
from benchmarks.transforms import fitted
from weightspace._symmetry import Group
from weightspace.align import LearnedAligner, align_to, anchor, distance, match, match_activations, sinkhorn

SPEC = ws.siren(2, 32, 32, 1)
SIDE = 28
Method = ws.align.Aligner


def networks(zoo: Path, pairs: int, train: int, steps: int) -> tuple[ws.Weights, ws.Weights, ws.Weights, str]:
    """Return both sides of the pairs, the networks to train on, and where they come from."""
    if (zoo / "manifest.json").is_file():
        opened = ws.Zoo.open(zoo)
        test, rest = opened["test"].weights[: 2 * pairs], opened["train"].weights[:train]
        where = f"test split of a zoo of {opened.count('train')} training networks"
    else:
        coords, targets = ws.signals.images(ws.datasets.embedded().subset(range(2 * pairs + train)))
        fit = ws.fit(coords, targets, SPEC, steps=steps, lr=2e-3, seed=0)
        test, rest, where = fit.weights[: 2 * pairs], fit.weights[2 * pairs :], f"embedded images, {steps} steps"
    return test[: len(test) // 2], test[len(test) // 2 :], rest, where


def midpoint_error(a: ws.Weights, b: ws.Weights, coords: Tensor) -> Tensor:
    """Return the mean squared difference of the midpoint's picture and the mean of both pictures, for each pair."""
    middle = a.replace(torch.lerp(a.flat, b.flat, 0.5))
    mean = torch.lerp(ws.evaluate(a, coords), ws.evaluate(b, coords), 0.5)
    return (ws.evaluate(middle, coords) - mean).square().mean((1, 2))


def methods(group: Group, coords: Tensor, aligner: LearnedAligner) -> dict[str, Method]:
    """Return every aligner, by its name in the record."""

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
    """Return what a method finds, and its pairs a second."""
    run(a[:8], b[:8])
    wall, cpu, g = [], [], None
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        g = run(a, b)
        wall.append(len(a) / (time.perf_counter() - start))
        cpu.append(len(a) / max(time.process_time() - used, 1e-9))
    assert g is not None
    return g, {"pairs_per_second": spread(wall), "pairs_per_cpu_second": spread(cpu)}


def outcome(group: str, name: str, a: ws.Weights, moved: ws.Weights, coords: Tensor, base: Tensor) -> dict[str, Any]:
    """Return the distances left after aligning; ``base`` holds those that weight matching leaves."""
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


# --- references

Maker = Callable[[ws.Weights, Group, int], ws.Weights]
"""A function of the networks, a group and the number of the repeat."""


def iterated(rounds: int) -> Maker:
    """Return the maker of the iterated mean."""
    return lambda w, group, number: anchor(w, group=group, rounds=rounds, start=w[number])


def learned(rounds: int, batch_size: int) -> Maker:
    """Return the maker of the learned reference."""

    def make(w: ws.Weights, group: Group, number: int) -> ws.Weights:
        gen = torch.Generator().manual_seed(number)
        return anchor(w, group=group, rounds=rounds, start=w[number], batch_size=batch_size, generator=gen)

    return make


def makers(passes: list[int], batches: list[int]) -> list[tuple[dict[str, Any], Maker]]:
    """Return the settings of each row, and the maker of its reference."""
    rows: list[tuple[dict[str, Any], Maker]] = [({"reference": "one network"}, lambda w, group, number: w[number])]
    rows += [({"reference": "iterated mean", "rounds": n}, iterated(n)) for n in passes]
    rows += [
        ({"reference": "learned", "rounds": n, "batch_size": size}, learned(n, size))
        for size in batches
        for n in passes
    ]
    return rows


def mean(a: ws.Weights, b: ws.Weights) -> float:
    """Return the mean squared distance of two batches."""
    return float(distance(a, b).double().mean())


def reached(
    train: ws.Weights, held: ws.Weights, group: Group, repeats: int, settings: dict[str, Any], make: Maker
) -> dict[str, Any]:
    """Return one row: the distances that a reference reaches, over the repeats."""
    partner = torch.randperm(len(held), generator=torch.Generator().manual_seed(0))
    seen, unseen, apart, seconds = [], [], [], []
    for number in range(repeats):
        start = time.process_time()
        reference = make(train, group, number)
        seconds.append(time.process_time() - start)
        seen.append(mean(reference, align_to(train, reference, group=group)[0]))
        moved = align_to(held, reference, group=group)[0]
        unseen.append(mean(reference, moved))
        apart.append(mean(moved, moved[partner]))
    row = {"group": group, **settings, "held_out": {"mean": statistics.mean(unseen), **spread(unseen)}}
    row |= {"trained_on": spread(seen), "held_out_pairs": spread(apart), "cpu_seconds": spread(seconds)}
    shown = {key: round(value["median"], 4) for key, value in row.items() if isinstance(value, dict)}
    print(*settings.values(), group, shown, flush=True)
    return row


def zoo_record(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return all rows of one zoo."""
    if (path / "manifest.json").is_file():
        zoo = ws.Zoo.open(path)
        train = zoo["train"].weights[: args.train].clone()
        held = zoo["val"].weights[: args.held_out].clone()
    else:
        both = fitted(args.train + args.held_out, args.fit_steps)
        train, held = both[: args.train], both[args.train :]
    partner, out = torch.randperm(len(held), generator=torch.Generator().manual_seed(0)), []
    pairs = {"unaligned": mean(held, held[partner])}
    for group in args.groups or ("full", "permutation"):
        match(train[:1], train[:2], group=group)  # compiled before the clock starts
        pairs[group] = mean(held, match(held, held[partner], group=group).act(held[partner]))
        out += [reached(train, held, group, args.repeats, *row) for row in makers(args.passes, args.batches)]
    return {"zoo": path.name, "networks": len(train), "held_out": len(held), "pairs_matched": pairs, "rows": out}


def compared(args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of all aligners."""
    a, b, rest, where = networks(args.zoo[0], args.pairs, args.train, args.fit_steps)
    coords = ws.signals.grid(SIDE, SIDE)
    rows, training = [outcome("none", "none", a, b, coords, distance(a, b))], {}
    for group in args.groups or ("permutation", "signed", "full"):
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
    return {"what": what, "networks": where, "pairs": len(a), "training": training, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, nargs="+", help="runs/zoo; for references runs/zoo-siren too")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--groups", nargs="+", help="by default all that the records hold")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train", type=int, default=2000, help="networks that learned aligners and references see")
    parser.add_argument("--steps", type=int, default=150, help="of the learned aligner's training")
    parser.add_argument("--fit-steps", type=int, default=150, help="of the fits where there is no zoo")
    parser.add_argument("--references", action="store_true", help="compare references instead")
    parser.add_argument("--held-out", type=int, default=500, help="networks to match to a reference")
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 3, 5], help="over the networks, of a reference")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128], help="of a learned reference")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    args.zoo = args.zoo or [Path("runs/zoo"), *([Path("runs/zoo-siren")] if args.references else [])]
    record: dict[str, Any] = {"benchmark": "aligners", "load_before": load}
    if args.references:
        what = "mean squared distance to a reference, and of pairs moved onto it"
        record |= {"what": what, "zoos": [zoo_record(path, args) for path in args.zoo]}
        save("anchors", record, threads=args.threads)
        return
    save("aligners", {**record, **compared(args)}, threads=args.threads)


if __name__ == "__main__":
    main()
