"""Run a suite: every cell a process of one thread, every cell resumable, one ``result.json``."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from weightspace._spec import NetSpec
from weightspace.bench._environment import environment
from weightspace.bench._suite import Entry, Suite
from weightspace.models import build
from weightspace.train import TrainConfig, num_classes, seeded, train
from weightspace.transforms import augmentation
from weightspace.zoo import Zoo
from weightspace.zoo._files import write_atomic

RESULT_SCHEMA = 1
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # numbers of <malloc.h>


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
        ValueError: for a zoo without labels, an unknown augmentation, or a folder that holds results of another suite,
            zoo or budget.
    """
    zoo, out = Path(zoo), Path(out)
    opened = Zoo.open(zoo)
    num_classes(opened)
    names = [name for name in suite.augmentations if _fits(name, opened.spec)]
    _same_grid(suite, opened, out)
    first = [Cell(e, a, s) for a in names for e in suite.entries for s in suite.seeds]
    total = len(first) + min(suite.leaders, len(names) * len(suite.entries)) * len(suite.leader_seeds)
    grid = _Grid(suite, zoo, out, 1 if device != "cpu" else workers or os.cpu_count() or 1, device, total, on_cell)
    done = grid.run(first, {})
    further = [Cell(e, a, s) for e, a in _leaders(suite, done) for s in suite.leader_seeds]
    further = [cell for cell in further if cell not in done]
    done = replace(grid, total=len(done) + len(further)).run(further, done)
    result = collect(suite, done, opened, grid.workers)
    path = out / "result.json"
    _write(path, result)
    return path


