"""Write a zoo: planned first, then shard by shard, so that a crash costs one shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from weightspace._files import check_empty, remove_leftovers, sync_folder
from weightspace._networks import Networks
from weightspace._spec import NetSpec
from weightspace.zoo._format import (
    MANIFEST,
    Manifest,
    Shard,
    ShardPlan,
    ZooSettings,
    map_shard,
    overlap,
    planned,
    shard_problem,
)
from weightspace.zoo._lock import FolderLock
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
        self._label_kind: torch.dtype | None = None
        for index, shard in enumerate(manifest.shards):
            if shard.done:
                columns = map_shard(path / shard.file)
                self._label_kind = columns["label"].dtype
                self._own(index, columns["source"])

    def __enter__(self) -> ZooWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another writer use the folder; nothing can be written through this one from now on."""
        self._lock.release()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def spec(self) -> NetSpec:
        return self._manifest.spec

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, planned and done, in the plan's order."""
        return tuple(self._shards)

    def pending(self) -> list[int]:
        """Indices of the shards still to be written."""
        return [index for index, shard in enumerate(self._shards) if not shard.done]

    @classmethod
    def create(
        cls,
        path: str | Path,
        spec: NetSpec,
        *,
        plan: ShardPlan,
        **settings: Any,
    ) -> ZooWriter:
        """Start a zoo in a new or empty folder: writes the manifest with every shard planned.

        Args:
            path: the folder.
            spec: what each network is.
            plan: one (split, count, key) per shard; ``key`` is any JSON value that says what belongs in it.
            settings: fields of :class:`ZooSettings`: recipe, init_regime, seed, views, classes, data_digest,
                provenance.

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
    def resume(
        cls,
        path: str | Path,
        spec: NetSpec,
        *,
        plan: ShardPlan,
        **settings: Any,
    ) -> ZooWriter:
        """Go on with a zoo: done shards whose size and sha256 are right are kept, all others are planned anew.

        Shards that a process wrote just before everything was killed count as done, if their record is there.

        Takes the arguments of :meth:`create`, of which all but ``provenance`` must be those of the zoo.

        Raises:
            ValueError: if the folder is no zoo, if another writer writes to it, or if it was begun with another spec,
                recipe, seed, data or plan; the message says which, and nothing is changed.
        """
        path = Path(path)
        expected = Manifest.plan(spec, plan, ZooSettings(**settings))
        return cls._reopen(path, lambda found: _same(path, found, expected))

    @classmethod
    def extend(cls, path: str | Path, *, plan: ShardPlan, views: int, recipe: Mapping[str, Any]) -> ZooWriter:
        """Plan more shards behind those of a finished zoo, or go on with shards that were planned so.

        Args:
            path: the folder of the zoo.
            plan: one (split, count, key) per new shard.
            views: fits per signal, with the new ones.
            recipe: how the networks were fitted, with the new ones.

        Raises:
            ValueError: if the zoo is not finished, or another writer writes to it; nothing is changed.
        """
        path = Path(path)

        def extended(found: Manifest) -> Manifest:
            old, new = found.shards[: -len(plan)], [shard.plan for shard in found.shards[-len(plan) :]]
            settings = replace(found.settings, views=views, recipe=recipe)
            begun = found.settings == settings
            if begun and new == [shard.plan for shard in planned(plan, after=old)]:
                return found
            if left := sum(not shard.done for shard in found.shards):
                raise ValueError(f"{path}: expected a finished zoo to add to, got {left} shards that are not done")
            shards = (*found.shards, *planned(plan, after=found.shards))
            return replace(found, settings=settings, shards=shards)

        return cls._reopen(path, extended)

    @classmethod
    def _reopen(cls, path: Path, wanted: Callable[[Manifest], Manifest]) -> ZooWriter:
        """Open a writer of an existing zoo, whose manifest ``wanted`` checks and changes."""
        wanted(Manifest.read(path))
        lock = FolderLock(path)
        try:
            found = Manifest.read(path)  # again: its writer may have been busy a moment ago
            remove_leftovers(path)
            remove_leftovers(path / "shards")
            kept = _sound(path, adopt(path, wanted(found), digest=True))
            if kept != found:
                kept.write(path)
            remove_records(path)
            return cls(path, kept, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open_or_create(cls, path: str | Path, spec: NetSpec, *, plan: ShardPlan, **settings: Any) -> ZooWriter:
        """:meth:`resume` where there is a zoo, :meth:`create` where there is none; the same arguments."""
        start = cls.resume if (Path(path) / MANIFEST).exists() else cls.create
        return start(path, spec, plan=plan, **settings)

    def write(self, index: int, networks: Networks, *, commit: bool = True) -> Shard:
        """Write one planned shard: first its file, then the manifest that calls it done, each atomically.

        Args:
            index: which shard of the plan.
            networks: as many as planned, with float32 weights, finite, on any device, and the source of each. All
                networks of one source are in one split. Without labels they count as unlabelled (-1), without views as
                the first (0), without PSNR as unknown (NaN).
            commit: whether to write the manifest; if not, a record beside the shard stands for it until
                :meth:`commit`, so that thousands of shards do not write thousands of long manifests.

        Raises:
            TypeError: for weights that are not float32.
            ValueError: for another spec or count, networks that are not finite, no sources, labels outside the
                classes, a source that another split has, a shard that is done, or a closed writer.
            OSError: if the disk is full; the zoo is as before.
        """
        target = self.target(index)
        columns = target.columns(networks)
        sources, kind = columns["source"], columns["label"].dtype
        self._check_sources(target.shard.split, sources)
        if self._label_kind not in (None, kind):
            raise ValueError(f"label: expected {self._label_kind} as in the shards before, got {kind}")
        before, done = self._shards[index], target.store(columns, record=not commit)
        self._label_kind = kind
        self._shards[index] = done
        try:
            if commit:
                self.commit()
        except BaseException:
            self._shards[index] = before
            raise
        self._own(index, sources)
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
            folder, shard, self.spec, len(settings.classes), settings.views, stamp(self._manifest, shard)
        )

    def accept(self, index: int, done: Shard, sources: Tensor | None = None) -> None:
        """Count a shard as done that another process has written; :meth:`commit` makes that last.

        Args:
            index: which shard of the plan.
            done: what :meth:`ShardTarget.write` returned there.
            sources: the sources of its networks, where the caller knows them; by default the file is read.

        Raises:
            ValueError: if the file is missing or not the one that was planned, or holds a source of another split.
        """
        target = self.target(index)
        problem = shard_problem(self._path, done, self.spec.num_params, digest=False)
        if problem is None and done.plan != target.shard.plan:
            problem = f"expected shard {target.shard.plan}, got {done.plan}"
        if problem is not None:
            raise ValueError(f"{self._path}: {problem}; run the fit again")
        if sources is None:
            sources = map_shard(self._path / done.file)["source"]
        self._check_sources(done.split, sources)
        self._shards[index] = done
        self._own(index, sources)

    def commit(self) -> None:
        """Write the manifest as it stands, if it says anything new, and remove the records that it makes needless."""
        self._check_open()
        if tuple(self._shards) != self._manifest.shards:
            manifest = replace(self._manifest, shards=tuple(self._shards))
            manifest.write(self._path)
            self._manifest = manifest
            remove_records(self._path)

    def _check_open(self) -> None:
        if not self._lock.held:
            raise ValueError(f"{self._path}: expected an open writer, got one that was closed; resume the zoo")

    def _own(self, index: int, sources: Tensor) -> None:
        self._split_of.update(dict.fromkeys(sources.tolist(), self._shards[index].split))

    def _check_sources(self, split: str, sources: Tensor) -> None:
        """Raise ``ValueError`` if another split has one of the sources."""
        theirs = dict[str, list[Tensor]]()
        for source in sources.unique():
            if (owner := self._split_of.get(source.item(), split)) != split:
                theirs.setdefault(owner, []).append(source.reshape(1))
        if problem := overlap({**theirs, split: [sources]}):
            raise ValueError(problem)


def _same(path: Path, found: Manifest, expected: Manifest) -> Manifest:
    """Return the folder's manifest, if it is of the zoo that is expected."""
    if other := _difference(expected, found):
        raise ValueError(f"{path} was begun otherwise: {other}; fit into another folder or ask for the same")
    return found


