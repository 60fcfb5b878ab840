"""The full group: signs, phases and positive scales in closed form, and two implementations of the descent."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from _helpers import generator, linked_spec
from _helpers import normal_networks as networks
from scipy.optimize import linear_sum_assignment, minimize_scalar

import weightspace as ws
from weightspace.align import _matching, align_to, distance, match
from weightspace.align.solver import _assignment, _descent, _products, _tensors
from weightspace.align.solver._problem import NeuronGroup, matching_problem, period_costs
from weightspace.align.solver._tensors import best_scale, best_scales, scale_value

SIREN = ws.siren(2, 7, 5, 6, 2, omega=2.0)
SPECS = {
    "siren": SIREN,
    "relu": ws.mlp(2, 7, 5, 2, activation="relu"),
    "mixed": ws.mlp(2, 6, 5, 7, 4, 1, activation=["sine", "leaky_relu", "gelu", "gaussian"]),
    "cosine": ws.mlp(3, 6, 5, 2, activation=["cosine", "tanh"]),
    "no bias": ws.mlp(2, 6, 5, 2, activation="sine", bias=False),
    "one neuron": ws.siren(2, 1, 3, 1, omega=2.0),
    "residual": linked_spec(ws.Axis("a", 5, "relu"), ws.Axis("b", 4, "sine", 3.0)),
}
NAMES = [*SPECS, "convolution"]


@pytest.fixture
def spec(request: pytest.FixtureRequest, conv_spec: ws.NetSpec) -> ws.NetSpec:
    return conv_spec if request.param == "convolution" else SPECS[request.param]


def orders(spec: ws.NetSpec) -> torch.Tensor:
    return torch.arange(len(spec.hidden)).repeat(100, 1)


def both(a: ws.Weights, b: ws.Weights, group: str = "full") -> tuple[ws.Symmetry, ws.Symmetry]:
    problem = matching_problem(b.spec, group)
    assert _descent.suits_compiled_code(problem)
    return tuple(f(a, b, problem, orders(b.spec)) for f in (_descent.descend_compiled, _descent.descend_tensors))


# --- one pair of wide networks


def _move(descent: _tensors.TensorDescent, number: int, count: int) -> None:
    """Move the first neurons of an axis at random, as the group allows."""
    axis, gen = descent.problem.axes[number], generator(number + count)
    drawn = ws.Symmetry.sample(descent.problem.spec, batch=1, generator=gen, dtype=torch.float64)
    perm = torch.arange(axis.size)
    perm[:count] = torch.randperm(count, generator=gen)
    few = torch.arange(axis.size) < count
    scale, shift = drawn.scale.get(axis.name), drawn.shift.get(axis.name)
    scale = None if scale is None else torch.where(few, scale, 1.0)
    phases = axis.group in (NeuronGroup.ODD_PHASE, NeuronGroup.EVEN_PHASE)
    shift = torch.where(few, shift, 0.0) if phases and shift is not None else None
    descent._move(number, torch.zeros(1, dtype=torch.long), perm[None], scale, shift)


@pytest.mark.parametrize("spec", NAMES, indirect=True)
def test_kept_products_stay_those_of_the_moved_network(spec: ws.NetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_products, "BLOCK", 8)  # several blocks in each of these small networks
    monkeypatch.setattr(_tensors, "BLOCK", 8)
    a, b = (networks(spec, 1, seed).to(torch.float64) for seed in (1, 2))
    problem = matching_problem(spec, "full")
    descent = _tensors.TensorDescent(a, b.clone(), problem)
    assert descent.products is not None
    kept = 0
    for count in (1, 2, 100, 2, 1):
        for number, axis in enumerate(problem.axes):
            for other in range(len(problem.axes)):
                descent.products.of(other)
            _move(descent, number, min(count, axis.size))
            kept += len(descent.products.kept)
    expected = descent.symmetry().act(b)
    torch.testing.assert_close(descent.moved.flat, expected.flat, atol=1e-9, rtol=1e-9)
    for number, axis in enumerate(problem.axes):
        found, fresh = descent.products.of(number), _products.fresh_products(axis, a, descent.moved, torch.arange(1))
        for name in ("inner", "outer", "bias_a", "bias_b"):
            torch.testing.assert_close(getattr(found, name), getattr(fresh, name), atol=1e-8, rtol=1e-8)
        if axis.group == NeuronGroup.SCALE:
            torch.testing.assert_close(found.norm_in, fresh.norm_in, atol=1e-8, rtol=1e-8)
            torch.testing.assert_close(found.norm_out, fresh.norm_out, atol=1e-8, rtol=1e-8)
    most = 5 * len(problem.axes) * 2 * len(problem.axes)
    assert kept < most or len(problem.axes) == 1, "a large move forgets what it would have to subtract and add"


@pytest.mark.parametrize("group", ["permutation", "full"])
@pytest.mark.parametrize("spec", NAMES, indirect=True)
def test_one_pair_alone_ends_where_it_does_in_a_batch(spec: ws.NetSpec, group: str) -> None:
    a, b = (networks(spec, 6, seed).to(torch.float64) for seed in (1, 2))
    problem = matching_problem(spec, group)
    together = _descent.descend_tensors(a, b, problem, orders(spec))
    alone = [_descent.descend_tensors(a[i], b[i], problem, orders(spec)) for i in range(6)]
    torch.testing.assert_close(ws.Symmetry.cat(alone).act(b).flat, together.act(b).flat, atol=1e-9, rtol=1e-9)


def test_wide_networks_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_descent, "_WIDE", 5)
    monkeypatch.setattr(_descent, "_MOST_PRODUCTS", 0)
    seen = []
    right = _descent.descend_tensors
    monkeypatch.setattr(
        _descent, "descend_tensors", lambda a, b, *rest, **more: seen.append(len(b)) or right(a, b, *rest, **more)
    )
    a, b = (networks(SIREN, 3, seed) for seed in (1, 2))
    found = match(a, b, group="full")
    assert seen == [1, 1, 1]
    expected = distance(a, right(a, b, matching_problem(SIREN, "full"), orders(SIREN)).act(b))
    torch.testing.assert_close(distance(a, found.act(b)), expected)
    one = match(a[0], b, group="full")
    assert len(one) == 3


@pytest.mark.parametrize("group", ["permutation", "full"])
@pytest.mark.parametrize("spec", NAMES, indirect=True)
def test_a_network_may_be_moved_in_its_own_memory(spec: ws.NetSpec, group: str) -> None:
    a, b = (networks(spec, 1, seed).to(torch.float64) for seed in (1, 2))
    own = b.clone()
    g, moved = _matching.move_onto(a, own, group=group)
    assert moved is own
    expected = match(a, b, group=group).act(b)
    torch.testing.assert_close(moved.flat, expected.flat, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(g.act(b).flat, expected.flat, atol=1e-12, rtol=1e-12)
    costs = {spec.params[0].name: 4.0}
    g, moved = _matching.move_onto(a, b.clone(), group=group, costs=costs)
    torch.testing.assert_close(moved.flat, match(a, b, group=group, costs=costs).act(b).flat)


# --- assignment


def hard_costs(kind: str, size: int) -> torch.Tensor:
    score = torch.randn(20, size, size, generator=generator(size), dtype=torch.float64)
    if kind == "ties":
        return (score * 2).round()
    if kind == "zero":
        return score * 0
    if kind == "ill-scaled":
        return score * 10.0 ** (12 * torch.rand(20, size, 1, generator=generator(), dtype=torch.float64) - 6)
    if kind == "low rank":
        return score[:, :, :1] @ score[:, :1] + 1e6 * score[:, :1]
    return score


@pytest.mark.parametrize("kind", ["random", "ties", "zero", "ill-scaled", "low rank"])
@pytest.mark.parametrize("size", [1, 2, 3, 9, 33, 70])
def test_assignments_are_as_good_as_scipys(kind: str, size: int, dtype: torch.dtype) -> None:
    score = hard_costs(kind, size).to(dtype)
    columns = _assignment.assign(score)
    assert columns.sort(1).values.equal(torch.arange(size).expand(20, -1))
    found = score.double().gather(2, columns[:, :, None])[:, :, 0].sum(1)
    for i in range(20):
        rows, best = linear_sum_assignment(score[i].double().numpy(), maximize=True)
        expected = float(score[i].double()[rows, best].sum())
        span = float(score[i].max() - score[i].min())
        assert float(found[i]) >= expected - 1e-12 * max(span, 1e-300) * size**2
    assert _assignment.assign(score).equal(columns)


def test_no_matrices() -> None:
    assert _assignment.assign(torch.zeros(0, 4, 4)).shape == (0, 4)
    assert _assignment.assign(torch.zeros(2, 4, 4, dtype=torch.bfloat16)).dtype == torch.int64


# --- positive scales


def test_the_best_scale_is_exact() -> None:
    """Against a fine search over log s; some of the curves have two maxima."""
    from weightspace.align.solver import _compiled_scales

    gen, two_peaks = generator(), 0
    p, q = 6 * torch.randn(2, 400, generator=gen, dtype=torch.float64)
    u, v = torch.rand(2, 400, generator=gen, dtype=torch.float64) * 10.0 ** torch.randint(
        -2, 3, (2, 400), generator=gen
    )
    found = best_scale(p, q, u, v)
    grid = torch.exp(torch.linspace(-12, 12, 4001, dtype=torch.float64))[:, None]
    for i in range(400):
        args = (p[i], q[i], u[i], v[i])
        curve = scale_value(grid[:, 0], *args)
        two_peaks += int(((curve[1:-1] > curve[:-2]) & (curve[1:-1] > curve[2:])).sum()) > 1
        start = float(grid[curve.argmax(), 0])
        sharp = minimize_scalar(
            lambda s, a=args: -float(scale_value(torch.tensor(s), *a)),
            bounds=(0.9 * start, 1.1 * start),
            method="bounded",
            options={"xatol": 1e-12},
        )
        value = float(scale_value(found[i], *args))
        assert value >= -sharp.fun - 1e-9 * max(1.0, abs(sharp.fun))
        assert _compiled_scales.best_scale(*map(float, args)) == pytest.approx(float(found[i]), rel=1e-7)
    assert two_peaks > 3


def test_scales_of_neurons_without_weights_stay_finite() -> None:
    from weightspace.align.solver import _compiled_scales

    for p, q, u, v, s in (
        (0, 0, 0, 0, 1),
        (0, 2, 0, 4, 2),
        (0, -1, 0, 4, 2**16),
        (3, 0, 1, 0, 3),
        (-3, 0, 1, 0, 2**-16),
    ):
        args = [torch.tensor(float(x), dtype=torch.float64) for x in (p, q, u, v)]
        assert float(best_scale(*args)) == s
        assert _compiled_scales.best_scale(*map(float, (p, q, u, v))) == s


@pytest.mark.parametrize("threads", [1, 2])
def test_scales_of_many_neurons_are_those_of_tensors(threads: int, dtype: torch.dtype) -> None:
    """Compiled code on the host, over the rows of all pairs; the last row alone tells a wrong order."""
    before, gen = torch.get_num_threads(), generator()
    p, q = (3 * torch.randn(3, 9, 9, generator=gen, dtype=torch.float64).to(dtype) for _ in range(2))
    u, v = (torch.rand(3, 1, 9, generator=gen, dtype=torch.float64).to(dtype) for _ in range(2))
    u[1, 0, 3], v[2, 0, 4] = 0, 0
    try:
        torch.set_num_threads(threads)
        found = best_scales(p.mT.contiguous().mT, q, u, v)
    finally:
        torch.set_num_threads(before)
    assert found.dtype == dtype
    torch.testing.assert_close(found, best_scale(p, q, u, v).to(dtype))
    assert not torch.allclose(best_scales(p.flip(1), q, u, v), found)  # negative control


# --- the descent


@pytest.mark.parametrize("spec", NAMES, indirect=True)
@pytest.mark.parametrize("group", ["permutation", "full"])
def test_compiled_code_and_tensors_find_the_same(
    spec: ws.NetSpec, group: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tensors, "best_scales", lambda *x: best_scale(*x).to(x[0].dtype))  # share no code
    a, b = networks(spec, 12, 1, dtype), networks(spec, 12, 2, dtype)
    one, two = both(a, b, group)
    first, second = (distance(a, g.act(b)).double() for g in (one, two))
    same = torch.isclose(first, second, rtol=1e-4 if dtype == torch.float32 else 1e-8)
    assert int(same.sum()) >= (11 if dtype == torch.float32 else 12)  # rounding may send a near tie elsewhere
    for kind in ("perm", "scale", "shift"):
        assert set(getattr(one, kind)) == set(getattr(two, kind))
        for name, value in getattr(one, kind).items():
            assert value.dtype == getattr(two, kind)[name].dtype
            if dtype == torch.float64:
                torch.testing.assert_close(value, getattr(two, kind)[name], rtol=1e-6, atol=0)
    ws.Symmetry(spec, 12, one.perm, one.scale, one.shift)  # the numbers of a group element


@pytest.mark.parametrize("spec", NAMES, indirect=True)
def test_distance_falls_with_every_sweep_and_beats_permutations(spec: ws.NetSpec) -> None:
    a, b = networks(spec, 20, 3), networks(spec, 20, 4)
    before = distance(a, b)
    for sweeps in (1, 2, 3, 8):
        after = distance(a, match(a, b, group="full", max_sweeps=sweeps).act(b))
        assert bool((after <= before * (1 + 1e-12)).all())
        before = after
    assert float(before.mean()) < float(distance(a, match(a, b).act(b)).mean()) + 1e-12


@pytest.mark.parametrize("name", ["siren", "relu", "mixed", "cosine", "no bias"])
def test_keeps_the_function(name: str) -> None:
    spec = SPECS[name]
    w = ws.testing.random_weights(spec, 8, generator=generator(), dtype=torch.float64)
    a, b = w[:4], w[4:]
    for seed in (None, 0):
        g = match(a, b, group="full", generator=None if seed is None else generator(seed))
        ws.testing.assert_same_function(b, g.act(b))
    broken = ws.Symmetry(spec, 4, {n: p.roll(1, 1) for n, p in g.perm.items()}, g.scale, g.shift).act(b)
    wrong = broken.replace(broken.flat + 0.1 * (g.act(b).flat - b.flat))
    with pytest.raises(AssertionError):
        ws.testing.assert_same_function(b, wrong)


def test_phases_are_there_only_where_a_bias_carries_them() -> None:
    a, b = (networks(SPECS["no bias"], 4, seed) for seed in (1, 2))
    assert match(a, b, group="full").shift == {}
    g = match(*(networks(SPECS["mixed"], 4, seed) for seed in (1, 2)), group="full")
    assert (set(g.shift), set(g.scale)) == ({"h1"}, {"h1", "h2", "h4"})


@pytest.mark.parametrize("name", ["siren", "relu", "cosine", "mixed"])
def test_finds_a_planted_element(name: str, dtype: torch.dtype, device: torch.device) -> None:
    spec = SPECS[name]
    a = ws.testing.random_weights(spec, 6, generator=generator(5), dtype=dtype).to(device)
    g = ws.Symmetry.sample(spec, batch=6, generator=generator(), dtype=dtype, max_shift=3)
    planted = g.to(device).act(a)
    found = match(a, planted, group="full", restarts=10, generator=generator(1))
    left = distance(a, found.act(planted)) / a.flat.square().sum(1)
    assert int((left < 1e-5).sum()) >= 3
    assert bool((distance(a, found.act(planted)) <= distance(a, planted)).all())


@pytest.mark.parametrize("activation", ["sine", "cosine"])
def test_best_of_the_whole_group_on_one_axis(activation: str) -> None:
    """With one hidden axis of three neurons all permutations, signs and a range of phases can be tried."""
    spec = ws.mlp(2, 3, 2, activation=activation)
    a, b = networks(spec, 5, 6), networks(spec, 5, 7)
    b.view("0.bias").mul_(4)
    best = torch.full((5,), torch.inf, dtype=torch.float64)
    neuron = list(itertools.product((1.0, -1.0), (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)))
    for perm in itertools.permutations(range(3)):
        worst = []
        for i in range(3):  # given the order, neurons are independent: the best of each is the best of all
            values = []
            for s, k in neuron:
                scale, shift = torch.ones(5, 3).double(), torch.zeros(5, 3).double()
                scale[:, i], shift[:, i] = s, k
                g = ws.Symmetry(spec, 5, {"h1": torch.tensor(perm).expand(5, 3)}, {"h1": scale}, {"h1": shift})
                values.append(distance(a, g.act(b)))
            still = ws.Symmetry(spec, 5, {"h1": torch.tensor(perm).expand(5, 3)})
            worst.append(torch.stack(values).amin(0) - distance(a, still.act(b)))
        best = torch.minimum(best, distance(a, still.act(b)) + sum(worst))
    torch.testing.assert_close(distance(a, match(a, b, group="full").act(b)), best)


@pytest.mark.parametrize("name", ["siren", "relu"])
def test_costs_are_those_of_the_distance(name: str) -> None:
    spec = SPECS[name]
    a, b = networks(spec, 10, 1), networks(spec, 10, 2)
    costs = {"0.bias": 25.0, "h2": 0.04, "out": 3.0}
    by_hand = sum(
        {"0.bias": 25.0, "1.weight": 0.04, "1.bias": 0.04}.get(n, 3.0 if spec.param(n).produces == "out" else 1.0)
        * (x - dict(b.items())[n]).square().flatten(1).sum(1)
        for n, x in a.items()
    )
    torch.testing.assert_close(distance(a, b, costs=costs), by_hand)
    weighted, plain = match(a, b, group="full", costs=costs), match(a, b, group="full")
    ours, other = (distance(a, g.act(b), costs=costs).mean() for g in (weighted, plain))
    assert float(ours) < float(other)
    problem = matching_problem(spec, "full", _matching.cost_roots(spec, costs))
    tensors = _descent.descend_tensors(a, b, problem, orders(spec))
    torch.testing.assert_close(distance(a, tensors.act(b), costs=costs), distance(a, weighted.act(b), costs=costs))


def test_period_costs_measure_biases_in_periods() -> None:
    spec = ws.mlp(2, 4, 4, 1, activation=["sine", "relu"])
    assert period_costs(spec) == {"0.bias": pytest.approx(0.25 / np.pi**2)}
    siren = ws.siren(2, 4, 1, omega=30.0)
    zero, half = (ws.Weights(torch.zeros(1, siren.num_params), siren) for _ in range(2))
    half.view("0.bias").fill_(np.pi / 30)
    torch.testing.assert_close(distance(zero, half, costs="period"), torch.tensor([4 * 0.25]))
    a, b = networks(spec, 6, 1), networks(spec, 6, 2)
    assert distance(a, b, costs="period").equal(distance(a, b, costs=period_costs(spec)))
    assert not distance(a, b, costs="period").equal(distance(a, b))
    one, two = (match(a, b, group="full", costs=costs).act(b).flat for costs in ("period", period_costs(spec)))
    assert one.equal(two)


def test_restarts_keep_the_best() -> None:
    for group in ("permutation", "signed", "full"):
        a, b = networks(SIREN, 20, 1), networks(SIREN, 20, 2)
        reached = [distance(a, match(a, b, group=group, restarts=r, generator=generator()).act(b)) for r in (0, 3, 3)]
        assert bool((reached[1] <= reached[0]).all())
        assert float(reached[1].mean()) < float(reached[0].mean())
        assert reached[1].equal(reached[2])


def test_restarts_draw_signs_wherever_the_group_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[ws.Weights] = []

    def note(a: ws.Weights, b: ws.Weights, problem, orders) -> ws.Symmetry:
        starts.append(b)
        return ws.Symmetry.identity(b.spec, batch=len(b))

    monkeypatch.setattr(_matching, "descend", note)
    for name, group, signed in (
        ("siren", "full", {"h1", "h2", "h3"}),
        ("siren", "signed", {"h1", "h2", "h3"}),
        ("siren", "permutation", set()),
        ("mixed", "full", {"h1", "h4"}),
        ("relu", "full", set()),
    ):
        starts.clear()
        w = networks(SPECS[name], 6, 1)
        one = w.replace(torch.ones_like(w.flat))  # permutations move nothing
        match(one.replace(2 * one.flat), one, group=group, restarts=1, generator=generator())
        assert starts[0].flat.equal(one.flat)
        turned = {x.name for i, x in enumerate(one.spec.hidden) if bool((starts[1].view(f"{i}.bias") < 0).any())}
        assert turned == signed
        assert bool((starts[1].flat.abs() == 1).all())  # and no scales


def test_chunks_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether one network stands for all or each has its own, and with all that is drawn."""
    w, other = networks(SIREN, 40, 1), networks(SIREN, 40, 2)

    def found() -> list[ws.Symmetry]:
        drawn = {"restarts": 2, "generator": generator(4)}
        return [
            match(w[3], w, group="full"),
            match(other, w, group="full", costs="period"),
            match(other, w, group="full", **drawn),
            match(other.to(torch.bfloat16), w.to(torch.bfloat16), group="full"),
            align_to(w, w[3])[1],
        ]

    whole, calls, descend = found(), [], _matching.descend
    monkeypatch.setattr(_matching, "CHUNK", 7 * SIREN.num_params)
    monkeypatch.setattr(_matching, "descend", lambda a, b, *rest: calls.append(len(b)) or descend(a, b, *rest))
    for one, many in zip(whole, found(), strict=True):
        assert len(many) == 40
        for kind in ("perm", "scale", "shift"):
            assert all(v.equal(getattr(one, kind)[n]) for n, v in getattr(many, kind).items())
    assert set(calls) == {7, 5}
    assert len(align_to(w[:0], w[3])[1]) == 0


