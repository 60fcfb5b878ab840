"""Run a suite: every cell a process of one thread, every cell resumable, one ``result.json``."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from weightspace._spec import NetSpec
from weightspace.bench._cell import Cell, built, fits, kept, run_cell, write
from weightspace.bench._record import collect
from weightspace.bench._suite import Entry, Suite
from weightspace.training import TrainConfig, num_classes
from weightspace.zoo import Zoo

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # numbers of <malloc.h>


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
        ValueError: for a zoo without labels, an unknown augmentation, a model that cannot read the zoo's networks, or
            a folder that holds results of another suite, zoo or budget.
    """
    zoo, out = Path(zoo), Path(out)
    opened = Zoo.open(zoo)
    num_classes(opened)
    first = _cells(suite, opened.spec)
    tracks = {name: built(entry, opened, 0).track for name, entry in suite.entries.items()}
    _same_grid(suite, opened, out)
    total = len(first) + _leading(suite, first, tracks) * len(suite.leader_seeds)
    grid = _Grid(suite, zoo, out, 1 if device != "cpu" else workers or os.cpu_count() or 1, device, total, on_cell)
    done = grid.run(first, {})
    further = [Cell(e, a, s) for e, a in _leaders(suite, done, tracks) for s in suite.leader_seeds]
    further = [cell for cell in further if cell not in done]
    done = replace(grid, total=len(done) + len(further)).run(further, done)
    result = collect(suite, done, opened, grid.workers)
    path = out / "result.json"
    write(path, result)
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
            if (found := kept(self._folder(cell))) is not None:
                self._tell(done, cell, found)
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
                _end(set(multiprocessing.active_children()) - others)
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


def _end(children: set[BaseProcess]) -> None:
    """End processes and wait until they are gone; a cell loses one epoch at most: it has checkpoints."""
    for child in children:
        child.terminate()
    for child in children:
        child.join()
    deadline = time.monotonic() + 10
    while children & set(multiprocessing.active_children()) and time.monotonic() < deadline:
        time.sleep(0.01)  # the pool waits for them too, and one of the two waits ends before the process is struck off


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


def _cells(suite: Suite, spec: NetSpec) -> list[Cell]:
    """Those that every suite begins with: each model with the augmentations that its networks allow."""
    fitting = [name for name in suite.all_augmentations if fits(name, spec)]
    rows = [(entry, name) for name in fitting for entry in suite.entries if name in suite.augmentations_of(entry)]
    return [Cell(*row, seed) for row in rows for seed in suite.seeds]


def _leading(suite: Suite, cells: Sequence[Cell], tracks: Mapping[str, str]) -> int:
    """How many rows lead, before anything has run."""
    rows = Counter(tracks[entry] for entry, _ in dict.fromkeys((cell.entry, cell.augmentation) for cell in cells))
    return sum(min(suite.leaders, count) for count in rows.values())


def _leaders(suite: Suite, done: Mapping[Cell, Mapping[str, Any]], tracks: Mapping[str, str]) -> list[tuple[str, str]]:
    """The rows of each track that validate best (the test split has no say), and what they are compared with."""
    rows: dict[tuple[str, str], list[float]] = {}
    for cell, result in done.items():
        rows.setdefault((cell.entry, cell.augmentation), []).append(result["val"])
    best: list[tuple[str, str]] = []
    for track in dict.fromkeys(tracks.values()):
        own = [row for row in rows if tracks[row[0]] == track]
        best += sorted(own, key=lambda row: -statistics.mean(rows[row]))[: suite.leaders]
    baselines = [(entry, "none") for entry in dict.fromkeys(entry for entry, _ in best)]
    return best + [row for row in baselines if row in rows and row not in best]


def _same_grid(suite: Suite, zoo: Zoo, out: Path) -> None:
    """A folder holds one suite on one zoo with one budget; models and augmentations may be added, none changed."""
    record = {
        "suite": suite.name,
        "zoo": ",".join(str(shard.sha256)[:8] for shard in zoo.shards),
        "budget": asdict(suite.train),
        "models": {name: _fixed(entry) for name, entry in suite.entries.items()},
    }
    path = out / "grid.json"
    if path.exists():
        before = json.loads(path.read_text())
        before["budget"] = TrainConfig.filled(before.get("budget") or {})
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
    write(path, record)


def _fixed(entry: Entry) -> dict[str, Any]:
    """What of an entry its cells depend on."""
    return json.loads(json.dumps({"model": entry.model, "options": dict(entry.options), "train": dict(entry.train)}))
