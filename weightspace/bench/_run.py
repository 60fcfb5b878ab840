"""Run a suite: every cell a process of one thread, every cell resumable, one ``result.json``."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from weightspace._spec import NetSpec
from weightspace.bench._environment import environment
from weightspace.bench._suite import Entry, Suite
from weightspace.models import build
from weightspace.train import TrainConfig, train
from weightspace.transforms import augmentation
from weightspace.zoo import Zoo

RESULT_SCHEMA = 1


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    entry: str
    augmentation: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.entry}-{self.augmentation}-{self.seed}"


def run_suite(
    suite: Suite,
    zoo: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    device: str = "cpu",
    on_cell: Callable[[Cell, dict[str, Any], int, int], None] | None = None,
) -> Path:
    """Measure a grid and write ``out/result.json``; run again, it goes on where it stopped.

    Args:
        suite: the grid.
        zoo: a zoo with labels.
        out: folder of the results; every cell keeps its checkpoints below it.
        workers: processes of one thread each; all cores where None. With CUDA, one.
        device: where cells train.
        on_cell: called with a finished cell, its result, how many are done and how many there are.

    Returns:
        The path of ``result.json``.

    Raises:
        ValueError: if the folder holds results of another suite, zoo or budget.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _same_grid(suite, Path(zoo), out)
    workers = 1 if device != "cpu" else workers or os.cpu_count() or 1
    names = [name for name in suite.augmentations if _fits(name, Zoo.open(zoo).spec)]
    first = [Cell(e, a, s) for a in names for e in suite.entries for s in suite.seeds]
    total = len(first) + min(suite.leaders, len(first)) * len(suite.leader_seeds)
    done = _run_cells(suite, first, Path(zoo), out, workers, device, total, {}, on_cell)
    best = _leaders(suite, done)
    further = [Cell(e, a, s) for e, a in best for s in suite.leader_seeds]
    done = _run_cells(suite, further, Path(zoo), out, workers, device, total, done, on_cell)
    result = collect(suite, done, Zoo.open(zoo), workers)
    path = out / "result.json"
    _write(path, result)
    return path


