"""Collect the facts behind a table (the zoo, the budget and the machine) as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from weightspace.bench._record import Result
from weightspace.report._tables import DASH, ModelTable, number

INIT_NOTES = {
    "independent": "every network started from its own random initialisation",
    "shared": "all networks started from one initialisation: far easier, never compare with independent inits",
    "unknown": "not recorded: compare with no other table before you know it",
}
_DATA_NAMES = ("dataset", "data", "name", "source")
_MARKS = ("mean", "q05", "median", "q95", "min", "max")


@dataclass(frozen=True)
class SplitFacts:
    """The number of networks and signals of one split of the zoo, and their PSNR in dB by name of the statistic."""

    name: str
    count: str
    sources: str
    psnr: dict[str, str]


@dataclass(frozen=True)
class Facts:
    """The facts that accompany a table, as pairs of a term and its value."""

    data: str
    regime: str
    regime_note: str
    network: str
    splits: tuple[SplitFacts, ...]
    zoo: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    recipe: tuple[tuple[str, str], ...]
    budget: tuple[tuple[str, str], ...]
    machine: tuple[tuple[str, str], ...]


def facts(result: Result, tables: list[ModelTable]) -> Facts:
    """Collect the facts of a result; what it does not record is left out or shown as a dash."""
    zoo, train = result.zoo, result.train
    provenance = _mapping(zoo.get("provenance"))
    data = next((str(provenance[key]) for key in _DATA_NAMES if provenance.get(key)), "not recorded")
    regime = str(zoo.get("init_regime") or "unknown")
    budget = {key: value for key, value in train.items() if key not in ("seed", "epochs", "batch_size")}
    return Facts(
        data=data,
        regime=regime,
        regime_note=INIT_NOTES.get(regime, INIT_NOTES["unknown"]),
        network=str(zoo.get("spec") or DASH).strip("<>"),
        splits=tuple(_split(name, value) for name, value in _mapping(zoo.get("splits")).items()),
        zoo=tuple(_zoo_lines(zoo)),
        provenance=tuple((key, plain(value)) for key, value in provenance.items() if str(value) != data),
        recipe=tuple((key, plain(value)) for key, value in _mapping(zoo.get("recipe")).items()),
        budget=(
            ("epochs", plain(train.get("epochs"))),
            ("batch size", plain(train.get("batch_size"))),
            *((key.replace("_", " "), plain(value)) for key, value in budget.items()),
        ),
        machine=tuple(_machine(result, tables)),
    )


def _zoo_lines(zoo: Mapping[str, Any]) -> list[tuple[str, str]]:
    classes = zoo.get("classes")
    classes = classes if isinstance(classes, list) else []
    lines = [("zoo", PurePath(str(zoo.get("path") or DASH)).name), ("views of each signal", plain(zoo.get("views")))]
    if classes:
        lines.append(("classes", f"{len(classes)}: {', '.join(map(str, classes))}"))
    return [*lines, ("seed of the fits", plain(zoo.get("seed")))]


def _split(name: str, value: Any) -> SplitFacts:
    value = _mapping(value)
    psnr = _mapping(value.get("psnr"))
    known = {mark: number(psnr.get(mark)) for mark in _MARKS}
    shown = {mark: DASH if level is None else f"{level:.1f}" for mark, level in known.items()}
    return SplitFacts(name, plain(value.get("count")), plain(value.get("sources")), shown)


def _machine(result: Result, tables: list[ModelTable]) -> list[tuple[str, str]]:
    hardware = result.hardware
    seeds = sorted({seed for table in tables for row in table.rows for seed in row.seeds})
    version = "" if result.suite_version is None else f" (version {result.suite_version} of the suite)"
    cores = f"{plain(hardware.get('cores'))} cores, {plain(hardware.get('threads'))} thread a process"
    return [
        ("command", f"weightspace bench {result.suite or ''}{version}"),
        ("processor", plain(hardware.get("processor"))),
        ("used", f"{cores}, {plain(result.workers)} processes at a time"),
        ("GPU", plain(hardware.get("gpu") or "none")),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items()) or DASH),
        ("commit", ", ".join(result.commits) or result.commit or "not in a checkout"),
        ("created", plain(result.created)),
        ("seeds", ", ".join(map(str, seeds)) or DASH),
    ]


def plain(value: Any) -> str:
    """Write a value in a few characters: thousands grouped, floats short, nested values as ``key value`` lists.

    Example:
        >>> plain(4000), plain(5e-4), plain(None), plain({"steps": 200, "lr": 0.002})
        ('4,000', '0.0005', '–', 'steps 200, lr 0.002')
    """
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 1000 else str(value)
    if isinstance(value, float):
        return DASH if number(value) is None else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(own)}" for key, own in value.items()) or DASH
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or DASH
    return str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
