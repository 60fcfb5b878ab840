"""Write a zoo: planned first, then shard by shard, so that a crash costs one shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from weightspace._files import check_empty, check_own_folder, remove_leftovers, sync_folder
from weightspace._lock import FolderLock
from weightspace._networks import Networks
from weightspace._spec import NetSpec
from weightspace.zoo._format import (
    MANIFEST,
    Manifest,
    Shard,
    ShardPlan,
    ZooSettings,
    planned,
)
from weightspace.zoo._resume import check_same, sound
from weightspace.zoo._shards import map_shard, overlap, shard_problem
from weightspace.zoo._target import ShardTarget, adopt, remove_records, stamp


class ZooWriter:
    """A writer of the planned shards of a zoo, in any order, each atomically.

    It is made by :meth:`create`, :meth:`resume`, :meth:`extend` or :meth:`open_or_create`.

    One writer at a time: a lock in the folder is held until :meth:`close`, the end of a ``with`` block, or the end of
    the process. A second writer is refused.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 4, 1)
        >>> path = tempfile.mkdtemp()
        >>> plan = [("train", 3, [0, 3]), ("test", 2, [3, 5])]
        >>> with ZooWriter.create(path, spec, recipe={"steps": 10}, plan=plan) as writer:
        ...     networks = ws.Networks(ws.Weights(torch.zeros(2, 17), spec), label=[0, 1], source=[3, 4])
        ...     shard = writer.write(1, networks)
        >>> with ZooWriter.resume(path, spec, recipe={"steps": 10}, plan=plan) as writer:
        ...     writer.pending()
        [0]
    """

    def __init__(self, path: Path, manifest: Manifest, lock: FolderLock) -> None:
        self._path = path
        self._manifest = manifest
        self._shards = list(manifest.shards)
        self._lock = lock
        self._split_of: dict[int, str] = {}
        self._label_dtype: torch.dtype | None = None
        for shard in manifest.shards:
            if shard.done:
                columns = map_shard(path / shard.file)
                self._remember(shard, columns["source"], columns["label"].dtype)

    def __enter__(self) -> ZooWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder to other writers; nothing can be written through this one from now on."""
        self._lock.release()

    @property
    def path(self) -> Path:
        """The folder that is written."""
        return self._path

    @property
    def spec(self) -> NetSpec:
        """The spec that all networks written here have."""
        return self._manifest.spec

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, planned and done, in the plan's order."""
        return tuple(self._shards)

    def pending(self) -> list[int]:
        """Return the indices of the shards that are still to be written."""
        return [index for index, shard in enumerate(self._shards) if not shard.done]

    @classmethod
    def create(cls, path: str | Path, spec: NetSpec, *, plan: ShardPlan, **settings: Any) -> ZooWriter:
        """Start a zoo in a new or empty folder: write the manifest, with every shard planned.

        Args:
            path: the folder.
            spec: the spec of the networks.
            plan: one (split, count, key) per shard; ``key`` is any JSON value that says which networks belong in it.
            settings: fields of :class:`ZooSettings`: recipe, init_regime, seed, views, classes, data_digest,
                provenance, columns.

        Raises:
            ValueError: for a folder that holds something already or that another writer writes to, an impossible plan,
                or values JSON cannot hold.
            OSError: if the folder cannot be written.
        """
        path = Path(path)
        check_empty(path, MANIFEST)
        manifest = Manifest.plan(spec, plan, ZooSettings(**settings))
        path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(path)
        try:
            check_empty(path, MANIFEST)
            manifest.write(path)
            sync_folder(path.absolute().parent)
            remove_leftovers(path)
            return cls(path, manifest, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def resume(cls, path: str | Path, spec: NetSpec, *, plan: ShardPlan, **settings: Any) -> ZooWriter:
        """Go on with a zoo: shards whose size and sha256 are right stay done, and all others are planned anew.

        A shard that was written just before its process was killed counts as done if its record is there.

        Takes the arguments of :meth:`create`, of which all but ``provenance`` must be those of the zoo.

        Raises:
            ValueError: if the folder is no zoo, if another writer writes to it, or if it was begun with another spec,
                recipe, seed, data or plan; the message says which, and nothing is changed.
        """
        path = Path(path)
        expected = Manifest.plan(spec, plan, ZooSettings(**settings))

        def unchanged(found: Manifest) -> Manifest:
            check_same(path, found, expected)
            return found

        return cls._reopen(path, unchanged)

    @classmethod
    def extend(cls, path: str | Path, *, plan: ShardPlan, views: int, recipe: Mapping[str, Any]) -> ZooWriter:
        """Plan more shards behind those of a finished zoo, or go on with shards that were planned so.

        Args:
            path: the folder of the zoo.
            plan: one (split, count, key) per new shard.
            views: fits per signal, with the new ones.
            recipe: how the networks were fitted, with the new ones.

        Raises:
            ValueError: for an empty plan, if the zoo is not finished, or if another writer writes to it; nothing is
                changed.
        """
        path, count = Path(path), len(plan)

        def extended(found: Manifest) -> Manifest:
            settings = replace(found.settings, views=views, recipe=recipe)
            again = planned(plan, after=found.shards[:-count])
            if found.settings == settings and [s.plan for s in found.shards[-count:]] == [s.plan for s in again]:
                return found  # they were planned before
            if left := sum(not shard.done for shard in found.shards):
                raise ValueError(f"{path}: expected a finished zoo to add to, got {left} shards that are not done")
            shards = (*found.shards, *planned(plan, after=found.shards))
            return replace(found, settings=settings, shards=shards)

        return cls._reopen(path, extended)

    @classmethod
    def _reopen(cls, path: Path, wanted: Callable[[Manifest], Manifest]) -> ZooWriter:
        """Open a writer of an existing zoo, whose manifest ``wanted`` checks and changes."""
        wanted(Manifest.read(path))
        check_own_folder(path / "shards")
        lock = FolderLock(path)
        try:
            found = Manifest.read(path)  # again: another writer may have been busy a moment ago
            remove_leftovers(path)
            remove_leftovers(path / "shards")
            manifest = sound(path, adopt(path, wanted(found), digest=True))
            if manifest != found:
                manifest.write(path)
            remove_records(path)
            return cls(path, manifest, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open_or_create(cls, path: str | Path, spec: NetSpec, *, plan: ShardPlan, **settings: Any) -> ZooWriter:
        """Go on with the zoo in a folder as :meth:`resume`, or start one as :meth:`create` where there is none."""
        start = cls.resume if (Path(path) / MANIFEST).exists() else cls.create
        return start(path, spec, plan=plan, **settings)

    def write(self, index: int, networks: Networks, *, commit: bool = True) -> Shard:
        """Write one planned shard: first its file, then the manifest that calls it done, each atomically.

        Args:
            index: number of the shard in the plan.
            networks: as many as planned, with float32 weights, finite, on any device, and the source of each. All
                networks of one source are in one split. Without labels they count as unlabelled (-1), without views as
                the first (0), without PSNR as unknown (NaN).
            commit: whether to write the manifest; if not, a record beside the shard stands for it until
                :meth:`commit`, so that thousands of shards do not write thousands of long manifests.

        Raises:
            TypeError: for weights that are not float32.
            ValueError: for another spec or count, networks that are not finite, no sources, labels outside the
                classes or of another kind than in the shards before, a source that another split has, a shard that is
                done, or a closed writer.
            OSError: if the disk is full; the zoo is as before.
        """
        target = self.target(index)
        columns = target.columns(networks)
        sources, dtype = columns["source"], columns["label"].dtype
        self._check(target.shard, sources, dtype)
        done = self._shards[index] = target.store(columns, record=not commit)
        try:
            if commit:
                self.commit()
        except BaseException:
            self._shards[index] = target.shard
            raise
        self._remember(done, sources, dtype)
        return done

    def target(self, index: int) -> ShardTarget:
        """Return what another process needs to write a pending shard; :meth:`accept` takes what it returns."""
        self._check_open()
        if index not in range(len(self._shards)):
            raise ValueError(f"index: expected a shard of the plan, 0 to {len(self._shards) - 1}, got {index!r}")
        if (shard := self._shards[index]).done:
            raise ValueError(f"index: expected a pending shard, got {index}, which is done; pending() lists the others")
        settings, folder = self._manifest.settings, str(self._path.absolute())
        return ShardTarget(
            folder,
            shard,
            self.spec,
            len(settings.classes),
            settings.views,
            stamp(self._manifest, shard),
            settings.columns,
        )

    def accept(self, index: int, done: Shard, sources: Tensor | None = None) -> None:
        """Count a shard as done that another process has written; :meth:`commit` makes that last.

        Args:
            index: number of the shard in the plan.
            done: the record that :meth:`ShardTarget.write` returned there.
            sources: the sources of its networks, where the caller knows them; by default the file is read.

        Raises:
            ValueError: if the file is missing or not the one that was planned, or holds a source of another split or
                labels of another kind than the shards before.
        """
        target = self.target(index)
        problem = shard_problem(self._path, done, self.spec.num_params, digest=False)
        if problem is None and done.plan != target.shard.plan:
            problem = f"expected shard {target.shard.plan}, got {done.plan}"
        if problem is not None:
            raise ValueError(f"{self._path}: {problem}; run the fit again")
        columns = map_shard(self._path / done.file)
        sources, dtype = columns["source"] if sources is None else sources, columns["label"].dtype
        self._check(done, sources, dtype)
        self._shards[index] = done
        self._remember(done, sources, dtype)

    def commit(self) -> None:
        """Write the manifest, if there is anything new, and remove the records that it makes needless."""
        self._check_open()
        if tuple(self._shards) != self._manifest.shards:
            manifest = replace(self._manifest, shards=tuple(self._shards))
            manifest.write(self._path)
            self._manifest = manifest
            remove_records(self._path)

    def _check_open(self) -> None:
        if not self._lock.held:
            raise ValueError(f"{self._path}: expected an open writer, got one that was closed; resume the zoo")

    def _remember(self, shard: Shard, sources: Tensor, label_dtype: torch.dtype) -> None:
        """Note what later shards must agree with."""
        self._split_of.update(dict.fromkeys(sources.tolist(), shard.split))
        self._label_dtype = label_dtype

    def _check(self, shard: Shard, sources: Tensor, label_dtype: torch.dtype) -> None:
        """Raise ``ValueError`` if another split has one of the sources, or the labels are of another kind."""
        if self._label_dtype not in (None, label_dtype):
            kinds = {torch.int64: "whole numbers", torch.float32: "real numbers"}
            before, now = (kinds.get(dtype, dtype) for dtype in (self._label_dtype, label_dtype))
            raise ValueError(f"label: expected {before} as in the shards before, got {now}; use one kind for all")
        theirs = dict[str, list[int]]()
        for source in sources.tolist():
            if (owner := self._split_of.get(source, shard.split)) != shard.split:
                theirs.setdefault(owner, []).append(source)
        if problem := overlap({**{name: [torch.tensor(own)] for name, own in theirs.items()}, shard.split: [sources]}):
            raise ValueError(problem)
