"""Writing a zoo: planned first, then shard by shard, so that a crash costs one shard."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.zoo._checks import check_range, column, difference, flat, new_manifest
from weightspace.zoo._files import check_empty, remove_leftovers, sync_folder, write_atomic
from weightspace.zoo._format import MANIFEST, InitRegime, Manifest, Plan, Shard, map_shard, overlap, shard_problem


class ZooWriter:
    """Writes the planned shards of a zoo, in any order, each atomically; made by ``create``, ``resume`` or
    ``open_or_create``. One writer at a time.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 4, 1)
        >>> path = tempfile.mkdtemp()
        >>> plan = [("train", 3, [0, 3]), ("test", 2, [3, 5])]
        >>> writer = ZooWriter.create(path, spec, recipe={"steps": 10}, plan=plan)
        >>> writer.write(1, ws.Weights(torch.zeros(2, 17), spec), sources=[3, 4], labels=[0, 1])
        >>> writer.pending(), ZooWriter.resume(path, spec, recipe={"steps": 10}, plan=plan).pending()
        ([0], [0])
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self._manifest = manifest
        self._sources: dict[int, Tensor] = {
            index: map_shard(path / shard.file)["source"].clone()
            for index, shard in enumerate(manifest.shards)
            if shard.done
        }

    @property
    def path(self) -> Path:
        return self._path

    @property
    def spec(self) -> NetSpec:
        return self._manifest.spec

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, planned and done, in the plan's order."""
        return self._manifest.shards

    def pending(self) -> list[int]:
        """Indices of the shards still to be written."""
        return [index for index, shard in enumerate(self.shards) if not shard.done]

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
            init_regime: ``"independent"``, ``"shared"`` or ``"unknown"`` initialisation of the networks.
            seed: the seed of the fit.
            views: fits per signal.
            classes: names of the labels 0, 1, ...; empty when the labels have no names.
            data_digest: hash of the signals, so that a fit resumed with other data is refused.
            provenance: data set name, licence, citation, ...; versions and the date are added.

        Raises:
            ValueError: for a folder that holds something already, an impossible plan, or values JSON cannot hold.
            OSError: if the folder cannot be written.
        """
        path = Path(path)
        check_empty(path, MANIFEST)
        manifest = new_manifest(spec, plan, recipe, init_regime, seed, views, classes, data_digest, provenance)
        manifest.write(path)
        sync_folder(path.absolute().parent)
        remove_leftovers(path)
        return cls(path, manifest)

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

        Takes the arguments of :meth:`create`, of which all but ``provenance`` must be those of the zoo.

        Raises:
            ValueError: if the folder is no zoo, or was begun with another spec, recipe, seed, data or plan; the
                message says which, and nothing is changed.
        """
        path = Path(path)
        found = Manifest.read(path)
        expected = new_manifest(spec, plan, recipe, init_regime, seed, views, classes, data_digest, provenance)
        if other := difference(expected, found):
            raise ValueError(f"{path} was begun otherwise: {other}; fit into another folder or ask for the same")
        remove_leftovers(path)
        remove_leftovers(path / "shards")
        kept = found
        for index, shard in enumerate(found.shards):
            if shard.done and shard_problem(path, shard, spec.num_params, digest=True):
                kept = kept.with_shard(index, replace(shard, state="planned", bytes=None, sha256=None))
        if kept != found:
            kept.write(path)
        return cls(path, kept)

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
    ) -> None:
        """Write one planned shard: first its file, then the manifest that calls it done, each atomically.

        Args:
            index: which shard of the plan.
            weights: as many networks as planned, float32, finite, on any device.
            sources: ``[batch]`` integers: the signal of each network; all of one signal lie in one split.
            labels: ``[batch]`` integers, -1 for unlabelled; by default all are.
            views: ``[batch]`` integers, which fit of the signal it is; by default 0.
            psnr: ``[batch]`` fit quality in dB; by default NaN, unknown.

        Raises:
            TypeError: for weights that are not float32.
            ValueError: for another spec or count, networks that are not finite, columns of another length, labels
                outside the classes, a source that another split has, or a shard that is done.
            OSError: if the disk is full; the zoo is as before.
        """
        shard = self._shard(index)
        tensors = {"flat": flat(weights, self.spec, shard)}
        given = {"label": (labels, -1), "source": (sources, 0), "view": (views, 0), "psnr": (psnr, float("nan"))}
        for name, (values, default) in given.items():
            tensors[name] = column(name, values, default, shard.count)
        check_range("labels", tensors["label"], -1, len(self._manifest.classes) or None)
        check_range("views", tensors["view"], 0, self._manifest.views)
        self._check_sources(shard.split, tensors["source"])
        data = save(tensors)
        write_atomic(self._path / shard.file, data)
        done = replace(shard, state="done", bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        manifest = self._manifest.with_shard(index, done)
        manifest.write(self._path)
        self._manifest = manifest
        self._sources[index] = tensors["source"]

    def _shard(self, index: int) -> Shard:
        if index not in range(len(self.shards)):
            raise ValueError(f"index: expected a shard of the plan, 0 to {len(self.shards) - 1}, got {index!r}")
        if self.shards[index].done:
            raise ValueError(f"index: expected a pending shard, got {index}, which is done; pending() lists the others")
        return self.shards[index]

    def _check_sources(self, split: str, sources: Tensor) -> None:
        mine = dict[str, list[Tensor]]({split: [sources]})
        for index, own in self._sources.items():
            mine.setdefault(self.shards[index].split, []).append(own)
        if problem := overlap(mine):
            raise ValueError(problem)