def test_groups_are_each_within_the_next() -> None:
    mixed = SPECS["mixed"]
    a, b = networks(mixed, 10, 1), networks(mixed, 10, 2)
    g = {group: match(a, b, group=group) for group in ("none", "permutation", "scaled", "full")}
    assert g["none"].act(b).flat.equal(b.flat)
    assert (set(g["permutation"].scale), set(g["permutation"].shift)) == (set(), set())
    assert (set(g["scaled"].scale), set(g["scaled"].shift)) == ({"h1", "h2", "h4"}, set())
    reached = [float(distance(a, x.act(b)).mean()) for x in g.values()]
    assert reached == sorted(reached, reverse=True)
    assert len(set(reached)) == 4
    siren = networks(SIREN, 5, 1), networks(SIREN, 5, 2)
    one, two = (match(*siren, group=group).act(siren[1]).flat for group in ("signed", "scaled"))
    assert one.equal(two)  # no scales commute with a sine


@pytest.mark.parametrize("spec", NAMES, indirect=True)
def test_ties_are_the_same_on_every_run_and_with_any_threads(spec: ws.NetSpec) -> None:
    zero = ws.Weights(torch.zeros(40, spec.num_params), spec)
    rough = ws.Weights(networks(spec, 40, 1, torch.float32).flat.round(), spec)
    other = ws.Weights(networks(spec, 40, 2, torch.float32).flat.round(), spec)
    for a, b in ((zero, zero), (rough, rough)):
        assert match(a, b, group="full").act(b).flat.equal(b.flat)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = match(rough, other, group="full").act(other).flat
        torch.set_num_threads(2)
        two = match(rough, other, group="full").act(other).flat
    finally:
        torch.set_num_threads(threads)
    assert one.equal(two)


