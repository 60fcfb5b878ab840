"""Groups: what shows the same thing shares a number, and splits that keep whole groups together."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from weightspace._split import hashed


def stable_number(text: str) -> int:
    """A 53-bit hash of a text: exact in JSON numbers too."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 11


def stable_numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """A number of its own for every name, the same wherever and beside whatever it stands.

    Raises:
        ValueError: if two are equal.
    """
    numbers = np.array([stable_number(name) for name in names], dtype=np.int64)
    if len(np.unique(numbers)) != len(numbers):
        raise ValueError("expected a source of its own for every path, got two equal hashes; rename one of the files")
    return numbers


def group_numbers(*keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """One number for all rows that agree in any key, directly or through others.

    Args:
        keys: sequences of one length; two rows with equal entries in one of them belong together.

    Returns:
        int64 ``[row]``: a hash of the smallest of the first key's entries in the group.
    """
    count = len(keys[0])
    first: list[int] = []
    for key in keys:
        seen: dict[Hashable, int] = {}
        first += [seen.setdefault(entry, i) for i, entry in enumerate(key)]
    rows = np.tile(np.arange(count), len(keys))
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, np.array(first))), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    names: dict[int, str] = {}
    for part, entry in zip(component.tolist(), keys[0], strict=True):
        names[part] = min(names.get(part, str(entry)), str(entry))
    numbers = {part: stable_number(name) for part, name in names.items()}
    return np.array([numbers[part] for part in component.tolist()], dtype=np.int64)


def at_most(names: Sequence[str], families: Sequence[str], count: int, seed: int = 0) -> set[str]:
    """At most ``count`` names of every family, those with the smallest hashes of the seed and the name."""
    rank = hashed(stable_numbers(names), seed)
    seen: dict[str, int] = {}
    kept = set()
    for i in map(int, np.argsort(rank, kind="stable")):
        seen[families[i]] = seen.get(families[i], 0) + 1
        if seen[families[i]] <= count:
            kept.add(names[i])
    return kept


def shuffled(splits: Mapping[str, Any], sources: Any) -> dict[str, NDArray[np.int64]]:
    """The splits with their rows in the order of a hash of the sources, so that the first n are a fair sample."""
    order = hashed(np.asarray(sources), 0)
    rows = {name: np.asarray(index, dtype=np.int64) for name, index in splits.items()}
    return {name: index[np.argsort(order[index], kind="stable")] for name, index in rows.items()}


def split_groups(
    groups: Any, labels: Any, *, val: float = 0.1, test: float = 0.2, seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """Splits "train", "val" and "test" of whole groups, every class in each as far as it has groups.

    Within each class its groups are ordered by a hash of the seed and the group: the first go to the test split, the
    next to the validation split, the others to the training split. A class with one group lies in the training split,
    one with two lies in training and test. A group of several classes counts for the most frequent one.

    Args:
        groups: int64 ``[row]``.
        labels: int64 ``[row]``.
        val: the share of a class's groups for validation; at least one where it has three.
        test: the share for the test; at least one where it has two. One group at least stays for the training.
        seed: another seed gives other splits.

    Returns:
        row indices by split, ascending; together every row once.
    """
    groups, labels = np.asarray(groups), np.asarray(labels)
    names, inverse = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (inverse, labels), 1)
    home, order = counts.argmax(1), hashed(names, seed)
    side = np.zeros(len(names), dtype=np.int64)
    for label in np.unique(home):
        members = np.flatnonzero(home == label)
        members = members[np.argsort(order[members], kind="stable")]
        count = len(members)
        tested = min(max(round(test * count), 1), max(count - 2, 1)) if count > 1 else 0
        checked = min(max(round(val * count), 1), count - tested - 1) if count > 2 else 0
        side[members[:tested]] = 2
        side[members[tested : tested + checked]] = 1
    splits = {name: np.flatnonzero(side[inverse] == number) for number, name in enumerate(("train", "val", "test"))}
    return {name: index for name, index in splits.items() if len(index)}
