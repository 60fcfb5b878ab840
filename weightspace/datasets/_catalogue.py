"""The data sets known by name: how to get them, how to split them without leaks, their licence, whom to cite."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

from weightspace._version import __version__
from weightspace.datasets._data_set import DataSet, Signals
from weightspace.datasets._emoji import prepare_emoji
from weightspace.datasets._mesh_sets import Sampling
from weightspace.datasets._named import (
    CIFAR_CITATION,
    FASHION,
    digits,
    embedded,
    fashion_mnist,
    has_fashion,
    place_of,
    prepare_fashion,
)
from weightspace.datasets._packages import cache_dir, sha256
from weightspace.datasets._parts import prepare_furniture, prepare_kicad, prepare_modelnet40
from weightspace.signals._cifar import CLASSES as CIFAR_CLASSES
from weightspace.signals._cifar import batches, from_cifar10
from weightspace.signals._store import save

_SAMPLING = frozenset(field.name for field in fields(Sampling))


def prepare(
    name: str,
    *,
    out: str | PathLike[str] | None = None,
    source: str | PathLike[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Path:
    """Fetch a named data set by its package client and build it into one compressed file with a record beside it.

    The record (``.json``) holds the checksums of the file and of everything it was made of, the options, the counts and
    the seconds it took.

    Args:
        name: one of ``DATASETS``.
        out: the file to write, ``.npz``; the cache where None, from where ``load(name)`` takes it.
        source: folder to look for the packages (or the unpacked data) before anything is fetched, and to fetch into;
            ``downloads`` in the cache where None.
        on_progress: called with the number of signals done.
        options: the data set's own: ``size`` and ``tones`` (emoji); ``points``, ``signed``, ``shares``, ``std``, ``to``
            and ``seed`` (meshes, see :func:`from_meshes`); ``per_family``, the most parts of one family (kicad).

    Returns:
        the file, or the folder of a data set that is used as it comes.

    Raises:
        FileNotFoundError: if a package client, or the data set's folder, is not there.
        ImportError: if an extra is missing.
        OSError: if fetching fails.
        TypeError: for an option that the data set does not have.
        ValueError: for an unknown name, or one that needs no preparation.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.prepare("emoji", size=64)  # doctest: +SKIP
        PosixPath('/home/me/.cache/weightspace/emoji.npz')
    """
    entry = dataset(name)
    if unknown := sorted(set(options) - entry.options):
        raise TypeError(f"{name}: expected options among {sorted(entry.options) or 'none'}, got {unknown[0]!r}")
    folder = cache_dir() / "downloads" if source is None else Path(source)
    if source is not None and not folder.is_dir():
        raise FileNotFoundError(f"source: expected a folder, got {folder}")
    if entry.fetch is not None:
        if out is not None:
            raise ValueError(f"{name}: expected no out: it is used as it comes, from the cache; leave it out")
        return entry.fetch(folder)
    if entry.make is None:
        raise ValueError(f"{name}: nothing to prepare: {entry.obtain}")
    path = entry.path if out is None else Path(out)
    if path.suffix != ".npz":
        raise ValueError(f"out: expected a name that ends in .npz, got {path}")
    chosen = {**(entry.defaults or {}), **options}
    about = {"name": name, "licence": entry.licence, "citation": entry.citation}
    sampling = {option: value for option, value in chosen.items() if option in _SAMPLING}
    given = {option: value for option, value in chosen.items() if option not in _SAMPLING}
    if sampling:
        given["how"] = Sampling(**sampling)
    began = time.perf_counter()
    data, files = entry.make(folder, on_progress=on_progress, **given, **about)
    path.with_suffix(".json").unlink(missing_ok=True)  # a file without its record is not taken for complete
    save(path, data)
    _record(path, data, files, chosen, time.perf_counter() - began)
    return path


def _record(path: Path, data: Signals, files: list[Path], options: dict[str, Any], seconds: float) -> None:
    assert data.labels is not None
    classes = {
        kind: {part: int((data.labels[index] == i).sum()) for part, index in data.splits.items()}
        for i, kind in enumerate(data.classes)
    }
    record = {
        "name": data.name,
        "weightspace": __version__,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "options": options,
        "made_of": {file.name: sha256(file) for file in files},
        "signals": len(data),
        "groups": len(set(data.groups.tolist())),
        "splits": {part: len(index) for part, index in data.splits.items()},
        "classes": classes,
        "licence": data.licence,
        "citation": data.citation,
        "seconds": round(seconds, 1),
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def dataset(name: str) -> DataSet:
    """The entry of a data set.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set: expected one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name]


