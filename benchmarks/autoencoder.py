"""Arrays learned without labels: how well they give the functions back, and what a linear reader finds in them.

    python -m benchmarks.autoencoder [--zoo runs/zoo] [--encoders forward-messages nft] [--epochs 10]

An encoder and a decoder learn from the training networks' weights and values, no label among them; then ridge
regression reads the classes from the arrays, by the labels of the training split, its strength chosen on the validation
split. The same reader on the arrays of the encoder before training is the control. Without a zoo, images from the
package are fitted first, briefly: that measures nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import weightspace as ws
from benchmarks._common import save
from benchmarks._training import begun, options
from weightspace.training import Reconstruction, num_classes, seeded

ENCODERS: dict[str, dict[str, Any]] = {
    "forward-messages": {"rbfs": 0},
    "nft": {"hidden": 16, "layers": 1, "attention_heads": 1, "fourier": 16},
}
SIZE, QUERIES, STRENGTHS = 256, 8, (1e-4, 1e-3, 1e-2, 1e-1)


@torch.no_grad()
def settle(model: ws.models.Model, zoo: ws.Zoo) -> None:
    """Batch norms see the training networks, so that before training they norm as they will after it."""
    model.train()
    w = zoo.weights("train")
    for i in range(0, len(w), 64):
        model(w[slice(i, i + 64)])
    model.eval()


@torch.no_grad()
def arrays(model: ws.models.Model, zoo: ws.Zoo) -> dict[str, Tensor]:
    """Of every network, standardised by the training split."""
    model.eval()
    out = {}
    for split in zoo.splits:
        w = zoo.weights(split)
        parts = [model(w[slice(i, i + 500)]) for i in range(0, len(w), 500)]
        out[split] = torch.cat([part for part in parts if isinstance(part, Tensor)]).double()
    mean, std = out["train"].mean(0), out["train"].std(0) + 1e-9
    return {split: (array - mean) / std for split, array in out.items()}


def read(found: dict[str, Tensor], zoo: ws.Zoo) -> dict[str, float]:
    """Accuracy of ridge regression on one-hot classes."""
    x, classes = found["train"], torch.nn.functional.one_hot(zoo.labels("train"), num_classes(zoo)).double()
    gram, cross, middle = x.T @ x / len(x), x.T @ (classes - classes.mean(0)) / len(x), classes.mean(0)

    def accuracy(strength: float, split: str) -> float:
        weight = torch.linalg.solve(gram + strength * torch.eye(len(gram), dtype=gram.dtype), cross)
        return ((found[split] @ weight + middle).argmax(1) == zoo.labels(split)).double().mean().item()

    best = max(STRENGTHS, key=lambda strength: accuracy(strength, "val"))
    return {"strength": best, "val": accuracy(best, "val"), "test": accuracy(best, "test")}


def measure(name: str, zoo: ws.Zoo, epochs: int, seed: int) -> dict[str, Any]:
    with seeded(seed):
        encoder = ws.models.build(name, zoo.spec, SIZE, **ENCODERS[name])
        model = ws.models.Autoencoder(encoder, queries=QUERIES)
    encoder.normalize.fit(zoo.weights("train"))
    settle(model, zoo)
    before = read(arrays(model, zoo), zoo)
    coords = ws.signals.grid(28, 28)

    def told(line: dict[str, float]) -> None:
        print(f"{name}: epoch {line['epoch']}, {-10 * math.log10(-line['val']):.2f} dB")

    result = ws.train(
        model, zoo, objective=Reconstruction(model, coords, points=128), epochs=epochs, seed=seed, on_epoch=told
    )
    assert result.test is not None
    middle = ws.evaluate(zoo.weights("train")[:1000], coords).mean(0)
    plain = (ws.evaluate(zoo.weights("test"), coords) - middle).square().mean().item()
    return {
        "encoder": {"name": name, **ENCODERS[name], "outputs": SIZE, "queries": QUERIES},
        "parameters": model.num_parameters,
        "db_of_the_mean_picture": -10 * math.log10(plain),
        "db": {"val": -10 * math.log10(-result.val), "test": -10 * math.log10(-result.test)},
        "linear_reader": {"before": before, "after": read(arrays(model, zoo), zoo)},
        "seconds": result.seconds,
    }


def main() -> None:
    args = options("encoders", sorted(ENCODERS)).parse_args()
    zoo, about = begun("autoencoder", args)
    rows = {name: measure(name, zoo, args.epochs, args.seed) for name in args.encoders}
    save("autoencoder", {**about, "encoders": rows}, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
