"""Write one planned shard from any process, and find the shards that a killed process has finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from weightspace._files import check_own_folder, read_json, write_atomic
from weightspace._networks import Networks, check_networks
from weightspace._spec import NetSpec
from weightspace._table import encoded, kinds_of
from weightspace._weights import check_finite
from weightspace.zoo._format import FURTHER, MANIFEST, Manifest, Shard
from weightspace.zoo._shards import shard_problem

RECORD = ".done.json"
MOST_READS = 100


@dataclass(frozen=True)
class ShardTarget:
    """A planned shard with its place: all that a process needs to write it, if it sees the zoo's folder.

    Args:
        folder: the folder of the zoo.
        shard: the record of the shard, as planned.
        spec: the spec of its networks.
        classes: number of named labels; 0 where they have no names.
        views: fits per signal.
        stamp: hash of all that the networks depend on, from :func:`stamp`.
        further: kinds of the further columns by name.
    """

    folder: str
    shard: Shard
    spec: NetSpec
    classes: int
    views: int
    stamp: str
    further: Mapping[str, str] = field(default_factory=dict)

    def columns(self, networks: Networks) -> dict[str, Tensor]:
        """Check the networks and return the content of the file, by column.

        Raises:
            TypeError, ValueError: for networks that the shard cannot hold.
        """
        check_networks("networks", networks)
        weights, count = networks.weights, self.shard.count
        if weights.spec != self.spec:
            raise ValueError(f"networks: expected the zoo's spec {self.spec}, got {weights.spec}")
        if weights.dtype != torch.float32:
            raise TypeError(f"networks: expected float32 weights, got {weights.dtype}; convert them to torch.float32")
        if list(weights.flat.shape) != [count, self.spec.num_params]:
            raise ValueError(
                f"networks: expected the {count} planned for {self.shard.file}, got weights {list(weights.flat.shape)}"
            )
        if networks.source is None:
            raise ValueError("source: expected the signal of each network, got none")
        check_finite("networks", weights)
        columns = {
            "flat": weights.flat.detach(),
            "label": torch.full((count,), -1) if networks.label is None else networks.label,
            "source": networks.source,
            "view": torch.zeros(count, dtype=torch.int64) if networks.view is None else networks.view,
            "psnr": torch.full((count,), float("nan")) if networks.psnr is None else networks.psnr,
        }
        if not columns["label"].is_floating_point():
            _check_range("label", columns["label"], -1, self.classes or None)
        elif self.classes:
            raise ValueError(f"label: expected whole numbers of the {self.classes} classes, got real ones")
        _check_range("view", columns["view"], 0, self.views)
        if (got := kinds_of(networks.columns)) != self.further:
            raise ValueError(f"columns: expected {dict(self.further)} as the zoo has, got {got}")
        flat = columns.pop("flat").cpu().contiguous()
        further = {FURTHER + name: encoded(values) for name, values in networks.columns.items()}
        return {"flat": flat, **{name: value.cpu().clone() for name, value in columns.items()}, **further}  # all apart

    def write(self, networks: Networks, *, record: bool = True) -> Shard:
        """Write the file, and then a record that says that it is whole; each atomically.

        Args:
            networks: as many as planned, float32 and finite, with their sources.
            record: whether to write the record, which stands for the manifest until that is written.

        Returns:
            The shard's finished entry of the manifest.

        Raises:
            TypeError, ValueError: for networks that the shard cannot hold.
            OSError: if the disk is full, or the folder is not the zoo's as this machine sees it.
        """
        return self.store(self.columns(networks), record=record)

    def store(self, columns: dict[str, Tensor], *, record: bool) -> Shard:
        """Write columns that :meth:`columns` returned, see :meth:`write`."""
        folder = Path(self.folder)
        if not (folder / MANIFEST).is_file():
            raise FileNotFoundError(
                f"{folder}: expected the zoo's folder, got none with a {MANIFEST}; every machine that fits must see "
                "the folder under this path"
            )
        check_own_folder((folder / self.shard.file).parent)
        data = save(columns)
        write_atomic(folder / self.shard.file, data)
        done = replace(self.shard, state="done", bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        if record:
            body = {"stamp": self.stamp, "bytes": done.bytes, "sha256": done.sha256}
            path = _record_path(folder, self.shard)
            write_atomic(path, json.dumps(body).encode(), sync=False)  # one that is lost costs a fit, no more
        return done


def _check_range(name: str, values: Tensor, low: int, stop: int | None) -> None:
    """Raise ``ValueError`` unless every value is at least ``low`` and below ``stop``."""
    bad = values[(values < low) | (values >= stop if stop is not None else False)]
    if len(bad):
        below = "" if stop is None else f" and below {stop}"
        raise ValueError(f"{name}: expected integers from {low}{below}, got {bad[0].item()}")


def _record_path(folder: Path, shard: Shard) -> Path:
    return (folder / shard.file).with_suffix(RECORD)


def stamp(manifest: Manifest, shard: Shard) -> str:
    """Hash a shard's plan and everything in the manifest that its bits depend on."""
    names = ("recipe", "init_regime", "seed", "views", "classes", "data_digest")
    settings = [getattr(manifest.settings, name) for name in names]
    settings += [manifest.settings.columns] if manifest.settings.columns else []
    text = json.dumps([json.loads(manifest.spec.to_json()), *settings, shard.file, *shard.plan], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def adopt(folder: Path, manifest: Manifest, *, digest: bool) -> Manifest:
    """Return the manifest with every planned shard done whose record and file say so, as a killed fit left them.

    Args:
        folder: the folder of the zoo.
        manifest: its manifest.
        digest: whether to compare the hash of each such file too.
    """
    shards = list(manifest.shards)
    for index, shard in enumerate(shards):
        done = None if shard.done else _recorded(folder, manifest, shard)
        if done is not None and not shard_problem(folder, done, manifest.spec.num_params, digest=digest):
            shards[index] = done
    return manifest if tuple(shards) == manifest.shards else replace(manifest, shards=tuple(shards))


def read_settled(folder: Path) -> Manifest:
    """Read the manifest of a zoo that may be written to right now, with every shard done that a record says is.

    A writer removes the records after it has written the manifest that makes them needless. So a reader that finds a
    record gone reads the manifest once more: a shard that was done is never planned again.

    Raises:
        ValueError: if the folder is no zoo, or one of an unknown version.
    """
    manifest = Manifest.read(folder)
    for _ in range(MOST_READS):
        found = adopt(folder, manifest, digest=False)
        if all(shard.done for shard in found.shards) or (again := Manifest.read(folder)) == manifest:
            return found
        manifest = again
    return adopt(folder, manifest, digest=False)


def _recorded(folder: Path, manifest: Manifest, shard: Shard) -> Shard | None:
    """Return the shard as its record says that it is done; ``None`` without a record of this very plan."""
    with contextlib.suppress(OSError, ValueError):
        body = read_json(_record_path(folder, shard), "the record of a shard", most=4096)
        if isinstance(body, dict) and body.get("stamp") == stamp(manifest, shard):
            size, sha256 = body.get("bytes"), body.get("sha256")
            if isinstance(size, int) and isinstance(sha256, str):
                return replace(shard, state="done", bytes=size, sha256=sha256)
    return None


def remove_records(folder: Path) -> None:
    """Delete the records; the manifest says all that they say once it is written."""
    for path in (folder / "shards").glob(f"*{RECORD}"):
        path.unlink(missing_ok=True)
