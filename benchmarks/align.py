"""Speed of alignment: pairs a second and the distance reached, a zoo to an anchor, MixUp's share of a training step.

Methods run side by side, in turns, on the same pairs. "one-pair loop" is a transcription of the algorithm as it is
released for multi-layer perceptrons: one pair at a time, tensors of PyTorch, SciPy's assignment, layers in random order
until none gains. It searches permutations alone.

    python -m benchmarks.align [--threads 2] [--repeats 7]

Networks are those of a zoo (``--zoo``, by default ``runs/zoo``) if it exists, otherwise fits to smooth random images.
Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import cross_entropy

import weightspace as ws
from benchmarks._common import peak_mb, save, spread, timed
from benchmarks.transforms import fitted
from weightspace.align import distance, match
from weightspace.align.solver._descent import descend_tensors
from weightspace.align.solver._problem import matching_problem
from weightspace.bench._sizes import SMALL

GROUPS = ("permutation", "signed", "full")
BATCH = 64


def one_pair(
    spec: ws.NetSpec, a: dict[str, Tensor], b: dict[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """Find the permutation of each hidden axis of one pair by algorithm 1 of Ainsworth et al."""
    perm = {axis.name: torch.arange(axis.size) for axis in spec.hidden}
    names, progress = list(perm), True

    def permuted(param: ws.Param, but: str) -> Tensor:
        value = b[param.name]
        for i, name in enumerate(param.axes):
            if name in perm and name != but:
                value = torch.index_select(value, i, perm[name])
        return value

    while progress:
        progress = False
        for number in torch.randperm(len(names), generator=generator).tolist():
            name = names[number]
            size = len(perm[name])
            gain = torch.zeros(size, size)
            for param in spec.params:
                if name in param.axes:
                    i = param.axes.index(name)
                    left = a[param.name].movedim(i, 0).reshape(size, -1)
                    gain += left @ permuted(param, name).movedim(i, 0).reshape(size, -1).T
            rows, columns = linear_sum_assignment(gain.numpy(), maximize=True)
            before = gain[torch.arange(size), perm[name]].sum()
            if gain[torch.from_numpy(rows), torch.from_numpy(columns)].sum() > before + 1e-6:
                perm[name], progress = torch.from_numpy(columns), True
    return perm


def loop(a: ws.Weights, b: ws.Weights) -> ws.Symmetry:
    """Match a batch pair by pair."""
    gen = torch.Generator().manual_seed(0)
    left, right = a.state_dicts(), b.state_dicts()
    found = [one_pair(b.spec, x, y, gen) for x, y in zip(left, right, strict=True)]
    return ws.Symmetry(
        b.spec, len(b), {axis.name: torch.stack([p[axis.name] for p in found]) for axis in b.spec.hidden}
    )


def pairs(base: ws.Weights, count: int, few: int, repeats: int) -> dict[str, object]:
    """Measure every method on the same pairs, in turns; the slow ones on the first ``few`` of them."""
    gen = torch.Generator().manual_seed(1)
    a, b = (base[torch.randint(len(base), (count,), generator=gen)] for _ in range(2))
    methods = {"one-pair loop": (few, lambda x, y: loop(x, y))}
    for group in GROUPS:
        methods[group] = (count, lambda x, y, g=group: match(x, y, group=g))
        methods[f"{group}, tensors"] = (min(count, 4 * few), lambda x, y, g=group: tensors(x, y, g))
    reached = {name: distance(a[:few], run(a[:few], b[:few]).act(b[:few])) for name, (_, run) in methods.items()}
    rates: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, (size, run) in methods.items():
            rates[name].append(size / timed(lambda run=run, size=size: run(a[:size], b[:size])))
    rows = []
    for name in methods:
        ratio = [x / y for x, y in zip(rates[name], rates["one-pair loop"], strict=True)]
        lower = (reached[name] < reached["one-pair loop"]).double().mean()
        rows.append(
            {
                "method": name,
                "pairs_per_second": spread(rates[name]),
                "times_the_loop": spread(ratio),
                "mean_squared_distance": float(reached[name].double().mean()),
                "share_lower_than_the_loop": float(lower),
            }
        )
        print(f"{name:24} {rows[-1]['pairs_per_second']['median']:10,.0f} pairs/s", rows[-1], flush=True)
    unaligned = float(distance(a[:few], b[:few]).double().mean())
    return {"pairs": count, "pairs_of_slow_methods": few, "mean_squared_distance_unaligned": unaligned, "rows": rows}


def tensors(a: ws.Weights, b: ws.Weights, group: str) -> ws.Symmetry:
    """Match by the second implementation: tensors instead of the compiled kernel."""
    orders = torch.arange(len(b.spec.hidden)).repeat(100, 1)
    return descend_tensors(a, b, matching_problem(b.spec, group), orders)  # pyright: ignore[reportArgumentType]


def anchor(base: ws.Weights, count: int) -> dict[str, object]:
    """Move many networks to an anchor over the full group: seconds, memory, and the distances of canonical forms."""
    gen, spec = torch.Generator().manual_seed(2), base.spec
    weights = base[torch.arange(count) % len(base)]
    if count > len(base):  # repeated networks are moved along random elements, so that no two are the same
        weights = ws.Symmetry.sample(spec, batch=count, generator=gen).act(weights)
    reference = ws.align.anchor(weights[: min(count, 2000)])
    match(reference, weights[:2], group="full")  # compiled before the clock starts
    before = peak_mb()
    start = time.perf_counter()
    aligned, _ = ws.align.align_to(weights, reference)
    seconds = time.perf_counter() - start
    peak = peak_mb()
    forms, _ = ws.align.canonicalize(weights)
    order = torch.randperm(count, generator=gen)
    apart = {
        "unaligned": distance(weights, weights[order]),
        "rules": distance(forms, forms[order]),
        "anchor": distance(aligned, aligned[order]),
        "pairwise": distance(weights, match(weights, weights[order], group="full").act(weights[order])),
    }
    return {
        "networks": count,
        "group": "full",
        "seconds": seconds,
        "networks_per_second": count / seconds,
        "peak_mb": peak,
        "peak_mb_before": before,
        "mean_squared_distance_of_random_pairs": {name: float(value.double().mean()) for name, value in apart.items()},
    }


def share(base: ws.Weights, repeats: int) -> dict[str, object]:
    """Compare MixUp with a training step of the released model's size."""
    gen = torch.Generator().manual_seed(3)
    weights = base[torch.randint(len(base), (BATCH,), generator=gen)]
    labels = torch.randint(0, 10, (BATCH,), generator=gen)
    soft = torch.nn.functional.one_hot(labels, 10).float()
    reference = ws.align.anchor(base[:500])
    aligned, _ = ws.align.align_to(weights, reference)
    name, options = SMALL["dwsnet"]
    model = ws.models.build(name, base.spec, 10, seed=0, **options)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(weights), soft).backward()
        optimizer.step()

    mixes = {f"pairwise, {group}": (ws.transforms.MixUp(group), weights) for group in GROUPS}
    mixes |= {
        "anchor, full": (ws.transforms.MixUp("full", anchor=reference), weights),
        "anchored zoo": (ws.transforms.MixUp(), aligned),
    }
    calls = {"step": step} | {
        name: (lambda mix=mix, w=w: mix(w, soft, generator=gen)) for name, (mix, w) in mixes.items()
    }
    for call in calls.values():
        for _ in range(3):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(timed(call))
    shares = {
        name: spread([x / (x + s) for x, s in zip(seconds[name], seconds["step"], strict=True)]) for name in mixes
    }
    beside = {name: spread([x / s for x, s in zip(seconds[name], seconds["step"], strict=True)]) for name in mixes}
    return {
        "what": f"DWSNet hidden 16, 2 layers, batch {BATCH}",
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "times_the_step": beside,
        "share_of_step_and_mixup": shares,
    }


