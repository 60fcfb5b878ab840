"""Modules as people write them: inputs, outputs and wrappers of every kind, and the layers of torch.nn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightspace as ws
from weightspace.tracing import spec_of


class Fn(nn.Module):
    """A function of the module and its inputs, beside the layers that it is given."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def _linear(*sizes: int) -> dict[str, nn.Module]:
    return {name: nn.Linear(a, b) for name, a, b in zip("abcdef", sizes[:-1], sizes[1:], strict=False)}


def _randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _keeps(module: nn.Module, x: Any, generator: torch.Generator, **options: Any) -> ws.NetSpec:
    """Read a module in double precision and compare its outputs before and after a random symmetry of its weights."""
    module = module.double().eval()
    spec = spec_of(module, x, **options)
    state = {key: value for key, value in module.state_dict().items() if key in spec.by_state_key}
    noise = {k: v + 0.3 * torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in state.items()}
    noise = {k: v.abs() if k.endswith("running_var") else v for k, v in noise.items()}
    same = {id(v): k for k, v in module.state_dict(keep_vars=True).items()}
    noise = {k: noise[same[id(module.state_dict(keep_vars=True)[k])]] for k in noise}  # tied tensors stay tied
    w = ws.Weights.from_state_dicts([noise, noise], spec)
    moved = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64).act(w)
    args, kwargs = ((), x) if isinstance(x, Mapping) else (x if isinstance(x, tuple) else (x,), {})

    @torch.no_grad()
    def run(state: Mapping[str, Tensor]) -> Tensor:
        found = torch.func.functional_call(module, dict(state), args, kwargs, tie_weights=False)
        key = options.get("output")
        return found if isinstance(found, Tensor) else _first(found[key] if key is not None else found)

    expected = run(noise)
    assert bool(expected.isfinite().all())
    for state in moved.state_dicts():
        torch.testing.assert_close(run(state), expected, atol=1e-9, rtol=1e-9)
    for axis in spec.hidden:  # the negative control: one tensor's rows or columns alone
        broken = w.clone()
        touching = [p for p in spec.params if axis.name in p.axes and p.kind == "weight"]
        if axis.size > 1 and len(touching) > 1:
            view = broken.view(touching[-1].name)
            view.copy_(view.roll(1, touching[-1].axes.index(axis.name) + 1))
            assert float((run(broken.state_dict(0)) - expected).abs().max()) > 1e-7, (axis, touching[-1])
    return spec


def _first(found: Any) -> Tensor:
    if isinstance(found, Tensor):
        return found
    values = found.values() if isinstance(found, Mapping) else found
    if dataclasses.is_dataclass(found):
        values = [getattr(found, f.name) for f in dataclasses.fields(found)]
    return next(v for v in values if isinstance(v, Tensor))


def _hidden(spec: ws.NetSpec) -> list[tuple[int, str | None]]:
    return [(axis.size, axis.activation) for axis in spec.hidden]


class OwnNorm(nn.BatchNorm2d):
    """A subclass that adds nothing."""


