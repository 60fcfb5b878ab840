"""spec_of beyond chains: convolutions, norms, sums, concatenations. What is traced keeps the module's function."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing
from weightspace.tracing import _rules, spec_of


class Fn(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


def vgg(norm: bool, head: str, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 5), (5, 6), (6, 7)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *([nn.BatchNorm2d(outputs)] if norm else [])]
        layers += [activation(), nn.MaxPool2d(2)]
    if head == "flatten":
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(28, 9), activation(), nn.Dropout(), nn.Linear(9, 3))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(7, 3))


class Block(nn.Module):
    """The basic block: two convolutions with norms, a sum with the input or its projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 1, 1, bias=False)
        self.bn = norm(6)
        self.layers = nn.Sequential(Block(6, 6, 1, norm), Block(6, 6, 1, norm), Block(6, 8, 2, norm))
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.layers(F.relu(self.bn(self.conv(x)))))
        return self.fc(torch.flatten(x, 1))


class PreActivation(nn.Module):
    """A pre-activation block: the stream itself has neither norm nor activation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.bn1, self.conv1 = nn.BatchNorm2d(6), nn.Conv2d(6, 5, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(5), nn.Conv2d(5, 6, 3, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return self.fc(x.mean((2, 3)))


class DenseNet(nn.Module):
    """Norms and convolutions of concatenations, then a flatten of one."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 3, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(7)
        self.c = nn.Conv2d(7, 5, 3, padding=1)
        self.fc = nn.Linear(12 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = torch.cat([a, self.b(F.relu(self.bn(a)))], 1)
        c = torch.cat((b, self.c(F.relu(self.bn2(b)))), dim=1)
        return self.fc(F.avg_pool2d(c, 4).view(x.size(0), -1))


class UNet(nn.Module):
    """Down, up, and a concatenation of two activations: relu keeps its scales."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up, self.out = nn.Conv2d(10, 5, 3, padding=1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.down1(x))
        deep = F.interpolate(torch.relu(self.down2(F.max_pool2d(skip, 2))), scale_factor=2, mode="nearest")
        return self.out(torch.relu(self.up(torch.cat([deep, skip], dim=1))))


class NormMLP(nn.Module):
    """Layer norms, a residual MLP block, as in a transformer, on points ``[batch, token, feature]``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(3, 6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)
        self.last, self.head = nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return F.log_softmax(self.head(self.last(x)), dim=-1)


class ConvNeXt(nn.Module):
    """Depthwise convolution, channels last, layer norm, an inverted bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, 2)
        self.dw = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.down(F.gelu(self.up(self.norm(self.dw(x).permute(0, 2, 3, 1)))))
        return self.head((x + y.permute(0, 3, 1, 2)).mean([-2, -1]))


class TwoHeads(nn.Module):
    """A picture and its own features side by side, and outputs that are a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3, padding=1), nn.Linear(48, 5)
        self.c, self.d = nn.Linear(5, 2), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.b(torch.cat([torch.relu(self.a(x)), x], 1).flatten(1)))
        return torch.cat([self.c(h), self.d(h)], -1)


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.m, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.c(h + torch.relu(self.m(torch.relu(self.b(h)))))


