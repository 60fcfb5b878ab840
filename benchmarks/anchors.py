"""References to align a zoo with: the iterated mean and the learned one, by the distance of networks not seen before.

Every reference is made from training networks, three times, each time with another network to begin with and other
batches. The validation networks are then matched to it over the same group: their mean squared distance to the
reference, and that of random pairs of them once they lie there.

    python -m benchmarks.anchors [--zoo runs/zoo runs/zoo-siren] [--networks 2000] [--held-out 500] [--repeats 3]

``cpu_seconds`` is the processor time of making the reference; the first call of each group is not measured. Without a
zoo, a few fits to smooth random images take its place.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import weightspace as ws
from benchmarks._common import save, spread
from benchmarks.transforms import fitted
from weightspace.align import anchor, canonicalize, distance, match
from weightspace.align.solver._problem import Group

Maker = Callable[[ws.Weights, Group, int], ws.Weights]
"""From the networks, a group and the number of the repeat."""


def iterated(rounds: int) -> Maker:
    return lambda w, group, number: anchor(w, group=group, rounds=rounds, start=w[number])


def learned(rounds: int, batch_size: int) -> Maker:
    def make(w: ws.Weights, group: Group, number: int) -> ws.Weights:
        gen = torch.Generator().manual_seed(number)
        return anchor(w, group=group, rounds=rounds, start=w[number], batch_size=batch_size, generator=gen)

    return make


def makers(passes: list[int], batches: list[int]) -> list[tuple[dict[str, Any], Maker]]:
    """Each way to make a reference with its row's settings."""
    rows: list[tuple[dict[str, Any], Maker]] = [({"reference": "one network"}, lambda w, group, number: w[number])]
    rows += [({"reference": "iterated mean", "rounds": n}, iterated(n)) for n in passes]
    rows += [
        ({"reference": "learned", "rounds": n, "batch_size": size}, learned(n, size))
        for size in batches
        for n in passes
    ]
    return rows


def mean(a: ws.Weights, b: ws.Weights) -> float:
    return float(distance(a, b).double().mean())


def measured(
    train: ws.Weights, held: ws.Weights, group: Group, repeats: int, settings: dict[str, Any], make: Maker
) -> dict[str, Any]:
    """One row: the distances that a reference reaches, over the repeats."""
    partner = torch.randperm(len(held), generator=torch.Generator().manual_seed(0))
    seen, unseen, apart, seconds = [], [], [], []
    for number in range(repeats):
        start = time.process_time()
        reference = make(train, group, number)
        seconds.append(time.process_time() - start)
        seen.append(mean(reference, canonicalize(train, reference, group=group)[0]))
        moved = canonicalize(held, reference, group=group)[0]
        unseen.append(mean(reference, moved))
        apart.append(mean(moved, moved[partner]))
    row = {"group": group, **settings, "held_out": {"mean": statistics.mean(unseen), **spread(unseen)}}
    row |= {"trained_on": spread(seen), "held_out_pairs": spread(apart), "cpu_seconds": spread(seconds)}
    shown = {key: round(value["median"], 4) for key, value in row.items() if isinstance(value, dict)}
    print(*settings.values(), group, shown, flush=True)
    return row


def zoo_record(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All rows of one zoo."""
    if (path / "manifest.json").is_file():
        zoo = ws.Zoo.open(path)
        train = zoo.weights("train")[: args.networks].clone()
        held = zoo.weights("val")[: args.held_out].clone()
    else:
        both = fitted(args.networks + args.held_out, args.steps)
        train, held = both[: args.networks], both[args.networks :]
    partner, out = torch.randperm(len(held), generator=torch.Generator().manual_seed(0)), []
    pairs = {"unaligned": mean(held, held[partner])}
    for group in args.groups:
        match(train[:1], train[:2], group=group)  # compiled before the clock starts
        pairs[group] = mean(held, match(held, held[partner], group=group).act(held[partner]))
        out += [measured(train, held, group, args.repeats, *row) for row in makers(args.passes, args.batches)]
    return {"zoo": path.name, "networks": len(train), "held_out": len(held), "pairs_matched": pairs, "rows": out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, nargs="+", default=[Path("runs/zoo"), Path("runs/zoo-siren")])
    parser.add_argument("--networks", type=int, default=2000, help="to make the reference of")
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--groups", nargs="+", default=["full", "permutation"])
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="of the fits, where there is no zoo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="anchors", help="of the result file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    record: dict[str, Any] = {
        "benchmark": "anchors",
        "what": "mean squared distance to a reference, and of pairs moved onto it",
        "zoos": [zoo_record(path, args) for path in args.zoo],
    }
    save(args.name, record, threads=args.threads)


if __name__ == "__main__":
    main()
