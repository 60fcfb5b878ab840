"""Everything that can be wrong with a zoo on disk, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from weightspace._evaluate import evaluate
from weightspace._weights import Weights
from weightspace.signals import SignalSet
from weightspace.zoo._format import Shard, map_shard, overlap, shard_problem

if TYPE_CHECKING:
    from weightspace.zoo._zoo import Zoo

TOLERANCE = 0.1
"""dB by which a recorded PSNR may differ from the one of the stored network."""
CHUNK = 64


def problems(zoo: Zoo, data: SignalSet | None, sample: int, seed: int) -> list[str]:
    """See :meth:`Zoo.verify`."""
    found, good = list[str](), list[Shard]()
    for shard in zoo.shards:
        if not shard.done:
            found.append(f"{shard.file} is planned and not done")
        elif problem := shard_problem(zoo.path, shard, zoo.spec.num_params, digest=True):
            found.append(problem)
        else:
            columns = map_shard(zoo.path / shard.file)
            found += [f"{shard.file}: {problem}" for problem in _content(zoo, columns)]
            good.append(shard)
    identity = {
        split: [_identity(zoo, shard) for shard in good if shard.split == split] for split in {s.split for s in good}
    }
    shared = overlap({split: [source for source, _ in identity[split]] for split in zoo.splits if split in identity})
    found += [] if shared is None else [shared]
    found += [problem for split in identity if (problem := doubled(split, identity[split]))]
    if data is not None and good:
        found += _quality(zoo, good, data, sample, seed)
    return found


def _content(zoo: Zoo, columns: dict[str, Tensor]) -> list[str]:
    out, labels, views = [], columns["label"], columns["view"]
    if len(bad := torch.nonzero(~columns["flat"].isfinite().all(1)).flatten()):
        out.append(f"{len(bad)} networks are not finite, first in row {bad[0].item()}")
    stop = len(zoo.classes) if zoo.classes else None
    if len(bad := labels[(labels < -1) | (labels >= stop if stop is not None else False)]):
        out.append(f"expected labels of the {stop} classes, got {bad[0].item()}")
    if len(bad := views[(views < 0) | (views >= zoo.num_views)]):
        out.append(f"expected views below {zoo.num_views}, got {bad[0].item()}")
    return out


def _identity(zoo: Zoo, shard: Shard) -> tuple[Tensor, Tensor]:
    columns = map_shard(zoo.path / shard.file)
    return columns["source"].clone(), columns["view"].clone()


def doubled(split: str, parts: Sequence[tuple[Tensor, Tensor]]) -> str | None:
    """The first network of a split that is there twice; ``None`` where each view of a source is there once."""
    source, view = (np.concatenate([part[which].numpy() for part in parts]) for which in (0, 1))
    order = np.lexsort((view, source))
    source, view = source[order], view[order]
    twice = np.flatnonzero((source[1:] == source[:-1]) & (view[1:] == view[:-1]))
    if not len(twice):
        return None
    first = f"source {source[twice[0]]}, view {view[twice[0]]}"
    return f"expected every view of a source once, got {first} twice in {split!r} ({len(twice)} doubled in all)"


def _quality(zoo: Zoo, shards: list[Shard], data: SignalSet, sample: int, seed: int) -> list[str]:
    """Whether networks drawn at random are as good as the zoo says."""
    row = {int(source): number for number, source in enumerate(data.sources)}
    counts = torch.tensor([shard.count for shard in shards])
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(int(counts.sum()), generator=generator)[:sample].sort().values
    first = 0
    for shard, count in zip(shards, counts.tolist(), strict=True):
        mine = drawn[(drawn >= first) & (drawn < first + count)] - first
        columns, first = map_shard(zoo.path / shard.file), first + count
        for rows in mine.split(CHUNK) if len(mine) else ():
            sources = columns["source"][rows].tolist()
            if unknown := [source for source in sources if source not in row]:
                return [f"{shard.file}: expected sources of {data.name}, got {unknown[0]}; verify with the zoo's data"]
            coords, targets = data.signals([row[source] for source in sources])
            values = evaluate(Weights(columns["flat"][rows], zoo.spec), coords)
            psnr = -10 * (values - targets).square().mean((1, 2)).clamp_min(1e-12).log10()
            told = columns["psnr"][rows]
            wrong = torch.nonzero((psnr - told).abs() > TOLERANCE).flatten().tolist()  # unknown ones compare as right
            if wrong:
                return [
                    f"{shard.file}: expected the recorded {told[wrong[0]]:.2f} dB in row {int(rows[wrong[0]])}, "
                    f"got {psnr[wrong[0]]:.2f} dB; these are other networks, or other data"
                ]
    return []
