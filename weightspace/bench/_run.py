"""Run a suite: every cell in a process of one thread, every cell resumable, one ``result.json``."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from weightspace._checks import whole_number
from weightspace.bench._benchmarks import check_card
from weightspace.bench._cell import (
    Cell,
    CellResult,
    Job,
    built,
    finished,
    fits,
    item_scores,
    objective_of,
    run_cell,
    run_ensemble,
)
from weightspace.bench._collect import collect, mean
from weightspace.bench._grid import check_grid
from weightspace.bench._multiplier import multipliers
from weightspace.bench._paired import Comparison, Scores, compare
from weightspace.bench._processes import Pool, ray_pool, sigterm_interrupts, worker_pool
from weightspace.bench._record import EnsembleScores, write_result
from weightspace.bench._suite import Suite, suite_named
from weightspace.bench._suites import SUITES
from weightspace.fitting import RayExecutor
from weightspace.fitting._executors import LocalExecutor, executor_named
from weightspace.training._train import parts_of
from weightspace.zoo import Zoo

OnCell = Callable[[Cell, CellResult, int, int], None]


def run_suite(
    suite: Suite | str,
    zoo: str | Path,
    out: str | Path,
    *,
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    workers: int | None = None,
    device: str = "cpu",
    executor: str | RayExecutor = "local",
    on_cell: OnCell | None = None,
) -> Path:
    """Measure a grid and write ``out/result.json``; given again, the call goes on where it stopped.

    Every cell keeps its checkpoint, its trained model and its result in a folder of its own below ``out/cells``. The
    histories of all cells are packed into ``out/history.jsonl.gz``. The processes of the cells end with this process,
    and SIGTERM ends a run as an interrupt from the keyboard does.

    Args:
        suite: the grid, the name of one of :data:`SUITES`, an import path such as ``my_package.suites:MINE``, or the
            name of an entry point of ``weightspace.suites``.
        zoo: folder of a zoo, with labels if a cell is to classify.
        out: folder of the results.
        only: names of the entries to run; all of them if None.
        seeds: replace the suite's seeds for every row, so that a long suite runs seed by seed; none are added for the
            leading rows then.
        epochs: replaces the epochs of the suite's budget.
        workers: number of processes, of one thread each; as many as cores if None, and one on CUDA.
        device: where cells train.
        executor: ``"local"``, or ``"ray"`` or a :class:`weightspace.fitting.RayExecutor`: every cell is then a task of
            a cluster, whose machines see ``zoo`` and ``out`` under the same paths. A cell whose worker or machine died
            goes on from its last epoch.
        on_cell: called with a finished cell, its result, how many cells are done and how many there are.

    Returns:
        The path of ``result.json``.

    Raises:
        ValueError: for a zoo without labels, an unknown name, a model that cannot read the zoo's networks, or a folder
            that holds results of another suite, version, zoo or budget, a zoo whose card tells of other networks, or a
            damaged file.

    Example:
        A grid of two models takes a few lines; ``weightspace bench`` runs the same from the command line.

        >>> from weightspace import TrainConfig
        >>> from weightspace.bench import Entry, Suite
        >>> suite = Suite("two", {"mlp": Entry("mlp"), "dwsnet": Entry("dwsnet")}, ("none", "noise"), TrainConfig())
        >>> path = run_suite(suite, "zoo", "out")  # doctest: +SKIP
    """
    given = suite_named(suite, SUITES) if isinstance(suite, str) else suite
    chosen = _chosen(given, only)
    if epochs is not None:
        chosen = replace(chosen, train=replace(chosen.train, epochs=epochs))
    if seeds is not None:
        chosen = _with_seeds(chosen, seeds)
    with sigterm_interrupts():
        return _measure(chosen, Path(zoo), Path(out), workers, device, executor, on_cell)


def _chosen(suite: Suite, only: Sequence[str] | None) -> Suite:
    if only is None:
        return suite
    if unknown := [name for name in only if name not in suite.entries]:
        raise ValueError(f"only: expected entries among {list(suite.entries)}, got {unknown[0]!r}")
    return replace(suite, entries={name: entry for name, entry in suite.entries.items() if name in only})


def _with_seeds(suite: Suite, seeds: Sequence[int]) -> Suite:
    """Return a suite that runs these seeds alone."""
    if isinstance(seeds, str) or not seeds:
        raise ValueError(f"seeds: expected at least one whole number, got {seeds!r}")
    own = tuple(whole_number("seeds", seed, 0) for seed in seeds)
    entries = {name: replace(entry, seeds=()) for name, entry in suite.entries.items()}
    return replace(suite, entries=entries, seeds=own, leaders=0, leader_seeds=())


def _measure(
    suite: Suite,
    zoo: Path,
    out: Path,
    workers: int | None,
    device: str,
    executor: str | RayExecutor,
    on_cell: OnCell | None,
) -> Path:
    ray = _ray_executor(executor, device)
    if ray is not None:
        zoo, out = zoo.absolute(), out.absolute()  # the paths that all machines know
    opened = Zoo.open(zoo)
    check_card(opened)
    if any(entry.objective is None for entry in suite.entries.values()):
        _ = opened.num_classes  # raises for a zoo without labels
    transforms = {row: suite.transform(*row) for row in suite.rows}
    rows = [row for row, transform in transforms.items() if fits(transform, opened.spec)]
    first = [Cell(*row, seed) for row in rows for seed in dict.fromkeys((*suite.seeds, *suite.entries[row[0]].seeds))]
    tracks = {name: built(entry, opened, 0).track for name, entry in suite.entries.items()}
    for entry in suite.entries.values():
        objective_of(entry, opened)  # raises for an unknown one
        parts_of(opened, replace(suite.train, **entry.train), torch.device("cpu"), 0)  # raises for views not there
    grid = _Grid(suite, zoo, out, 1 if device != "cpu" else workers or os.cpu_count() or 1, device, on_cell, ray)
    grid.check(first)
    check_grid(suite, transforms, opened, out)
    done = grid.run(first, {}, len(first) + _leading(suite, rows, tracks) * len(suite.leader_seeds))
    further = [Cell(*row, seed) for row in _leaders(suite, done, tracks) for seed in suite.leader_seeds]
    further = [cell for cell in further if cell not in done]
    done = grid.run(further, done, len(done) + len(further))
    scores = grid.scores(done)
    compared, worth = comparisons(scores), multipliers(suite.entries, scores)
    result = collect(suite, transforms, done, grid.ensembles(done), compared, worth, opened, grid.workers)
    return write_result(out, result)


def _ray_executor(executor: str | RayExecutor, device: str) -> RayExecutor | None:
    """Return the executor of cells on Ray, one core each, or None where they run on this machine."""
    found = executor_named(executor, device=torch.device(device), workers=1)
    if not isinstance(found, LocalExecutor | RayExecutor):
        raise TypeError(f"executor: expected 'local', 'ray' or a RayExecutor, got {type(found).__name__}")
    return found if isinstance(found, RayExecutor) else None


@dataclass(frozen=True)
class _Grid:
    """Runs cells, each in a process of its own with one thread, on this machine or on a cluster."""

    suite: Suite
    zoo: Path
    out: Path
    workers: int
    device: str
    on_cell: OnCell | None
    ray: RayExecutor | None = None

    def check(self, cells: Sequence[Cell]) -> None:
        """Raise ``ValueError`` if a cell cannot be sent to a process."""
        for cell in cells:
            try:
                pickle.dumps(self._job(cell))
            except Exception as error:
                raise ValueError(
                    f"{cell.key}: expected a transform, objective and evaluations that can be pickled, got {error}; "
                    "define their functions at the top level of a module"
                ) from error

    def run(self, cells: Sequence[Cell], done: Mapping[Cell, CellResult], total: int) -> dict[Cell, CellResult]:
        """Return ``done`` and these cells; those that an earlier run finished are read, not run."""
        done = dict(done)
        for cell in cells:
            if (found := finished(self._folder(cell))) is not None:
                self._note(done, cell, found, total)
        missing = [cell for cell in cells if cell not in done]
        if missing:
            with self._pool(len(missing)) as pool:
                for cell, result in pool(run_cell, {cell: (self._job(cell),) for cell in missing}):
                    self._note(done, cell, result, total)
        return done

    def ensembles(self, done: Mapping[Cell, CellResult]) -> dict[tuple[str, str], EnsembleScores]:
        """Return the scores of the mean of every row's outputs, for rows of several seeds that ask for it."""
        rows: dict[tuple[str, str], list[Job]] = {}
        for cell in sorted(done, key=lambda cell: cell.seed):
            if self.suite.entries[cell.entry].ensemble:
                rows.setdefault((cell.entry, cell.augmentation), []).append(self._job(cell))
        several = {row: jobs for row, jobs in rows.items() if len(jobs) > 1}
        if not several:
            return {}
        paths = {row: self.out / "ensembles" / f"{row[0]}-{row[1]}.json" for row in several}
        with self._pool(len(several)) as pool:
            return dict(pool(run_ensemble, {row: (jobs, paths[row]) for row, jobs in several.items()}))

    def scores(self, done: Mapping[Cell, CellResult]) -> dict[tuple[str, str], dict[int, np.ndarray]]:
        """Return the score of every test network, by row and seed; nothing without a test split."""
        found: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        for cell in done:
            if (scores := item_scores(self._job(cell))) is not None:
                found.setdefault((cell.entry, cell.augmentation), {})[cell.seed] = scores
        return found

    def _pool(self, calls: int) -> AbstractContextManager[Pool]:
        return worker_pool(min(self.workers, calls)) if self.ray is None else ray_pool(self.ray)

    def _job(self, cell: Cell) -> Job:
        entry = self.suite.entries[cell.entry]
        config = replace(self.suite.train, **{**entry.train, "seed": cell.seed})
        transform = self.suite.augmentations_of(cell.entry)[cell.augmentation]
        return Job(cell, entry, transform, config, self.zoo, self._folder(cell), self.device)

    def _folder(self, cell: Cell) -> Path:
        return self.out / "cells" / cell.key

    def _note(self, done: dict[Cell, CellResult], cell: Cell, result: CellResult, total: int) -> None:
        done[cell] = result
        if self.on_cell is not None:
            self.on_cell(cell, result, len(done), total)


