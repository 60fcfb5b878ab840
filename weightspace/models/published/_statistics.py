"""The statistics baseline (Unterthiner et al. 2020)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._heads import normed_mlp

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@final
class Statistics(Model):
    r"""Read mean, variance and five quantiles of every parameter with an MLP.

    .. math:: y = MLP\Big( \big\Vert_p \; mean(w_p), \, var(w_p), \, q_0(w_p), \ldots, q_1(w_p) \Big)

    Cost: a sort of every parameter, and ``2 h (7 t + (layers - 1) h + out_features)`` FLOP per network for an MLP of
    width ``h`` on ``7`` numbers of each of ``t`` parameter tensors.

    Args:
        spec: the networks to read; any spec, convolutions included.
        out_features: number of outputs.
        hidden: width of the MLP, at least 2.
        layers: number of its hidden layers.
        dropout: probability, after each hidden layer.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.Statistics(spec, out_features=10, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Unterthiner et al., *Predicting Neural Network Accuracy from Weights*, 2020, section 4. Published for predicting
        the accuracy of small convolutional networks, not for classifying INRs. Departure: an MLP reads the statistics;
        the paper compares a linear map, boosted trees and a deep network.
    """

    name = "statistics"
    equivariance = "permutation"
    reads_arrangement = False

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 256,
        layers: int = 2,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed)
        super().__init__(spec, out_features, Normalize(spec), config)
        inputs = (2 + len(QUANTILES)) * len(spec.params)
        with seeded_by(seed):
            self.net = normed_mlp(inputs, hidden, layers, out_features, dropout=dropout)

    def compute(self, weights: Weights) -> Tensor:
        return self.net(torch.cat([statistics(value.flatten(1)) for _, value in weights.items()], 1))


def statistics(value: Tensor) -> Tensor:
    """Return mean, variance and quantiles of each row, ``[batch, n]`` to ``[batch, 7]``.

    Quantiles between two entries are interpolated linearly.
    """
    ordered = value.sort(1).values
    at = torch.tensor(QUANTILES, device=value.device) * (value.shape[1] - 1)
    low, high = ordered[:, at.floor().long()], ordered[:, at.ceil().long()]
    quantiles = torch.lerp(low, high, at.frac().to(value.dtype).expand_as(low))
    return torch.cat([value.mean(1, keepdim=True), value.var(1, correction=0, keepdim=True), quantiles], 1)
