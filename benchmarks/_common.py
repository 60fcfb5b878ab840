"""Timing, spread and records, which all benchmarks share."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from weightspace._files import read_json
from weightspace.bench._environment import environment
from weightspace.bench._json import dumps, write_json

RESULTS = Path(__file__).parent / "results"


def timed(run: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the smallest, the largest and the number of repeats."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "repeats": len(values)}


def descend(module: nn.Module, optimizer: Optimizer, schedule: LRScheduler, batches: Iterable[Any]) -> nn.Module:
    """Train a classifier on batches ``(x, y)``, ``y`` whole numbers of any shape; return it in evaluation mode."""
    for x, y in batches:
        loss = F.cross_entropy(module(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return module.eval()


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def save_to(path: Path, record: dict[str, Any]) -> None:
    """Write a record, whole or not at all."""
    write_json(path, record)


def save(name: str, record: dict[str, Any], *, threads: int | None = None) -> None:
    """Print a record, and keep it with hardware, versions and commit under ``benchmarks/results``."""
    text = dumps({**environment(threads=threads), **record})
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def earlier_rows(name: str, same: dict[str, Any], key: str, new: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the rows of an earlier record of the same experiment whose ``key`` is not among the new ones."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    found = read_json(path, "the record of a benchmark", finite=True, remedy="remove it")
    if any(found.get(field) != value for field, value in same.items()):
        return []
    return [row for row in found["rows"] if row[key] not in new]
