"""Look at a whole zoo: everything that is wrong with it, and the statistics of its weights."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from weightspace._checks import whole_number
from weightspace._evaluate import PSNR_LIMIT, evaluate, psnr
from weightspace._weights import Weights
from weightspace.zoo._format import Shard
from weightspace.zoo._shards import doubled, map_shard, overlap, shard_problem
from weightspace.zoo._zoo import Zoo

TOLERANCE = 0.1
"""dB by which a recorded PSNR may differ from the one of the stored network."""
CHUNK = 64


class SignalSource(Protocol):
    """Signals that networks were fitted to, such as a set of :mod:`weightspace.signals`."""

    @property
    def name(self) -> str: ...
    @property
    def sources(self) -> Any: ...
    def signals(self, rows: Any = None) -> tuple[Tensor, Tensor]: ...


def verify(zoo: Zoo, data: SignalSource | None = None, *, sample: int = 256, seed: int = 0) -> list[str]:
    """List everything that is wrong with a zoo, one line each; the list is empty if nothing is.

    Every shard is read: its hash and shapes must be those of the manifest, all numbers finite, labels among the
    classes and views within their number. No view of a source may be there twice, and no source in two splits. Shards
    that are still planned count as wrong.

    Args:
        zoo: the zoo.
        data: the signals that the zoo was fitted to: a sample of the networks is evaluated at them, and must have
            the PSNR that is recorded, to 0.1 dB.
        sample: number of networks to evaluate.
        seed: seed of the choice of those.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)))
        >>> verify(ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks))
        []
    """
    whole_number("sample", sample)
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
    if len(kinds := {map_shard(zoo.path / shard.file)["label"].dtype for shard in good}) > 1:
        found.append(f"expected labels of one kind in all shards, got {sorted(map(str, kinds))}")
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
    """Describe what is wrong with the numbers of a shard."""
    out, labels, views = [], columns["label"], columns["view"]
    if len(bad := torch.nonzero(~columns["flat"].isfinite().all(1)).flatten()):
        out.append(f"{len(bad)} networks are not finite, first in row {bad[0].item()}")
    if labels.is_floating_point():
        if zoo.classes:
            out.append(f"expected labels of the {len(zoo.classes)} classes, got real-valued ones")
        if len(bad := torch.nonzero(~labels.isfinite()).flatten()):
            out.append(f"{len(bad)} labels are not finite, first in row {bad[0].item()}")
    elif len(bad := labels[(labels < -1) | (labels >= len(zoo.classes) if zoo.classes else False)]):
        expected = f"of the {len(zoo.classes)} classes" if zoo.classes else "from -1 on"
        out.append(f"expected labels {expected}, got {bad[0].item()}")
    if len(bad := views[(views < 0) | (views >= zoo.num_views)]):
        out.append(f"expected views below {zoo.num_views}, got {bad[0].item()}")
    return out


def _identity(zoo: Zoo, shard: Shard) -> tuple[Tensor, Tensor]:
    """Return the sources and views of a shard, in memory."""
    columns = map_shard(zoo.path / shard.file)
    return columns["source"].clone(), columns["view"].clone()


def _quality(zoo: Zoo, shards: list[Shard], data: SignalSource, sample: int, seed: int) -> list[str]:
    """Compare the recorded PSNR of networks drawn at random with what they compute."""
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
            found = psnr((values - targets).square().mean((1, 2)), limit=PSNR_LIMIT)
            recorded = columns["psnr"][rows]
            known = ~recorded.isnan()
            wrong = torch.nonzero(known & ~((found - recorded).abs() <= TOLERANCE)).flatten().tolist()
            if wrong:
                return [
                    f"{shard.file}: expected the recorded {recorded[wrong[0]]:.2f} dB in row {int(rows[wrong[0]])}, "
                    f"got {found[wrong[0]]:.2f} dB; these are other networks, or other data"
                ]
    return []


def stats(zoo: Zoo) -> dict[str, Any]:
    """Compute mean, spread and range of every parameter and of the networks' norms, per split, in one reading.

    Args:
        zoo: the zoo, which is never held in memory as a whole.

    Returns:
        Plain values: for each split ``count``, ``norm`` (of whole networks) and ``params`` (by name, over all scalars
        of the parameter in all networks). Each of the last two has ``mean``, ``std`` (of the population), ``min`` and
        ``max``.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.ones(3, 17), ws.siren(2, 4, 1)))
        >>> found = stats(ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks))
        >>> found["train"]["params"]["0.bias"]
        {'mean': 1.0, 'std': 0.0, 'min': 1.0, 'max': 1.0}
    """
    return {split: _of_split(zoo, split) for split in zoo.splits}


def _of_split(zoo: Zoo, split: str) -> dict[str, Any]:
    norm, params = _Running(), {name: _Running() for name in zoo.spec.slices}
    for weights in (batch.weights for batch in zoo.batches(split, 1024, shuffle=False, resident_bytes=0)):
        norm.add(weights.flat.double().norm(dim=1))
        for name, part in zoo.spec.slices.items():
            params[name].add(weights.flat[:, part])
    table = {name: own.result() for name, own in params.items()}
    return {"count": zoo.count(split), "norm": norm.result(), "params": table}


class _Running:
    """Running mean and sum of squared deviations of numbers, batches merged pairwise (Chan et al., 1983)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: Tensor) -> None:
        values = values.double()
        mean, count = values.mean().item(), values.numel()
        delta, total = mean - self.mean, self.count + count
        self.squares += (values - mean).square().sum().item() + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total
        low, high = torch.aminmax(values)
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())

    def result(self) -> dict[str, float]:
        return {"mean": self.mean, "std": math.sqrt(self.squares / self.count), "min": self.low, "max": self.high}
