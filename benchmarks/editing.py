"""Editing networks by their weights: how near a model's edited networks come to the edited pictures.

    python -m benchmarks.editing [--zoo runs/zoo] [--models dwsnet nfn-np] [--edits contrast dilate] [--epochs 10]

A model turns weights into weights whose function is the edited picture of the network that it was given: ``dilate``
is the largest value of 3 x 3 pixels, ``contrast`` doubles the distance from gray. Mean squared errors over the pixels
of the test networks, next to those of the networks left as they are, near which editors begin. Without a zoo,
images from the package are fitted first, briefly: that measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import weightspace as ws
from benchmarks._common import save
from benchmarks._training import begun, options
from weightspace.training import Editing, seeded

SIDE = 28
MODELS: dict[str, dict[str, Any]] = {
    "dwsnet": {"hidden": 16, "layers": 3},
    "nfn-np": {"hidden": 32, "layers": 3},
    "scale-gmn": {"hidden": 16, "layers": 2},
}


def dilate(values: Tensor) -> Tensor:
    pictures = values.transpose(1, 2).unflatten(2, (SIDE, SIDE))
    return F.max_pool2d(pictures, 3, stride=1, padding=1).flatten(2).transpose(1, 2)


def contrast(values: Tensor) -> Tensor:
    return 0.5 + 2 * (values - 0.5)


EDITS: dict[str, Callable[[Tensor], Tensor]] = {"contrast": contrast, "dilate": dilate}


def measure(name: str, edit: str, zoo: ws.Zoo, epochs: int, seed: int) -> dict[str, Any]:
    with seeded(seed):
        model = ws.models.build(name, zoo.spec, 1, head="editing", **MODELS[name])
    objective = Editing(zoo.spec, ws.signals.grid(SIDE, SIDE), EDITS[edit])

    def told(line: dict[str, float]) -> None:
        print(f"{name}, {edit}: epoch {line['epoch']}, error {-line['val']:.5f}")

    result = ws.train(model, zoo, objective=objective, epochs=epochs, seed=seed, lr=2e-3, on_epoch=told)
    assert result.test is not None
    return {
        "options": MODELS[name],
        "parameters": model.num_parameters,
        "respects": model.equivariance,
        "error": {"val": -result.val, "test": -result.test},
        "best_epoch": result.best_epoch,
        "seconds": result.seconds,
    }


def untouched(edit: str, zoo: ws.Zoo) -> float:
    """The error of the test networks as they are."""
    objective = Editing(zoo.spec, ws.signals.grid(SIDE, SIDE), EDITS[edit])
    w, labels = zoo.weights("test"), zoo.labels("test")
    parts = [slice(i, i + 500) for i in range(0, len(w), 500)]
    return -torch.cat([objective.score(w[part], labels[part], w[part]) for part in parts]).mean().item()


def main() -> None:
    parser = options("models", sorted(MODELS))
    parser.add_argument("--edits", nargs="*", choices=sorted(EDITS), default=sorted(EDITS))
    args = parser.parse_args()
    zoo, about = begun("editing", args)
    rows = {
        edit: {"untouched": untouched(edit, zoo)}
        | {name: measure(name, edit, zoo, args.epochs, args.seed) for name in args.models}
        for edit in args.edits
    }
    save("editing", {**about, "edits": rows}, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
