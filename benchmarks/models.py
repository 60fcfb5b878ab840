"""Time of a training step (forward, backward, AdamW) of every model at the sizes of its release, and its cost in FLOP.

python -m benchmarks.models [--repeats 10] [--device cuda] [--only ng-t scale-gmn] [--batch 64]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import weightspace as ws
from benchmarks._common import save, spread, timed
from weightspace.models import flop
from weightspace.training import seeded

# What is measured: the model, the sizes of its release for INR classification, its batch.
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "dwsnet 16 x 2": ("dwsnet", {"hidden": 16, "layers": 2}, 64),
    "dwsnet 32 x 4": ("dwsnet", {"hidden": 32, "layers": 4}, 64),
    "dwsnet 32 x 4, attention": ("dwsnet", {"hidden": 32, "layers": 4, "attention": 8}, 64),
    "nfn-np 512 x 3": ("nfn-np", {"hidden": 512, "layers": 3}, 32),
    "nfn-hnp 512 x 3": ("nfn-hnp", {"hidden": 512, "layers": 3}, 32),
    "nft 64 x 3": ("nft", {}, 32),
    "ng-gnn 32 x 4": ("ng-gnn", {"hidden": 32, "layers": 4}, 64),
    "ng-gnn 32 x 4, 64 probes": ("ng-gnn", {"hidden": 32, "layers": 4, "probes": 64}, 64),
    "ng-t 64 x 4": ("ng-t", {"hidden": 64, "layers": 4}, 32),
    "ng-t 64 x 4, 64 probes": ("ng-t", {"hidden": 64, "layers": 4, "probes": 64}, 32),
    "scale-gmn 128 x 2, forward": ("scale-gmn", {"hidden": 128, "layers": 2, "direction": "forward"}, 64),
    "scale-gmn 128 x 2": ("scale-gmn", {"hidden": 128, "layers": 2}, 64),
    "gmn 32 x 2": ("gmn", {"hidden": 32, "layers": 2}, 64),
    "scale-gmn 32 x 2": ("scale-gmn", {"hidden": 32, "layers": 2}, 64),
    "statistics": ("statistics", {}, 64),
    "inr2vec 512 x 3": ("inr2vec", {"hidden": 512, "layers": 3}, 64),
    "weight-tokens 128 x 3": ("weight-tokens", {}, 64),
    "mlp 512 x 3": ("mlp", {}, 64),
    "forward-messages 128": ("forward-messages", {}, 64),
    "typed-messages 64 x 2": ("typed-messages", {"hidden": 64, "layers": 2}, 64),
    "probe-net 256 points": ("probe-net", {}, 64),
    "probe-grid-net 14 x 14": ("probe-grid-net", {}, 64),
    "probe-gen 128 probes": ("probe-gen", {}, 64),
    "render-cnn 28 x 28": ("render-cnn", {}, 64),
}


def measure(name: str, repeats: int, batch: int | None, device: torch.device) -> dict[str, Any]:
    """Seconds of a step, parameters and FLOP of one case."""
    kind, options, size = CASES[name]
    size, spec, gen = batch or size, ws.siren(2, 32, 32, 1), torch.Generator().manual_seed(0)
    weights = ws.testing.random_weights(spec, size, generator=gen).to(device)
    labels = torch.randint(0, 10, (size,), generator=gen).to(device)
    with seeded(0):
        model = ws.models.build(kind, spec, 10, **options).to(device)
    model.normalize.fit(weights)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        output = model(weights)
        assert isinstance(output, torch.Tensor)
        cross_entropy(output, labels).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(min(repeats, 3)):
        step()
    seconds = [timed(step) for _ in range(repeats)]
    about = {"batch": size, "options": options, "track": model.track, "respects": model.equivariance}
    cost = {"parameters": model.num_parameters, "forward_flop": flop(model, weights)}
    return {"model": kind, **about, **cost, "seconds": spread(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="names of models; all where left out")
    parser.add_argument("--batch", type=int, help="of every case; by default its own")
    parser.add_argument("--threads", type=int, help="by default torch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    names = [name for name, case in CASES.items() if not args.only or case[0] in args.only]
    if not names:
        parser.error(f"--only: expected some of {sorted(ws.models.MODELS)}, got {args.only}")
    cases = {name: measure(name, args.repeats, args.batch, device) for name in names}
    save(
        "models" if device.type == "cpu" else f"models-{device.type}",
        {
            "benchmark": "models",
            "what": "one training step, SIREN 2-32-32-1; FLOP of one network's forward pass",
            "device": str(device),
            "cases": cases,
        },
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
