"""Time of a training step (forward, backward, AdamW) of every model at the sizes of its release, and its cost in FLOP.

    python -m benchmarks.models [--repeats 10] [--device cuda] [--only ng-t scale-gmn] [--batch 64]

Rows of an earlier run are kept for the models that ``--only`` leaves out; every row says its commit and time.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import weightspace as ws
from benchmarks._common import earlier_rows, save, spread, timed
from weightspace.bench._environment import environment
from weightspace.bench._sizes import RELEASED

BATCH = 64
SMALLER = {"nfn-np": 32, "nfn-hnp": 32, "nft": 32, "ng-t": 32}
"""Batches of the releases that do not take 64 networks."""


def training_step(name: str, size: int, device: torch.device) -> tuple[ws.models.Model, ws.Weights, Any]:
    """Return a model of its release's size, a batch of networks, and a function that makes one step."""
    kind, options = RELEASED[name]
    spec, gen = ws.siren(2, 32, 32, 1), torch.Generator().manual_seed(0)
    weights = ws.testing.random_weights(spec, size, generator=gen).to(device)
    labels = torch.randint(0, 10, (size,), generator=gen).to(device)
    model = ws.models.build(kind, spec, 10, seed=0, **options).to(device)
    model.normalize.fit(weights)
    optimizer = torch.optim.AdamW(model.parameters(), capturable=device.type == "cuda")  # for CUDA graphs

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        output = model(weights)
        assert isinstance(output, torch.Tensor)
        loss = cross_entropy(output.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, weights, step


def measure(name: str, repeats: int, batch: int | None, device: torch.device) -> dict[str, Any]:
    """Return seconds of a step, parameters and FLOP of one model."""
    kind, options = RELEASED[name]
    size = batch or SMALLER.get(kind, BATCH)
    model, weights, step = training_step(name, size, device)

    def finished_step() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(min(repeats, 3)):
        finished_step()
    seconds = [timed(finished_step) for _ in range(repeats)]
    found = environment()
    return {
        "case": name,
        "model": kind,
        "batch": size,
        "options": options,
        "track": model.track,
        "equivariance": model.equivariance,
        "parameters": model.num_parameters,
        "forward_flop": ws.models.flop(model, weights),
        "seconds": spread(seconds),
        "created": found["created"],
        "commit": found["commit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="names of models; all if not given")
    parser.add_argument("--batch", type=int, help="of every model; by default that of its release")
    parser.add_argument("--threads", type=int, help="by default torch's choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    names = [name for name, (kind, _) in RELEASED.items() if not args.only or kind in args.only]
    if not names:
        parser.error(f"--only: expected some of {sorted(ws.models.MODELS)}, got {args.only}")
    record = {
        "benchmark": "models",
        "what": "one training step, SIREN 2-32-32-1; FLOP of one network's forward pass",
        "device": str(device),
    }
    rows = [measure(name, args.repeats, args.batch, device) for name in names]
    file = "models" if device.type == "cpu" else f"models-{device.type}"
    save(file, {**record, "rows": earlier_rows(file, record, "case", names) + rows}, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
