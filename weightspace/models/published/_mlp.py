"""The plain baseline: an MLP on normalised flat weights."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_sizes


class MLP(Model):
    """A multi-layer perceptron on the flat weights, each scalar normalised by itself. It respects no symmetry.

    ``x_0 = normalize(w)``, ``x_l = relu(norm(A_l x_{l-1} + b_l))``, and one more linear layer.

    Args:
        spec: the networks to read; any spec.
        out_features: number of outputs.
        hidden: width of the hidden layers, at least 2.
        layers: number of hidden layers.
        dropout: after each hidden layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for sizes out of range.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.MLP(spec, out_features=10)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        The baseline of Navon et al. 2023, table 1, and of Shamsian et al. 2023. Published: 19.9 % on Fashion-MNIST INRs
        (55,000 training images, independent initialisations). Cost of a step forward: two FLOP a parameter and network.
        Permutations as augmentation are a transform of training (``ws.transforms.augmentation("permute")``); networks
        are anchored before with ``ws.align.anchor`` and ``ws.align.canonicalize``.
    """

    respects = "nothing"

    def __init__(
        self, spec: NetSpec, out_features: int, *, hidden: int = 512, layers: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__(spec, Normalize(spec, per="entry"))
        check_sizes(out_features, hidden, layers, dropout)
        widths = [spec.num_params] + [hidden] * layers
        blocks: list[nn.Module] = []
        for a, b in pairwise(widths):
            blocks += [nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*blocks, nn.Linear(hidden, out_features))

    def _forward(self, weights: Weights) -> Tensor:
        return self.net(weights.flat)
