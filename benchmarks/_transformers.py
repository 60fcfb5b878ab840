"""Barriers between transformers trained from different seeds: permutations alone against heads and matrices.

    python -m benchmarks.resnets transformers [--pairs 3] [--steps 300] [--points 7]

Two vision transformers on Fashion-MNIST (patches of 7x7 pixels), and two decoders that predict the next character of
the documentation that comes with Python (``pydoc_data.topics``). Each pair is trained from two seeds and compared along
the straight line: the barrier is the largest excess of the test loss over the straight line between its ends, the area
the mean excess (trapezoids). ``"permutation"`` moves neurons, heads and the order inside of each; ``"full"`` heads
and a matrix inside of each.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightspace as ws
from benchmarks._common import descend, save

WIDTH, HEADS, LAYERS, BATCH, CONTEXT = 64, 4, 2, 64, 64
GROUPS = ("permutation", "full")
Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]


class Block(nn.Module):
    """Attention and an MLP, each behind a layer norm and added to the stream."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal, self.norm1, self.norm2 = causal, nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(y.transpose(1, 2).reshape(batch, count, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Blocks behind an embedding and learned positions."""

    def __init__(self, embed: nn.Module, places: int, outputs: int, causal: bool) -> None:
        super().__init__()
        self.causal, self.embed, self.places = causal, embed, nn.Parameter(0.02 * torch.randn(places, WIDTH))
        self.blocks = nn.Sequential(*(Block(causal) for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embed(x) + self.places))
        return self.head(x if self.causal else x.mean(1))


def patches(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Return pictures as ``[picture, 16, 49]`` and their labels."""
    try:
        images = ws.datasets.load("fashion-mnist")
    except FileNotFoundError:
        images = ws.datasets.embedded()
    part: Any = images.split(split)
    pixels = (torch.as_tensor(part.images[:count]).float() / 255 - 0.286) / 0.33
    cut = pixels.view(-1, 4, 7, 4, 7).transpose(2, 3).reshape(-1, 16, 49)
    return cut, torch.as_tensor(part.labels[:count]).long()


def characters() -> tuple[Tensor, int]:
    """Return the text as numbers of characters, and how many characters there are."""
    text = "\n".join(topics[name] for name in sorted(topics))
    known = sorted(c for c, count in Counter(text).items() if count > 20)
    number = {c: i for i, c in enumerate(known)}
    return torch.tensor([number[c] for c in text if c in number]), len(known)


def tasks() -> dict[str, tuple[Callable[[], nn.Module], Draw, Tensor, Tensor]]:
    """Return for each task the network, what draws a batch, and inputs and targets of the test."""
    x, y = patches("train", 20000)
    test = patches("test", 2000)
    text, count = characters()
    cut = len(text) * 9 // 10
    starts = torch.arange(cut, len(text) - CONTEXT - 1, (len(text) - cut) // 200)

    def pictures(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(x), (2 * BATCH,), generator=generator)
        return x[rows], y[rows]

    def windows(starts: Tensor) -> tuple[Tensor, Tensor]:
        places = starts[:, None] + torch.arange(CONTEXT)
        return text[places], text[places + 1]

    def lines(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return windows(torch.randint(cut - CONTEXT - 1, (BATCH // 2,), generator=generator))

    return {
        "vision transformer": (lambda: Transformer(nn.Linear(49, WIDTH), 16, 10, False), pictures, *test),
        "decoder": (lambda: Transformer(nn.Embedding(count, WIDTH), CONTEXT, count, True), lines, *windows(starts)),
    }


def trained(make: Callable[[], nn.Module], draw: Draw, seed: int, steps: int) -> nn.Module:
    """Train by AdamW with warm-up and a cosine; the seed draws initial weights and batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    return descend(module, optimizer, schedule, (draw(generator) for _ in range(steps)))


@torch.no_grad()
def curve(
    module: nn.Module, a: dict[str, Tensor], b: dict[str, Tensor], ts: Sequence[float], x: Tensor, y: Tensor
) -> dict[str, Any]:
    """Return the test loss along the line, the barrier and the area."""
    nets = [ws.checkpoints.merge(module, a, b, shares=(1 - t, t)).eval() for t in ts]
    losses = [float(F.cross_entropy(net(x).flatten(0, -2), y.flatten())) for net in nets]
    excess = [loss - (1 - t) * losses[0] - t * losses[-1] for t, loss in zip(ts, losses, strict=True)]
    area = sum((ts[i + 1] - ts[i]) * (excess[i] + excess[i + 1]) / 2 for i in range(len(ts) - 1))
    return {"loss": losses, "barrier": max(excess), "area": area}


def compare(name: str, task: tuple[Any, ...], pair: int, steps: int, points: int) -> dict[str, Any]:
    """Train two networks, match them in both groups, and measure the lines."""
    make, draw, x, y = task
    seeds = (2 * pair + 1, 2 * pair + 2)
    modules = [trained(make, draw, seed, steps) for seed in seeds]
    a, b = (dict(module.state_dict()) for module in modules)
    ts = [i / (points - 1) for i in range(points)]
    row: dict[str, Any] = {"task": name, "seeds": seeds, "before": curve(modules[0], a, b, ts, x, y)}
    for group in GROUPS:
        start = time.perf_counter()
        found = ws.checkpoints.align_state_dicts(modules[0], a, b, group=group, example_input=x[:1])
        row[group] = curve(modules[0], a, found.state_dict, ts, x, y)
        row[group] |= {"seconds": time.perf_counter() - start, "distance": [found.before, found.after]}
    print(name, seeds, {k: [round(row[k][m], 4) for m in ("barrier", "area")] for k in ("before", *GROUPS)}, flush=True)
    return row


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--points", type=int, default=7)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [
        compare(name, task, pair, args.steps, args.points)
        for name, task in tasks().items()
        for pair in range(args.pairs)
    ]
    save(
        "transformers",
        {
            "benchmark": "resnets",
            "what": f"pairs of transformers of width {WIDTH}, {HEADS} heads, {LAYERS} layers, {args.steps} steps each: "
            "Fashion-MNIST in patches of 7x7, and characters of Python's documentation",
            "rows": rows,
        },
        threads=1,
    )
