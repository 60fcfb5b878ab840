"""Writing a zoo: planned first, then shard by shard, so that a crash costs one shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from weightspace._files import check_empty, remove_leftovers, sync_folder
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.zoo._checks import difference, new_manifest
from weightspace.zoo._format import (
    MANIFEST,
    InitRegime,
    Manifest,
    Plan,
    Shard,
    map_shard,
    overlap,
    plain,
    planned,
    shard_problem,
)
from weightspace.zoo._lock import FolderLock
from weightspace.zoo._order import ShardOrder, adopt, remove_records, stamp


class ZooWriter:
    """Writes the planned shards of a zoo, in any order, each atomically; made by ``create``, ``resume`` or
    ``open_or_create``.

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
        ...     writer.write(1, ws.Weights(torch.zeros(2, 17), spec), sources=[3, 4], labels=[0, 1])
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
        for index, shard in enumerate(manifest.shards):
            if shard.done:
                self._own(index, map_shard(path / shard.file)["source"])

    def __enter__(self) -> ZooWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another writer at the folder; nothing can be written through this one from now on."""
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
        plan: Plan,
        recipe: Mapping[str, Any] | None = None,
        init_regime: InitRegime = "unknown",
        seed: int | None = None,
        views: int = 1,
        classes: Sequence[str] = (),
        data_digest: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> ZooWriter:
        """Start a zoo in a new or empty folder: writes the manifest with every shard planned.

        Args:
            path: the folder.
            spec: what each network is.
            plan: one (split, count, key) per shard; ``key`` is any JSON value that says what belongs in it.
            recipe: how the networks were fitted (steps, learning rate, init, target PSNR, ...), plain values.
            init_regime: ``"independent"``, ``"shared"``, ``"meta"`` or ``"unknown"``, the starts of the networks.
            seed: the seed of the fit.
            views: fits per signal.
            classes: names of the labels 0, 1, ...; empty when the labels have no names.
            data_digest: hash of the signals, so that a fit resumed with other data is refused.
            provenance: data set name, licence, citation, ...; versions and the date are added.

        Raises:
            ValueError: for a folder that holds something already or that another writer writes to, an impossible plan,
                or values JSON cannot hold.
            OSError: if the folder cannot be written.
        """
        path = Path(path)
        check_empty(path, MANIFEST)
        manifest = new_manifest(spec, plan, recipe, init_regime, seed, views, classes, data_digest, provenance)
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
        plan: Plan,
        recipe: Mapping[str, Any] | None = None,
        init_regime: InitRegime = "unknown",
        seed: int | None = None,
        views: int = 1,
        classes: Sequence[str] = (),
        data_digest: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> ZooWriter:
        """Go on with a zoo: done shards whose size and sha256 are right are kept, all others are planned anew.

        Shards that a process wrote just before everything was killed count as done, if their record is there.

        Takes the arguments of :meth:`create`, of which all but ``provenance`` must be those of the zoo.

        Raises:
            ValueError: if the folder is no zoo, if another writer writes to it, or if it was begun with another spec,
                recipe, seed, data or plan; the message says which, and nothing is changed.
        """
        path = Path(path)
        expected = new_manifest(spec, plan, recipe, init_regime, seed, views, classes, data_digest, provenance)
        return cls._reopen(path, lambda found: _same(path, found, expected))

    @classmethod
    def extend(cls, path: str | Path, *, plan: Plan, views: int, recipe: Mapping[str, Any]) -> ZooWriter:
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
            begun = (found.views, found.recipe) == (views, plain(dict(recipe), "recipe"))
            if begun and new == [shard.plan for shard in planned(plan, after=old)]:
                return found
            if left := sum(not shard.done for shard in found.shards):
                raise ValueError(f"{path}: expected a finished zoo to add to, got {left} shards that are not done")
            shards = (*found.shards, *planned(plan, after=found.shards))
            return replace(found, views=views, recipe=plain(dict(recipe), "recipe"), shards=shards)

        return cls._reopen(path, extended)

    @classmethod
    def _reopen(cls, path: Path, wanted: Callable[[Manifest], Manifest]) -> ZooWriter:
        """A writer of the zoo that is there, as ``wanted`` makes it of what its manifest says, or raises."""
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
    def open_or_create(cls, path: str | Path, spec: NetSpec, *, plan: Plan, **about: Any) -> ZooWriter:
        """:meth:`resume` where there is a zoo, :meth:`create` where there is none; the same arguments."""
        start = cls.resume if (Path(path) / MANIFEST).exists() else cls.create
        return start(path, spec, plan=plan, **about)

    def write(
        self,
        index: int,
        weights: Weights,
        *,
        sources: Any,
        labels: Any = None,
        views: Any = None,
        psnr: Any = None,
        commit: bool = True,
    ) -> None:
        """Write one planned shard: first its file, then the manifest that calls it done, each atomically.

        Args:
            index: which shard of the plan.
            weights: as many networks as planned, float32, finite, on any device.
            sources: ``[batch]`` integers: the signal of each network; all of one signal lie in one split.
            labels: ``[batch]`` integers, -1 for unlabelled; by default all are.
            views: ``[batch]`` integers, which fit of the signal it is; by default 0.
            psnr: ``[batch]`` fit quality in dB; by default NaN, unknown.
            commit: whether to write the manifest; if not, a record beside the shard stands for it until
                :meth:`commit`, so that thousands of shards do not write thousands of long manifests.

        Raises:
            TypeError: for weights that are not float32.
            ValueError: for another spec or count, networks that are not finite, columns of another length, labels
                outside the classes, a source that another split has, a shard that is done, or a closed writer.
            OSError: if the disk is full; the zoo is as before.
        """
        order = self.order(index)
        tensors = order.tensors(weights, sources, labels, views, psnr)
        self._check_sources(order.shard.split, tensors["source"])
        done = order.store(tensors, record=not commit)
        before = self._shards[index]
        self._shards[index] = done
        try:
            if commit:
                self.commit()
        except BaseException:
            self._shards[index] = before
            raise
        self._own(index, tensors["source"])

    def order(self, index: int) -> ShardOrder:
        """What another process needs to write a pending shard; :meth:`accept` takes what it gives back."""
        self._check_open()
        if index not in range(len(self._shards)):
            raise ValueError(f"index: expected a shard of the plan, 0 to {len(self._shards) - 1}, got {index!r}")
        if (shard := self._shards[index]).done:
            raise ValueError(f"index: expected a pending shard, got {index}, which is done; pending() lists the others")
        about = self._manifest
        return ShardOrder(
            str(self._path.absolute()), shard, self.spec, len(about.classes), about.views, stamp(about, shard)
        )

    def accept(self, index: int, done: Shard) -> None:
        """Count a shard as done that another process has written; :meth:`commit` makes that last.

        Raises:
            ValueError: if the file is not there or not the one that was told, or holds a source of another split.
        """
        order = self.order(index)
        problem = shard_problem(self._path, done, self.spec.num_params, digest=False)
        if problem is None and done.plan != order.shard.plan:
            problem = f"expected shard {order.shard.plan}, got {done.plan}"
        if problem is not None:
            raise ValueError(f"{self._path}: {problem}; run the fit again")
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
    """The folder's manifest, if it is of the zoo that is expected."""
    if other := difference(expected, found):
        raise ValueError(f"{path} was begun otherwise: {other}; fit into another folder or ask for the same")
    return found


def _sound(path: Path, manifest: Manifest) -> Manifest:
    """The manifest with every shard planned again whose file is missing, truncated or altered."""
    again = {
        index: replace(shard, state="planned", bytes=None, sha256=None)
        for index, shard in enumerate(manifest.shards)
        if shard.done and shard_problem(path, shard, manifest.spec.num_params, digest=True)
    }
    return replace(manifest, shards=tuple(again.get(i, shard) for i, shard in enumerate(manifest.shards)))
