"""Vision families as public libraries write them: each is read, and keeps its outputs under a random symmetry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing
from weightspace.tracing import spec_of


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: type | None = nn.ReLU):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)]
    layers += [nn.BatchNorm2d(outputs), *([act(inplace=True)] if act else [])]
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """As in MobileNetV3 and EfficientNet: two 1x1 convolutions of the means, their sigmoid a factor."""

    def __init__(self, channels: int, squeezed: int, scale: Callable[[], nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = nn.ReLU(), scale()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


class DropPath(nn.Module):
    """Stochastic depth, as timm has it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * mask / (1 - self.rate)


class MBConv(nn.Module):
    """The inverted bottleneck of MobileNetV3 and EfficientNet."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int = 1, act: type = nn.SiLU, gate=nn.Sigmoid):
        super().__init__()
        self.same = stride == 1 and inputs == outputs
        self.block = nn.Sequential(
            _conv(inputs, wide, act=act),
            _conv(wide, wide, 3, stride, wide, act),
            SqueezeExcite(wide, 4, gate),
            _conv(wide, outputs, act=None),
        )
        self.drop = DropPath(0.2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        if self.same:
            out = self.drop(out)
            out += x
        return out


class EfficientNet(nn.Module):
    def __init__(self, act: type = nn.SiLU, gate: Callable[[], nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.stem = _conv(3, 6, 3, 2, act=act)
        self.blocks = nn.Sequential(MBConv(6, 10, 8, 2, act, gate), MBConv(8, 12, 8, 1, act, gate))
        self.head, self.avgpool = _conv(8, 14, act=act), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2, inplace=True), nn.Linear(14, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.head(self.blocks(self.stem(x)))), 1))


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [_conv(3, 6, 3, 2, act=nn.ReLU6), _conv(6, 6, 3, 1, 6, nn.ReLU6), _conv(6, 8, act=None)]
        self.features, self.fc = nn.Sequential(*layers), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.features(x), (1, 1)).flatten(1))


class XBlock(nn.Module):
    """The bottleneck of ResNeXt and RegNet: a grouped convolution in the middle, and maybe squeeze-excite."""

    def __init__(self, inputs: int, wide: int, outputs: int, groups: int, stride: int, squeezed: int = 0) -> None:
        super().__init__()
        self.a, self.b = _conv(inputs, wide), _conv(wide, wide, 3, stride, groups)
        self.se = SqueezeExcite(wide, squeezed) if squeezed else nn.Identity()
        self.c = _conv(wide, outputs, act=None)
        self.proj = _conv(inputs, outputs, stride=stride, act=None) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.proj is None else self.proj(x)
        return F.relu(shortcut + self.c(self.se(self.b(self.a(x)))), inplace=True)


class RegNet(nn.Module):
    def __init__(self, squeezed: int) -> None:
        super().__init__()
        self.stem = _conv(3, 6, 3, 2)
        self.body = nn.Sequential(XBlock(6, 8, 8, 2, 2, squeezed), XBlock(8, 8, 8, 4, 1, squeezed))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean(dim=(2, 3)))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batchsize, channels, height, width = x.size()
    x = x.view(batchsize, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batchsize, channels, height, width)


class ShuffleUnit(nn.Module):
    """The unit of ShuffleNet V2, as torchvision writes it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, self.stride = outputs // 2, stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(_conv(inputs, inputs, 3, stride, inputs, None), _conv(inputs, half))
        into = inputs if stride > 1 else half
        self.branch2 = nn.Sequential(_conv(into, half), _conv(half, half, 3, stride, half, None), _conv(half, half))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.maxpool = _conv(3, 6, 3, 2), nn.MaxPool2d(3, 2, 1)
        self.stage, self.conv5 = nn.Sequential(ShuffleUnit(6, 8, 2), ShuffleUnit(8, 8, 1)), _conv(8, 10)
        self.fc = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv5(self.stage(self.maxpool(self.conv1(x)))).mean([2, 3]))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        x = F.layer_norm(input.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, channels last, and a layer scale: torchvision's ``[C, 1, 1]`` or timm's ``[C]``."""

    def __init__(self, dim: int, scale: tuple[int, ...]) -> None:
        super().__init__()
        self.dw, self.norm = nn.Conv2d(dim, dim, 7, padding=3, groups=dim), nn.LayerNorm(dim, eps=1e-6)
        self.fc1, self.act, self.fc2 = nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        self.gamma, self.drop = nn.Parameter(torch.full(scale, 1e-6)), DropPath(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc2(self.act(self.fc1(self.norm(self.dw(x).permute(0, 2, 3, 1)))))
        y = y.permute(0, 3, 1, 2)
        y = y * self.gamma if self.gamma.ndim == 3 else y.mul(self.gamma.reshape(1, -1, 1, 1))
        return self.drop(y) + x


class ConvNeXt(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 4, 4), LayerNorm2d(6))
        self.down = nn.Sequential(LayerNorm2d(6), nn.Conv2d(6, 8, 2, 2))
        self.blocks = nn.ModuleList([ConvNeXtBlock(n, (n, *(1,) * (scale - 1))) for n in (6, 8)])
        self.norm, self.fc = LayerNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[1](self.down(self.blocks[0](self.stem(x))))
        return self.fc(self.norm(F.adaptive_avg_pool2d(x, 1)).flatten(1))


class Attention(nn.Module):
    """timm's attention: one matrix for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        attn = (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, c))


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(1e-5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class TransformerBlock(nn.Module):
    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(dim), attention, LayerScale(dim)
        self.norm2, self.ls2 = nn.LayerNorm(dim), LayerScale(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 11), nn.GELU(), nn.Dropout(0.1), nn.Linear(11, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """timm's ViT, with a class token and position embeddings ``[1, token, width]``, or their mean without either."""

    def __init__(self, *, tokens: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 8, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8)) if tokens else None
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 17, 8)) if tokens else None
        self.blocks = nn.Sequential(*(TransformerBlock(8, Attention(8, 2)) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        x = self.norm(self.blocks(x))
        return self.head(x.mean(dim=1) if self.cls_token is None else x[:, 0])


class WindowAttention(nn.Module):
    """Swin's attention in windows, with a table of relative position biases that a buffer of indices reads."""

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        self.window, self.heads = window, heads
        self.relative_position_bias_table = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        coords = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0) + window - 1
        index = relative[:, :, 0] * (2 * window - 1) + relative[:, :, 1]
        self.register_buffer("relative_position_index", index, persistent=False)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(n, n, -1)
        mask = bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).reshape(b, n, c))


