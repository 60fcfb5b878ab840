"""The learned aligner: exactly equivariant, trained or not, and better for its training."""

from __future__ import annotations

import pytest
import torch
from _helpers import generator, linked_spec

import weightspace as ws
from weightspace.align import LearnedAligner, distance
from weightspace.align import _encoder as module
from weightspace.testing._random import random_symmetry

SIREN = ws.siren(2, 6, 5, 1, omega=3.0)
EVEN = linked_spec(ws.Axis("a.0", 5, "cosine", 2.0), ws.Axis("b", 4, "gaussian"))
TANH = ws.mlp(3, 5, 4, 2, activation="tanh")
RELU = ws.mlp(2, 5, 4, 1, activation="relu")


def networks(spec: ws.NetSpec, batch: int = 4, seed: int = 1, dtype: torch.dtype = torch.float64) -> ws.Weights:
    return ws.testing.random_weights(spec, batch, generator=generator(seed), dtype=dtype)


def noisy(aligner: LearnedAligner, size: float = 0.1) -> LearnedAligner:
    """Noise on the parameters: what starts at zero or one can hide a fault."""
    gen = generator(3)
    with torch.no_grad():
        for value in aligner.parameters():
            value += size * torch.randn(value.shape, generator=gen, dtype=torch.float64).to(value)
    return aligner


def follows(aligner: LearnedAligner, spec: ws.NetSpec, group: str) -> bool:
    """Whether ``A(g a, h b) = g A(a, b) h^-1``."""
    a, b = networks(spec, 4, 1), networks(spec, 4, 2)
    gen = generator(5)
    g, h = (random_symmetry(spec, 4, generator=gen, group=group) for _ in range(2))
    found, expected = aligner.match(g.act(a), h.act(b)), g @ aligner.match(a, b) @ h.inverse()
    for mine, theirs in ((found.perm, expected.perm), (found.scale, expected.scale), (found.shift, expected.shift)):
        if set(mine) != set(theirs) or not all(mine[name].equal(theirs[name]) for name in mine):
            return False
    return True


CASES = [
    (SIREN, "permutation"),
    (SIREN, "signed"),
    (SIREN, "full"),
    (EVEN, "signed"),
    (EVEN, "full"),
    (TANH, "full"),
    (RELU, "permutation"),
]


@pytest.mark.parametrize(("spec", "group"), CASES)
def test_follows_the_symmetries_of_both_sides_exactly(spec: ws.NetSpec, group: str) -> None:
    for trunk in (0, 2):
        assert follows(noisy(LearnedAligner(spec, group=group, channels=6, trunk=trunk)).double(), spec, group)


def test_convolutions_norms_and_random_networks(conv_spec: ws.NetSpec, norm_spec: ws.NetSpec) -> None:
    for spec in (conv_spec, norm_spec):
        assert follows(noisy(LearnedAligner(spec, channels=6, trunk=2)).double(), spec, "permutation")
    alike = networks(norm_spec)
    alike.view("conv.weight")[:], alike.view("fc.weight")[:] = 1.0, 1.0  # the norm alone tells the neurons apart
    planted = random_symmetry(norm_spec, 4, generator=generator(), group="permutation")
    moved = planted.act(alike)
    assert LearnedAligner(norm_spec, trunk=0).double().match(alike, moved).act(moved).flat.allclose(alike.flat)
    for seed in range(8):
        spec = ws.testing.random_spec(generator=generator(seed))
        positive = any(axis.activation in ("relu", "leaky_relu") for axis in spec.hidden)
        group = "permutation" if positive else "full"
        assert follows(noisy(LearnedAligner(spec, group=group, channels=6, trunk=0)).double(), spec, group)