class Functional(nn.Module):
    """Convolutions, pooling and pads as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(4, 1, 3, 3)), nn.Parameter(torch.randn(4))
        self.w2 = nn.Parameter(torch.randn(5, 4, 3, 3))
        self.w3 = nn.Parameter(torch.randn(2, 5 * 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(F.conv2d(F.pad(x, (1, 1, 1, 1)), self.w1, self.b1))
        x = F.elu(F.conv2d(F.avg_pool2d(x, 2), self.w2, stride=1))
        return F.linear(F.adaptive_max_pool2d(x, 2).reshape(-1, 20), self.w3)


def instance(outputs: int) -> nn.Module:
    return nn.InstanceNorm2d(outputs, affine=True, track_running_stats=True)


def _norms() -> nn.Module:
    """A norm right on the input, one over channels and positions, one after the flatten."""
    front = [nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3), nn.LayerNorm([4, 6, 6]), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*front, nn.BatchNorm1d(144), nn.Linear(144, 5), nn.LayerNorm(5), nn.Linear(5, 2))


class Between(nn.Module):
    """A convolution, a function of its output, and a linear map of what comes out."""

    def __init__(self, function: Callable[[Tensor], Tensor], features: int) -> None:
        super().__init__()
        self.conv, self.function, self.fc = nn.Conv2d(2, 4, 3), function, nn.Linear(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.function(self.conv(x)).flatten(1))


def _inplace(z: Tensor) -> Tensor:
    return torch.cat([F.relu(z, inplace=True), z], 1)


SMALL: dict[str, tuple[Callable[[Tensor], Tensor], int, str]] = {
    "pool, relu": (lambda z: F.relu(F.max_pool2d(z, 3)), 16, "relu"),
    "maxima of sines": (lambda z: F.max_pool2d(torch.sin(z), 3), 16, "other"),
    "sines of maxima": (lambda z: torch.sin(F.max_pool2d(z, 3)), 16, "other"),
    "means of sines": (lambda z: F.avg_pool2d(torch.sin(z), 3), 16, "sine"),
    "sines of sums": (lambda z: torch.sin(z.sum((2, 3))), 4, "other"),
    "cosines of padded": (lambda z: torch.cos(F.pad(z, (1, 1, 1, 1))), 256, "other"),
    "tanh of means": (lambda z: torch.tanh(F.adaptive_avg_pool2d(z, 2)), 16, "tanh"),
    "constant pad": (lambda z: F.pad(torch.relu(z), (1, 1, 1, 1), value=1.0), 256, "other"),
    "zero pad": (lambda z: F.pad(torch.relu(z), (1, 1)), 192, "relu"),
    "both signs": (lambda z: torch.cat([torch.relu(z), torch.relu(-z)], 1), 288, "other"),
    "twice": (lambda z: torch.cat([torch.tanh(z)] * 2, 1), 288, "tanh"),
    "two activations": (lambda z: torch.cat([torch.tanh(z), torch.relu(z)], 1), 288, "other"),
    "with itself": (lambda z: torch.tanh(z + z), 144, "other"),
    "in place": (_inplace, 288, "relu"),
    "scaled": (lambda z: torch.sin(3 * z), 144, "sine"),
    "gaussian": (lambda z: torch.exp(-z.square()), 144, "gaussian"),
    "shifted": (lambda z: torch.relu(z) + 1, 144, "other"),
    "leaky": (lambda z: F.leaky_relu(z, 0.2), 144, "other"),
    "softplus": (lambda z: F.softplus(z), 144, "other"),
    "clamped": (lambda z: z.clamp(-1, 1), 144, "other"),
    "softmax of channels": (lambda z: z.softmax(1), 144, "other"),
    "linear": (lambda z: F.avg_pool2d(z, 3), 16, "other"),
    "upsampled": (lambda z: F.interpolate(torch.relu(z), scale_factor=2, mode="bilinear"), 576, "relu"),
    "sizes": (lambda z: torch.relu(z).reshape(z.size(0), z.shape[1] * z.shape[2], z.size(3)), 144, "relu"),
    "positions side by side": (lambda z: torch.cat([torch.relu(z), torch.relu(z)], 2), 288, "relu"),
    "mean over channels": (lambda z: z.mean(1, keepdim=True), 36, "other"),
    "gate of channels": (lambda z: z * torch.sigmoid(z.amax((2, 3), keepdim=True)), 144, "other"),
    "spatial attention": (
        lambda z: z * torch.sigmoid(torch.cat([z.mean(1, True), z.amax(1, True)], 1).mean(1, True)),
        144,
        "other",
    ),
    "normalised": (lambda z: F.normalize(z, dim=1), 144, "other"),
    "variance": (lambda z: torch.cat([z.var((2, 3)), z.std((2, 3))], 1), 8, "other"),
    "own layer norm": (
        lambda z: (z - z.mean(1, keepdim=True)) / z.var(1, keepdim=True, correction=0).sqrt(),
        144,
        "other",
    ),
    "expanded mean": (lambda z: z - z.mean(1, keepdim=True).expand_as(z), 144, "other"),
    "repeated": (lambda z: torch.relu(z).repeat(1, 2, 1, 1), 288, "relu"),
    "stacked": (lambda z: torch.stack([torch.relu(z), torch.relu(z)], 1), 288, "relu"),
    "transposed twice": (lambda z: torch.tanh(z).permute(2, 3, 0, 1).transpose(0, 1).permute(2, 3, 1, 0), 144, "tanh"),
    "parts of positions": (lambda z: torch.cat(torch.relu(z).split([2, 4], 2), 3 - 1), 144, "relu"),
    "every second": (lambda z: torch.relu(z)[:, :, ::2, 1:], 60, "relu"),
    "masked": (lambda z: z.masked_fill(torch.eye(6, dtype=torch.bool), 0.0), 144, "other"),
    "upper triangle": (lambda z: torch.relu(z).triu(), 144, "relu"),
    "rolled channels": (lambda z: torch.relu(z).roll(1, 1), 144, "relu"),
    "zeros beside channels": (lambda z: F.pad(torch.relu(z), (0, 0, 0, 0, 1, 2)), 252, "relu"),
    "ones beside channels": (lambda z: F.pad(torch.relu(z), (0, 0, 0, 0, 1, 2), value=1.0), 252, "other"),
    "larger": (lambda z: F.interpolate(torch.relu(z), scale_factor=2), 576, "relu"),
    "mirrored": (lambda z: F.pad(torch.tanh(z), (1, 1, 2, 2), "reflect"), 320, "tanh"),
    "repeated inside": (lambda z: torch.relu(z).repeat_interleave(2, 1), 288, "relu"),
    "folded and back": (
        lambda z: torch.tanh(z).flatten(1).view(2, 4, 6, 6).movedim(1, 3).flatten(0, 2).view(2, 36, 4),
        144,
        "tanh",
    ),
    "batch and channels": (lambda z: F.avg_pool2d(torch.relu(z).view(8, 1, 6, 6), 2).view(2, 4, 9), 36, "relu"),
    "gathered": (lambda z: torch.relu(z).gather(2, torch.zeros(2, 4, 1, 6, dtype=torch.long)), 24, "relu"),
    "diagonal": (lambda z: torch.relu(z).diagonal(0, 2, 3), 24, "relu"),
    "turned": (lambda z: torch.relu(z).rot90(1, (2, 3)), 144, "relu"),
    "taken apart": (lambda z: torch.stack(torch.relu(z).unbind(2)[::2], 2), 72, "relu"),
    "rolled positions": (lambda z: torch.tanh(z).roll((1, 2), (2, 3)), 144, "tanh"),
    "window": (lambda z: F.unfold(torch.relu(z).mean(1, keepdim=True), 2), 100, "other"),
    "where": (lambda z: torch.where(z > 0, z, 0.1 * z), 144, "other"),
    "product over positions": (lambda z: torch.einsum("bchw,bcvw->bchv", z, z), 144, "other"),
    "gram matrix": (lambda z: torch.einsum("bchw,bcvw->bhv", z, z), 36, "other"),
    "attention of positions": (
        lambda z: F.scaled_dot_product_attention(*[z.flatten(2).transpose(1, 2)] * 3),
        144,
        "other",
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_lies_between_decides_the_group(name: str, generator: torch.Generator) -> None:
    function, features, activation = SMALL[name]
    module, x = Between(function, features).double(), _example((2, 2, 8, 8))
    spec = spec_of(module, x)
    assert [axis.activation for axis in spec.hidden] == [activation]
    w = testing.random_weights(spec, 3, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=3, generator=generator, dtype=torch.float64)
    testing.assert_same_function(w, g.act(w), x=x, module=module, atol=1e-8, rtol=1e-8)


PICTURE = (3, 1, 16, 16)
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, set[str | None]]]] = {
    "vgg, batch norm, flatten": (lambda: vgg(True, "flatten"), PICTURE, {"perm": {"other", "relu"}}),
    "vgg, batch norm, pool": (lambda: vgg(True, "pool"), PICTURE, {"perm": {"other"}}),
    "vgg, flatten": (lambda: vgg(False, "flatten"), PICTURE, {"perm": {"relu"}}),
    "vgg, pool": (lambda: vgg(False, "pool"), PICTURE, {"perm": {"relu"}}),
    "vgg, tanh and maxima": (lambda: vgg(False, "flatten", nn.Tanh), PICTURE, {"perm": {"other", "tanh"}}),
    "resnet": (ResNet, (2, 3, 8, 8), {"perm": {"other"}}),
    "resnet, synchronised batch norm": (lambda: ResNet(nn.SyncBatchNorm), (2, 3, 8, 8), {"perm": {"other"}}),
    "resnet, group norm of one": (lambda: ResNet(lambda n: nn.GroupNorm(1, n)), (2, 3, 8, 8), {"perm": {"other"}}),
    "resnet, group norm of each": (lambda: ResNet(lambda n: nn.GroupNorm(n, n)), (2, 3, 8, 8), {"perm": {"other"}}),
    "resnet, instance norm": (lambda: ResNet(instance), (2, 3, 8, 8), {"perm": {"other"}}),
    "pre-activation": (PreActivation, (2, 2, 6, 6), {"perm": {"other"}}),
    "densenet": (DenseNet, (2, 1, 8, 8), {"perm": {"other"}}),
    "unet": (UNet, (2, 1, 8, 8), {"perm": {"relu"}}),
    "layer norm mlp": (NormMLP, (2, 7, 3), {"perm": {"other", "gelu"}}),
    "convnext": (ConvNeXt, (2, 3, 8, 8), {"perm": {"other", "gelu"}}),
    "two heads": (TwoHeads, (2, 2, 8), {"perm": {"relu"}}),
    "skip": (Skip, (5, 3), {"perm": {"other", "relu"}}),
    "functional": (Functional, (2, 1, 8, 8), {"perm": {"other", "tanh"}}),
    "norms": (_norms, (3, 1, 8, 8), {"perm": {"other"}}),
}


def _example(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", MODULES)
def test_symmetries_keep_the_function(name: str, generator: torch.Generator) -> None:
    make, shape, found = MODULES[name]
    module, x = make().double(), _example(shape)
    spec = spec_of(module, x)
    assert {axis.activation for axis in spec.hidden} == found["perm"]
    assert spec.in_features == (3 if name in ("layer norm mlp", "skip") else shape[1])
    w = testing.random_weights(spec, 3, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=3, generator=generator, dtype=torch.float64)
    moved = g.act(w)
    testing.assert_same_function(w, moved, x=x, module=module, atol=1e-8, rtol=1e-8)
    assert ws.NetSpec.from_json(spec.to_json()) == spec
    assert hash(ws.NetSpec.from_json(spec.to_json())) == hash(spec)


@pytest.mark.parametrize("name", MODULES)
def test_another_movement_changes_the_function(name: str, generator: torch.Generator) -> None:
    """The negative control: one tensor's rows alone, for every hidden axis."""
    make, shape, _ = MODULES[name]
    module, x = make().double(), _example(shape)
    spec = spec_of(module, x)
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    for axis in spec.hidden:
        broken = w.clone()
        touching = [p for p in spec.params if axis.name in p.axes and p.kind != "norm"]
        view = broken.view(touching[-1].name)
        at = touching[-1].axes.index(axis.name) + 1
        view.copy_(view.flip(at))
        with pytest.raises(AssertionError, match="functions: largest difference"):
            testing.assert_same_function(w, broken, x=x, module=module, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", MODULES)
def test_state_dicts_there_and_back(name: str) -> None:
    make, shape, _ = MODULES[name]
    module = make()
    spec = spec_of(module, _example(shape))
    state = module.state_dict()
    back = ws.Weights.from_state_dicts([state, state], spec).state_dict(1)
    assert list(back) == [key for key in state if not key.endswith("num_batches_tracked")]
    assert all(torch.equal(back[key], state[key]) for key in back)
    copy.deepcopy(module).load_state_dict(back)


def test_the_axes_of_a_resnet() -> None:
    spec = spec_of(ResNet(), _example((1, 3, 8, 8)))
    stream = spec.param("conv.weight").axes[0]
    assert spec.param("layers.0.conv2.weight").axes[0] == stream == spec.param("layers.1.conv1.weight").axes[1]
    assert spec.param("layers.1.bn2.running_var").axes == (stream,)
    assert spec.param("layers.0.conv1.weight").axes[0] != stream
    assert spec.param("layers.2.conv2.weight").axes[0] == spec.param("layers.2.downsample.0.weight").axes[0]
    assert len(spec.hidden) == 5
    assert {p.kind for p in spec.params} == {"weight", "bias", "norm"}
    assert [p.name for p in spec.params if p.statistic][:2] == ["bn.running_mean", "bn.running_var"]


def test_the_parts_of_a_concatenation() -> None:
    spec = spec_of(DenseNet(), _example((2, 1, 8, 8)))
    parts = spec.by_state_key["fc.weight"]
    assert [p.name for p in parts] == ["fc.weight[0]", "fc.weight[1]", "fc.weight[2]"]
    assert [p.axes[1] for p in parts] == [spec.param(n).axes[0] for n in ("a.weight", "b.weight", "c.bias")]
    assert [spec.shape(p.name) for p in parts] == [(3, 4, 4), (3, 3, 4), (3, 5, 4)]
    assert [spec.shape(p.name) for p in spec.by_state_key["bn2.running_mean"]] == [(4,), (3,)]
    w = ws.Weights.from_state_dicts(
        [{k: torch.randn_like(v) for k, v in w0.items()} for w0 in [_floats(DenseNet())]], spec
    )
    assert torch.equal(w.state_dict(0)["fc.weight"][:, 16:28], w.view("fc.weight[1]")[0].flatten(1))


def _floats(module: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict().items() if v.is_floating_point()}


def test_without_an_example_a_shape_is_found() -> None:
    assert spec_of(ResNet()) == spec_of(ResNet(), _example((2, 3, 8, 8)))
    assert spec_of(nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 1))).num_params == 36
    lenet = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(576, 3))
    assert spec_of(lenet).shape("4.weight") == (3, 4, 144)
    with pytest.raises(ValueError, match=r"no shape was found that the module takes; pass example_input"):
        spec_of(nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(99, 3)))


