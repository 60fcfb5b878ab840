"""INR2ARRAY's scheme: an encoder of networks, and a decoder of the functions they compute (Zhou et al. 2023b)."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._checks import check_tensor, number, whole_number
from weightspace._random import seeded_by
from weightspace._weights import Weights
from weightspace.models._model import WeightModel
from weightspace.models.layers._heads import check_divisor


@final
class Autoencoder(WeightModel):
    r"""Encode networks as arrays, and decode arrays to function values; both are trained without labels.

    .. math:: z = E(w) \in \mathbb{R}^{queries \times width}, \qquad
        \hat y(x) = MLP\big(\gamma(x) + Attention(\gamma(x), z)\big)

    The encoder is any model whose outputs are the array, row by row; ``gamma`` is a learned map of sines and cosines of
    ``x``. Calling the autoencoder returns the flat array; :meth:`decode` returns values at points. Train it with
    :class:`weightspace.training.Reconstruction`, then use the arrays, or ``encoder`` alone. Its equivariance and track
    are the encoder's, because the decoder never reads a network.

    Args:
        encoder: a model whose outputs are ``queries`` rows of equal width.
        queries: rows of the array.
        hidden: width of the decoder, a multiple of ``attention_heads``.
        layers: number of hidden layers of the decoder's MLP.
        attention_heads: heads of the attention from points to the array.
        frequencies: number of sines and cosines that embed a point.
        reach: standard deviation of their frequencies, in radians per unit of input.
        seed: of the decoder's initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for an encoder that does not return a tensor, and for other than plain numbers.
        ValueError: for networks that are no chain of linear layers, outputs that do not make equal rows, or sizes out
            of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 16, 16, 1)
        >>> encoder = ws.models.NFT(spec, 8 * 16, hidden=8, layers=1, seed=0)
        >>> model = ws.models.Autoencoder(encoder, queries=8, hidden=32, seed=0)
        >>> w = ws.Weights(torch.randn(4, spec.num_params), spec)
        >>> model(w).shape, model.decode(model(w), ws.signals.grid(5, 5)).shape
        (torch.Size([4, 128]), torch.Size([4, 25, 1]))

    Reference:
        Zhou et al., *Neural Functional Transformers*, 2023, INR2ARRAY; with other encoders the scheme is that of
        De Luigi et al., *Deep Learning on Implicit Neural Representations of Shapes*, 2023 (inr2vec). Departure: the
        decoder returns values at single points, as inr2vec's does, and not weights.
    """

    name = "autoencoder"
    reads = "chain"
    encoder: WeightModel
    waves: Tensor

    def __init__(
        self,
        encoder: WeightModel,
        *,
        queries: int = 8,
        hidden: int = 64,
        layers: int = 2,
        attention_heads: int = 4,
        frequencies: int = 64,
        reach: float = 8.0,
        seed: int | None = None,
    ) -> None:
        if not isinstance(encoder, WeightModel):
            raise TypeError(f"encoder: expected a model of ws.models, got {type(encoder).__name__}")
        if encoder.output == "weights":
            raise TypeError("encoder: expected an invariant head, which returns a tensor, got weights to weights")
        super().__init__(
            encoder.spec,
            encoder.out_features,
            output=encoder.output,
            equivariance=encoder.equivariance,
            track=encoder.track,
        )
        if encoder.out_features % whole_number("queries", queries):
            raise ValueError(
                f"queries: expected a divisor of the encoder's {encoder.out_features} outputs, got {queries}"
            )
        check_divisor("attention_heads", attention_heads, whole_number("hidden", hidden, 2))
        self.encoder, self.training = encoder, encoder.training
        self.queries, self.attention_heads = queries, attention_heads
        self.reach = number("reach", reach, "a positive number", above=0)
        inputs, outputs = encoder.spec.in_features, encoder.spec.out_features
        whole_number("layers", layers)
        with seeded_by(seed):
            self.register_buffer("waves", self.reach * torch.randn(inputs, whole_number("frequencies", frequencies)))
            self.place = nn.Linear(2 * frequencies, hidden)
            self.ask, self.answer = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
            self.rows = nn.Parameter(torch.randn(queries, hidden) / math.sqrt(hidden))  # tells the rows apart
            self.read = nn.Linear(encoder.out_features // queries, 2 * hidden)
            self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden))
                for _ in range(layers)
            )
            self.values = nn.Linear(hidden, outputs)
        own = next(encoder.parameters(), self.waves)
        self.to(device=own.device, dtype=own.dtype)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder,
            "queries": self.queries,
            "hidden": self.rows.shape[1],
            "layers": len(self.norms),
            "attention_heads": self.attention_heads,
            "frequencies": self.waves.shape[1],
            "reach": self.reach,
        }

    def extra_repr(self) -> str:
        return f"queries={self.queries}, attention_heads={self.attention_heads}, reach={self.reach}"

    def forward(self, weights: Weights) -> Tensor:
        """Return the flat array of every network, ``[batch, queries * width]``."""
        out = self.encoder(weights)
        assert isinstance(out, Tensor)
        return out

    def decode(self, array: Tensor, x: Tensor) -> Tensor:
        """Compute the values that arrays stand for at points.

        Args:
            array: ``[batch, queries * width]``, as the model returns it.
            x: points, ``[point, in]`` or ``[batch, point, in]``.

        Returns:
            ``[batch, point, out]``.

        Raises:
            TypeError: for something other than tensors.
            ValueError: for arrays or points of other sizes.
        """
        spec = self.spec
        check_tensor("array", array)
        check_tensor("x", x)
        if array.ndim != 2 or array.shape[1] != self.queries * self.read.in_features:
            raise ValueError(
                f"array: expected [batch, {self.queries * self.read.in_features}], as the model returns it, "
                f"got {list(array.shape)}"
            )
        if x.ndim not in (2, 3) or x.shape[-1] != spec.in_features or (x.ndim == 3 and len(x) != len(array)):
            raise ValueError(
                f"x: expected [point, {spec.in_features}] or [{len(array)}, point, {spec.in_features}], "
                f"got {list(x.shape)}"
            )
        array = array.to(self.waves)
        exact = torch.promote_types(array.dtype, torch.float32)  # of an angle, half precision leaves nothing
        angle = x.to(array.device, exact) @ self.waves.to(exact)
        value = self.place(torch.cat([angle.sin(), angle.cos()], -1).to(array)).expand(len(array), -1, -1)
        k, v = self.read(array.unflatten(1, (self.queries, -1))).chunk(2, -1)
        asked, k, v = (
            t.unflatten(-1, (self.attention_heads, -1)).transpose(1, 2) for t in (self.ask(value), k + self.rows, v)
        )
        found = F.scaled_dot_product_attention(asked, k, v).transpose(1, 2).flatten(2)
        value = value + self.answer(found)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            value = value + block(norm(value))
        return self.values(value) + spec.output_shift