def test_wide_axes_go_by_tensors() -> None:
    spec = ws.siren(8, 400, 400, 1, omega=2.0)
    assert not _descent.suits_compiled_code(matching_problem(spec, "full"))
    a = networks(spec, 1, 1, torch.float32)
    a.view("0.weight").mul_(30)
    b = ws.Symmetry.sample(spec, batch=1, generator=generator(), group="scaled").act(a)
    assert float(distance(a, match(a, b, group="full").act(b))) < 1e-2 * float(distance(a, b))


def test_ordinary_networks_of_half_precision_are_matched() -> None:
    """Their squares would leave float16, in which nothing is computed."""
    spec = ws.mlp(16, 64, 64, 4)
    a, b = (networks(spec, 2, seed).to(torch.float16) for seed in (1, 2))
    assert float(a.flat.abs().max()) > (65504 / (16 * spec.num_params)) ** 0.5
    x = torch.randn(9, 16, generator=generator(), dtype=torch.float64)
    for group in ("permutation", "full"):
        g = match(a, b, group=group)
        moved = g.act(b)
        assert moved.dtype == torch.float16
        assert bool((distance(a, moved) < distance(a, b)).all())
        assert distance(a, b).dtype == torch.float32
        wanted = ws.evaluate(b.to(torch.float64), x)
        error = (ws.evaluate(moved.to(torch.float64), x) - wanted).abs().max() / wanted.abs().max()
        assert float(error) < 0.01
    wide = match(a.to(torch.float32), b.to(torch.float32))
    assert all(perm.equal(match(a, b).perm[name]) for name, perm in wide.perm.items())


