"""Groups of signals that show one thing, and splits that never divide a group."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightspace._split import hashed


def stable_number(text: str) -> int:
    """Hash a text to 53 bits, so that the number is exact in JSON and in float64."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 11


def stable_numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """Hash every name to a number that depends on nothing but the name.

    Raises:
        ValueError: if two names have one number.
    """
    numbers = np.array([stable_number(name) for name in names], dtype=np.int64)
    if len(np.unique(numbers)) != len(numbers):
        raise ValueError("expected a source of its own for every path, got two equal hashes; rename one of the files")
    return numbers


def group_numbers(*keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """Give one number to all rows that agree in any key, directly or through other rows.

    Args:
        keys: sequences of one length; two rows with equal entries in one of them belong together.

    Returns:
        int64 ``[row]``: a hash of the smallest of the first key's entries in the group.
    """
    parent = list(range(len(keys[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # halving the path keeps the trees shallow
            row = parent[row]
        return row

    for key in keys:
        seen: dict[Hashable, int] = {}
        for row, entry in enumerate(key):
            parent[root(row)] = root(seen.setdefault(entry, row))
    groups = [root(row) for row in range(len(parent))]
    names: dict[int, str] = {}
    for group, entry in zip(groups, keys[0], strict=True):
        names[group] = min(names.get(group, str(entry)), str(entry))
    numbers = {group: stable_number(name) for group, name in names.items()}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def at_most(names: Sequence[str], families: Sequence[str], count: int, seed: int = 0) -> set[str]:
    """Choose at most ``count`` names of every family: those with the smallest hashes of the seed and the name."""
    rank = hashed(stable_numbers(names), seed)
    seen: dict[str, int] = {}
    chosen = set()
    for i in map(int, np.argsort(rank, kind="stable")):
        seen[families[i]] = seen.get(families[i], 0) + 1
        if seen[families[i]] <= count:
            chosen.add(names[i])
    return chosen


def shuffled(splits: Mapping[str, Any], sources: Any) -> dict[str, NDArray[np.int64]]:
    """Order the rows of every split by a hash of their sources, so that the first n rows are a random sample."""
    order = hashed(np.asarray(sources), 0)
    rows = {name: np.asarray(index, dtype=np.int64) for name, index in splits.items()}
    return {name: index[np.argsort(order[index], kind="stable")] for name, index in rows.items()}


def split_groups(
    groups: Any, labels: Any, *, val: float = 0.1, test: float = 0.2, seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """Split whole groups into "train", "val" and "test", with every class in each split if it has enough groups.

    A hash of the seed and the group orders the groups of each class: the first ones form the test split, the next ones
    the validation split, the others the training split. The only group of a class goes to the training split; of two
    groups one goes to training and one to test. A group of several classes counts for the most frequent one.

    Args:
        groups: int64 ``[row]``.
        labels: int64 ``[row]``.
        val: the share of a class's groups for validation; at least one group if the class has three.
        test: the share for the test; at least one group if the class has two. At least one group remains for training.
        seed: another seed draws other splits.

    Returns:
        Row indices by split, ascending; every row is in one split.
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
