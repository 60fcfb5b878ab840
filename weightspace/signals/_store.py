"""Signal sets in one compressed file: writing and reading."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from weightspace._files import write_atomic
from weightspace.signals._coordinates import series
from weightspace.signals._point_set import PointSet
from weightspace.signals._sets import ImageSet, SignalSet

FORMAT = "weightspace-signals-1"
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
    if data.groups is not data.sources:
        arrays["groups"] = data.groups
    arrays |= {f"split_{name}": index for name, index in data.splits.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def names_in(path: Path) -> set[str]:
    """List the names of the arrays in an ``.npz`` file; return none if the file is of another kind."""
    try:
        with zipfile.ZipFile(path) as file:
            return {name.removesuffix(".npy") for name in file.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def points_from_npz(path: Path) -> PointSet:
    """Read a set from the arrays ``coords`` and ``targets``, or ``series``, with optional labels, sources and groups.

    Raises:
        ValueError: if the file is damaged, holds objects, or its arrays do not go together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: expected an .npz file of plain arrays (no objects), got {error}") from error
    if "series" in arrays:
        arrays["coords"], arrays["targets"] = series(arrays["series"])
    given = {name: arrays[name] for name in ("labels", "sources", "groups") if name in arrays}
    labels = given.get("labels")
    top = int(labels.max()) + 1 if labels is not None and labels.dtype.kind in "iu" and labels.size else 0
    try:
        return PointSet(
            arrays["coords"], arrays["targets"], classes=tuple(map(str, range(top))), name=path.stem, **given
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_saved(path: Path) -> ImageSet | PointSet:
    """Read a signal set from a file of :func:`save`.

    Raises:
        ValueError: if the file is damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in file.files if name != "about"}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: expected a file of signals.save, got: {error}; make it again") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT or about.get("kind") not in _KINDS:
        got = about.get("format") if isinstance(about, dict) else about
        raise ValueError(f"{path}: expected the format {FORMAT}, got {got!r}; make it again with this version")
    splits = {name.removeprefix("split_"): arrays.pop(name) for name in [*arrays] if name.startswith("split_")}
    facts = {name: about[name] for name in ("name", "licence", "citation")}
    return _KINDS[about["kind"]](**arrays, splits=splits, classes=tuple(about["classes"]), **facts)
