"""Symmetry: acting keeps the function, elements form a group, and every way to break the action is noticed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from _helpers import attend, attention_spec, generator, networks
from torch import Tensor

import weightspace as ws
from weightspace import testing
from weightspace._activation import ACTIVATIONS, Activation, activation
from weightspace.testing._random import random_symmetry

NAMES = sorted(ACTIVATIONS)
SEEDS = range(12)


def _draw(seed: int, dtype: torch.dtype, name: str | None = None, count: int = 3) -> tuple:
    """A random spec, networks, and ``count`` batches of group elements."""
    gen = torch.Generator().manual_seed(seed)
    spec = testing.random_spec(generator=gen, activation=name)
    w = testing.random_weights(spec, 4, generator=gen, dtype=dtype)
    elements = [ws.Symmetry.sample(spec, batch=4, generator=gen, max_shift=2, dtype=dtype) for _ in range(count)]
    return spec, w, elements


def _assert_same_weights(a: ws.Weights, b: ws.Weights) -> None:
    tolerance = 2e-5 if a.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(a.flat, b.flat, atol=tolerance, rtol=tolerance)


# The function stays.


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_acting_keeps_the_function_for_each_activation(name: str, seed: int, dtype: torch.dtype) -> None:
    _, w, (g, *_) = _draw(seed, dtype, name)
    before = w.flat.clone()
    moved = g.act(w)
    testing.assert_same_function(w, moved)
    assert torch.equal(w.flat, before)
    assert moved.dtype == dtype
    assert (moved.flat - w.flat).abs().max() > 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_acting_keeps_the_function_of_mixed_networks(seed: int, dtype: torch.dtype) -> None:
    _, w, (g, *_) = _draw(100 + seed, dtype)
    testing.assert_same_function(w, g.act(w))


@pytest.mark.parametrize("parts", list(itertools.product([False, True], repeat=3)))
def test_each_part_of_the_group_alone_keeps_the_function(parts: tuple[bool, bool, bool], generator) -> None:
    names = [name for name, there in zip(("perm", "scale", "shift"), parts, strict=True) if there]
    spec = ws.mlp(2, 7, 5, 6, 1, activation=["sine", "relu", "cosine"])
    w = testing.random_weights(spec, 3, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=3, generator=generator, parts=names)
    assert (bool(g.perm), bool(g.scale), bool(g.shift)) == parts
    testing.assert_same_function(w, g.act(w))


def test_networks_of_a_batch_draw_independently(generator: torch.Generator) -> None:
    spec = ws.siren(2, 16, 16, 1)
    g = ws.Symmetry.sample(spec, batch=3, generator=generator)
    for part in (g.perm, g.scale, g.shift):
        for value in part.values():
            assert not torch.equal(value[0], value[1])
            assert not torch.equal(value[1], value[2])
    again = ws.Symmetry.sample(spec, batch=3, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(g.perm[n], again.perm[n]) for n in g.perm)


def test_samples_reach_what_they_may_and_no_more(generator: torch.Generator) -> None:
    spec = ws.mlp(2, 200, 200, 1, activation=["sine", "relu"])
    g = ws.Symmetry.sample(spec, batch=10, generator=generator, max_scale=3.0, max_shift=2)
    assert sorted(g.shift["h1"].unique().tolist()) == [-2, -1, 0, 1, 2]
    assert sorted(g.scale["h1"].unique().tolist()) == [-1, 1]
    assert 1 / 3 <= g.scale["h2"].min() < 0.4
    assert 2.7 < g.scale["h2"].max() <= 3
    assert "h2" not in g.shift
    assert torch.equal(g.perm["h1"].sort(1).values, torch.arange(200).expand(10, -1))


def test_device(device: torch.device, generator: torch.Generator) -> None:
    spec = ws.siren(2, 8, 8, 1)
    w = testing.random_weights(spec, 2, generator=generator, device=device)
    g = ws.Symmetry.sample(spec, batch=2, generator=generator)
    moved = g.to(device).act(w)
    assert moved.device.type == device.type
    testing.assert_same_function(w, moved)


# A group.


@pytest.mark.parametrize("seed", SEEDS)
def test_composition_is_acting_twice(seed: int, dtype: torch.dtype) -> None:
    _, w, (g, h, _) = _draw(200 + seed, dtype)
    _assert_same_weights((g @ h).act(w), g.act(h.act(w)))
    assert not torch.allclose((g @ h).act(w).flat, (h @ g).act(w).flat, atol=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_composition_is_associative(seed: int, dtype: torch.dtype) -> None:
    spec, w, (g, h, k) = _draw(300 + seed, dtype)
    left, right = (g @ h) @ k, g @ (h @ k)
    for axis in spec.hidden:
        assert torch.equal(left.perm[axis.name], right.perm[axis.name])
    _assert_same_weights(left.act(w), right.act(w))


@pytest.mark.parametrize("seed", SEEDS)
def test_identity_and_inverse(seed: int, dtype: torch.dtype) -> None:
    spec, w, (g, *_) = _draw(400 + seed, dtype)
    one = ws.Symmetry.identity(spec, batch=4)
    assert torch.equal(one.act(w).flat, w.flat)
    for same in (g @ one, one @ g, g.inverse().inverse()):
        _assert_same_weights(same.act(w), g.act(w))
    for none in (g @ g.inverse(), g.inverse() @ g, one.inverse()):
        _assert_same_weights(none.act(w), w)
    _assert_same_weights(g.inverse().act(g.act(w)), w)


@pytest.mark.parametrize("seed", range(6))
def test_partial_elements_compose(seed: int, generator: torch.Generator) -> None:
    """An axis or a part that an element does not name stands for the identity there."""
    spec = ws.mlp(2, 6, 5, 1, activation=["sine", "sine"])
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    full = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64)
    pick = torch.randint(0, 2, (2, 6), generator=torch.Generator().manual_seed(seed)).bool().tolist()
    g, h = (
        ws.Symmetry(
            spec,
            2,
            *(
                {n: v for (n, v), keep in zip(sorted(part.items()), row, strict=True) if keep}
                for part, row in zip((full.perm, full.scale, full.shift), (p[0:2], p[2:4], p[4:6]), strict=True)
            ),
        )
        for p in pick
    )
    _assert_same_weights((g @ h).act(w), g.act(h.act(w)))
    _assert_same_weights((g @ g.inverse()).act(w), w)
    testing.assert_same_function(w, g.act(w))


@pytest.mark.parametrize("seed", range(4))
def test_indexing_picks_elements(seed: int) -> None:
    _, w, (g, *_) = _draw(500 + seed, torch.float64)
    for index in (slice(1, 3), torch.tensor([3, 0]), torch.tensor([True, False, True, False]), slice(0, 0)):
        assert len(g[index]) == len(w[index])
        _assert_same_weights(g[index].act(w[index]), g.act(w)[index])


# Broken actions are noticed.


def _without_consumed_column(g: ws.Symmetry, w: ws.Weights) -> ws.Weights:
    """The next layer reads the old, unpermuted and undivided columns."""
    moved, last = g.act(w).clone(), w.spec.layers[-1]
    moved.view(last.weight).copy_(w.view(last.weight))
    return moved


def _without_bias_shift(g: ws.Symmetry, w: ws.Weights) -> ws.Weights:
    """The signs of the phase are passed on, the shift itself is forgotten."""
    moved = g.act(w).clone()
    unshifted = replace(g, shift={n: torch.zeros_like(k) for n, k in g.shift.items()}).act(w)
    moved.view("0.bias").copy_(unshifted.view("0.bias"))
    return moved


def _with_row(g: ws.Symmetry, w: ws.Weights, name: str, sigma: Callable[..., Tensor | None]) -> ws.Weights:
    """Act with another ``sigma`` in the activation table."""
    row = activation(name)

    class Wrong(Activation):
        def sigma(self, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
            return sigma(scale, shift)

    wrong = Wrong(row.name, row.forward, row.derivative, row.scale, row.parity, row.periodic)
    ACTIVATIONS[name] = wrong
    try:
        return g.act(w)
    finally:
        ACTIVATIONS[name] = row


BROKEN = {
    "forget the consumed column": ("sine", _without_consumed_column),
    "forget the consumed column of a relu": ("relu", _without_consumed_column),
    "forget the bias shift": ("sine", _without_bias_shift),
    "forget the bias shift of a cosine": ("cosine", _without_bias_shift),
    "odd sigma on an even function": ("gaussian", lambda g, w: _with_row(g, w, "gaussian", lambda s, k: s)),
    "odd sigma on a cosine": ("cosine", lambda g, w: _with_row(g, w, "cosine", lambda s, k: s * (1 - 2 * (k % 2)))),
    "even sigma on an odd function": ("tanh", lambda g, w: _with_row(g, w, "tanh", lambda s, k: None)),
    "sigma of a relu left out": ("relu", lambda g, w: _with_row(g, w, "relu", lambda s, k: None)),
    "phase without (-1) ** k": ("sine", lambda g, w: _with_row(g, w, "sine", lambda s, k: s)),
    "cosine phase without (-1) ** k": ("cosine", lambda g, w: _with_row(g, w, "cosine", lambda s, k: None)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_action_changes_the_function(how: str, seed: int, dtype: torch.dtype) -> None:
    name, broken = BROKEN[how]
    gen = torch.Generator().manual_seed(seed)
    spec = ws.mlp(2, 6, 1, activation=name)
    w = testing.random_weights(spec, 5, generator=gen, dtype=dtype)
    g = ws.Symmetry.sample(spec, batch=5, generator=gen, dtype=dtype)
    testing.assert_same_function(w, g.act(w))
    with pytest.raises(AssertionError, match="functions: largest difference"):
        testing.assert_same_function(w, broken(g, w))


@pytest.mark.parametrize("name", ["gelu", "silu", "sigmoid"])
def test_a_sign_where_none_is_allowed_changes_the_function(name: str, generator: torch.Generator) -> None:
    spec = ws.mlp(2, 6, 1, activation="tanh")
    w = testing.random_weights(spec, 5, generator=generator)
    moved = ws.Symmetry.sample(spec, batch=5, generator=generator, parts=("scale", "shift")).act(w)
    other = ws.mlp(2, 6, 1, activation=name)
    with pytest.raises(AssertionError, match="functions: largest difference"):
        testing.assert_same_function(ws.Weights(w.flat, other), ws.Weights(moved.flat, other))


def test_a_negative_scale_on_a_relu_changes_the_function(generator: torch.Generator) -> None:
    spec = ws.mlp(2, 6, 1, activation="relu")
    w = testing.random_weights(spec, 5, generator=generator)
    with pytest.raises(AssertionError, match="functions: largest difference"):
        testing.assert_same_function(w, ws.Symmetry(spec, 5, scale={"h1": -torch.ones(5, 6)}, check=False).act(w))


def test_gradients_pass_through_the_action(generator: torch.Generator) -> None:
    spec = ws.mlp(2, 3, 4, 1, activation=["sine", "relu"])
    flat = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64).flat.requires_grad_()
    g = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: g.act(ws.Weights(f, spec)).flat, (flat,))
    scale = {name: s.clone().requires_grad_() for name, s in g.scale.items() if name == "h2"}

    def act(s: Tensor) -> Tensor:
        return replace(g, scale={**g.scale, "h2": s}).act(ws.Weights(flat.detach(), spec)).flat

    assert torch.autograd.gradcheck(act, (scale["h2"],))


# Parameters of more than two axes.


def _act_by_loops(g: ws.Symmetry, w: ws.Weights) -> ws.Weights:
    """The definition, one number at a time."""
    moved, spec = w.clone(), w.spec
    for param in spec.params:
        shape = spec.shape(param.name)
        for b, index in itertools.product(range(len(w)), itertools.product(*map(range, shape))):
            source = [int(g.perm[n][b, i]) if n in g.perm else i for n, i in zip(param.axes, index, strict=True)]
            value = w.view(param.name)[(b, *source)]
            for place, (name, i) in enumerate(zip(param.axes, index, strict=True)):
                axis = spec.axis(name)
                if not axis.hidden:
                    continue
                if place == 0:
                    value = g.scale[name][b, i] * value if name in g.scale else value
                    if param.kind == "bias" and name in g.shift:
                        value = value + g.shift[name][b, i] * axis.phase_step
                elif (sigma := g.sigma(name)) is not None:
                    value = value / sigma[b, i]
            moved.view(param.name)[(b, *index)] = value
    return moved


def test_convolutions_and_unfolded_columns_move_along_the_right_axes(conv_spec, generator) -> None:
    w = testing.random_weights(conv_spec, 2, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(conv_spec, batch=2, generator=generator, dtype=torch.float64)
    assert set(g.perm) == {"h1", "h2"}
    _assert_same_weights(g.act(w), _act_by_loops(g, w))
    _assert_same_weights(g.inverse().act(g.act(w)), w)


def test_a_convolutional_network_computes_the_same(conv_spec, generator) -> None:
    """The unfolded columns, folded back, belong to the same function of an image."""
    w = testing.random_weights(conv_spec, 3, generator=generator, dtype=torch.float64)
    moved = ws.Symmetry.sample(conv_spec, batch=3, generator=generator, dtype=torch.float64).act(w)
    images = torch.randn(4, 3, 6, 7, generator=generator, dtype=torch.float64)

    def forward(state: dict[str, Tensor]) -> Tensor:
        h = torch.relu(torch.conv2d(images, state["conv1.weight"], state["conv1.bias"]))
        h = torch.sin(2.0 * torch.conv2d(h, state["conv2.weight"], state["conv2.bias"]))
        return h.flatten(1) @ state["fc.weight"].flatten(1).T + state["fc.bias"]

    for a, b in zip(w.state_dicts(), moved.state_dicts(), strict=True):
        torch.testing.assert_close(forward(a), forward(b), atol=1e-10, rtol=1e-10)
        assert not torch.allclose(a["fc.weight"], b["fc.weight"])


@pytest.mark.parametrize("group", ["permutation", "signed", "scaled"])
def test_features_move_channel_by_channel(conv_spec, group: testing.Group, generator: torch.Generator) -> None:
    flat = torch.randn(2, conv_spec.num_params, 3, generator=generator, dtype=torch.float64)
    g = random_symmetry(conv_spec, 2, generator=generator, group=group)
    moved = g.act(ws.Weights(flat, conv_spec))
    for c in range(3):
        assert torch.equal(moved.flat[..., c], g.act(ws.Weights(flat[..., c], conv_spec)).flat)


# Networks without biases cannot be shifted.


def test_phase_is_left_out_where_there_is_no_bias(generator: torch.Generator) -> None:
    spec = ws.siren(2, 8, 8, 1, bias=False)
    w = testing.random_weights(spec, 3, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=3, generator=generator)
    testing.assert_same_function(w, g.act(w))


# Bad input.

SPEC = ws.siren(2, 8, 8, 1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda g, w: g.act(w[:2]), "expected 3 networks, one for each group element, got 2"),
        (
            lambda g, w: g.act(ws.Weights(w.flat, ws.mlp(2, 8, 8, 1, activation="tanh"))),
            "expected networks of siren.*got mlp.*tanh",
        ),
        (lambda g, w: g.act(ws.Weights(w.flat[:, :, None], SPEC)), "carry no phase; sample with group='scaled'"),
        (lambda g, w: g @ g[:2], "expected elements for one spec and batch"),
        (lambda g, w: g @ ws.Symmetry.identity(ws.mlp(2, 8, 8, 1), batch=3), "expected elements for one spec"),
        (
            lambda g, w: ws.Symmetry(SPEC, 3, perm={"out": torch.zeros(3, 1, dtype=torch.int64)}),
            r"perm: expected hidden axes \['h1', 'h2'\], got 'out'",
        ),
        (
            lambda g, w: ws.Symmetry(SPEC, 3, scale={"h1": torch.ones(3, 7)}),
            r"scale\['h1'\]: expected shape \[3, 8\], got \[3, 7\]",
        ),
        (
            lambda g, w: ws.Symmetry.sample(SPEC, batch=3, generator=torch.Generator(), max_scale=0.5),
            "expected max_scale >= 1",
        ),
        (lambda g, w: ws.Symmetry.sample(SPEC, batch=3, generator=torch.Generator(), max_shift=-1), "max_shift >= 0"),
    ],
)
def test_bad_input_is_refused(make: Callable[..., object], text: str, generator: torch.Generator) -> None:
    w = testing.random_weights(SPEC, 3, generator=generator)
    g = ws.Symmetry.sample(SPEC, batch=3, generator=generator)
    with pytest.raises(ValueError, match=text):
        make(g, w)


def test_a_generator_is_needed() -> None:
    with pytest.raises(TypeError, match=r"generator: expected a torch.Generator, got int"):
        ws.Symmetry.sample(SPEC, batch=3, generator=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "part", "text"),
    [
        (ws.mlp(2, 3, 1, activation="gelu"), "scale", "gelu commutes with no scale"),
        (ws.mlp(2, 3, 1, activation="relu"), "shift", "expected a periodic activation, got relu"),
        (ws.siren(2, 3, 1, bias=False), "shift", "needs exactly one bias"),
    ],
)
def test_parts_that_change_the_function_are_refused(spec: ws.NetSpec, part: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ws.Symmetry(spec, 2, **{part: {"h1": torch.ones(2, 3)}})


@pytest.mark.parametrize(
    ("activation", "part", "value", "text"),
    [
        ("sine", "perm", torch.zeros(2, 3, dtype=torch.int64), "expected an int64 permutation of 0 to 2"),
        ("sine", "perm", torch.tensor([[0, 1, 3]] * 2), "expected an int64 permutation"),
        ("sine", "perm", torch.tensor([[0.0, 1.0, 2.0]] * 2), "expected an int64 permutation"),
        ("sine", "scale", 2 * torch.ones(2, 3), "expected signs"),
        ("relu", "scale", -torch.ones(2, 3), "expected positive numbers"),
        ("sine", "shift", 0.5 * torch.ones(2, 3), "expected whole numbers"),
    ],
)
def test_numbers_that_are_no_group_element_are_refused(activation: str, part: str, value: Tensor, text: str) -> None:
    spec = ws.siren(2, 3, 1) if activation == "sine" else ws.mlp(2, 3, 1, activation=activation)
    with pytest.raises(ValueError, match=text):
        ws.Symmetry(spec, 2, **{part: {"h1": value}})


def test_other_things_than_specs_weights_and_elements_are_refused() -> None:
    spec = ws.siren(2, 3, 1)
    g = ws.Symmetry.identity(spec, batch=2)
    with pytest.raises(TypeError, match="expected a NetSpec"):
        ws.Symmetry.identity(None, batch=2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="expected Weights"):
        g.act(torch.zeros(2, spec.num_params))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = g @ 3  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(ValueError, match="whole max_shift"):
        ws.Symmetry.sample(spec, batch=2, generator=torch.Generator(), max_shift=0.5)  # pyright: ignore[reportArgumentType]


# Linear axes and blocks.

RANK = ws.mlp(2, 6, 3, 1, activation=("relu", "linear"))


def _tokens() -> Tensor:
    return torch.linspace(-1, 1, 35, dtype=torch.float64).view(7, 5)


def test_matrices_and_blocks_keep_attention() -> None:
    spec, gen = attention_spec(), generator()
    w = networks(spec, 4)
    g, h = (ws.Symmetry.sample(spec, batch=4, generator=gen, dtype=torch.float64) for _ in range(2))
    expected = attend(w, _tokens())
    assert float((g.act(w).flat - w.flat).abs().max()) > 0.5
    torch.testing.assert_close(attend(g.act(w), _tokens()), expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close((g @ h).act(w).flat, g.act(h.act(w)).flat, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(g.inverse().act(g.act(w)).flat, w.flat, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close((g @ g.inverse()).act(w).flat, w.flat, atol=1e-9, rtol=1e-9)
    for wrong in (g.inverse() @ h, g.inverse().inverse() @ g):  # the control: neither is the identity
        assert float((wrong.act(w).flat - w.flat).abs().max()) > 0.1
    ws.Symmetry(spec, 4, g.perm, g.scale, g.shift, g.linear)
    halves = ws.Symmetry.cat([g[:1], ws.Symmetry.identity(spec, batch=1), g[2:]])
    torch.testing.assert_close(halves.act(w).flat[[0, 2, 3]], g.act(w).flat[[0, 2, 3]])
    torch.testing.assert_close(halves.act(w).flat[1], w.flat[1])
    chosen = ws.Symmetry.where(torch.tensor([True, False, True, False]), g, g.identity_like())
    torch.testing.assert_close(chosen.act(w).flat[:2], torch.stack([g.act(w).flat[0], w.flat[1]]))


def test_groups_below_full_move_no_matrices() -> None:
    spec = attention_spec()
    for group in ("permutation", "signed", "scaled"):
        g = ws.Symmetry.sample(spec, batch=3, generator=generator(), group=group)
        assert (sorted(g.perm), g.linear) == (["h1", "qk", "vo"], {})
        torch.testing.assert_close(
            attend(g.act(networks(spec, 3)), _tokens()), attend(networks(spec, 3), _tokens()), atol=1e-9, rtol=1e-9
        )


def test_samples_of_matrices_are_conditioned() -> None:
    g = ws.Symmetry.sample(RANK, batch=200, generator=generator(), max_scale=3.0, dtype=torch.float64)
    values = torch.linalg.svdvals(g.linear["h2"])
    assert 1 / 3 <= float(values.min()) < 0.5
    assert 2 < float(values.max()) <= 3
    rotations = ws.Symmetry.sample(RANK, batch=200, generator=generator(), max_scale=1.0, dtype=torch.float64)
    assert 0.3 < float((torch.linalg.det(rotations.linear["h2"]) > 0).double().mean()) < 0.7


def test_specs_of_linear_axes_travel() -> None:
    spec = attention_spec()
    assert ws.NetSpec.from_json(spec.to_json()) == spec
    assert "blocks" not in RANK.to_json()
    assert "qk:3x4 linear" in repr(spec)
    assert [a.name for a in spec.blocked] == ["qk", "vo"]


BLOCKS = torch.arange(12).view(3, 4)
BAD: dict[str, tuple[dict[str, dict[str, Tensor]], str]] = {
    "singular": ({"linear": {"qk": torch.zeros(1, 3, 4, 4)}}, r"linear\['qk'\]: expected finite matrices"),
    "not finite": ({"linear": {"qk": torch.full((1, 3, 4, 4), torch.nan)}}, "expected finite matrices"),
    "one matrix": ({"linear": {"qk": torch.eye(12)[None]}}, r"linear\['qk'\]: expected shape \[1, 3, 4, 4\]"),
    "no linear axis": ({"linear": {"h1": torch.eye(6)[None, None]}}, r"linear\['h1'\]: expected a linear axis, got "),
    "scales": ({"scale": {"qk": torch.ones(1, 12)}}, r"scale\['qk'\]: linear commutes with no scale"),
    "torn": ({"perm": {"qk": BLOCKS.T.reshape(1, 12)}}, r"perm\['qk'\]: expected whole blocks of 4 to move"),
    "alone": ({"perm": {"qk": BLOCKS.flip(0).reshape(1, 12)}}, r"perm\['vo'\]: expected its blocks to move with"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_element_of_the_linear_group(name: str) -> None:
    parts, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        ws.Symmetry(attention_spec(), 1, **parts)


def test_blocks_without_matrices_keep_their_order_inside() -> None:
    axes = (ws.Axis("in", 2), ws.Axis("h", 6, "other", blocks=3), ws.Axis("out", 1))
    spec = ws.NetSpec(axes, (ws.Param("a", ("h", "in")), ws.Param("b", ("out", "h"))))
    inside = torch.tensor([[1, 0, 2, 3, 4, 5]])
    with pytest.raises(ValueError, match=r"perm\['h'\]: expected whole blocks of 2 to move, in their order inside"):
        ws.Symmetry(spec, 1, {"h": inside})
    g = ws.Symmetry.sample(spec, batch=50, generator=generator())
    assert (g.perm["h"][:, 1::2] - g.perm["h"][:, ::2] == 1).all()
    assert not g.linear


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        (lambda: ws.Axis("h", 6, "linear", blocks=4), "expected blocks of one size .* got 4 blocks of 6 linear"),
        (lambda: ws.Axis("h", 6, "relu", blocks=3), "expected blocks of one size on an axis of 'linear' or 'other'"),
        (lambda: ws.Axis("h", 6, "linear", blocks=0), "expected at least 1 block, got 0"),
        (lambda: ws.Axis("h", 6, "linear", blocks=3, follows="x"), "expected to follow an axis of 3 blocks"),
        (lambda: ws.Axis("h", 6, "linear", follows="h"), "expected to follow an axis of 1 blocks that follows none"),
    ],
)
def test_blocks_that_fit_nothing(axis: Callable[[], ws.Axis], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ws.NetSpec((ws.Axis("in", 2), axis(), ws.Axis("out", 1)), (ws.Param("a", ("h", "in")),))


def test_duals_and_norms_of_linear_axes() -> None:
    axes = (ws.Axis("in", 2), ws.Axis("h", 3, "linear"), ws.Axis("out", 1))
    with pytest.raises(ValueError, match="parameter 'a': expected a dual one to produce a linear axis, got out"):
        ws.NetSpec(axes, (ws.Param("b", ("h", "in")), ws.Param("a", ("out", "h"), dual=True)))
    with pytest.raises(
        ValueError, match="parameter 'n': expected a norm's axis to have permutations alone, got linear"
    ):
        ws.NetSpec(axes, (ws.Param("b", ("h", "in")), ws.Param("n", ("h",), "norm")))


def test_models_say_that_they_do_not_commute_with_matrices() -> None:
    for name, expected in (("dwsnet", "permutation"), ("scale-gmn", "scaled"), ("probe-gen", "full")):
        model = ws.models.build(name, RANK, 3, seed=0).double()
        assert model.equivariance == expected, name
        ws.testing.assert_invariant(model, RANK, group=model.equivariance, atol=1e-6, rtol=1e-6)
        if expected != "full":
            with pytest.raises(AssertionError, match=r"invariance \(full\)"):
                ws.testing.assert_invariant(model, RANK, group="full", atol=1e-6, rtol=1e-6)


def test_aligners_that_tear_heads_apart_refuse() -> None:
    spec = attention_spec()
    a, b = networks(spec, 1), networks(spec, 1, seed=2)
    for aligner in (ws.align.sinkhorn, partial(ws.align.match_activations, inputs=torch.zeros(3, 5))):
        with pytest.raises(ValueError, match=r"got blocks \(heads\) on \['qk', 'vo'\]; use ws.align.match"):
            aligner(a, b)
    with pytest.raises(ValueError, match=r"use ws\.align\.match"):
        ws.align.LearnedAligner(spec)


def test_the_text_of_an_element_is_one_line() -> None:
    spec = ws.mlp(2, *[64] * 7, 1, activation="tanh")
    g = ws.Symmetry.sample(spec, batch=9, generator=generator())
    assert "\n" not in repr(g)
    assert "perm of h1, h2, h3, h4 and 3 more axes; scale of h1" in repr(g)
    assert len(repr(g)) < 300
    assert repr(ws.Symmetry(ws.siren(2, 4, 1), 2)) == "Symmetry(2 x siren(2-4-1, omega=30), identity)"
