"""One shard's order: all that a process anywhere needs to write it, and the record it leaves beside the file."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from weightspace._files import write_atomic
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.zoo._checks import check_range, column, flat
from weightspace.zoo._format import MANIFEST, Manifest, Shard, shard_problem

RECORD = ".done.json"


@dataclass(frozen=True)
class ShardOrder:
    """A planned shard that can be written without its zoo's writer, by any process that sees the folder.

    Args:
        folder: the zoo's.
        shard: what is planned.
        spec: what each network is.
        classes: number of named labels; 0 where they have no names.
        views: fits per signal.
        stamp: hash of all that the networks depend on, from :func:`stamp`.
    """

    folder: str
    shard: Shard
    spec: NetSpec
    classes: int
    views: int
    stamp: str

    def tensors(self, weights: Weights, sources: Any, labels: Any, views: Any, psnr: Any) -> dict[str, Tensor]:
        """The checked content of the file; arguments and errors as for :meth:`ZooWriter.write`."""
        found = {"flat": flat(weights, self.spec, self.shard)}
        given = {"label": (labels, -1), "source": (sources, 0), "view": (views, 0), "psnr": (psnr, float("nan"))}
        for name, (values, default) in given.items():
            found[name] = column(name, values, default, self.shard.count)
        check_range("labels", found["label"], -1, self.classes or None)
        check_range("views", found["view"], 0, self.views)
        return found

    def store(self, tensors: dict[str, Tensor], *, record: bool = True) -> Shard:
        """Write the file, and then the record that says that it is whole; each atomically.

        Raises:
            OSError: if the disk is full, or the folder is not the zoo's as this machine sees it.
        """
        folder = Path(self.folder)
        if not (folder / MANIFEST).is_file():
            raise FileNotFoundError(
                f"{folder}: expected the zoo's folder, got none with a {MANIFEST}; every machine that fits must see "
                "the folder under this path"
            )
        data = save(tensors)
        write_atomic(folder / self.shard.file, data)
        done = replace(self.shard, state="done", bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        if record:
            body = {"stamp": self.stamp, "bytes": done.bytes, "sha256": done.sha256}
            write_atomic(
                record_path(folder, self.shard), json.dumps(body).encode(), sync=False
            )  # one that is lost costs a fit
        return done


def record_path(folder: Path, shard: Shard) -> Path:
    return (folder / shard.file).with_suffix(RECORD)


def stamp(manifest: Manifest, shard: Shard) -> str:
    """Hash of a shard's plan and of everything in the manifest that its bits depend on."""
    about = [getattr(manifest, name) for name in ("recipe", "init_regime", "seed", "views", "classes", "data_digest")]
    text = json.dumps([json.loads(manifest.spec.to_json()), *about, shard.file, *shard.plan], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def adopt(folder: Path, manifest: Manifest, *, digest: bool) -> Manifest:
    """The manifest with every planned shard done whose record and file say so: what a killed fit left behind."""
    shards = list(manifest.shards)
    for index, shard in enumerate(shards):
        done = None if shard.done else _recorded(folder, manifest, shard)
        if done is not None and not shard_problem(folder, done, manifest.spec.num_params, digest=digest):
            shards[index] = done
    return manifest if tuple(shards) == manifest.shards else replace(manifest, shards=tuple(shards))


def _recorded(folder: Path, manifest: Manifest, shard: Shard) -> Shard | None:
    with contextlib.suppress(OSError, ValueError):
        body = json.loads(record_path(folder, shard).read_bytes())
        if isinstance(body, dict) and body.get("stamp") == stamp(manifest, shard):
            size, sha256 = body.get("bytes"), body.get("sha256")
            if isinstance(size, int) and isinstance(sha256, str):
                return replace(shard, state="done", bytes=size, sha256=sha256)
    return None


def remove_records(folder: Path) -> None:
    """Delete the records; the manifest says all that they say once it is written."""
    for path in (folder / "shards").glob(f"*{RECORD}"):
        path.unlink(missing_ok=True)
