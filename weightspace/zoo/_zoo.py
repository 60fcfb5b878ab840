"""Reading a zoo."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from weightspace._checks import check_generator, whole_number
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.signals import SignalSet
from weightspace.zoo import _rows, _verify
from weightspace.zoo._format import InitRegime, Manifest, Shard, map_shard, shard_problem
from weightspace.zoo._order import adopt

SHOWN = 3
HASHERS = 8
Verify = bool | Literal["lazy"]


class Zoo:
    """Weights on disk, with labels, sources, recipe and fit quality; made by :meth:`open`.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> from weightspace.zoo import Zoo, write_zoo
        >>> path = tempfile.mkdtemp()
        >>> w = ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1))
        >>> zoo = write_zoo(path, {"train": (w, [0, 1, 0], None, None, None)})
        >>> zoo = Zoo.open(path)
        >>> zoo.splits, zoo.count("train"), zoo.weights("train")
        (('train',), 3, Weights(3x17, torch.float32, cpu))
        >>> batches = zoo.batches("train", 2, generator=torch.Generator().manual_seed(0))
        >>> [len(weights) for weights, labels in batches]
        [2, 1]
    """

    def __init__(self, path: Path, manifest: Manifest, *, unread: Sequence[Shard] = ()) -> None:
        self._unread = {shard.file for shard in unread}
        self._path = path
        self._manifest = manifest
        self._maps: dict[str, dict[str, Tensor]] = {}
        self._joined: dict[tuple[str, str], Tensor] = {}

    @classmethod
    def open(cls, path: str | Path, *, verify: Verify = "lazy", allow_incomplete: bool = False) -> Zoo:
        """Open a zoo; the shards are mapped, not read, so that a million networks open in a moment.

        Every shard's size, types and shapes are compared with the manifest now. Its sha256 is compared before the
        first number of it is given out.

        Args:
            path: its folder.
            verify: ``"lazy"`` for that; ``True`` to compare every sha256 now (reads all of it, about a second per
                gigabyte); ``False`` never to.
            allow_incomplete: whether a fit that has not ended will do; its done shards are the zoo.

        Raises:
            ValueError: if the folder is no zoo or one of an unknown version, if the fit has not ended, or if a shard
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
        """How the networks were fitted, as the writer told it."""
        return json.loads(json.dumps(self._manifest.recipe))

    @property
    def init_regime(self) -> InitRegime:
        """``"independent"`` starts, one ``"shared"``, one learned start (``"meta"``), or ``"unknown"``."""
        return self._manifest.init_regime

    @property
    def seed(self) -> int | None:
        return self._manifest.seed

    @property
    def num_views(self) -> int:
        """Fits per signal."""
        return self._manifest.views

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the signals come from and what wrote the zoo."""
        return json.loads(json.dumps(self._manifest.provenance))

    @property
    def data_digest(self) -> str | None:
        """Hash of the signals, if the writer gave one."""
        return self._manifest.data_digest

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty when they have none."""
        return self._manifest.classes

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

    def weights(self, split: str) -> Weights:
        """A split's networks: mapped from the file if the split is one shard, else joined in memory once and kept.

        Raises:
            ValueError: for a split that the zoo does not have.
        """
        return Weights(self._join("flat", split), self.spec)

    def labels(self, split: str) -> Tensor:
        """``[batch]`` int64; -1 where unlabelled."""
        return self._join("label", split)

    def sources(self, split: str) -> Tensor:
        """``[batch]`` int64: the signal that each network was fitted to."""
        return self._join("source", split)

    def views(self, split: str) -> Tensor:
        """``[batch]`` int64: which of the fits to its signal each network is."""
        return self._join("view", split)

    def psnr(self, split: str) -> Tensor:
        """``[batch]`` float32, dB; NaN where unknown."""
        return self._join("psnr", split)

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        device: torch.device | str | None = None,
    ) -> Iterator[tuple[Weights, Tensor]]:
        """One epoch of ``(weights, labels)``, every network once.

        The rows of a batch are gathered from the mapped shards, so a split larger than the memory will do; the
        order depends on the generator alone, not on how the split lies in shards. It is drawn when this is called.
        Without shuffling, batches are views of the mapped file wherever they lie within one shard.

        Args:
            split: which.
            batch_size: networks in a batch; the last may have fewer.
            generator: where the order comes from.
            shuffle: whether to shuffle; if not, the order is that on disk.
            drop_last: whether to leave out a last batch that is not full.
            device: where the batches shall be; by default in memory.

        Raises:
            TypeError: when asked to shuffle without a generator.
            ValueError: for an unknown split or a batch size below one.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size!r}")
        if shuffle and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator: expected a torch.Generator to shuffle with, got {type(generator).__name__}; "
                "make one with torch.Generator().manual_seed(0), or pass shuffle=False"
            )
        count = self.count(split)
        order = None
        if shuffle and generator is not None:
            order = torch.randperm(count, generator=generator, device=generator.device).cpu()
        stop = count - count % batch_size if drop_last else count
        return self._epoch(split, order, stop, batch_size, device)

    def sample(self, split: str, count: int, *, generator: torch.Generator) -> tuple[Weights, Tensor]:
        """``count`` networks of a split drawn at random, each at most once, and their labels.

        Raises:
            TypeError: without a generator.
            ValueError: for an unknown split, or more networks than it has.

        Example:
            >>> import tempfile
            >>> import weightspace as ws
            >>> w = ws.Weights(torch.zeros(9, 17), ws.siren(2, 4, 1))
            >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), {"train": (w, None, None, None, None)})
            >>> zoo.sample("train", 4, generator=torch.Generator().manual_seed(0))[0]
            Weights(4x17, torch.float32, cpu)
        """
        check_generator(generator)
        whole_number("count", count)
        if count > (there := self.count(split)):
            raise ValueError(f"count: expected at most the {there} networks of {split!r}, got {count}")
        index = torch.randperm(there, generator=generator, device=generator.device)[:count].cpu()
        return Weights(self.take("flat", split, index), self.spec), self.take("label", split, index)

    def verify(self, data: SignalSet | None = None, *, sample: int = 256, seed: int = 0) -> list[str]:
        """Everything that is wrong with the zoo, one line each; empty if nothing is.

        Reads every shard: its hash and shapes, that all numbers are finite, labels within the classes, views within
        their number, no view of a source twice, and no source in two splits. Shards still planned count as wrong.

        Args:
            data: the signals that the zoo was fitted to: a sample of the networks is evaluated at them, and must have
                the PSNR that is recorded, to 0.1 dB.
            sample: networks to evaluate.
            seed: of the choice of those.
        """
        whole_number("sample", sample)
        return _verify.problems(self, data, sample, seed)

    def summary(self) -> dict[str, Any]:
        """What is in the zoo, as plain values: spec, recipe, and per split counts, labels and PSNR in dB."""
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
        """One tensor per shard, mapped; hashed before, if that is still to be done."""
        shards = self._done(split)
        if unread := [shard for shard in shards if shard.file in self._unread]:
            _raise_problems(self.path, unread, self.spec.num_params, digest=True)
            self._unread.difference_update(shard.file for shard in unread)
        for shard in shards:
            if shard.file not in self._maps:
                self._maps[shard.file] = map_shard(self.path / shard.file)
        return [self._maps[shard.file][name] for shard in shards]

    def take(self, name: str, split: str, index: Tensor) -> Tensor:
        """Rows of a split, in the order of ``index``, of a column: flat, label, source, view or psnr."""
        joined = self._joined.get((name, split))
        return _rows.Rows(self._columns(name, split) if joined is None else [joined]).take(index)

    def _join(self, name: str, split: str) -> Tensor:
        key = (name, split)
        if key not in self._joined:
            parts = self._columns(name, split)
            self._joined[key] = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self._joined[key]

    def _epoch(
        self, split: str, order: Tensor | None, stop: int, batch_size: int, device: torch.device | str | None
    ) -> Iterator[tuple[Weights, Tensor]]:
        joined = self._joined.get(("flat", split))
        parts = self._columns("flat", split) if joined is None else [joined]
        labels = self._join("label", split)
        labels = (labels if order is None else labels[order])[:stop].split(batch_size)
        for flat, label in zip(_rows.batches(parts, order, stop, batch_size), labels, strict=stop > 0):
            if device is None:
                yield Weights(flat, self.spec), label
            else:
                yield Weights(flat.to(device), self.spec), label.to(device)

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
        with ThreadPoolExecutor(min(HASHERS, os.cpu_count() or 1)) as pool:
            found = [text for text in pool.map(problem, shards) if text]
    else:
        found = [text for text in map(problem, shards) if text]
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ValueError(
            f"{path}: {'; '.join(found[:SHOWN])}{more}; copy the zoo again, or run the fit again to mend it"
        )
