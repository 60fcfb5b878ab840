"""Folders of low-rank adapters as ``Weights`` of one spec."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightspace._files import read_json
from weightspace._spec import Axis, NetSpec, Param
from weightspace._text import few
from weightspace._weights import Weights
from weightspace.checkpoints import read_checkpoint

CONFIG, TENSORS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
_PAIR = re.compile(r"^(?:base_model\.model\.)?(.+)\.(?:lora_(A|B)|lora\.(down|up)|lora_(down|up))(?:\.[^.]+)?\.weight$")
_ALPHA = re.compile(r"^(?:base_model\.model\.)?(.+)\.alpha$")
MOST_ALPHA = 1e30
Pairs = dict[str, tuple[Tensor, Tensor]]


def read(paths: str | Path | Sequence[str | Path]) -> Weights:
    r"""Read folders of adapters of one base model.

    Each adapted matrix ``W`` of the base model has a pair of matrices, and becomes

    .. math:: W + B A, \qquad A \in R^{r \times in}, \quad B \in R^{out \times r}

    The scaling of the folder (``lora_alpha / r``, or ``lora_alpha / sqrt(r)`` with ``use_rslora``) is multiplied into
    ``B``. The spec has an axis of kind linear for each rank, on which every invertible matrix leaves ``B A`` as it is;
    the other axes are those of the base model, on which nothing moves. Where ranks differ, smaller ones are filled up
    with rows and columns of zeros.

    Args:
        paths: one folder or several, with ``adapter_config.json`` and ``adapter_model.safetensors`` or ``.bin``. Pairs
            may be called ``lora_A`` and ``lora_B`` (with the name of an adapter or without), ``lora.down`` and
            ``lora.up``, or ``lora_down`` and ``lora_up`` with their own ``alpha``.

    Returns:
        One network for each folder, in float32, its parameters ``"<module>.A"`` and ``"<module>.B"``.

    Raises:
        FileNotFoundError: for a folder without the files of an adapter.
        ValueError: for other adapters than LoRA, tensors that are no pair of matrices, folders of different base
            models, and modules or sizes that differ, with all that differ.

    Example:
        >>> import json, tempfile, pathlib
        >>> import weightspace as ws
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "base"}
        >>> _ = (folder / "adapter_config.json").write_text(json.dumps(config))
        >>> key = "base_model.model.layers.0.q_proj.lora_"
        >>> pair = {key + "A.weight": torch.ones(2, 5), key + "B.weight": torch.ones(3, 2)}
        >>> ws.checkpoints.write_checkpoint(pair, folder / "adapter_model.safetensors")
        >>> w = ws.adapters.read(folder)
        >>> [(p.name, p.axes) for p in w.spec.params], w.view("layers.0.q_proj.B").max().item()
        ([('layers.0.q_proj.A', ('h1', 'in')), ('layers.0.q_proj.B', ('out', 'h1'))], 2.0)

    Reference:
        Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2022, section 4.1; Kalajdzievski, *A Rank
        Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023, for ``use_rslora``.
    """
    folders = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not folders:
        raise ValueError("paths: expected at least one folder of an adapter, got none")
    read_ones = [_read_folder(folder) for folder in folders]
    _check_alike(folders, read_ones)
    pairs = [own for _, own in read_ones]
    ranks = {name: max(len(own[name][0]) for own in pairs) for name in pairs[0]}
    spec = _spec(pairs[0], ranks)
    rows = []
    for own in pairs:
        padded = []
        for name, rank in ranks.items():
            a, b = own[name]
            padded += [torch.nn.functional.pad(a, (0, 0, 0, rank - len(a))).flatten()]
            padded += [torch.nn.functional.pad(b, (0, rank - len(a))).flatten()]
        rows.append(torch.cat(padded))
    return Weights(torch.stack(rows), spec)


def _spec(pairs: Pairs, ranks: dict[str, int]) -> NetSpec:
    """Return the spec: for each pair two ends of the base model's and a linear axis between them."""
    names = list(pairs)
    axes: list[Axis] = []
    params: list[Param] = []
    for number, name in enumerate(names, start=1):
        a, b = pairs[name]
        first, last = ("in" if number == 1 else f"in{number}", "out" if number == len(names) else f"out{number}")
        axes += [Axis(first, a.shape[1]), Axis(f"h{number}", ranks[name], "linear"), Axis(last, len(b))]
        params += [Param(f"{name}.A", (f"h{number}", first)), Param(f"{name}.B", (last, f"h{number}"))]
    return NetSpec(tuple(axes), tuple(params))


