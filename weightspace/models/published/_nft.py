"""NFT: attention among the weights that touch a neuron, and a pool of learned queries (Zhou et al. 2023b)."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._checks import whole_number
from weightspace._random import seeded_by
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models._model import Head, Model, checked_config
from weightspace.models._normalize import Normalize
from weightspace.models.layers._chain import without_channel
from weightspace.models.layers._graph import Fourier
from weightspace.models.layers._heads import check_divisor, normed_mlp


@final
class NFT(Model):
    r"""Let all weights and biases that touch a neuron attend to one another, then read them by learned queries.

    With ``T_n`` the entries that carry neuron ``n`` (its incoming row, its bias, its outgoing column):

    .. math:: x_w' = x_w + O \sum_{n \ni w} Attention(x_w, \{x_u : u \in T_n\})

    followed by a feed-forward block. In the invariant head a few learned queries attend to all entries, which makes
    the array of INR2ARRAY. Cost of a forward pass, with ``P`` weights and ``d`` channels: about ``16 P d^2`` FLOP per
    layer and network, and ``4 P T d`` for the attention of each of the two neurons that a weight touches.

    Args:
        spec: the networks to read; any spec with at least one hidden axis, convolutions included.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels, at least 2.
        layers: number of attention layers.
        attention_heads: a divisor of ``hidden``.
        queries: number of learned queries of the invariant head.
        fourier: number of frequencies that embed every weight and bias.
        head: ``"invariant"`` returns ``[batch, out_features]``; ``"equivariant"`` returns ``Weights``.
        dropout: probability, in the feed-forward blocks and before the last layer.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for a spec without hidden axes, an unknown head, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 16, 16, 1)
        >>> ws.models.NFT(spec, 10, hidden=8, seed=0)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Zhou et al., *Neural Functional Transformers*, 2023, sections on attention and INR2ARRAY. Published: 79.3 %
        on Fashion-MNIST INRs, for a classifier of INR2ARRAY's arrays. Departures: no attention
        over all weights at once, whose cost is quadratic in their number; the queries are trained on the task itself,
        unless :class:`Autoencoder` puts a decoder behind them.
    """

    name = "nft"
    reads = "hidden"
    equivariance = "permutation"
    heads = ("invariant", "equivariant")
    which: Tensor

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        *,
        hidden: int = 64,
        layers: int = 3,
        attention_heads: int = 4,
        queries: int = 8,
        fourier: int = 32,
        head: Head = "invariant",
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        config = checked_config(
            hidden, layers, dropout, seed, attention_heads=attention_heads, queries=queries, fourier=fourier, head=head
        )
        super().__init__(spec, out_features, Normalize(spec), config)
        check_divisor("attention_heads", attention_heads, hidden)
        which, kinds = entry_kinds(spec)
        self.register_buffer("which", which, persistent=False)
        with seeded_by(seed):
            self.embed = Fourier(hidden, fourier)
            self.place = nn.Parameter(torch.randn(kinds, hidden) / math.sqrt(hidden))
            self.layers = nn.ModuleList(
                IncidentAttention(spec, hidden, attention_heads, dropout) for _ in range(layers)
            )
            self.norm, self.pool = nn.LayerNorm(hidden), None
            if head == "equivariant":
                self.head = nn.Linear(hidden, out_features)
            else:
                self.pool = QueryPool(hidden, attention_heads, whole_number("queries", queries))
                self.head = normed_mlp(
                    queries * hidden, 2 * hidden, 1, out_features, dropout=dropout, activation=nn.SiLU
                )

    def compute(self, weights: Weights) -> Tensor | Weights:
        value = self.embed(weights.flat) + self.place[self.which]
        for layer in self.layers:
            value = layer(value)
        value = self.norm(value)
        if self.pool is not None:
            return self.head(self.pool(value).flatten(1))
        return without_channel(weights.replace(self.head(value)))


class IncidentAttention(nn.Module):
    """Let the entries of every neuron attend to one another, then apply a feed-forward block.

    Args:
        spec: the networks.
        width: channels of the features ``[batch, param, channel]``.
        heads: number of attention heads.
        dropout: probability, in the feed-forward block.
    """

    def __init__(self, spec: NetSpec, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.names, self.heads = [], heads
        for i, axis in enumerate(spec.hidden):
            self.register_buffer(f"incident{i}", incident(spec, axis.name), persistent=False)
            self.names.append(f"incident{i}")
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, value: Tensor) -> Tensor:
        read = self.read(self.norms[0](value))
        mixed = torch.zeros_like(value)
        for name in self.names:
            index = getattr(self, name)
            tokens = read.index_select(1, index.flatten()).unflatten(1, index.shape).unflatten(-1, (3, self.heads, -1))
            q, k, v = tokens.permute(3, 0, 1, 4, 2, 5).flatten(1, 2)  # each [batch * neuron, head, entry, channel]
            out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            mixed = mixed.index_add(1, index.flatten(), out.reshape(len(value), -1, value.shape[-1]).to(mixed.dtype))
        value = value + self.write(mixed)
        return value + self.feed(self.norms[1](value))


class QueryPool(nn.Module):
    """Pool all entries by learned queries: ``[batch, param, channel]`` to ``[batch, query, channel]``.

    Args:
        width: channels.
        heads: number of attention heads.
        queries: number of queries.
    """

    def __init__(self, width: int, heads: int, queries: int) -> None:
        super().__init__()
        self.heads, self.queries = heads, nn.Parameter(torch.randn(heads, queries, width // heads))
        self.read = nn.Linear(width, 2 * width)

    def forward(self, value: Tensor) -> Tensor:
        k, v = self.read(value).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries = self.queries.expand(len(value), -1, -1, -1)
        return F.scaled_dot_product_attention(queries, k, v).transpose(1, 2).flatten(2)


def incident(spec: NetSpec, axis: str) -> Tensor:
    """Return the positions in ``flat`` of all entries that carry each neuron of a hidden axis, ``[neuron, entry]``."""
    rows = []
    for param in spec.params:
        if axis in param.axes:
            where = torch.arange(spec.slices[param.name].start, spec.slices[param.name].stop)
            rows.append(where.view(spec.shape(param.name)).movedim(param.axes.index(axis), 0))
    return torch.cat([row.reshape(spec.axis(axis).size, -1) for row in rows], 1)


def entry_kinds(spec: NetSpec) -> tuple[Tensor, int]:
    """Number the kinds of entries: a kind is a parameter and a place on the axes that nothing permutes.

    Returns:
        The kind of every entry, int64 ``[param]``, and how many kinds there are.
    """
    rows, count = [], 0
    for param in spec.params:
        shape = spec.shape(param.name)
        kind, stride = torch.zeros(shape, dtype=torch.int64), 1
        for i, name in reversed(list(enumerate(param.axes))):
            if not spec.axis(name).hidden:
                view = [1] * len(shape)
                view[i] = shape[i]
                kind = kind + stride * torch.arange(shape[i]).view(view)
                stride *= shape[i]
        rows.append(kind.flatten() + count)
        count += stride
    return torch.cat(rows), count
