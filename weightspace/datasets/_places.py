"""Folders in which data sets are looked for and into which they are written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""The folder into which Debian's package dataset-fashion-mnist installs its files."""


def cache_dir() -> Path:
    """Return the folder of prepared data sets and fetched packages.

    This is ``$WEIGHTSPACE_CACHE``. If that is not set, it is ``weightspace`` in the platform's cache folder:
    ``$XDG_CACHE_HOME`` or ``~/.cache``, on macOS ``~/Library/Caches``, on Windows ``%LOCALAPPDATA%``.

    Example:
        >>> import os
        >>> os.environ.get("WEIGHTSPACE_CACHE", "weightspace") in str(cache_dir())
        True
    """
    if given := os.environ.get("WEIGHTSPACE_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "weightspace"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "weightspace"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "weightspace" / "Cache"
    return Path.home() / ".cache" / "weightspace"


def place_of(name: str) -> Path:
    """Return the folder of a data set in its original files: below ``$WEIGHTSPACE_DATA``, else below the cache."""
    home = os.environ.get("WEIGHTSPACE_DATA")
    return (Path(home) if home else cache_dir()) / name


def fashion_places() -> list[Path]:
    """Return the folders that are searched for Fashion-MNIST's files, in order."""
    return [*dict.fromkeys([place_of("fashion-mnist"), cache_dir() / "fashion-mnist", DEBIAN])]


def has_files(folders: Iterable[Path], pattern: str) -> bool:
    """Return whether one of the folders holds a file that matches the pattern."""
    return any(path.is_file() for folder in folders for path in folder.glob(pattern))