def _read_folder(folder: Path) -> tuple[str, Pairs]:
    """Return the name of the base model and the pairs by module, scaled."""
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder}: expected a folder with {CONFIG}, got none")
    config = read_json(folder / CONFIG, "the configuration of an adapter")
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        got = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise ValueError(f"{folder / CONFIG}: expected an adapter of peft_type 'LORA', got {got!r}")
    files = [folder / name for name in TENSORS if (folder / name).is_file()]
    if not files:
        raise FileNotFoundError(f"{folder}: expected one of {', '.join(TENSORS)}, got none")
    halves: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    other = []
    for key, value in read_checkpoint(files[0]).items():
        found, alpha = _PAIR.match(key), _ALPHA.match(key)
        if found and value.ndim == 2 and value.is_floating_point():
            side = "A" if {"A", "down"} & set(found.groups()[1:]) else "B"
            halves.setdefault(found[1], {})[side] = value.float()
        elif alpha and value.numel() == 1:
            alphas[alpha[1]] = float(value)
        else:
            other.append(key)
    if other:
        raise ValueError(
            f"{files[0]}: expected pairs of matrices lora_A and lora_B, got {few(other)} too; leave out what is no "
            "pair (biases, magnitudes, convolutions, embeddings, whole modules)"
        )
    odd = [
        n for n, own in halves.items() if len(own) < 2 or own["A"].shape[0] != own["B"].shape[1] or not len(own["A"])
    ]
    if odd or not halves:
        raise ValueError(
            f"{files[0]}: expected lora_A [r, in] and lora_B [out, r] for each module, got others for {few(odd)}"
        )
    pairs = {
        name: (own["A"], _scaling(folder, config, alphas.get(name), own["A"], name) * own["B"])
        for name, own in halves.items()
    }
    return str(config.get("base_model_name_or_path")), dict(sorted(pairs.items()))


def _scaling(folder: Path, config: dict[str, Any], alpha: float | None, a: Tensor, name: str) -> float:
    """Return what ``B A`` is multiplied by: ``alpha / r``, or ``alpha / sqrt(r)``."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"{folder / CONFIG}: expected an object alpha_pattern, got {type(patterns).__name__}")
    found = (
        alpha
        if alpha is not None
        else next(
            (value for key, value in patterns.items() if name == key or name.endswith(f".{key}")),
            config.get("lora_alpha"),
        )
    )
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < MOST_ALPHA:
        raise ValueError(f"{folder / CONFIG}: expected a finite number lora_alpha, got {str(found)[:100]!r}")
    rank = len(a)
    return found / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _check_alike(folders: Sequence[Path], read_ones: Sequence[tuple[str, Pairs]]) -> None:
    """Raise ``ValueError`` unless all adapters are of one base model and adapt the same modules."""
    if len(bases := dict.fromkeys(base for base, _ in read_ones)) > 1:
        raise ValueError(f"expected adapters of one base model, got {few(bases)}; read each base's on their own")
    first = read_ones[0][1]
    for folder, (_, own) in zip(folders[1:], read_ones[1:], strict=True):
        if differ := sorted(set(first) ^ set(own)):
            raise ValueError(f"expected the modules of {folders[0]}, got others in {folder}: {few(differ)}")
        sizes = {n: [(a.shape[1], len(b)) for a, b in (first[n], own[n])] for n in first}
        if unlike := [f"{n} {x[0]} and {x[1]}" for n, x in sizes.items() if x[0] != x[1]]:
            raise ValueError(f"expected the sizes [in, out] of {folders[0]}, got others in {folder}: {few(unlike)}")
