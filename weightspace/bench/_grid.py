"""Check that a folder of results holds one version of one suite, on one zoo, with one budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weightspace._files import read_json
from weightspace.bench._json import read_as, write_json
from weightspace.bench._suite import Entry, Suite
from weightspace.training import TrainConfig
from weightspace.transforms import Transform
from weightspace.zoo import Zoo

GRID_FORMAT = 2
REMEDY = "use another folder or remove it"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The settings on which the finished cells of a folder depend.

    Args:
        suite: name of the suite.
        version: of the suite.
        zoo: the beginnings of the hashes of the zoo's shards.
        budget: the suite's training configuration.
        models: settings of the entries that have run, by name.
        rows: transforms of the rows that have run, as text, by name.
        format: of this file.
    """

    suite: str
    version: int
    zoo: str
    budget: dict[str, Any]
    models: dict[str, Any]
    rows: dict[str, str]
    format: int = GRID_FORMAT


def check_grid(suite: Suite, transforms: Mapping[tuple[str, str], Transform | None], zoo: Zoo, out: Path) -> None:
    """Record the settings of a grid in ``out/grid.json``; models and augmentations may be added later, none changed.

    Raises:
        ValueError: if the folder holds results of something else, or a damaged file.
    """
    now = Grid(
        suite=suite.name,
        version=suite.version,
        zoo=",".join(str(shard.sha256)[:8] for shard in zoo.shards),
        budget=asdict(suite.train),
        models={name: _fixed(entry) for name, entry in suite.entries.items()},
        rows={f"{entry}-{name}": repr(transform) for (entry, name), transform in transforms.items()},
    )
    path = out / "grid.json"
    if path.exists():
        was = _read(path)
        _same(now, was, out)
        now = Grid(**{**asdict(now), "models": {**was.models, **now.models}, "rows": {**was.rows, **now.rows}})
    write_json(path, asdict(now))


def _read(path: Path) -> Grid:
    data = read_json(path, "the settings of a grid", finite=True, remedy=REMEDY)
    found = data.get("format", 1) if isinstance(data, Mapping) else None
    if found != GRID_FORMAT:
        raise ValueError(
            f"{path}: expected a grid of format {GRID_FORMAT}, got {found!r} (1 is of weightspace 0.1.0, whose "
            f"result.json can still be reported); {REMEDY}"
        )
    try:
        return read_as(Grid, data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {REMEDY}") from error


def _same(now: Grid, was: Grid, out: Path) -> None:
    shared: list[tuple[str, Any, Any]] = [
        ("suite", now.suite, was.suite),
        ("version of the suite", now.version, was.version),
        ("zoo", now.zoo, was.zoo),
        ("budget", now.budget, TrainConfig.filled(was.budget)),
        *(("model", {name: own}, {name: was.models[name]}) for name, own in now.models.items() if name in was.models),
        *(("augmentation", {key: own}, {key: was.rows[key]}) for key, own in now.rows.items() if key in was.rows),
    ]
    for name, expected, got in shared:
        if expected != got:
            raise ValueError(f"{out} holds results of another {name}: expected {expected}, got {got}; {REMEDY}")


def _fixed(entry: Entry) -> dict[str, Any]:
    """Return the settings of an entry on which its cells depend, as they are after a round trip through JSON."""
    settings = {
        "model": entry.model,
        "options": dict(entry.options),
        "train": dict(entry.train),
        "outputs": entry.outputs,
        "objective": None if entry.objective is None else repr(entry.objective),
        "evaluations": {name: repr(evaluation) for name, evaluation in entry.evaluations.items()},
    }
    return json.loads(json.dumps(settings, default=str))
