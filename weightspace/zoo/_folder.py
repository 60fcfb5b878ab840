"""A plain folder of files of weights, without a listing: its files, splits by rule, labels by folder or by a table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightspace._split import hashed
from weightspace._text import few
from weightspace.zoo._csv import read_csv

SUFFIXES = (".pth", ".pt", ".safetensors", ".npz", ".ckpt", ".bin")
"""Endings of files that an import reads."""
SPLITS = ("train", "val", "test")
TEST, VAL = 0.2, 0.1
_FILE = ("file", "path", "name")


def plain_listing(
    folder: Path, labels: str | Path | None, keys: Sequence[Hashable] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """List the files of a folder as a ``splits.json`` would, and the names of their classes.

    Folders named train, val and test are the splits. Without them a hash of each file's signal draws 70 : 10 : 20, so
    that further files move no other.

    Args:
        folder: the folder; files are looked for at any depth.
        labels: ``"folder"``: the folder that a file lies in is its class; a ``.csv`` file with the columns "file" and
            "label", and any further ones; ``"none"`` or ``None`` for no labels.
        keys: the signal of each file, sorted by path; by default every file's own.

    Raises:
        ValueError: for a folder without such files, and labels that miss some of them.
    """
    files = weight_files(folder)
    if not files:
        raise ValueError(
            f"{folder}: expected a splits.json, or files that end in {', '.join(SUFFIXES)}, got neither; name the "
            "listing with splits="
        )
    paths = [file.relative_to(folder).as_posix() for file in files]
    parts = [next((part for part in Path(path).parts[:-1] if part in SPLITS), "") for path in paths]
    if any(parts) and not all(parts):
        raise ValueError(f"{folder}: expected every file in one of {SPLITS}, got {paths[parts.index('')]!r} in none")
    places = parts if all(parts) else _drawn(paths if keys is None else [repr(key) for key in keys])
    columns, classes = _labels(folder, paths, labels)
    table = dict[str, Any]()
    for split in (split for split in SPLITS if split in places):
        rows = [row for row, place in enumerate(places) if place == split]
        table[split] = {name: [values[row] for row in rows] for name, values in {"path": paths, **columns}.items()}
    return table, classes


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights in a folder, at any depth, sorted; hidden ones and listings do not count."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted(file for file in found if not any(p.startswith(".") for p in file.relative_to(folder).parts))


def _drawn(names: Sequence[str]) -> list[str]:
    """Draw a split for each name, by a hash of it; the first of the training split if all fell to others."""
    from hashlib import blake2b

    numbers = [int.from_bytes(blake2b(n.encode(errors="replace"), digest_size=8).digest(), "big") >> 11 for n in names]
    shares = hashed(np.array(numbers, dtype=np.int64), 0)
    places = ["test" if share < TEST else "val" if share < TEST + VAL else "train" for share in shares]
    if "train" not in places:
        places = ["train" if name == names[0] else place for name, place in zip(names, places, strict=True)]
    return places


def _labels(folder: Path, paths: Sequence[str], labels: str | Path | None) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the lists beside the paths, and the names of the classes."""
    if labels is None or str(labels) == "none":
        return {}, []
    if str(labels) == "folder":
        owners = [next((p for p in reversed(Path(path).parts[:-1]) if p not in SPLITS), "") for path in paths]
        if "" in owners:
            raise ValueError(f"{folder}: expected every file in a folder of its class, got {paths[owners.index('')]!r}")
        names = sorted(set(owners))
        return {"label": [names.index(owner) for owner in owners]}, names
    if Path(labels).suffix.lower() != ".csv":
        raise ValueError(f"labels: expected 'folder', 'none' or a .csv file, got {str(labels)!r}")
    return _from_table(Path(labels), paths)


def _from_table(file: Path, paths: Sequence[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """Read labels and further columns from a CSV file with a row a network."""
    rows = read_csv(file)
    key = next((name for name in _FILE if name in rows[0]), None)
    if key is None or "label" not in rows[0]:
        raise ValueError(f"{file}: expected the columns 'file' and 'label', got {few(rows[0])}")
    known = dict[str, Mapping[str, str]]()
    for row in rows:
        if row[key] in known:
            raise ValueError(f"{file}: expected every file once, got {row[key]!r:.200} twice")
        known[row[key]] = row
    found = [known.get(path) or known.get(Path(path).name) or known.get(Path(path).stem) for path in paths]
    if missing := [path for path, row in zip(paths, found, strict=True) if row is None]:
        raise ValueError(f"{file}: expected a row for every file, got none for {len(missing)}: {few(missing, 3)}")
    columns = {name: [row[name] for row in found if row is not None] for name in rows[0] if name != key}
    out = {name: [_number(value) for value in values] for name, values in columns.items()}
    out = {n: out[n] if all(not isinstance(v, str) for v in out[n]) else columns[n] for n in columns}
    if not any(isinstance(value, str) for value in out["label"]):
        return out, []
    names = sorted(set(columns["label"]))
    return {**out, "label": [names.index(value) for value in columns["label"]]}, names


def _number(text: str) -> int | float | str | None:
    """Return a number where a text is one, ``None`` where it is empty."""
    if not text.strip():
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
