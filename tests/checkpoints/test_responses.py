"""Neurons of two modules paired by what they answer: against NumPy, over every way that a layer may read an axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import weightspace as ws
from weightspace import checkpoints


class Joined(nn.Module):
    """A concatenation, a residual sum in place, a flatten of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 3, 3, padding=1)
        self.both, self.norm = nn.Conv2d(7, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.inner, self.outer = nn.Conv2d(5, 6, 1), nn.Conv2d(6, 5, 1)
        self.wide, self.head = nn.Linear(5 * 4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.both(torch.cat([F.silu(self.one(x)), F.silu(self.two(x))], 1))))
        y = self.outer(F.silu(self.inner(x)))
        x += y
        return self.head(F.silu(self.wide(F.max_pool2d(x, 2).flatten(1))))


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


def made(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


def inputs(make: Callable[[], nn.Module], count: int = 40) -> Tensor:
    shape = (count, 3) if make is plain else (count, 1, 4, 4)
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("make", [Joined, plain])
def test_a_moved_network_is_found_again(make: Callable[[], nn.Module]) -> None:
    module, x = made(make, 0), inputs(make)
    g = ws.Symmetry.sample(
        ws.spec_of(module, x[:1]), batch=1, generator=torch.Generator().manual_seed(3), group="permutation"
    )
    moved = checkpoints.move_state_dict(module.state_dict(), g)
    found = checkpoints.align_state_dicts(module, module.state_dict(), moved, batches=x.split(16), example_input=x[:1])
    assert found.before > 0
    assert found.after == 0
    for name, perm in g.inverse().perm.items():
        assert found.symmetry.perm[name].equal(perm)


def test_the_function_stays_and_the_correlation_is_numpy_s() -> None:
    a, b, x = made(Joined, 0), made(Joined, 1), inputs(Joined)
    found = checkpoints.align_state_dicts(a, a.state_dict(), b.state_dict(), batches=[x], example_input=x[:1])
    moved = made(Joined, 1)
    moved.load_state_dict(found.state_dict)
    torch.testing.assert_close(moved(x), b(x))

    def pooled(net: Joined) -> np.ndarray:
        read: list[Tensor] = []
        handle = net.wide.register_forward_pre_hook(lambda _, args: read.append(args[0].detach()))
        inner = net.inner.register_forward_pre_hook(lambda _, args: read.append(args[0].detach().clone()))
        net(x)
        handle.remove(), inner.remove()
        positions = [read[0].movedim(1, -1).reshape(-1, 5), read[1].reshape(-1, 5, 4).movedim(1, 2).reshape(-1, 5)]
        return torch.cat(positions).double().numpy()

    both = np.corrcoef(pooled(a), pooled(b), rowvar=False)[:5, 5:]
    (name,) = [
        axis.name for axis in found.symmetry.spec.hidden if axis.name in found.symmetry.spec.param("norm.weight").axes
    ]
    expected = linear_sum_assignment(both, maximize=True)[1]
    assert found.symmetry.perm[name][0].tolist() == expected.tolist()
    other = checkpoints.align_state_dicts(a, a.state_dict(), b.state_dict(), example_input=x[:1])
    assert other.symmetry.perm[name].tolist() != found.symmetry.perm[name].tolist()  # weights say something else


def test_batches_are_summed_and_silent_neurons_are_no_trouble() -> None:
    a, b, x = made(plain, 0), made(plain, 1), inputs(plain)
    for net in (a, b):
        with torch.no_grad():
            net[2].bias[:2] = -100.0  # ReLUs that never open
    whole, parts = (
        checkpoints.align_state_dicts(a, a.state_dict(), b.state_dict(), batches=batches)
        for batches in ([x], x.split(7))
    )
    for name, perm in whole.symmetry.perm.items():
        assert parts.symmetry.perm[name].equal(perm)
        assert perm.sort().values.equal(torch.arange(perm.shape[1])[None])
    for batches in ([x], [x[:1]], [torch.zeros(5, 3)]):  # one input tells no neurons apart, nor do equal ones
        own = checkpoints.align_state_dicts(a, a.state_dict(), a.state_dict(), batches=batches)
        assert own.before == own.after == 0


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(input=torch.tanh(self.first(x)))


def test_layers_may_be_called_by_keyword() -> None:
    a, x = made(Named, 0), inputs(plain)
    g = ws.Symmetry(ws.spec_of(a), 1, {"h1": torch.tensor([[3, 0, 4, 1, 2]])})
    moved = checkpoints.move_state_dict(a.state_dict(), g)
    assert checkpoints.align_state_dicts(a, a.state_dict(), moved, batches=[x.double()]).after == 0


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 4)
        self.weight = nn.Parameter(torch.ones(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.first(x).relu(), self.weight)


def test_bad_input() -> None:
    module = made(plain, 0)
    state = module.state_dict()
    for empty in ([], [inputs(plain)[:0]]):
        with pytest.raises(ValueError, match="at least one input"):
            checkpoints.align_state_dicts(module, state, state, batches=empty)
    with pytest.raises(TypeError, match="expected tensors of inputs, got tuple"):
        checkpoints.align_state_dicts(module, state, state, batches=[(inputs(plain), 0)])  # type: ignore[list-item]
    broken = inputs(plain)
    broken[3, 1] = torch.inf
    with pytest.raises(ValueError, match="finite inputs"):
        checkpoints.align_state_dicts(module, state, state, batches=[broken])
    bad = {**state, "2.bias": torch.full((5,), torch.nan)}
    with pytest.raises(ValueError, match=r"expected finite weights, got NaN or infinity in \['2.bias'\]"):
        checkpoints.align_state_dicts(module, state, bad, batches=[inputs(plain)])
    with pytest.raises(ValueError, match="group 'permutation' and no options"):
        checkpoints.align_state_dicts(module, state, state, batches=[inputs(plain)], group="full")
    with pytest.raises(ValueError, match="no options of match, got 'permutation' and \\['restarts'\\]"):
        checkpoints.align_state_dicts(module, state, state, batches=[inputs(plain)], restarts=2)
    net = Functional()
    with pytest.raises(ValueError, match=r"read by an nn.Linear or nn.Conv module, \['h1'\] are not"):
        checkpoints.align_state_dicts(net, net.state_dict(), net.state_dict(), batches=[torch.ones(3, 2)])
