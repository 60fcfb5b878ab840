"""NFT: attention among the weights that touch a neuron, and a pool of learned queries (Zhou et al. 2023b)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightspace._checks import whole_number
from weightspace._spec import NetSpec, check_spec
from weightspace._weights import Weights
from weightspace.models._base import Model, Normalize, check_head, check_sizes
from weightspace.models.layers._graph import Fourier


class NFT(Model):
    r"""Self-attention among all weights and biases that touch a neuron, for every neuron, then learned queries.

    With ``T_n`` the entries that carry neuron ``n`` (its incoming row, its bias, its outgoing column):

    .. math:: x_w' = x_w + O \sum_{n \ni w} Attention(x_w, \{x_u : u \in T_n\})

    followed by a feed-forward block. The invariant head lets a few learned queries attend to all entries: the array of
    INR2ARRAY. Cost of a step forward, with ``P`` weights and ``d`` channels: about ``16 P d^2`` FLOP a layer and
    network, and ``4 P T d`` for each of the two neurons' attentions.

    Args:
        spec: the networks to read; any spec with at least one hidden axis, convolutions included.
        out_features: outputs of the invariant head, or channels of the equivariant one.
        hidden: channels, at least 2.
        layers: of attention.
        attention_heads: divides ``hidden``.
        queries: of the invariant head.
        fourier: frequencies that embed every weight and bias.
        head: ``"invariant"`` gives ``[batch, out_features]``; ``"equivariant"`` gives ``Weights``.
        dropout: in the feed-forward blocks and before the last layer.

    Raises:
        TypeError: for something other than a ``NetSpec`` and plain numbers.
        ValueError: for a spec without hidden axes, an unknown head, or sizes out of range.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 16, 16, 1)
        >>> ws.models.NFT(spec, out_features=10, hidden=8)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 10])

    Reference:
        Zhou et al., *Neural Functional Transformers*, 2023, sections on attention and INR2ARRAY. Published: 79.3 %
        on Fashion-MNIST INRs, for a classifier of INR2ARRAY's arrays. Departures: no attention
        over all weights at once, whose cost is quadratic in their number; the queries are trained on the task itself,
        unless :class:`Autoencoder` puts a decoder behind them.
    """

    respects = "permutation"
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
        head: Literal["invariant", "equivariant"] = "invariant",
        dropout: float = 0.0,
    ) -> None:
        check_spec(spec)
        super().__init__(spec, Normalize(spec))
        if not spec.hidden:
            raise ValueError("expected a spec with at least one hidden axis, got none; use ws.models.MLP")
        check_head(head, self.heads)
        check_sizes(out_features, hidden, layers, dropout)
        if hidden % whole_number("attention_heads", attention_heads):
            raise ValueError(f"attention_heads: expected a divisor of {hidden}, got {attention_heads}")
        self.embed = Fourier(hidden, whole_number("fourier", fourier))
        which = _places(spec)
        self.register_buffer("which", which, persistent=False)
        self.place = nn.Parameter(torch.randn(int(which.max()) + 1, hidden) / math.sqrt(hidden))
        self.layers = nn.ModuleList(IncidentAttention(spec, hidden, attention_heads, dropout) for _ in range(layers))
        self.norm, self.pool = nn.LayerNorm(hidden), None
        if head == "equivariant":
            self.head: nn.Module = nn.Linear(hidden, out_features)
        else:
            self.pool = QueryPool(hidden, attention_heads, whole_number("queries", queries))
            self.head = nn.Sequential(
                nn.Linear(queries * hidden, 2 * hidden),
                nn.LayerNorm(2 * hidden),
                nn.SiLU(),
                nn.Dropout(dropout),
                nn.Linear(2 * hidden, out_features),
            )

    def _forward(self, weights: Weights) -> Tensor | Weights:
        value = self.embed(weights.flat) + self.place[self.which]
        for layer in self.layers:
            value = layer(value)
        value = self.norm(value)
        if self.pool is not None:
            return self.head(self.pool(value).flatten(1))
        out = self.head(value)
        return weights.replace(out.squeeze(-1) if out.shape[-1] == 1 else out)


class IncidentAttention(nn.Module):
    """Attention among the entries of every neuron, and a feed-forward block, on ``[batch, param, channel]``."""

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
    """Learned queries attend to all entries: ``[batch, param, channel]`` to ``[batch, query, channel]``."""

    def __init__(self, width: int, heads: int, queries: int) -> None:
        super().__init__()
        self.heads, self.queries = heads, nn.Parameter(torch.randn(heads, queries, width // heads))
        self.read = nn.Linear(width, 2 * width)

    def forward(self, value: Tensor) -> Tensor:
        k, v = self.read(value).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries = self.queries.expand(len(value), -1, -1, -1)
        return F.scaled_dot_product_attention(queries, k, v).transpose(1, 2).flatten(2)


def incident(spec: NetSpec, axis: str) -> Tensor:
    """Positions in ``flat`` of all entries that carry each neuron of a hidden axis, ``[neuron, entry]``."""
    rows = []
    for param in spec.params:
        if axis in param.axes:
            where = torch.arange(spec.slices[param.name].start, spec.slices[param.name].stop)
            rows.append(where.view(spec.shape(param.name)).movedim(param.axes.index(axis), 0))
    return torch.cat([row.reshape(spec.axis(axis).size, -1) for row in rows], 1)


def _places(spec: NetSpec) -> Tensor:
    """For every entry the number of its kind: its parameter, and its place on the axes that nothing permutes."""
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
    return torch.cat(rows)
