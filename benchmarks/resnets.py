"""Barriers between two networks of one architecture, trained from different seeds, before and after matching.

Small ResNets and VGGs on Fashion-MNIST at 14x14 pixels. Along the straight line from the one network to the other, the
barrier is the largest excess of the test loss (or error) over the straight line between its ends. Measured with the
second network as trained, moved by ``ws.checkpoints.align_state_dicts`` (by weights, and by responses to 2,048 training
images), and with batch norms repaired on training images.

    python -m benchmarks.resnets [--width 32] [--epochs 3] [--train 30000] [--test 10000] [--points 5]
    python -m benchmarks.resnets tracing LABEL [NAME ...]
    python -m benchmarks.resnets transformers [--pairs 3] [--steps 300] [--points 7]

The second form reads networks of public libraries with ``ws.spec_of``, see ``benchmarks/_tracing.py``; the third
compares transformers, see ``benchmarks/_transformers.py``.

Reference: Ainsworth et al., *Git Re-Basin*, 2023, section 5; Jordan et al., *REPAIR*, 2023.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightspace as ws
from benchmarks._common import descend, save
from benchmarks._tracing import main as tracing
from benchmarks._transformers import main as transformers

BATCH = 256
SEEDS = (1, 2)


class Block(nn.Module):
    """A block of two convolutions whose output is added to the input, or to its projection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


def resnet(width: int) -> nn.Module:
    """Build a stem, one block at half and one at a quarter of the resolution, and a mean over positions."""
    stem = [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    blocks = [Block(width, width, 2), Block(width, 2 * width, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


def vgg(width: int, *, norm: bool = True) -> nn.Module:
    """Build three convolutions with pooling, then two linear layers after a flatten."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 2 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *([nn.BatchNorm2d(outputs)] if norm else [])]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 10))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet, batch norm": resnet,
    "vgg, batch norm": vgg,
    "vgg, no norm": lambda width: vgg(width, norm=False),
}


def data(split: str, count: int) -> tuple[Tensor, Tensor, str]:
    """Return images ``[n, 1, 14, 14]`` of mean zero and variance one, labels, and the data set's name."""
    try:
        images = ws.datasets.load("fashion-mnist")
    except FileNotFoundError:
        images = ws.datasets.embedded()
    part = images.split(split)
    pixels = torch.as_tensor(part.images[:count]).float().div(255)[:, None]
    pixels = (F.avg_pool2d(pixels, 2) - 0.286) / 0.33
    return pixels.contiguous(memory_format=torch.channels_last), torch.as_tensor(part.labels[:count]), images.name


def trained(make: Callable[[], nn.Module], x: Tensor, y: Tensor, *, seed: int, epochs: int, lr: float) -> nn.Module:
    """Train by SGD with momentum, weight decay and a cosine schedule; the seed draws initial weights and order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().to(memory_format=torch.channels_last).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * max(1, len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    whole = max(1, len(x) // BATCH) * BATCH
    orders = (torch.randperm(len(x), generator=generator)[:whole].split(BATCH) for _ in range(epochs))
    return descend(module, optimizer, schedule, ((x[rows], y[rows]) for order in orders for rows in order))


@torch.no_grad()
def measured(module: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Return the mean cross-entropy and the error."""
    out = torch.cat([module(part) for part in x.split(1000)])
    return {"loss": float(F.cross_entropy(out, y)), "error": float((out.argmax(1) != y).double().mean())}


def path(
    module: nn.Module,
    a: dict[str, Tensor],
    b: dict[str, Tensor],
    points: Iterable[float],
    x: Tensor,
    y: Tensor,
    repair: Iterable[Tensor] | None,
) -> dict[str, Any]:
    """Return loss and error along the line, and the barrier of each."""
    ts = list(points)
    rows = []
    for t in ts:
        merged = ws.checkpoints.merge(module, a, b, shares=(1 - t, t)).eval()
        rows.append(measured(merged if repair is None else ws.checkpoints.repair_batch_norm(merged, repair), x, y))
    found: dict[str, Any] = {"t": ts}
    for name in ("loss", "error"):
        values = [row[name] for row in rows]
        excess = [v - (1 - t) * values[0] - t * values[-1] for t, v in zip(ts, values, strict=True)]
        found |= {name: values, f"barrier_{name}": max(excess)}
    return found


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train two networks, match them, and measure all paths."""
    start = time.perf_counter()
    x, y, _ = data("train", args.train)
    test = data("test", args.test)[:2]

    def make() -> nn.Module:
        return NETWORKS[name](args.width)

    lr = args.lr if "no norm" not in name else args.lr / 4
    modules = [trained(make, x, y, seed=seed, epochs=args.epochs, lr=lr) for seed in SEEDS]
    trained_after = time.perf_counter() - start
    a, b = (dict(module.state_dict()) for module in modules)
    groups = ["permutation"] if "no norm" not in name else ["permutation", "full"]
    points = [i / (args.points - 1) for i in range(args.points)]
    repair = list(x[:4096].split(512)) if "no norm" not in name else None
    paths = {"before": path(modules[0], a, b, points, *test, None)}
    if repair:
        paths["before, repaired"] = path(modules[0], a, b, points, *test, repair)
    matched: dict[str, Any] = {}
    for group in groups:
        begin = time.perf_counter()
        found = ws.checkpoints.align_state_dicts(modules[0], a, b, group=group, example_input=x[:1])  # type: ignore[arg-type]
        seconds = time.perf_counter() - begin
        matched[group] = {"before": found.before, "after": found.after, "seconds": seconds}
        label = "matched" if group == "permutation" else f"matched, {group} group"
        paths[label] = path(modules[0], a, found.state_dict, points, *test, None)
        if repair:
            paths[f"{label}, repaired"] = path(modules[0], a, found.state_dict, points, *test, repair)
    begin = time.perf_counter()
    found = ws.checkpoints.align_state_dicts(modules[0], a, b, example_input=x[:1], batches=x[:2048].split(512))
    seconds = time.perf_counter() - begin
    matched["responses"] = {"before": found.before, "after": found.after, "seconds": seconds}
    paths["matched by responses"] = path(modules[0], a, found.state_dict, points, *test, None)
    if repair:
        paths["matched by responses, repaired"] = path(modules[0], a, found.state_dict, points, *test, repair)
    before = paths["before"]["barrier_loss"]
    return {
        "parameters": sum(p.numel() for p in modules[0].parameters()),
        "seconds_training": trained_after,
        "squared_distance": matched,
        "paths": paths,
        "barrier_loss_over_before": {
            label: value["barrier_loss"] / before if before > 0 else None for label, value in paths.items()
        },
    }


def main() -> None:
    for name, run in (("tracing", tracing), ("transformers", transformers)):
        if sys.argv[1:2] == [name]:
            run(sys.argv[2:])
            return
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--train", type=int, default=30000)
    parser.add_argument("--test", type=int, default=10000)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    networks = {}
    for name in NETWORKS:
        networks[name] = compare(name, args)
        barriers = {label: round(value["barrier_loss"], 4) for label, value in networks[name]["paths"].items()}
        print(f"{name}: barrier of the test loss {barriers}", flush=True)
    save(
        "resnets",
        {
            "benchmark": "resnets",
            "what": f"two networks each from seeds {SEEDS}, width {args.width}, {args.epochs} epochs of {args.train} "
            f"images of {data('test', 1)[2]} at 14x14, batch {BATCH}, learning rate {args.lr} (no norm: a quarter)",
            "networks": networks,
        },
        threads=1,
    )


if __name__ == "__main__":
    main()
