"""Make zoos out of zoos: merge them, split them anew, or take a part. Rows are copied shard by shard."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightspace._checks import check_generator, number, whole_number
from weightspace._files import check_empty, staged
from weightspace._networks import Networks
from weightspace._split import split_by_source
from weightspace.zoo._columns import row_numbers
from weightspace.zoo._format import MANIFEST
from weightspace.zoo._shards import doubled
from weightspace.zoo._writer import ZooWriter
from weightspace.zoo._zoo import Zoo

SHARD = 4096
Part = tuple[Zoo, str, Tensor]
"""Rows of a split of a zoo."""


def merge(zoos: Sequence[Zoo], out: str | Path, *, shard_size: int = SHARD) -> Zoo:
    """Write one zoo of all networks of several, such as parts of one data set fitted on different machines.

    Where the zoos differ in recipe, seed, init regime or data, the new zoo's ``recipe`` is ``{"merged": [...]}``, its
    seed is none, its regime ``"unknown"``, its digest none. Sources must mean the same in all of them.

    Args:
        zoos: of one spec and with the same classes.
        out: the folder to write, new or empty.
        shard_size: networks in a file.

    Raises:
        ValueError: for no zoo, other specs, classes or further columns, whole and real-valued labels, a view of a
            source that is there twice, or a source in two splits; nothing is written then.
        OSError: if the disk is full; nothing is left behind.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)), source=[0, 1, 2])
        >>> a = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks)
        >>> b = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks.replace(source=[3, 4, 5]))
        >>> merge([a, b], tempfile.mkdtemp()).sources("train")
        tensor([0, 1, 2, 3, 4, 5])
    """
    zoos = list(zoos)
    if not zoos:
        raise ValueError("zoos: expected at least one, got none")
    for zoo in zoos[1:]:
        if zoo.spec != zoos[0].spec:
            raise ValueError(f"zoos: expected one spec, got {zoos[0].spec} and {zoo.spec}")
        if zoo.classes != zoos[0].classes:
            raise ValueError(f"zoos: expected the same classes, got {zoos[0].classes} and {zoo.classes}")
        if (mine := zoo.settings.columns) != (first := zoos[0].settings.columns):
            raise ValueError(
                f"zoos: expected the same further columns, got {dict(first)} and {dict(mine)}; write one anew with "
                "others: ws.zoo.write_zoo(path, train=zoo['train'].replace(columns=...))"
            )
    if len({zoo.labels(split).dtype for zoo in zoos for split in zoo.splits}) > 1:
        raise ValueError("zoos: expected whole labels in all of them or real-valued ones in all, got both kinds")
    splits = dict.fromkeys(split for zoo in zoos for split in zoo.splits)
    parts = {
        split: [(zoo, split, torch.arange(zoo.count(split))) for zoo in zoos if split in zoo.splits] for split in splits
    }
    for split, own in parts.items():
        if problem := doubled(split, [(zoo.sources(split), zoo.views(split)) for zoo, _, _ in own]):
            raise ValueError(f"zoos: {problem}")
    return _write(out, parts, shard_size, _merged(zoos))


def subset(zoo: Zoo, out: str | Path, rows: Mapping[str, Any], *, shard_size: int = SHARD) -> Zoo:
    """Write a zoo of some of the networks of another.

    Args:
        zoo: the zoo that they come from.
        out: the folder to write, new or empty.
        rows: for each split to keep, indices of its networks, which come in that order, or a boolean mask ``[batch]``.
        shard_size: networks in a file.

    Raises:
        IndexError: for indices out of range.
        ValueError: for unknown splits, indices that are the same or none, or a folder that is not empty.
        OSError: if the disk is full; nothing is left behind.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)), label=[5, 6, 7])
        >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks)
        >>> subset(zoo, tempfile.mkdtemp(), {"train": zoo.labels("train") > 5}).labels("train")
        tensor([6, 7])
    """
    chosen = {split: _index(zoo, split, index) for split, index in rows.items()}
    if not chosen:
        raise ValueError("rows: expected at least one split, got none")
    return _write(out, {split: [(zoo, split, index)] for split, index in chosen.items()}, shard_size, _settings(zoo))


def sample(
    zoo: Zoo, out: str | Path, counts: Mapping[str, int], *, generator: torch.Generator, shard_size: int = SHARD
) -> Zoo:
    """Write a zoo of all views of a few sources of another, drawn at random.

    Args:
        zoo: the zoo that they come from.
        out: the folder to write, new or empty.
        counts: sources of each split to keep.
        generator: source of the choice.
        shard_size: networks in a file.

    Raises:
        ValueError: for unknown splits, or more sources than there are.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> weights = ws.Weights(torch.zeros(6, 17), ws.siren(2, 4, 1))
        >>> networks = ws.Networks(weights, source=[0, 0, 1, 1, 2, 2], view=[0, 1, 0, 1, 0, 1])
        >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks)
        >>> sample(zoo, tempfile.mkdtemp(), {"train": 2}, generator=torch.Generator().manual_seed(0)).count("train")
        4
    """
    check_generator(generator)
    rows = dict[str, Tensor]()
    for split, count in counts.items():
        whole_number(f"counts[{split!r}]", count)
        sources = zoo.sources(split)
        there = sources.unique()
        if count > len(there):
            raise ValueError(f"counts: expected at most the {len(there)} sources of {split!r}, got {count}")
        drawn = there[torch.randperm(len(there), generator=generator, device=generator.device)[:count].cpu()]
        rows[split] = torch.isin(sources, drawn)
    return subset(zoo, out, rows, shard_size=shard_size)


def split(zoo: Zoo, out: str | Path, fractions: Mapping[str, float], *, seed: int = 0, shard_size: int = SHARD) -> Zoo:
    """Write the networks of a zoo in new splits, split by source: all views of one signal are in one split.

    Args:
        zoo: the zoo that they come from, all its splits together.
        out: the folder to write, new or empty.
        fractions: the share of the sources for each new split; the shares sum to one. Each source is decided by a hash
            of its own number and the seed, so sizes are near these, and no source moves when others are added.
        seed: the seed of the hash; another one makes other splits.
        shard_size: networks in a file.

    Raises:
        ValueError: for fractions that do not sum to one, or a split that would be empty.

    Warns:
        UserWarning: for an imported zoo in which every network has a source of its own although the names of its files
            look like several fits of one signal, which splits would then share.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(200, 17), ws.siren(2, 4, 1)))
        >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), train=networks)
        >>> split(zoo, tempfile.mkdtemp(), {"train": 0.8, "test": 0.2}).splits
        ('train', 'test')
    """
    for name, value in fractions.items():
        number(f"fractions[{name!r}]", value, "a fraction in [0, 1]", low=0, high=1)
    if not fractions or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"fractions: expected some that sum to 1, got {dict(fractions)}")
    left = {old: torch.arange(zoo.count(old)) for old in zoo.splits}
    _warn_of_alike(zoo)
    parts, rest = dict[str, list[Part]](), 1.0
    for place, (name, fraction) in enumerate(fractions.items()):
        last, taken = place == len(fractions) - 1, list[Part]()
        for old, index in left.items():
            # later splits are shares of what the earlier ones left, each drawn with a seed of its own
            share = 1.0 if last else min(1.0, fraction / rest)
            others, own = split_by_source(zoo.sources(old)[index].numpy(), share, seed * 1_000_003 + place)
            taken.append((zoo, old, index[torch.from_numpy(own)]))
            left[old] = index[torch.from_numpy(others)]
        rest -= fraction
        parts[name] = [part for part in taken if len(part[2])]
        if not parts[name]:
            raise ValueError(f"fractions: expected sources for every split, got none for {name!r}; use another seed")
    return _write(out, parts, shard_size, _settings(zoo))


def _warn_of_alike(zoo: Zoo) -> None:
    """Warn if an import found files that look like fits of one signal, and nothing has said which are."""
    form = zoo.provenance.get("state_dicts")
    alike = form.get("alike") if isinstance(form, Mapping) else None
    if isinstance(alike, list) and all(not bool(zoo.views(split).any()) for split in zoo.splits):
        shown = str(alike)[1:-1][:400]
        warnings.warn(
            f"{zoo.path}: it was imported with a source for each file, even for {shown}, two files that look like fits "
            "of one signal; import it again with source_of=, or splits may share signals",
            UserWarning,
            stacklevel=3,
        )


def _index(zoo: Zoo, split: str, rows: Any) -> Tensor:
    """Return the numbers of the networks of a split that are to be kept."""
    name = f"rows[{split!r}]"
    index = row_numbers(name, rows, zoo.count(split))
    if (different := len(index.unique())) != len(index) or not different:
        raise ValueError(
            f"{name}: expected different indices, at least one, got {len(index)}, {different} of them different"
        )
    return index


def _settings(zoo: Zoo) -> dict[str, Any]:
    """Return the settings of a part of a zoo: those of the zoo without the digest, which is that of all its signals."""
    return {**vars(zoo.settings), "data_digest": None}


def _merged(zoos: Sequence[Zoo]) -> dict[str, Any]:
    """Return the settings of a zoo of all networks of several."""
    recipes, seeds, regimes = ([getattr(zoo, name) for zoo in zoos] for name in ("recipe", "seed", "init_regime"))
    return {
        "recipe": recipes[0] if all(own == recipes[0] for own in recipes) else {"merged": recipes},
        "seed": seeds[0] if len(set(seeds)) == 1 else None,
        "init_regime": regimes[0] if len(set(regimes)) == 1 else "unknown",
        "classes": zoos[0].classes,
        "views": max(zoo.num_views for zoo in zoos),
        "columns": zoos[0].settings.columns,
        "provenance": {**zoos[0].provenance, "merged": [zoo.provenance for zoo in zoos]},
    }


def _write(out: str | Path, splits: Mapping[str, list[Part]], shard_size: int, settings: dict[str, Any]) -> Zoo:
    """Write rows of zoos as a new zoo, shard by shard."""
    out = Path(out)
    whole_number("shard_size", shard_size)
    check_empty(out, MANIFEST)
    chunks = [(split, chunk) for split, parts in splits.items() for chunk in _chunks(parts, shard_size)]
    spec = chunks[0][1][0][0].spec
    plan = [(split, sum(len(index) for _, _, index in chunk), None) for split, chunk in chunks]
    with staged(out) as stage, ZooWriter.create(stage, spec, plan=plan, **settings) as writer:
        for number, (_, chunk) in enumerate(chunks):
            networks = Networks.cat([zoo.take(split, index) for zoo, split, index in chunk])
            writer.write(number, networks, commit=False)
        writer.commit()
    return Zoo.open(out, verify=False)


def _chunks(parts: Sequence[Part], size: int) -> Iterator[list[Part]]:
    """Iterate over the parts' rows, laid end to end and cut every ``size`` rows."""
    chunk, room = list[Part](), size
    for zoo, split, index in parts:
        while len(index):
            own, index = index[:room], index[room:]
            chunk.append((zoo, split, own))
            room -= len(own)
            if not room:
                yield chunk
                chunk, room = [], size
    if chunk:
        yield chunk