def comparisons(rows: Mapping[tuple[str, str], Scores]) -> dict[tuple[str, str], Comparison]:
    """Return every row against its model's row without augmentation, test network by test network."""
    found = {}
    for entry in dict.fromkeys(entry for entry, _ in rows):
        own = {name: scores for (model, name), scores in rows.items() if model == entry and name != "none"}
        found |= {(entry, name): each for name, each in compare(own, rows.get((entry, "none"), {})).items()}
    return found


def _leading(suite: Suite, rows: Sequence[tuple[str, str]], tracks: Mapping[str, str]) -> int:
    """Return how many rows lead, before anything has run."""
    counts = Counter(tracks[entry] for entry, _ in rows)
    return sum(min(suite.leaders, count) for count in counts.values())


def _leaders(suite: Suite, done: Mapping[Cell, CellResult], tracks: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the rows of each track that validate best, and the rows that they are compared with.

    The test split has no say in the choice.
    """
    rows: dict[tuple[str, str], list[float]] = {}
    for cell, result in done.items():
        rows.setdefault((cell.entry, cell.augmentation), []).append(result.val)
    best: list[tuple[str, str]] = []
    for track in dict.fromkeys(tracks.values()):
        own = [row for row in rows if tracks[row[0]] == track]
        best += sorted(own, key=lambda row: -(mean(rows[row]) or 0.0))[: suite.leaders]
    baselines = [(entry, "none") for entry in dict.fromkeys(entry for entry, _ in best)]
    return best + [row for row in baselines if row in rows and row not in best]