class Widen(nn.Linear):
    """A subclass with a forward of its own is looked into, not trusted."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(super().forward(input))


def _conv(between: Callable[..., Any], *, channels: int = 4, **parts: Any) -> nn.Module:
    """Two convolutions, the second behind a function of the module and what the first returns."""
    return Fn(lambda m, x: m.b(between(m, m.a(x))), a=nn.Conv2d(1, 4, 3), b=nn.Conv2d(channels, 2, 1), **parts)


def _written(write: Callable[[nn.Module, Tensor], object]) -> nn.Module:
    """A statement of its own that writes into what leaves an activation."""
    parts = {**_linear(3, 6, 2), "relu": nn.ReLU(inplace=True), "dropout": nn.Dropout(inplace=True)}
    return Fn(lambda m, x: (lambda h: (write(m, h), m.b(h))[1])(torch.sigmoid(m.a(x))), **parts)


def _hooked() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.Conv2d(6, 7, 1), nn.ReLU())
    module[2].register_forward_hook(lambda _m, _a, out: out * torch.arange(6.0)[:, None, None].to(out))
    return nn.Sequential(*module, nn.Conv2d(7, 2, 1))


# Layers and blocks, and the hidden axes that they leave: (size, activation) in the order of the state dict.


class GLU(nn.Module):
    def __init__(self, gate: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.g, self.b, self.gate = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2), gate

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.gate(self.g(x), self.a(x)))


class Mixer(nn.Module):
    """MLP-Mixer: an MLP over tokens, then one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.t1, self.t2 = nn.Linear(3, 6), nn.Linear(5, 7), nn.Linear(7, 5)
        self.n1, self.n2, self.c1, self.c2 = nn.LayerNorm(6), nn.LayerNorm(6), nn.Linear(6, 9), nn.Linear(9, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.c2(F.gelu(self.c1(self.n2(x))))
        return self.head(x.mean(1))


class Conv1D(nn.Module):
    """The linear layer of GPT-2: its weight is ``[in, out]``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        size = (*x.size()[:-1], self.weight.shape[1])
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Positions(nn.Module):
    """Token embeddings, learned positions ``[time, width]``, a causal mask and tied output vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 9), nn.Linear(9, 8)
        self.qkv, self.proj, self.last = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.token.weight

    def forward(self, ids: Tensor) -> Tensor:
        b, t = ids.shape
        x = self.token(ids) + self.position(torch.arange(t))
        q, k, v = (z.view(b, t, 2, 4).transpose(1, 2) for z in self.qkv(self.norm(x)).split(8, dim=2))
        mask = torch.tril(torch.ones(t, t)).view(1, 1, t, t)
        att = (q @ k.transpose(-2, -1) * 0.5).masked_fill(mask == 0, float("-inf")).softmax(-1)
        x = x + self.proj((att @ v).transpose(1, 2).contiguous().view(b, t, 8))
        return self.head(self.last(x + self.down(F.gelu(self.up(x)))))


