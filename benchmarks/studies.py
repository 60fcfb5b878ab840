"""Studies: zoos that differ in one thing, and the same suite of models trained on each.

    python -m benchmarks.studies activations [--only sine relu tanh] [--counts 3000 500 1000] [--epochs 12]

fits the same images by networks 2-32-32-1 of each activation. ReLU and tanh are fitted with forty times the sines' step
size, otherwise alike: the best of two step sizes with two initialisations each on 32 images, by PSNR.

    python -m benchmarks.studies recipes [--only dws siren] [--counts 4000 333 666] [--epochs 20]

fits the same images by each recipe, and trains DWSNet and a plain MLP on every zoo; the MLP also after every network
was matched to one training network, over permutations and over the whole group. (Rates of fitting alone are measured by
``benchmarks.fit --recipes``.)

The epoch is chosen on the validation split, and the test split is read once. Zoos and runs are kept in ``--folder``,
and go on where they stopped; rows of an earlier run with the same settings are kept for the zoos that ``--only`` leaves
out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import weightspace as ws
from benchmarks._common import RESULTS, earlier_rows, save
from benchmarks.suites import ACTIVATIONS, RECIPES
from weightspace.bench import Suite, run_suite
from weightspace.bench._record import read_result

SPECS: dict[str, tuple[ws.NetSpec, float]] = {
    "sine": (ws.siren(2, 32, 32, 1), 5e-4),
    "relu": (ws.mlp(2, 32, 32, 1, activation="relu"), 2e-2),
    "tanh": (ws.mlp(2, 32, 32, 1, activation="tanh"), 2e-2),
}
"""Networks of each activation, and the step size of their fit."""
GROUPS = ("permutation", "full")
Zoos = Iterator[tuple[str, ws.Zoo, dict[str, Any], list[str] | None]]
"""The name of a zoo, the zoo, facts for the record, and the entries of the suite to train on it."""


def by_activation(args: argparse.Namespace) -> Zoos:
    """Fit a zoo of each activation."""
    data = ws.datasets.load(args.data)
    for name in args.only or SPECS:
        spec, lr = SPECS[name]
        zoo = ws.fit_zoo(
            args.folder / name, data, spec, config=replace(ws.fitting.RECIPES["dws"], lr=lr), counts=args.counts
        )
        yield name, zoo, {"lr": lr, "psnr_db": psnr(zoo)}, args.models


def by_recipe(args: argparse.Namespace) -> Zoos:
    """Fit a zoo by each recipe, and match its networks to one of them."""
    data = ws.datasets.load(args.data)
    for name in args.only or ws.fitting.RECIPES:
        config = ws.fitting.RECIPES[name]
        spec = ws.siren(2, 32, 32, 1, init=config.init or "dws")
        begun, start = time.perf_counter(), None
        if name == "meta":
            coords, targets = ws.signals.images(data.images[: min(2000, args.counts["train"])])
            start = ws.fitting.meta_start(coords, targets, spec, generator=torch.Generator().manual_seed(0))
        zoo = ws.fit_zoo(args.folder / name, data, spec, config=config, counts=args.counts, start=start)
        facts = {"recipe": zoo.summary()["recipe"], "init_regime": zoo.init_regime, "psnr_db": psnr(zoo)}
        yield name, zoo, {**facts, "seconds": time.perf_counter() - begun}, args.models
        for group in GROUPS:
            place = args.folder / f"{name}-{group}"
            reference = zoo["train"].weights[:1]
            matched = ws.Zoo.open(place) if place.exists() else ws.align.align_zoo(zoo, place, reference, group=group)
            yield f"{name}, matched over {group}", matched, {}, ["mlp"]


def psnr(zoo: ws.Zoo) -> dict[str, float]:
    """Return mean and spread of the fits' PSNR, in dB."""
    found = zoo.psnr("train")
    return {"mean": found.mean().item(), "std": found.std().item()}


def trained(suite: Suite, zoo: ws.Zoo, only: list[str] | None, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train the models of a suite on a zoo; return their rows."""

    def report(cell: Any, result: Any, done: int, total: int) -> None:
        print(f"{zoo.path.name}: {done}/{total} {cell.entry}: validation {result.val:.4f}", flush=True)

    out = args.folder / f"{zoo.path.name}-models"
    path = run_suite(suite, zoo.path, out, only=only, epochs=args.epochs, workers=args.workers, on_cell=report)
    fields = ("model", "augmentation", "track", "equivariance", "parameters", "seeds")
    fields = (*fields, "val_mean", "test_mean", "test_std", "seconds_mean")
    return [{name: getattr(row, name) for name in fields} for row in read_result(path).rows]


STUDIES = {
    "activations": (by_activation, ACTIVATIONS, (3000, 500, 1000)),
    "recipes": (by_recipe, RECIPES, (4000, 333, 666)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--only", nargs="*", help="activations or recipes; all if not given")
    parser.add_argument("--models", nargs="*", help="entries of the suite; all if not given")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--counts", nargs=3, type=int, metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--epochs", type=int, help="by default the suite's")
    parser.add_argument("--workers", type=int, help="by default one for each core")
    parser.add_argument("--folder", type=Path, help="by default runs/STUDY")
    args = parser.parse_args()
    zoos, suite, counts = STUDIES[args.study]
    args.counts = dict(zip(("train", "val", "test"), args.counts or counts, strict=True))
    args.epochs = args.epochs or suite.train.epochs
    args.folder = args.folder or Path("runs") / args.study
    record: dict[str, Any] = {"benchmark": "studies", "study": args.study, "suite": suite.name}
    record |= {"suite_version": suite.version, "data": args.data, "counts": args.counts, "epochs": args.epochs}
    found: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name, zoo, facts, only in zoos(args):
        found[name] = facts
        rows += [{"zoo": name, **row} for row in trained(suite, zoo, only, args)]
    kept = earlier_rows(args.study, record, "zoo", list(found))
    if kept:
        before = json.loads((RESULTS / f"{args.study}.json").read_text())["zoos"]
        found = {**{name: before[name] for name in dict.fromkeys(row["zoo"] for row in kept)}, **found}
    save(args.study, {**record, "zoos": found, "rows": kept + rows})


if __name__ == "__main__":
    main()