def test_a_layer_that_tells_places_apart_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: positions in the features, signs in the wrong place, or a larger group than was built for."""
    aligner = noisy(LearnedAligner(SIREN, group="full", channels=6)).double()
    assert follows(aligner, SIREN, "full")
    assert not follows(noisy(LearnedAligner(SIREN, group="permutation", channels=6)).double(), SIREN, "signed")
    own = module.Encoder._own

    def placed(self, name, weights, values):
        for part in own(self, name, weights, values):
            yield part + torch.arange(part.shape[1], dtype=part.dtype)[:, None, None]

    with monkeypatch.context() as patch:
        patch.setattr(module.Encoder, "_own", placed)
        assert not follows(aligner, SIREN, "full")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_factors", lambda name, other, at: [(name, "sign"), (other, "sign")])
        assert not follows(aligner, SIREN, "full")
    assert follows(aligner, SIREN, "full")


@pytest.mark.parametrize("group", ["permutation", "signed", "full"])
def test_finds_a_planted_element_even_untrained(group: str, dtype: torch.dtype, device: torch.device) -> None:
    a = networks(SIREN, 6, dtype=dtype).to(device)
    aligner = LearnedAligner(SIREN, group=group, channels=8).to(device, dtype)
    planted = random_symmetry(SIREN, 6, generator=generator(), group=group, dtype=dtype).to(device)
    b = planted.act(a)
    g, back = aligner.match(a, b), planted.inverse()
    for mine, theirs in ((g.perm, back.perm), (g.scale, back.scale), (g.shift, back.shift)):
        assert set(mine) == set(theirs)
        assert all(mine[name].equal(theirs[name]) for name in mine)
    ws.testing.assert_same_function(b, g.act(b))


def related(count: int, seed: int) -> ws.Weights:
    """Networks of one family: a common one, changed a little, each in an order of its own."""
    gen, common = generator(seed), networks(SIREN, 1, 11, torch.float32)
    changed = common.flat + 0.3 * networks(SIREN, count, seed, torch.float32).flat
    w = ws.Weights(changed, SIREN)
    return random_symmetry(SIREN, count, generator=gen, group="signed", dtype=torch.float32).act(w)


def test_training_helps_on_pairs_never_seen() -> None:
    zoo, a, b = related(200, 1), related(40, 2), related(40, 3)
    aligner = LearnedAligner(SIREN, group="signed", channels=8, rounds=2, trunk=0)
    before = distance(a, aligner.match(a, b).act(b)).mean()
    losses = aligner.fit(zoo, steps=40, batch=16, lr=1e-2, generator=generator())
    after = distance(a, aligner.match(a, b).act(b)).mean()
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert float(after) < 0.9 * float(before)
    assert float(after) < 0.6 * float(distance(a, b).mean())
    refined = aligner.match(a, b, refine=True)
    assert bool((distance(a, refined.act(b)) <= distance(a, aligner.match(a, b).act(b)) + 1e-5).all())
    ws.testing.assert_same_function(b, refined.act(b))
    noise = torch.randn(a.flat.shape, generator=generator(4))
    planted = random_symmetry(SIREN, 40, generator=generator(), group="signed", dtype=torch.float32)
    g = aligner.match(a, planted.act(a.replace(a.flat + 0.02 * aligner.scale * noise)))
    right = [g.perm[n].eq(planted.inverse().perm[n]).float().mean() for n in g.perm]
    assert min(map(float, right)) > 0.95


def test_training_repeats_and_needs_no_global_stream() -> None:
    zoo = related(20, 1)
    state = torch.get_rng_state()
    made = []
    for seed in (0, 0, 1):
        aligner = LearnedAligner(SIREN, channels=6, trunk=2)
        made.append((aligner.fit(zoo, steps=3, batch=4, generator=generator(seed)), aligner))
    assert torch.get_rng_state().equal(state)
    assert made[0][0] == made[1][0]
    assert made[0][0] != made[2][0]
    other = LearnedAligner(SIREN, channels=6, trunk=2, generator=generator(7))
    assert not next(other.encoder.start.parameters()).equal(
        next(LearnedAligner(SIREN, channels=6).encoder.start.parameters())
    )


def test_state_dict_round_trip() -> None:
    zoo = related(30, 1)
    aligner = LearnedAligner(SIREN, group="signed", channels=6)
    aligner.fit(zoo, steps=3, batch=8, generator=generator())
    fresh = LearnedAligner(SIREN, group="signed", channels=6, generator=generator(9))
    a, b = zoo[:10], zoo[10:20]
    assert not all(x.equal(y) for x, y in zip(fresh(a, b).values(), aligner(a, b).values(), strict=True))
    fresh.load_state_dict(aligner.state_dict())
    assert fresh.match(a, b).act(b).flat.equal(aligner.match(a, b).act(b).flat)


def test_one_target_chunks_and_no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = networks(SIREN, 5, 1, torch.float32), networks(SIREN, 5, 2, torch.float32)
    aligner = LearnedAligner(SIREN, group="full", channels=6)
    wide = a.replace(a.flat[:1].expand(5, -1))
    assert aligner.match(a[0], b).act(b).flat.equal(aligner.match(wide, b).act(b).flat)
    whole = aligner.match(a, b).act(b).flat
    monkeypatch.setattr("weightspace.align._learned._ROWS", 2)
    assert aligner.match(a, b).act(b).flat.equal(whole)
    assert len(aligner.match(a[:0], b[:0])) == 0
    assert aligner.match(a.to(torch.bfloat16), b.to(torch.bfloat16)).act(b.to(torch.bfloat16)).dtype == torch.bfloat16


def test_the_planted_loss_is_low_exactly_at_the_answer() -> None:
    """The cross-entropy of logits that are one-hot at the known element is near zero, and large anywhere else."""
    aligner, a = LearnedAligner(SIREN, group="full", channels=6), networks(SIREN, 4)
    g = random_symmetry(SIREN, 4, generator=generator(), group="full")
    back, logits = g.inverse(), {}
    for axis in SIREN.hidden:
        place = torch.nn.functional.one_hot(back.perm[axis.name], axis.size)
        flipped, odd = back.scale[axis.name] < 0, back.shift[axis.name].remainder(2) != 0
        element = torch.nn.functional.one_hot(flipped.long() + 2 * odd.long(), 4)
        logits[axis.name] = 50.0 * place[..., None] * element[:, :, None]
    assert float(aligner._planted(logits, back)) < 1e-6
    assert float(aligner._planted({n: v.flip(3) for n, v in logits.items()}, back)) > 10
    assert float(aligner._planted({n: v.flip(1) for n, v in logits.items()}, back)) > 10
    from weightspace.align._elements import project

    assert project(a, g.act(a), "full", logits, {}).act(g.act(a)).flat.allclose(a.flat)


def test_bad_input_is_refused() -> None:
    with pytest.raises(TypeError, match="spec: expected a NetSpec, got str"):
        LearnedAligner("siren")  # type: ignore[arg-type]
    for spec, options, text in (
        (ws.mlp(2, 3), {}, "at least one hidden axis, got none"),
        (RELU, {"group": "signed"}, "commute with signs"),
        (RELU, {"group": "full"}, r"positive scales \(axes \['h1', 'h2'\]\) are not learned; use group='permutation'"),
        (SIREN, {"group": "none"}, "group: expected one of .*got 'none'"),
        (SIREN, {"group": "affine"}, "group: expected one of"),
        (SIREN, {"channels": 1}, "channels: expected at least 2, got 1"),
        (SIREN, {"rounds": -1}, "rounds: expected at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=text):
            LearnedAligner(spec, **options)
    aligner, a = LearnedAligner(SIREN, channels=4, trunk=0), networks(SIREN)
    gen = generator()
    for weights, options, text in (
        (a, {"steps": 0}, "steps: expected at least 1, got 0"),
        (a, {"lr": 0.0}, "lr: expected a positive learning rate"),
        (a, {"noise": -1.0}, "noise: expected a number >= 0"),
        (a, {"planted": 0.0, "real": 0.0}, "planted or the real loss, got 0 for both"),
        (a[:1], {}, "at least 2 networks"),
        (a.replace(a.flat / 0), {}, r"weights: expected finite weights, .*\(4 of 4\)"),
        (networks(TANH), {}, "the aligner is built for .*got networks of"),
    ):
        with pytest.raises(ValueError, match=text):
            aligner.fit(weights, generator=gen, **options)
    with pytest.raises(TypeError, match=r"generator: expected a torch\.Generator, got NoneType"):
        aligner.fit(a, generator=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the aligner is built for"):
        aligner.match(networks(TANH), networks(TANH))
    with pytest.raises(ValueError, match="expected pairs"):
        aligner.match(a[:3], a)
    with pytest.raises(TypeError, match="expected Weights, got Tensor"):
        aligner.match(a, a.flat)  # type: ignore[arg-type]
