"""Image sets from ``.npz`` files and from folders of pictures."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from weightspace.signals._arrays import class_names
from weightspace.signals._groups import stable_numbers
from weightspace.signals._npz import array_names, read_arrays
from weightspace.signals._pictures import SUFFIXES, pictures, read_picture, warn_of_others
from weightspace.signals._sets import ImageSet

_SPLITS = ("train", "val", "test")
_LAYOUTS = "images (and labels, sources), or x_train, y_train, x_test, y_test"


def from_npz(path: str | PathLike[str]) -> ImageSet:
    """Read images from the arrays of an ``.npz`` file; pickled objects are refused.

    There are two layouts: ``images`` with optional ``labels`` and ``sources``; and ``x_train``, ``y_train``,
    ``x_test``, ``y_test``, where the test images follow the training images in ``sources``. Labels may have a second
    axis of size one.

    Args:
        path: the file; images in uint8, or in floating point, which keeps its values.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: for images or labels of another kind of number.
        ValueError: if it is not an ``.npz`` file of plain arrays, has another layout, its lengths or sizes differ, or
            its labels do not number classes.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> import weightspace as ws
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "images.npz"
        >>> np.savez(path, images=np.zeros((5, 8, 8), np.uint8), labels=np.arange(5))
        >>> from_npz(path).labels
        array([0, 1, 2, 3, 4])
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected an .npz file, got a folder; name the file, or use from_folder for pictures")
    arrays = read_arrays(path, ("images", "labels", "sources", "x_train", "y_train", "x_test", "y_test"))
    if "images" in arrays:
        images, sources = arrays["images"], arrays.get("sources")
        labels = _labels(arrays, "labels", images, path)
        splits: dict[str, np.ndarray] = {}
    elif "x_train" in arrays:
        images, labels, splits = _keras(arrays, path)
        sources = None
    else:
        raise ValueError(f"{path}: expected the arrays {_LAYOUTS}; got {', '.join(array_names(path))[:200] or 'none'}")
    names = class_names(labels, path)
    try:
        return ImageSet(images, labels, sources, splits, names, name=path.stem)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error


