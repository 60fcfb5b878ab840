"""The library's own models, and two published: accuracy at the best validation epoch, the test split read at the end.

    python -m benchmarks.ours [--zoo runs/zoo] [--only probe-net] [--networks 3000] [--epochs 24] [--keep runs/kept]

Models trained on mirrored copies too are read a second time, as the mean over a network and its mirror image
(``*_both_ways``), and that is their result. The recipes below were chosen on validation splits; docs/howto/models.md
says among how many. forward-messages-own and query-grid are options of forward-messages and render-cnn.
Without a zoo, images from the package are fitted first, briefly: that measures nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

import weightspace as ws
from benchmarks import _common
from benchmarks._common import save
from weightspace.bench import environment
from weightspace.training import Classification, Split, num_classes, score, seeded
from weightspace.transforms import Flip, augmentation
from weightspace.zoo import write_zoo

# The model, its options, the training's, and the augmentation: the networks' inputs are moved a little, or mirrored.
RECIPES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str | None]] = {
    "dwsnet": ("dwsnet", {"hidden": 32, "layers": 4}, {"epochs": 15, "lr": 2e-3}, None),
    "forward-messages-long": (
        "forward-messages",
        {"rbfs": 0},
        {"epochs": 30, "lr": 2e-3, "ema": 0.998},
        "flip+moves+label-smoothing",
    ),
    "forward-messages-own": ("forward-messages", {"learned": False}, {"epochs": 20, "lr": 2e-3}, "small-affine"),
    "render-cnn": (
        "render-cnn",
        {"layers": 4, "dropout": 0.3},
        {"epochs": 20, "lr": 2e-3},
        "flip+moves+label-smoothing",
    ),
    "probe-net": ("probe-net", {}, {"epochs": 24, "lr": 2e-3}, "small-affine"),
    "probe-grid-net": ("probe-grid-net", {}, {"epochs": 10, "lr": 2e-3}, "small-affine"),
    "probe-gen": ("probe-gen", {}, {"epochs": 30, "lr": 1e-3}, None),
    "query-grid": (
        "render-cnn",
        {"hidden": 48, "size": 20, "learned": True, "dropout": 0.3},
        {"epochs": 16, "lr": 2e-3, "ema": 0.998},
        "flip+moves+label-smoothing",
    ),
    "typed-messages": ("typed-messages", {"hidden": 64, "layers": 2}, {"epochs": 24, "lr": 2e-3}, "small-affine"),
}
FITTED = 40  # networks of the three splits together, where there is no zoo


def opened(path: str, networks: int | None) -> tuple[ws.Zoo, str]:
    """The zoo, with the first ``networks`` of its training split, and where it came from."""
    if not Path(path, "manifest.json").is_file():
        images = ws.datasets.embedded().subset(range(FITTED))
        coords, targets = ws.signals.images(images)
        w = ws.fit(coords, targets, ws.siren(2, 8, 8, 1), steps=5, seed=0).weights
        labels = torch.as_tensor(images.labels)
        parts = {"train": slice(0, 24), "val": slice(24, 32), "test": slice(32, FITTED)}
        rows = {name: (w[part], labels[part], None, None, None) for name, part in parts.items()}
        return write_zoo(tempfile.mkdtemp(), rows), f"{FITTED} embedded images, 5 steps"
    zoo = ws.Zoo.open(path)
    if networks is None or networks >= zoo.count("train"):
        return zoo, "zoo"
    rows = {}
    for split in zoo.splits:
        keep = slice(0, networks if split == "train" else zoo.count(split))
        rows[split] = (zoo.weights(split)[keep], zoo.labels(split)[keep], zoo.sources(split)[keep], None, None)
    return write_zoo(tempfile.mkdtemp(), rows), f"first {networks} training networks of a zoo"


def measure(
    name: str, zoo: ws.Zoo, epochs: int | None, seed: int, device: str, keep: str | None = None
) -> dict[str, Any]:
    """One model, trained by its recipe, and kept in a folder where one is named."""
    kind, options, config, transform = RECIPES[name]
    config = config if epochs is None else {**config, "epochs": epochs}
    with seeded(seed):
        model = ws.models.build(kind, zoo.spec, num_classes(zoo), **options)

    def told(line: dict[str, float]) -> None:
        print(
            f"{name}: epoch {line['epoch']}, loss {line['loss']:.3f}, train {line['train']:.4f}, val {line['val']:.4f}"
        )

    result = ws.train(
        model,
        zoo,
        transform=None if transform is None else augmentation(transform),
        device=device,
        seed=seed,
        on_epoch=told,
        **config,
    )
    if keep is not None:
        ws.models.save_model(model, Path(keep) / f"{name}-{seed}")
    about = {"track": model.track, "respects": model.equivariance, "parameters": model.num_parameters}
    accuracy = {"val": result.val, "test": result.test, "best_epoch": result.best_epoch, "seconds": result.seconds}
    if transform is not None and "flip" in transform.split("+"):  # trained on mirrored copies too
        both, objective = ws.models.Averaged(model, [Flip(1.0, axes=(1,))]), Classification(num_classes(zoo))
        for part in (split for split in ("val", "test") if split in zoo.splits):
            split = Split(zoo.weights(part).to(device), zoo.labels(part).to(device))
            accuracy[f"{part}_both_ways"] = score(both, split, objective)
    about |= {"commit": environment()["commit"]}
    return {
        **about,
        "options": options,
        "training": config,
        "transform": transform,
        **accuracy,
        "history": result.history,
    }


def kept(name: str, about: dict[str, Any]) -> dict[str, Any]:
    """Models of an earlier run on the same networks."""
    path = _common.RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["models"] if found and all(found.get(key) == value for key, value in about.items()) else {}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--zoo", default="runs/zoo")
    parser.add_argument("--only", nargs="*", choices=sorted(RECIPES), help="names of models; all where left out")
    parser.add_argument("--networks", type=int, help="of the training split; all where left out")
    parser.add_argument("--epochs", type=int, help="by default each recipe's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="by default torch's choice")
    parser.add_argument("--keep", help="folder for the trained models")
    parser.add_argument("--record", default="ours", help="name of the record; rows of other models in it are kept")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    zoo, source = opened(args.zoo, args.networks)
    about = {"benchmark": "ours", "networks": source, "counts": {s: zoo.count(s) for s in zoo.splits}}
    about |= {"seed": args.seed, "device": args.device}
    names = args.only or RECIPES
    runs = {name: measure(name, zoo, args.epochs, args.seed, args.device, args.keep) for name in names}
    save(args.record, {**about, "models": kept(args.record, about) | runs}, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
