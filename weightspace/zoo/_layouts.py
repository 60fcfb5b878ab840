"""Folders of state dicts as the field's other libraries read them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from weightspace._files import write_atomic
from weightspace._spec import NetSpec
from weightspace._split import split_by_source
from weightspace.zoo._zoo import Zoo

Layout = Literal["own", "dwsnets", "scalegmn", "nfn"]
LAYOUTS = ("own", "dwsnets", "scalegmn", "nfn")
VAL_SHARE, VAL_SEED = 0.1, 0


def write_layout(zoo: Zoo, stage: Path, final: Path, layout: str, *, absolute: bool, prefix: str) -> None:
    """Write a zoo into a folder in another library's layout, with a "val" split always.

    Args:
        zoo: networks that are chains, with whole-numbered labels.
        stage: where to write.
        final: where the folder will be, for absolute paths.
        layout: one of :data:`LAYOUTS` but the own.
        absolute: whether listed paths are absolute.
        prefix: how the folders of the layout ``"nfn"`` begin.

    Raises:
        ValueError: for networks that are no chain, or without such labels.
    """
    keys = _keys(zoo.spec, layout)
    listing = dict[str, Any]()
    for split, name, rows in _parts(zoo):
        weights, labels, views = zoo.weights(name), zoo.labels(name), zoo.views(name)
        if labels.is_floating_point() or int(labels[rows].min()) < 0:
            raise ValueError(f"{zoo.path}: expected labels that number classes in {name!r}, as {layout} reads them")
        paths, own = list[str](), list[int]()
        for row in rows.tolist():
            label, number = int(labels[row]), sum(map(len, (entry["path"] for entry in listing.values()))) + len(paths)
            place = {
                "dwsnets": f"{split}/net{number}.pth",
                "scalegmn": f"view{int(views[row])}/net{number}.pth",
                "nfn": f"{prefix}_{label}s/net{number}.pth",
            }[layout]
            body: dict[str, Any] = {keys[key]: value.clone() for key, value in weights.state_dict(row).items()}
            if layout == "scalegmn":
                body["label"] = label
            data = io.BytesIO()
            torch.save(body, data)
            write_atomic(stage / place, data.getvalue(), sync=False)
            paths.append(str(final.resolve() / place) if absolute else place)
            own.append(label)
        listing[split] = {"path": paths, "label": own}
    found = {split: entry["path"] for split, entry in listing.items()} if layout == "scalegmn" else listing
    write_atomic(stage / "splits.json", json.dumps(found).encode())


def _parts(zoo: Zoo) -> Iterator[tuple[str, str, Tensor]]:
    """Iterate over the splits, each with the zoo's split and rows that it is made of; "val" is held out of "train"."""
    for name in zoo.splits:
        rows = torch.arange(zoo.count(name))
        if name == "train" and "val" not in zoo.splits:
            rest, held = split_by_source(zoo.sources(name).numpy(), VAL_SHARE, seed=VAL_SEED)
            if len(rest) and len(held):
                yield "train", name, torch.from_numpy(rest)
                yield "val", name, torch.from_numpy(held)
                continue
            if len(zoo.sources(name).unique()) < 2:
                raise ValueError(f"{zoo.path}: expected a 'val' split, or two sources in 'train' to hold one out of")
            last = zoo.sources(name) == zoo.sources(name).max()
            yield "train", name, rows[~last]
            yield "val", name, rows[last]
            continue
        yield name, name, rows


def _keys(spec: NetSpec, layout: str) -> dict[str, str]:
    """Return the key of each parameter in the files of a layout."""
    try:
        layers = spec.layers
    except ValueError as error:
        raise ValueError(f"layout: expected a chain of linear layers for {layout!r}, got {spec}: {error}") from error
    found = dict[str, str]()
    for number, layer in enumerate(layers):
        inner = ".linear" if layout == "nfn" and number < len(layers) - 1 else ""
        base = f"net.{number}{inner}" if layout == "nfn" else f"seq.{number}"
        found[spec.param(layer.weight).state_key] = f"{base}.weight"
        if layer.bias is not None:
            found[spec.param(layer.bias).state_key] = f"{base}.bias"
    return found
