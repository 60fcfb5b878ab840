"""Model files of version 0.1.0 (format 1), brought to the present format."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

VERSION = "0.1.0"

NAMES = {"functional": "render-cnn", "hybrid": "probe-net", "hybrid-grid": "probe-grid-net"}
"""Present names of the models whose names changed."""

WRAPPED = {"embedding": "embedding", "editing": "editor"}
"""Heads that are wrappers now."""

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_STACK: list[Rule] = [(r"(layers|attention|head)\.", r"stack.\1.")]
_PASSES: list[Rule] = [(r"(points|factors|seeds|mix|mix_back)(?=\.|$)", r"passes.\1")]
_GRAPH: list[Rule] = [(r"(readout|to_bias|to_weight)\.", r"head.\1.")]
_MESSAGES: list[Rule] = [
    (r"(of_weights|of_biases|inputs|outputs)$", r"net.embed.\1"),
    (r"rounds\.", "net.rounds."),
    (r"(to_bias|to_weight)\.", r"net.head.\1."),
    (r"readout\.(maps|readout)\.", r"net.head.\1."),
    (r"(net\.rounds\.\d+\.(?:forth|back)\.\d+)\.factors\.", r"\1.inputs."),
    (r"(net\.rounds\.\d+\.(?:forth|back)\.\d+)\.factor\.", r"\1.of_pair."),
    (r"(net\.rounds\.\d+\.edges\.\d+)\.factor\.", r"\1.of_edge."),
]
_UNTYPED: list[Rule] = [
    (r"readout\.factors\.(\d+)\.joint\.", r"net.head.invariants.\1."),
    (r"(net\.rounds\.\d+\.(?:send|send_back)\.\d+)\.map\.", r"\1."),
    (r"(net\.rounds\.\d+\.(?:forth|back)\.\d+\.inputs)\.joint\.linear\.", r"\1."),
    (r"(net\.rounds\.\d+\.(?:forth|back)\.\d+\.(?:of_pair|of_own))\.linear\.", r"\1."),
    (r"(net\.rounds\.\d+\.edges\.\d+\.of_edge)\.linear\.", r"\1."),
    (r"(net\.rounds\.\d+\.edges\.\d+\.(?:target|source))\.joint\.", r"\1."),
]
_NFN_HEAD: list[Rule] = [(r"head\.(\d+)\.", lambda found: f"head.mlp.{int(found[1]) - 1}.")]  # 0 was the pool

KEYS: dict[str, list[Rule]] = {
    "dwsnet": _STACK,
    "forward-messages": [(r"first\.bumps\.centres", "first.rbfs.centers"), (r"first\.bumps\.", "first.rbfs.")],
    "gmn": _MESSAGES + _UNTYPED,
    "nfn-hnp": _NFN_HEAD + _STACK,
    "nfn-np": _NFN_HEAD + _STACK,
    "ng-gnn": _GRAPH,
    "ng-t": _GRAPH,
    "probe-grid-net": _PASSES,
    "probe-net": _PASSES,
    "scale-gmn": [*_MESSAGES, (r"readout\.factors\.(\d+)\.", r"net.head.invariants.\1.node.")],
}
"""By model, patterns of keys of the state dict at their beginning, and replacements, applied in this order."""


def upgraded(description: dict[str, Any], state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a description and a state dict of format 1 as those of format 2.

    Raises:
        ValueError: for options that the model no longer has.
    """
    name, options = str(description["model"]), dict(description["options"])
    name = NAMES.get(name, name)
    wrapper = WRAPPED.get(str(options.get("head")))
    if wrapper is not None:
        head = options.pop("head")
        options |= {"head": "equivariant"} if head == "editing" else {}
    if "bumps" in options:
        options["rbfs"] = options.pop("bumps")
    gone = {key: value for key, value in (("back", True), ("neurons", 0)) if options.pop(key, value) != value}
    if gone:
        raise ValueError(
            f"expected a model that this version has, got {description['model']!r} with options {sorted(gone)} that "
            f"only version {VERSION} had; open it there"
        )
    state = {_renamed(key, KEYS.get(name, [])): value for key, value in state.items()}
    config: dict[str, Any] = options
    if wrapper is not None:
        config, name = {"model": {"model": name, "config": options}}, wrapper
        state = {"gain" if key == "_edit.gain" else f"model.{key}": value for key, value in state.items()}
    return {**description, "model": name, "config": config}, state


def _renamed(key: str, rules: list[Rule]) -> str:
    for pattern, replacement in rules:
        key = re.sub(rf"^{pattern}", replacement, key)
    return key
