"""A data set by its name or its path, as a person types it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from weightspace.datasets._catalogue import DATASETS
from weightspace.datasets._mesh_sets import from_meshes, mesh_files
from weightspace.signals._cifar import batches, from_cifar10
from weightspace.signals._idx import from_idx, has_idx
from weightspace.signals._read import from_folder, from_npz, has_pictures
from weightspace.signals._sets import ImageSet, PointSet
from weightspace.signals._store import names_in, points_from_npz, read_saved

_KNOWN = (
    f"expected one of {', '.join(DATASETS)}, or a path: an .npz file, or a folder of IDX files (MNIST family), "
    "of CIFAR-10 batches, or of class folders of PNG/JPEG images or of meshes"
)


def load(name_or_path: str | PathLike[str], *, size: int | tuple[int, int] | None = None) -> ImageSet | PointSet:
    """A data set by its name, or by a path whose kind is told from what lies there.

    A data set that comes without splits gets ``"train"`` and ``"test"``, four to one, by group.

    Args:
        name_or_path: a name in ``DATASETS`` (``"embedded"``, ``"emoji"``, ``"kicad"``, ...), an ``.npz`` file (of
            images, see ``from_npz``; of ``coords`` and ``targets``; of ``series``; or one that ``save`` wrote), or a
            folder of IDX files, of CIFAR-10 batches, or of class folders of images or meshes.
        size: for class folders of images, the size to bring every image to.

    Returns:
        images, or points with values; both have ``signals``, labels, sources and splits, see :class:`SignalSet`.

    Raises:
        FileNotFoundError: if the named data set is not on this machine.
        ImportError: for ``"digits"`` without scikit-learn, or for meshes without libigl.
        ValueError: if nothing of a known kind is there, what is there is malformed, or ``size`` is given for
            anything but class folders of images.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.load("embedded").split("test").name
        'fashion-mnist-4000'
    """
    data = _read(name_or_path, size)
    return data if data.splits else data.with_split()


def _read(name_or_path: str | PathLike[str], size: int | tuple[int, int] | None) -> ImageSet | PointSet:
    path = Path(name_or_path)
    named = DATASETS.get(str(name_or_path))
    if named is None and path.is_dir() and not has_idx(path) and not batches(path) and has_pictures(path):
        return from_folder(path, size)
    if size is not None:
        raise ValueError(f"size: expected it for class folders of images alone, got {name_or_path}; leave it out")
    if named is not None:
        return named.load()
    if path.is_file() and path.suffix == ".npz":
        names = names_in(path)
        if "about" in names:
            return read_saved(path)
        return points_from_npz(path) if names & {"series"} or names >= {"coords", "targets"} else from_npz(path)
    if path.is_dir() and has_idx(path):
        return from_idx(path)
    if path.is_dir() and batches(path):
        return from_cifar10(path)
    if path.is_dir() and mesh_files(path):
        return from_meshes(path)
    got = "nothing there" if not path.exists() else "a folder of none of these" if path.is_dir() else "another file"
    raise ValueError(f"{name_or_path}: {_KNOWN}; got {got}")
