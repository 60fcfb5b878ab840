"""Sinkhorn re-basin: the relaxation is exact where it is hard, and the result never worse than its start."""

from __future__ import annotations

import pytest
import torch
from _helpers import generator, networks

import weightspace as ws
from weightspace.align import _relaxation, distance, match, sinkhorn
from weightspace.align import _sinkhorn as module
from weightspace.align._elements import project
from weightspace.align._relaxation import Relaxation, doubly_stochastic
from weightspace.testing._random import random_symmetry

SPEC = ws.siren(2, 8, 7, 1, omega=3.0)


def test_plans_are_doubly_stochastic_and_those_of_plain_iterations(dtype: torch.dtype) -> None:
    logits = 3 * torch.randn(4, 6, 6, 2, generator=generator(), dtype=torch.float64).to(dtype)
    plan = doubly_stochastic(logits, 0.7, 200)
    total = plan.sum(-1)
    for axis in (1, 2):
        torch.testing.assert_close(total.sum(axis), torch.ones(4, 6, dtype=dtype))
    slow = (logits.double() / 0.7).exp()  # rows and columns divided in turn, as in the paper
    for _ in range(200):
        slow = slow / slow.sum((1, 3), keepdim=True)
        slow = slow / slow.sum((2, 3), keepdim=True)
    torch.testing.assert_close(plan.double(), slow, rtol=1e-4, atol=1e-5)
    assert float((logits.softmax(2).sum(1) - 1).abs().max()) > 0.1  # what rows alone would give


def test_the_gradient_of_a_plan_is_right() -> None:
    logits = torch.randn(1, 3, 3, 2, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: doubly_stochastic(x, 0.5, 15), logits)


def test_extreme_logits_stay_finite() -> None:
    logits = 1e4 * torch.randn(3, 5, 5, 4, generator=generator())
    assert doubly_stochastic(logits.requires_grad_(), 1.0, 30).isfinite().all()


def hard(weights: ws.Weights, group: str, seed: int = 5) -> tuple[dict, dict, dict]:
    gen, relaxed = generator(seed), Relaxation(weights, weights, group)
    scores, scales = {}, {}
    for axis in weights.spec.hidden:
        shape = (len(weights), axis.size, axis.size, len(relaxed.elements[axis.name]))
        scores[axis.name] = torch.randn(shape, generator=gen, dtype=weights.dtype)
        if relaxed.elements[axis.name].positive:
            scales[axis.name] = 0.5 + torch.rand(len(weights), axis.size, generator=gen, dtype=weights.dtype)
    return scores, scales, relaxed.elements


@pytest.mark.parametrize("group", ["permutation", "full"])
def test_the_relaxation_is_exact_where_plans_are_hard(group: str, conv_spec: ws.NetSpec) -> None:
    for spec in (conv_spec, *(ws.testing.random_spec(generator=generator(seed)) for seed in range(10))):
        a, b = networks(spec, 3, 1), networks(spec, 3, 2)
        scores, scales, _ = hard(b, group)
        g = project(a, b, group, scores, scales)
        g = ws.Symmetry(spec, 3, g.perm, g.scale, g.shift)  # looked at: these are group elements
        plans = {}
        for name, score in scores.items():
            place = torch.nn.functional.one_hot(g.perm[name], score.shape[1])[..., None]
            plans[name] = (place * torch.nn.functional.one_hot(score.argmax(-1), score.shape[3])).to(score)
        relaxed = Relaxation(a, b, group)
        torch.testing.assert_close(relaxed.distance(plans, scales), distance(a, g.act(b)))
        torch.testing.assert_close(relaxed.move(plans, scales).flat, g.act(b).flat)
        other = {name: plan.flip(1) for name, plan in plans.items()}
        assert not relaxed.distance(other, scales).allclose(distance(a, g.act(b)))


