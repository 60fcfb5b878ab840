"""Rules of linear maps, convolutions, attention and recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from weightspace.tracing._axes import (
    Affine,
    Layout,
    Segment,
    Site,
    TracedTensor,
    bind,
    fixed,
    freeze,
    hidden,
    resolved,
    unite,
)
from weightspace.tracing._chain import read
from weightspace.tracing._rules import add_bias, broadcast, lift, pointwise, rule, tensors

_BATCH = "ABCDEFGHJKLMN"


def contract(site: Site, equation: str, *given: Any) -> TracedTensor:
    """A sum over products, in the letters of ``einsum``: one letter is one axis.

    With a matrix of the module as one operand it is a linear map, which passes on factors if the matrix is stored as
    ``[out, in]``. In a product of two values the axis that is summed over in two linear maps' outputs is dual in one of
    them, and an axis of one of them alone stays as it is. Any other product leaves permutations alone.
    """
    names, out = equation.split("->")
    operands = list(zip(map(lift, given), names.split(","), strict=True))
    layouts: dict[str, Layout | None] = {}
    free = _linear_letters(operands, out)
    for value, letters in operands:
        for letter, layout, size in zip(letters, value.dims, value.shape, strict=True):
            dual = letter in free and letter not in out
            layouts[letter] = unite(layouts.get(letter), layout if size > 1 else None, str(site), dual=dual) or layout
    result = TracedTensor(site.shape, tuple(layouts[letter] for letter in out))
    for (matrix, own), (value, letters) in zip(operands, reversed(operands), strict=True):
        summed, made = set(own) & set(letters) - set(out), set(own) & set(out) - set(letters)
        if len(operands) == 2 and matrix.param and not value.param and len(own) == 2 and len(summed) == len(made) == 1:
            (into,), (outof,) = summed, made
            matrix.mark(site, layouts[outof])
            read(value, letters.index(into))
            if matrix.order[own.index(into)] == 0:
                matrix.bind()
            return TracedTensor(result.shape, result.dims, Affine())
    for value, letters in operands:
        for letter, layout in zip(letters, value.dims, strict=True):
            _pass_on(layout) if letter in free else bind(layout)
    passed = any(letter in out for letter in free)
    return replace(result, state=Affine()) if passed else result


def _linear_letters(operands: Sequence[tuple[TracedTensor, str]], out: str) -> set[str]:
    """Return the axes of a product of two values on which every matrix commutes."""
    if len(operands) != 2 or any(value.param for value, _ in operands):
        return set()
    (a, first), (b, second) = operands
    summed = set(first) & set(second) - set(out)
    both = summed if a.linear and b.linear and len(summed) == 1 else set()
    alone = {c for value, own, other in ((a, first, second), (b, second, first)) if value.linear for c in own}
    return both | {c for c in alone if c in out and (c in first) != (c in second)}


def _pass_on(layout: Layout | None) -> None:
    """Note that a sum over other entries reads an axis: matrices commute with it, phases do not."""
    for axis in hidden(layout):
        axis.plain = axis.padded = True


@rule("linear", exact=True)
def linear(site: Site, x: Any, weight: Any, bias: Any = None) -> TracedTensor:
    batch = _BATCH[: len(x.shape) - 1]
    return add_bias(site, contract(site, f"{batch}i,oi->{batch}o", x, weight), bias, len(x.shape) - 1)


@rule("matmul mm bmm mv dot vdot", exact=True)
def matmul(site: Site, a: Any, b: Any) -> TracedTensor:
    left, right = len(a.shape), len(b.shape)
    batch = _BATCH[: max(left, right, 2) - 2]
    first = "k" if left == 1 else batch[len(batch) - left + 2 :] + "ik"
    second = "k" if right == 1 else batch[len(batch) - right + 2 :] + "kj"
    return contract(site, f"{first},{second}->{batch}{'i' * (left > 1)}{'j' * (right > 1)}", a, b)


@rule("addmm baddbmm addmv", exact=True)
def addmm(site: Site, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> TracedTensor:
    out = matmul(site, a, b)
    plain = beta == alpha == 1 and len(bias.shape) == 1
    return add_bias(site, out, bias, len(out.shape) - 1) if plain else pointwise(site, out, bias)


@rule("einsum", exact=True)
def einsum(site: Site, equation: str, operands: Sequence[Any], **_: Any) -> TracedTensor:
    names, arrow, out = equation.replace(" ", "").partition("->")
    if not arrow:
        out = "..." * ("..." in names) + "".join(sorted(c for c in set(names) - set(".,") if names.count(c) == 1))
    parts = names.split(",")
    counts = [len(value.shape) - len(name.replace("...", "")) for name, value in zip(parts, operands, strict=True)]
    digits = ["0123456789"[10 - count :] for count in counts]
    parts = [name.replace("...", digit) for name, digit in zip(parts, digits, strict=True)]
    if any(len(set(name)) < len(name) for name in parts):
        return site.freeze(*tensors(operands))
    return contract(site, ",".join(parts) + "->" + out.replace("...", max(digits, key=len)), *operands)


@rule("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution")
def conv(site: Site, x: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> TracedTensor:
    """A convolution: like a linear map over channels; with groups, of each channel by itself or without symmetry."""
    x, w = lift(x), lift(weight)
    transposed = "transpose" in site.op or (site.op == "aten.convolution" and args[3])
    place = 5 if site.op == "aten.convolution" else 3
    groups = kwargs.get("groups", args[place] if len(args) > place else 1)
    at = len(x.shape) - len(w.shape) + 1
    for layout in (*x.dims[at + 1 :], *w.dims[2:]):
        freeze(layout, str(site))
    into, made = (w.dims[0], w.dims[1]) if transposed else (w.dims[1], w.dims[0])
    state: Affine | None = Affine()
    if groups == 1:
        unite(x.dims[at], into, str(site))
        read(x, at)
        if w.param is None or transposed:
            x.bind()
            w.bind()
    elif groups == x.shape[at] and w.shape[1] == 1:
        inner, parts = w.shape[0] // groups, resolved(x.dims[at] or ())
        made = unite(tuple(Segment(s.axis, s.inner * inner) for s in parts) or None, w.dims[0], str(site))
        state = (x.bind(), w.bind())[0].state
    else:
        for layout in (x.dims[at], *w.dims[:2]):
            freeze(layout, str(site))
        made = (x.bind(), fixed(site.shape[at]))[1]
    w.mark(site, made)
    dims = (*x.dims[:at], made, *(fixed(n) for n in site.shape[at + 1 :]))
    return add_bias(site, TracedTensor(site.shape, dims, state), bias, at)


@rule("scaled_dot_product_attention")
def attention(
    site: Site, query: Any, key: Any, value: Any, mask: Any = None, p: float = 0, causal: Any = False, **kw: Any
) -> TracedTensor:
    """Softmax of queries times keys, times values: the axes that are summed are one, dual between queries and keys.

    Where these are outputs of linear maps, every matrix commutes, otherwise permutations alone.
    """
    q, k, v = lift(query), lift(key), lift(value)
    if p:
        site.refuse(f"dropout_p={p}; pass 0.0 unless self.training")
    both = q.linear and k.linear
    unite(q.dims[-1], k.dims[-1], str(site), dual=both)
    times = unite(k.dims[-2], v.dims[-2], str(site))
    for layout in (q.dims[-2], times) if causal else ():
        freeze(layout, str(site))
    if kw.get("enable_gqa"):
        k, v = (_repeated(t, q.shape[-3] // t.shape[-3]) for t in (k, v))
    batch = broadcast(site, [TracedTensor(t.shape[:-2], t.dims[:-2]) for t in (q, k, v)], site.shape[:-2])
    if mask is not None:
        scores = (*site.shape[:-1], k.shape[-2])
        broadcast(site, [TracedTensor(scores, (*batch, q.dims[-2], times)), lift(mask)], scores)
    for tensor, free in ((q, both), (k, both), (v, v.linear)):
        for layout in tensor.dims[:-1]:
            bind(layout)
        _pass_on(tensor.dims[-1]) if free else bind(tensor.dims[-1])
    return TracedTensor(site.shape, (*batch, q.dims[-2], v.dims[-1]), Affine() if v.linear else None)


def _repeated(value: TracedTensor, times: int) -> TracedTensor:
    """Repeat each head of keys or values, for as many heads of queries."""
    heads = tuple(replace(s, inner=s.inner * times) for s in resolved(value.dims[-3] or ())) or None
    shape = (*value.shape[:-3], value.shape[-3] * times, *value.shape[-2:])
    return replace(value, shape=shape, dims=(*value.dims[:-3], heads, *value.dims[-2:]))


@rule("lstm gru rnn_tanh rnn_relu")
def recurrent(
    site: Site, x: TracedTensor, state: Any, weights: Sequence[Any], biases: bool, layers: int, *settings: Any
) -> Any:
    """A recurrent layer: what its first matrices read keeps permutations, the rest has none."""
    directions = 2 if settings[2] else 1
    first = weights[:: len(weights) // (layers * directions)][:directions]
    for layout in (*x.dims[:-1], *(weight.dims[0] for weight in first)):
        freeze(layout, str(site))
    for weight in first:
        unite(x.dims[-1], weight.dims[1], str(site))
    x.bind()
    return site.freeze(*tensors(state), *(weight for weight in weights if weight not in first))
