"""Models: one contract for all of them, the equivariant layer spans the whole space, broken layers are caught."""

from __future__ import annotations

import itertools
import math
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing
from weightspace.models import MODELS, DWSNet, EquivariantLinear, InvariantHead, Model, Normalize

TIGHT = {"atol": 1e-8, "rtol": 1e-8, "dtype": torch.float64}


@pytest.fixture(autouse=True)
def quick_and_seeded():
    """One thread for tiny networks; models draw their initial parameters from the global generator."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


# The contract of every model. A new model adds one row.


@dataclass(frozen=True)
class Row:
    """One model under test: its name in ``MODELS``, its outputs, small options, what it gives."""

    name: str
    out_features: int
    options: dict[str, Any] = field(default_factory=dict)
    gives: str = "tensor"

    def build(self, spec: ws.NetSpec, **more: Any) -> Model:
        return ws.models.build(self.name, spec, self.out_features, **self.options, **more)


SMALL_SIZES = {"hidden": 8, "layers": 2}
FORWARD = {**SMALL_SIZES, "channels": 6, "functions": 5, "bumps": 4, "rank": 2}
ROWS = {
    "dwsnet": Row("dwsnet", 3, {"hidden": 6, "layers": 2}),
    "dwsnet to weights": Row("dwsnet", 1, {"hidden": 5, "layers": 2, "head": "equivariant"}, "weights"),
    "dwsnet to edits": Row("dwsnet", 1, {"hidden": 5, "layers": 1, "head": "editing"}, "weights"),
    "dwsnet to features": Row("dwsnet", 2, {"hidden": 5, "layers": 1, "head": "equivariant"}, "features"),
    "dwsnet with attention": Row("dwsnet", 3, {**SMALL_SIZES, "attention": 2}),
    "dwsnet with attention to weights": Row(
        "dwsnet", 1, {**SMALL_SIZES, "attention": 2, "head": "equivariant"}, "weights"
    ),
    "forward-messages": Row("forward-messages", 3, FORWARD),
    "forward-messages without bumps": Row("forward-messages", 3, {**FORWARD, "bumps": 0}),
    "forward-messages through activations": Row("forward-messages", 3, {**FORWARD, "learned": False}),
    "functional": Row("functional", 3, {"hidden": 4, "layers": 2, "size": 6}),
    "gmn": Row("gmn", 3, SMALL_SIZES),
    "gmn forward": Row("gmn", 3, {**SMALL_SIZES, "direction": "forward"}),
    "gmn to weights": Row("gmn", 1, {**SMALL_SIZES, "head": "equivariant"}, "weights"),
    "hybrid": Row("hybrid", 3, {**SMALL_SIZES, "points": 6, "rank": 2, "neurons": 3}),
    "hybrid with learned biases": Row("hybrid", 3, {**SMALL_SIZES, "points": 6, "rank": 2, "phase": False}),
    "hybrid without mixing": Row("hybrid", 3, {**SMALL_SIZES, "points": 6, "rank": 0}),
    "hybrid on a grid": Row("hybrid-grid", 3, {"hidden": 4, "layers": 2, "size": 5, "rank": 2}),
    "hybrid on a grid, outputs alone": Row("hybrid-grid", 3, {"hidden": 4, "layers": 1, "size": 3, "back": False}),
    "inr2vec": Row("inr2vec", 3, SMALL_SIZES),
    "mlp": Row("mlp", 3, {"hidden": 16, "layers": 2}),
    "mlp to embeddings": Row("mlp", 3, {"hidden": 16, "layers": 2, "head": "embedding"}),
    "nfn-hnp": Row("nfn-hnp", 3, SMALL_SIZES),
    "nfn-hnp to weights": Row("nfn-hnp", 1, {**SMALL_SIZES, "head": "equivariant"}, "weights"),
    "nfn-np": Row("nfn-np", 3, SMALL_SIZES),
    "nfn-np with frequencies": Row("nfn-np", 3, {**SMALL_SIZES, "fourier": 3}),
    "nfn-np to features": Row("nfn-np", 2, {**SMALL_SIZES, "head": "equivariant"}, "features"),
    "nft": Row("nft", 3, {**SMALL_SIZES, "queries": 2, "fourier": 5}),
    "nft to features": Row("nft", 2, {**SMALL_SIZES, "fourier": 5, "head": "equivariant"}, "features"),
    "ng-gnn": Row("ng-gnn", 3, {**SMALL_SIZES, "fourier": 5}),
    "ng-gnn with probes": Row("ng-gnn", 3, {**SMALL_SIZES, "fourier": 5, "probes": 3}),
    "ng-gnn to weights": Row("ng-gnn", 1, {**SMALL_SIZES, "fourier": 5, "head": "equivariant"}, "weights"),
    "ng-t": Row("ng-t", 3, {**SMALL_SIZES, "fourier": 5, "attention_heads": 4}),
    "ng-t with probes": Row("ng-t", 3, {**SMALL_SIZES, "fourier": 5, "probes": 3}),
    "ng-t to features": Row("ng-t", 2, {**SMALL_SIZES, "fourier": 5, "head": "equivariant"}, "features"),
    "probe-gen": Row("probe-gen", 3, {**SMALL_SIZES, "probes": 7, "latent": 3}),
    "scale-gmn": Row("scale-gmn", 3, SMALL_SIZES),
    "scale-gmn forward": Row("scale-gmn", 3, {**SMALL_SIZES, "direction": "forward"}),
    "scale-gmn of one round": Row("scale-gmn", 3, {"hidden": 8, "layers": 1}),
    "scale-gmn to weights": Row("scale-gmn", 1, {**SMALL_SIZES, "head": "equivariant"}, "weights"),
    "scale-gmn to edits": Row("scale-gmn", 1, {"hidden": 8, "layers": 1, "head": "editing"}, "weights"),
    "scale-gmn to embeddings": Row("scale-gmn", 4, {**SMALL_SIZES, "head": "embedding"}),
    "statistics": Row("statistics", 3, SMALL_SIZES),
    "typed-messages": Row("typed-messages", 3, SMALL_SIZES),
    "typed-messages of one round": Row("typed-messages", 3, {"hidden": 8, "layers": 1}),
    "weight-tokens": Row("weight-tokens", 3, SMALL_SIZES),
}
SPEC = ws.siren(2, 5, 4, 1)
KINDS = {  # every kind of symmetry that the activation table knows, alone and mixed
    "sine": SPEC,
    "relu": ws.mlp(2, 5, 4, 1),
    "tanh": ws.mlp(2, 5, 4, 1, activation="tanh"),
    "gaussian, relu": ws.mlp(2, 5, 4, 1, activation=("gaussian", "relu")),
    "relu, tanh, gelu": ws.mlp(2, 4, 3, 5, 2, activation=("relu", "tanh", "gelu")),
    "cosine, sine": ws.NetSpec(
        (ws.Axis("in", 2), ws.Axis("h1", 4, "cosine", 3.0), ws.Axis("h2", 5, "sine", 2.0), ws.Axis("out", 1)),
        ws.mlp(2, 4, 5, 1).params,
    ),
}
ANY_SPEC = {"dwsnet", "mlp", "nfn-hnp", "nfn-np", "nft", "statistics"}  # read convolutions and residual links too
BLIND = {"half a permutation"}  # statistics see no arrangement at all
every_model = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


def networks(spec: ws.NetSpec = SPEC, batch: int = 6, seed: int = 1, dtype: torch.dtype = torch.float32) -> ws.Weights:
    return testing.random_weights(spec, batch, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def numbers(out: Tensor | ws.Weights) -> Tensor:
    return out.flat if isinstance(out, ws.Weights) else out


def random_spec(seed: int) -> ws.NetSpec:
    return testing.random_spec(generator=torch.Generator().manual_seed(seed))


def fitted(model: Any, spec: ws.NetSpec) -> Any:
    """With statistics that are not those of a fresh layer."""
    (model if isinstance(model, Normalize) else model.normalize).fit(networks(spec, 20, seed=9))
    return model


def test_every_model_has_a_row() -> None:
    assert {row.name for row in ROWS.values()} == set(MODELS)
    heads = {(row.name, row.options.get("head", "invariant")) for row in ROWS.values()}
    assert {(name, head) for name, model in MODELS.items() for head in model.heads} <= heads


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_says_what_it_is(name: str) -> None:
    model = MODELS[name]
    assert issubclass(model, Model)
    assert model.respects in ("nothing", *testing.GROUPS)
    assert model.track in ("weights-only", "hybrid", "function")
    text = " ".join((model.__doc__ or "").split())
    assert all(part in text for part in ("Args:", "Raises:", "Example:", "Reference:"))
    if name not in ("functional", "mlp", "dwsnet"):
        assert "Departure" in text
    if name != "functional":
        assert "Published" in text
    assert "Cost" in text


def test_tracks_follow_what_a_model_reads() -> None:
    def track(name: str, **options: Any) -> str:
        return ws.models.build(name, SPEC, 2, hidden=8, layers=1, **options).track

    assert {name for name in MODELS if track(name) == "function"} == {"functional", "probe-gen"}
    assert {name for name in MODELS if track(name) == "hybrid"} == {"hybrid", "hybrid-grid"}
    assert [track(name, probes=2) for name in ("ng-gnn", "ng-t")] == ["hybrid"] * 2
    grid = ws.models.HybridGrid(SPEC, 2, hidden=4, layers=1, size=3, rank=0, back=False)
    points = [ws.models.Hybrid(SPEC, 2, points=4, rank=r, back=b) for r, b in ((0, False), (0, True), (2, False))]
    points.append(ws.models.Hybrid(SPEC, 2, points=4, rank=0, back=False, phase=False))  # no outputs of the network
    assert [model.track for model in (grid, *points)] == ["function", "function", "hybrid", "hybrid", "hybrid"]
    assert track("forward-messages", learned=False) == "hybrid"
    assert {track(name) for name in set(MODELS) - {"functional", "hybrid", "hybrid-grid", "probe-gen"}} == {
        "weights-only"
    }


@every_model
def test_every_model_can_be_pickled(row: Row) -> None:
    model, w = fitted(row.build(SPEC), SPEC).eval(), networks()
    torch.testing.assert_close(numbers(pickle.loads(pickle.dumps(model))(w)), numbers(model(w)))


@every_model
def test_output_shapes(row: Row, device: torch.device) -> None:
    for spec in (SPEC, ws.mlp(3, 4, 2, bias=False), random_spec(3)):
        out = row.build(spec).to(device)(networks(spec).to(device))
        expected = {
            "tensor": [6, row.out_features],
            "weights": [6, spec.num_params],
            "features": [6, spec.num_params, row.out_features],
        }
        assert list(numbers(out).shape) == expected[row.gives]
        assert isinstance(out, Tensor if row.gives == "tensor" else ws.Weights)
        assert numbers(out).device.type == device.type
        assert torch.isfinite(numbers(out)).all()


@every_model
@pytest.mark.parametrize("seed", range(5))
def test_a_model_respects_what_it_declares(row: Row, seed: int) -> None:
    spec = random_spec(seed)
    model = fitted(row.build(spec), spec)
    check = testing.assert_invariant if row.gives == "tensor" else testing.assert_equivariant
    if model.respects != "nothing":
        channels = {} if row.gives != "features" else {"channels": None}
        check(model, spec, group=model.respects, **channels, **TIGHT)
        return
    with pytest.raises(AssertionError, match="largest difference"):
        check(model, spec, **TIGHT)


def test_random_specs_have_one_to_four_hidden_layers() -> None:
    assert {len(random_spec(seed).hidden) for seed in range(8)} == {1, 2, 3, 4}


@every_model
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_respects_it_for_every_kind_of_activation(row: Row, kind: str) -> None:
    spec = KINDS[kind]
    model = fitted(row.build(spec), spec)
    if model.respects != "nothing":
        testing.assert_equivariant(model, spec, group=model.respects, **TIGHT)


@every_model
def test_a_model_respects_no_more_than_it_declares(row: Row) -> None:
    """Negative control: what the model does not claim fails the same check. Signs act on every neuron of a SIREN."""
    model = fitted(row.build(SPEC), SPEC)
    beyond: Any = {"nothing": "permutation", "permutation": "signed", "scaled": "full"}.get(model.respects)
    if beyond is not None:
        with pytest.raises(AssertionError, match="largest difference"):
            testing.assert_equivariant(model, SPEC, group=beyond, **TIGHT)
    if model.respects == "permutation":
        relu = ws.mlp(2, 5, 4, 1)
        with pytest.raises(AssertionError, match="largest difference"):
            testing.assert_equivariant(fitted(row.build(relu), relu), relu, group="scaled", **TIGHT)


@every_model
@pytest.mark.parametrize("broken", ["half a permutation", "a sign on one side", "inputs", "layers"])
def test_what_changes_the_function_changes_the_output(row: Row, broken: str) -> None:
    """Negative control outside every group: neurons moved in one of the two parameters that hold them, and such."""
    model, w = fitted(row.build(SPEC), SPEC).double().eval(), networks(dtype=torch.float64)
    other = w.clone()
    if broken == "half a permutation":
        for name in ("0.weight", "0.bias"):
            other.view(name).copy_(w.view(name).roll(1, 1))
    elif broken == "a sign on one side":
        other.view("2.weight")[:, :, 0] *= -1
    elif broken == "inputs":
        other.view("0.weight").copy_(w.view("0.weight").flip(2))
    else:
        other.view("1.weight").copy_(w.view("1.weight") + 0.05)
    with torch.no_grad():
        before, after = numbers(model(w)), numbers(model(other))
    moved = (after - before).flatten(1).abs().amax(1)
    assert (moved > 1e-6).any() == (row.name != "statistics" or broken not in BLIND)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_one_is_that_row(row: Row, training: bool) -> None:
    model, w = row.build(SPEC).train(training), networks()
    whole = numbers(model(w))
    shared = training and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    for i in (0, 5):
        alone = numbers(model(w[i]))
        if shared:  # in training a batch norm mixes the batch
            assert alone.shape == whole[i : i + 1].shape
            assert bool(alone.isfinite().all())
        else:
            torch.testing.assert_close(alone, whole[i : i + 1], atol=1e-5, rtol=1e-5)


@every_model
@pytest.mark.parametrize("kind", ["sine", "relu", "gaussian, relu"])
def test_every_parameter_is_read_and_every_weight_learns(row: Row, kind: str) -> None:
    model, w = fitted(row.build(KINDS[kind]), KINDS[kind]), networks(KINDS[kind])
    w.flat.requires_grad_()
    out = numbers(model(w))
    (out - torch.linspace(0, 1, out.numel()).view_as(out)).square().sum().backward()
    gradient = w.replace(w.flat.grad)
    for name, value in gradient.items():
        assert value.abs().max() > 0, name
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert model.num_parameters == sum(p.numel() for p in model.parameters())


@every_model
def test_input_is_not_written(row: Row) -> None:
    w = networks()
    before = w.flat.clone()
    row.build(SPEC)(w)
    assert torch.equal(w.flat, before)


@every_model
def test_state_dicts_carry_everything(row: Row) -> None:
    model, other, w = fitted(row.build(SPEC), SPEC), row.build(SPEC), networks()
    assert not torch.equal(numbers(model(w)), numbers(other(w)))
    other.load_state_dict(pickle.loads(pickle.dumps(model.state_dict())))
    assert torch.equal(numbers(model(w)), numbers(other(w)))
    assert bool(other.normalize.fitted)


@every_model
def test_bad_networks_are_refused(row: Row) -> None:
    model, w = row.build(SPEC), networks()
    other = ws.siren(2, 5, 4, 1, omega=10.0)  # as many parameters
    with pytest.raises(ValueError, match=r"built for siren\(2-5.*omega=30.*got networks of siren\(2-5.*omega=10"):
        model(ws.Weights(w.flat, other))
    with pytest.raises(ValueError, match=r"at least one network, got \[0, 44\]"):
        model(w[:0])
    with pytest.raises(ValueError, match=r"expected weights \[batch, param\].*got \[6, 44, 1\]"):
        model(w.replace(w.flat[..., None]))
    with pytest.raises(TypeError, match="expected Weights, got Tensor; wrap the tensor"):
        model(w.flat)
    with pytest.raises(TypeError, match=r"expected weights of the model's torch.float32, got torch.float64; cast"):
        model(w.to(torch.float64))
    assert numbers(row.build(SPEC).double()(w)).dtype == torch.float64
    for bad in (math.nan, math.inf):
        spoilt = w.clone()
        spoilt.flat[2, 3] = bad
        with pytest.raises(ValueError, match="expected finite weights, got 1 networks with NaN or infinity"):
            model(spoilt)
    huge = w.replace(torch.full_like(w.flat, 1e37))  # finite, though their sum is not
    assert numbers(model(huge)).shape == numbers(model(w)).shape


@every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_works(row: Row, dtype: torch.dtype) -> None:
    model, w = fitted(row.build(SPEC), SPEC).eval(), networks()
    exact = numbers(model(w))
    out = numbers(model.to(dtype)(w.to(dtype)))
    assert out.dtype == dtype
    limit = 0.3 if dtype == torch.bfloat16 else 0.05
    assert (out.float() - exact).abs().max() < limit * (1 + exact.abs().max())


@pytest.mark.parametrize("name", ["scale-gmn", "typed-messages"])
def test_features_of_positive_scales_do_not_overflow(name: str) -> None:
    spec = ws.mlp(2, 8, 8, 1)
    model, w = fitted(ws.models.build(name, spec, 3, hidden=32, layers=2), spec), networks(spec)
    out = numbers(model(w.replace(30 * w.flat)))
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@every_model
def test_autocast_works(row: Row) -> None:
    model, w = fitted(row.build(SPEC), SPEC).eval(), networks()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(numbers(model(w))).all()


@every_model
def test_a_saved_model_comes_back(row: Row, tmp_path: Path) -> None:
    model, w = fitted(row.build(SPEC), SPEC).eval(), networks()
    again = ws.models.load_model(ws.models.save_model(model, tmp_path / "model")).eval()
    assert type(again) is type(model)
    assert torch.equal(numbers(again(w)), numbers(model(w)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_saved_model_keeps_its_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    model = ws.models.MLP(SPEC, 3, hidden=np.int64(8), layers=2).to(dtype).eval()  # pyright: ignore
    again = ws.models.load_model(ws.models.save_model(model, tmp_path)).eval()
    w = networks(dtype=torch.float64).to(dtype)
    assert torch.equal(again(w), model(w))
    assert again.options["hidden"] == 8


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    folder = ws.models.save_model(ws.models.MLP(SPEC, 3, hidden=8), tmp_path / "model")
    other = ws.models.save_model(ws.models.MLP(SPEC, 4, hidden=8), tmp_path / "other")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"model.safetensors: expected the weights of model.json's model"):
        ws.models.load_model(folder)
    (folder / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"model.safetensors: expected the weights of model.json's model"):
        ws.models.load_model(folder)
    about = (folder / "model.json").read_text()
    (folder / "model.json").write_text(about.replace('"float32"', '"number"'))
    with pytest.raises(ValueError, match=r"model.json: expected a dtype such as 'float32', got 'number'"):
        ws.models.load_model(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(ValueError, match=r"model.json: expected JSON as ws.models.save_model writes it"):
        ws.models.load_model(folder)


@every_model
@pytest.mark.skipif("WEIGHTSPACE_SLOW" not in os.environ, reason="slow: set WEIGHTSPACE_SLOW=1")
def test_a_model_compiles(row: Row) -> None:
    torch._dynamo.reset()
    model, w = row.build(SPEC), networks()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(numbers(compiled(w)), numbers(model(w)), atol=1e-5, rtol=1e-5)


@every_model
def test_unsupported_specs_are_refused(row: Row, conv_spec: ws.NetSpec) -> None:
    if row.name in ANY_SPEC:
        assert numbers(row.build(conv_spec)(networks(conv_spec))).shape[0] == 6
        return
    for spec in (conv_spec, residual()):
        with pytest.raises(ValueError, match=r"reads sequential networks of linear layers alone: expected a chain"):
            row.build(spec)
    with pytest.raises(ValueError, match="expected at least one hidden axis, got none"):
        row.build(ws.mlp(2, 3))


@every_model
@pytest.mark.parametrize("size", [{"hidden": 1}, {"hidden": 0}, {"layers": 0}, {"dropout": 1.5}])
def test_bad_sizes_are_refused(row: Row, size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(size))}: expected .*, got"):
        MODELS[row.name](SPEC, row.out_features, **size)  # pyright: ignore
    with pytest.raises(ValueError, match="out_features: expected at least 1, got 0"):
        MODELS[row.name](SPEC, 0)  # pyright: ignore
    for bad in (10.0, "10", None, True):
        with pytest.raises(TypeError, match="out_features: expected a whole number, got"):
            MODELS[row.name](SPEC, bad)  # pyright: ignore
    for name in ("hidden", "layers", "dropout"):
        with pytest.raises(TypeError, match=f"{name}: expected .*, got 'a'"):
            MODELS[row.name](SPEC, 3, **{name: "a"})  # pyright: ignore
    with pytest.raises(TypeError, match="spec: expected a NetSpec, got str"):
        ws.models.build(row.name, "siren", 3)  # pyright: ignore


@pytest.mark.parametrize("name", sorted(MODELS))
def test_dropout_acts_in_training_alone(name: str) -> None:
    model, w = ws.models.build(name, SPEC, 3, hidden=8, layers=1, dropout=0.5), networks()
    assert not torch.equal(model(w), model(w))
    model.eval()
    assert torch.equal(model(w), model(w))


def test_build_knows_names_and_passes_options() -> None:
    assert type(ws.models.build("dwsnet", SPEC, 2, hidden=4, layers=1)) is DWSNet
    with pytest.raises(ValueError, match=r"unknown model: expected one of \['dwsnet', 'forward-.*got 'resnet'"):
        ws.models.build("resnet", SPEC, 2)
    with pytest.raises(TypeError, match="width"):
        ws.models.build("mlp", SPEC, 2, width=4)


def test_dwsnet_refuses_what_it_cannot_read() -> None:
    with pytest.raises(ValueError, match=r"at least one hidden axis, got none; use ws.models.MLP"):
        DWSNet(ws.mlp(2, 3), 4)
    with pytest.raises(ValueError, match="head: expected 'invariant' or 'equivariant', got 'mean'"):
        DWSNet(SPEC, 4, head="mean")  # pyright: ignore
    plain = ws.mlp(2, 3)
    assert ws.models.MLP(plain, 4, hidden=8)(networks(plain)).shape == (6, 4)


def test_dwsnet_reads_convolutions(conv_spec: ws.NetSpec) -> None:
    testing.assert_invariant(DWSNet(conv_spec, 3, hidden=4, layers=2), conv_spec, **TIGHT)
    testing.assert_equivariant(DWSNet(conv_spec, 1, hidden=4, layers=1, head="equivariant"), conv_spec, **TIGHT)
    testing.assert_equivariant(EquivariantLinear(conv_spec, 2, 3), conv_spec, **TIGHT)


# The equivariant layer is the whole space of equivariant maps.


def conv(in_size: int, h1: int, h2: int, k: int, pos: int, out: int) -> ws.NetSpec:
    axes = [ws.Axis("in", in_size), ws.Axis("h1", h1, "relu"), ws.Axis("h2", h2, "relu")]
    axes += [ws.Axis("k", k), ws.Axis("pos", pos), ws.Axis("out", out)]
    weights = {"c1": ("h1", "in", "k", "k"), "c2": ("h2", "h1", "k", "k"), "fc": ("out", "h2", "pos")}
    params = [ws.Param(f"{name}.weight", shape) for name, shape in weights.items()]
    biases = [ws.Param(f"{name}.bias", (shape[0],), "bias") for name, shape in weights.items()]
    return ws.NetSpec(tuple(axes), (*params, *biases))


def residual() -> ws.NetSpec:
    """Two blocks that write to one stream: the axis "h" is in four parameters."""
    axes = (ws.Axis("in", 2), ws.Axis("h", 3, "relu"), ws.Axis("m", 2, "relu"), ws.Axis("out", 1))
    names = {"up": ("h", "in"), "a": ("m", "h"), "b": ("h", "m"), "down": ("out", "h")}
    return ws.NetSpec(axes, (*(ws.Param(n, a) for n, a in names.items()), ws.Param("bias", ("h",), "bias")))


SMALL = {
    "2-3-2-1": ws.mlp(2, 3, 2, 1),
    "1-2-3-2": ws.mlp(1, 2, 3, 2),
    "2-4-1": ws.mlp(2, 4, 1),
    "1-2-3-2-1": ws.mlp(1, 2, 3, 2, 1),
    "2-3-2-1 without biases": ws.mlp(2, 3, 2, 1, bias=False),
    "with an axis of one neuron": ws.mlp(2, 1, 3, 1),
    "without hidden axes": ws.mlp(2, 2),
    "convolutions": conv(1, 2, 3, 2, 2, 1),
    "residual": residual(),
}
every_small = pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)


def group(spec: ws.NetSpec) -> Tensor:
    """All elements of the group as permutation matrices of the flat vector, ``[element, param, param]``."""
    choices = [list(itertools.permutations(range(axis.size))) for axis in spec.hidden]
    elements = list(itertools.product(*choices))
    perms = {axis.name: torch.tensor([e[i] for e in elements]) for i, axis in enumerate(spec.hidden)}
    count = spec.num_params
    position = ws.Weights(torch.arange(count, dtype=torch.float64).expand(len(elements), -1), spec)
    moved = ws.Symmetry(spec, len(elements), perms, {}, {}).act(position).flat.long()
    return nn.functional.one_hot(moved, count).double()


def matrix(layer: EquivariantLinear) -> Tensor:
    """The layer without its bias as a matrix ``[param, param]``."""
    eye = torch.eye(layer.spec.num_params, dtype=torch.float64)[..., None]
    zero = torch.zeros_like(eye)
    with torch.no_grad():
        return (layer(ws.Weights(eye, layer.spec)).flat - layer(ws.Weights(zero, layer.spec)).flat)[..., 0].t()


def basis(spec: ws.NetSpec) -> Tensor:
    """The matrix of every single free parameter of the layer, ``[parameter, param * param]``."""
    layer = EquivariantLinear(spec, 1, 1, bias=False).double()
    rows = []
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for parameter in layer.parameters():
            for i in range(parameter.numel()):
                parameter.view(-1)[i] = 1.0
                rows.append(matrix(layer).flatten())
                parameter.view(-1)[i] = 0.0
    return torch.stack(rows)


@every_small
def test_rank_is_the_dimension_found_by_averaging_over_the_group(spec: ws.NetSpec) -> None:
    elements, maps = group(spec), basis(spec)
    traces = elements.diagonal(dim1=1, dim2=2).sum(1)  # fixed entries of each element
    dimension = round(traces.square().mean().item())
    assert abs(traces.square().mean().item() - dimension) < 1e-9
    assert int(torch.linalg.matrix_rank(maps)) == dimension
    if all(axis.size > 1 for axis in spec.hidden):
        assert len(maps) == dimension  # no parameter is redundant


@every_small
def test_every_map_of_the_layer_commutes_and_every_commuting_map_is_in_it(spec: ws.NetSpec) -> None:
    elements, maps = group(spec), basis(spec)
    one = (torch.randn(len(maps), dtype=torch.float64) @ maps).view(spec.num_params, -1)
    torch.testing.assert_close(elements @ one, one @ elements, atol=1e-10, rtol=0)
    dense = torch.randn(3, spec.num_params, spec.num_params, dtype=torch.float64)
    averaged = torch.stack([(elements.mT @ m @ elements).mean(0) for m in dense]).flatten(1)

    def outside(targets: Tensor, span: Tensor) -> float:
        found = torch.linalg.lstsq(span.t(), targets.t(), driver="gelsd").solution
        return (span.t() @ found - targets.t()).abs().max().item()

    assert outside(averaged, maps) < 1e-9
    if len(elements) > 1:
        assert outside(dense.flatten(1), maps) > 1e-2  # what was not averaged is not in it
        thinned = maps[torch.arange(len(maps)) != len(maps) - 1]
        if all(axis.size > 1 for axis in spec.hidden):
            assert outside(averaged, thinned) > 1e-6  # and a layer with one map less would be noticed


@every_small
def test_the_bias_is_every_invariant_vector(spec: ws.NetSpec) -> None:
    elements, layer = group(spec), EquivariantLinear(spec, 1, 1).double()
    biases = [linear.bias for linear in layer.maps if linear.bias is not None]
    zero = ws.Weights(torch.zeros(1, spec.num_params, 1, dtype=torch.float64), spec)
    rows = []
    with torch.no_grad():
        for bias in biases:
            for i in range(bias.numel()):
                bias[i] = 1.0
                rows.append(layer(zero).flat.flatten())
                bias[i] = 0.0
    vectors = torch.stack(rows)
    fixed = elements.diagonal(dim1=1, dim2=2).sum(1).mean().item()
    assert int(torch.linalg.matrix_rank(vectors)) == len(vectors) == round(fixed)
    torch.testing.assert_close(vectors @ elements.mT, vectors.expand(len(elements), -1, -1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("channels", "out"), [(1, 1), (2, 3)])
def test_the_layer_is_equivariant_on_random_specs(seed: int, channels: int, out: int) -> None:
    spec = random_spec(20 + seed)
    layer = EquivariantLinear(spec, channels, out)
    testing.assert_equivariant(layer, spec, **TIGHT)
    testing.assert_equivariant(layer, spec, dtype=torch.float32)
    free = sum(p.numel() for p in EquivariantLinear(spec, channels, out, bias=False).parameters())
    assert free == channels * out * sum(p.numel() for p in EquivariantLinear(spec, 1, 1, bias=False).parameters())


def test_parameters_have_one_order_in_every_process() -> None:
    """By first appearance in the spec, never by the order of a Python set, which changes from run to run."""
    spec = ws.mlp(2, *range(2, 12), 1)
    hidden = [axis.name for axis in spec.hidden]
    pairs = [pair[::-1] for pair in itertools.pairwise(hidden)]
    layer = EquivariantLinear(spec, 1, 1)
    assert layer.sets == [(), *((name,) for name in hidden), *pairs]
    torch.manual_seed(5)
    a = EquivariantLinear(spec, 1, 1).state_dict()
    torch.manual_seed(5)
    b = EquivariantLinear(spec, 1, 1).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("layers", [1, 4])
def test_features_stay_of_order_one_at_the_start(layers: int) -> None:
    spec = ws.siren(2, 32, 32, 1)
    w = ws.Weights(torch.randn(32, spec.num_params), spec)
    model = DWSNet(spec, 4, hidden=16, layers=layers, head="equivariant")
    assert 0.1 < model(w).flat.std() < 10


def test_the_layer_and_the_head_refuse_other_features() -> None:
    layer, head = EquivariantLinear(SPEC, 2, 3), InvariantHead(SPEC, 2, 3)
    features = ws.Weights(torch.randn(4, SPEC.num_params, 2), SPEC)
    for module in (layer, head):
        module(features)
        with pytest.raises(ValueError, match=r"expected features \[batch, param, 2\].*got \[4, 44, 3\]"):
            module(features.replace(torch.randn(4, 44, 3)))
        with pytest.raises(ValueError, match=r"expected features \[batch, param, 2\].*got \[4, 44\]"):
            module(networks()[:4])
        with pytest.raises(ValueError, match="built for"):
            module(ws.Weights(features.flat, ws.siren(2, 5, 4, 1, omega=3.0)))
    for bad in (EquivariantLinear, InvariantHead):
        with pytest.raises(TypeError, match="spec: expected a NetSpec, got NoneType"):
            bad(None, 2, 2)  # pyright: ignore
    with pytest.raises(TypeError, match="out_channels: expected a whole number, got"):
        EquivariantLinear(SPEC, 2, 2.5)  # pyright: ignore
    with pytest.raises(ValueError, match="at least one channel, got in_channels=0"):
        EquivariantLinear(SPEC, 0, 1)


# Broken layers must fail: equal widths, so that every wrong axis has the right size.

SQUARE = ws.mlp(4, 4, 4, 4)


class Dense(nn.Module):
    """A plain matrix on the flat vector."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SQUARE.num_params, SQUARE.num_params)

    def forward(self, w: ws.Weights) -> ws.Weights:
        return w.replace(self.linear(w.flat))