@dataclass(frozen=True)
class _Grid:
    """Runs cells, each in a process of its own with one thread."""

    suite: Suite
    zoo: Path
    out: Path
    workers: int
    device: str
    total: int
    on_cell: Callable[[Cell, dict[str, Any], int, int], None] | None

    def run(self, cells: Sequence[Cell], done: Mapping[Cell, dict[str, Any]]) -> dict[Cell, dict[str, Any]]:
        """``done`` and these cells; those that an earlier run finished are read, not run."""
        done = dict(done)
        for cell in cells:
            if (kept := _kept(self._folder(cell))) is not None:
                self._tell(done, cell, kept)
        missing = [cell for cell in cells if cell not in done]
        if not missing:
            return done
        others = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.workers, len(missing)), context, initializer=_start_worker) as pool:
            futures = {pool.submit(run_cell, *self._arguments(cell)): cell for cell in missing}
            try:
                for future in as_completed(futures):
                    self._tell(done, futures[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                ours = set(multiprocessing.active_children()) - others
                for child in ours:
                    child.terminate()  # a cell loses one epoch at most: it has checkpoints
                for child in ours:
                    child.join()
                raise
        return done

    def _arguments(self, cell: Cell) -> tuple[Cell, Entry, TrainConfig, Path, Path, str]:
        entry = self.suite.entries[cell.entry]
        config = replace(self.suite.train, **{**entry.train, "seed": cell.seed})
        return cell, entry, config, self.zoo, self._folder(cell), self.device

    def _folder(self, cell: Cell) -> Path:
        return self.out / "cells" / cell.key

    def _tell(self, done: dict[Cell, dict[str, Any]], cell: Cell, result: dict[str, Any]) -> None:
        done[cell] = result
        if self.on_cell is not None:
            self.on_cell(cell, result, len(done), self.total)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    torch.set_num_threads(1)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc hand one step's memory to the next, not to the system and back, page by page."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library: nothing to gain, nothing lost
        return
    for option, value in ((_M_MMAP_THRESHOLD, 1 << 25), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 1 << 27)):
        mallopt(option, value)


def _kept(folder: Path) -> dict[str, Any] | None:
    """What an earlier run of a cell found."""
    path = folder / "cell.json"
    return json.loads(path.read_text()) if path.exists() else None


def run_cell(cell: Cell, entry: Entry, config: TrainConfig, zoo: Path, folder: Path, device: str) -> dict[str, Any]:
    """Train one cell, or read what an earlier run of it found."""
    if (kept := _kept(folder)) is not None:
        return kept
    opened = Zoo.open(zoo, verify=False)
    with seeded(cell.seed):
        model = build(entry.model, opened.spec, num_classes(opened), **entry.options)
    transform = None if cell.augmentation == "none" else augmentation(cell.augmentation)
    result = train(model, opened, transform=transform, config=config, device=device, run_dir=folder)
    where = {"device": str(device), **environment(threads=1)}
    out = {"parameters": model.num_parameters, "transform": repr(transform), "environment": where, **asdict(result)}
    _write(folder / "cell.json", out)
    (folder / "last.pt").unlink(missing_ok=True)
    return out


def _fits(name: str, spec: NetSpec) -> bool:
    """Whether an augmentation applies to a spec: positive scales belong to ReLU, phases to sines."""
    if name == "none":
        return True
    transform = augmentation(name)
    try:
        transform.check(spec)
    except ValueError:
        return False
    return True


def _mixes(name: str) -> bool:
    return name != "none" and augmentation(name).mixes


def _leaders(suite: Suite, done: dict[Cell, dict[str, Any]]) -> list[tuple[str, str]]:
    """The rows that validate best (the test split has no say in this), and what they are compared with."""
    rows: dict[tuple[str, str], list[float]] = {}
    for cell, result in done.items():
        rows.setdefault((cell.entry, cell.augmentation), []).append(result["val"])
    best = sorted(rows, key=lambda row: -statistics.mean(rows[row]))[: suite.leaders]
    baselines = [(entry, "none") for entry in dict.fromkeys(entry for entry, _ in best)]
    return best + [row for row in baselines if row in rows and row not in best]


def collect(suite: Suite, done: dict[Cell, dict[str, Any]], zoo: Zoo, workers: int) -> dict[str, Any]:
    """One record of a grid: rows with mean and spread over seeds, and where they were measured."""
    groups: dict[tuple[str, str], list[tuple[Cell, dict[str, Any]]]] = {}
    for cell, result in sorted(done.items(), key=lambda item: item[0].key):
        groups.setdefault((cell.entry, cell.augmentation), []).append((cell, result))
    rows = [_row(suite, *name, runs) for name, runs in groups.items()]
    rows.sort(key=lambda row: (row["model"], -row["val_mean"] if row["test_mean"] is None else -row["test_mean"]))
    return {
        "schema": RESULT_SCHEMA,
        "kind": "bench",
        "suite": suite.name,
        **environment(threads=1),
        "commits": sorted({str(result["environment"]["commit"]) for result in done.values()}),
        "devices": sorted({result["environment"]["device"] for result in done.values()}),
        "workers": workers,
        "zoo": {name: value for name, value in zoo.summary().items() if name != "path"},
        "train": asdict(suite.train),
        "left_out": [name for name in suite.augmentations if not _fits(name, zoo.spec)],
        "rows": rows,
    }


def _row(suite: Suite, entry: str, name: str, runs: Sequence[tuple[Cell, dict[str, Any]]]) -> dict[str, Any]:
    tests = [result["test"] for _, result in runs if result["test"] is not None]
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
        "test_mean": statistics.mean(tests) if tests else None,
        "test_std": statistics.stdev(tests) if len(tests) > 1 else None,
        "val_mean": statistics.mean(vals),
        "train_last": statistics.mean(last),
        # a row whose training accuracy is no higher than its validation accuracy has not used up its data; where
        # networks are mixed the training accuracy says nothing: it is of mixtures, against one of two labels
        "under_trained": None if _mixes(name) else statistics.mean(last) <= statistics.mean(vals),
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


def _same_grid(suite: Suite, zoo: Zoo, out: Path) -> None:
    """A folder holds one suite on one zoo with one budget; models may be added to it, not changed."""
    record = {
        "suite": suite.name,
        "zoo": ",".join(str(shard.sha256)[:8] for shard in zoo.shards),
        "budget": asdict(suite.train),
        "models": {name: json.loads(json.dumps(asdict(entry))) for name, entry in suite.entries.items()},
    }
    path = out / "grid.json"
    if path.exists():
        before = json.loads(path.read_text())
        models = before.get("models", {})
        shared = {name: own for name, own in record["models"].items() if name in models}
        for name, now, was in [
            *((name, record[name], before.get(name)) for name in ("suite", "zoo", "budget")),
            *(("model", {name: own}, {name: models[name]}) for name, own in shared.items()),
        ]:
            if now != was:
                raise ValueError(
                    f"{out} holds results of another {name}: expected {now}, got {was}; use another folder or remove it"
                )
        record["models"] = {**models, **record["models"]}
    _write(path, record)


def _write(path: Path, data: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(data, indent=1).encode())