class SwinBlock(nn.Module):
    def __init__(self, dim: int, shift: int) -> None:
        super().__init__()
        self.shift, self.attn = shift, WindowAttention(dim, 2, 2)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 11), nn.GELU(), nn.Linear(11, dim))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2)) if self.shift else self.norm1(x)
        y = y.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        y = self.attn(y).view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + (torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y)
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Two blocks, one with shifted windows, a patch merging, a third block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.first = nn.Conv2d(3, 8, 4, 4), nn.Sequential(SwinBlock(8, 0), SwinBlock(8, 1))
        self.norm, self.reduction = nn.LayerNorm(32), nn.Linear(32, 12, bias=False)
        self.second, self.last, self.head = SwinBlock(12, 0), nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.patch(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        x = self.last(self.second(self.reduction(self.norm(x))))
        return self.head(x.permute(0, 3, 1, 2).mean((-2, -1)))


class MaxViT(nn.Module):
    """A convolution block, attention in windows, attention over a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, 2, 1), MBConv(8, 12, 8, 1, nn.GELU_ if False else nn.SiLU)
        self.block, self.grid = (TransformerBlock(8, Attention(8, 2)) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x)).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = self.block(y).view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        z = y.view(b, 4, h // 4, 4, w // 4, c).permute(0, 2, 4, 1, 3, 5).reshape(-1, 16, c)
        z = self.grid(z).view(b, h // 4, w // 4, 4, 4, c).permute(0, 3, 1, 4, 2, 5).reshape(b, h, w, c)
        return self.head(self.norm(z).mean(dim=(1, 2)))


class Inception(nn.Module):
    """Four branches side by side, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 6, 3, 2)
        self.b1, self.b2 = _conv(6, 3), nn.Sequential(_conv(6, 4), _conv(4, 5, 3))
        self.b3, self.b4 = nn.Sequential(_conv(6, 2), _conv(2, 3, 5)), nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv(6, 4))
        self.after, self.fc = _conv(15, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([branch(x) for branch in (self.b1, self.b2, self.b3, self.b4)], 1)
        return self.fc(self.after(x).mean((2, 3)))


class Fire(nn.Module):
    """SqueezeNet: two activations side by side, and no norm, so that scales stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 3, 1)
        self.one, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 3, padding=1)
        self.last, self.relu = nn.Conv2d(9, 4, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(F.max_pool2d(self.relu(self.stem(x)), 3, 2, ceil_mode=True)))
        x = torch.cat([self.relu(self.one(x)), self.relu(self.three(x))], 1)
        return torch.flatten(F.adaptive_avg_pool2d(self.relu(self.last(x)), (1, 1)), 1)


class PaddedShortcut(nn.Module):
    """The residual network for CIFAR whose shortcuts are sliced and padded with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = _conv(3, 4, 3), _conv(4, 8, 3, 2), _conv(8, 8, 3, act=None)
        self.c, self.d, self.fc = _conv(8, 6, 3), _conv(6, 8, 3, act=None), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.b(self.a(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0))
        x = F.relu(self.d(self.c(x)) + x)
        return self.fc(F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1))