def _sound(path: Path, manifest: Manifest) -> Manifest:
    """Return the manifest with every shard planned again whose file is missing, truncated or altered."""
    again = {
        index: replace(shard, state="planned", bytes=None, sha256=None)
        for index, shard in enumerate(manifest.shards)
        if shard.done and shard_problem(path, shard, manifest.spec.num_params, digest=True)
    }
    return replace(manifest, shards=tuple(again.get(i, shard) for i, shard in enumerate(manifest.shards)))


def _difference(expected: Manifest, found: Manifest) -> str | None:
    """Describe the first field in which a fit to resume differs from what is asked, or return ``None``."""
    if expected.spec != found.spec:
        return f"spec: expected {expected.spec}, got {found.spec}"
    for name in ("recipe", "init_regime", "seed", "views", "classes", "data_digest"):
        mine, theirs = getattr(expected.settings, name), getattr(found.settings, name)
        if name == "recipe" and mine != theirs:
            names = [key for key in {**mine, **theirs} if mine.get(key, ...) != theirs.get(key, ...)]
            mine, theirs = ({key: own[key] for key in names if key in own} for own in (mine, theirs))
        if mine != theirs:
            return f"{name}: expected {mine!r}, got {theirs!r}"
    mine, theirs = ([shard.plan for shard in manifest.shards] for manifest in (expected, found))
    if len(mine) != len(theirs):
        return f"plan: expected {len(mine)} shards, got {len(theirs)}"
    for index, (own, other) in enumerate(zip(mine, theirs, strict=True)):
        if own != other:
            return f"plan, shard {index}: expected {own}, got {other}"
    return None
