"""Initial weights, each network's derived from (seed, source, view)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from weightspace._random import network_uniform
from weightspace._spec import INITS, Init, Layer, NetSpec
from weightspace._weights import Weights

SHARED = 2**62  # the source index that stands for "everybody" when all networks start alike


def initial_weights(
    spec: NetSpec,
    sources: Tensor,
    views: Tensor,
    *,
    seed: int,
    init: Init | None = None,
    shared: bool = False,
) -> Weights:
    """Return the networks to start fitting from.

    Args:
        spec: the spec of the networks.
        sources: int64 ``[batch]``, the number of the signal that each network is for.
        views: int64 ``[batch]``, which of the independent fits of that signal each is.
        seed: the seed of the whole zoo.
        init: the convention, see :func:`weightspace.siren`; by default the spec's own.
        shared: whether every network starts from one and the same point.

    Raises:
        ValueError: for an unknown convention.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> both = initial_weights(spec, torch.tensor([3, 7]), torch.tensor([0, 0]), seed=0)
        >>> one = initial_weights(spec, torch.tensor([7]), torch.tensor([0]), seed=0)
        >>> torch.equal(both.flat[1:], one.flat)
        True
    """
    bound = _bounds(spec, spec.init if init is None else init)
    keys = [(SHARED, 0)] * len(sources) if shared else zip(sources.tolist(), views.tolist(), strict=True)
    rows = np.stack([network_uniform(seed, source, view, spec.num_params) for source, view in keys])
    return Weights(torch.from_numpy(rows).mul_(2).sub_(1).mul_(bound), spec)


def _bounds(spec: NetSpec, init: str) -> Tensor:
    """Return the half-width of the uniform distribution of every scalar."""
    if init not in INITS:
        raise ValueError(f"unknown init: expected one of {list(INITS)}, got {init!r}")
    out = torch.empty(spec.num_params, dtype=torch.float32)
    for layer in spec.layers:
        weight, bias = _layer_bounds(spec, layer, init)
        out[spec.slices[layer.weight]] = weight
        if layer.bias is not None:
            out[spec.slices[layer.bias]] = bias
    return out


def _layer_bounds(spec: NetSpec, layer: Layer, init: str) -> tuple[float, float]:
    """Return the half-widths of the weights and of the biases of a layer."""
    fan_in, produced = spec.axis(layer.consumes).size, spec.axis(layer.produces)
    plain = 1 / math.sqrt(fan_in)
    if init == "torch":
        return plain, plain
    if init == "dws":
        return (math.sqrt(6 / fan_in) / produced.omega, 0.0) if produced.hidden else (plain, plain)
    if layer.consumes == spec.input:
        return 1 / fan_in, plain
    # the last layer is divided by the omega of the layer it reads
    omega = produced.omega if produced.hidden else spec.axis(layer.consumes).omega
    return math.sqrt(6 / fan_in) / omega, plain
