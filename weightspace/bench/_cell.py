"""One cell of a grid: a model, an augmentation and a seed, trained once and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from weightspace._files import write_atomic
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.bench._environment import environment
from weightspace.bench._suite import Entry
from weightspace.models import WeightModel, build, flop
from weightspace.training import TrainConfig, num_classes, seeded, train
from weightspace.transforms import augmentation
from weightspace.zoo import Zoo


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    entry: str
    augmentation: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.entry}-{self.augmentation}-{self.seed}"


def run_cell(cell: Cell, entry: Entry, config: TrainConfig, zoo: Path, folder: Path, device: str) -> dict[str, Any]:
    """Train one cell, or read what an earlier run of it found."""
    if (found := kept(folder)) is not None:
        return found
    opened = Zoo.open(zoo, verify=False)
    model = built(entry, opened, cell.seed)
    cost = flop(model, Weights(torch.zeros(config.batch_size, opened.spec.num_params), opened.spec))
    transform = None if cell.augmentation == "none" else augmentation(cell.augmentation)
    result = train(model, opened, transform=transform, config=config, device=device, run_dir=folder)
    out = {
        "parameters": model.num_parameters,
        "track": model.track,
        "respects": model.equivariance,
        "forward_flop": cost,
        "transform": repr(transform),
        "environment": {"device": str(device), **environment(threads=1)},
        **asdict(result),
    }
    write(folder / "cell.json", out)
    (folder / "last.pt").unlink(missing_ok=True)
    return out


def built(entry: Entry, zoo: Zoo, seed: int) -> WeightModel:
    """The model of an entry, with the initial weights of a seed."""
    with seeded(seed):
        return build(entry.model, zoo.spec, num_classes(zoo), **entry.options)


def kept(folder: Path) -> dict[str, Any] | None:
    """What an earlier run of a cell found."""
    path = folder / "cell.json"
    return json.loads(path.read_text()) if path.exists() else None


def fits(name: str, spec: NetSpec) -> bool:
    """Whether an augmentation applies to a spec: positive scales belong to ReLU, phases to sines."""
    if name == "none":
        return True
    transform = augmentation(name)
    try:
        transform.check(spec)
    except ValueError:
        return False
    return True


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_atomic(path, json.dumps(data, indent=1).encode())
