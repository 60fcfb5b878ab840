"""Loading a data set by its name, its import path or its path on the disk."""

from __future__ import annotations

from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path

from weightspace.datasets._catalogue import DATASETS, find
from weightspace.datasets._data_set import DataSet
from weightspace.datasets._mesh_sets import from_meshes, mesh_files
from weightspace.signals import ImageSet, PointSet
from weightspace.signals._cifar import batches, from_cifar10
from weightspace.signals._idx import from_idx, has_idx
from weightspace.signals._npz import array_names
from weightspace.signals._read import from_folder, from_npz, has_pictures
from weightspace.signals._store import points_from_npz, read_saved

_KNOWN = (
    f"expected one of {', '.join(DATASETS)}, an import path such as my_package.data:SHAPES, or a path: an .npz file, "
    "or a folder of IDX files (MNIST family), of CIFAR-10 batches, of pictures, or of class folders of these or meshes"
)


def load(name_or_path: str | PathLike[str], *, size: int | tuple[int, int] | None = None) -> ImageSet | PointSet:
    """Load a data set by its name, or by a path; the content of the path decides how it is read.

    A data set without splits gets ``"train"`` and ``"test"``, four to one, in whole groups.

    Args:
        name_or_path: a name in ``DATASETS``, an import path such as ``my_package.data:SHAPES`` of a :class:`DataSet`,
            the name of an entry point of the group ``weightspace.datasets``, or a path: an ``.npz`` file (of images,
            see ``from_npz``; of ``coords`` and ``targets``; of ``series``; or one that
            :func:`weightspace.signals.save` wrote), a picture, or a folder of IDX files, of CIFAR-10 batches, of
            pictures, or of class folders of pictures or meshes.
        size: for files of pictures, the size to which every one is resized, in pixels.

    Returns:
        Images, or points with values; both are a :class:`weightspace.signals.SignalSet`.

    Raises:
        FileNotFoundError: if the named data set is not on this machine.
        ImportError: for ``"digits"`` without scikit-learn, or for meshes without libigl.
        ValueError: if the name or path is unknown, its content is malformed, or ``size`` is given for anything but
            files of pictures.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.load("embedded").split("test").name
        'fashion-mnist-4000'
    """
    data = read(name_or_path, size)
    return data if data.splits else data.with_split()


def read(name_or_path: str | PathLike[str], size: int | tuple[int, int] | None) -> ImageSet | PointSet:
    """Load a data set as it is, without splits where it has none, see :func:`load`."""
    path = Path(name_or_path)
    named = _named(str(name_or_path))
    if named is None and is_pictures(path):
        return from_folder(path, size)
    if size is not None:
        raise ValueError(f"size: expected it for files of images alone, got {name_or_path}; leave it out")
    if named is not None:
        return named.load()
    if path.is_file() and path.suffix == ".npz":
        names = {*array_names(path)}
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


def is_pictures(path: Path) -> bool:
    """Return whether a path is a picture, or a folder that is read as pictures."""
    folder = path.is_dir()
    return has_pictures(path) and not (folder and (has_idx(path) or batches(path)))


def _named(name: str) -> DataSet | None:
    """Find the data set of a name or an import path; return None for a path on the disk and for an unknown name."""
    if name in DATASETS:
        return DATASETS[name]
    if Path(name).exists():
        return None
    if ":" in name or name in entry_points(group="weightspace.datasets").names:
        return find(name)
    return None
