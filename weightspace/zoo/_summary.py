"""A zoo described by plain values, as the command line prints and results record it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from weightspace.zoo._zoo import Zoo

QUANTILES = {"min": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "max": 1.0}


def summary(zoo: Zoo) -> dict[str, Any]:
    """Describe a zoo, see :meth:`Zoo.summary`."""
    found = {
        "path": str(zoo.path),
        "spec": str(zoo.spec),
        "num_params": zoo.spec.num_params,
        "recipe": zoo.recipe,
        "init_regime": zoo.init_regime,
        "seed": zoo.seed,
        "views": zoo.num_views,
        "classes": list(zoo.classes),
        "provenance": zoo.provenance,
        "bytes": sum(shard.bytes or 0 for shard in zoo.shards),
        "shards": len(zoo.shards),
        "shards_done": sum(shard.done for shard in zoo.shards),
        "splits": {split: _of_split(zoo, split) for split in zoo.splits},
    }
    form = found["provenance"].get("state_dicts")
    return {**found, "imported": _imported(form, found["provenance"])} if isinstance(form, Mapping) else found


def image_size(provenance: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width in pixels of the pictures that a zoo's networks were fitted to, where it records them."""
    height, width = (provenance.get(name) for name in ("height", "width"))
    good = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in (height, width))
    return (height, width) if good else None  # pyright: ignore[reportReturnType]


def _imported(form: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Say how the files of an imported zoo were read: how keys became parameters, and what was assumed of them."""
    keys, assumed = form.get("keys"), provenance.get("assumed")
    return {
        "matched": form.get("matched", "unknown"),
        "keys": dict(keys) if isinstance(keys, Mapping) else {},
        "assumed": dict(assumed) if isinstance(assumed, Mapping) else {},
        "sources": form.get("sources"),
    }


def _of_split(zoo: Zoo, split: str) -> dict[str, Any]:
    return {
        "count": zoo.count(split),
        "sources": len(zoo.sources(split).unique()),
        "views": len(zoo.views(split).unique()),
        "labels": _labels(zoo.labels(split)),
        "psnr": quantiles(zoo.psnr(split)),
    }


def _labels(labels: Tensor) -> dict[Any, Any] | None:
    """Count the networks of each class, or describe the distribution of real-valued labels."""
    if labels.is_floating_point():
        return quantiles(labels)
    values, counts = labels.unique(return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def quantiles(values: Tensor) -> dict[str, float] | None:
    """Return the mean and a few quantiles of the finite numbers; ``None`` where there are none."""
    known = values[values.isfinite()].sort().values
    if not len(known):
        return None
    found = {name: known[round(share * (len(known) - 1))].item() for name, share in QUANTILES.items()}
    return {**found, "mean": known.double().mean().item()}