def test_the_soft_distance_is_an_expectation() -> None:
    """Against the mean over elements drawn from the plans, here all of them: two neurons, two signs."""
    spec = ws.mlp(2, 2, 1, activation="tanh")
    a, b = networks(spec, 2, 1), networks(spec, 2, 2)
    share = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)  # of place (kept, swapped) and sign (+, -)
    plan = torch.stack([share[0], share[1], share[1], share[0]]).reshape(1, 2, 2, 2).expand(2, -1, -1, -1)
    mean = 0.0
    for place in (0, 1):  # both neurons draw their signs alone
        for first in (0, 1):
            for second in (0, 1):
                chance = share[place].sum() * (share[place, first] * share[place, second] / share[place].sum() ** 2)
                perm = torch.tensor([[0, 1], [1, 0]])[place].expand(2, 2)
                sign = torch.tensor([1.0 - 2 * first, 1.0 - 2 * second], dtype=torch.float64).expand(2, 2)
                mean = mean + chance * distance(a, ws.Symmetry(spec, 2, {"h1": perm}, {"h1": sign}).act(b))
    torch.testing.assert_close(Relaxation(a, b, "signed").distance({"h1": plan}), mean)


@pytest.mark.parametrize("group", ["permutation", "signed", "full"])
def test_finds_a_planted_element(group: str, dtype: torch.dtype, device: torch.device) -> None:
    a = networks(SPEC, dtype=dtype).to(device)
    planted = random_symmetry(SPEC, len(a), generator=generator(), group=group, dtype=dtype).to(device)
    for share in (0.0, 0.05):
        noise = torch.randn(a.flat.shape, generator=generator(7), dtype=torch.float64).to(a.flat)
        b = planted.act(a.replace(a.flat + share * a.flat.abs() * noise))
        g = sinkhorn(a, b, group=group)
        back = planted.inverse()
        for mine, theirs in ((g.perm, back.perm), (g.scale, back.scale), (g.shift, back.shift)):
            assert set(mine) == set(theirs)
            assert all(mine[name].equal(theirs[name]) for name in mine)
        ws.testing.assert_same_function(b, g.act(b))


def test_random_networks_and_positive_scales() -> None:
    for seed in range(4):
        spec = ws.testing.random_spec(generator=generator(seed), max_hidden_layers=2)
        a = networks(spec, 3, seed)
        planted = ws.Symmetry.sample(spec, batch=3, generator=generator(seed), dtype=torch.float64)
        b = planted.act(a)
        g = sinkhorn(a, b, group="full")
        ws.testing.assert_same_function(b, g.act(b))
        positive = any(axis.activation in ("relu", "leaky_relu") for axis in spec.hidden)
        share = distance(a, g.act(b)) / distance(a, b)
        assert float(share.mean()) < (0.2 if positive else 1e-6)


def test_never_worse_than_its_start_and_better_than_the_identity() -> None:
    a, b = networks(SPEC, 12, 1), networks(SPEC, 12, 2)
    for group in ("permutation", "signed", "full"):
        for steps in (1, 15):
            assert bool((distance(a, sinkhorn(a, b, group=group, steps=steps).act(b)) <= distance(a, b)).all())
        found = distance(a, sinkhorn(a, b, group=group).act(b))
        assert float(found.sum()) < 0.8 * float(distance(a, b).sum())
        assert float(found.sum()) < 1.05 * float(distance(a, match(a, b, group=group).act(b)).sum())
        start = match(a, b, group=group)
        further = sinkhorn(a, b, group=group, steps=20, init=start)
        assert bool((distance(a, further.act(b)) <= distance(a, start.act(b)) + 1e-9).all())
        ws.testing.assert_same_function(b, further.act(b))


def test_norms_and_convolutions(norm_spec: ws.NetSpec, conv_spec: ws.NetSpec) -> None:
    for spec in (norm_spec, conv_spec):
        a = networks(spec, 3)
        planted = random_symmetry(spec, 3, generator=generator(), group="permutation")
        b = planted.act(a)
        assert sinkhorn(a, b, steps=40).act(b).flat.equal(a.flat)
        assert not b.flat.equal(a.flat)


def test_a_descent_that_climbs_is_no_better_than_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with the gradient's sign turned, nothing is found, and the start is kept."""
    a, b = networks(SPEC, 8, 1), networks(SPEC, 8, 2)
    good = distance(a, sinkhorn(a, b, steps=30).act(b)).sum()
    step = module._Descent.step
    monkeypatch.setattr(module._Descent, "step", lambda self, rate: step(self, -rate))
    bad = distance(a, sinkhorn(a, b, steps=30).act(b))
    assert bool((bad <= distance(a, b)).all())
    assert float(bad.sum()) > float(good) + 1.0


