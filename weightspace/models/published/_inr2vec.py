"""Encoders of the rows of weight matrices: inr2vec's, and a transformer on weight tokens. They respect no symmetry."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from weightspace._checks import whole_number
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_sizes
from weightspace.models.layers._chain import affine, chain


class Rows(nn.Module):
    """One token for each hidden and output neuron: its incoming weights and bias, mapped linearly, layer by layer."""

    def __init__(self, spec: NetSpec, width: int, model: str) -> None:
        super().__init__()
        self.layers = chain(spec, model)
        self.maps = nn.ModuleList(nn.Linear(spec.shape(layer.weight)[1] + 1, width) for layer in self.layers)

    def forward(self, weights: Weights) -> Tensor:
        """``[batch, token, width]``."""
        pairs = zip(self.maps, *affine(weights, self.layers), strict=True)
        return torch.cat([f(torch.cat([matrix, bias.unsqueeze(-1)], -1)) for f, matrix, bias in pairs], 1)


class INR2Vec(Model):
    r"""inr2vec's encoder: one MLP on every row of the weight matrices, the largest value over rows, a linear map.

    .. math:: y = A \; max_i \; MLP(A_l [W_l, b_l]_i) + b

    Cost of a step forward, with ``N`` neurons: ``2 layers N hidden^2`` FLOP a network.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: number of outputs.
        hidden: width of the MLP, at least 2.
        layers: its layers, after the linear map of each row.
        dropout: before the last layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.INR2Vec(spec, out_features=10, hidden=64)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        De Luigi et al., *Deep Learning on Implicit Neural Representations of Shapes*, 2023, section 3 (the encoder).
        Published for INRs that share their initialisation, which it relies on. Departures: every layer has a linear map
        of its own to a common width, so that widths may differ and the first and last layer are read too; layer norms
        instead of batch norms; trained on the task itself, without the decoder.
    """

    respects = "nothing"

    def __init__(
        self, spec: NetSpec, out_features: int, *, hidden: int = 256, layers: int = 3, dropout: float = 0.0
    ) -> None:
        chain(spec, "INR2Vec")
        super().__init__(spec, Normalize(spec, per="entry"))
        check_sizes(out_features, hidden, layers, dropout)
        self.rows = Rows(spec, hidden, "INR2Vec")
        blocks: list[nn.Module] = []
        for a, b in pairwise([hidden] * (layers + 1)):
            blocks += [nn.LayerNorm(a), nn.ReLU(), nn.Linear(a, b)]
        self.net = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out_features))

    def _forward(self, weights: Weights) -> Tensor:
        return self.head(self.net(self.rows(weights)).amax(1))


class WeightTokens(Model):
    r"""A transformer encoder on one token for each row of the weight matrices; a class token is read out.

    Cost of a step forward, with ``N`` neurons: about ``24 N hidden^2 + 4 N^2 hidden`` FLOP a layer and network.

    Args:
        spec: the networks to read: MLPs and SIRENs of any depth and width.
        out_features: number of outputs.
        hidden: width of the tokens, at least 2.
        layers: of the encoder.
        attention_heads: divides ``hidden``.
        dropout: of the encoder.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for convolutions, no hidden layer, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 32, 32, 1)
        >>> ws.models.WeightTokens(spec, 10, hidden=32)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        The weight-token transformer in the code released with Shamsian et al., *Improved Generalization of Weight Space
        Networks via Augmentations*, 2024. Published: no accuracy of its own that we know of. Departures: every layer
        has a linear map of its own to the tokens' width, so that widths may differ; a bias lies in its row's token
        instead of a token of its layer's biases; the class token is learned.
    """

    respects = "nothing"

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 128,
        layers: int = 3,
        attention_heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        chain(spec, "WeightTokens")
        super().__init__(spec, Normalize(spec, per="entry"))
        check_sizes(out_features, hidden, layers, dropout)
        if hidden % whole_number("attention_heads", attention_heads):
            raise ValueError(f"attention_heads: expected a divisor of {hidden}, got {attention_heads}")
        self.rows = Rows(spec, hidden, "WeightTokens")
        self.token = nn.Parameter(torch.randn(1, 1, hidden))
        layer = nn.TransformerEncoderLayer(hidden, attention_heads, 4 * hidden, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden), enable_nested_tensor=False)
        self.head = nn.Linear(hidden, out_features)

    def _forward(self, weights: Weights) -> Tensor:
        tokens = torch.cat([self.token.expand(len(weights), -1, -1), self.rows(weights)], 1)
        return self.head(self.encoder(tokens)[:, 0])
