"""Readouts: from features of weights or neurons to outputs, without any order among neurons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._spec import NetSpec
from weightspace.models.layers._chain import axes_of


def normed_mlp(
    inputs: int,
    hidden: int,
    layers: int,
    out_features: int,
    *,
    dropout: float = 0.0,
    norm: Callable[[int], nn.Module] = nn.LayerNorm,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Make an MLP with a norm, an activation and dropout after each linear map but the last.

    Args:
        inputs: numbers that enter.
        hidden: width of the hidden layers.
        layers: number of hidden layers, at least 0.
        out_features: numbers that leave.
        dropout: probability, after each hidden layer.
        norm: makes the norm for a width.
        activation: makes the activation.
    """
    blocks: list[nn.Module] = []
    for i in range(layers):
        blocks += [nn.Linear(hidden if i else inputs, hidden), norm(hidden), activation(), nn.Dropout(dropout)]
    return nn.Sequential(*blocks, nn.Linear(hidden if layers else inputs, out_features))


class BatchNorm(nn.BatchNorm1d):
    """A batch norm of features that takes a batch of one in training too, by its running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) == 1:
            mean, variance = self.running_mean, self.running_var
            return nn.functional.batch_norm(input, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(input)


class NeuronReadout(nn.Module):
    """Average the neurons of every hidden axis, keep those of inputs and outputs apart, then apply an MLP.

    Args:
        spec: the networks, a chain.
        sizes: channels of each axis, from input to output; 0 for an axis that is not read.
        hidden: width of the MLP's hidden layer.
        out_features: numbers per network.
        dropout: probability, before the last layer.
    """

    def __init__(
        self, spec: NetSpec, sizes: Sequence[int], hidden: int, out_features: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        axes = [spec.axis(name) for name in axes_of(spec.layers)]
        self.fixed = [not axis.hidden for axis in axes]
        wide = sum(size * (1 if axis.hidden else axis.size) for size, axis in zip(sizes, axes, strict=True))
        self.mlp = normed_mlp(wide, hidden, 1, out_features, dropout=dropout, activation=nn.SiLU)

    def forward(self, nodes: Sequence[Tensor]) -> Tensor:
        """Map features ``[batch, neuron, channel]``, by axis, to ``[batch, out_features]``."""
        parts = [v.flatten(1) if keep else v.mean(1) for v, keep in zip(nodes, self.fixed, strict=True) if v.shape[-1]]
        return self.mlp(torch.cat(parts, 1))


def check_divisor(name: str, value: int, of: int) -> None:
    """Raise ``ValueError`` unless ``value``, a number of heads or rows, divides ``of`` channels."""
    if of % whole_number(name, value):
        raise ValueError(f"{name}: expected a divisor of {of}, got {value}")