@pytest.mark.parametrize("part", ["incoming", "outgoing"])
def test_scales_of_half_precision_can_be_undone(part: str) -> None:
    """A neuron without incoming (outgoing) weights goes as far as there are numbers: 65,536 is none in float16."""
    spec = ws.mlp(2, 5, 3, 1)
    a, b = networks(spec, 4, 1), networks(spec, 4, 2)
    incoming, outgoing = ("0.weight", "0.bias"), ("1.weight",)
    gone, left = (incoming, outgoing) if part == "incoming" else (outgoing, incoming)
    for name in gone:
        (b.view(name) if name != "1.weight" else b.view(name).movedim(2, 1))[:, 1] = 0
    for name in left:  # what is left of it points away from every neuron of the targets
        a.view(name).abs_()
        (b.view(name) if name != "1.weight" else b.view(name).movedim(2, 1))[:, 1] = -1
    x = torch.randn(9, 2, generator=generator(), dtype=torch.float64)
    reached = 1.0
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        given = b.to(dtype)
        g = match(a.to(dtype), given, group="full")
        ws.Symmetry(spec, 4, g.perm, g.scale, g.shift)  # the numbers of a group element
        wanted = ws.evaluate(given.to(torch.float64), x)
        moved = g.act(given)
        for w in (moved, g.inverse().act(moved)):
            assert bool(w.flat.isfinite().all())
            found = ws.evaluate(w.to(torch.float64), x)
            torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05 * float(wanted.abs().max()))
        reached = max(reached, *(float(max(s.max(), 1 / s.min())) for s in g.scale.values()))
    assert reached >= 2.0**16  # in float32: the case is met


