"""The shards of a zoo: map one, find what is wrong with one, and compare sources and views across them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from weightspace._files import sha256
from weightspace._text import printable
from weightspace.zoo._format import DTYPES, FURTHER, FURTHER_DTYPES, Shard


def map_shard(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a shard: pages are read when they are touched, and writes never reach the file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)


def shard_problem(folder: Path, shard: Shard, num_params: int, *, digest: bool) -> str | None:
    """Say what is wrong with the file of a done shard, in a few words; ``None`` if nothing is.

    Its size, its types and its shapes are compared with the manifest, and with ``digest`` its hash as well.
    """
    path = folder / shard.file
    try:
        if not path.is_file():
            return f"{shard.file} is missing"
        with open(path, "rb"):
            pass  # safetensors would call a file that may not be read missing
    except OSError as error:
        return f"{shard.file} cannot be read: {error.strerror}"
    if (size := path.stat().st_size) != shard.bytes:
        return f"{shard.file} is truncated or altered: expected {shard.bytes} bytes, got {size}"
    if digest and (got := sha256(path)) != shard.sha256:
        return f"{shard.file} is altered: expected sha256 {str(shard.sha256)[:12]}..., got {got[:12]}..."
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            found = {name: (list(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
    except SafetensorError as error:
        return f"{shard.file} is not a safetensors file: {printable(error)[:200]}"
    shapes = {name: [shard.count, num_params] if name == "flat" else [shard.count] for name in DTYPES}
    right = {name: found.get(name) in [(shapes[name], own) for own in dtypes] for name, dtypes in DTYPES.items()}
    further = {name: found[name] for name in found if name.startswith(FURTHER)}
    if set(found) == {*DTYPES, *further} and all([*right.values(), *(_fits(own, shard) for own in further.values())]):
        return None
    expected = {name: (shapes[name], *dtypes) for name, dtypes in DTYPES.items()}
    return f"{shard.file} holds other tensors: expected {expected}, got {str(found)[:500]}"


def _fits(found: tuple[list[int], str], shard: Shard) -> bool:
    """Return whether shape and type are those of a further column: a number a network, or the bytes of a text."""
    shape, dtype = found
    text = dtype == FURTHER_DTYPES["text"]
    return shape[:1] == [shard.count] and dtype in FURTHER_DTYPES.values() and len(shape) == (2 if text else 1)


def overlap(sources: Mapping[str, Iterable[Tensor]]) -> str | None:
    """Describe the first source that is in two splits; ``None`` if splits share none."""
    parts = [(number, part) for number, own in enumerate(sources.values()) for part in own]
    if not parts:
        return None
    source = np.concatenate([part.numpy() for _, part in parts])
    split = np.repeat([number for number, _ in parts], [len(part) for _, part in parts])
    order = np.lexsort((split, source))
    source, split = source[order], split[order]
    both = np.flatnonzero((source[1:] == source[:-1]) & (split[1:] != split[:-1]))
    if not len(both):
        return None
    names, count = list(sources), len(np.unique(source[both]))
    one, other = (names[split[both[0] + k]] for k in (0, 1))
    return (
        f"expected no source in two splits, got source {source[both[0]]} ({count} in all) in both {one!r} and "
        f"{other!r}; put all networks of one signal into one split"
    )


def doubled(split: str, parts: Sequence[tuple[Tensor, Tensor]]) -> str | None:
    """Describe the first view of a source that a split holds twice; ``None`` where it holds each once.

    Args:
        split: the split's name, for the message.
        parts: sources and views of its networks, in any number of parts.
    """
    source, view = (np.concatenate([part[which].numpy() for part in parts]) for which in (0, 1))
    order = np.lexsort((view, source))
    source, view = source[order], view[order]
    twice = np.flatnonzero((source[1:] == source[:-1]) & (view[1:] == view[:-1]))
    if not len(twice):
        return None
    first = f"source {source[twice[0]]}, view {view[twice[0]]}"
    return f"expected every view of a source once, got {first} twice in {split!r} ({len(twice)} doubled in all)"