def test_a_loss_at_the_midpoint() -> None:
    a, b = networks(SPEC, 6, 1), networks(SPEC, 6, 2)
    x = 2 * torch.rand(40, 2, generator=generator(), dtype=torch.float64) - 1
    wanted = ws.evaluate(a, x)

    def loss(weights: ws.Weights) -> torch.Tensor:
        return (ws.evaluate(weights, x) - wanted).square().mean((1, 2))

    def at(g: ws.Symmetry) -> torch.Tensor:
        return loss(a.replace((a.flat + g.act(b).flat) / 2))

    start = match(a, b, group="full")
    g = sinkhorn(a, b, group="full", steps=60, loss=loss, init=start)
    assert bool((at(g) <= at(start) + 1e-9).all())
    assert float(at(g).sum()) < float(at(start).sum()) - 1e-3
    ws.testing.assert_same_function(b, g.act(b))
    with pytest.raises(ValueError, match=r"loss: expected a tensor \[6\].*got \[\]"):
        sinkhorn(a, b, loss=lambda w: loss(w).sum())
    with pytest.raises(TypeError, match="loss: expected a function of Weights, got float"):
        sinkhorn(a, b, loss=0.5)  # type: ignore[arg-type]


def test_repeats_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = networks(SPEC, 7, 1), networks(SPEC, 7, 2)
    one = sinkhorn(a, b, group="full", steps=20)
    assert sinkhorn(a, b, group="full", steps=20).act(b).flat.equal(one.act(b).flat)
    assert sinkhorn(a[0], a, steps=20).act(a).flat[0].equal(a.flat[0])
    monkeypatch.setattr(module, "_ENTRIES", 3 * 4 * 64)
    torch.testing.assert_close(sinkhorn(a, b, group="full", steps=20).act(b).flat, one.act(b).flat)
    monkeypatch.undo()
    drawn = [sinkhorn(a, b, steps=1, temperature=1.0, generator=generator(seed)).act(b).flat for seed in (0, 0, 1)]
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


def test_inputs_are_not_written_and_small_cases_work() -> None:
    a, b = networks(SPEC, 3, 1, torch.float32), networks(SPEC, 3, 2, torch.float32)
    kept = a.flat.clone(), b.flat.clone()
    g = sinkhorn(a.to(torch.bfloat16), b.to(torch.bfloat16), group="full", steps=5)
    assert g.act(b.to(torch.bfloat16)).dtype == torch.bfloat16
    sinkhorn(a, b, steps=3)
    assert a.flat.equal(kept[0])
    assert b.flat.equal(kept[1])
    assert len(sinkhorn(a[:0], b[:0], group="full")) == 0
    linear = networks(ws.mlp(2, 3), 4, 1)
    assert sinkhorn(linear, linear).act(linear).flat.equal(linear.flat)
    for spec in (ws.siren(2, 1, 1), ws.siren(2, 1, 3, 1, omega=2.0)):
        one = networks(spec, 3)
        moved = random_symmetry(spec, 3, generator=generator()).act(one)
        assert sinkhorn(one, moved, group="full").act(moved).flat.allclose(one.flat)
        assert sinkhorn(one, moved).act(moved).flat.isfinite().all()
    zero = a.replace(torch.zeros_like(a.flat))
    assert sinkhorn(zero, b, steps=5).act(b).flat.equal(b.flat)


def test_bad_input_is_refused() -> None:
    a, b = networks(SPEC, 4, 1), networks(SPEC, 4, 2)
    for options, text in (
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"iterations": 0}, "iterations: expected at least 1, got 0"),
        ({"temperature": 0.0}, "temperature: expected a positive temperature"),
        ({"group": "affine"}, "group: expected one of"),
        ({"init": ws.Symmetry.identity(SPEC, batch=3)}, "init: expected 4 elements .*got 3"),
    ):
        with pytest.raises(ValueError, match=text):
            sinkhorn(a, b, **options)
    for options, text in (
        ({"init": a}, "init: expected a Symmetry, got Weights"),
        ({"generator": 3}, "generator: expected a torch.Generator, got int"),
        ({"steps": 1.5}, "steps: expected a whole number"),
    ):
        with pytest.raises(TypeError, match=text):
            sinkhorn(a, b, **options)
    with pytest.raises(ValueError, match="expected pairs"):
        sinkhorn(a, b[:3])
    with pytest.raises(ValueError, match=r"a: expected finite weights, got NaN or infinity in networks \[0, 1, 2, 3\]"):
        sinkhorn(a.replace(a.flat / 0), b)
    assert _relaxation._FLOOR < 0
