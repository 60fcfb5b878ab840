"""What a writer accepts: settings, rows and columns, and whether a zoo begun earlier is the one asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from weightspace._spec import NetSpec
from weightspace._version import __version__
from weightspace._weights import Weights
from weightspace.zoo._format import InitRegime, Manifest, Plan, Shard, check_settings, plain, planned


def new_manifest(
    spec: NetSpec,
    plan: Plan,
    recipe: Mapping[str, Any] | None,
    init_regime: InitRegime,
    seed: int | None,
    views: int,
    classes: Sequence[str],
    data_digest: str | None,
    provenance: Mapping[str, Any] | None,
) -> Manifest:
    """The manifest of a zoo that is about to be written, all shards planned; refuses what cannot be stored."""
    if not isinstance(spec, NetSpec):
        raise TypeError(f"spec: expected a NetSpec, got {type(spec).__name__}")
    recipe, provenance = recipe or {}, provenance or {}
    if isinstance(classes, Iterable) and not isinstance(classes, str | Mapping):
        classes = tuple(classes)
    settings = {"recipe": recipe, "init_regime": init_regime, "seed": seed, "views": views, "classes": classes}
    check_settings({**settings, "data_digest": data_digest, "provenance": provenance})
    made = {
        "weightspace": __version__,
        "torch": str(torch.__version__),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Manifest(
        spec=spec,
        recipe=plain(dict(recipe), "recipe"),
        init_regime=init_regime,
        seed=seed,
        views=views,
        classes=tuple(classes),
        data_digest=data_digest,
        provenance=plain({**provenance, **made}, "provenance"),
        shards=planned(plan),
    )


def difference(expected: Manifest, found: Manifest) -> str | None:
    """The first field in which a fit to resume differs from what is asked, expected and got."""
    if expected.spec != found.spec:
        return f"spec: expected {expected.spec}, got {found.spec}"
    for name in ("recipe", "init_regime", "seed", "views", "classes", "data_digest"):
        mine, theirs = getattr(expected, name), getattr(found, name)
        if name == "recipe" and mine != theirs:
            names = [key for key in {**mine, **theirs} if mine.get(key, ...) != theirs.get(key, ...)]
            mine, theirs = ({key: own[key] for key in names if key in own} for own in (mine, theirs))
        if mine != theirs:
            return f"{name}: expected {mine!r}, got {theirs!r}"
    mine, theirs = ([shard.plan for shard in manifest.shards] for manifest in (expected, found))
    if len(mine) != len(theirs):
        return f"plan: expected {len(mine)} shards, got {len(theirs)}"
    for index, (own, other) in enumerate(zip(mine, theirs, strict=True)):
        if own != other:
            return f"plan, shard {index}: expected {own}, got {other}"
    return None


def flat(weights: Weights, spec: NetSpec, shard: Shard) -> Tensor:
    """The rows of a shard, ready to be stored."""
    if not isinstance(weights, Weights):
        raise TypeError(f"weights: expected Weights, got {type(weights).__name__}")
    if weights.spec != spec:
        raise ValueError(f"weights: expected networks of the zoo's spec {spec}, got {weights.spec}")
    if weights.dtype != torch.float32:
        raise TypeError(f"weights: expected float32, got {weights.dtype}; convert with weights.to(torch.float32)")
    if list(weights.flat.shape) != [shard.count, spec.num_params]:
        raise ValueError(
            f"weights: expected the {shard.count} networks planned for {shard.file}, got {list(weights.flat.shape)}"
        )
    own = weights.flat.detach().cpu().contiguous()
    check_finite(own, "weights")
    return own


def check_finite(networks: Tensor, what: str, names: Sequence[Any] | None = None) -> None:
    """Raise ``ValueError`` if any of the networks ``[batch, param]`` holds NaN or infinity; ``names``: of the rows."""
    bad = torch.nonzero(~networks.isfinite().all(1)).flatten().tolist()
    if bad:
        first = f"in row {bad[0]}" if names is None else names[bad[0]]
        raise ValueError(
            f"{what}: expected finite networks, got NaN or infinity in {len(bad)} of {len(networks)}, the first "
            f"{first}; fit them with a lower lr or leave them out"
        )


def column(name: str, values: Any, default: float, count: int) -> Tensor:
    """One number per network: float32 for psnr, int64 for the others."""
    dtype = torch.float32 if name == "psnr" else torch.int64
    if values is None and name != "source":
        return torch.full((count,), default, dtype=dtype)
    if values is None:
        raise ValueError("sources: expected the signal of each network, got none")
    try:
        own = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        kind = "numbers" if name == "psnr" else "integers"
        raise ValueError(f"{name}: expected {kind}, one for each of {count} networks, got {values!r:.80}") from error
    if list(own.shape) != [count]:
        raise ValueError(f"{name}: expected one value for each of {count} networks, got shape {list(own.shape)}")
    if dtype == torch.int64 and (own.is_floating_point() or own.dtype == torch.bool):
        raise ValueError(f"{name}: expected integers, got {own.dtype}")
    return own.to(dtype, copy=True).contiguous()


def check_range(name: str, values: Tensor, low: int, stop: int | None) -> None:
    """Raise ``ValueError`` unless every value is at least ``low`` and below ``stop``."""
    bad = values[(values < low) | (values >= stop if stop is not None else False)]
    if len(bad):
        below = "" if stop is None else f" and below {stop}"
        raise ValueError(f"{name}: expected integers from {low}{below}, got {bad[0].item()}")
