"""Arrays of ``.npz`` files, read with no more memory than the size of the file calls for."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, cast

import numpy as np

from weightspace._files import most_unpacked

_SUFFIX = ".npy"
_DAMAGE = (
    *(ValueError, KeyError, SyntaxError, TokenError, MemoryError, RecursionError),  # a header is a Python literal
    *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),
)
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # all that NumPy writes; others may ask for gigabytes


def array_names(path: Path) -> list[str]:
    """List the names of the arrays in an ``.npz`` file; return none if the file is of another kind."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(_SUFFIX) for name in archive.namelist() if name.endswith(_SUFFIX)]
    except (OSError, *_DAMAGE):
        return []


def read_arrays(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an ``.npz`` file by their names.

    Args:
        path: the file.
        wanted: the names of the arrays to read, where they are there; the others are left alone. Default: all.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no archive of plain arrays, if a header claims another size than the array has, or if the
            arrays are too large for the file.
    """
    out: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            left = most_unpacked(path.stat().st_size)
            for entry in archive.infolist():
                name = entry.filename.removesuffix(_SUFFIX)
                if name == entry.filename or (wanted is not None and name not in wanted):
                    continue
                left -= entry.file_size
                if left < 0:
                    raise ValueError(
                        f"arrays that are far larger than the file, from {name!r:.60} on: store them plain"
                    )
                if entry.compress_type not in _KINDS or name in out:
                    raise ValueError(f"an entry {name!r:.80} that NumPy would not write")
                with archive.open(entry) as file:
                    out[name] = _read(file, entry.file_size, name)
    except FileNotFoundError:
        raise
    except (OSError, *_DAMAGE) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: expected an .npz file of plain arrays (no objects), got {reason:.300}") from error
    return out


def read_array(path: Path) -> np.ndarray:
    """Read the array of an ``.npy`` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no plain array, or of another size than its header claims.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an array in an .npy file, got no such file")
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size, path.name)
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: expected an array of numbers in an .npy file, got {reason:.300}") from error


def _read(file: IO[bytes], size: int, name: str) -> np.ndarray:
    """Read one array, if the size that its header claims is the size that it has."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name!r:.80} in version {version} of the format")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{name!r:.80} of objects, which may run code")
    count = math.prod(shape)
    left = size - file.tell()
    if min(shape, default=0) < 0 or not dtype.itemsize or count * dtype.itemsize != left:
        raise ValueError(f"{name!r:.80} of {left} bytes, whose header claims {dtype}, {list(shape)!r:.80}")
    array = np.empty(count, dtype)
    if count and cast("io.BufferedIOBase", file).readinto(memoryview(cast("Any", array.view(np.uint8)))) != left:
        raise ValueError(f"{name!r:.80} that is cut")
    return array.reshape(shape, order="F" if fortran else "C")
