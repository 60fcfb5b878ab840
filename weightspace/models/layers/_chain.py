"""An MLP or SIREN as the chain of layers it is: its matrices and biases, and a readout of neuron features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from weightspace._spec import Layer, NetSpec, check_spec
from weightspace._weights import Weights


def chain(spec: NetSpec, model: str) -> tuple[Layer, ...]:
    """The layers of a sequential network with at least one hidden layer.

    Raises:
        TypeError: for something other than a ``NetSpec``.
        ValueError: for convolutions, residual links, or no hidden layer.
    """
    check_spec(spec)
    try:
        layers = spec.layers
    except ValueError as error:
        raise ValueError(f"{model} reads sequential networks of linear layers alone: {error}") from None
    if not spec.hidden:
        raise ValueError(f"{model}: expected at least one hidden axis, got none in {spec}; use ws.models.MLP")
    return layers


def axes_of(layers: Sequence[Layer]) -> list[str]:
    """The axes of a chain, from its input to its output."""
    return [layers[0].consumes, *(layer.produces for layer in layers)]


def affine(weights: Weights, layers: Sequence[Layer]) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices ``[batch, out, in]`` and biases ``[batch, out]`` by layer; zeros where a layer has no bias."""
    parts = dict(weights.items())
    matrices = [parts[layer.weight] for layer in layers]
    biases = [
        parts[layer.bias] if layer.bias is not None else matrix.new_zeros(matrix.shape[:2])
        for layer, matrix in zip(layers, matrices, strict=True)
    ]
    return matrices, biases


def assemble(like: Weights, layers: Sequence[Layer], matrices: Sequence[Tensor], biases: Sequence[Tensor]) -> Weights:
    """The inverse of :func:`affine`, for ``[batch, out, in, channel]`` and ``[batch, out, channel]``.

    One channel is dropped: the result is weights then, and features otherwise.
    """
    parts: dict[str, Tensor] = {}
    for layer, matrix, bias in zip(layers, matrices, biases, strict=True):
        parts[layer.weight] = matrix.flatten(1, 2)
        if layer.bias is not None:
            parts[layer.bias] = bias
    flat = torch.cat([parts[param.name] for param in like.spec.params], 1)
    return like.replace(flat.squeeze(-1) if flat.shape[-1] == 1 else flat)


class NeuronReadout(nn.Module):
    """Average the features of every hidden axis, keep those of inputs and outputs apart, then an MLP.

    Args:
        spec: the networks.
        sizes: channels of the features of each axis of the chain, from input to output.
        hidden: width of the MLP's hidden layer.
        out_features: outputs.
        dropout: before the last layer.
    """

    def __init__(
        self, spec: NetSpec, sizes: Sequence[int], hidden: int, out_features: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.fixed = [not spec.axis(name).hidden for name in axes_of(spec.layers)]
        counts = [
            spec.axis(name).size if keep else 1 for name, keep in zip(axes_of(spec.layers), self.fixed, strict=True)
        ]
        wide = sum(size * count for size, count in zip(sizes, counts, strict=True))
        self.mlp = nn.Sequential(
            nn.Linear(wide, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, out_features),
        )

    def forward(self, nodes: Sequence[Tensor]) -> Tensor:
        parts = [v.flatten(1) if keep else v.mean(1) for v, keep in zip(nodes, self.fixed, strict=True) if v.shape[-1]]
        return self.mlp(torch.cat(parts, 1))