def _keras(arrays: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    """Join ``x_train`` with ``x_test`` and ``y_train`` with ``y_test``; return images, labels and splits."""
    parts = [p for p in ("train", "test") if f"x_{p}" in arrays]
    pictures, numbers = [], []
    for part in parts:
        pictures.append(arrays[f"x_{part}"])
        numbers.append(_labels(arrays, f"y_{part}", pictures[-1], path))
    if len(kinds := {f"{x.dtype} {list(x.shape[1:])}" for x in pictures}) > 1:
        raise ValueError(f"{path}: expected train and test images of one size and type, got {sorted(kinds)}")
    if 0 < sum(y is None for y in numbers) < len(numbers):
        raise ValueError(f"{path}: expected both y_train and y_test, or neither")
    labels = None if numbers[0] is None else np.concatenate(numbers)
    bounds = np.cumsum([0, *map(len, pictures)])
    splits = {p: np.arange(bounds[i], bounds[i + 1]) for i, p in enumerate(parts) if len(pictures[i])}
    return np.concatenate(pictures), labels, splits


def _labels(arrays: dict[str, np.ndarray], key: str, images: np.ndarray, path: Path) -> np.ndarray | None:
    """Return the labels under ``key`` as ``[image]``, if there is one per image."""
    if key not in arrays:
        return None
    labels, count = arrays[key], images.shape[0] if images.ndim else 0
    if labels.shape not in ((count,), (count, 1)):
        raise ValueError(f"{path}: expected {count} labels in {key}, one an image, got shape {list(labels.shape)}")
    return labels.reshape(count)


def from_folder(path: str | PathLike[str], size: int | tuple[int, int] | None = None) -> ImageSet:
    """Read pictures from one folder per class, optionally below ``train/``, ``val/`` and ``test/``, or from one folder.

    Pictures in one folder without class folders have no labels.

    PNG, JPEG, WebP, BMP, GIF and TIFF files of one picture each are read, turned as their EXIF orientation says. The
    images become ``[image, height, width]`` if all are grey, and ``[image, height, width, 3]`` otherwise. Transparency
    is dropped. The classes are the folder names, sorted. The name of an image is its path below ``path``, and its
    source a 53-bit hash of that, so that adding files changes no other image's source.

    Args:
        path: the folder of class folders (or of ``train``, ``val``, ``test``), a folder of pictures, or one picture.
        size: resize every image to ``(height, width)``, or to a square, with bicubic interpolation.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: for a size below one pixel, if the folder holds no images, a file is unreadable or deeper than 8
            bits, or sizes differ and ``size`` is not given.

    Warns:
        UserWarning: if class folders hold other files, which are passed over.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> import weightspace as ws
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (folder / name).mkdir()
        ...     Image.new("L", (8, 8)).save(folder / name / "0.png")
        >>> from_folder(folder).classes
        ('cat', 'dog')
    """
    path, size = Path(path), _checked_size(size)
    if path.is_file():
        return _unlabelled([path], path.parent, path.stem, size)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: expected a folder of class folders, got none")
    parts = [part for part in _SPLITS if (path / part).is_dir() and _subfolders(path / part)]
    roots = {part: path / part for part in parts} or {"": path}
    folders = [(part, folder) for part, root in roots.items() for folder in _subfolders(root)]
    files = [(part, file) for part, folder in folders for file in pictures(folder)]
    if not files:
        if loose := pictures(path):
            warn_of_others(path, [path])
            return _unlabelled(loose, path, path.resolve().name, size)
        raise ValueError(
            f"{path}: expected class folders of {', '.join(SUFFIXES)} images, got none; "
            "put the images of each class into a folder of its name"
        )
    warn_of_others(path, [folder for _, folder in folders])
    classes = sorted({f.parent.name for _, f in files})
    number = {name: i for i, name in enumerate(classes)}
    where, names = np.array([part for part, _ in files]), [f.relative_to(path).as_posix() for _, f in files]
    return ImageSet(
        images=_read_pictures([f for _, f in files], size),
        labels=np.array([number[f.parent.name] for _, f in files]),
        sources=stable_numbers(names),
        splits={part: np.flatnonzero(where == part) for part in parts if (where == part).any()},
        classes=tuple(classes),
        name=path.resolve().name,
        names=names,
    )


def _checked_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    size = (size, size) if isinstance(size, int) else size
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size: expected a height and width of at least one pixel, got {size}")
    return size


def _unlabelled(files: list[Path], folder: Path, name: str, size: tuple[int, int] | None) -> ImageSet:
    """Read pictures of no classes."""
    names = [file.relative_to(folder).as_posix() for file in files]
    return ImageSet(_read_pictures(files, size), sources=stable_numbers(names), name=name, names=names)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def has_pictures(path: Path) -> bool:
    """Return whether a path is a picture by its name, or a folder of pictures, or of class folders of them."""
    if not path.is_dir():
        return path.is_file() and path.suffix.lower() in SUFFIXES
    tops = _subfolders(path)
    below = [g for f in tops if f.name in _SPLITS for g in _subfolders(f)]
    return any(pictures(f) for f in [path, *tops, *below])


def _read_pictures(files: list[Path], size: tuple[int, int] | None) -> np.ndarray:
    found: list[np.ndarray] = []
    for file in files:
        picture = read_picture(file, size)
        if found and picture.shape[:2] != found[0].shape[:2]:
            raise ValueError(
                f"{file}: expected an image of {found[0].shape[0]}x{found[0].shape[1]} like the first, got "
                f"{picture.shape[0]}x{picture.shape[1]}; give size=(height, width) to resize all"
            )
        found.append(picture)
    if any(p.ndim == 3 for p in found):
        found = [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=2) for p in found]
    return np.stack(found)
