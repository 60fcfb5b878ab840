"""Weight matching against a slow transcription of the paper's algorithm, and what it must find and refuse."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from _helpers import generator, linked_spec
from _helpers import normal_networks as networks
from scipy.optimize import linear_sum_assignment

import weightspace as ws
from weightspace.align import distance, match
from weightspace.align._reference import match_one
from weightspace.align.solver import _assignment, _descent, _tensors
from weightspace.align.solver._problem import matching_problem

CHAIN = ws.siren(2, 7, 5, 6, 2, omega=2.0)
RESIDUAL = linked_spec(ws.Axis("a", 5, "relu"), ws.Axis("b", 4, "tanh"))


@pytest.mark.parametrize("name", ["chain", "residual", "convolution"])
def test_same_result_as_the_paper_algorithm(name: str, conv_spec: ws.NetSpec) -> None:
    spec = {"chain": CHAIN, "residual": RESIDUAL, "convolution": conv_spec}[name]
    a, b = networks(spec, 8, 1), networks(spec, 8, 2)
    found = match(a, b)
    for i in range(8):
        slow = match_one(a[i], b[i])
        path = [float(distance(a[i], match_one(a[i], b[i], max_sweeps=n).act(b[i]))) for n in range(1, 6)]
        path = [float(distance(a[i], b[i])), *path, float(distance(a[i], slow.act(b[i])))]
        assert np.all(np.diff(path) <= 1e-9)
        assert path[-1] < path[0]
        assert float(distance(a, found.act(b))[i]) == pytest.approx(path[-1], rel=1e-10)
        for axis, order in slow.perm.items():
            assert found.perm[axis][i].equal(order[0])


def test_the_reference_is_a_local_optimum() -> None:
    """By trying every exchange of two neurons, on one axis at a time."""
    a, b = networks(RESIDUAL, 4, 1), networks(RESIDUAL, 4, 2)
    for i in range(4):
        found = match_one(a[i], b[i])
        reached = float(distance(a[i], found.act(b[i])))
        for axis in RESIDUAL.hidden:
            for one, two in itertools.combinations(range(axis.size), 2):
                perm = torch.arange(axis.size)
                perm[one], perm[two] = two, one
                g = ws.Symmetry(RESIDUAL, 1, {axis.name: perm[None]}) @ found
                assert float(distance(a[i], g.act(b[i]))) >= reached - 1e-9
                worse = ws.Symmetry(RESIDUAL, 1, {axis.name: perm[None]})
        assert float(distance(a[i], worse.act(b[i]))) > reached  # negative control


@pytest.mark.parametrize("spec", [CHAIN, RESIDUAL], ids=["chain", "residual"])
def test_objective_never_increases(spec: ws.NetSpec) -> None:
    a, b = networks(spec, 20, 3), networks(spec, 20, 4)
    for group in ("permutation", "signed") if spec is CHAIN else ("permutation",):
        before = distance(a, b)
        for sweeps in range(1, 6):
            after = distance(a, match(a, b, group=group, max_sweeps=sweeps).act(b))
            assert bool((after <= before + 1e-9).all())
            before = after
        assert bool((before < distance(a, b)).all())


@pytest.mark.parametrize("group", ["permutation", "signed"])
def test_finds_a_planted_element_exactly(group: str, dtype: torch.dtype, device: torch.device) -> None:
    a = networks(ws.siren(2, 9, 8, 1, omega=2.0), 10, 5, dtype).to(device)
    a.view("0.weight").mul_(300)  # a first layer that tells its neurons apart, so that descent cannot stop early
    planted = ws.Symmetry.sample(a.spec, batch=10, generator=generator(), group=group, dtype=dtype)
    b = planted.act(a)
    found = match(a, b, group=group)
    undo = planted.to(device).inverse()
    for name, perm in found.perm.items():
        assert perm.device.type == device.type
        assert perm.equal(undo.perm[name])
        if group == "signed":
            assert found.scale[name].equal(undo.scale[name])
    assert found.act(b).flat.equal(a.flat)


def test_signed_is_the_best_element_of_the_whole_group_on_one_axis() -> None:
    """With one hidden axis of three neurons all 48 signed permutations can be tried."""
    for activation in ("tanh", "gaussian"):
        spec = ws.mlp(2, 3, 2, activation=activation)
        a, b = networks(spec, 6, 6), networks(spec, 6, 7)
        best = torch.full((6,), torch.inf, dtype=torch.float64)
        for perm in torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]):
            for code in range(8):
                sign = torch.tensor([1.0 - 2 * (code >> i & 1) for i in range(3)], dtype=torch.float64)
                g = ws.Symmetry(spec, 6, {"h1": perm.expand(6, 3)}, {"h1": sign.expand(6, 3)})
                best = torch.minimum(best, distance(a, g.act(b)))
        torch.testing.assert_close(distance(a, match(a, b, group="signed").act(b)), best)
        assert bool((distance(a, match(a, b).act(b)) >= best - 1e-9).all())
        assert float(distance(a, match(a, b).act(b)).sum()) > float(best.sum()) + 1e-6


def test_keeps_the_function_and_the_inputs() -> None:
    a, b = networks(CHAIN, 5, 1), networks(CHAIN, 5, 2)
    x = 2 * torch.rand(9, 2, generator=generator(), dtype=torch.float64) - 1
    kept = a.flat.clone(), b.flat.clone()
    for group in ("permutation", "signed"):
        moved = match(a, b, group=group).act(b)
        torch.testing.assert_close(ws.evaluate(moved, x), ws.evaluate(b, x))
    assert a.flat.equal(kept[0])
    assert b.flat.equal(kept[1])
    assert (a.flat._version, b.flat._version) == (0, 0)


def test_a_pair_is_matched_alike_alone_and_in_a_batch() -> None:
    a, b = networks(CHAIN, 40, 1), networks(CHAIN, 40, 2)
    together = match(a, b)
    for i in (0, 17, 39):
        alone = match(a[i], b[i])
        assert all(alone.perm[name][0].equal(together.perm[name][i]) for name in alone.perm)


def test_one_target_for_all() -> None:
    a, b = networks(CHAIN, 1, 1), networks(CHAIN, 4, 2)
    wide = a.replace(a.flat.expand(4, -1).contiguous())
    assert match(a, b).act(b).flat.equal(match(wide, b).act(b).flat)
    assert distance(a, b).equal(distance(wide, b))


def test_ties_leave_networks_where_they_are() -> None:
    spec = ws.siren(2, 6, 6, 1)
    zero = ws.Weights(torch.zeros(3, spec.num_params), spec)
    same = networks(spec, 3, 1, torch.float32)
    for a, b in ((zero, zero), (zero, same), (same, same)):
        assert match(a, b).act(b).flat.equal(b.flat)
        assert match(a, b, group="signed").act(b).flat.equal(b.flat)


def test_random_order_follows_its_generator() -> None:
    a, b = networks(CHAIN, 12, 1), networks(CHAIN, 12, 2)
    results = [match(a, b, generator=generator(seed)).act(b).flat for seed in (0, 0, 1)]
    assert results[0].equal(results[1])
    assert not results[0].equal(results[2])


def test_threads_do_not_change_the_result() -> None:
    score = torch.randn(64, 6, 6, generator=generator())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = _assignment.assign(score)
        torch.set_num_threads(2)
        two = _assignment.assign(score)
    finally:
        torch.set_num_threads(threads)
    assert one.equal(two)
    assert one[5].tolist() == linear_sum_assignment(score[5].numpy(), maximize=True)[1].tolist()


def test_no_networks_and_no_hidden_axis() -> None:
    assert len(match(networks(CHAIN, 0, 1), networks(CHAIN, 0, 2))) == 0
    linear = networks(ws.mlp(2, 3), 4, 1)
    assert match(linear, linear).act(linear).flat.equal(linear.flat)


def test_half_precision_and_gradients() -> None:
    a, b = (networks(CHAIN, 3, seed, torch.float32).to(torch.bfloat16) for seed in (1, 2))
    assert match(a, b, group="signed").act(b).dtype == torch.bfloat16
    b = networks(CHAIN, 3, 2)
    b.flat.requires_grad_()
    a = networks(CHAIN, 3, 1)
    distance(a, match(a, b).act(b)).sum().backward()
    assert b.flat.grad is not None


@pytest.mark.parametrize("use", [match, distance])
def test_pairs_that_do_not_fit_are_refused(use) -> None:
    a = networks(CHAIN, 4, 1)
    for b, text in (
        (networks(RESIDUAL, 4, 1), "networks of one spec"),
        (networks(CHAIN, 3, 1), r"expected pairs, .*got 4 and 3"),
        (networks(CHAIN, 4, 1, torch.float32), "one dtype and device"),
        (a.replace(a.flat[:, :, None]), "features of shape"),
    ):
        with pytest.raises(ValueError, match=text):
            use(a, b)
    with pytest.raises(TypeError, match="expected Weights, got Tensor"):
        use(a, a.flat)


def test_bad_weights_and_groups_are_refused() -> None:
    a, b = networks(CHAIN, 4, 1), networks(CHAIN, 4, 2)
    b.flat[2, 5] = torch.nan
    with pytest.raises(ValueError, match=r"b: expected finite weights, got NaN or infinity in networks \[2\]"):
        match(a, b)
    large = a.replace(a.flat.float() * 1e18)
    with pytest.raises(ValueError, match=r"a: expected weights below .*, got .*scale or drop them"):
        match(large, large)
    with pytest.raises(ValueError, match=r"group: expected one of \[.*'full'\], got 'affine'"):
        match(a, a, group="affine")
    with pytest.raises(ValueError, match=r"'signed'.*commute with signs.*got .*relu"):
        match(networks(RESIDUAL, 2, 1), networks(RESIDUAL, 2, 2), group="signed")
    with pytest.raises(ValueError, match="max_sweeps: expected at least 1, got 0"):
        match(a, a, max_sweeps=0)
    with pytest.raises(TypeError, match="max_sweeps: expected a whole number, got 'a'"):
        match(a, a, max_sweeps="a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"generator: expected a torch.Generator, got int"):
        match(a, a, generator=3)  # type: ignore[arg-type]


def test_an_assignment_that_is_not_the_best_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with a greedy assignment the objective is not that of the paper's algorithm."""
    a, b = networks(CHAIN, 8, 1), networks(CHAIN, 8, 2)
    best = distance(a, match(a, b).act(b)).sum()

    def last_first(score: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.arange(score.shape[1]).flip(0).repeat(len(score), 1)

    monkeypatch.setattr(_tensors, "assign", last_first)
    found = _descent.descend_tensors(a, b, matching_problem(CHAIN, "permutation"), torch.arange(3).repeat(100, 1))
    assert float(distance(a, found.act(b)).sum()) > float(best) + 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_known_bug_matching_runs_where_the_tensors_are() -> None:
    a, b = networks(CHAIN, 8, 1).to("cuda"), networks(CHAIN, 8, 2).to("cuda")
    g = match(a, b)
    assert all(perm.is_cuda for perm in g.perm.values())
    assert g.act(b).flat.cpu().equal(match(a.to("cpu"), b.to("cpu")).act(b.to("cpu")).flat)


class ResidualMLP(torch.nn.Module):
    """Two residual blocks between linear ends."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Linear(4, width), torch.nn.Linear(width, 2)
        self.up = torch.nn.ModuleList(torch.nn.Linear(width, inner) for _ in range(2))
        self.down = torch.nn.ModuleList(torch.nn.Linear(inner, width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        return self.head(x)


@pytest.mark.parametrize(
    ("width", "inner", "plain", "restarts"), [(3, 5, False, 16), (3, 5, True, 64), (30, 50, True, 16)]
)
def test_known_permutations_of_residual_networks_are_found(width: int, inner: int, plain: bool, restarts: int) -> None:
    """All of 100, also where ends of ones say nothing of the order of the stream; without restarts not all."""
    spec = ws.spec_of(ResidualMLP(width, inner), torch.zeros(1, 4))
    a = ws.testing.random_weights(spec, 100, generator=generator())
    if plain:
        for name in ("embed.weight", "head.weight"):
            a.view(name).fill_(1.0)
        a.view("embed.bias").zero_()
    b = ws.Symmetry.sample(spec, batch=100, generator=generator(1), group="permutation").act(a)
    once = match(a, b)
    assert not bool((ws.align.distance(a, once.act(b)) == 0).all())
    found = match(a, b, restarts=restarts, generator=generator(2))
    assert bool((ws.align.distance(a, found.act(b)) == 0).all())


def test_restarts_leave_networks_alone_that_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair that lies on its partner is not started again, and the others end as they would alone."""
    from weightspace.align import _matching

    a = networks(RESIDUAL, 6, 1)
    moved = ws.Symmetry.sample(RESIDUAL, batch=3, generator=generator(), group="permutation", dtype=torch.float64).act(
        a[:3]
    )
    b = ws.Weights.cat([moved, networks(RESIDUAL, 3, 2)])
    sizes, whole = [], _matching.descend
    monkeypatch.setattr(
        _matching, "descend", lambda *args, **named: (sizes.append(len(args[1])), whole(*args, **named))[1]
    )
    found = match(a, b, restarts=30, generator=generator(3))
    reached = ws.align.distance(a, found.act(b))
    assert bool((reached[:3] == 0).all())
    assert sizes[0] == 6
    assert min(sizes) == 3
    best = torch.full((6,), torch.inf, dtype=torch.float64)
    monkeypatch.undo()
    for restarts in (0, 5, 30):  # more of them never lead away
        now = ws.align.distance(a, match(a, b, restarts=restarts, generator=generator(3)).act(b))
        assert bool((now <= best).all())
        best = now
    assert torch.equal(best, reached)