Expected = dict[str, str]
"""For some parameters, their hidden axes: one letter an axis, the same letter the same axis, ``.`` none."""
FAMILIES: dict[str, tuple[Callable[[], nn.Module], Expected]] = {
    "mobilenet v2": (MobileNetV2, {"features.0.0.weight": "a.", "features.1.0.weight": "a.", "fc.weight": ".b"}),
    "mobilenet v3": (
        lambda: EfficientNet(nn.Hardswish, nn.Hardsigmoid),
        {"stem.0.weight": "a.", "blocks.0.block.0.0.weight": "ba", "blocks.0.block.2.fc1.weight": "cb"},
    ),
    "efficientnet": (
        EfficientNet,
        {
            "blocks.0.block.1.0.weight": "a.",
            "blocks.0.block.2.fc2.weight": "ab",
            "blocks.0.block.3.0.weight": "ca",
            "blocks.1.block.3.1.running_var": "c",
            "head.0.weight": "dc",
        },
    ),
    "resnext": (
        lambda: RegNet(0),
        {"stem.0.weight": "a.", "body.0.a.0.weight": ".a", "body.0.b.0.weight": "..", "body.1.c.0.weight": "b."},
    ),
    "regnet": (lambda: RegNet(3), {"body.0.se.fc1.weight": "a.", "body.0.c.1.bias": "b", "body.1.a.0.weight": ".b"}),
    "shufflenet": (
        ShuffleNet,
        {
            "conv1.0.weight": "a.",
            "stage.0.branch2.0.0.weight": "ba",
            "stage.0.branch2.2.0.weight": ".b",
            "stage.1.branch2.1.0.weight": "c.",
            "conv5.0.weight": "d.",
        },
    ),
    "convnext": (lambda: ConvNeXt(3), {"stem.0.weight": "a.", "blocks.0.gamma": "a", "blocks.0.fc1.weight": "ba"}),
    "convnext, timm": (lambda: ConvNeXt(1), {"down.1.weight": "ba", "blocks.1.gamma": "b", "fc.weight": ".b"}),
    "vit": (
        lambda: ViT(tokens=False),
        {
            "proj.weight": "a.",
            "blocks.0.attn.qkv.weight[0]": "ca",
            "blocks.0.attn.qkv.weight[1]": "ca",
            "blocks.0.attn.qkv.weight[2]": "da",
            "blocks.0.attn.proj.weight": "ad",
            "blocks.1.attn.proj.weight": "ae",
            "blocks.1.ls2.gamma": "a",
            "blocks.1.mlp.0.weight": "ba",
            "head.weight": ".a",
        },
    ),
    "vit, tokens": (lambda: ViT(tokens=True), {"blocks.0.mlp.0.weight": "a.", "blocks.0.mlp.3.weight": ".a"}),
    "swin": (
        Swin,
        {
            "patch.weight": "a.",
            "first.1.attn.qkv.weight[2]": "da",
            "norm.weight[3]": "a",
            "reduction.weight[2]": "ba",
            "second.mlp.2.weight": "bc",
        },
    ),
    "maxvit": (
        MaxViT,
        {"stem.weight": "a.", "conv.block.3.0.weight": "ab", "block.attn.proj.bias": "a", "grid.mlp.0.weight": "ca"},
    ),
    "inception": (Inception, {"after.0.weight[0]": "ab", "after.0.weight[3]": "ac", "b4.1.0.weight": "cd"}),
    "squeezenet": (Fire, {"last.weight[0]": ".a", "last.weight[1]": ".b", "three.weight": "bc", "stem.weight": "d."}),
    "padded shortcuts": (
        PaddedShortcut,
        {"a.0.weight": "ac", "b.0.weight[1]": "ca", "b.0.weight[2]": ".a", "c.0.weight[1]": "bc"},
    ),
}


