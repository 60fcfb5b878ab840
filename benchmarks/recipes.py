"""Fitting recipes: what each costs, how well it fits, and what can later be learned from the weights.

Every recipe fits the same images of Fashion-MNIST; on each zoo the same models are trained with the same budget:
DWSNet, and a plain MLP on the weights as they are, after matching to one training network by permutations, and over
the whole group. The epoch is chosen on the validation split, the test split is read once.

    python -m benchmarks.recipes [--only dws siren] [--train 12000] [--epochs 20] [--folder runs/recipes]

Zoos are kept in the folder and fits resume; a fit's time is that of the run that made it from nothing.

    python -m benchmarks.recipes --cost 256 [--repeats 5]

fits that many images by every recipe in turns and trains nothing: the table of costs, for a machine with nothing else
to do (``recipes-cost.json``).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import weightspace as ws
from benchmarks import _common
from benchmarks._common import save, spread
from weightspace.align import align_zoo
from weightspace.fitting import RECIPES, meta_start, recipe
from weightspace.training import seeded

MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dwsnet": ("dwsnet", {"hidden": 16, "layers": 2}, {"lr": 4e-3}),
    "mlp": ("mlp", {}, {"lr": 1e-3}),
}
ROWS = (("dwsnet", None), ("mlp", None), ("mlp", "permutation"), ("mlp", "full"))


def fitted(name: str, folder: Path, counts: dict[str, int]) -> tuple[ws.Zoo, dict[str, Any]]:
    """The zoo of a recipe, made or opened, and what it cost."""
    config, data = recipe(name), ws.datasets.load("fashion-mnist")
    spec, note = ws.siren(2, 32, 32, 1, init=config.init or "dws"), folder / f"{name}.json"
    begun, start = time.perf_counter(), None
    fresh = not (folder / name).exists()
    if name == "meta":
        coords, targets = ws.signals.images(data.images[: min(2000, counts["train"])])
        start = meta_start(coords, targets, spec, generator=torch.Generator().manual_seed(0))
    learned = time.perf_counter() - begun
    zoo = ws.fit_zoo(folder / name, data, spec, config=config, counts=counts, start=start)
    if fresh:
        count = sum(counts.values())
        seconds = time.perf_counter() - begun
        cost = {"seconds": seconds, "of_these_for_the_start": learned if start is not None else 0.0}
        note.write_text(json.dumps({**cost, "networks_per_second": count / seconds}))
    return zoo, json.loads(note.read_text()) if note.exists() else {}


def accuracy(zoo: ws.Zoo, model: str, epochs: int, seed: int) -> dict[str, float | None]:
    name, sizes, options = MODELS[model]
    with seeded(seed):
        net = ws.models.build(name, zoo.spec, 10, **sizes)
    done = ws.train(net, zoo, epochs=epochs, batch_size=64, seed=seed, **options)
    return {"val": done.val, "test": done.test, "seconds": done.seconds}


def row(name: str, folder: Path, counts: dict[str, int], epochs: int, seed: int) -> dict[str, Any]:
    zoo, cost = fitted(name, folder, counts)
    psnr = zoo.psnr("train")
    out: dict[str, Any] = {
        "recipe": zoo.summary()["recipe"],
        "init_regime": zoo.init_regime,
        "cost": cost,
        "psnr_db": {"mean": psnr.mean().item(), "std": psnr.std().item()},
    }
    for model, group in ROWS:
        used = zoo
        if group is not None:
            place = folder / f"{name}-{group}"
            used = ws.Zoo.open(place) if place.exists() else align_zoo(zoo, place, zoo.weights("train")[:1], group=group)
        out[model if group is None else f"{model} after matching, {group}"] = accuracy(used, model, epochs, seed)
    return out


def costs(names: list[str], count: int, repeats: int) -> dict[str, Any]:
    """Rates of fitting by every recipe on the same images; what learns a start first is given its seconds apart."""
    data = ws.datasets.load("fashion-mnist")
    coords, targets = ws.signals.images(data.images[:count])
    starts: dict[str, ws.Weights] = {}
    learned: dict[str, list[float]] = {name: [] for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    psnr, steps = {}, {}
    for _ in range(repeats):
        for name in names:
            config = recipe(name)
            spec = ws.siren(2, 32, 32, 1, init=config.init or "dws")
            if name == "meta":
                many, generator = ws.signals.images(data.images[:2000])[1], torch.Generator().manual_seed(0)
                begun = time.perf_counter()
                starts[name] = meta_start(coords, many, spec, generator=generator)
                learned[name].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            fit = ws.fit(coords, targets, spec, config=config, start=starts.get(name))
            rates[name].append(count / (time.perf_counter() - begun))
            psnr[name], steps[name] = fit.psnr.mean().item(), fit.steps.double().mean().item()
    return {
        name: {
            "networks_per_second": spread(rates[name]),
            "psnr_db": psnr[name],
            "mean_steps": steps[name],
            **({"seconds_for_the_start": spread(learned[name])} if learned[name] else {}),
        }
        for name in names
    }


def kept(record: dict[str, Any]) -> dict[str, Any]:
    """Rows of an earlier run of the same experiment, for recipes that this run leaves out."""
    path = _common.RESULTS / "recipes.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    same = all(found.get(name) == value for name, value in record.items())
    return {name: found["rows"][name] for name in RECIPES if name in found["rows"]} if same else {}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--train", type=int, default=12000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost", type=int, help="measure the cost of fitting alone, on so many images")
    parser.add_argument("--repeats", type=int, default=5, help="of the cost")
    parser.add_argument("--folder", type=Path, default=Path("runs/recipes"))
    args = parser.parse_args()
    if args.cost:
        what = f"{args.cost} images of Fashion-MNIST, SIREN 2-32-32-1"
        return save(
            "recipes-cost",
            {"benchmark": "recipes-cost", "what": what, "rows": costs(args.only, args.cost, args.repeats)},
        )
    args.folder.mkdir(parents=True, exist_ok=True)
    counts = {"train": args.train, "val": max(1, args.train // 12), "test": max(1, args.train // 6)}
    rows: dict[str, Any] = {}
    for name in args.only:
        rows[name] = row(name, args.folder, counts, args.epochs, args.seed)
        print(name, json.dumps(rows[name]), flush=True)
    what = f"Fashion-MNIST, {counts['train']} / {counts['val']} / {counts['test']} images, SIREN 2-32-32-1"
    record = {"benchmark": "recipes", "what": what, "epochs": args.epochs}
    save("recipes", {**record, "rows": kept(record) | rows})


if __name__ == "__main__":
    main()