class Decoder(nn.Module):
    """A linear layer unfolded into channels, then transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.up = nn.Linear(3, 6 * 4), nn.ConvTranspose2d(6, 5, 4, 2, 1)
        self.bn, self.out = nn.BatchNorm2d(5), nn.ConvTranspose2d(5, 1, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(F.relu(self.bn(self.up(F.relu(self.fc(x)).view(-1, 6, 2, 2))))))


class StandardConv(nn.Conv2d):
    """Weight standardisation."""

    def forward(self, input: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (w.var((1, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        return F.conv2d(input, w, self.bias, self.stride, self.padding)


class LoRA(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + (x @ self.down.t()) @ self.up.T * 0.5


def _mlp(layer: Callable[[int, int], nn.Module] = nn.Linear) -> nn.Module:
    return nn.Sequential(layer(3, 6), nn.ReLU(), layer(6, 5), nn.ReLU(), nn.Linear(5, 2))


def _encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 11, batch_first=True, norm_first=norm_first)
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(3, 8), stack, nn.LayerNorm(8), nn.Linear(8, 2))


def _normed(inputs: int, outputs: int) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(inputs, outputs))


def _old(norm: Callable[[nn.Module], nn.Module]) -> Callable[[int, int], nn.Module]:
    def make(inputs: int, outputs: int) -> nn.Module:
        with pytest.warns(FutureWarning) if norm is nn.utils.weight_norm else nullcontext():
            return norm(nn.Linear(inputs, outputs))

    return make


def _used(module: nn.Module) -> nn.Module:
    """After a forward pass without gradients a weight that is an attribute is no leaf, and can be copied."""
    with torch.no_grad():
        module(torch.zeros(1, 3))
    return module


RELU2 = [(6, "relu"), (5, "relu")]
PLAIN2 = [(6, "other"), (5, "other")]
LINEAR2 = [(8, "linear"), (8, "linear")]
ENCODER = [(11, "relu"), (11, "relu"), *LINEAR2, *LINEAR2, (8, "other")]
MODULES: dict[str, tuple[Callable[[], nn.Module], Any, list[tuple[int, str | None]]]] = {
    "swiglu": (lambda: GLU(lambda g, a: F.silu(g) * a), _randn(4, 3), [(8, "other")]),
    "bilinear gate": (lambda: GLU(lambda g, a: g * a), _randn(4, 3), [(8, "other")]),
    "glu": (lambda: nn.Sequential(nn.Linear(3, 8), nn.GLU(), nn.Linear(4, 2)), _randn(4, 3), [(4, "other")]),
    "chunked gate": (
        lambda: Fn(
            lambda m, x: m.b((lambda a, g: a * F.gelu(g))(*m.a(x).chunk(2, -1))), a=nn.Linear(3, 8), b=nn.Linear(4, 2)
        ),
        _randn(4, 3),
        [(4, "other")],
    ),
    "gate after a hidden layer": (
        lambda: nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 2)),
        _randn(4, 3),
        [(4, "other"), (6, "relu")],
    ),
    "mixer": (Mixer, _randn(2, 5, 3), [(6, "other"), (7, "gelu"), (9, "gelu")]),
    "gpt-2's linear": (lambda: nn.Sequential(Conv1D(3, 6), nn.GELU(), Conv1D(6, 2)), _randn(4, 3), [(6, "other")]),
    "language model": (Positions, torch.arange(6)[None] % 4, [*LINEAR2, (8, "other"), (9, "gelu")]),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),
        torch.tensor([[1, 2, 3, 4, 8]]),
        [(3, "relu")],
    ),
    "decoder": (Decoder, _randn(2, 3), [(5, "other")]),
    "attention": (
        lambda: Fn(
            lambda m, x: m.b(m.a(x) + m.mix(*[m.a(x)] * 3)[0]),
            a=nn.Linear(3, 4),
            b=nn.Linear(4, 1),
            mix=nn.MultiheadAttention(4, 2),
        ),
        _randn(5, 2, 3),
        [(4, "other")],
    ),
    "attention without weights": (
        lambda: Fn(
            lambda m, x: m.b(m.mix(m.a(x), m.a(x), m.a(x), need_weights=False)[0]),
            a=nn.Linear(3, 4),
            mix=nn.MultiheadAttention(4, 2, batch_first=True, add_bias_kv=True),
            b=nn.Linear(4, 1),
        ),
        _randn(2, 5, 3),
        [(4, "linear"), (4, "other")],
    ),
    "one head": (
        lambda: Fn(
            lambda m, x: m.o(F.scaled_dot_product_attention(m.q(x), m.k(x), m.v(x), is_causal=True)),
            **{name: nn.Linear(3, n) for name, n in (("q", 4), ("k", 4), ("v", 6))},
            o=nn.Linear(6, 2),
        ),
        _randn(2, 5, 3),
        [(4, "linear"), (6, "linear")],
    ),
    "encoder": (lambda: _encoder(False), _randn(2, 5, 3), ENCODER),
    "encoder, norm first": (lambda: _encoder(True), _randn(2, 5, 3), ENCODER),
    "lstm": (
        lambda: Fn(
            lambda m, x: m.b(m.rnn(torch.relu(m.a(x)))[0]),
            a=nn.Linear(3, 4),
            rnn=nn.LSTM(4, 5, 2, bidirectional=True),
            b=nn.Linear(10, 2),
        ),
        _randn(6, 2, 3),
        [(4, "other")],
    ),
    "gru": (
        lambda: Fn(
            lambda m, x: m.b(m.rnn(torch.relu(m.a(x)))[1][-1]),
            a=nn.Linear(3, 4),
            rnn=nn.GRU(4, 5, bias=False, batch_first=True),
            b=nn.Linear(5, 2),
        ),
        _randn(2, 6, 3),
        [(4, "other")],
    ),
    "weight norm": (
        lambda: _mlp(_normed),
        _randn(4, 3),
        PLAIN2,
    ),
    "weight norm, as it was": (lambda: _mlp(_old(nn.utils.weight_norm)), _randn(4, 3), PLAIN2),
    "spectral norm": (
        lambda: _mlp(lambda i, o: nn.utils.parametrizations.spectral_norm(nn.Linear(i, o))),
        _randn(4, 3),
        PLAIN2,
    ),
    "weight standardisation": (
        lambda: nn.Sequential(
            StandardConv(1, 4, 3), nn.GroupNorm(1, 4), nn.ReLU(), StandardConv(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 2)
        ),
        _randn(2, 1, 6, 6),
        [(4, "other"), (5, "other")],
    ),
    "lora": (lambda: _mlp(LoRA), _randn(4, 3), [(6, "other"), (2, "linear"), (5, "other"), (2, "linear")]),
    "rezero": (
        lambda: Fn(
            lambda m, x: m.d((lambda h: h + m.alpha * m.c(torch.relu(m.b(h))))(m.a(x))),
            **_linear(6, 8, 16, 8, 2),
            alpha=nn.Parameter(torch.ones(1)),
        ),
        _randn(2, 6),
        [(8, "other"), (16, "relu")],
    ),
    "called twice": (
        lambda: Fn(
            lambda m, x: m.c(m.s(m.a(x)) + m.s(m.b(x))),
            a=nn.Linear(3, 4),
            b=nn.Linear(3, 4),
            s=nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 5)),
            c=nn.Linear(5, 2),
        ),
        _randn(4, 3),
        [(4, "linear"), (7, "relu"), (5, "other")],
    ),
    "a block called twice": (
        lambda: Fn(
            lambda m, x: m.b(m.s(m.s(m.a(x)))),
            a=nn.Linear(3, 4),
            b=nn.Linear(4, 2),
            s=Fn(lambda s, x: x + s.b(torch.relu(s.a(x))), **_linear(4, 7, 4)),
        ),
        _randn(4, 3),
        [(4, "other"), (7, "relu")],
    ),
    "position table in a buffer": (
        lambda: Fn(lambda m, x: m.b(torch.relu(m.a(x) + m.pe[: x.shape[1]])), **_linear(3, 6, 2), pe=torch.randn(9, 6)),
        _randn(2, 5, 3),
        [(6, "other")],
    ),
    "fourier features in a buffer": (
        lambda: Fn(
            lambda m, x: m.b(torch.relu(m.a(torch.cat([torch.sin(x @ m.f), torch.cos(x @ m.f)], -1)))),
            a=nn.Linear(10, 6),
            b=nn.Linear(6, 2),
            f=torch.randn(3, 5),
        ),
        _randn(4, 3),
        [(6, "relu")],
    ),
    "mean and deviation in buffers": (
        lambda: Fn(
            lambda m, x: m.c((x - m.mean) / m.std),
            c=nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 2)),
            mean=torch.rand(3, 1, 1),
            std=1 + torch.rand(3, 1, 1),
        ),
        _randn(2, 3, 5, 5),
        [(4, "relu")],
    ),
    "channels last": (
        lambda: Fn(
            lambda m, x: m.b(torch.relu(m.c(x)).permute(0, 2, 3, 1).flatten(1)),
            c=nn.Conv2d(1, 4, 3),
            b=nn.Linear(36, 2),
        ),
        _randn(2, 1, 5, 5),
        [(4, "relu")],
    ),
    "matrices without layers": (
        lambda: Fn(
            lambda m, x: torch.tanh(x @ m.w + m.b) @ m.v,
            w=nn.Parameter(torch.randn(3, 6)),
            b=nn.Parameter(torch.randn(6)),
            v=nn.Parameter(torch.randn(6, 2)),
        ),
        _randn(4, 3),
        [(6, "other")],
    ),
    "einsum": (
        lambda: Fn(
            lambda m, x: torch.einsum("oi,...i->...o", m.v, torch.tanh(torch.einsum("...i,oi->...o", x, m.w) + m.b)),
            w=nn.Parameter(torch.randn(6, 3)),
            b=nn.Parameter(torch.randn(6)),
            v=nn.Parameter(torch.randn(2, 6)),
        ),
        _randn(4, 3),
        [(6, "tanh")],
    ),
    "write into a part": (
        lambda: Fn(lambda m, x: (lambda h: (h[:, 0].add_(1.0), m.b(h))[1])(torch.tanh(m.a(x))), **_linear(3, 6, 2)),
        _randn(2, 5, 3),
        [(6, "other")],
    ),
    "sum in place": (
        lambda: Fn(
            lambda m, x: m.c((lambda h: (h.add_(torch.relu(m.b(x))), h)[1])(torch.relu(m.a(x)))),
            a=nn.Linear(3, 6),
            b=nn.Linear(3, 6),
            c=nn.Linear(6, 2),
        ),
        _randn(2, 3),
        [(6, "other")],
    ),
    "relu as a statement": (lambda: _written(lambda m, h: torch.relu_(h)), _randn(4, 3), [(6, "other")]),
    "elu as a statement": (lambda: _written(lambda m, h: F.elu(h, inplace=True)), _randn(4, 3), [(6, "other")]),
    "layer as a statement": (lambda: _written(lambda m, h: m.relu(h)), _randn(4, 3), [(6, "other")]),
    "dropout as a statement": (lambda: _written(lambda m, h: m.dropout(h)), _randn(4, 3), [(6, "sigmoid")]),
    "subclass with a function of its own": (
        lambda: nn.Sequential(Widen(3, 6), nn.Linear(6, 2)),
        _randn(4, 3),
        [(6, "other")],
    ),
    "subclass of a norm": (
        lambda: _conv(lambda m, h: torch.relu(m.n(h)), n=OwnNorm(4)),
        _randn(2, 1, 6, 6),
        [(4, "other")],
    ),
    "weight that is computed": (
        lambda: Fn(lambda m, x: F.linear(m.a(x).tanh(), m.w * 2), a=nn.Linear(3, 6), w=nn.Parameter(torch.ones(2, 6))),
        _randn(4, 3),
        [(6, "other")],
    ),
    "gate of convolutions": (
        lambda: Fn(
            lambda m, x: m.b(torch.relu(m.a(x)) * torch.sigmoid(m.g(x))),
            a=nn.Conv2d(1, 4, 3),
            g=nn.Conv2d(1, 4, 3),
            b=nn.Conv2d(4, 1, 1),
        ),
        _randn(2, 1, 6, 6),
        [(4, "other")],
    ),
    "transposed convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 1, 1)
        ),
        _randn(2, 1, 6, 6),
        [(4, "other"), (5, "other")],
    ),
    "prelu of channels": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(4), nn.Conv2d(4, 1, 1)),
        _randn(2, 1, 6, 6),
        [(4, "other")],
    ),
    "first half of the channels": (
        lambda: _conv(lambda m, h: torch.relu(h).chunk(2, 1)[0], channels=2),
        _randn(2, 1, 6, 6),
        [(2, "relu"), (2, "relu")],
    ),
    "mask in a buffer": (
        lambda: _conv(lambda m, h: torch.relu(h) * m.mask, mask=torch.ones(4, 1, 1)),
        _randn(2, 1, 6, 6),
        [(4, "other")],
    ),
    "weight norm of every layer": (
        lambda: nn.Sequential(_normed(3, 6), nn.ReLU(), _normed(6, 5), nn.ReLU(), _normed(5, 2)),
        _randn(4, 3),
        PLAIN2,
    ),
    "hook": (_hooked, _randn(2, 1, 7, 7), [(5, "relu"), (7, "relu")]),
    "spectral norm, as it was": (lambda: _mlp(_old(nn.utils.spectral_norm)), _randn(4, 3), PLAIN2),
    "weight norm, as it was, used": (lambda: _used(_mlp(_old(nn.utils.weight_norm))), _randn(4, 3), PLAIN2),
    "pixel shuffle": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 8, 3), nn.PixelShuffle(2), nn.Conv2d(2, 1, 1)
        ),
        _randn(2, 1, 6, 6),
        [(5, "relu")],
    ),
    "norms of torch": (
        lambda: nn.Sequential(
            nn.Linear(3, 6), nn.RMSNorm(6), nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 2)
        ),
        _randn(4, 3),
        [(6, "other"), (5, "other")],
    ),
    "batch norm without statistics": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.Conv2d(4, 1, 2)
        ),
        _randn(2, 1, 6, 6),
        [(4, "other")],
    ),
    "convolutions of one and three axes": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 4, 2),
            nn.ReLU(),
            nn.Flatten(2, 4),
            nn.Conv1d(4, 5, 3),
            nn.ReLU(),
            nn.AdaptiveMaxPool1d(2),
            nn.Flatten(),
            nn.Linear(10, 2),
        ),
        _randn(2, 1, 4, 4, 4),
        [(4, "relu"), (5, "relu")],
    ),
    "depth multiplier": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.ReLU(),
            nn.Conv2d(3, 6, 3, groups=3),
            nn.ReLU(),
            nn.Conv2d(6, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, 1, 1),
        ),
        _randn(2, 1, 6, 6),
        [(4, "relu")],
    ),
}


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized:UserWarning")
@pytest.mark.parametrize("name", MODULES)
def test_layers_and_blocks(name: str, generator: torch.Generator) -> None:
    make, x, hidden = MODULES[name]
    torch.manual_seed(0)
    assert sorted(_hidden(_keeps(make(), x, generator)), key=str) == sorted(hidden, key=str)


# Inputs and outputs.


@dataclasses.dataclass
class Out:
    extra: None
    logits: Tensor
    features: Tensor


def _ends(m: nn.Module, x: Tensor, mask: Tensor | None = None, *, flag: bool = False) -> Tensor:
    assert x.shape[-1] == 3, "three features"
    h = torch.relu(m.a(x))
    h = h if mask is None else h * mask
    return m.b(torch.tanh(h) if flag else h)


OUTPUTS: dict[str, tuple[Callable[[nn.Module, Tensor], Any], dict[str, Any]]] = {
    "optional arguments": (_ends, {}),
    "tuple": (lambda m, x: (_ends(m, x), x), {}),
    "second of a tuple": (lambda m, x: (x.sum(), _ends(m, x)), {"output": 1}),
    "mapping": (lambda m, x: {"loss": None, "logits": _ends(m, x)}, {}),
    "entry of a mapping": (lambda m, x: {"x": x, "logits": _ends(m, x)}, {"output": "logits"}),
    "data class": (lambda m, x: Out(None, _ends(m, x), x), {}),
    "squeezed": (lambda m, x: _ends(m, x)[:, 0], {}),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_inputs_and_outputs_of_every_kind(name: str) -> None:
    function, options = OUTPUTS[name]
    spec = spec_of(Fn(function, **_linear(3, 6, 2)), torch.zeros(2, 3), **options)
    assert [(a.name, a.size, a.activation) for a in spec.axes] == [("in", 3, None), ("h1", 6, "relu"), ("out", 2, None)]
    assert [layer.weight for layer in spec.layers] == ["a.weight", "b.weight"]


def test_the_attribute_of_a_data_class() -> None:
    module = Fn(lambda m, x: Out(None, x, _ends(m, x)), **_linear(3, 6, 2))
    assert len(spec_of(module, torch.zeros(2, 3), output="features").hidden) == 1
    with pytest.raises(
        ValueError, match=r"an output that does not depend on the input and the parameters|parameters .* output does"
    ):
        spec_of(module, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"output='loss': the module returns Out without such an entry"):
        spec_of(module, torch.zeros(2, 3), output="loss")
    with pytest.raises(ValueError, match="an output of type int; expected one tensor, or several"):
        spec_of(Fn(lambda m, x: 3, **_linear(3, 6, 2)), torch.zeros(2, 3))


def test_several_inputs(generator: torch.Generator) -> None:
    module = Fn(
        lambda m, x, y, *, z: m.b(torch.tanh(m.a(x) + m.c(y)) * z),
        a=nn.Linear(3, 6),
        c=nn.Linear(2, 6),
        b=nn.Linear(6, 1),
    )
    named = {"x": _randn(4, 3), "y": _randn(4, 2), "z": _randn(4, 1)}
    assert _hidden(_keeps(module, named, generator)) == [(6, "other")]
    two = Fn(lambda m, x, y: m.b(torch.tanh(m.a(torch.cat([x, y], 1)))), a=nn.Linear(5, 6), b=nn.Linear(6, 1))
    assert _hidden(_keeps(two, (_randn(4, 3), _randn(4, 2)), generator)) == [(6, "tanh")]
    with pytest.raises(ValueError, match=r"no shape was found that the module takes; pass example_input"):
        spec_of(two)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "both": lambda module: torch.compile(nn.DataParallel(module)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile itself
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_keep_their_keys(name: str) -> None:
    inner = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))
    module = WRAPPERS[name](inner)
    spec = spec_of(module)
    assert [p.name for p in spec.params] == list(module.state_dict())
    assert [p.axes for p in spec.params] == [p.axes for p in spec_of(inner).params]
    assert len(ws.Weights.from_state_dicts([module.state_dict()], spec)) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_part() -> None:
    module = nn.Sequential(torch.compile(nn.Linear(2, 6)), nn.Tanh(), nn.Linear(6, 1))
    assert [p.name for p in spec_of(module).params] == list(module.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    assert spec_of(module.to(dtype), torch.zeros(1, 1, 4, 4)) == spec_of(module.float(), torch.zeros(1, 1, 4, 4))


def test_a_module_without_numbers() -> None:
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))
    assert spec_of(empty) == spec_of(nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)))


# Parameters that the spec does not hold, and parametrisations without a rule.


def test_a_parametrisation_without_a_rule(generator: torch.Generator) -> None:
    first = nn.utils.parametrizations.orthogonal(nn.Linear(3, 6), orthogonal_map="matrix_exp", use_trivialization=False)
    module = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(
        ValueError, match=r"aten\.\w+ in '0\.parametrizations\.weight\.0'.*: an operator without a rule"
    ):
        spec_of(module)
    assert _hidden(_keeps(module, _randn(4, 3), generator, on_unknown="freeze")) == [(5, "relu")]


def test_heads_left_out_by_pattern(generator: torch.Generator) -> None:
    module = nn.Sequential(*[nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU()])
    module.add_module("fc", nn.Linear(5, 2))
    spec = _keeps(module, _randn(4, 3), generator, ignore=("fc.*",))
    assert _hidden(spec) == [(6, "relu")]
    assert not any(p.name.startswith("fc") for p in spec.params)
    other = nn.Sequential(*module[:4])
    other.add_module("fc", nn.Linear(5, 9).double())
    assert [p.name for p in spec_of(other, ignore=("fc.*",)).params] == [p.name for p in spec.params]
    with pytest.raises(TypeError, match="ignore: expected a sequence of patterns"):
        spec_of(module, ignore="fc.*")
    with pytest.raises(ValueError, match="on_unknown: expected 'refuse' or 'freeze', got 'skip'"):
        spec_of(module, on_unknown="skip")  # type: ignore[arg-type]


def test_what_the_output_does_not_need() -> None:
    module = Fn(lambda m, x: (m.extra(x), m.b(torch.tanh(m.a(x))))[1], **_linear(2, 6, 1), extra=nn.Linear(2, 2))
    text = r"parameters \['extra.weight', 'extra.bias'\] that the output does not depend on; .* ignore=\('extra.weight'"
    with pytest.raises(ValueError, match=text):
        spec_of(module)
    assert [p.name for p in spec_of(module, ignore=("extra.*",)).params] == ["a.weight", "a.bias", "b.weight", "b.bias"]
    frozen = spec_of(module, on_unknown="freeze")
    assert [p.name for p in frozen.params] == list(module.state_dict())
    assert _hidden(frozen) == [(6, "tanh")]


def test_whole_numbers_in_buffers_are_no_parameters(generator: torch.Generator) -> None:
    module = Fn(lambda m, x: m.b(torch.tanh(m.a(x)[:, m.rows])), **_linear(3, 6, 2), rows=torch.tensor([0, 0, 1]))
    spec = _keeps(module, _randn(2, 5, 3), generator)
    assert "rows" not in spec.by_state_key
    assert _hidden(spec) == [(6, "other")] or _hidden(spec) == [(6, "tanh")]


def test_scalars_of_numpy() -> None:
    module = Fn(lambda m, x: m.b(torch.sin(m.w0 * m.a(x))), **_linear(2, 8, 1), w0=np.float64(30))
    assert spec_of(module).axis("h1") == ws.Axis("h1", 8, "sine", 30.0)


def test_messages_name_operator_module_and_line() -> None:
    inner = Fn(lambda m, x: torch.fft.fft(m.a(x)).real, a=nn.Linear(3, 4))
    module = nn.ModuleDict({"net": nn.ModuleDict({"deep": inner})})
    outer = Fn(lambda m, x: m.parts["net"]["deep"](x), parts=module)
    with pytest.raises(
        ValueError, match=r"aten\.fft_fft in 'parts\.net\.deep' \(test_modules\.py:\d+\): an operator wi"
    ):
        spec_of(outer)


def test_einops(generator: torch.Generator) -> None:
    einops = pytest.importorskip("einops")

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        tokens = m.a(einops.rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=2, q=2))
        return m.b(einops.reduce(torch.relu(tokens), "b n c -> b c", "mean"))

    assert _hidden(_keeps(Fn(forward, **_linear(4, 6, 2)), _randn(2, 1, 6, 6), generator)) == [(6, "relu")]


def test_the_frequency_of_a_learned_factor_is_not_recorded(generator: torch.Generator) -> None:
    module = Fn(lambda m, x: m.b(torch.sin(m.w * m.a(x))), **_linear(2, 6, 1), w=nn.Parameter(torch.full((1,), 30.0)))
    assert _hidden(_keeps(module, _randn(4, 2), generator)) == [(6, "other")]
    assert math.prod(spec_of(module).shape("w")) == 1