def test_the_module_stays_as_it_is() -> None:
    module = ResNet().train()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    spec_of(module, torch.zeros(1, 3, 8, 8))
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.training
    assert module.bn.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_chain_stays_a_chain_with_an_example() -> None:
    module = nn.Sequential(nn.Linear(2, 6), Fn(lambda z: torch.sin(30 * z)), nn.Linear(6, 1))
    assert spec_of(module, torch.zeros(1, 2)) == spec_of(module)
    assert spec_of(module).axis("h1").omega == 30.0


# What is refused, and the operator that the message names.


class Fed(nn.Module):
    """A residual sum right around one layer: its weight reads and makes one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return self.c(x + torch.relu(self.b(x)))


class SharedModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.b(torch.relu(self.a(x)))))))


class SharedNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 1, 1)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.bn(self.b(torch.relu(self.bn(self.a(x)))))))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x.relu() if x.mean() > 0 else x.tanh())


def _between(function: Callable[[Tensor], Tensor], channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Fn(function), nn.Conv2d(channels, 1, 1))


def _shuffle(x: Tensor) -> Tensor:
    return x.view(x.shape[0], 2, 2, x.shape[2], x.shape[3]).transpose(1, 2).flatten(1, 2)


FIXED = {
    "group norm": (
        lambda: ResNet(lambda n: nn.GroupNorm(2, n)),
        r"aten\.group_norm in 'layers\.1\.bn2' \(test_graphs\.py:\d+\)",
    ),
    "fed back": (Fed, r"a sum that ties what 'b.weight' reads to what it makes"),
    "shared layer": (SharedModule, r"a sum that ties what 'b.weight' reads to what it makes"),
    "shared norm": (SharedNorm, r"a sum that ties what 'b.weight' reads to what it makes"),
    "shuffle": (lambda: _between(_shuffle), r"aten\.view in '2' \(test_graphs\.py:\d+\)"),
    "positions into channels": (lambda: _between(lambda x: x.view(-1, 1, 60, 60), 1), r"aten\.conv2d in '3'"),
    "flip": (lambda: _between(lambda x: x.flip(1)), r"aten\.flip"),
    "index": (lambda: _between(lambda x: x[:, [1, 0, 2, 3]]), r"aten\.index"),
    "one channel": (lambda: _between(lambda x: x[:, 1].unsqueeze(1), 1), r"aten\.select"),
    "cumsum": (lambda: _between(lambda x: x.cumsum(1)), r"aten\.cumsum"),
    "sort": (lambda: _between(lambda x: x.sort(1).values), r"aten\.sort"),
    "strongest": (lambda: _between(lambda x: x.max(1, keepdim=True).values, 1), r"aten\.max"),
    "triangle": (lambda: _between(lambda x: x.permute(0, 2, 3, 1).triu().permute(0, 3, 1, 2)), r"aten\.triu"),
    "pool over channels": (
        lambda: _between(lambda x: F.max_pool2d(x.permute(0, 2, 1, 3), 3, 1, 1).permute(0, 2, 1, 3)),
        r"aten\.max_pool2d",
    ),
    "uneven factor": (lambda: _between(lambda x: x * torch.arange(4.0).view(4, 1, 1)), r"aten\.mul"),
    "groups": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 1, 1)),
        r"aten\.conv2d in '2'",
    ),
    "no hidden axis": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), "$"),
    "a whole lstm": (lambda: nn.LSTM(3, 4), "aten.lstm leaves no symmetry"),
}


@pytest.mark.parametrize("name", FIXED)
def test_operators_that_leave_no_axis_are_named(name: str) -> None:
    make, text = FIXED[name]
    with pytest.raises(ValueError, match="cannot prove symmetric: a network without a hidden axis.*" + text):
        spec_of(make(), torch.zeros(2, 3) if name == "a whole lstm" else None)


REFUSED = {
    "control flow": (
        Branching,
        r"torch\.export cannot trace Branching at test_graphs\.py:\d+, 'return self\.b\(.*GuardOnData.* use torch",
    ),
    "no forward": (lambda: nn.ModuleDict({"a": nn.Conv2d(1, 2, 3)}), r"no shape was found .*missing the required"),
    "dropout function": (
        lambda: _between(lambda x: F.dropout(x)),
        r"aten\.dropout in '2' \(test_graphs\.py:\d+\): dropout with p=0\.5 in training mode",
    ),
    "noise": (
        lambda: _between(lambda x: x + torch.randn_like(x)),
        r"aten\.randn_like in '2' .*: an operator without a",
    ),
    "unknown operator": (
        lambda: _between(lambda x: torch.fft.fft(x, dim=1).real),
        r"aten\.fft_fft in '2' \(test_graphs\.py:\d+\): an operator without a rule; .* on_unknown=\"freeze\"",
    ),
    "numbers out of a tensor": (
        lambda: _between(lambda x: x * x.mean().item()),
        r"torch\.export cannot trace|aten\.item",
    ),
    "shape from numbers": (
        lambda: nn.Sequential(nn.Linear(2, 3), Fn(lambda x: x[x > 0])),
        "torch.export cannot trace|depends",
    ),
    "whole numbers": (
        lambda: nn.Sequential(nn.Linear(2, 3, dtype=torch.complex64)),
        "expected initialised real numbers",
    ),
    "no axes": (lambda: Scaled(torch.tensor(1.0)), r"parameter 'alpha' without axes, .*ignore=\('alpha',\)"),
}


class Scaled(nn.Module):
    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.a, self.b, self.alpha = nn.Linear(3, 4), nn.Linear(4, 1), nn.Parameter(alpha)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.alpha * self.a(x)))


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_by_name(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, text = REFUSED[name]
    with pytest.raises(ValueError, match="cannot prove symmetric: .*" + text):
        spec_of(make())
    assert capfd.readouterr() == ("", "")  # torch prints the graph of what it cannot trace


def test_a_wrong_rule_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the check with random symmetries: a rule that leaves what is read in order."""
    module = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), Fn(lambda x: x.cumsum(1)), nn.Conv2d(5, 1, 1))
    monkeypatch.setitem(_rules.RULES, "aten.cumsum", lambda site, value, *_: value.bind())
    with pytest.raises(
        ValueError, match=r"moving the weights .* changes the output by .*hooks, or operators that write"
    ):
        spec_of(module)


