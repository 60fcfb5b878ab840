"""Attention: heads as blocks that are permuted, with a matrix inside of each, and what takes them away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing

Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
LINEAR, ROTARY = ["linear", "linear"], ["other", "linear"]


class Attention(nn.Module):
    """Three heads of size four, their tensors packed or apart, by one operator or by hand."""

    def __init__(self, packed: bool, by_hand: bool, between: Pair | None = None, groups: int = 1) -> None:
        super().__init__()
        self.by_hand, self.between, self.heads, self.groups = by_hand, between, 3 * groups, groups
        if packed:
            self.qkv = nn.Linear(7, 36)
        else:
            self.q, self.k, self.v = nn.Linear(7, 12 * groups), nn.Linear(7, 12), nn.Linear(7, 12)
        self.o = nn.Linear(12 * groups, 7)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        if hasattr(self, "qkv"):
            q, k, v = self.qkv(x).reshape(b, n, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (f(x).view(b, n, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.between is not None:
            q, k = self.between(q, k)
        if self.by_hand:
            y = (q * 2**-0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.groups > 1)
        return self.o(y.transpose(1, 2).reshape(b, n, -1))


class Net(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embed, self.norm, self.attention, self.head = nn.Linear(5, 7), nn.LayerNorm(7), attention, nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head((x + self.attention(self.norm(x))).mean(1))


def _rotary(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    angle = torch.arange(q.shape[2], dtype=q.dtype)[:, None] * torch.tensor([1.0, 0.1] * 2, dtype=q.dtype)
    turned = [torch.cat([-x[..., 2:], x[..., :2]], -1) for x in (q, k)]
    return q * angle.cos() + turned[0] * angle.sin(), k * angle.cos() + turned[1] * angle.sin()


def _normed(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return F.normalize(q, dim=-1), F.normalize(k, dim=-1)


NETS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "packed, one operator": (lambda: Attention(True, False), LINEAR),
    "packed, by hand": (lambda: Attention(True, True), LINEAR),
    "apart, one operator": (lambda: Attention(False, False), LINEAR),
    "apart, by hand": (lambda: Attention(False, True), LINEAR),
    "shifted queries": (lambda: Attention(False, True, lambda q, k: (q + 1, k)), ROTARY),
    "squared keys": (lambda: Attention(False, False, lambda q, k: (q, k * k)), ROTARY),
    "rotary": (lambda: Attention(False, False, _rotary), ROTARY),
    "normed queries and keys": (lambda: Attention(False, True, _normed), ROTARY),
    "grouped queries": (lambda: Attention(False, False, groups=2), ["other", "other"]),
}


def _read(name: str) -> tuple[nn.Module, ws.NetSpec, Tensor]:
    torch.manual_seed(0)
    module, x = Net(NETS[name][0]()).double(), torch.randn(2, 4, 5, dtype=torch.float64)
    return module, ws.spec_of(module, x), x


@pytest.mark.parametrize("name", NETS)
def test_heads_are_blocks_that_keep_the_function(name: str, generator: torch.Generator) -> None:
    module, spec, x = _read(name)
    heads = [axis for axis in spec.hidden if axis.blocks == 3]
    assert sorted(str(axis.activation) for axis in heads) == sorted(NETS[name][1])
    assert [axis.follows for axis in heads] == [None] + [heads[0].name] * (len(heads) - 1)
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64)
    ws.Symmetry(spec, 2, g.perm, g.scale, g.shift, g.linear)  # it is checked
    testing.assert_same_function(w, g.act(w), x=x, module=module, atol=1e-9, rtol=1e-9)


def test_each_part_of_an_element_is_needed(generator: torch.Generator) -> None:
    """Heads of queries and keys alone, keys that are no duals, and a matrix of another head change the function."""
    module, spec, x = _read("packed, one operator")
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64, parts=("linear",))
    qk, vo = (axis.name for axis in spec.linear)
    swapped = torch.arange(12).view(3, 4).flip(0).flatten().expand(2, -1)
    alone = ws.Symmetry(spec, 2, {qk: swapped}, check=False)
    params = tuple(ws.Param(p.name, p.axes, p.kind, p.key, p.folded, p.stacked) for p in spec.params)
    plain = ws.Symmetry(ws.NetSpec(spec.axes, params, spec.input, spec.output), 2, linear=g.linear)
    moved = g.act(w)
    moved.view("attention.o.weight").copy_(w.view("attention.o.weight"))
    broken = [alone.act(w), ws.Weights(plain.act(ws.Weights(w.flat, plain.spec)).flat, spec), moved]
    for other in broken:
        with pytest.raises(AssertionError, match="functions: largest difference"):
            testing.assert_same_function(w, other, x=x, module=module, atol=1e-6, rtol=1e-6)
    testing.assert_same_function(w, g.act(w), x=x, module=module, atol=1e-9, rtol=1e-9)
    with pytest.raises(ValueError, match=rf"perm\['{vo}'\]: expected its blocks to move with those of '{qk}'"):
        ws.Symmetry(spec, 2, {qk: swapped})


BETWEEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "nothing": (lambda z: z, "linear"),
    "mean of places": (lambda z: z.mean(1, keepdim=True), "linear"),
    "places in another order": (lambda z: z.flip(1), "linear"),
    "zeros": (lambda z: F.pad(z, (0, 0, 1, 1)), "linear"),
    "maximum over places": (lambda z: z.amax(1, keepdim=True), "other"),
    "half of it": (lambda z: 0.5 * z, "other"),
    "one more": (lambda z: z + 1, "other"),
    "a residual sum": (lambda z: z + z.flip(1), "other"),
    "itself beside its sine": (lambda z: torch.cat([z, torch.sin(z)], 1), "other"),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_lies_between_two_linear_maps(name: str, generator: torch.Generator) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(BETWEEN[name][0](self.a(x)))

    module, x = Two().double(), torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)
    spec = ws.spec_of(module, x)
    assert [(axis.activation, axis.blocks) for axis in spec.hidden] == [(BETWEEN[name][1], 1)]
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64)
    testing.assert_same_function(w, g.act(w), x=x, module=module, atol=1e-9, rtol=1e-9)
    forced = ws.NetSpec(tuple(ws.Axis(a.name, a.size, "linear" if a.hidden else None) for a in spec.axes), spec.params)
    every = ws.Symmetry.sample(forced, batch=2, generator=generator, dtype=torch.float64)
    moved = ws.Weights(every.act(ws.Weights(w.flat, forced)).flat, spec)
    if BETWEEN[name][1] == "other" and name not in (
        "half of it",
        "a residual sum",
    ):  # of these less is proved than holds
        with pytest.raises(AssertionError, match="functions: largest difference"):
            testing.assert_same_function(w, moved, x=x, module=module, atol=1e-6, rtol=1e-6)


def test_two_linear_maps_are_evaluated() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    spec, x = ws.spec_of(module), torch.randn(5, 3)
    w = ws.Weights.from_state_dicts([module.state_dict()], spec)
    torch.testing.assert_close(ws.evaluate(w, x)[0], module(x))
