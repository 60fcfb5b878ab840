"""The models on networks of other activations: do they need sines?

    python -m benchmarks.activations [--only sine relu tanh] [--counts 3000 500 1000] [--epochs 12]

Fits the same images by networks 2-32-32-1 of each activation, and trains the same models on each zoo, with the sizes
and the budget of the table of models but for the epochs. The epoch is chosen on the validation split, the test split is
read once. ReLU and tanh are fitted with forty times the sines' step size, otherwise alike: the best of two step sizes
with two initialisations each on 32 images, by PSNR. Zoos and runs are kept in ``--folder``, and go on where
they stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import weightspace as ws
from benchmarks._common import save
from weightspace.bench import SUITES, Cell, Suite, run_suite
from weightspace.fitting import recipe

SPECS: dict[str, tuple[ws.NetSpec, float]] = {  # and the step size
    "sine": (ws.siren(2, 32, 32, 1), 5e-4),
    "relu": (ws.mlp(2, 32, 32, 1, activation="relu"), 2e-2),
    "tanh": (ws.mlp(2, 32, 32, 1, activation="tanh"), 2e-2),
}
MODELS = ("dwsnet", "gmn", "scale-gmn", "typed-messages", "forward-messages", "probe-grid-net", "render-cnn")


def told(cell: Cell, result: dict[str, Any], done: int, total: int) -> None:
    print(f"{done}/{total} {cell.entry}: validation {result['val']:.4f}", flush=True)


def measure(
    name: str, data: str, folder: Path, counts: dict[str, int], models: list[str], epochs: int, workers: int | None
) -> dict[str, Any]:
    """How well networks of one activation fit, and what each model learns from them."""
    spec, lr = SPECS[name]
    zoo = ws.fit_zoo(folder / name, ws.datasets.load(data), spec, config=replace(recipe("dws"), lr=lr), counts=counts)
    whole = SUITES["models"]
    entries = {model: replace(whole.entries[model], augmentations=()) for model in models}
    suite = Suite("activations", entries, ("none",), replace(whole.train, epochs=epochs))
    path = run_suite(suite, folder / name, folder / f"{name}-models", workers=workers, on_cell=told)
    rows = {row["model"]: row for row in json.loads(path.read_text())["rows"]}
    kept = ("track", "respects", "parameters", "val_mean", "test_mean", "seconds_mean")
    return {
        "lr": lr,
        "psnr_db": {"mean": zoo.psnr("train").mean().item(), "std": zoo.psnr("train").std().item()},
        "models": {model: {key: rows[model][key] for key in kept} for model in models},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=list(SPECS), default=list(SPECS))
    parser.add_argument("--models", nargs="*", choices=list(SUITES["models"].entries), default=list(MODELS))
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--counts", nargs=3, type=int, default=(3000, 500, 1000), metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--workers", type=int, help="by default one a core")
    parser.add_argument("--folder", type=Path, default=Path("runs/activations"))
    args = parser.parse_args()
    counts: dict[str, int] = dict(zip(("train", "val", "test"), args.counts, strict=True))
    rows = {
        name: measure(name, args.data, args.folder, counts, args.models, args.epochs, args.workers)
        for name in args.only
    }
    save("activations", {"benchmark": "activations", "counts": counts, "epochs": args.epochs, "rows": rows})


if __name__ == "__main__":
    main()
