"""Point sets made of many meshes: class folders such as ModelNet40's, and the base of the named sets of meshes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from weightspace._checks import number, whole_number
from weightspace.datasets._mesh import SHARES, STD, Mesh, check_shape, share_out
from weightspace.datasets._mesh_files import SUFFIXES, read_mesh
from weightspace.signals._groups import group_numbers, shuffled, split_groups, stable_numbers
from weightspace.signals._point_set import PointSet

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sampling:
    """Options of sampling meshes: the points, and the distances there.

    Args:
        points: points of each mesh.
        signed: whether distances inside are negative.
        shares: shares of the points on the surface, near it, and uniform in [-1, 1]³.
        std: standard deviation of the points near the surface.
        to: ``"box"`` or ``"sphere"``, the shape that every mesh is scaled to fit.
        seed: seed of the points; those of a mesh derive from it and the mesh's path alone.

    Raises:
        ValueError: for a value out of range.
    """

    points: int = 4096
    signed: bool = True
    shares: tuple[float, float, float] = SHARES
    std: float = STD
    to: Literal["box", "sphere"] = "box"
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("points", self.points)
        whole_number("seed", self.seed, least=0)
        share_out(self.points, self.shares)
        number("std", self.std, "a number of at least 0", low=0)
        check_shape(self.to)


UNSIGNED = Sampling(signed=False)
"""The default options for surfaces that enclose nothing."""


@dataclass(frozen=True)
class Model:
    """A mesh of a data set, its class, and its family, which no split may divide."""

    mesh: Mesh
    path: str
    label: str
    family: str
    split: str = ""


def sampled(mesh: Mesh, source: int, how: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Sample ``coords [point, 3]`` in float16 and compute the exact distances there, ``[point, 1]`` in float32.

    The points are rounded before the distances are computed, so that half the memory costs no accuracy.
    """
    state = np.random.SeedSequence([how.seed, source]).generate_state(2, np.uint32)
    generator = torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))
    scaled = mesh.normalized(how.to)
    coords = scaled.sample(how.points, shares=how.shares, std=how.std, generator=generator).half()
    return coords.numpy(), scaled.distance(coords.double(), signed=how.signed)[:, None].numpy()


def shape_key(mesh: Mesh) -> str:
    """Hash a shape, to a thousandth of its longest side, regardless of its place, its size and the vertices' order."""
    x, y, z = np.rint(500 * mesh.normalized(size=1.0).used).astype(np.int64).T  # -500 to 500
    return hashlib.blake2b(np.unique((1001 * x + y) * 1001 + z).tobytes(), digest_size=16).hexdigest()


def build(
    models: Iterable[Model],
    how: Sampling,
    *,
    least_families: int = 1,
    on_progress: Callable[[int], None] | None = None,
    **facts: Any,
) -> PointSet:
    """Sample models one after another; families form the groups, and equal shapes join them.

    Args:
        models: an iterator, so that the meshes of a large data set need no memory.
        how: the options of sampling.
        least_families: the least number of groups of a class; smaller classes are left out.
        on_progress: a function that is called after each model with the number of finished ones.
        facts: name, licence and citation.

    Raises:
        ValueError: if there are no models.
    """
    rows, coords, targets = [], [], []
    for model in models:
        source = int(stable_numbers([model.path])[0])
        try:
            x, y = sampled(model.mesh, source, how)
        except ValueError as error:
            raise ValueError(f"{model.path}: {error}") from error
        coords.append(x)
        targets.append(y)
        rows.append((model.path, model.label, model.family, model.split, shape_key(model.mesh)))
        if on_progress is not None:
            on_progress(len(rows))
    if not rows:
        raise ValueError(f"{facts.get('name', 'meshes')}: expected at least one mesh, got none")
    paths, kinds, families, parts, shapes = (list(column) for column in zip(*rows, strict=True))
    groups = group_numbers(families, shapes)
    chosen = _of_large_classes(kinds, groups, least_families)
    classes = sorted({kinds[i] for i in chosen})
    labels = np.array([classes.index(kinds[i]) for i in chosen])
    splits = {part: [n for n, i in enumerate(chosen) if parts[i] == part] for part in _SPLITS if part in parts}
    sources = stable_numbers([paths[i] for i in chosen])
    return PointSet(
        coords=np.stack([coords[i] for i in chosen]),
        targets=np.stack([targets[i] for i in chosen]),
        labels=labels,
        sources=sources,
        groups=None if splits else groups[chosen],
        splits=shuffled(splits or split_groups(groups[chosen], labels), sources),
        classes=tuple(classes),
        names=[paths[i] for i in chosen],
        **facts,
    )


