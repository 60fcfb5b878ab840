"""Heads of attention and linear axes: matched, in canonical form, and against slow references."""

from __future__ import annotations

import itertools

import pytest
import torch
from _helpers import attend, attention_spec, generator, networks
from torch import nn

import weightspace as ws
from weightspace.align.solver._heads import Sides, balance, head_problems, procrustes, solve_heads

SPEC = attention_spec()
RANK = ws.mlp(2, 7, 3, 5, 1, activation=("relu", "linear", "tanh"))
X = torch.linspace(-1, 1, 35, dtype=torch.float64).view(7, 5)


def _sample(spec: ws.NetSpec, batch: int, seed: int = 3, **options: object) -> ws.Symmetry:
    return ws.Symmetry.sample(spec, batch=batch, generator=generator(seed), dtype=torch.float64, **options)  # type: ignore


@pytest.mark.parametrize("group", ["permutation", "full"])
def test_planted_elements_are_found(group: str) -> None:
    a = networks(SPEC, 10)
    b = _sample(SPEC, 10, group=group).act(a)
    found = ws.align.match(a, b, group=group, restarts=8, generator=generator(5))  # type: ignore[arg-type]
    ws.Symmetry(SPEC, 10, found.perm, found.scale, found.shift, found.linear)  # it is an element
    torch.testing.assert_close(found.act(b).flat, a.flat, atol=1e-9, rtol=1e-9)
    assert bool(found.linear) == (group == "full")


def test_matching_two_networks_comes_closer_with_matrices() -> None:
    a, b = networks(SPEC, 10), networks(SPEC, 10, seed=2)
    before = ws.align.distance(a, b)
    reached = {}
    for group in ("permutation", "full"):
        g = ws.align.match(a, b, group=group)  # type: ignore[arg-type]
        reached[group] = ws.align.distance(a, g.act(b))
        torch.testing.assert_close(attend(g.act(b), X), attend(b, X), atol=1e-8, rtol=1e-8)
    assert bool((reached["permutation"] < before).all())
    assert bool((reached["full"] < reached["permutation"]).all())


def test_more_sweeps_never_lead_away() -> None:
    a, b = networks(SPEC, 10), networks(SPEC, 10, seed=2)
    reached = [ws.align.distance(a, ws.align.match(a, b, group="full", max_sweeps=n).act(b)) for n in (1, 2, 4, 30)]
    for earlier, later in itertools.pairwise(reached):
        assert bool((later <= earlier * (1 + 1e-9)).all())
    assert bool((reached[-1] < reached[0]).any())


@pytest.mark.parametrize("group", ["permutation", "full"])
def test_one_step_against_all_orders_of_heads(group: str) -> None:
    """The step on heads is the best over all their orders, each with the best matrix or order inside."""
    a, b = networks(SPEC, 1), networks(SPEC, 1, seed=2)
    (problem,) = head_problems(SPEC, group)  # type: ignore[arg-type]
    reached = float(ws.align.distance(a, solve_heads(a, b, problem).act(b)))
    best = float("inf")
    for heads in itertools.permutations(range(3)):
        perm, linear = {}, {}
        for axis in problem.axes:
            index = [h * axis.block_size + i for h in heads for i in range(axis.block_size)]
            perm[axis.name] = torch.tensor([index])
        moved = ws.Symmetry(SPEC, 1, perm).act(b)
        for axis, params in zip(problem.axes, problem.params, strict=True):
            shape = (axis.blocks, axis.block_size, -1)
            rows = [
                torch.cat([w.view(n)[0].movedim(place - 1, 0).reshape(shape) for n, place, _ in params], 2)
                for w in (a, moved)
            ]
            cross = rows[0] @ rows[1].mT
            if group == "full":
                linear[axis.name] = procrustes(cross)[None]
            else:
                orders = list(itertools.permutations(range(axis.block_size)))
                inside = [max(orders, key=lambda o, c=c: float(sum(c[i, j] for i, j in enumerate(o)))) for c in cross]
                index = [k * axis.block_size + i for k, order in enumerate(inside) for i in order]
                perm[axis.name] = perm[axis.name][:, index]
        best = min(best, float(ws.align.distance(a, ws.Symmetry(SPEC, 1, perm, linear=linear).act(b))))
    assert reached <= best * (1 + 1e-9)
    assert group == "full" or reached == pytest.approx(best)


def test_procrustes_is_the_best_rotation() -> None:
    cross = torch.randn(50, 4, 4, dtype=torch.float64, generator=generator())
    best = procrustes(cross)
    torch.testing.assert_close(best @ best.mT, torch.eye(4, dtype=torch.float64).expand(50, 4, 4))
    value = (best * cross).sum((1, 2))
    for seed in range(20):
        other = torch.linalg.qr(torch.randn(50, 4, 4, dtype=torch.float64, generator=generator(seed))).Q
        assert bool(((other * cross).sum((1, 2)) < value).all())