def test_a_network_that_half_precision_cannot_scale_keeps_its_function() -> None:
    spec = ws.mlp(2, 3, 2, 1)
    a, b = networks(spec, 2, 1).to(torch.float16), networks(spec, 2, 2).to(torch.float16)
    g = match(a, b, group="full")
    scale = {name: torch.full_like(value, 2.0**13, dtype=torch.float32) for name, value in g.scale.items()}
    b.view("0.weight")[1, 0] = 100.0
    found = _matching.cast_to(ws.Symmetry(spec, 2, g.perm, scale), b)
    for name, value in found.scale.items():
        assert value[:, 0].tolist() == [2.0**13, 1.0], name
    assert bool(found.act(b).flat.isfinite().all())


def test_bad_input_is_refused() -> None:
    w = networks(SIREN, 4, 1)
    big = w.to(torch.float32).replace(w.flat.float() * 1e9)
    for call, error, text in (
        (lambda: align_to(w, w), ValueError, "reference: expected one network, got 4"),
        (lambda: align_to(w.flat, w[0]), TypeError, "weights: expected Weights, got Tensor"),
        (lambda: align_to(w, w[0].to(torch.float32)), ValueError, "one dtype and device"),
        (lambda: match(w, w, restarts=2), ValueError, "restarts: expected a generator"),
        (lambda: match(w, w, restarts=-1), ValueError, "restarts: expected at least 0, got -1"),
        (lambda: match(w, w, costs={"h9": 1.0}), ValueError, r"costs: expected parameters .* got 'h9'"),
        (lambda: match(w, w, costs={"h1": 0.0}), ValueError, r"costs\['h1'\]: expected a positive cost, got 0.0"),
        (lambda: match(w, w, costs={"0.bias": 1e300}), ValueError, r"costs\['0.bias'\]: expected a cost from 1e-24 to"),
        (lambda: match(w, w, costs={"0.bias": 1e-300}), ValueError, r"got 1e-300; only ratios matter"),
        (lambda: match(big, big, costs={"h1": 1e20}), ValueError, "a: expected weights below .*scale or drop them"),
        (lambda: match(w, w, costs=[1.0]), TypeError, "costs: expected a mapping"),
        (lambda: match(w, w, costs="periods"), ValueError, "costs: expected 'period' or a mapping .* got 'periods'"),
    ):
        with pytest.raises(error, match=text):
            call()
    with pytest.raises(ValueError, match="size of at least 1, got 0"):
        ws.siren(2, 0, 1)
    with pytest.raises(ValueError, match="names axis 'h1' twice"):
        ws.NetSpec(
            (ws.Axis("in", 2), ws.Axis("h1", 3, "relu"), ws.Axis("out", 1)),
            (ws.Param("a", ("h1", "in")), ws.Param("b", ("h1", "h1")), ws.Param("c", ("out", "h1"))),
        )


def test_numba_loads_with_the_first_match() -> None:
    code = "import sys, weightspace; print('numba' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
