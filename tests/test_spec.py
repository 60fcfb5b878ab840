"""NetSpec: constructors, JSON, hash, derived quantities, and everything it refuses."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch

import weightspace as ws
from weightspace import testing
from weightspace._activation import ACTIVATIONS
from weightspace._spec import Axis, NetSpec, Param

SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
def test_json_round_trip_hash_and_copies(seed: int) -> None:
    spec = testing.random_spec(generator=torch.Generator().manual_seed(seed))
    for other in (NetSpec.from_json(spec.to_json()), pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
        assert other == spec
        assert hash(other) == hash(spec)
        assert other.to_json() == spec.to_json()
    assert {spec: 1}[NetSpec.from_json(spec.to_json())] == 1


def test_json_round_trip_of_a_convolution(conv_spec: NetSpec) -> None:
    assert NetSpec.from_json(conv_spec.to_json()) == conv_spec
    assert conv_spec.shape("conv2.weight") == (4, 5, 3, 3)
    assert conv_spec.num_params == 5 * 27 + 5 + 20 * 9 + 4 + 2 * 4 * 6 + 2


def test_specs_that_differ_are_unequal() -> None:
    base = ws.siren(2, 8, 8, 1)
    others = [
        ws.siren(2, 8, 8, 1, omega=29.0),
        ws.siren(2, 8, 8, 1, omega=[30.0, 1.0]),
        ws.siren(2, 8, 8, 1, output_shift=0.0),
        ws.siren(2, 8, 8, 1, init="siren", output_shift=0.5),
        ws.siren(2, 8, 9, 1),
        ws.siren(2, 8, 8, 1, bias=False),
        ws.mlp(2, 8, 8, 1, activation="tanh"),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert base == ws.siren(2, 8, 8, 1, omega=30)
    assert base.to_json() == ws.siren(2, 8, 8, 1, omega=30).to_json()


def test_constructors() -> None:
    spec = ws.siren(2, 32, 16, 1, omega=[30.0, 1.0])
    assert [p.name for p in spec.params] == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert [(a.name, a.size, a.activation, a.omega) for a in spec.hidden] == [
        ("h1", 32, "sine", 30.0),
        ("h2", 16, "sine", 1.0),
    ]
    assert (spec.output_shift, spec.init) == (0.5, "dws")
    assert ws.siren(2, 8, 1, init="siren").output_shift == 0.0
    assert ws.siren(2, 8, 1, init="siren", output_shift=0.5).output_shift == 0.5
    spec = ws.mlp(2, 8, 4, 3, activation=["relu", "gelu"], bias=False)
    assert [a.activation for a in spec.hidden] == ["relu", "gelu"]
    assert spec.num_params == 16 + 32 + 12
    assert ws.mlp(2, 3).hidden == ()


def test_layers_follow_names_not_order() -> None:
    spec = ws.mlp(2, 8, 4, 3)
    shuffled = NetSpec(spec.axes[::-1], spec.params[::-1])
    assert [(layer.weight, layer.bias) for layer in shuffled.layers] == [
        ("0.weight", "0.bias"),
        ("1.weight", "1.bias"),
        ("2.weight", "2.bias"),
    ]
    assert shuffled.slices["2.bias"] == slice(0, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_specs_are_as_wanted(seed: int) -> None:
    spec = testing.random_spec(generator=torch.Generator().manual_seed(seed), max_hidden_layers=3)
    sizes = [axis.size for axis in spec.hidden]
    assert 1 <= len(sizes) <= 3
    assert len(set(sizes)) == len(sizes)
    assert min(sizes) > 1
    assert len(spec.layers) == len(sizes) + 1


def test_random_specs_reach_every_activation_and_depth() -> None:
    gen = torch.Generator().manual_seed(0)
    specs = [testing.random_spec(generator=gen) for _ in range(60)]
    assert {a.activation for spec in specs for a in spec.hidden} == set(ACTIVATIONS)
    assert {len(spec.hidden) for spec in specs} == {1, 2, 3, 4}
    assert any(a.omega > 5 for spec in specs for a in spec.hidden)
    assert testing.random_spec(generator=torch.Generator().manual_seed(7)) == testing.random_spec(
        generator=torch.Generator().manual_seed(7)
    )


IN, H1, OUT = Axis("in", 2), Axis("h1", 4, "relu"), Axis("out", 1)
W1, W2 = Param("0.weight", ("h1", "in")), Param("1.weight", ("out", "h1"))


OTHER = Axis("h1", 4, "other")


def _traced() -> NetSpec:
    """A norm, and a linear layer that reads a concatenation of a flattened picture and features."""
    return NetSpec(
        (IN, OTHER, Axis("h2", 3, "relu"), Axis("pos", 6), OUT),
        (
            W1,
            Param("n.weight", ("h1",), "norm"),
            Param("n.running_var", ("h1",), "norm"),
            Param("a.weight", ("h2", "in")),
            Param("fc.weight[0]", ("out", "h1", "pos"), key="fc.weight", folded=True),
            Param("fc.weight[1]", ("out", "h2"), key="fc.weight"),
        ),
    )


def test_parts_and_norms_in_json_and_state_dicts() -> None:
    spec = _traced()
    assert NetSpec.from_json(spec.to_json()) == spec
    assert [p.name for p in spec.by_state_key["fc.weight"]] == ["fc.weight[0]", "fc.weight[1]"]
    assert spec.shape("fc.weight[0]") == (1, 4, 6)
    assert spec.state_shape("fc.weight[0]") == (1, 24)
    assert [p.name for p in spec.params if p.statistic] == ["n.running_var"]
    w = testing.random_weights(spec, 2, generator=torch.Generator().manual_seed(0))
    assert bool((w.view("n.running_var") > 0.5).all())
    state = w.state_dict(1)
    assert list(state) == ["0.weight", "n.weight", "n.running_var", "a.weight", "fc.weight"]
    assert state["fc.weight"].equal(torch.cat([w.view("fc.weight[0]")[1].flatten(1), w.view("fc.weight[1]")[1]], 1))
    counted = {**state, "n.num_batches_tracked": torch.tensor(3)}
    assert ws.Weights.from_state_dicts([counted], spec).flat.equal(w.flat[1:])
    with pytest.raises(ValueError, match=r"'fc.weight': expected shape \[1, 27\], got \[1, 26\]"):
        ws.Weights.from_state_dicts([{**state, "fc.weight": torch.zeros(1, 26)}], spec)


def test_specs_of_before_read_and_are_written_as_they_were() -> None:
    text = (
        '{"axes": [{"activation": null, "name": "in", "omega": 1.0, "size": 2}, {"activation": "relu", "name": "h1", '
        '"omega": 1.0, "size": 4}, {"activation": null, "name": "out", "omega": 1.0, "size": 1}], "format": 1, '
        '"init": "torch", "input": "in", "output": "out", "output_shift": 0.0, "params": [{"axes": ["h1", "in"], '
        '"kind": "weight", "name": "0.weight"}, {"axes": ["out", "h1"], "kind": "weight", "name": "1.weight"}]}'
    )
    assert NetSpec.from_json(text) == ws.mlp(2, 4, 1, bias=False)
    assert ws.mlp(2, 4, 1, bias=False).to_json() == text


@pytest.mark.parametrize(
    ("axes", "params", "text"),
    [
        ((IN, H1, OUT), (W1, W2, Param("n", ("h1",), "norm")), "expected a norm's axis to have permutations alone"),
        ((IN, OTHER, OUT), (W1, W2, Param("n", ("in", "h1"), "norm")), "'h1' later in"),
        (
            (IN, H1, OUT),
            (W1, Param("1[0]", ("out", "h1"), key="1"), Param("1[1]", ("h1", "in"), key="1")),
            "state dict key '1': expected parts of one kind that fit together",
        ),
        ((IN, H1, OUT), (Param("0.weight", ("h1", "h1")), W2), "names axis 'h1' twice"),
        ((IN, H1, OUT), (W1, W2, Param("r", ("out", "in", "out"))), "names axis 'out' twice"),
        ((IN, H1, OUT), (W1, Param("1.weight", ("out", "h2"))), r"unknown axes \['h2'\]"),
        ((IN, H1, OUT), (W1, W1, W2), r"distinct parameter names, got \['0.weight'\]"),
        ((IN, H1, H1, OUT), (W1, W2), r"distinct axis names, got \['h1'\]"),
        ((IN, H1, OUT), (W2,), "'h1' is produced by no parameter"),
        ((IN, H1, OUT), (), "at least one parameter"),
        ((IN, H1, OUT), (W1, W2, Param("b", ("h1", "in"), "bias")), "a bias cannot have the axes"),
        ((IN, H1, OUT), (W1, W2, Param("b", ("h1",))), "a weight cannot have the axes"),
        (
            (IN, H1, OUT),
            (W1, W2, Param("b", ("h1",), "gain")),
            "expected kind 'weight' or 'bias' or 'norm', got 'gain'",
        ),
        ((IN, H1, OUT), (W1, Param("1.weight", ("out", "in", "h1"))), "'h1' later in"),
        ((IN, H1), (W1,), "expected 'out' among the axes"),
        ((Axis("in", 2, "relu"), H1, OUT), (W1, W2), "expected 'in' among the axes and without activation"),
    ],
)
def test_malformed_specs_are_refused(axes: tuple[Axis, ...], params: tuple[Param, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NetSpec(axes, params)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ws.mlp(2, 8, 1, activation="swish"), "unknown activation: expected one of .*got 'swish'"),
        (lambda: ws.mlp(2, 8, 1, activation=["relu", "relu"]), "one for each of the 1 hidden layers, got 2"),
        (lambda: ws.mlp(2), "at least an input and an output width"),
        (lambda: ws.mlp(2, 0, 1), "size of at least 1, got 0"),
        (lambda: ws.mlp(2, True, 1), "size of at least 1, got True"),
        (lambda: ws.siren(2, 8, 1, omega=0.0), "positive omega, got 0.0"),
        (lambda: ws.siren(2, 8, 1, omega=float("nan")), "positive omega, got nan"),
        (lambda: ws.siren(2, 8, 1, init="kaiming"), "unknown init: expected one of .*got 'kaiming'"),  # type: ignore[arg-type]
        (lambda: ws.mlp(2, 8, 1, output_shift=float("inf")), "finite output shift, got inf"),
        (lambda: testing.random_spec(generator=torch.Generator(), max_hidden_layers=0), "expected 1 to 8, got 0"),
        (lambda: testing.random_spec(generator=torch.Generator(), activation="swish"), "unknown activation"),
    ],
)
def test_constructors_refuse(make, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ws.siren(2, 8, 1, omega="30"), "axis 'h1': expected a positive omega, got '30'; pass a plain"),  # type: ignore[arg-type]
        (lambda: ws.siren(2, 8, 1, omega=None), "expected a positive omega, got None"),  # type: ignore[arg-type]
        (lambda: ws.siren(2, 8, 1, output_shift="a"), "expected a finite output shift, got 'a'"),  # type: ignore[arg-type]
        (lambda: NetSpec.from_json(None), "expected a NetSpec as JSON text, got NoneType; make .* spec.to_json"),  # type: ignore[arg-type]
    ],
)
def test_other_types_are_refused(make, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make()


def test_a_hidden_layer_needs_an_activation() -> None:
    for activation in (None, ["relu", None]):
        with pytest.raises(ValueError, match=r"unknown activation: expected one of .*got None"):
            ws.mlp(2, 8, 8, 1, activation=activation)  # type: ignore[arg-type]
    assert not ws.mlp(2, 1, activation=None).hidden  # type: ignore[arg-type]  # no hidden layer asks for one


def test_unknown_axis() -> None:
    with pytest.raises(KeyError, match=r"no axis 'zz': expected one of \['in', 'h1', 'out'\]"):
        ws.mlp(2, 8, 1).axis("zz")


def _edited(**changes: object) -> str:
    return json.dumps({**json.loads(ws.mlp(2, 8, 1).to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a NetSpec as JSON"),
        ("[1]", "expected a NetSpec as JSON"),
        ("7", "expected a NetSpec as JSON"),
        ("{}", "with a 'format' field"),
        (_edited(format=99), "expected NetSpec format 1, got 99"),
        (_edited(format="1"), "expected NetSpec format 1, got '1'"),
        (_edited(colour="red"), "malformed NetSpec: .*colour"),
        (_edited(axes=3), "malformed NetSpec"),
        (_edited(output_shift="a"), "malformed NetSpec: .*finite output shift, got 'a'"),
        (_edited(axes=[{"name": "in"}]), "malformed NetSpec: .*size"),
        (_edited(params=[{"name": "w"}]), "malformed NetSpec: .*axes"),
        (_edited(axes=[]), "expected 'in' among the axes"),
    ],
)
def test_json_that_is_no_spec_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetSpec.from_json(text)


def test_layers_refuse_what_is_no_chain(conv_spec: NetSpec) -> None:
    with pytest.raises(ValueError, match=r"'conv1.weight' with axes .*needs 2-D weights"):
        _ = conv_spec.layers
    skip = NetSpec((IN, H1, OUT), (W1, W2, Param("skip", ("out", "in"))))
    with pytest.raises(ValueError, match=r"\['0.weight', 'skip'\] that consume axis 'in'"):
        _ = skip.layers
    two = NetSpec((IN, H1, OUT), (W1, W2, Param("a", ("h1",), "bias"), Param("b", ("h1",), "bias")))
    with pytest.raises(ValueError, match="one bias on axis 'h1', got"):
        _ = two.layers
    aside = NetSpec((IN, H1, OUT), (W1, W2, Param("a", ("in",), "bias")))
    with pytest.raises(ValueError, match=r"got \['a'\] outside of it"):
        _ = aside.layers
    loop = NetSpec((IN, H1, Axis("h2", 4, "relu"), OUT), (W1, Param("a", ("h2", "h1")), Param("b", ("h1", "h2"))))
    with pytest.raises(ValueError, match="sequential network"):
        _ = loop.layers


def test_unknown_parameter() -> None:
    with pytest.raises(KeyError, match=r"no parameter '9.weight': expected one of"):
        ws.mlp(2, 8, 1).shape("9.weight")
