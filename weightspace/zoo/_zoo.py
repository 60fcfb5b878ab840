"""Read a zoo: its splits as networks, and epochs of batches."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from weightspace._checks import whole_number
from weightspace._networks import COLUMNS, Networks
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.zoo._format import InitRegime, Manifest, Shard, ZooSettings, map_shard, shard_problem
from weightspace.zoo._rows import ShardRows
from weightspace.zoo._target import adopt

RESIDENT_BYTES = 2 << 30
"""Splits of at most this size are held in memory by :meth:`Zoo.batches`, and larger ones read from the files."""
MOST_PROBLEMS = 3
MOST_HASHERS = 8
Verify = bool | Literal["lazy"]


class Zoo:
    """Networks on disk, with labels, sources, recipe and fit quality; opened by :meth:`open`.

    ``zoo["train"]`` is a split as :class:`Networks`, :meth:`batches` walks through one.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)), label=[0, 1, 0])
        >>> path = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks).path
        >>> zoo = Zoo.open(path)
        >>> zoo.splits, zoo["train"]
        (('train',), Networks(3 x siren(2-4-1, omega=30), label, source, view, psnr, cpu))
        >>> [len(batch) for batch in zoo.batches("train", 2, generator=torch.Generator().manual_seed(0))]
        [2, 1]
    """

    def __init__(self, path: Path, manifest: Manifest, *, unread: Sequence[Shard] = ()) -> None:
        self._unread = {shard.file for shard in unread}
        self._path = path
        self._manifest = manifest
        self._maps: dict[str, dict[str, Tensor]] = {}
        self._joined: dict[tuple[str, str], Tensor] = {}
        self._resident: dict[tuple[str, torch.device], ShardRows] = {}

    @classmethod
    def open(cls, path: str | Path, *, verify: Verify = "lazy", allow_incomplete: bool = False) -> Zoo:
        """Open a zoo; the shards are mapped, not read, so that a million networks open in a moment.

        Every shard's size, types and shapes are compared with the manifest now. Its sha256 is compared before the
        first number of it is given out.

        Args:
            path: its folder.
            verify: ``"lazy"`` for that; ``True`` to compare every sha256 now (reads all of it, about a second per
                gigabyte); ``False`` never to.
            allow_incomplete: whether to open a zoo whose fit has not ended, with the shards that are done.

        Raises:
            ValueError: if the folder is not a zoo, or one of an unknown version, if the fit has not ended, or if a shard
                is missing, truncated or altered.
        """
        if verify not in (True, False, "lazy"):
            raise ValueError(f"verify: expected True, False or 'lazy', got {verify!r}")
        path = Path(path)
        manifest = Manifest.read(path)
        if allow_incomplete:
            manifest = adopt(path, manifest, digest=False)
        done = [shard for shard in manifest.shards if shard.done]
        _raise_problems(path, done, manifest.spec.num_params, digest=verify is True)
        if len(done) < len(manifest.shards) and not allow_incomplete:
            raise ValueError(
                f"{path}: {len(done)} of {len(manifest.shards)} shards are done; run the fit again to finish it, "
                "or open it with allow_incomplete=True"
            )
        return cls(path, manifest, unread=done if verify == "lazy" else ())

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {self.count(split)}" for split in self.splits)
        return f"Zoo({str(self.path)!r}, {counts}, {self.init_regime} inits, {self.spec})"

    @property
    def path(self) -> Path:
        return self._path

    @property
    def spec(self) -> NetSpec:
        return self._manifest.spec

    @property
    def recipe(self) -> dict[str, Any]:
        """How the networks were fitted, as the writer recorded it."""
        return json.loads(json.dumps(self._manifest.settings.recipe))

    @property
    def init_regime(self) -> InitRegime:
        """``"independent"`` starts, one ``"shared"``, one learned start (``"meta"``), or ``"unknown"``."""
        return self._manifest.settings.init_regime

    @property
    def seed(self) -> int | None:
        return self._manifest.settings.seed

    @property
    def num_views(self) -> int:
        """Fits per signal."""
        return self._manifest.settings.views

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the signals come from and what wrote the zoo."""
        return json.loads(json.dumps(self._manifest.settings.provenance))

    @property
    def data_digest(self) -> str | None:
        """Hash of the signals, if the writer gave one."""
        return self._manifest.settings.data_digest

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty when they have none."""
        return tuple(self._manifest.settings.classes)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The manifest's record of every shard."""
        return self._manifest.shards

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in the order in which they were planned."""
        return tuple(dict.fromkeys(shard.split for shard in self.shards if shard.done))

    def count(self, split: str) -> int:
        """Number of networks in a split."""
        return sum(shard.count for shard in self._done(split))

    @property
    def settings(self) -> ZooSettings:
        """All that the zoo records of its networks as a whole."""
        return self._manifest.settings

    @property
    def num_classes(self) -> int:
        """Number of classes: as many as are named, or one more than the largest label.

        Raises:
            ValueError: if a network has no label, labels are real-valued, or a label is too large to be a class.

        Example:
            >>> import tempfile
            >>> import weightspace as ws
            >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)), label=[0, 2, 1])
            >>> ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks).num_classes
            3
        """
        labels = torch.cat([self.labels(split) for split in self.splits])
        if labels.is_floating_point():
            raise ValueError("expected a zoo with classes, got real-valued labels; train with objective='regression'")
        if bool((labels < 0).any()):
            raise ValueError(
                f"expected a zoo with labels, got {int((labels < 0).sum())} of {len(labels)} networks without (label -1); "
                "fit labelled signals"
            )
        found = 1 + int(labels.max())
        if not self.classes and found > max(1000, len(labels)):
            raise ValueError(
                f"expected labels that number classes, got the label {found - 1} in a zoo of {len(labels)} networks; "
                "number the classes 0, 1, ..., or store the labels as real numbers to predict them"
            )
        return max(len(self.classes), found)

    def __getitem__(self, split: str) -> Networks:
        """Return a split: mapped from the file if the split is one shard, else joined in memory once and kept.

        Raises:
            ValueError: for a split that the zoo does not have.
        """
        return Networks(
            self.weights(split), self.labels(split), self.sources(split), self.views(split), self.psnr(split)
        )

    def weights(self, split: str) -> Weights:
        """Return a split's weights, see :meth:`__getitem__`."""
        return Weights(self._join("flat", split), self.spec)

    def labels(self, split: str) -> Tensor:
        """Return ``[batch]`` int64, -1 where unlabelled, or float32 for real-valued labels."""
        return self._join("label", split)

    def sources(self, split: str) -> Tensor:
        """Return ``[batch]`` int64: the signal that each network was fitted to."""
        return self._join("source", split)

    def views(self, split: str) -> Tensor:
        """Return ``[batch]`` int64: which of the fits to its signal each network is."""
        return self._join("view", split)

    def psnr(self, split: str) -> Tensor:
        """Return ``[batch]`` float32, dB; NaN where unknown."""
        return self._join("psnr", split)

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        rows: Tensor | None = None,
        device: torch.device | str | None = None,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> Iterator[Networks]:
        """Iterate over one epoch: batches of networks, every network once.

        A split that fits ``resident_bytes`` is held in memory (or on the device) from its first epoch on. Of a larger
        one the rows of each batch are gathered from the mapped files. The batches are the same in both cases: their
        order depends on the generator alone, not on how the split is cut into shards. It is drawn when this is called.
        Without shuffling, batches are views of the mapped file wherever they are within one shard.

        Args:
            split: name of the split.
            batch_size: networks in a batch; the last may have fewer.
            generator: where the order comes from.
            shuffle: whether to shuffle; if not, the order is that on disk.
            drop_last: whether to leave out a last batch that is not full.
            rows: numbers of the networks to walk through, by default all of the split.
            device: where the batches shall be; by default in memory.
            resident_bytes: the largest size of a split's weights to hold in memory; 0 to read from the files always.

        Raises:
            TypeError: when asked to shuffle without a generator.
            ValueError: for an unknown split or a batch size below one.
        """
        whole_number("batch_size", batch_size)
        if shuffle and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator: expected a torch.Generator to shuffle with, got {type(generator).__name__}; "
                "make one with torch.Generator().manual_seed(0), or pass shuffle=False"
            )
        count = self.count(split) if rows is None else len(rows)
        order = rows
        if shuffle and generator is not None:
            order = torch.randperm(count, generator=generator, device=generator.device).cpu()
            order = order if rows is None else rows[order]
        stop = count - count % batch_size if drop_last else count
        device = torch.device("cpu" if device is None else device)
        return self._epoch(split, order, stop, batch_size, device, resident_bytes)

    def summary(self) -> dict[str, Any]:
        """Describe the zoo by plain values: spec, recipe, and per split counts, labels and PSNR in dB."""
        return {
            "path": str(self.path),
            "spec": str(self.spec),
            "num_params": self.spec.num_params,
            "recipe": self.recipe,
            "init_regime": self.init_regime,
            "seed": self.seed,
            "views": self.num_views,
            "classes": list(self.classes),
            "provenance": self.provenance,
            "bytes": sum(shard.bytes or 0 for shard in self.shards),
            "shards": len(self.shards),
            "shards_done": sum(shard.done for shard in self.shards),
            "splits": {split: self._split_summary(split) for split in self.splits},
        }

    def _done(self, split: str) -> list[Shard]:
        if split not in self.splits:
            raise ValueError(f"split: expected one of {list(self.splits)}, got {split!r}")
        return [shard for shard in self.shards if shard.done and shard.split == split]

    def _columns(self, name: str, split: str) -> list[Tensor]:
        """Return one mapped tensor for each shard; a shard is hashed before it is read for the first time."""
        shards = self._done(split)
        if unread := [shard for shard in shards if shard.file in self._unread]:
            _raise_problems(self.path, unread, self.spec.num_params, digest=True)
            self._unread.difference_update(shard.file for shard in unread)
        for shard in shards:
            if shard.file not in self._maps:
                self._maps[shard.file] = map_shard(self.path / shard.file)
        return [self._maps[shard.file][name] for shard in shards]

    def take(self, split: str, rows: Tensor) -> Networks:
        """Return the networks of a split at ``rows``, in that order, gathered from the mapped files.

        Raises:
            ValueError: for an unknown split.
            IndexError: for a row that is not there.
        """
        label, source, view, psnr = (self._rows(name, split).take(rows) for name in COLUMNS)
        return Networks(Weights(self._rows("flat", split).take(rows), self.spec), label, source, view, psnr)

    def _rows(self, name: str, split: str) -> ShardRows:
        joined = self._joined.get((name, split))
        return ShardRows(self._columns(name, split) if joined is None else [joined])

    def _join(self, name: str, split: str) -> Tensor:
        key = (name, split)
        if key not in self._joined:
            self._joined[key] = ShardRows(self._columns(name, split)).tensor()
        return self._joined[key]

    def _flat(self, split: str, device: torch.device, resident_bytes: int) -> ShardRows:
        """Return a split's weights for an epoch: in memory or on the device where they fit, else mapped."""
        if (held := self._resident.get((split, device))) is not None:
            return held
        mapped = self._rows("flat", split)
        if mapped.nbytes > resident_bytes:
            return mapped
        self._resident[split, device] = mapped.to(device) if device.type != "cpu" else mapped.joined()
        return self._resident[split, device]

    def _epoch(
        self, split: str, order: Tensor | None, stop: int, batch_size: int, device: torch.device, resident_bytes: int
    ) -> Iterator[Networks]:
        flat = self._flat(split, device, resident_bytes)
        columns = [self._join(name, split) for name in COLUMNS]
        for start in range(0, stop, batch_size):
            end = min(start + batch_size, stop)
            rows = slice(start, end) if order is None else order[start:end]
            own = flat.stretch(start, end) if order is None else flat.take(order[start:end])
            yield Networks(Weights(own.to(device), self.spec), *(column[rows] for column in columns))

    def _split_summary(self, split: str) -> dict[str, Any]:
        psnr = self.psnr(split)
        known = psnr[~psnr.isnan()]
        labels, counts = self.labels(split).unique(return_counts=True)
        quality = None
        if len(known):
            marks = dict(zip(("min", "q05", "median", "q95", "max"), (0, 0.05, 0.5, 0.95, 1), strict=True))
            ranked = known.sort().values
            quality = {name: ranked[round(q * (len(ranked) - 1))].item() for name, q in marks.items()}
            quality["mean"] = known.double().mean().item()
        return {
            "count": self.count(split),
            "sources": len(self.sources(split).unique()),
            "views": len(self.views(split).unique()),
            "labels": dict(zip(labels.tolist(), counts.tolist(), strict=True)),
            "psnr": quality,
        }


def _raise_problems(path: Path, shards: Sequence[Shard], num_params: int, *, digest: bool) -> None:
    """Raise ``ValueError`` if any of the shards' files is not as the manifest says."""

    def problem(shard: Shard) -> str | None:
        return shard_problem(path, shard, num_params, digest=digest)

    if digest and len(shards) > 1:  # hashing leaves the interpreter to others
        with ThreadPoolExecutor(min(MOST_HASHERS, os.cpu_count() or 1)) as pool:
            found = [text for text in pool.map(problem, shards) if text]
    else:
        found = [text for text in map(problem, shards) if text]
    if found:
        more = f"; and {len(found) - MOST_PROBLEMS} more" if len(found) > MOST_PROBLEMS else ""
        raise ValueError(
            f"{path}: {'; '.join(found[:MOST_PROBLEMS])}{more}; copy the zoo again, or run the fit again to mend it"
        )