def test_what_is_unknown_may_be_frozen(generator: torch.Generator) -> None:
    x = _example((2, 1, 32, 32))
    module = nn.Sequential(*vgg(False, "pool")[:3], *_between(lambda x: torch.fft.fft(x, dim=1).real)[2:]).double()
    layers = [nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), Fn(lambda x: torch.fft.fft(x, dim=1).real)]
    module = nn.Sequential(*layers, nn.Conv2d(4, 1, 1)).double()
    spec = spec_of(module, x, on_unknown="freeze")
    assert [(axis.size, axis.activation) for axis in spec.hidden] == [(5, "relu")]
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64)
    testing.assert_same_function(w, g.act(w), x=x, module=module, atol=1e-9, rtol=1e-9)
    nothing = spec_of(nn.Sequential(*layers[2:]).double(), _example((2, 5, 8, 8)), on_unknown="freeze")
    assert nothing.hidden == ()


def test_other_examples_are_refused() -> None:
    with pytest.raises(TypeError, match="example_input: expected a tensor, got tuple"):
        spec_of(ResNet(), (1, 3, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"example_input\['x'\]: expected a tensor, got list"):
        spec_of(ResNet(), {"x": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"the module fails on the example input \[1, 2, 8, 8\]"):
        spec_of(ResNet(), torch.zeros(1, 2, 8, 8))


def test_evaluate_says_that_it_is_for_chains() -> None:
    spec = spec_of(ResNet())
    w = ws.Weights(torch.zeros(1, spec.num_params), spec)
    with pytest.raises(ValueError, match="expected a chain of linear layers"):
        ws.evaluate(w, torch.zeros(4, 3))


def test_same_function_by_a_module_needs_both() -> None:
    spec = spec_of(ResNet())
    w = testing.random_weights(spec, 1, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="x: expected the input of the module, got None"):
        testing.assert_same_function(w, w, module=ResNet())
    with pytest.raises(TypeError, match=r"module: expected an nn\.Module, got NetSpec"):
        testing.assert_same_function(w, w, x=torch.zeros(1, 3, 8, 8), module=spec)  # type: ignore[arg-type]
