"""Networks a second for every transform, MixUp with weight matching included, and for loading, on SIREN 2-32-32-1.

A batch of one shows the cost of a loop over networks, as in a ``Dataset.__getitem__``. "load" rows draw shuffled
batches from a zoo on disk in eight shards, alone and followed by a transform.

    python -m benchmarks.transforms [--threads 2] [--repeats 7]

A call draws and applies; a repeat is as many calls as fill ``--seconds``. Run it on an idle machine: with other work on
the cores, two threads wait for each other, and the rates fall by a factor of ten and more.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable

import torch

import weightspace as ws
from benchmarks._common import save, spread
from weightspace import transforms as wt
from weightspace.zoo import write_zoo

SPEC = ws.siren(2, 32, 32, 1)
RELU = ws.mlp(2, 32, 32, 1, activation="relu")
TRANSFORMS: dict[str, tuple[wt.Transform, ws.NetSpec]] = {
    "GaussianNoise": (wt.GaussianNoise(), SPEC),
    "WeightDropout": (wt.WeightDropout(), SPEC),
    "QuantilePrune": (wt.QuantilePrune(), SPEC),
    "Permute": (wt.Permute(), SPEC),
    "SignFlip": (wt.SignFlip(), SPEC),
    "PhaseShift": (wt.PhaseShift(), SPEC),
    "PositiveScale": (wt.PositiveScale(), RELU),
    "Permute+SignFlip+PhaseShift": (wt.Compose([wt.Permute(), wt.SignFlip(), wt.PhaseShift()]), SPEC),
    "Rotate": (wt.Rotate(), SPEC),
    "Translate": (wt.Translate(), SPEC),
    "Scale": (wt.Scale(), SPEC),
    "Shear": (wt.Shear(), SPEC),
    "Flip": (wt.Flip(), SPEC),
    "MixUp(None)": (wt.MixUp(), SPEC),
    "MixUp(random)": (wt.MixUp("random"), SPEC),
    "MixUp(permutation)": (wt.MixUp("permutation"), SPEC),
    "MixUp(signed)": (wt.MixUp("signed"), SPEC),
    "MixUp(full)": (wt.MixUp("full"), SPEC),
    "MixUp(permutation, per_layer)": (wt.MixUp("permutation", per_layer=True), SPEC),
    "SelfMixUp(GaussianNoise)": (wt.SelfMixUp(wt.GaussianNoise()), SPEC),
}


def fitted(count: int, steps: int) -> ws.Weights:
    """Fit networks to smooth random images, because the time of matching depends on the weights."""
    gen = torch.Generator().manual_seed(0)
    side = torch.linspace(-1, 1, 28)
    coords = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).flatten(0, 1)
    images = torch.nn.functional.interpolate(torch.rand(count, 1, 7, 7, generator=gen), (28, 28), mode="bilinear")
    return ws.fit(coords, images.flatten(1)[:, :, None], SPEC, steps=steps, lr=5e-3, seed=0).weights


def rates(call: Callable[[], object], batch: int, repeats: int, seconds: float) -> list[float]:
    """Return networks a second, one number for each repeat."""
    call()
    out = []
    for _ in range(repeats):
        calls, start = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - start < seconds:
            call()
            calls += 1
        out.append(calls * batch / (time.perf_counter() - start))
    return out


def loading(base: ws.Weights, repeats: int, count: int = 16384, batch: int = 512) -> list[dict[str, object]]:
    """Measure an epoch of shuffled batches from disk, alone and followed by one transform of each fast family."""
    gen, rows = torch.Generator().manual_seed(2), []
    many = base[torch.randint(len(base), (count,), generator=gen)]
    behind = {"": None, "GaussianNoise": wt.GaussianNoise(), "Permute": wt.Permute(), "Rotate": wt.Rotate()}
    with tempfile.TemporaryDirectory() as folder:
        zoo = write_zoo(f"{folder}/zoo", {"train": ws.Networks(many)}, shard_size=count // 8)
        for name, transform in behind.items():

            def epoch(transform: wt.Transform | None = transform) -> None:
                for networks in zoo.batches("train", batch, generator=gen, resident_bytes=0):
                    if transform is not None:
                        transform(networks.weights, generator=gen)

            title = f"load+{name}" if name else "load"
            rows.append(
                {"transform": title, "batch": batch, "networks_per_second": spread(rates(epoch, count, repeats, 0))}
            )
            print(f"{title:32} {batch:6d} {rows[-1]['networks_per_second']['median']:12,.0f} networks/s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 512, 1024])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="at least this long for each repeat")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", type=int, default=256, help="how many networks to fit first")
    parser.add_argument("--steps", type=int, default=150, help="steps of that fit")
    parser.add_argument("--only", help="one transform alone, without loading")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    base = fitted(args.networks, args.steps)
    rows = []
    for name, (transform, spec) in TRANSFORMS.items():
        if args.only not in (None, name):
            continue
        for batch in args.batches:
            gen = torch.Generator().manual_seed(1)
            weights = ws.Weights(base.flat[torch.randint(len(base), (batch,), generator=gen)], spec)
            found = rates(lambda t=transform, w=weights, g=gen: t(w, generator=g), batch, args.repeats, args.seconds)
            rows.append({"transform": name, "batch": batch, "networks_per_second": spread(found)})
            print(f"{name:32} {batch:6d} {rows[-1]['networks_per_second']['median']:12,.0f} networks/s", flush=True)
    rows += loading(base, args.repeats) if args.only is None else []
    what = "calls that draw and apply, SIREN 2-32-32-1 (ReLU of the same widths for PositiveScale)"
    record = {"benchmark": "transforms", "what": what, "load_before": load, "rows": rows}
    save("transforms", record, threads=args.threads)


if __name__ == "__main__":
    main()
