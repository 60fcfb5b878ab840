"""Time of a training step (forward, backward, AdamW) of every model at the sizes of its release, and its cost in FLOP.

    python -m benchmarks.models [--repeats 10] [--device cuda] [--only ng-t scale-gmn] [--batch 64]
    python -m benchmarks.models --against FOLDER --record NAME [--repeats 31] [--only dwsnet nfn-np] [--batch 64]

The second form compares with another checkout: two processes take steps in turn, on one thread each.

Rows of an earlier run are kept for the models that ``--only`` leaves out; every row says its commit and time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen, check_output
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


def side_by_side(other: Path, names: list[str], repeats: int, batch: int | None) -> list[dict[str, Any]]:
    """Return seconds of the processor of a step in another checkout and in this one, by turns."""
    here = Path(__file__).parent
    command = [sys.executable, str(here / "_steps_of_a_tree.py")]
    trees = {"before": other.resolve(), "after": here.parent}
    workers = {
        name: Popen(command, text=True, stdin=PIPE, stdout=PIPE, env={**os.environ, "PYTHONPATH": str(tree)})
        for name, tree in trees.items()
    }

    def ask(tree: str, line: str) -> Any:
        worker = workers[tree]
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(line + "\n")
        worker.stdin.flush()
        return json.loads(worker.stdout.readline())

    rows = []
    for name in names:
        kind, options = RELEASED[name]
        size = batch or SMALLER.get(kind, BATCH)
        seconds: dict[str, list[float]] = {tree: [] for tree in trees}
        apart = 0.0
        for tree in trees:
            ask(tree, json.dumps((kind, size, options)))
        for repeat in range(repeats + 3):  # three to warm up
            order = list(trees) if repeat % 2 else list(reversed(trees))
            found = {tree: ask(tree, "") for tree in order}
            apart = max(apart, abs(found["before"][1] - found["after"][1]))
            for tree in trees if repeat >= 3 else ():
                seconds[tree].append(found[tree][0])
        ratios = [a / b for a, b in zip(seconds["before"], seconds["after"], strict=True)]
        rows.append(
            {
                "case": name,
                "batch": size,
                "cpu_seconds_before": spread(seconds["before"]),
                "cpu_seconds_after": spread(seconds["after"]),
                "faster_by": spread(ratios),
                "largest_loss_difference": apart,
            }
        )
    for worker in workers.values():
        worker.terminate()
    return rows


def commit_of(tree: Path) -> str:
    """Return the commit of a checkout, with a star where files differ from it."""
    run = [check_output(["git", "-C", str(tree), *args], text=True).strip() for args in COMMANDS]
    return run[0] + ("*" if run[1] else "")


COMMANDS = (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="names of models; all if not given")
    parser.add_argument("--batch", type=int, help="of every model; by default that of its release")
    parser.add_argument("--threads", type=int, help="by default torch's choice")
    parser.add_argument("--against", type=Path, help="folder of another checkout to compare with")
    parser.add_argument("--record", help="name of the record of that comparison")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    names = [name for name, (kind, _) in RELEASED.items() if not args.only or kind in args.only]
    if not names:
        parser.error(f"--only: expected some of {sorted(ws.models.MODELS)}, got {args.only}")
    if args.against:
        rows = side_by_side(args.against, names, args.repeats, args.batch)
        record = {
            "benchmark": "models",
            "what": "one training step, SIREN 2-32-32-1: seconds of the processor on one thread, before and after, "
            "processes of two checkouts taking steps by turns; faster_by is of neighbouring steps",
            "commit_before": commit_of(args.against),
            "commit_after": commit_of(Path(__file__).parent),
            "rows": rows,
        }
        save(args.record or "models-against", record, threads=1)
        return
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
