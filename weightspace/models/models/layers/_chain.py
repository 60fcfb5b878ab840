"""An MLP or SIREN as a chain of layers: its matrices and biases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from weightspace._spec import Layer, NetSpec, check_spec
from weightspace._weights import Weights


def chain(spec: NetSpec, reader: str) -> tuple[Layer, ...]:
    """Return the layers of a sequential network with at least one hidden layer.

    Args:
        spec: the networks.
        reader: the name of what reads them, for messages.

    Raises:
        TypeError: for something other than a ``NetSpec``.
        ValueError: for convolutions, residual links, or no hidden layer.
    """
    check_readable(spec, "chain", reader)
    return spec.layers


def check_readable(spec: NetSpec, reads: str, reader: str) -> None:
    """Raise unless a spec is of the kind that a model declares to read.

    Args:
        spec: the networks.
        reads: ``"any"``, ``"hidden"`` or ``"chain"``, see :class:`weightspace.models.WeightModel`.
        reader: the name of the model, for messages.
    """
    check_spec(spec)
    if reads == "chain":
        try:
            _ = spec.layers
        except ValueError as error:
            raise ValueError(f"{reader} reads sequential networks of linear layers alone: {error}") from None
    if reads != "any" and not spec.hidden:
        raise ValueError(f"{reader}: expected at least one hidden axis, got none in {spec}; use ws.models.MLP")


def axes_of(layers: Sequence[Layer]) -> list[str]:
    """Return the axes of a chain, from its input to its output."""
    return [layers[0].consumes, *(layer.produces for layer in layers)]


def affine(weights: Weights, layers: Sequence[Layer]) -> tuple[list[Tensor], list[Tensor]]:
    """Return matrices ``[batch, out, in]`` and biases ``[batch, out]`` by layer; zeros where a layer has no bias."""
    parts = dict(weights.items())
    matrices = [parts[layer.weight] for layer in layers]
    biases = [
        parts[layer.bias] if layer.bias is not None else matrix.new_zeros(matrix.shape[:2])
        for layer, matrix in zip(layers, matrices, strict=True)
    ]
    return matrices, biases


def assemble(like: Weights, layers: Sequence[Layer], matrices: Sequence[Tensor], biases: Sequence[Tensor]) -> Weights:
    """Invert :func:`affine`, for ``[batch, out, in, channel]`` and ``[batch, out, channel]``.

    One channel is dropped, so that the result is weights; several make features.
    """
    parts: dict[str, Tensor] = {}
    for layer, matrix, bias in zip(layers, matrices, biases, strict=True):
        parts[layer.weight] = matrix.flatten(1, 2)
        if layer.bias is not None:
            parts[layer.bias] = bias
    return without_channel(like.replace(torch.cat([parts[param.name] for param in like.spec.params], 1)))


def without_channel(features: Weights) -> Weights:
    """Drop the channel axis of features with one channel, which makes them weights."""
    flat = features.flat
    return features.replace(flat.squeeze(-1)) if flat.shape[-1] == 1 else features