def _run_cells(
    suite: Suite,
    cells: Iterable[Cell],
    zoo: Path,
    out: Path,
    workers: int,
    device: str,
    total: int,
    done: dict[Cell, dict[str, Any]],
    on_cell: Callable[[Cell, dict[str, Any], int, int], None] | None,
) -> dict[Cell, dict[str, Any]]:
    done = dict(done)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {}
        for cell in cells:
            entry = suite.entries[cell.entry]
            config = replace(suite.train, **entry.train, seed=cell.seed)
            futures[pool.submit(run_cell, cell, entry, config, zoo, out / "cells" / cell.key, device)] = cell
        try:
            for future in as_completed(futures):
                cell = futures[future]
                done[cell] = future.result()
                if on_cell is not None:
                    on_cell(cell, done[cell], len(done), total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():  # a cell loses one epoch at most: it has checkpoints
                child.terminate()
            raise
    return done


def run_cell(cell: Cell, entry: Entry, config: TrainConfig, zoo: Path, folder: Path, device: str) -> dict[str, Any]:
    """Train one cell, or read what an earlier run of it found."""
    kept = folder / "cell.json"
    if kept.exists():
        return json.loads(kept.read_text())
    opened = Zoo.open(zoo, verify=False)
    with torch.random.fork_rng(devices=[]):  # torch initialises modules from its global generator: keep it to this cell
        torch.manual_seed(cell.seed)
        model = build(entry.model, opened.spec, len(opened.classes or ()) or 10, **entry.options)
    transform = None if cell.augmentation == "none" else augmentation(cell.augmentation)
    result = train(model, opened, transform=transform, config=config, device=device, run_dir=folder)
    out = {"parameters": model.num_parameters, "transform": repr(transform), **asdict(result)}
    _write(kept, out)
    (folder / "last.pt").unlink(missing_ok=True)
    return out


def _fits(name: str, spec: NetSpec) -> bool:
    """Whether an augmentation applies to a spec: positive scales belong to ReLU, phases to sines."""
    if name == "none":
        return True
    transform = augmentation(name)
    try:
        for stage in transform.stages or (transform,):
            stage.check(spec)
    except ValueError:
        return False
    return True


def _leaders(suite: Suite, done: dict[Cell, dict[str, Any]]) -> list[tuple[str, str]]:
    """The rows that validate best: the test split has no say in which rows get more seeds."""
    rows: dict[tuple[str, str], list[float]] = {}
    for cell, result in done.items():
        rows.setdefault((cell.entry, cell.augmentation), []).append(result["val"])
    return sorted(rows, key=lambda row: -statistics.mean(rows[row]))[: suite.leaders]


def collect(suite: Suite, done: dict[Cell, dict[str, Any]], zoo: Zoo, workers: int) -> dict[str, Any]:
    """One record of a grid: rows with mean and spread over seeds, and where they were measured."""
    groups: dict[tuple[str, str], list[tuple[Cell, dict[str, Any]]]] = {}
    for cell, result in sorted(done.items(), key=lambda item: item[0].key):
        groups.setdefault((cell.entry, cell.augmentation), []).append((cell, result))
    rows = [_row(suite, *name, runs) for name, runs in groups.items()]
    rows.sort(key=lambda row: (row["model"], -row["test_mean"]))
    return {
        "schema": RESULT_SCHEMA,
        "kind": "bench",
        "suite": suite.name,
        **environment(threads=1),
        "workers": workers,
        "zoo": {name: value for name, value in zoo.summary().items() if name != "path"},
        "train": asdict(suite.train),
        "rows": rows,
    }


def _row(suite: Suite, entry: str, name: str, runs: Sequence[tuple[Cell, dict[str, Any]]]) -> dict[str, Any]:
    tests = [result["test"] for _, result in runs]
    last = [result["history"][-1]["train"] for _, result in runs]
    vals = [result["val"] for _, result in runs]
    return {
        "model": entry,
        "augmentation": name,
        "transform": runs[0][1]["transform"],
        "options": dict(suite.entries[entry].options),
        "train_options": dict(suite.entries[entry].train),
        "parameters": runs[0][1]["parameters"],
        "seeds": [cell.seed for cell, _ in runs],
        "test_mean": statistics.mean(tests),
        "test_std": statistics.stdev(tests) if len(tests) > 1 else None,
        "val_mean": statistics.mean(vals),
        "train_last": statistics.mean(last),
        # a row whose training accuracy is no higher than its validation accuracy has not used up its data
        "under_trained": statistics.mean(last) <= statistics.mean(vals),
        "seconds_mean": statistics.mean(result["seconds"] for _, result in runs),
        "runs": [
            {
                "seed": cell.seed,
                "test": result["test"],
                "val": result["val"],
                "best_epoch": result["best_epoch"],
                "seconds": result["seconds"],
                "history": result["history"],
            }
            for cell, result in runs
        ],
    }


def _same_grid(suite: Suite, zoo: Path, out: Path) -> None:
    """A folder holds one suite on one zoo with one budget."""
    record, path = {"suite": suite.name, "zoo": _digest(zoo), "train": asdict(suite.train)}, out / "grid.json"
    if path.exists():
        before = json.loads(path.read_text())
        for name, value in record.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{out} holds results of another {name}: expected {value}, got {before.get(name)}; "
                    "use another folder or remove it"
                )
    _write(path, record)


def _digest(zoo: Path) -> str:
    """What tells one zoo from another: its shards' hashes."""
    manifest = json.loads((zoo / "manifest.json").read_text())
    return ",".join(shard["sha256"][:8] for shard in manifest["shards"])


def _write(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=1))
    temporary.replace(path)
