"""Run one cell of a grid: a model, an augmentation and a seed, trained once; the trained model stays on disk."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from weightspace._files import read_json, write_atomic
from weightspace._plugins import find
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.bench._environment import environment
from weightspace.bench._evaluations import scores
from weightspace.bench._json import read_as, write_json
from weightspace.bench._record import EnsembleScores
from weightspace.bench._suite import Entry
from weightspace.models import MODELS, Ensemble, WeightModel, build, flop
from weightspace.training import Classification, Objective, TrainConfig, train
from weightspace.training._objectives import objective_for
from weightspace.training._run import Part, scores_of_each
from weightspace.training._run_folder import CHECKPOINT, WEIGHTS
from weightspace.training._train import augmentation_for
from weightspace.transforms import Transform
from weightspace.zoo import Zoo
from weightspace.zoo._zoo import RESIDENT_BYTES

T = TypeVar("T")
CELL = "cell.json"
SCORES = "test.safetensors"
"""The score of every test network."""
REMEDY = "remove the file's folder and give the command again"


@dataclass(frozen=True)
class Cell:
    """A place in the grid."""

    entry: str
    augmentation: str
    seed: int

    @property
    def key(self) -> str:
        """Name of the cell's folder."""
        return f"{self.entry}-{self.augmentation}-{self.seed}"


@dataclass(frozen=True)
class Job:
    """All that a process needs to run a cell."""

    cell: Cell
    entry: Entry
    transform: str | Transform | None
    config: TrainConfig
    zoo: Path
    folder: Path
    device: str


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of a finished cell, as ``cell.json`` holds it."""

    parameters: int
    track: str
    equivariance: str
    forward_flop: int
    transform: str
    objective: str | None
    environment: dict[str, Any]
    best_epoch: int
    val: float
    test: float | None
    seconds: float
    history: tuple[dict[str, float | None], ...]
    evaluations: dict[str, dict[str, float | None]] = field(default_factory=dict)

    @property
    def train_last(self) -> float | None:
        """Score on the transformed training batches of the last epoch."""
        return self.history[-1].get("train") if self.history else None

    @property
    def seconds_epoch(self) -> float | None:
        """Median of the epochs' seconds."""
        seconds = [line["seconds"] for line in self.history if line.get("seconds") is not None]
        return statistics.median(seconds) if seconds else None  # pyright: ignore[reportArgumentType]


def run_cell(job: Job) -> CellResult:
    """Train one cell, or read what an earlier run of it found."""
    if (found := finished(job.folder)) is not None:
        return found
    zoo = Zoo.open(job.zoo, verify=False)
    model = built(job.entry, zoo, job.cell.seed)
    cost = flop(model, Weights(torch.zeros(job.config.batch_size, zoo.spec.num_params), zoo.spec))
    transform = augmentation_for(job.transform, zoo)
    objective = objective_of(job.entry, zoo)
    trained = train(
        model,
        zoo,
        transform=transform,
        objective=objective,
        config=job.config,
        device=job.device,
        run_dir=job.folder,
    )
    result = CellResult(
        parameters=model.num_parameters,
        track=model.track,
        equivariance=model.equivariance,
        forward_flop=cost,
        transform=repr(transform),
        objective=None if objective is None else repr(objective),
        environment={"device": job.device, **environment(threads=1)},
        best_epoch=trained.best_epoch,
        val=trained.val,
        test=trained.test,
        seconds=trained.seconds,
        history=tuple(dict(line) for line in trained.history),
        evaluations={
            name: dict(evaluation(model, zoo, job.device)) for name, evaluation in job.entry.evaluations.items()
        },
    )
    write_json(job.folder / CELL, asdict(result))
    (job.folder / CHECKPOINT).unlink(missing_ok=True)
    item_scores(job)
    return result