def _cifar10() -> Signals:
    return from_cifar10(place_of("cifar-10"))


_BY_FAMILY = (
    "by family: parts whose names differ in digits alone, or whose shapes are equal, lie on one side; "
    "7 : 1 : 2 of each class's families into train, val, test"
)
_OPEN_MESHES = {"options": _SAMPLING, "defaults": {"points": 4096, "signed": False}}

DATASETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            "embedded",
            "3,000 + 1,000 grey images of clothes, 28x28",
            10,
            "the data set's own: train, test",
            FASHION["licence"],
            FASHION["citation"],
            "it comes with the package",
            read=embedded,
            here=lambda: True,
        ),
        DataSet(
            "fashion-mnist",
            "60,000 + 10,000 grey images of clothes, 28x28",
            10,
            "its own: train, test",
            FASHION["licence"],
            FASHION["citation"],
            "Debian's package dataset-fashion-mnist, installed or prepared; or the four IDX files in "
            "$WEIGHTSPACE_DATA/fashion-mnist",
            read=fashion_mnist,
            here=has_fashion,
            fetch=prepare_fashion,
        ),
        DataSet(
            "digits",
            "1,797 grey images of handwritten digits, 8x8",
            10,
            "by image: 4 : 1 into train, test (who wrote which is not known)",
            "CC BY 4.0 (UCI Machine Learning Repository)",
            "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
            "it comes with scikit-learn: pip install weightspace[digits]",
            read=digits,
            here=lambda: find_spec("sklearn") is not None,
        ),
        DataSet(
            "cifar-10",
            "50,000 + 10,000 colour images, 32x32",
            len(CIFAR_CLASSES),
            "its own: train, test",
            "none stated by its authors",
            CIFAR_CITATION,
            "fetch it from its authors and unpack it into $WEIGHTSPACE_DATA/cifar-10",
            read=_cifar10,
            here=lambda: bool(batches(place_of("cifar-10"))),
        ),
        DataSet(
            "emoji",
            "colour drawings of emoji by eight vendors, on white, 32x32",
            9,
            "by concept: all drawings, vendors, tones and genders of one code point sequence, and concepts that "
            "a vendor draws alike, lie on one side; 7 : 1 : 2 of each class's concepts into train, val, test",
            "by vendor: Twemoji and Emoji One CC BY 4.0, Noto Apache 2.0, OpenMoji and Emoji One v1 CC BY-SA 4.0, "
            "Fluent MIT; labels: Unicode licence",
            "Twemoji (Twitter and contributors), Noto Emoji (Google), OpenMoji (HfG Schwäbisch Gmünd), Emoji One, "
            "Fluent Emoji (Microsoft), as packaged by Iconify (@iconify-json); labels: Unicode, UTS 51, emoji-test.txt",
            "eight npm packages and Debian's unicode-data; extra emoji",
            options=frozenset({"size", "tones"}),
            make=prepare_emoji,
            defaults={"size": 32, "tones": False},
        ),
        DataSet(
            "kicad",
            "signed distances of electronic parts, at most 16 of a family",
            28,
            _BY_FAMILY,
            "CC BY-SA 4.0 with KiCad's exception; a few parts GPL 2 or 3 or later",
            "KiCad Library Team and contributors, KiCad packages3D, version 6.0",
            "Debian's package kicad-packages3d (379 MB, nothing is unpacked); extra mesh",
            make=prepare_kicad,
            options=_SAMPLING | {"per_family"},
            defaults={"points": 4096, "signed": True, "per_family": 16},
        ),
        DataSet(
            "furniture",
            "unsigned distances of furniture, many of the surfaces open",
            11,
            _BY_FAMILY.replace("parts", "models of one category"),
            "by library: CC0, CC BY 3.0",
            "Sweet Home 3D (eTeks) and contributors: Blend Swap, Kator Legaz, Reallusion, Scopia; "
            "Sweet Home 3D furniture libraries 1.8",
            "Debian's package sweethome3d-furniture (120 MB); extra mesh",
            make=prepare_furniture,
            **_OPEN_MESHES,
        ),
        DataSet(
            "modelnet40",
            "unsigned distances of household objects, many of the surfaces open",
            40,
            "its own: train, test",
            "for academic use; the models belong to their authors",
            "Wu, Song, Khosla, Yu, Zhang, Tang and Xiao, 3D ShapeNets: A Deep Representation for Volumetric Shapes, "
            "CVPR 2015",
            "fetch ModelNet40.zip from its authors, unpack it, and name the folder with --source; extra mesh",
            make=prepare_modelnet40,
            **_OPEN_MESHES,
        ),
    )
}
"""The named data sets."""
