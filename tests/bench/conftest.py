"""A small zoo for grids, and cells as if they had run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace.zoo import write_zoo

SPEC = ws.siren(2, 4, 1)
MakeZoo = Callable[..., ws.Zoo]
Plant = Callable[[Path, Mapping[str, tuple[float, float | None]]], None]


@pytest.fixture(scope="session")
def make_zoo() -> MakeZoo:
    """Write a zoo of three classes that a model can tell apart."""

    def make(path: Path, *, train: int = 96, test: int = 30, labelled: bool = True, seed: int = 0) -> ws.Zoo:
        generator = torch.Generator().manual_seed(seed)

        def split(count: int) -> ws.Networks:
            labels = torch.arange(count) % 3
            flat = (labels[:, None] - 1.0) + torch.randn(count, SPEC.num_params, generator=generator)
            return ws.Networks(ws.Weights(flat, SPEC), label=labels if labelled else None)

        splits = {"train": split(train), **({"test": split(test)} if test else {})}
        return write_zoo(path, splits, provenance={"data": "synthetic"})

    return make


def finished_cell(val: float, test: float | None, **more: Any) -> dict[str, Any]:
    """Return the record of a finished cell with these scores."""
    line = {"epoch": 1, "loss": 1.0, "lr": 0.1, "train": 0.5, "val": val, "seconds": 2.0}
    settings = {"track": "weights-only", "equivariance": "none", "objective": None, "transform": "None"}
    cost = {"parameters": 7, "forward_flop": 14, "environment": {"commit": "0" * 12, "device": "cpu"}}
    return {**settings, **cost, "best_epoch": 1, "seconds": 2.0, "val": val, "test": test, "history": [line], **more}


@pytest.fixture(scope="session")
def plant() -> Plant:
    """Write cells as if they had run, with these validation and test scores."""

    def write(out: Path, cells: Mapping[str, tuple[float, float | None]]) -> None:
        for key, (val, test) in cells.items():
            folder = out / "cells" / key
            folder.mkdir(parents=True)
            (folder / "cell.json").write_text(json.dumps(finished_cell(val, test)))

    return write


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """Read all files below a folder: when each was written, and its bytes."""

    def read(folder: Path) -> dict[str, tuple[int, bytes]]:
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    return read