def test_balanced_sides_have_one_gram_matrix() -> None:
    given = Sides(*(torch.randn(2, 3, 4, n, dtype=torch.float64, generator=generator(n)) for n in (9, 6)))
    matrix = balance(given)
    own, dual = matrix @ given.own, torch.linalg.inv(matrix).mT @ given.dual
    torch.testing.assert_close(own @ own.mT, dual @ dual.mT)
    values = torch.linalg.svdvals(given.own.mT @ given.dual)[..., :4]
    torch.testing.assert_close(own @ own.mT, torch.diag_embed(values))


@pytest.mark.parametrize("spec", [SPEC, RANK], ids=["attention", "rank"])
@pytest.mark.parametrize("group", ["permutation", "scaled", "full"])
def test_canonical_forms_are_one_for_all_of_an_orbit(spec: ws.NetSpec, group: str) -> None:
    w = networks(spec, 6)
    one, g = ws.align.canonicalize(w, group=group)  # type: ignore[arg-type]
    ws.Symmetry(spec, 6, g.perm, g.scale, g.shift, g.linear)
    other, _ = ws.align.canonicalize(_sample(spec, 6, group=group).act(w), group=group)  # type: ignore[arg-type]
    torch.testing.assert_close(other.flat, one.flat, atol=1e-8, rtol=1e-8)
    again, _ = ws.align.canonicalize(one, group=group)  # type: ignore[arg-type]
    torch.testing.assert_close(again.flat, one.flat, atol=1e-8, rtol=1e-8)
    noise = w.replace(w.flat + 0.1 * torch.randn(w.flat.shape, generator=generator(), dtype=w.dtype))
    assert float((ws.align.canonicalize(noise, group=group)[0].flat - one.flat).abs().max()) > 0.05  # type: ignore
    if spec is SPEC:
        torch.testing.assert_close(attend(one, X), attend(w, X), atol=1e-8, rtol=1e-8)


def test_singular_heads_stay_finite() -> None:
    w = networks(SPEC, 4)
    w.view("q.weight")[:, :2] = 0
    w.view("q.bias")[:, :2] = 0
    w.view("v.weight")[1] = 0
    w.view("o.weight")[2] = 0
    one, g = ws.align.canonicalize(w)
    assert bool(one.flat.isfinite().all())
    ws.Symmetry(SPEC, 4, g.perm, g.scale, g.shift, g.linear)
    torch.testing.assert_close(attend(one, X), attend(w, X), atol=1e-8, rtol=1e-8)
    turned, _ = ws.align.canonicalize(_sample(SPEC, 4, max_scale=1.0).act(w))
    torch.testing.assert_close(turned.view("e.weight"), one.view("e.weight"), atol=1e-8, rtol=1e-8)
    b = _sample(SPEC, 4).act(w)
    found = ws.align.match(w, b, group="full")
    assert bool(found.act(b).flat.isfinite().all())
    assert bool((ws.align.distance(w, found.act(b)) <= ws.align.distance(w, b)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    a = networks(SPEC, 3)
    b = _sample(SPEC, 3, max_scale=1.5).act(a)
    left, right = a.to(dtype), b.to(dtype)
    g = ws.align.match(left, right, group="full")
    assert {value.dtype for value in g.linear.values()} == {dtype}
    assert bool((ws.align.distance(left, g.act(right)) < 0.5 * ws.align.distance(left, right)).all())


def test_checkpoints_of_attention_are_aligned() -> None:
    """From the module on: packed tensors, half of them moved by matrices, come back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        module = nn.Sequential(nn.Linear(3, 8), block, nn.Linear(8, 2))
    state, x = module.state_dict(), torch.zeros(1, 4, 3)
    g = ws.Symmetry.sample(ws.spec_of(module, x), batch=1, generator=generator())
    moved = ws.checkpoints.move_state_dict(state, g)
    options = {"restarts": 8, "generator": generator(1)}
    found = ws.checkpoints.align_state_dicts(module, state, moved, group="full", example_input=x, **options)
    assert found.after < 1e-6 * found.before
    other = ws.checkpoints.align_state_dicts(module, state, moved, example_input=x)
    assert other.after > 0.01 * other.before  # permutations alone do not undo matrices


def test_costs_weigh_heads() -> None:
    a, b = networks(SPEC, 5), networks(SPEC, 5, seed=2)
    costs = {"k.weight": 100.0}
    found = [ws.align.match(a, b, group="full", costs=c) for c in (None, costs)]
    weighed = [ws.align.distance(a, g.act(b), costs=costs) for g in found]
    assert bool((weighed[1] < weighed[0]).all())


def test_anchors_of_attention() -> None:
    base = networks(SPEC, 1)
    w = ws.Weights.cat([_sample(SPEC, 1, seed=s, max_scale=1.2).act(base) for s in range(4)])
    r = ws.align.anchor(w, rounds=3)
    moved, _ = ws.align.align_to(w, r)
    assert float(ws.align.distance(r, moved).mean()) < 0.1 * float(ws.align.distance(w[0], w).mean())
