"""A zoo of aligned networks: moved onto one reference, with the elements that moved them and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from weightspace._symmetry import PARTS, Group, Symmetry
from weightspace._weights import Weights, check_weights
from weightspace.align._canonical import align_to, canonicalize
from weightspace.align.solver._problem import Costs
from weightspace.zoo import Zoo, write_zoo

FILE = "alignment.safetensors"


def align_zoo(
    zoo: Zoo,
    path: str | Path,
    reference: Weights | None = None,
    *,
    group: Group = "full",
    costs: Costs | None = None,
    shard_size: int = 4096,
) -> Zoo:
    """Write a zoo whose networks are those of another, moved onto a reference: the same functions, closer together.

    Labels, sources, views, PSNR and recipe stay. The elements and the reference are stored beside the shards in
    ``alignment.safetensors``; the manifest's provenance names the zoo, the group and the reference, and the digest of
    that file. The whole folder appears at once, or not at all.

    Args:
        zoo: the networks.
        path: the new folder.
        reference: one network, for example :func:`weightspace.align.anchor` of the training split; ``None`` for the
            rules of :func:`weightspace.align.canonicalize`.
        group: see :func:`weightspace.align.match`.
        costs: see :func:`weightspace.align.match`; for a reference only.
        shard_size: networks in a file.

    Returns:
        The new zoo.

    Raises:
        TypeError: for something other than a zoo; see :func:`weightspace.align.align_to`.
        ValueError: for costs without a reference; see :func:`weightspace.align.align_to`,
            :func:`weightspace.align.canonicalize` and :func:`weightspace.zoo.write_zoo`.
        OSError: if the disk is full; nothing is left behind.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> w = ws.testing.random_weights(ws.siren(2, 4, 1), 6, generator=torch.Generator().manual_seed(0))
        >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), train=ws.Networks(w))
        >>> aligned = ws.align.align_zoo(zoo, tempfile.mkdtemp(), w[0])
        >>> back = ws.align.alignment(aligned, "train").inverse().act(aligned.weights("train"))
        >>> torch.allclose(back.flat, w.flat, atol=1e-5)
        True
    """
    if not isinstance(zoo, Zoo):
        raise TypeError(f"zoo: expected a Zoo, got {type(zoo).__name__}; open it with ws.Zoo.open(path)")
    if reference is not None:
        check_weights("reference", reference)
        reference = reference.to("cpu")
    elif costs is not None:
        raise ValueError("costs: expected a reference to measure against, got none; pass reference= or drop costs")
    splits, tensors = {}, {} if reference is None else {"reference": reference.flat.contiguous()}
    for split in zoo.splits:
        weights = zoo.weights(split)
        if reference is None:
            aligned, element = canonicalize(weights, group=group)
        else:
            aligned, element = align_to(weights, reference, group=group, costs=costs)
        splits[split] = zoo[split].replace(weights=aligned)
        tensors.update(_packed(split, element))
    content = save(tensors)
    made_from = {
        "from": zoo.path.name,
        "group": group,
        "reference": None if reference is None else hashlib.sha256(reference.flat.numpy().tobytes()).hexdigest(),
        "costs": dict(costs) if isinstance(costs, Mapping) else costs,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    settings = {**vars(zoo.settings), "provenance": {**zoo.provenance, "alignment": made_from}}
    return write_zoo(path, splits, shard_size=shard_size, extra={FILE: content}, **settings)


def alignment(zoo: Zoo, split: str) -> Symmetry:
    """Read the elements that moved the networks of an aligned zoo: ``alignment(zoo, split).inverse()`` undoes them.

    Args:
        zoo: made by :func:`align_zoo`.
        split: one of its splits.

    Returns:
        One element for each network of the split.

    Raises:
        TypeError: for something other than a zoo.
        ValueError: for a zoo that is not aligned, or an altered file of elements.
        KeyError: for an unknown split.
    """
    if not isinstance(zoo, Zoo):
        raise TypeError(f"zoo: expected a Zoo, got {type(zoo).__name__}; open it with ws.Zoo.open(path)")
    made_from, file = zoo.provenance.get("alignment"), zoo.path / FILE
    if not isinstance(made_from, Mapping) or not file.exists():
        raise ValueError(
            f"{zoo.path}: expected an aligned zoo, got one without {FILE}; make one with ws.align.align_zoo"
        )
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != made_from.get("sha256"):
        raise ValueError(f"{file}: expected the digest that the manifest names, got another; align the zoo again")
    count, parts = zoo.count(split), ({}, {}, {}, {})
    for key, value in load(content).items():
        kind, _, rest = key.partition("/")
        if kind in PARTS and rest.partition("/")[0] == split:
            parts[PARTS.index(kind)][rest.partition("/")[2]] = value.long() if kind == "perm" else value
    return Symmetry(zoo.spec, count, *parts)


def _packed(split: str, element: Symmetry) -> dict[str, Tensor]:
    """Name the parts of an element ``kind/split/axis``; store permutations as int32."""
    return {
        f"{kind}/{split}/{axis}": (value.to(torch.int32) if kind == "perm" else value).contiguous()
        for kind in PARTS
        for axis, value in getattr(element, kind).items()
    }
