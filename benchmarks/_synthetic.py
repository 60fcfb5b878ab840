"""Networks of a signal that were made without a fit: cost, quality and distance, and a zoo of them to train on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import weightspace as ws
from weightspace.fitting import RECIPES, synthetic_views

SPEC = ws.siren(2, 32, 32, 1, init="dws")
SETTINGS = [
    *({"directions": "any", "strength": s, "steps": n} for s in (0.3, 0.7, 1.0) for n in (50, 100, 200)),
    *({"directions": "flat", "strength": s, "steps": 100} for s in (0.3, 0.7, 1.0)),
]


def rows(count: int) -> list[dict[str, Any]]:
    """Return what each setting costs and keeps, on images of Fashion-MNIST, beside a second fit of each."""
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:count])
    begun = time.process_time()
    fitted = ws.fit(coords, targets, SPEC, config=RECIPES["dws"], views=2, workers=1)
    cost = (time.process_time() - begun) / 2
    first, second = fitted[::2], fitted[1::2]
    apart = _aligned(first.weights, second.weights)
    other = _aligned(first.weights, second.weights[torch.arange(count).roll(1)])
    found = [
        {
            "kind": "another fit of the image",
            **_quality(first.weights, coords, targets),
            "cost": 1.0,
            "distance": apart,
        },
        {"kind": "a fit of another image", "cost": 1.0, "distance": other},
    ]
    for options in SETTINGS:
        for returns in ("the network's own outputs", "the image"):
            begun = time.process_time()
            new = synthetic_views(
                first.weights,
                coords,
                targets=targets if returns == "the image" else None,
                generator=torch.Generator().manual_seed(0),
                workers=1,
                **options,
            )
            seconds = time.process_time() - begun
            found.append(
                {
                    "kind": "synthetic",
                    **options,
                    "returns_to": returns,
                    **_quality(new, coords, targets),
                    "cost": seconds / cost,
                    "distance": _aligned(first.weights, new),
                }
            )
            print(found[-1], flush=True)
    return found


def _quality(w: ws.Weights, coords: Tensor, targets: Tensor) -> dict[str, float]:
    error = (ws.evaluate(w, coords) - targets).square().mean((1, 2))
    return {"psnr_db": (-10 * error.log10()).mean().item()}


def _aligned(a: ws.Weights, b: ws.Weights) -> float:
    """Return the mean squared distance once the full group has brought each pair as close as it can."""
    return ws.align.distance(a, ws.align.match(a, b, group="full").act(b)).mean().item()


def join(few: Path, whole: Path, out: Path) -> None:
    """Write a zoo of the training networks of one zoo, and the validation and test networks of another."""
    train, rest = ws.Zoo.open(few), ws.Zoo.open(whole)
    splits = {"train": train["train"], **{name: rest[name] for name in ("val", "test")}}
    splits = {name: networks.replace(columns={}) for name, networks in splits.items()}
    ws.zoo.write_zoo(out, splits, classes=rest.classes, provenance=rest.provenance, recipe=train.recipe)


def write_zoo(zoo: Path, out: Path, views: int) -> None:
    """Write a zoo whose training networks are the first views of another's, and synthetic ones of them."""
    given = ws.Zoo.open(zoo)
    first = given["train"]
    first = first[torch.nonzero(first.view == 0)[:, 0]].replace(psnr=None)
    size = given.provenance["height"], given.provenance["width"]
    coords, parts = ws.signals.grid(*size), [first]
    for view in range(1, views):
        generator = torch.Generator().manual_seed(view)
        weights = synthetic_views(first.weights, coords, generator=generator, workers=1)
        parts.append(first.replace(weights=weights, view=torch.full_like(first.view, view)))
        print(f"view {view}", flush=True)
    splits = {"train": ws.Networks.cat(parts), **{name: given[name] for name in given.splits if name != "train"}}
    ws.zoo.write_zoo(out, splits, classes=given.classes, provenance=given.provenance, recipe=given.recipe)
