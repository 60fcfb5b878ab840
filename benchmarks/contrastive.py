"""Embeddings learned without labels, from moved copies: what a linear reader finds in them.

    python -m benchmarks.contrastive [--zoo runs/zoo] [--models forward-messages dwsnet] [--epochs 10]

A model learns that a network and a moved copy of it (turned, shifted, resized, mirrored) belong together, and no
label; then ridge regression reads the classes, as in benchmarks.autoencoder. The same reader before training is the
control. Networks are moved twice, once by the training loop and from there once more. ``found_again`` is the share of
networks that are nearest to their own copy among ``among`` (fewer in a split's last batch). Without a zoo, images from
the package are fitted first, briefly: that measures nothing.
"""

from __future__ import annotations

from typing import Any

import torch

import weightspace as ws
from benchmarks._common import save
from benchmarks._training import begun, options
from benchmarks.autoencoder import arrays, read, settle
from weightspace.training import Contrastive, seeded
from weightspace.training._run import EVAL_BATCH
from weightspace.transforms import augmentation

MODELS: dict[str, dict[str, Any]] = {
    "dwsnet": {"hidden": 16, "layers": 2},
    "forward-messages": {"rbfs": 0},
}
SIZE, TEMPERATURE, VIEWS = 128, 0.2, "rotate+translate+scale+flip"


def measure(name: str, zoo: ws.Zoo, epochs: int, seed: int) -> dict[str, Any]:
    with seeded(seed):
        model = ws.models.build(name, zoo.spec, SIZE, head="embedding", **MODELS[name])
    model.normalize.fit(zoo.weights("train"))
    settle(model, zoo)
    before = read(arrays(model, zoo), zoo)
    objective = Contrastive(model, augmentation(VIEWS), temperature=TEMPERATURE)

    def told(line: dict[str, float]) -> None:
        print(f"{name}: epoch {line['epoch']}, loss {line['loss']:.3f}, found again {line['val']:.4f}")

    result = ws.train(
        model, zoo, objective=objective, transform=augmentation(VIEWS), epochs=epochs, seed=seed, on_epoch=told
    )
    return {
        "options": MODELS[name],
        "outputs": SIZE,
        "parameters": model.num_parameters,
        "found_again": {"among": EVAL_BATCH, "val": result.val, "test": result.test},
        "linear_reader": {"before": before, "after": read(arrays(model, zoo), zoo)},
        "best_epoch": result.best_epoch,
        "seconds": result.seconds,
    }


def main() -> None:
    args = options("models", sorted(MODELS)).parse_args()
    zoo, about = begun("contrastive", args)
    about |= {"views": VIEWS, "temperature": TEMPERATURE}
    rows = {name: measure(name, zoo, args.epochs, args.seed) for name in args.models}
    save("contrastive", {**about, "models": rows}, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
