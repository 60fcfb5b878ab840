"""INR2ARRAY's scheme: an encoder of networks, and a decoder that gives back what they compute (Zhou et al. 2023b)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._checks import check_tensor, number, whole_number
from weightspace._weights import Weights
from weightspace.models._base import Model, Wrapper
from weightspace.models.layers._chain import chain


class Autoencoder(Wrapper):
    r"""Networks to arrays, and arrays back to what the networks compute, learned without labels.

    .. math:: z = E(w) \in \mathbb{R}^{queries \times width}, \qquad
        \hat y(x) = MLP\big(\gamma(x) + Attention(\gamma(x), z)\big)

    The encoder is any model with an invariant head whose outputs are the array, row by row; ``gamma`` are learned maps
    of sines and cosines of ``x``. Calling it gives the array, flat; :meth:`decode` gives values at points. Train it
    with :class:`weightspace.training.Reconstruction`, then read the arrays, or go on with ``encoder`` alone. It respects
    what the encoder respects, and is of the encoder's track: the decoder never sees a network.

    Args:
        encoder: a model whose outputs are ``queries`` rows of equal width.
        queries: rows of the array.
        hidden: width of the decoder, a multiple of ``attention_heads``.
        layers: hidden layers of its MLP.
        attention_heads: of the points' attention to the array.
        frequencies: sines and cosines that embed a point.
        reach: standard deviation of their frequencies, in radians per unit of input.

    Raises:
        TypeError: for an encoder that is no ``Model`` with an invariant head, and for other than plain numbers.
        ValueError: for networks that are no chain of linear layers, outputs that do not make equal rows, or sizes out
            of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 16, 16, 1)
        >>> model = ws.models.Autoencoder(ws.models.NFT(spec, 8 * 16, hidden=8, layers=1), queries=8, hidden=32)
        >>> w = ws.Weights(torch.randn(4, spec.num_params), spec)
        >>> model(w).shape, model.decode(model(w), ws.signals.grid(5, 5)).shape
        (torch.Size([4, 128]), torch.Size([4, 25, 1]))

    Reference:
        Zhou et al., *Neural Functional Transformers*, 2023, INR2ARRAY; with other encoders the scheme is that of
        De Luigi et al., *Deep Learning on Implicit Neural Representations of Shapes*, 2023 (inr2vec). Departures: the
        decoder answers for single points, as inr2vec's does, and makes no network.
    """

    waves: Tensor

    def __init__(
        self,
        encoder: Model,
        *,
        queries: int = 8,
        hidden: int = 64,
        layers: int = 2,
        attention_heads: int = 4,
        frequencies: int = 64,
        reach: float = 8.0,
    ) -> None:
        size = _outputs(encoder)
        chain(encoder.spec, "Autoencoder")
        if size % whole_number("queries", queries):
            raise ValueError(f"queries: expected a divisor of the encoder's {size} outputs, got {queries}")
        if whole_number("hidden", hidden, 2) % whole_number("attention_heads", attention_heads):
            raise ValueError(f"attention_heads: expected a divisor of {hidden}, got {attention_heads}")
        nn.Module.__init__(self)
        self.encoder, self.queries, self.attention_heads = encoder, queries, attention_heads
        self.respects, self.track = encoder.respects, encoder.track
        inputs, outputs = encoder.spec.in_features, encoder.spec.out_features
        self.reach = number("reach", reach, "a positive number", above=0)
        self.register_buffer("waves", self.reach * torch.randn(inputs, whole_number("frequencies", frequencies)))
        self.place = nn.Linear(2 * frequencies, hidden)
        self.ask, self.answer = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.rows = nn.Parameter(torch.randn(queries, hidden) / math.sqrt(hidden))  # tells the rows apart
        self.read = nn.Linear(size // queries, 2 * hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(whole_number("layers", layers)))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden)) for _ in self.norms
        )
        self.values = nn.Linear(hidden, outputs)
        self.to(encoder.normalize.mean)

    def extra_repr(self) -> str:
        return f"queries={self.queries}, attention_heads={self.attention_heads}, reach={self.reach}"

    @property
    def inner(self) -> Model:
        return self.encoder

    def forward(self, weights: Weights) -> Tensor:
        """The array of every network, flat: ``[batch, queries * width]``."""
        return self._forward(weights)

    def _forward(self, weights: Weights) -> Tensor:
        out = self.encoder(weights)
        assert isinstance(out, Tensor)
        return out

    def decode(self, array: Tensor, x: Tensor) -> Tensor:
        """Values at the points ``x``, ``[point, in]`` or ``[batch, point, in]``: ``[batch, point, out]``.

        Raises:
            ValueError: for arrays or points of other sizes.
        """
        spec = self.spec
        check_tensor("array", array)
        check_tensor("x", x)
        if array.ndim != 2 or array.shape[1] != self.queries * self.read.in_features:
            raise ValueError(
                f"array: expected [batch, {self.queries * self.read.in_features}], as the model gives it, "
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


def _outputs(encoder: Model) -> int:
    """How many outputs an encoder has, found by asking it."""
    if not isinstance(encoder, Model):
        raise TypeError(f"encoder: expected a model of ws.models, got {type(encoder).__name__}")
    modes = {part: part.training for part in encoder.modules()}
    flat = encoder.normalize.mean.new_zeros(1, encoder.spec.num_params)
    with torch.no_grad():
        out = encoder.eval()(Weights(flat, encoder.spec))
    for part, mode in modes.items():
        part.training = mode
    if not isinstance(out, Tensor):
        raise TypeError("encoder: expected an invariant head, which gives a tensor, got weights to weights")
    return out.shape[1]
