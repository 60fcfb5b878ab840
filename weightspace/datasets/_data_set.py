"""``DataSet``: what is known of a named data set, and how to read it once it is prepared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightspace.datasets._packages import cache_dir, sha256
from weightspace.signals._sets import ImageSet, PointSet
from weightspace.signals._store import read_saved

Signals = ImageSet | PointSet


@dataclass(frozen=True)
class DataSet:
    """What is known of a named data set.

    Args:
        name: as ``load`` and the command line take it.
        what: what its signals are.
        classes: how many.
        split: how it is split so that nothing leaks from one side to the other.
        licence: under what terms its signals may be used.
        citation: whom to cite.
        obtain: how it is got.
        options: what :func:`prepare` takes for it; empty where there is nothing to set.
        make: fetches and builds it into the cache, and names the files it was made of; None where nothing is built.
        read: reads it where it is used as it comes; None where it is built into the cache.
        here: whether it is on this machine, where it is used as it comes.
        fetch: fetches it by a package client, where it is used as it comes.
        defaults: its own values of ``options``.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.DATASETS["emoji"].classes
        9
    """

    name: str
    what: str
    classes: int
    split: str
    licence: str
    citation: str
    obtain: str
    options: frozenset[str] = frozenset()
    make: Callable[..., tuple[Signals, list[Path]]] | None = None
    read: Callable[[], Signals] | None = None
    here: Callable[[], bool] | None = None
    fetch: Callable[[Path], Path] | None = None
    defaults: Mapping[str, Any] | None = None

    @property
    def path(self) -> Path:
        """Where it lies once it is prepared."""
        return cache_dir() / f"{self.name}.npz"

    @property
    def state(self) -> str:
        """Whether it is "here", where ``load`` finds it, else what to do, in one or two words."""
        if self.here() if self.here is not None else self.path.is_file():
            return "here"
        return "prepare" if self.make or self.fetch else "fetch"

    def load(self) -> Signals:
        """The data set, from the cache or from where it lies.

        Raises:
            FileNotFoundError: if it is not on this machine.
            ValueError: if the file in the cache is not what was written there.
        """
        return self.read() if self.read is not None else read_prepared(self.name, self.path)


def read_prepared(name: str, path: Path) -> Signals:
    """A prepared data set, after a look at its checksum."""
    record = path.with_suffix(".json")
    if not path.is_file() or not record.is_file():
        raise FileNotFoundError(f"{name}: expected it in {path}, got none; run: weightspace data prepare {name}")
    again = f"run: weightspace data prepare {name}"
    try:
        expected = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{record}: expected the record of a prepared data set, got {error!r}; {again}") from error
    if (got := sha256(path)) != expected:
        raise ValueError(f"{path}: expected the checksum {expected[:12]}..., got {got[:12]}...: altered; {again}")
    return read_saved(path)
