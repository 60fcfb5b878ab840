"""The statistics baseline (Unterthiner et al. 2020)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_sizes

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Statistics(Model):
    r"""Mean, variance and five quantiles of every parameter, then an MLP.

    .. math:: y = MLP\Big( \big\Vert_p \; mean(w_p), \, var(w_p), \, q_0(w_p), \ldots, q_1(w_p) \Big)

    Cost: a sort of every parameter, and ``2 h (7 t + (layers - 1) h + out_features)`` FLOP a network for an MLP of
    width ``h`` on ``7`` numbers of each of ``t`` parameter tensors.

    Args:
        spec: the networks to read; any spec, convolutions included.
        out_features: number of outputs.
        hidden: width of the MLP, at least 2.
        layers: number of its hidden layers.
        dropout: after each hidden layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.Statistics(spec, out_features=10)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Unterthiner et al., *Predicting Neural Network Accuracy from Weights*, 2020, section 4. Published for predicting
        the accuracy of small convolutional networks, not for classifying INRs. Departure: an MLP reads the statistics;
        the paper compares a linear map, boosted trees and a deep network.
    """

    respects = "permutation"

    def __init__(
        self, spec: NetSpec, out_features: int, *, hidden: int = 256, layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__(spec, Normalize(spec))
        check_sizes(out_features, hidden, layers, dropout)
        widths = [(2 + len(QUANTILES)) * len(spec.params)] + [hidden] * layers
        blocks: list[nn.Module] = []
        for a, b in pairwise(widths):
            blocks += [nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*blocks, nn.Linear(hidden, out_features))

    def _forward(self, weights: Weights) -> Tensor:
        return self.net(torch.cat([_statistics(value.flatten(1)) for _, value in weights.items()], 1))


def _statistics(value: Tensor) -> Tensor:
    """``[batch, n]`` to ``[batch, 7]``; quantiles between two entries are interpolated linearly."""
    ordered = value.sort(1).values
    at = torch.tensor(QUANTILES, device=value.device) * (value.shape[1] - 1)
    low, high = ordered[:, at.floor().long()], ordered[:, at.ceil().long()]
    quantiles = torch.lerp(low, high, at.frac().to(value.dtype).expand_as(low))
    return torch.cat([value.mean(1, keepdim=True), value.var(1, correction=0, keepdim=True), quantiles], 1)
