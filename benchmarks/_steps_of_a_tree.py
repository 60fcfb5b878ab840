"""Training steps of one tree's models, on demand: ``benchmarks.models --against`` runs two of these side by side.

Run by its path, with the tree as the only entry of PYTHONPATH. It reads lines ``kind batch options`` (JSON) to choose
a model, and empty lines to take a step; it answers with the step's seconds of the processor and its loss.
"""

from __future__ import annotations

import json
import sys
import time

import torch

import weightspace as ws


def main() -> None:
    torch.set_num_threads(1)
    spec = ws.siren(2, 32, 32, 1)
    model = weights = labels = optimizer = None
    for line in sys.stdin:
        if line.strip():
            kind, size, options = json.loads(line)
            gen = torch.Generator().manual_seed(0)
            flat = torch.randn(size, spec.num_params, generator=gen) / 6
            weights, labels = ws.Weights(flat, spec), torch.randint(0, 10, (size,), generator=gen)
            model = ws.models.build(kind, spec, 10, seed=0, **options)
            model.normalize.fit(weights)
            optimizer = torch.optim.AdamW(model.parameters())
            print(json.dumps(0), flush=True)
            continue
        assert model is not None
        assert optimizer is not None
        started = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(weights), labels)
        loss.backward()
        optimizer.step()
        print(json.dumps((time.process_time() - started, loss.item())), flush=True)


if __name__ == "__main__":
    main()
