"""Keys of state dicts as wrappers leave them, and the comparison of state dicts before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from weightspace._text import few
from weightspace._weights import is_counter

PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes that parallel wrappers, ``torch.compile`` and training scripts put before the keys of a network."""
_WRAPPED = re.compile(rf"^({'|'.join(map(re.escape, PREFIXES))})+|(?<=\.)_orig_mod\.")


@dataclass(frozen=True)
class Keys:
    """The keys of a state dict that a network's own keys stand for.

    Args:
        own: for each key of the network, the key of the state dict.
        extra: the keys of the state dict that are none of the network's.
    """

    own: dict[str, str]
    extra: tuple[str, ...]

    def named(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the network's tensors under its own keys."""
        return {key: state_dict[held] for key, held in self.own.items()}


def find_keys(name: str, state_dict: Mapping[str, Tensor], expected: Sequence[str]) -> Keys:
    """Find the keys of a network in a state dict: as they are, or without the prefixes that wrappers put before them.

    Args:
        name: the name of the state dict in the message.
        state_dict: names to tensors.
        expected: the network's keys, wrapped themselves or not. Counters of batch norms may be missing.

    Raises:
        ValueError: for keys that are missing, or that several entries could be.

    Example:
        >>> import torch
        >>> state = {"module._orig_mod.0.weight": torch.ones(1), "ema": torch.ones(1)}
        >>> find_keys("a", state, ["0.weight"])
        Keys(own={'0.weight': 'module._orig_mod.0.weight'}, extra=('ema',))
    """
    bare: dict[str, list[str]] = {}
    for key in state_dict:
        bare.setdefault(_WRAPPED.sub("", key), []).append(key)
    found = {key: [key] if key in state_dict else bare.get(_WRAPPED.sub("", key), []) for key in expected}
    if missing := [key for key, held in found.items() if not held and not is_counter(key)]:
        raise ValueError(
            f"{name}: expected the keys of the network, with or without the prefixes {', '.join(PREFIXES)}, "
            f"missing {few(missing)}, got {few(state_dict)}; pass the state dict of this network"
        )
    if several := [held for held in found.values() if len(held) > 1]:
        raise ValueError(f"{name}: expected one entry a key, got {few(several[0])}; leave all but one out")
    own = {key: held[0] for key, held in found.items() if held}
    used = set(own.values())
    return Keys(own, tuple(key for key in state_dict if key not in used))


def check_alike(named: Mapping[str, Mapping[str, Tensor]], *, dtypes: bool = False) -> None:
    """Raise unless all state dicts hold tensors of the same shapes, and if asked for, dtypes, under the same keys.

    Args:
        named: state dicts by their names for the message.
        dtypes: whether the dtypes must be one too.

    Raises:
        ValueError: listing all keys that are in some alone, and all shapes and dtypes that differ.

    Example:
        >>> import torch
        >>> check_alike({"a": {"w": torch.ones(2)}, "b": {"w": torch.ones(3), "v": torch.ones(1)}})
        Traceback (most recent call last):
        ValueError: expected state dicts that fit one another, got 2 differences: 'w' [2] in a, [3] in b; 'v' in b alone
    """
    keys = list(dict.fromkeys(key for state in named.values() for key in state))
    found = []
    for key in keys:
        holders = [name for name, state in named.items() if key in state]
        if len(holders) < len(named):
            found.append(f"{key!r} in {', '.join(holders)} alone")
            continue
        tensors = {name: state[key] for name, state in named.items()}
        if len({value.shape for value in tensors.values()}) > 1:
            found.append(_listed(key, {name: str(list(value.shape)) for name, value in tensors.items()}))
        if dtypes and len({value.dtype for value in tensors.values()}) > 1:
            found.append(_listed(key, {name: str(value.dtype) for name, value in tensors.items()}))
    if found:
        raise ValueError(
            f"expected state dicts that fit one another, got {len(found)} difference{'s' * (len(found) > 1)}: "
            + "; ".join(found)
        )


def _listed(key: str, shown: Mapping[str, str]) -> str:
    """Return how an entry differs: every value with the state dicts that have it."""
    groups: dict[str, list[str]] = {}
    for name, value in shown.items():
        groups.setdefault(value, []).append(name)
    return f"{key!r} " + ", ".join(f"{value} in {' and '.join(names)}" for value, names in groups.items())