def networks(zoo: Path, count: int, steps: int) -> tuple[ws.Weights, str]:
    """Return networks of the zoo, or fitted ones where there is none, and where they come from."""
    if (zoo / "manifest.json").exists():
        opened = ws.Zoo.open(zoo)
        weights = opened.weights("train")[:count].clone()
        return weights, f"{zoo.name}: {opened.provenance.get('name', 'a zoo')}, {len(weights)} training networks"
    return fitted(min(count, 256), steps), "256 fits to smooth random images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--few", type=int, default=256, help="pairs of the slow methods")
    parser.add_argument("--networks", type=int, default=60000, help="to align with an anchor")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=150, help="of the fits, where there is no zoo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="align", help="of the result file")
    parser.add_argument("--phase", choices=["anchor"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    base, source = networks(args.zoo, args.networks, args.steps)
    if args.phase == "anchor":
        print(json.dumps(anchor(base, args.networks)))
        return
    record = {"benchmark": "align", "what": "alignment, SIREN 2-32-32-1", "networks": source, "load_before": load}
    record["matching"] = pairs(base, args.pairs, args.few, args.repeats)
    record["mixup"] = share(base, 5 * args.repeats)
    command = [sys.executable, "-m", "benchmarks.align", "--phase", "anchor", "--zoo", str(args.zoo)]
    command += ["--networks", str(args.networks), "--threads", str(args.threads), "--steps", str(args.steps)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    record["anchor"] = json.loads(run.stdout.splitlines()[-1])
    save(args.name, record, threads=args.threads)


if __name__ == "__main__":
    main()
