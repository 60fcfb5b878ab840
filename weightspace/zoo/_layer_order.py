"""The keys of a foreign state dict in the order of its layers, and the network that they describe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from weightspace._architectures import mlp, siren
from weightspace._spec import NetSpec

BY_NAME = "by name"
AS_STORED = "in the order of the file"
BY_NUMBER = "by the numbers in the keys, which the file holds in another order"
_RELEASED = re.compile(r"seq\.\d+\.(weight|bias)")
_DIGITS = re.compile(r"(\d+)")


@dataclass(eq=False)
class _Node:
    """A node of the tree of layers' names, which are cut at their numbers: ``hidden.2`` is ``hidden.``, then 2.

    Args:
        rank: its place among its siblings: the number itself, or for texts the order in which they are met.
        children: the nodes below it, by text or number.
        ends: inputs of its first layer and outputs of its last one.
    """

    rank: Any
    children: dict[str, _Node] = field(default_factory=dict)
    ends: tuple[int, int] | None = None


def in_layer_order(state: Mapping[str, Tensor], file: Path) -> tuple[list[str], str]:
    """Return the keys by layer, within a layer the weight before the bias; and a few words on how they were ordered.

    Layers that differ in a number (``hidden.2``, ``hidden.10``) come in the order of the numbers, and all others in the
    order in which the file holds them.

    Raises:
        ValueError: where that order is the alphabet's, and layers of different names could stand for one another.
    """
    layers = dict[str, list[str]]()
    for key in state:
        layers.setdefault(key.rpartition(".")[0], []).append(key)
    paths = _paths(layers)
    ordered = sorted(layers, key=lambda layer: [node.rank for node in paths[layer]])
    if list(state) == sorted(state):
        weights = {
            layer: next((state[key] for key in keys if state[key].ndim >= 2), None) for layer, keys in layers.items()
        }
        _check_alphabet([(paths[layer], weights[layer]) for layer in ordered], file)
    how = AS_STORED if ordered == list(layers) else BY_NUMBER
    return [key for layer in ordered for key in sorted(layers[layer], key=lambda key: -state[key].ndim)], how


def _paths(layers: Iterable[str]) -> dict[str, list[_Node]]:
    """Return the way from the root of the tree of names to each layer."""
    root, paths = _Node(0), dict[str, list[_Node]]()
    for layer in layers:
        path = [root]
        for place, part in enumerate(_DIGITS.split(layer)):
            below, digits = path[-1].children, part.lstrip("0")
            rank = (len(digits), digits) if place % 2 else len(below)
            path.append(below.setdefault(part, _Node(rank)))
        paths[layer] = path
    return paths


def _check_alphabet(layers: Sequence[tuple[list[_Node], Tensor | None]], file: Path) -> None:
    """Raise ``ValueError`` if two texts of one node stand for layers that fit in one another's place."""
    for path, weight in layers:
        if weight is not None:
            for node in path:
                node.ends = (weight.shape[1] if node.ends is None else node.ends[0], weight.shape[0])
    for parent in dict.fromkeys(node for path, _ in layers for node in path[::2]):  # texts lie below every other node
        seen = dict[tuple[int, int], str]()
        for text, node in parent.children.items():
            if node.ends is not None and (other := seen.setdefault(node.ends, text)) != text:
                raise ValueError(
                    f"{file}: expected keys in the order of the layers, got them in alphabetical order, in which "
                    f"{other!r} and {text!r} might stand for one another; save module.state_dict() as it is, or name "
                    "the keys as the spec does"
                )


def released(keys: Sequence[str]) -> bool:
    """Return whether these are the keys of the SIREN class of Navon et al. (2023): omega 30, output shift 0.5."""
    return all(_RELEASED.fullmatch(key) for key in keys)


def infer(state: Mapping[str, Tensor], file: Path, *, activation: str, omega: float, output_shift: float) -> NetSpec:
    """Return the spec of a chain of linear layers, with the widths that the tensors have.

    Raises:
        ValueError: for tensors that are no such chain.
    """
    values = [state[key] for key in in_layer_order(state, file)[0]]
    weights = [value for value in values if value.ndim == 2]
    biases = [value for value in values if value.ndim == 1]
    chained = all(after.shape[1] == before.shape[0] for before, after in pairwise(weights))
    fits = [len(bias) for bias in biases] in ([], [len(weight) for weight in weights])
    if not weights or not chained or not fits or len(weights) + len(biases) != len(values):
        shapes = {key: list(value.shape) for key, value in list(state.items())[:20]}
        raise ValueError(f"{file}: expected the layers of a SIREN in order, weight and bias, got {shapes}; pass spec=")
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    if activation == "sine":
        return siren(*widths, omega=omega, output_shift=output_shift, bias=bool(biases))
    return mlp(*widths, activation=activation, output_shift=output_shift, bias=bool(biases))


def keys_of(spec: NetSpec) -> list[str]:
    """Return the state-dict keys of a spec by layer, a weight before its bias; or in its own order."""
    try:
        names = [name for layer in spec.layers for name in (layer.weight, layer.bias) if name is not None]
    except ValueError:
        return list(spec.by_state_key)
    return [spec.param(name).state_key for name in names]
