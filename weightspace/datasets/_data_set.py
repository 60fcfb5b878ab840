"""``DataSet``: the facts about a named data set, its options, and the functions that obtain it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightspace._files import read_json, sha256
from weightspace.datasets._places import cache_dir

if TYPE_CHECKING:  # the catalogue is listed without importing torch
    from weightspace.signals import ImageSet, PointSet

    Signals = ImageSet | PointSet


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A named data set: the facts about it and the functions that obtain it.

    A data set is either *read* in its original files or *built* once into one file in the cache. Functions and options
    may be given as import paths, ``"package.module:name"``; they are then imported when they are needed.

    Args:
        name: the name by which :func:`load` and the command line find it, also the name of its file in the cache.
        description: the kind and number of its signals.
        classes: the number of classes.
        split: how it is split, and why nothing leaks from one split to another.
        licence: the terms under which its signals may be used.
        citation: the work to cite.
        obtain: how a user obtains it.
        read: a function without arguments that reads the original files and returns a ``SignalSet``.
        is_here: a function that returns whether the original files are on this machine. Default: they always are.
        fetch: a function ``fetch(folder)`` that fetches the original files by a package client, with ``folder`` for
            the packages, and returns the folder of the files.
        build: a function ``build(folder, options, *, on_progress, name, licence, citation)`` that fetches packages into
            ``folder`` and returns a ``SignalSet`` and the list of the files it was made of.
        options: the default options of ``build``: an instance of a frozen dataclass whose docstring describes every
            field under ``Args:``. The command line derives its flags from it. None if there are no options.

    Raises:
        ValueError: unless exactly one of ``read`` and ``build`` is given.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.DATASETS["emoji"].classes
        9
    """

    name: str
    description: str
    classes: int
    split: str
    licence: str
    citation: str
    obtain: str
    read: Callable[[], Signals] | str | None = None
    is_here: Callable[[], bool] | None = None
    fetch: Callable[[Path], Path] | str | None = None
    build: Callable[..., tuple[Signals, list[Path]]] | str | None = None
    options: object = None

    def __post_init__(self) -> None:
        if (self.read is None) == (self.build is None):
            raise ValueError(f"{self.name}: expected either read or build, got {'both' if self.read else 'neither'}")

    @property
    def path(self) -> Path:
        """The file in the cache into which the data set is built."""
        return cache_dir() / f"{self.name}.npz"

    @property
    def state(self) -> str:
        """One word: "here" if :func:`load` finds it, otherwise "prepare" or "fetch", which the user has to do."""
        if self.path.is_file() if self.build else self.is_here is None or self.is_here():
            return "here"
        return "prepare" if self.build or self.fetch else "fetch"

    def configured(self, **given: Any) -> Any:
        """Return the options with some of them replaced.

        Raises:
            TypeError: for an option that the data set does not have.
            ValueError: for a value out of range.
        """
        defaults: Any = imported(self.options)
        known = set() if defaults is None else {field.name for field in dataclasses.fields(defaults)}
        if unknown := sorted(set(given) - known):
            raise TypeError(f"{self.name}: expected options among {sorted(known) or 'none'}, got {unknown[0]!r}")
        return None if defaults is None else dataclasses.replace(defaults, **given)

    def load(self) -> Signals:
        """Read the data set, from the cache or from its original files.

        Raises:
            FileNotFoundError: if it is not on this machine.
            ValueError: if the file in the cache was altered.
        """
        return imported(self.read)() if self.read is not None else _read_built(self.name, self.path)


def imported(value: Any) -> Any:
    """Return what an import path ``"package.module:name"`` names, or the value itself if it is no text."""
    if not isinstance(value, str):
        return value
    module, _, name = value.partition(":")
    return getattr(importlib.import_module(module), name)


def _read_built(name: str, path: Path) -> Signals:
    """Read a data set that was built into the cache, if its checksum is the recorded one."""
    from weightspace.signals._store import read_saved

    record = path.with_suffix(".json")
    if not path.is_file() or not record.is_file():
        raise FileNotFoundError(f"{name}: expected it in {path}, got none; run: weightspace data prepare {name}")
    again = f"run: weightspace data prepare {name}"
    found = read_json(record, "the record of a prepared data set", remedy=again)
    expected = found.get("sha256") if isinstance(found, dict) else None
    if not isinstance(expected, str):
        raise ValueError(f"{record}: expected the record of a prepared data set, got one without a checksum; {again}")
    if (got := sha256(path)) != expected:
        raise ValueError(f"{path}: expected the checksum {expected[:12]!r}..., got {got[:12]!r}...: altered; {again}")
    return read_saved(path)