def _read(name: str) -> tuple[nn.Module, ws.NetSpec, Tensor]:
    torch.manual_seed(0)
    module = FAMILIES[name][0]().double()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return module, spec_of(module, x), x


@pytest.mark.parametrize("name", FAMILIES)
def test_the_axes_of_a_family(name: str) -> None:
    _, spec, _ = _read(name)
    letters: dict[str, str] = {}
    for param, expected in FAMILIES[name][1].items():
        axes = spec.param(param).axes[: len(expected)]
        found = "".join(letters.setdefault(a, f"{len(letters)}") if spec.axis(a).hidden else "." for a in axes)
        shown = "".join(
            "." if c == "." else str(sorted(set("".join(FAMILIES[name][1].values())) - {"."}).index(c))
            for c in expected
        )
        assert len(found) == len(shown), param
        assert [c == "." for c in found] == [c == "." for c in shown], (param, found, expected)
    pairs = {
        (c, a)
        for param, expected in FAMILIES[name][1].items()
        for c, a in zip(expected, spec.param(param).axes, strict=False)
        if c != "."
    }
    assert len({c for c, _ in pairs}) == len({a for _, a in pairs}) == len(pairs)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_random_symmetry_keeps_a_family(name: str, generator: torch.Generator) -> None:
    module, spec, x = _read(name)
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64)
    testing.assert_same_function(w, g.act(w), x=x, module=module, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_tensor_alone_changes_a_family(name: str, generator: torch.Generator) -> None:
    module, spec, x = _read(name)
    w = testing.random_weights(spec, 4, generator=generator, dtype=torch.float64)
    for axis in spec.hidden:
        broken = w.clone()
        touching = [p for p in spec.params if axis.name in p.axes and p.kind == "weight"]
        view = broken.view(touching[-1].name)
        view.copy_(view.flip(touching[-1].axes.index(axis.name) + 1))
        with pytest.raises(AssertionError, match="functions: largest difference"):
            testing.assert_same_function(w, broken, x=x, module=module, atol=1e-9, rtol=1e-9)
