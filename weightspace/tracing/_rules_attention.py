"""Rules of attention and of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weightspace.tracing._axes import Site, TracedTensor, freeze, unite
from weightspace.tracing._rules import broadcast, lift, rule, tensors


@rule("scaled_dot_product_attention")
def attention(
    site: Site,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    dropout: float = 0.0,
    causal: bool = False,
    **kwargs: Any,
) -> TracedTensor:
    """Softmax of queries times keys, times values: the summed axes are one, with permutations alone.

    Heads that were cut out of an axis have lost its symmetry when they arrive here.
    """
    q, k, v = lift(query), lift(key), lift(value)
    if dropout:
        site.refuse(f"dropout_p={dropout}; pass 0.0 unless self.training")
    unite(q.dims[-1], k.dims[-1], str(site))
    positions = unite(k.dims[-2], v.dims[-2], str(site))
    if causal:
        for layout in (q.dims[-2], positions):
            freeze(layout, str(site))
    if kwargs.get("enable_gqa"):
        for tensor in (q, k, v):
            freeze(tensor.dims[-3], str(site))
        batch = q.dims[:-2]
    else:
        batch = broadcast(site, [TracedTensor(t.shape[:-2], t.dims[:-2]) for t in (q, k, v)], site.shape[:-2])
    if mask is not None:
        scores = (*site.shape[:-1], k.shape[-2])
        broadcast(site, [TracedTensor(scores, (*batch, q.dims[-2], positions)), lift(mask)], scores)
    for tensor in (q, k, v):
        tensor.bind()
    return TracedTensor(site.shape, (*batch, q.dims[-2], v.dims[-1]))


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(
    site: Site, x: TracedTensor, state: Any, weights: Sequence[TracedTensor], biases: bool, layers: int, *settings: Any
) -> Any:
    """A recurrent layer: what its first matrices read keeps permutations, the rest has none."""
    directions = 2 if settings[2] else 1
    first = weights[:: len(weights) // (layers * directions)][:directions]
    for layout in x.dims[:-1]:
        freeze(layout, str(site))
    for weight in weights:
        freeze(weight.dims[0], str(site))
        if weight not in first:
            site.freeze(weight)
    for weight in first:
        unite(x.dims[-1], weight.dims[1], str(site))
    x.bind()
    return site.freeze(*tensors(state))