def _of_large_classes(kinds: Sequence[str], groups: np.ndarray, least: int) -> list[int]:
    """Select the rows whose class has at least ``least`` groups."""
    members: dict[str, set[int]] = {}
    for kind, group in zip(kinds, groups.tolist(), strict=True):
        members.setdefault(kind, set()).add(group)
    chosen = [i for i, kind in enumerate(kinds) if len(members[kind]) >= least]
    if not chosen:
        raise ValueError(f"expected a class with at least {least} families, got none of {len(members)} classes")
    return chosen


def mesh_files(folder: Path) -> list[tuple[str, str, Path]]:
    """List split, class and path of every mesh below ``CLASS/SPLIT``, ``SPLIT/CLASS`` or ``CLASS``, sorted by path."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        above = path.relative_to(folder).parts[:-1]
        part = next((name for name in above if name in _SPLITS), "")
        kind = next((name for name in above if name not in _SPLITS), "")
        if kind and not any(name.startswith(".") for name in above):
            found.append((part, kind, path))
    return found


def from_meshes(
    folder: str | PathLike[str],
    *,
    points: int = 4096,
    signed: bool = True,
    shares: Sequence[float] = SHARES,
    std: float = STD,
    to: Literal["box", "sphere"] = "box",
    seed: int = 0,
    numbered_families: bool = False,
    on_progress: Callable[[int], None] | None = None,
    **facts: Any,
) -> PointSet:
    """Read class folders of meshes, such as ModelNet40's, as points and distances.

    The folders may be ``CLASS/train/*.off`` (ModelNet40), ``train/CLASS/*`` or ``CLASS/*``; the files ``.off``,
    ``.obj``, ``.ply``, ``.stl`` or ``.wrl``. If folders name splits, these are the splits. Otherwise files of one shape
    form a group, with ``numbered_families`` also files whose names differ in digits alone (``bolt_m3``, ``bolt_m4``),
    and "train", "val" and "test" consist of whole groups. The source of a mesh is a hash of its path below the folder.

    Args:
        folder: the folder of class folders.
        points: points of each mesh.
        signed: whether distances inside are negative; False for surfaces that enclose nothing, such as ModelNet40's.
        shares: shares of the points on the surface, near it, and uniform in [-1, 1]³; see :meth:`Mesh.sample`.
        std: standard deviation of the points near the surface.
        to: every mesh is scaled to fit a ``"box"`` of half side 0.9, or a ``"sphere"`` of radius 0.9.
        seed: seed of the points; those of a mesh derive from it and the mesh's source alone.
        numbered_families: whether names that differ in digits alone are of one family, as sizes of one part are.
        on_progress: a function that is called after each mesh with the number of finished ones.
        facts: ``name``, ``licence`` and ``citation`` of the set.

    Returns:
        ``coords [mesh, point, 3]`` in float16 and the exact distances at these points ``[mesh, point, 1]`` in float32.

    Raises:
        FileNotFoundError: if there is no such folder.
        ImportError: if libigl, or trimesh for formats that need it, is not installed (extra ``mesh``).
        ValueError: for a folder without meshes in class folders, or a malformed mesh.

    Example:
        >>> import pathlib, tempfile
        >>> import weightspace as ws
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("chair/train", "chair/test"):
        ...     (folder / name).mkdir(parents=True)
        ...     _ = (folder / name / "1.off").write_text("OFF\\n3 1 0\\n0 0 0\\n1 0 0\\n0 1 0\\n3 0 1 2\\n")
        >>> ws.datasets.from_meshes(folder, points=100, signed=False, name="chairs")
        PointSet('chairs', 2 signals of 100 points, 3 -> 1, train 1, test 1)

    Reference:
        ModelNet40: Wu et al., *3D ShapeNets*, CVPR 2015.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of class folders of meshes, got none")
    files = mesh_files(folder)
    if not files:
        raise ValueError(
            f"{folder}: expected class folders of meshes ({', '.join(SUFFIXES)}), got none; "
            "put the meshes of each class into a folder of its name"
        )
    on, near, free = shares
    how = Sampling(points, signed, (on, near, free), std, to, seed)
    named = {"name": folder.resolve().name, **facts}

    def family(kind: str, path: Path) -> str:
        own = path.relative_to(folder).as_posix()
        return f"{kind}/{without_digits(path.stem)}" if numbered_families else own

    models = (
        Model(read_mesh(path), path.relative_to(folder).as_posix(), kind, family(kind, path), part)
        for part, kind, path in files
    )
    return build(models, how, on_progress=on_progress, **named)


def without_digits(name: str) -> str:
    """Strip a file's name of its digits, which gives the name of its family."""
    return "".join(c for c in name if not c.isdigit())