def run_ensemble(jobs: list[Job], path: Path) -> EnsembleScores:
    """Evaluate the mean of the outputs of finished cells of one row, or read what an earlier run found.

    Raises:
        ValueError: for a file that is cut or damaged, with its path.
    """
    seeds = tuple(job.cell.seed for job in jobs)
    if path.exists():
        found = _read(EnsembleScores, path, "the scores of an ensemble", "remove it and give the command again")
        if found.seeds == seeds:
            return found
    first = jobs[0]
    zoo = Zoo.open(first.zoo, verify=False)
    ensemble = Ensemble([kept_model(job, zoo) for job in jobs]).eval()
    own = scores(ensemble, zoo, objective_of(first.entry, zoo), first.device)
    result = EnsembleScores(
        seeds=seeds,
        parameters=ensemble.num_parameters,
        val=own.get("val"),
        test=own.get("test"),
        evaluations={
            name: dict(evaluation(ensemble, zoo, first.device)) for name, evaluation in first.entry.evaluations.items()
        },
    )
    write_json(path, asdict(result))
    return result


def built(entry: Entry, zoo: Zoo, seed: int) -> WeightModel:
    """Return the model of an entry with the initial weights of a seed."""
    outputs = zoo.num_classes if entry.outputs is None else entry.outputs
    if entry.model in MODELS:
        return build(entry.model, zoo.spec, outputs, seed=seed, **entry.options)
    make = find(
        "models", entry.model, MODELS, lambda found: None if callable(found) else "expected a class or function"
    )
    return make(zoo.spec, outputs, seed=seed, **entry.options)


def objective_of(entry: Entry, zoo: Zoo) -> Objective | None:
    """Return the objective of an entry for a zoo, or None for classification."""
    return objective_for(entry.objective, zoo) if isinstance(entry.objective, str) else entry.objective


def kept_model(job: Job, zoo: Zoo) -> WeightModel:
    """Return the trained model of a finished cell."""
    path = job.folder / WEIGHTS
    model = built(job.entry, zoo, job.cell.seed)
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: expected the trained model of {job.cell.key}, got {error}; {REMEDY}") from error
    return model.eval()


def item_scores(job: Job) -> np.ndarray | None:
    """Return the score of every test network by a finished cell's model; None without a test split or its file.

    They are kept in the cell's folder, so that only the first call computes them.
    """
    path, zoo = job.folder / SCORES, Zoo.open(job.zoo, verify=False)
    if "test" not in zoo.splits:
        return None
    if path.exists():
        return _read_scores(path, zoo.count("test"))
    if not (job.folder / WEIGHTS).exists():
        return None
    model, device = kept_model(job, zoo).to(job.device), torch.device(job.device)
    objective = objective_of(job.entry, zoo) or Classification.for_zoo(zoo)
    found = scores_of_each(model, Part(zoo, "test", None, device, RESIDENT_BYTES), objective).cpu().contiguous()
    write_atomic(path, serialize({"score": found}))
    return found.numpy()


def _read_scores(path: Path, count: int) -> np.ndarray:
    wanted = f"{path}: expected the scores of {count} test networks"
    try:
        found = load_file(path)["score"].numpy()
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{wanted}, got {error}; remove it and give the command again") from error
    if found.shape != (count,):
        raise ValueError(f"{wanted}, got {list(found.shape)}; remove it and give the command again")
    return found


def finished(folder: Path) -> CellResult | None:
    """Return what an earlier run of a cell found, or None if it has not finished.

    Raises:
        ValueError: for a file that is cut or damaged, with its path.
    """
    path = folder / CELL
    if not path.exists():
        return None
    return _read(CellResult, path, "a finished cell", REMEDY)


def _read(kind: type[T], path: Path, what: str, remedy: str) -> T:
    data = read_json(path, what, finite=True, remedy=remedy)
    try:
        return read_as(kind, data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {remedy}") from error


def fits(transform: Transform | None, spec: NetSpec) -> bool:
    """Return whether a transform applies to a spec: positive scales belong to ReLU, phases to sines."""
    if transform is None:
        return True
    try:
        transform.check(spec)
    except ValueError:
        return False
    return True
