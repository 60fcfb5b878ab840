"""Time of a training step (forward, backward, AdamW) of the models, at the size of the released DWSNet code.

python -m benchmarks.train_step [--repeats 40]
"""

from __future__ import annotations

import argparse

import torch
from torch.nn.functional import cross_entropy

import weightspace as ws
from benchmarks._common import save, spread, timed

CASES = {
    "dwsnet hidden 16, 2 layers": ("dwsnet", {"hidden": 16, "layers": 2}),
    "dwsnet hidden 32, 4 layers": ("dwsnet", {"hidden": 32, "layers": 4}),
    "mlp 3 x 512": ("mlp", {}),
}
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=40)
    args = parser.parse_args()
    spec, gen = ws.siren(2, 32, 32, 1), torch.Generator().manual_seed(0)
    weights = ws.Weights(torch.randn(BATCH, spec.num_params, generator=gen), spec)
    labels = torch.randint(0, 10, (BATCH,), generator=gen)
    steps = {}
    for name, (model_name, options) in CASES.items():
        model = ws.models.build(model_name, spec, 10, **options)
        optimizer = torch.optim.AdamW(model.parameters())

        def step(model=model, optimizer=optimizer) -> None:
            optimizer.zero_grad()
            cross_entropy(model(weights), labels).backward()
            optimizer.step()

        steps[name] = step
    for step in steps.values():
        for _ in range(3):
            step()
    seconds = {name: [] for name in steps}
    for _ in range(args.repeats):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    save(
        "train_step",
        {
            "benchmark": "train_step",
            "what": f"one step, batch {BATCH}, SIREN 2-32-32-1, all threads",
            "seconds": {name: spread(values) for name, values in seconds.items()},
        },
    )


if __name__ == "__main__":
    main()
