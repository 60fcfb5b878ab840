"""Activation matching: what it must find, keep and refuse, against a slow transcription."""

from __future__ import annotations

import itertools

import pytest
import torch

import weightspace as ws
from weightspace.align import _activations as module
from weightspace.align import distance, match_activations
from weightspace.testing._random import random_symmetry

MIXED = ws.NetSpec(
    (
        ws.Axis("in", 2),
        ws.Axis("h1", 7, "sine", 5.0),
        ws.Axis("h2", 6, "cosine", 2.0),
        ws.Axis("h3", 5, "relu"),
        ws.Axis("h4", 6, "gaussian"),
        ws.Axis("h5", 4, "tanh"),
        ws.Axis("h6", 3, "gelu"),
        ws.Axis("out", 2),
    ),
    tuple(
        param
        for i, (below, above) in enumerate(itertools.pairwise(["in", "h1", "h2", "h3", "h4", "h5", "h6", "out"]))
        for param in (ws.Param(f"{i}.weight", (above, below)), ws.Param(f"{i}.bias", (above,), "bias"))
    ),
)
SIGNED = ws.siren(2, 7, 6, 1, omega=3.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks(spec: ws.NetSpec, batch: int = 5, seed: int = 1, dtype: torch.dtype = torch.float64) -> ws.Weights:
    return ws.testing.random_weights(spec, batch, generator=generator(seed), dtype=dtype)


def points(count: int = 80, seed: int = 9) -> torch.Tensor:
    return 2 * torch.rand(count, 2, generator=generator(seed), dtype=torch.float64) - 1


def small_noise(weights: ws.Weights, share: float, seed: int = 3) -> ws.Weights:
    flat = weights.flat
    noise = torch.randn(flat.shape, generator=generator(seed), dtype=torch.float64).to(flat)
    return weights.replace(flat + share * flat.abs() * noise)


def alive(weights: ws.Weights) -> ws.Weights:
    """Biases of ReLU neurons that are on somewhere: dead neurons cannot be told apart."""
    for axis in weights.spec.hidden:
        if axis.activation == "relu":
            (name,) = (p.name for p in weights.spec.params if p.kind == "bias" and p.produces == axis.name)
            weights.view(name).abs_().add_(1.0)
    return weights


@pytest.mark.parametrize("measure", ["inner", "correlation"])
@pytest.mark.parametrize(("spec", "group"), [(MIXED, "permutation"), (SIGNED, "signed"), (MIXED, "full")])
def test_finds_a_planted_element(spec: ws.NetSpec, group: str, measure: str, dtype: torch.dtype) -> None:
    a = alive(networks(spec, dtype=dtype))
    planted = random_symmetry(spec, len(a), generator=generator(), group=group, dtype=dtype)
    for share in (0.0, 1e-4):
        b = planted.act(small_noise(a, share))
        g = match_activations(a, b, points(), group=group, measure=measure)
        back = planted.inverse()
        for name, perm in back.perm.items():
            assert g.perm[name].equal(perm)
        for name, shift in g.shift.items():
            assert shift.equal(back.shift[name])
        for name, scale in g.scale.items():
            torch.testing.assert_close(scale, back.scale[name], rtol=0.02, atol=0)
        if not share:
            torch.testing.assert_close(g.act(b).flat, a.flat, rtol=1e-3, atol=1e-4)
        ws.testing.assert_same_function(b, g.act(b))


def test_random_networks_of_every_activation() -> None:
    for seed in range(12):
        spec = ws.testing.random_spec(generator=generator(seed))
        a = alive(networks(spec, seed=seed))
        planted = ws.Symmetry.sample(spec, batch=len(a), generator=generator(seed), dtype=torch.float64)
        inputs = 2 * torch.rand(200, spec.in_features, generator=generator(seed), dtype=torch.float64) - 1
        b = planted.act(a)
        g = match_activations(a, b, inputs, group="full")
        torch.testing.assert_close(g.act(b).flat, a.flat, rtol=1e-5, atol=1e-6)


def slow(a: ws.Weights, b: ws.Weights, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """All permutations of each axis, by the squared difference of activations, one pair at a time."""
    out = {}
    for row in range(len(b)):
        sides = []
        for w in (a, b):
            h, found = x, {}
            for layer in w.spec.layers[:-1]:
                axis = w.spec.axis(layer.produces)
                z = h @ w.view(layer.weight)[row].T + w.view(layer.bias)[row]
                h = found[axis.name] = torch.sin(axis.omega * z)
            sides.append(found)
        for name, left in sides[0].items():
            every = torch.tensor(list(itertools.permutations(range(left.shape[1]))))
            left, right = left[:, None], sides[1][name][:, every]
            both = torch.stack([(left - right).square().sum(0), (left + right).square().sum(0)])
            out.setdefault(name, {})[row] = (every, both)
    return out


def test_is_the_best_of_all_permutations_and_signs() -> None:
    spec = ws.siren(2, 4, 5, 1, omega=3.0)
    a, b, x = networks(spec, 3, 1), networks(spec, 3, 2), points()
    for group in ("permutation", "signed"):
        g = match_activations(a, b, x, group=group)
        for name, rows in slow(a, b, x).items():
            for row, (every, both) in rows.items():
                cost = (both[0] if group == "permutation" else both.amin(0)).sum(1)
                own = g.perm[name][row]
                assert own.equal(every[cost.argmin()])
                assert not own.equal(every[cost.argmax()])
                if group == "signed":
                    at = (every == own).all(1).nonzero()[0, 0]
                    assert (g.scale[name][row] < 0).equal(both[1, at] < both[0, at])


def test_the_sign_and_the_phase_are_told_apart_by_the_pre_activation() -> None:
    """``sin(-z)`` and ``sin(z + pi)`` are one activation and two elements."""
    spec = ws.siren(1, 4, 1, omega=1.0)
    a = networks(spec, 2)
    for scale, shift in ((-1.0, 0.0), (1.0, 1.0), (1.0, -1.0), (-1.0, 2.0)):
        planted = ws.Symmetry(
            spec,
            2,
            scale={"h1": torch.full((2, 4), scale, dtype=torch.float64)},
            shift={"h1": torch.full((2, 4), shift, dtype=torch.float64)},
        )
        g = match_activations(a, planted.act(a), points()[:, :1], group="full")
        back = planted.inverse()
        assert g.scale["h1"].equal(back.scale["h1"])
        assert g.shift["h1"].equal(back.shift["h1"])


def test_aligns_better_than_the_identity_and_repeats() -> None:
    a, b, x = networks(SIGNED, 20, 1), networks(SIGNED, 20, 2), points()
    for w in (a, b):
        w.view("0.weight").copy_(networks(SIGNED, 20, 4).view("0.weight"))  # a common first layer: related networks
    b = random_symmetry(SIGNED, 20, generator=generator(), group="signed").act(b)
    one, two = (match_activations(a, b, x, group="signed") for _ in range(2))
    assert one.act(b).flat.equal(two.act(b).flat)
    assert float(distance(a, one.act(b)).sum()) < 0.8 * float(distance(a, b).sum())
    alone = match_activations(a[3], b[3], x, group="signed")
    assert all(alone.perm[name][0].equal(one.perm[name][3]) for name in one.perm)


def test_chunks_and_inputs_of_each_network_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, x = networks(SIGNED, 7, 1), networks(SIGNED, 7, 2), points()
    whole = match_activations(a, b, x, group="full")
    own = match_activations(a, b, x.expand(7, -1, -1), group="full")
    one = match_activations(a[0], a, x)
    assert one.act(a).flat[0].equal(a.flat[0])
    monkeypatch.setattr(module, "_ENTRIES", 3 * 80 * 7)
    parts = match_activations(a, b, x, group="full")
    for other in (own, parts):
        assert other.act(b).flat.equal(whole.act(b).flat)


def test_dead_neurons_keep_their_scale() -> None:
    spec = ws.mlp(2, 5, 1, activation="relu")
    a = networks(spec)
    a.view("0.bias")[:, 1:3] = -100.0
    g = match_activations(a, a, points(), group="full")
    assert g.scale["h1"].isfinite().all()
    ws.testing.assert_same_function(a, g.act(a))
    assert g.scale["h1"].gather(1, g.perm["h1"]).isclose(torch.tensor(1.0, dtype=torch.float64)).all()


def test_shuffled_inputs_of_one_side_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where the two networks do not see the same inputs, the planted element is not found."""
    a = networks(SIGNED)
    b = random_symmetry(SIGNED, 5, generator=generator(), group="permutation").act(a)
    hidden, calls = module._hidden, []

    def unlike(weights: ws.Weights, inputs: torch.Tensor):
        calls.append(0)
        return hidden(weights, inputs if len(calls) % 2 else inputs.flip(0) * 1.7)

    monkeypatch.setattr(module, "_hidden", unlike)
    assert float(distance(a, match_activations(a, b, points()).act(b)).sum()) > 0.1


def test_half_precision_and_no_networks() -> None:
    a = networks(SIGNED, dtype=torch.float32).to(torch.bfloat16)
    g = match_activations(a, a, points(), group="full")
    assert g.act(a).dtype == torch.bfloat16
    assert g.perm["h1"].equal(torch.arange(7).expand(5, -1))
    assert len(match_activations(a[:0], a[:0], points())) == 0


def test_bad_input_is_refused(conv_spec: ws.NetSpec) -> None:
    a, x = networks(SIGNED), points()
    for inputs, text in (
        (x[:, :1], r"inputs: expected \[point, 2\] or \[5, point, 2\], got \[80, 1\]"),
        (x.expand(3, -1, -1), r"got \[3, 80, 2\]"),
        (x[:0], r"got \[0, 2\]"),
        (x * torch.nan, "inputs: expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=text):
            match_activations(a, a, inputs)
    with pytest.raises(TypeError, match="inputs: expected a tensor, got list"):
        match_activations(a, a, [[0.0, 0.0]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected Weights, got Tensor"):
        match_activations(a, a.flat, x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown measure: expected 'inner' or 'correlation', got 'l1'"):
        match_activations(a, a, x, measure="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"group: expected one of \[.*'full'\], got 'affine'"):
        match_activations(a, a, x, group="affine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'signed'.*commute with signs"):
        match_activations(networks(MIXED), networks(MIXED), x, group="signed")
    with pytest.raises(ValueError, match="expected pairs"):
        match_activations(a[:3], a, x)
    broken = a.clone()
    broken.flat[2, 0] = torch.inf
    with pytest.raises(ValueError, match=r"b: expected finite weights, got NaN or infinity in networks \[2\]"):
        match_activations(a, broken, x)
    conv = networks(conv_spec)
    with pytest.raises(ValueError, match="2-D weights"):
        match_activations(conv, conv, torch.zeros(4, 3))
