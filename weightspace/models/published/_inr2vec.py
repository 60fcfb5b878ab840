"""Models without symmetry on rows of weight matrices: inr2vec's encoder and a transformer (De Luigi et al. 2023)."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._chain import affine
from weightspace.models.layers._heads import check_divisor


class RowTokens(nn.Module):
    """Map the incoming weights and bias of each hidden and output neuron to a token, linearly, layer by layer.

    Args:
        spec: the networks, a chain.
        width: of the tokens.
    """

    def __init__(self, spec: NetSpec, width: int) -> None:
        super().__init__()
        self.layers = spec.layers
        self.maps = nn.ModuleList(nn.Linear(spec.shape(layer.weight)[1] + 1, width) for layer in self.layers)

    def forward(self, weights: Weights) -> Tensor:
        """Map ``[batch, param]`` to ``[batch, token, width]``."""
        pairs = zip(self.maps, *affine(weights, self.layers), strict=True)
        return torch.cat([f(torch.cat([matrix, bias.unsqueeze(-1)], -1)) for f, matrix, bias in pairs], 1)


@final
class INR2Vec(Model):
    r"""Apply one MLP to every row of the weight matrices and take the maximum over rows: inr2vec's encoder.

    .. math:: y = A \; max_i \; MLP(A_l [W_l, b_l]_i) + b

    It respects no symmetry. Cost of a forward pass, with ``N`` neurons: ``2 layers N hidden^2`` FLOP per network.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: number of outputs.
        hidden: width of the MLP, at least 2.
        layers: number of its layers, after the linear map of each row.
        dropout: probability, before the last layer.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.INR2Vec(spec, out_features=10, hidden=64, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        De Luigi et al., *Deep Learning on Implicit Neural Representations of Shapes*, 2023, section 3 (the encoder).
        Published for INRs that share their initialisation, which it relies on. Departures: every layer has its own
        linear map to a common width, so that widths may differ and the first and last layer are read too; layer norms
        instead of batch norms; trained on the task itself, without the decoder.
    """

    name = "inr2vec"
    reads = "chain"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 256,
        layers: int = 3,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed)
        super().__init__(spec, out_features, Normalize(spec, per="entry"), config)
        with seeded_by(seed):
            self.rows = RowTokens(spec, hidden)
            blocks: list[nn.Module] = []
            for a, b in pairwise([hidden] * (layers + 1)):
                blocks += [nn.LayerNorm(a), nn.ReLU(), nn.Linear(a, b)]
            self.net = nn.Sequential(*blocks)
            last = [nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out_features)]
            self.head = nn.Sequential(*last)

    def compute(self, weights: Weights) -> Tensor:
        return self.head(self.net(self.rows(weights)).amax(1))


@final
class WeightTokens(Model):
    r"""Run a transformer encoder on one token per row of the weight matrices, and read out a class token.

    It respects no symmetry. Cost of a forward pass, with ``N`` neurons: about ``24 N hidden^2 + 4 N^2 hidden`` FLOP per
    layer and network.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: number of outputs.
        hidden: width of the tokens, at least 2.
        layers: number of layers of the encoder.
        attention_heads: a divisor of ``hidden``.
        dropout: probability, in the encoder.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, attention heads that do not divide ``hidden``, or sizes out of
            range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> model = ws.models.WeightTokens(spec, out_features=10, hidden=32, seed=0)
        >>> model(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        The weight-token transformer in the code released with Shamsian et al., *Improved Generalization of Weight Space
        Networks via Augmentations*, 2024. Published: no accuracy of it alone that we know of. Departures: every layer
        has its own linear map to the tokens' width, so that widths may differ; a bias is part of its row's token
        instead of a token of its layer's biases; the class token is learned.
    """

    name = "weight-tokens"
    reads = "chain"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 128,
        layers: int = 3,
        attention_heads: int = 4,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(hidden, layers, dropout, seed, attention_heads=attention_heads)
        super().__init__(spec, out_features, Normalize(spec, per="entry"), config)
        check_divisor("attention_heads", attention_heads, hidden)
        with seeded_by(seed):
            self.rows = RowTokens(spec, hidden)
            self.token = nn.Parameter(torch.randn(1, 1, hidden))
            layer = nn.TransformerEncoderLayer(hidden, attention_heads, 4 * hidden, dropout, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden), enable_nested_tensor=False)
            self.head = nn.Linear(hidden, out_features)

    def compute(self, weights: Weights) -> Tensor:
        tokens = torch.cat([self.token.expand(len(weights), -1, -1), self.rows(weights)], 1)
        return self.head(self.encoder(tokens)[:, 0])