def _put(w: ws.Weights, name: str, value: Tensor) -> ws.Weights:
    out = w.clone()
    out.view(name).add_(value)
    return out


WRONG = {
    "pools the wrong axis": lambda w: _put(w, "0.bias", w.view("1.weight").mean(2)),
    "broadcasts along the wrong axis": lambda w: _put(w, "1.weight", w.view("0.bias")[:, :, None]),
    "transposes": lambda w: _put(w, "1.weight", w.view("1.weight").mT),
    "takes one layer's neurons for another's": lambda w: _put(w, "1.bias", w.view("0.bias")),
    "a bias of its own for every neuron": lambda w: _put(w, "0.bias", torch.arange(4, dtype=w.dtype)),
    "takes the first neuron": lambda w: _put(w, "0.bias", w.view("0.bias")[:, :1]),
}
RIGHT = {
    "pools the right axis": lambda w: _put(w, "1.bias", w.view("1.weight").mean(2)),
    "broadcasts along the right axis": lambda w: _put(w, "1.weight", w.view("0.bias")[:, None, :]),
    "one bias for all neurons": lambda w: _put(w, "0.bias", torch.ones(4, dtype=w.dtype)),
    "takes the mean neuron": lambda w: _put(w, "0.bias", w.view("0.bias").mean(1, keepdim=True)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_layer_fails(name: str) -> None:
    with pytest.raises(AssertionError, match=r"equivariance \(permutation\): largest difference"):
        testing.assert_equivariant(WRONG[name], SQUARE, **TIGHT)


@pytest.mark.parametrize("name", RIGHT)
def test_its_mended_twin_passes(name: str) -> None:
    testing.assert_equivariant(RIGHT[name], SQUARE, **TIGHT)


def test_a_dense_layer_fails() -> None:
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(Dense(), SQUARE, **TIGHT)


class MixedUp(EquivariantLinear):
    """The real layer, but its output has two axes of one parameter exchanged."""

    def forward(self, features: ws.Weights) -> ws.Weights:
        out = super().forward(features).clone()
        out.view("1.weight").copy_(out.view("1.weight").transpose(1, 2).clone())
        return out


def test_the_real_layer_with_one_mistake_fails() -> None:
    testing.assert_equivariant(EquivariantLinear(SQUARE, 2, 3), SQUARE, **TIGHT)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(MixedUp(SQUARE, 2, 3), SQUARE, **TIGHT)


class FirstNeuron(InvariantHead):
    """A head that reads one neuron besides the pools."""

    def forward(self, features: ws.Weights) -> Tensor:
        return super().forward(features) + 1e-3 * features.flat[:, 0, :1]


def test_a_model_with_a_broken_head_fails() -> None:
    model = DWSNet(SPEC, 3, hidden=4, layers=1)
    testing.assert_invariant(model, SPEC, **TIGHT)
    model.head = FirstNeuron(SPEC, 4, 3)
    with pytest.raises(AssertionError, match=r"invariance \(permutation\): largest difference"):
        testing.assert_invariant(model, SPEC, **TIGHT)


# Normalisation.


def shifted(spec: ws.NetSpec = SPEC, batch: int = 400) -> ws.Weights:
    """Every parameter of another mean and spread, every input column of the first layer too."""
    gen = torch.Generator().manual_seed(2)
    w = ws.Weights(torch.randn(batch, spec.num_params, generator=gen), spec)
    for i, (_, value) in enumerate(w.items()):
        value.mul_(0.01 + i).add_(3 * i)
    w.view("0.weight")[..., 1].mul_(5).sub_(7)
    return w


def test_statistics_are_shared_by_what_permutations_exchange() -> None:
    w = shifted()
    layer = Normalize(SPEC).fit(w)
    out = layer(w)
    for param in SPEC.params:
        fixed = [i for i, name in enumerate(param.axes, start=1) if not SPEC.axis(name).hidden]
        rest = [i for i in range(len(param.axes) + 1) if i not in fixed]
        assert out.view(param.name).mean(rest).abs().max() < 1e-4, param.name
        assert (out.view(param.name).std(rest) - 1).abs().max() < 1e-4, param.name
        own = ws.Weights(layer.mean[None], SPEC).view(param.name)
        for i in rest[1:]:
            assert torch.equal(own, own.narrow(i, 0, 1).expand_as(own)), param.name
    column = ws.Weights(layer.mean[None], SPEC).view("0.weight")[0, 0]
    assert (column[1] - column[0]).abs() > 5  # each input coordinate keeps statistics of its own


def test_every_entry_may_have_its_own_statistics() -> None:
    w = shifted()
    layer = Normalize(SPEC, per="entry").fit(w)
    torch.testing.assert_close(layer.mean, w.flat.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer.std, w.flat.std(0), atol=1e-4, rtol=1e-4)
    assert layer(w).flat.mean(0).abs().max() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_shared_statistics_commute_with_permutations_and_own_ones_do_not(seed: int) -> None:
    spec = random_spec(40 + seed)
    testing.assert_equivariant(fitted(Normalize(spec), spec), spec, **TIGHT)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(fitted(Normalize(spec, per="entry"), spec), spec, **TIGHT)


@pytest.mark.parametrize("per", ["tensor", "entry"])
def test_constant_entries_stay_finite(per) -> None:
    w = networks()
    w.view("1.bias").fill_(2.0)
    out = Normalize(SPEC, per=per).fit(w)(w)
    assert torch.isfinite(out.flat).all()
    assert (out.view("1.bias") == 0).all()


def test_an_unfitted_normalisation_changes_nothing_and_fitting_is_recorded() -> None:
    w, layer = networks(), Normalize(SPEC)
    assert torch.equal(layer(w).flat, w.flat)
    assert not bool(layer.fitted)
    before = w.flat.clone()
    assert bool(layer.fit(w).fitted)
    assert torch.equal(w.flat, before)


def test_normalisation_refuses_what_has_no_statistics() -> None:
    w, layer = networks(), Normalize(SPEC)
    other = ws.Weights(w.flat, ws.siren(2, 5, 4, 1, omega=3.0))
    for door in (layer, layer.fit):
        with pytest.raises(ValueError, match="built for"):
            door(other)
    with pytest.raises(ValueError, match=r"at least 2 networks.*got \[1, 44\]"):
        layer.fit(w[0])
    with pytest.raises(ValueError, match=r"expected weights \[batch, param\]"):
        layer.fit(w.replace(w.flat[..., None]))
    bad = w.clone()
    bad.flat[2, 3] = math.nan
    with pytest.raises(ValueError, match="expected finite weights, got 1 networks"):
        layer.fit(bad)
    assert not bool(layer.fitted)
    with pytest.raises(ValueError, match="per: expected 'tensor', 'entry' or 'nothing', got 'axis'"):
        Normalize(SPEC, per="axis")  # pyright: ignore
