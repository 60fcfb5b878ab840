"""Reading a zoo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._weights import Weights, summary
from weightspace.zoo._format import InitRegime, Manifest, Shard, map_shard, overlap, shard_problem

SHOWN = 3


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

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self._manifest = manifest
        self._maps: dict[str, dict[str, Tensor]] = {}
        self._joined: dict[tuple[str, str], Tensor] = {}

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True, allow_incomplete: bool = False) -> Zoo:
        """Open a zoo; the shards are mapped, not read.

        Args:
            path: its folder.
            verify: whether to compare every shard's sha256 with the manifest's (about a second per gigabyte).
            allow_incomplete: whether a fit that has not ended will do; its done shards are the zoo.

        Raises:
            ValueError: if the folder is no zoo or one of an unknown version, if the fit has not ended, or if a shard
                is missing, truncated or altered.
        """
        path = Path(path)
        manifest = Manifest.read(path)
        done = [shard for shard in manifest.shards if shard.done]
        problems = [shard_problem(path, shard, manifest.spec.num_params, digest=verify) for shard in done]
        if found := [problem for problem in problems if problem]:
            more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise ValueError(
                f"{path}: {'; '.join(found[:SHOWN])}{more}; copy the zoo again, or run the fit again to mend it"
            )
        if len(done) < len(manifest.shards) and not allow_incomplete:
            raise ValueError(
                f"{path}: {len(done)} of {len(manifest.shards)} shards are done; run the fit again to finish it, "
                "or open it with allow_incomplete=True"
            )
        return cls(path, manifest)

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {self.count(split)}" for split in self.splits)
        return f"Zoo({str(self.path)!r}, {counts}, {self.init_regime} inits, {summary(self.spec)})"

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
        """Whether the networks started from ``"independent"``, one ``"shared"`` or ``"unknown"`` initialisation."""
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

    def verify(self) -> list[str]:
        """Everything that is wrong with the zoo, one line each; empty if nothing is.

        Reads every shard: its hash and shapes, that all numbers are finite, labels within the classes, views within
        their number, and no source in two splits. Shards still planned count as wrong.
        """
        problems, sources = [], {split: list[Tensor]() for split in self.splits}
        for shard in self.shards:
            if not shard.done:
                problems.append(f"{shard.file} is planned and not done")
            elif problem := shard_problem(self.path, shard, self.spec.num_params, digest=True):
                problems.append(problem)
            else:
                columns = map_shard(self.path / shard.file)
                problems += [f"{shard.file}: {problem}" for problem in self._content_problems(columns)]
                sources[shard.split].append(columns["source"])
        shared = overlap(sources)
        return problems if shared is None else [*problems, shared]

    def summary(self) -> dict[str, Any]:
        """What is in the zoo, as plain values: spec, recipe, and per split counts, labels and PSNR in dB."""
        return {
            "path": str(self.path),
            "spec": summary(self.spec),
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
        """One tensor per shard, mapped."""
        shards = self._done(split)
        for shard in shards:
            if shard.file not in self._maps:
                self._maps[shard.file] = map_shard(self.path / shard.file)
        return [self._maps[shard.file][name] for shard in shards]

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
        ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        labels = self._join("label", split)
        for start in range(0, stop, batch_size):
            end = min(start + batch_size, stop)
            if order is None:
                flat, label = _slice(parts, start, end), labels[start:end]
            else:
                index = order[start:end]
                flat, label = _gather(parts, ends, index), labels.index_select(0, index)
            if device is not None:
                flat, label = flat.to(device), label.to(device)
            yield Weights(flat, self.spec), label

    def _content_problems(self, columns: dict[str, Tensor]) -> list[str]:
        problems, labels, views = [], columns["label"], columns["view"]
        if len(bad := torch.nonzero(~columns["flat"].isfinite().all(1)).flatten()):
            problems.append(f"{len(bad)} networks are not finite, first in row {bad[0].item()}")
        stop = len(self.classes) if self.classes else None
        if len(bad := labels[(labels < -1) | (labels >= stop if stop is not None else False)]):
            problems.append(f"expected labels of the {stop} classes, got {bad[0].item()}")
        if len(bad := views[(views < 0) | (views >= self.num_views)]):
            problems.append(f"expected views below {self.num_views}, got {bad[0].item()}")
        return problems

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


def _slice(parts: list[Tensor], start: int, end: int) -> Tensor:
    """Rows ``start`` to ``end`` of the parts laid end to end; a view where one part holds them."""
    pieces, first = [], 0
    for part in parts:
        if first < end and start < first + len(part):
            pieces.append(part[max(start - first, 0) : end - first])
        first += len(part)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _gather(parts: list[Tensor], ends: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` of the parts laid end to end, in that order: one gather per part, whatever the batch size."""
    if len(parts) == 1:
        return parts[0].index_select(0, index)
    ranked, places = index.sort()
    rows, slots = ranked.numpy(), places.numpy()
    cuts = [0, *torch.searchsorted(ranked, ends).tolist()]
    firsts = [0, *ends.tolist()]
    # NumPy scatters rows two to four times as fast as index_copy_ does.
    out = np.empty((len(index), parts[0].shape[1]), dtype=np.float32)
    for part, first, start, end in zip(parts, firsts[:-1], cuts[:-1], cuts[1:], strict=True):
        if start < end:
            out[slots[start:end]] = part.numpy()[rows[start:end] - first]
    return torch.from_numpy(out)
