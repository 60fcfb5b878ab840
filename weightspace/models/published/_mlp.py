"""The plain baseline: an MLP on normalised flat weights."""

from __future__ import annotations

from typing import final

from torch import Tensor

from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._heads import normed_mlp


@final
class MLP(Model):
    """A multi-layer perceptron that reads the flat weights, each scalar normalised by itself.

    ``x_0 = normalize(w)``, ``x_l = relu(norm(A_l x_{l-1} + b_l))``, and one more linear layer. It respects no symmetry.
    Cost of a forward pass: two FLOP per parameter of the model and network.

    Args:
        spec: the networks to read; any spec.
        out_features: number of outputs.
        hidden: width of the hidden layers, at least 2.
        layers: number of hidden layers.
        dropout: probability, after each hidden layer.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for sizes out of range.

    Example:
        >>> import torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.MLP(spec, out_features=10, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        The baseline of Navon et al. 2023, table 1, and of Shamsian et al. 2023. Published: 19.9 % on Fashion-MNIST INRs
        (55,000 training images, independent initialisations). Permutations as augmentation are a transform of training
        (``ws.transforms.augmentation("permute")``); networks are aligned beforehand by ``ws.align.align_zoo``.
    """

    name = "mlp"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 512,
        layers: int = 3,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed)
        super().__init__(spec, out_features, Normalize(spec, per="entry"), config)
        with seeded_by(seed):
            self.net = normed_mlp(spec.num_params, hidden, layers, out_features, dropout=dropout)

    def compute(self, weights: Weights) -> Tensor:
        return self.net(weights.flat)
