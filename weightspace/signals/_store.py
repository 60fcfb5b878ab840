"""Signal sets in one compressed file: writing and reading."""

from __future__ import annotations

import dataclasses
import io
import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from weightspace._files import parse_json, write_atomic
from weightspace.signals._arrays import class_names
from weightspace.signals._coordinates import series
from weightspace.signals._npz import read_arrays
from weightspace.signals._point_set import PointSet
from weightspace.signals._sets import ImageSet, SignalSet

FORMAT = "weightspace-signals-1"
_FACTS = ("name", "licence", "citation", "classes")
_COLUMNS = ("labels", "sources", "groups")
_KINDS: dict[str, type[ImageSet] | type[PointSet]] = {"images": ImageSet, "points": PointSet}


def save(path: str | PathLike[str], data: SignalSet) -> None:
    """Write a signal set into one ``.npz`` file, which :func:`weightspace.datasets.load` reads.

    After a crash at any moment the file is the old one or the new one, whole.

    Args:
        path: the file; its suffix must be ``.npz``.
        data: images or points.

    Raises:
        OSError: if the disk is full or the folder cannot be written to.
        TypeError: for data that are neither an ``ImageSet`` nor a ``PointSet``.
        ValueError: for another suffix.

    Example:
        >>> import pathlib, tempfile
        >>> import torch
        >>> import weightspace as ws
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "waves.npz"
        >>> coords, targets = ws.signals.series(torch.rand(10, 64))
        >>> ws.signals.save(path, ws.signals.PointSet(coords, targets, name="waves").with_split(0.5))
        >>> ws.datasets.load(path).name
        'waves'
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a name that ends in .npz, got {path.suffix or 'none'}")
    kind = next((name for name, of in _KINDS.items() if isinstance(data, of)), None)
    if kind is None:
        raise TypeError(f"data: expected an ImageSet or a PointSet, got {type(data).__name__}")
    about = {
        "format": FORMAT,
        "kind": kind,
        "classes": data.classes,
        "name": data.name,
        "licence": data.licence,
        "citation": data.citation,
    }
    arrays: dict[str, Any] = {"about": np.array(json.dumps(about)), "sources": data.sources, **data.arrays()}
    if isinstance(data, PointSet):
        arrays["coords"] = data.coords
    if data.labels is not None:
        arrays["labels"] = data.labels
    if data.names is not None:
        arrays["names"] = data.names
    if data.groups is not data.sources:
        arrays["groups"] = data.groups
    arrays |= {f"split_{name}": index for name, index in data.splits.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def points_from_npz(path: Path) -> PointSet:
    """Read a set from the arrays ``coords`` and ``targets``, or ``series``, with optional labels, sources and groups.

    Raises:
        ValueError: if the file is damaged, holds objects, or its arrays do not go together.
    """
    arrays: dict[str, Any] = dict(read_arrays(path, ("coords", "targets", "series", *_COLUMNS)))
    given: dict[str, Any] = {name: arrays[name] for name in _COLUMNS if name in arrays}
    names = class_names(given.get("labels"), path)
    try:
        if "series" in arrays:
            arrays["coords"], arrays["targets"] = series(arrays["series"])
        return PointSet(arrays["coords"], arrays["targets"], classes=names, name=path.stem, **given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_saved(path: Path) -> ImageSet | PointSet:
    """Read a signal set from a file of :func:`save`.

    Raises:
        ValueError: if the file is damaged or of another format.
    """
    arrays = read_arrays(path)
    about = _about(path, arrays.pop("about", None))
    splits = {name.removeprefix("split_"): arrays.pop(name) for name in [*arrays] if name.startswith("split_")}
    kind = _KINDS[about["kind"]]
    known = {field.name for field in dataclasses.fields(kind)} - {"splits", *_FACTS}
    if odd := [name for name in arrays if name not in known]:
        raise ValueError(f"{path}: expected the arrays {sorted(known)}, got {odd[:5]!r:.200}; make it again")
    try:
        facts = {name: about[name] for name in _FACTS}
        return kind(**arrays, splits=splits, **{**facts, "classes": tuple(about["classes"])})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; make it again") from error


def _about(path: Path, found: np.ndarray | None) -> dict[str, Any]:
    """Read the description of a set: its format, its kind and its facts.

    Raises:
        ValueError: for another format, or a description that lacks something.
    """
    try:
        about = parse_json(str(found).encode(errors="replace")) if found is not None and found.ndim == 0 else None
    except ValueError as error:
        raise ValueError(f"{path}: expected a file of signals.save, got: {error}; make it again") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT or about.get("kind") not in tuple(_KINDS):
        got = about.get("format") if isinstance(about, dict) else about
        raise ValueError(f"{path}: expected the format {FORMAT}, got {got!r:.80}; make it again with this version")
    names = about.get("classes")
    texts = [about.get(name) for name in _FACTS if name != "classes"] + (names if isinstance(names, list) else [None])
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path}: expected {', '.join(_FACTS)} as texts, got others; make it again")
    return about
